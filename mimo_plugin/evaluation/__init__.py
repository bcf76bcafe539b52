"""Runs and qrels in, scores and significance out.

Plain data in: `evaluate` in `evaluation.py` loads collections, everything below it works on arrays and
dicts. Measures are computed by ranx, statistics by scipy and statsmodels; neither is imported before it
is needed.
"""
