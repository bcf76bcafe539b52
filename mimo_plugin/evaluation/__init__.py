"""Evaluation of runs: scores, significance tests, fusion, language bias, geometry.

`evaluate` opens collections; everything below it works on arrays and dicts. ranx computes measures, scipy and
statsmodels statistics. None of them is imported before it is needed.
"""
