"""Paired comparisons of runs on the topics of one language: Student's t and Tukey's HSD."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from sys import float_info
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.evaluation.choices import Correction, SignificanceTest

# Scores lie in [0, 1]: a smaller difference is the rounding of two ways to the same score.
TINY = 1e-12

Values = NDArray[np.float64]
Pair = tuple[int, int]  # rows of the values: baseline, run

ALL_EQUAL = "every difference is the same, so they have no variance"
ONE_TOPIC = "one topic has no variance"
UPPER_BOUND = "p is an upper bound: it is too small to be computed"

# scipy's integral of the studentised range was seen to err by up to 4e-11: much smaller p are noise, or 0.
_TUKEY_RESOLVED = 1e-9


@dataclass(frozen=True)
class Plan:
    """How runs are compared.

    alpha: level of the tests; intervals have confidence 1 - alpha. permutations: most sign patterns (or
    label permutations, or bootstrap samples) that are drawn. Every test starts from the same seed, so
    that no row of a table depends on the others.
    """

    test: SignificanceTest
    correction: Correction = Correction.HOLM
    alpha: float = 0.05
    permutations: int = 10_000
    seed: int = 42


class Outcome(NamedTuple):
    """What a test says about one pair; None where it has nothing to say, and then why in `note`.

    No p is 0: one that is too small to be computed is replaced by an upper bound, and `note` is
    `UPPER_BOUND`.
    """

    p: float | None
    ci_low: float | None
    ci_high: float | None
    note: str = ""


def pairs_of(values: Values) -> list[Pair]:
    return list(combinations(range(len(values)), 2))


def difference(values: Values, pair: Pair) -> Values:
    """Run minus baseline, topic by topic, without the rounding of the last digits. values: (runs, n) ->
    (n,)"""
    baseline, run = pair
    change: Values = values[run] - values[baseline]
    change[np.abs(change) < TINY] = 0.0
    return change


def degenerate(change: Values) -> Outcome | None:
    """What every test on normal theory says when the differences do not vary; None when they do."""
    if not change.any():
        return Outcome(1.0, 0.0, 0.0)
    if len(change) == 1:
        return Outcome(None, None, None, ONE_TOPIC)
    if np.ptp(change) < TINY:
        return Outcome(None, None, None, ALL_EQUAL)
    return None


def student(values: Values, plan: Plan) -> dict[Pair, Outcome]:
    """Paired two-sided t test and its interval for every pair of rows. values: (runs, n)"""
    from scipy.stats import ttest_rel

    outcomes = {}
    for pair in pairs_of(values):
        change = difference(values, pair)
        outcome = degenerate(change)
        if outcome is None:
            result = ttest_rel(change, np.zeros_like(change))
            low, high = result.confidence_interval(1 - plan.alpha)
            p = float(result.pvalue)
            note = "" if p >= float_info.min else UPPER_BOUND
            outcome = Outcome(max(p, float_info.min), float(low), float(high), note)
        outcomes[pair] = outcome
    return outcomes


def tukey_hsd(values: Values, plan: Plan) -> dict[Pair, Outcome]:
    """Tukey's honestly significant differences with topics as blocks. values: (runs, n)

    Two-way layout without replication, score = run + topic + error; the error's mean square has (runs -
    1)(n - 1) degrees of freedom, the largest of the differences follows the studentised range. p-values
    and intervals hold for all pairs at once. Unlike the unpaired test of the same name, easy and hard
    topics cost no power. Source: Carterette, Multiple testing in statistical analysis of systems-based IR
    experiments, TOIS 30(1), 2012.
    """
    runs, topics = values.shape
    freedom = (runs - 1) * (topics - 1)
    residual = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    error = float(np.sum(residual**2)) / freedom if freedom else 0.0
    outcomes = {}
    for pair in pairs_of(values):
        change = difference(values, pair)
        mean = float(change.mean())
        if error < TINY**2:
            outcome = degenerate(change) or Outcome(None, None, None, ALL_EQUAL)
        else:
            scale = np.sqrt(error / topics)
            p, note = _tukey_p(abs(mean) / scale, runs, freedom)
            margin = _range_quantile(1 - plan.alpha, runs, freedom) * scale
            outcome = Outcome(p, mean - margin, mean + margin, note)
        outcomes[pair] = outcome
    return outcomes


def _tukey_p(statistic: float, runs: int, freedom: int) -> tuple[float, str]:
    """The p of a studentised range, and a note where it is too small for the integral.

    There it is Bonferroni's bound, the number of pairs times the p of a pair's own t = statistic /
    sqrt(2), which is never below Tukey's p.
    """
    from scipy.stats import studentized_range, t

    p = min(1.0, float(studentized_range.sf(statistic, runs, freedom)))
    if p >= _TUKEY_RESOLVED:
        return p, ""
    bound = runs * (runs - 1) * float(t.sf(statistic / np.sqrt(2), freedom))
    return max(bound, float_info.min), UPPER_BOUND


@lru_cache(maxsize=256)
def _range_quantile(level: float, runs: int, freedom: int) -> float:
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, runs, freedom))
