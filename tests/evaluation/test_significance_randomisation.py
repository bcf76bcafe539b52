"""Randomisation against brute-force enumeration of every pattern."""

from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from helpers.evaluation_samples import differences

from mimo_plugin.evaluation.options import SignificanceTest
from mimo_plugin.evaluation.significance import Plan, permutation, randomised_p, subset_mean_interval

PLAN = Plan(SignificanceTest.PERMUTATION)


def _enumerated_p(change: list[float]) -> float:
    """Two-sided sign-flip p, every pattern looked at, in exact arithmetic."""
    exact = [Fraction(value).limit_denominator(10**6) for value in change]
    sums = [
        abs(sum(s * d for s, d in zip(signs, exact, strict=True)))
        for signs in product((1, -1), repeat=len(exact))
    ]
    return sum(value >= abs(sum(exact)) for value in sums) / len(sums)


def _p(change: list[float], plan: Plan = PLAN) -> float:
    return permutation(np.array([np.zeros(len(change)), change]), plan)[0, 1].p


@pytest.mark.parametrize("size", [1, 2, 3, 6, 9])
def test_exact_p_is_the_enumerated_one(size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(5):
        # Few values, so that many patterns tie with the observed one.
        change = (rng.integers(-3, 4, size) / 10).tolist()
        assert _p(change) == _enumerated_p(change)


def test_drawn_p_is_close_to_the_exact_one_and_repeatable() -> None:
    rng = np.random.default_rng(1)
    for _ in range(4):
        change = (rng.random(11) - 0.35).tolist()
        exact = _p(change)
        drawn = _p(change, Plan(SignificanceTest.PERMUTATION, permutations=2000))
        assert exact == _enumerated_p(change)
        assert drawn == _p(change, Plan(SignificanceTest.PERMUTATION, permutations=2000))
        # Four standard errors.
        assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 2000) + 1 / 2000)


def test_never_zero() -> None:
    assert _p([0.5] * 200) == 1 / 10_001
    assert _p([0.5] * 10) == 2 / 2**10
    values = np.array([np.zeros(100), np.full(100, 0.5), np.full(100, 0.9)]) / 100
    assert set(randomised_p(values, PLAN).values()) == {1 / 10_001}


def test_topics_without_a_difference_change_nothing() -> None:
    change = [0.3, -0.1, 0.2, 0.05, 0.4]
    assert _p(change + [0.0] * 40) == _p(change) == _enumerated_p(change)
    assert _p([0.0] * 40) == 1.0


def test_three_runs_against_every_permutation_of_their_labels() -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(0, 4, (3, 4)) / 10
    found = randomised_p(values, PLAN)
    units = [[Fraction(round(10 * v)) for v in column] for column in values.T]
    ranges = []
    for arrangement in product(*(list(permutations(unit)) for unit in units)):
        sums = [sum(column) for column in zip(*arrangement, strict=True)]
        ranges.append(max(sums) - min(sums))
    totals = [sum(row) for row in zip(*units, strict=True)]
    for (one, other), p in found.items():
        assert p == sum(value >= abs(totals[other] - totals[one]) for value in ranges) / len(ranges)


def test_interval_holds_what_the_exact_test_does_not_reject() -> None:
    rng = np.random.default_rng(3)
    for size in (6, 7, 8):
        change = rng.random(size) - 0.3
        low, high, note = subset_mean_interval(change, PLAN)
        assert note == ""
        for shift in np.linspace(low - 0.2, high + 0.2, 41):
            inside = low <= shift <= high
            assert (_enumerated_p((change - shift).tolist()) > 0.05) == inside, (low, shift, high)


def test_interval_and_p_agree_when_drawn() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        change = rng.normal(0.1, 0.25, 40)
        outcome = permutation(np.stack([np.zeros(40), change]), PLAN)[0, 1]
        if not 0.045 < outcome.p < 0.055:
            assert (outcome.p <= 0.05) == (outcome.ci_low > 0 or outcome.ci_high < 0)


def test_too_few_topics_for_an_interval() -> None:
    for size in (1, 3, 5):
        assert subset_mean_interval(np.full(size, 0.1), PLAN) == (
            None,
            None,
            f"{size} topics are too few for an interval at this level",
        )
    assert subset_mean_interval(np.zeros(3), PLAN) == (0.0, 0.0, "")


def test_memory_is_bounded_by_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of one pattern give what one batch gives."""
    values = np.stack([np.zeros(30), differences(np.random.default_rng(5), 30)])
    plan = Plan(SignificanceTest.PERMUTATION, permutations=1000)
    at_once = permutation(values, plan)[0, 1]
    monkeypatch.setattr("mimo_plugin.evaluation.significance._CELLS_A_BATCH", 1)
    one_by_one = permutation(values, plan)[0, 1]
    assert one_by_one.p == pytest.approx(at_once.p, abs=0.05)
    assert one_by_one[1:3] == pytest.approx(at_once[1:3], abs=0.05)
