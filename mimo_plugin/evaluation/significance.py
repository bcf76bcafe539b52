"""Paired tests: Student's t, randomisation, Tukey's HSD, and tests of macro averages."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import factorial, floor
from sys import float_info
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.evaluation.options import Correction, SignificanceTest
from mimo_plugin.evaluation.topics import Topics

# Scores lie in [0, 1]: a smaller difference comes from rounding.
TINY = 1e-12

Values = NDArray[np.float64]
Pair = tuple[int, int]  # rows of the values: baseline, run

ALL_EQUAL = "every difference is the same, so they have no variance"
ONE_TOPIC = "one topic has no variance"
UPPER_BOUND = "p is an upper bound: it is too small to be computed"

# scipy's integral of the studentised range has errors of up to 4e-11: much smaller p are noise, or 0.
_TUKEY_RESOLVED = 1e-9


@dataclass(frozen=True)
class Plan:
    """How runs are compared.

    Every test starts from the same seed, so that no row of a table depends on the others.

    Attributes:
        alpha: level of the tests; intervals have confidence 1 - alpha.
        permutations: largest number of sign patterns, label permutations or bootstrap samples.
    """

    test: SignificanceTest
    correction: Correction = Correction.HOLM
    alpha: float = 0.05
    permutations: int = 10_000
    seed: int = 42


class Outcome(NamedTuple):
    """The result of a test for one pair. Undefined values are None, and `note` says why.

    p is never 0: if it is too small to be computed, it is an upper bound, and `note` is `UPPER_BOUND`.
    """

    p: float | None
    ci_low: float | None
    ci_high: float | None
    note: str = ""


def pairs_of(values: Values) -> list[Pair]:
    return list(combinations(range(len(values)), 2))


def difference(values: Values, pair: Pair) -> Values:
    """Run minus baseline per topic, with differences from rounding set to 0. values: (runs, n) -> (n,)"""
    baseline, run = pair
    change: Values = values[run] - values[baseline]
    change[np.abs(change) < TINY] = 0.0
    return change


def degenerate(change: Values) -> Outcome | None:
    """The outcome of a test on normal theory if the differences do not vary; None if they do."""
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

    Two-way layout without replication, score = run + topic + error; the error's mean square has (runs - 1)(n
    - 1) degrees of freedom, and the largest difference follows the studentised range. p-values and intervals
    hold for all pairs at once. Unlike in the unpaired test of that name, easy and hard topics cost no power.
    Source: Carterette, Multiple testing in statistical analysis of systems-based IR experiments, TOIS 30(1),
    2012.
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
    """The p of a studentised range, and a note if it is too small for the integral.

    In that case p is Bonferroni's bound: the number of pairs times the p of the pair's t = statistic /
    sqrt(2). It is never below Tukey's p.
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


_CELLS_A_BATCH = 1_000_000  # bounds memory to some tens of MB for any number of topics


def permutation(values: Values, plan: Plan) -> dict[Pair, Outcome]:
    """Paired randomisation test of the mean difference, with its interval. values: (2, n)"""
    topics = values.shape[1]
    outcomes = randomised_p(values / topics, plan)
    low, high, note = subset_mean_interval(difference(values, (0, 1)), plan)
    return {pair: Outcome(p, low, high, note) for pair, p in outcomes.items()}


def randomised_p(contributions: Values, plan: Plan) -> dict[Pair, float]:
    """p-values of differences between row sums, under random exchange of the rows' labels within each column.

    The statistic is the largest difference between any two runs, so p-values hold for all pairs at once
    (randomised Tukey HSD: Carterette, TOIS 30(1), 2012). With two runs it is the paired sign-flip test. All
    permutations are used if there are at most `plan.permutations`. Otherwise that many are drawn, and the
    observed labels are counted with them (Phipson and Smyth, SAGMB 9(1), 2010), so p is never 0.

    Args:
        contributions: (runs, units), the amount that a unit (topic) adds to each run's mean.
    """
    from scipy.stats import permutation_test

    runs = len(contributions)
    # A unit with equal values for all runs does not change under permutation.
    units = contributions[:, np.ptp(contributions, axis=0) > TINY / max(1, contributions.shape[1])]
    observed = {
        pair: abs(float(units[pair[1]].sum() - units[pair[0]].sum())) for pair in pairs_of(contributions)
    }
    if units.shape[1] < 2:
        # With at most one unit, every permutation has the same largest difference.
        return dict.fromkeys(observed, 1.0)
    exact = factorial(runs) ** units.shape[1] <= plan.permutations
    null = permutation_test(
        tuple(units),
        _largest_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=plan.permutations,
        batch=max(1, _CELLS_A_BATCH // units.size),
        alternative="greater",
        rng=np.random.default_rng(plan.seed),
    ).null_distribution
    extra = 0 if exact else 1
    return {
        pair: (int(np.count_nonzero(null >= value - TINY)) + extra) / (len(null) + extra)
        for pair, value in observed.items()
    }


def _largest_difference(*samples: Values, axis: int) -> Values:
    sums = np.stack([np.sum(sample, axis=axis) for sample in samples])
    return np.asarray(np.ptp(sums, axis=0))


def subset_mean_interval(change: Values, plan: Plan) -> tuple[float | None, float | None, str]:
    """The interval of mean differences that the sign-flip test does not reject. change: (n,)

    For a shift by m, the test counts the sign patterns whose flipped topics have a mean below (or above) m.
    So the ends are order statistics of the means of all non-empty subsets, or of random subsets (Hartigan,
    JASA 64, 1969). Both are None, with the reason, if there are too few topics for the level.
    """
    topics = len(change)
    if not change.any():
        return 0.0, 0.0, ""
    means = np.sort(np.concatenate(list(_subset_means(change, plan))))
    tail = floor((len(means) + 1) * plan.alpha / 2 + TINY)
    if tail == 0:
        return None, None, f"{topics} topics are too few for an interval at this level"
    return float(means[tail - 1]), float(means[-tail]), ""


def _subset_means(change: Values, plan: Plan) -> Iterator[Values]:
    topics = len(change)
    batch = max(1, _CELLS_A_BATCH // topics)
    if topics < 60 and 2**topics <= plan.permutations:
        patterns = np.arange(1, 2**topics)
        for start in range(0, len(patterns), batch):
            yield _means(change, (patterns[start : start + batch, None] >> np.arange(topics)) & 1)
        return
    rng = np.random.default_rng(plan.seed)
    for start in range(0, plan.permutations, batch):
        shape = (min(batch, plan.permutations - start), topics)
        chosen = rng.integers(0, 2, size=shape, dtype=np.int8)
        yield _means(change, chosen[chosen.any(axis=1)])


def _means(change: Values, chosen: NDArray[np.integer]) -> Values:
    """Means of subsets, one per row of `chosen`, (subsets, n) of 0 and 1."""
    return np.asarray(chosen.astype(np.float64) @ change / chosen.sum(axis=1, dtype=np.int64))


class Units(NamedTuple):
    """Units of relabelling and resampling: a topic, or all versions of a topic.

    Attributes:
        contributions: (runs, units), with each run's macro average as their sum.
        centred: contributions of the scores minus the run's mean in the language.
        stratum: (units,) the group within which a unit is resampled.
    """

    contributions: Values
    centred: Values
    stratum: NDArray[np.intp]


def make_units(values: Values, topics: Topics) -> Units:
    """Gathers scores into units. values: (runs, n)"""
    languages = len(topics.languages)
    numbers = np.bincount(topics.language_of, minlength=languages)
    weights = 1.0 / (languages * numbers[topics.language_of])
    means = np.stack([np.bincount(topics.language_of, row, languages) / numbers for row in values])
    stratum = np.zeros(topics.blocks, dtype=np.intp)
    if not topics.parallel:
        stratum[topics.block_of] = topics.language_of
    return Units(
        _sum_by_block(values * weights, topics),
        _sum_by_block((values - means[:, topics.language_of]) * weights, topics),
        stratum,
    )


def _sum_by_block(values: Values, topics: Topics) -> Values:
    return np.stack([np.bincount(topics.block_of, row, topics.blocks) for row in values])


def macro_test(values: Values, topics: Topics, plan: Plan) -> dict[Pair, Outcome]:
    """Tests the macro averages of all pairs of rows at once. values: (runs, n)

    p: randomisation of the run labels within units, see `randomised_p`. Interval: percentile bootstrap within
    strata, see `_bootstrap`. With more than two runs, every pair has the same margin: the quantile of the
    largest deviation of any difference, as in Tukey's intervals.
    """
    units = make_units(values, topics)
    p_values = randomised_p(units.contributions, plan)
    alone = np.flatnonzero(np.bincount(units.stratum) < 2)
    outcomes = {}
    deviations = _bootstrap(units, plan) if len(alone) == 0 else None
    for pair in pairs_of(values):
        change = float(units.contributions[pair[1]].sum() - units.contributions[pair[0]].sum())
        if not difference(values, pair).any():
            outcome = Outcome(p_values[pair], 0.0, 0.0)
        elif deviations is None:
            which = (
                "all topics are versions of one"
                if topics.parallel
                else f"{topics.languages[alone[0]]} has one topic"
            )
            outcome = Outcome(p_values[pair], None, None, f"no interval: {which}, and nothing to resample")
        else:
            outcome = _interval(change, p_values[pair], deviations, pair, plan)
        outcomes[pair] = outcome
    return outcomes


def _interval(change: float, p: float, deviations: Values, pair: Pair, plan: Plan) -> Outcome:
    own = deviations[pair[1]] - deviations[pair[0]]
    if np.ptp(own) < TINY:
        return Outcome(p, None, None, "no interval: the differences do not vary within languages")
    if len(deviations) == 2:
        low, high = np.quantile(own, [plan.alpha / 2, 1 - plan.alpha / 2])
        return Outcome(p, change + float(low), change + float(high))
    margin = float(np.quantile(np.ptp(deviations, axis=0), 1 - plan.alpha))
    return Outcome(p, change - margin, change + margin)


def _bootstrap(units: Units, plan: Plan) -> Values:
    """Deviations of the macro averages of resampled topics from the observed ones. (runs, samples)

    Units are drawn with replacement within their stratum. Deviations are scaled by sqrt(m / (m - 1)) for m
    units, so that their variance is the unbiased estimate. In simulations on scores like nDCG's differences
    (half of them 0, the others skewed), percentiles had at least the coverage of BCa at every size, and
    clearly better coverage below 30 topics. BCa is also undefined if a language has one topic or constant
    differences.
    """
    from scipy.stats import bootstrap

    sizes = np.bincount(units.stratum)
    samples = tuple(
        units.centred[:, units.stratum == stratum] * np.sqrt(size / (size - 1))
        for stratum, size in enumerate(sizes)
    )
    result = bootstrap(
        samples,
        _total,
        vectorized=True,
        axis=-1,
        n_resamples=plan.permutations,
        batch=max(1, _CELLS_A_BATCH // units.centred.size),
        method="percentile",
        rng=np.random.default_rng(plan.seed),
    )
    return np.asarray(result.bootstrap_distribution)


def _total(*samples: Values, axis: int) -> Values:
    return np.asarray(sum(np.sum(sample, axis=axis) for sample in samples))
