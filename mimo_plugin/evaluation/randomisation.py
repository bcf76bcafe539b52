"""Randomisation of run labels within topics: the paired sign-flip test, and its form for many runs at
once."""

from collections.abc import Iterator
from math import factorial, floor

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.evaluation.significance import TINY, Outcome, Pair, Plan, Values, difference, pairs_of

_CELLS_A_BATCH = 1_000_000  # bounds memory to some tens of MB, whatever the number of topics


def permutation(values: Values, plan: Plan) -> dict[Pair, Outcome]:
    """Paired randomisation test of the mean difference and the interval that goes with it. values: (2,
    n)"""
    topics = values.shape[1]
    outcomes = randomised_p(values / topics, plan)
    low, high, note = subset_mean_interval(difference(values, (0, 1)), plan)
    return {pair: Outcome(p, low, high, note) for pair, p in outcomes.items()}


def randomised_p(contributions: Values, plan: Plan) -> dict[Pair, float]:
    """p-values of differences between row sums when, within each column, the rows' labels mean nothing.

    contributions: (runs, units), what a unit (topic) adds to each run's mean. The statistic is the
    largest difference between any two runs, so that p-values hold for all pairs at once (randomised Tukey
    HSD: Carterette, TOIS 30(1), 2012); with two runs it is the paired sign-flip test. All permutations
    are looked at when there are at most `plan.permutations`; otherwise so many are drawn and the observed
    one is counted with them (Phipson and Smyth, SAGMB 9(1), 2010): p is never 0.
    """
    from scipy.stats import permutation_test

    runs = len(contributions)
    # A unit on which all runs agree looks the same under every permutation.
    units = contributions[:, np.ptp(contributions, axis=0) > TINY / max(1, contributions.shape[1])]
    observed = {
        pair: abs(float(units[pair[1]].sum() - units[pair[0]].sum())) for pair in pairs_of(contributions)
    }
    if units.shape[1] < 2:
        # No unit, or one: its largest difference is the same under every permutation.
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
    """The mean differences that the sign-flip test does not reject, from the means of subsets. change:
    (n,)

    Shifted by m, the test counts the sign patterns whose flipped topics have a mean below m (or above):
    the ends are order statistics of the means of all non-empty subsets, or of random ones (Hartigan, JASA
    64, 1969). Both are None, with the reason, when there are too few topics for the level.
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
    """Means of the subsets that the rows of `chosen`, (subsets, n) of 0 and 1, pick."""
    return np.asarray(chosen.astype(np.float64) @ change / chosen.sum(axis=1, dtype=np.int64))
