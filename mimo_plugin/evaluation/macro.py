"""One test over all languages: the difference in macro averages, topics resampled within their language.

The macro average weighs a topic by 1 / (languages x topics of its language). Where topics are language
versions of one topic, their scores go up and down together; taken one by one they would look like more
evidence than they are. So the versions of a topic form one unit: they are relabelled together and
resampled together.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.evaluation.randomisation import randomised_p
from mimo_plugin.evaluation.significance import TINY, Outcome, Pair, Plan, Values, difference, pairs_of
from mimo_plugin.evaluation.topics import Topics

_CELLS_A_BATCH = 1_000_000


class Units(NamedTuple):
    """What is relabelled and resampled as one: a topic, or all versions of a topic.

    contributions: (runs, units), summing to each run's macro average. centred: the same of the scores
    minus their run's mean in that language. stratum: (units,) the group within which a unit is resampled.
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
    """Tests the macro averages of every pair of rows; with more than two rows, of all pairs at once.
    values: (runs, n)

    p: randomisation of the run labels within units (see `randomised_p`). Interval: percentile bootstrap
    within strata, see `_bootstrap`; with more than two runs the same margin for every pair, the quantile
    of the largest deviation of any difference, as in Tukey's intervals.
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
    """How far the macro averages of resampled topics lie from the observed ones. (runs, samples)

    Units are drawn with replacement within their stratum; the deviations are scaled by sqrt(m / (m - 1))
    for m units, so that their variance is the unbiased estimate. In simulations on scores like nDCG's
    differences (half of them 0, the others skewed) these percentiles covered at least as well as BCa at
    every size, and clearly better below 30 topics; BCa is also undefined where a language has one topic
    or constant differences.
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
