"""A reproduction's results as a page for readers, with its figures and tables as files beside.

Nothing is computed here that the results do not hold: the report shows their numbers, rounded, and the exact
ones with them.
"""

from mimo_plugin.report.writing import write_report

__all__ = ["write_report"]
