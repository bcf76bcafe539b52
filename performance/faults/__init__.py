"""What goes wrong on real machines, made to go wrong on purpose; see `performance/reliability.py`."""
