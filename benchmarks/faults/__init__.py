"""What goes wrong on real machines, made to go wrong on purpose; see `benchmarks/reliability.py`."""
