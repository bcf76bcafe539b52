"""Runs and qrels in, scores and significance out.

`evaluate` opens collections; everything below it works on arrays and dicts. Measures are computed by ranx,
statistics by scipy and statsmodels; none of them is imported before it is needed.
"""
