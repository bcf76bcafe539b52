"""The macro test against enumeration, closed forms and simulation."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import scipy.stats
from helpers.evaluation_samples import differences, monolingual, parallel

from mimo_plugin.evaluation.options import SignificanceTest
from mimo_plugin.evaluation.significance import Plan, _bootstrap, macro_test, make_units

PLAN = Plan(SignificanceTest.STUDENT)


pytestmark = pytest.mark.filterwarnings("error")


def test_contributions_add_up_to_the_macro_average() -> None:
    topics = monolingual({"de": 3, "fi": 5, "ja": 2})
    values = np.random.default_rng(1).random((3, 10))
    units = make_units(values, topics)
    macro = np.mean([values[:, topics.language_of == language].mean(axis=1) for language in range(3)], axis=0)
    np.testing.assert_allclose(units.contributions.sum(axis=1), macro)
    np.testing.assert_allclose(units.centred.sum(axis=1), 0, atol=1e-15)


def test_p_is_the_enumerated_stratified_one() -> None:
    topics = monolingual({"de": 3, "fi": 6})
    change = np.random.default_rng(2).integers(-2, 5, 9)
    (outcome,) = macro_test(np.stack([np.zeros(9), change / 10]), topics, PLAN).values()
    weights = [Fraction(1, 3) if language == 0 else Fraction(1, 6) for language in topics.language_of]
    weighted = [weight * int(value) for weight, value in zip(weights, change, strict=True)]
    sums = [
        abs(sum(s * w for s, w in zip(signs, weighted, strict=True))) for signs in product((1, -1), repeat=9)
    ]
    assert outcome.p == sum(value >= abs(sum(weighted)) for value in sums) / len(sums)


def test_interval_is_the_normal_one_when_there_are_many_topics() -> None:
    rng = np.random.default_rng(3)
    topics = monolingual({"de": 300, "fi": 900})
    change = rng.normal(0.1, np.where(topics.language_of == 0, 0.5, 0.2))
    (outcome,) = macro_test(np.stack([np.zeros(1200), change]), topics, PLAN).values()
    parts = [change[topics.language_of == language] for language in (0, 1)]
    error = np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)) / 2
    mean = np.mean([part.mean() for part in parts])
    assert (outcome.ci_low, outcome.ci_high) == pytest.approx(
        (mean - 1.96 * error, mean + 1.96 * error), abs=error / 15
    )


def test_resampled_variance_is_unbiased_for_few_topics() -> None:
    topics = monolingual({"de": 3, "fi": 5})
    values = np.random.default_rng(7).random((2, 8))
    deviations = _bootstrap(make_units(values, topics), PLAN)
    change = values[1] - values[0]
    parts = [change[topics.language_of == language] for language in (0, 1)]
    error = np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)) / 2
    assert np.std(deviations[1] - deviations[0]) == pytest.approx(error, rel=0.03)


def test_simultaneous_intervals_are_wider() -> None:
    rng = np.random.default_rng(4)
    topics = monolingual({"de": 40, "fi": 40})
    values = rng.random((4, 80)) + 0.1 * np.arange(4)[:, None]
    together = macro_test(values, topics, PLAN)
    for (baseline, run), outcome in together.items():
        alone = macro_test(values[[baseline, run]], topics, PLAN)[0, 1]
        assert outcome.p >= alone.p
        assert outcome.ci_high - outcome.ci_low > alone.ci_high - alone.ci_low
        assert (outcome.ci_low + outcome.ci_high) / 2 == pytest.approx(
            values[run].mean() - values[baseline].mean()
        )


def test_swapping_the_runs_flips_the_signs() -> None:
    topics = monolingual({"de": 30, "fi": 10})
    values = np.stack([np.full(40, 0.5), 0.5 + differences(np.random.default_rng(5), 40)])
    there, back = macro_test(values, topics, PLAN)[0, 1], macro_test(values[::-1], topics, PLAN)[0, 1]
    assert there.p == back.p
    assert (there.ci_low, there.ci_high) == pytest.approx((-back.ci_high, -back.ci_low), abs=1e-12)


@pytest.mark.parametrize(
    ("sizes", "change", "p", "interval", "note"),
    [
        ({"de": 2, "fi": 2}, [0.0] * 4, 1.0, True, ""),
        (
            {"de": 1, "fi": 3},
            [0.1, 0.2, 0.3, 0.1],
            2 / 16,
            False,
            "no interval: de has one topic, and nothing to resample",
        ),
        ({"de": 1}, [0.1], 1.0, False, "no interval: de has one topic, and nothing to resample"),
        (
            {"de": 2, "fi": 2},
            [0.1] * 4,
            2 / 16,
            False,
            "no interval: the differences do not vary within languages",
        ),
        ({"de": 2}, [0.1, 0.3], 0.5, True, ""),
    ],
)
def test_degenerate(sizes: dict[str, int], change: list[float], p: float, interval: bool, note: str) -> None:
    topics = monolingual(sizes)
    (outcome,) = macro_test(np.stack([np.zeros(len(change)), change]), topics, PLAN).values()
    assert outcome.p == p
    assert (outcome.ci_low is not None, outcome.ci_high is not None) == (interval, interval)
    assert outcome.note == note


def _simulate(topics, draw, trials: int) -> tuple[int, int]:
    """How often p <= 0.05 and how often the interval misses 0, where the runs do not differ in truth."""
    plan = Plan(SignificanceTest.STUDENT, permutations=199)
    rng = np.random.default_rng(6)
    rejected = missed = 0
    for _ in range(trials):
        change = draw(rng)
        (outcome,) = macro_test(np.stack([np.zeros(len(change)), change]), topics, plan).values()
        rejected += outcome.p <= 0.05
        missed += not outcome.ci_low <= 0 <= outcome.ci_high
    return rejected, missed


def _most(trials: int, rate: float) -> int:
    return int(scipy.stats.binom.ppf(0.9999, trials, rate))


def test_false_positives_under_the_null_hypothesis() -> None:
    topics = monolingual({"de": 12, "fi": 20, "ja": 40})
    rejected, missed = _simulate(topics, lambda rng: differences(rng, 72), 300)
    assert rejected <= _most(300, 0.05)
    assert missed <= _most(300, 0.08)
    # Nor is the test idle.
    assert rejected >= 3


def test_false_positives_where_languages_share_their_topics() -> None:
    """Versions of a topic go up and down together; as so many topics they would reject half of the time."""
    languages = [f"l{number}" for number in range(8)]
    size = 25

    def draw(rng: np.random.Generator) -> np.ndarray:
        return np.tile(differences(rng, size), len(languages)) + 0.05 * rng.normal(size=size * len(languages))

    together, _ = _simulate(parallel(languages, size), draw, 200)
    apart, _ = _simulate(monolingual(dict.fromkeys(languages, size)), draw, 200)
    assert together <= _most(200, 0.05)
    assert apart > 60
