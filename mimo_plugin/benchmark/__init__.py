"""Benchmarks as configs, reproduced; grids of systems and seeds; analysis of encoders."""
