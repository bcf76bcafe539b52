"""Comparisons: numbers that can be checked by hand, corrections, and which runs are compared."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.evaluation_samples import NDCG, as_scores, differences, monolingual

from mimo_plugin.core.errors import UsageError
from mimo_plugin.evaluation.compare import compare_runs, compared_pairs, correct
from mimo_plugin.evaluation.options import Correction, SignificanceTest
from mimo_plugin.evaluation.results import ComparisonResult
from mimo_plugin.evaluation.significance import Plan

PLAN = Plan(SignificanceTest.STUDENT)
TESTS = list(SignificanceTest)


def _compare(
    plan: Plan = PLAN, pairs=((0, 1),), sizes=None, **runs
) -> dict[tuple[str, str, str], ComparisonResult]:
    topics = monolingual(sizes or {"de": 4, "fi": 2})
    found = compare_runs(as_scores(topics, **runs), topics, [NDCG], pairs, plan)
    return {(c.baseline, c.run, c.language): c for c in found}


def test_by_hand() -> None:
    found = _compare(a=[0.1, 0.2, 0.3, 0.4, 0.5, 0.5], b=[0.2, 0.2, 0.2, 0.8, 0.6, 0.9])
    assert [key[2] for key in found] == ["de", "fi", "all"]
    de, fi, macro = found.values()
    assert (de.queries, de.wins, de.ties, de.losses) == (4, 2, 1, 1)
    assert (macro.queries, macro.wins, macro.ties, macro.losses) == (6, 4, 1, 1)
    assert de.difference == pytest.approx(0.1)
    assert fi.difference == pytest.approx(0.25)
    assert macro.difference == pytest.approx(0.175)
    # Standard deviations of (0.1, 0, -0.1, 0.4) and (0.1, 0.4).
    assert de.effect_size == pytest.approx(0.1 / np.sqrt(0.14 / 3))
    assert fi.effect_size == pytest.approx(0.25 / np.sqrt(0.045))
    assert macro.effect_size == pytest.approx(0.175 / np.sqrt((0.14 / 3 + 0.045) / 2))


@pytest.mark.parametrize("test", TESTS)
def test_swapping_baseline_and_run_flips_signs_and_keeps_p(test: SignificanceTest) -> None:
    rng = np.random.default_rng(1)
    sizes = {"de": 12, "fi": 20}
    base = rng.random(32)
    runs = {"a": base, "b": base + differences(rng, 32), "c": base + differences(rng, 32)}
    plan = replace(PLAN, test=test, permutations=1000)
    there = _compare(plan, [(0, 1), (0, 2)], sizes, **runs)
    back = _compare(plan, [(1, 0), (2, 0)], sizes, **runs)
    for (baseline, run, language), one in there.items():
        other = back[run, baseline, language]
        assert other.p == pytest.approx(one.p, abs=1e-12)
        assert other.p_corrected == pytest.approx(one.p_corrected, abs=1e-12)
        assert (other.difference, other.effect_size) == pytest.approx((-one.difference, -one.effect_size))
        assert (other.ci_low, other.ci_high) == pytest.approx((-one.ci_high, -one.ci_low), abs=1e-12)
        assert (other.wins, other.ties, other.losses) == (one.losses, one.ties, one.wins)


@pytest.mark.parametrize("test", TESTS)
def test_a_run_and_itself(test: SignificanceTest) -> None:
    values = np.random.default_rng(2).random(6)
    found = _compare(replace(PLAN, test=test), [(0, 1), (0, 2)], a=values, b=values, c=values)
    for comparison in found.values():
        assert (comparison.difference, comparison.ci_low, comparison.ci_high) == (0.0, 0.0, 0.0)
        assert (comparison.p, comparison.p_corrected, comparison.effect_size) == (1.0, 1.0, 0.0)
        assert not comparison.significant


def test_a_row_does_not_depend_on_the_other_runs() -> None:
    rng = np.random.default_rng(3)
    runs = {name: rng.random(30) for name in "abc"}
    sizes = {"de": 15, "fi": 15}
    plan = replace(PLAN, test=SignificanceTest.PERMUTATION, correction=Correction.NONE, permutations=1000)
    alone = _compare(plan, [(0, 1)], sizes, a=runs["a"], b=runs["b"])
    among = _compare(plan, [(0, 2), (0, 1)], sizes, a=runs["a"], b=runs["b"], c=runs["c"])
    for key, comparison in alone.items():
        assert among[key] == comparison


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        # p = 0.01, 0.02, 0.04, 0.50
        (Correction.HOLM, [0.04, 0.06, 0.08, 0.5]),
        (Correction.BONFERRONI, [0.04, 0.08, 0.16, 1.0]),
        (Correction.BH, [0.04, 0.04, 4 / 3 * 0.04, 0.5]),
        (Correction.NONE, [0.01, 0.02, 0.04, 0.5]),
    ],
)
def test_corrections_by_hand(correction: Correction, expected: list[float]) -> None:
    p_values = np.array([0.01, 0.02, 0.04, 0.5])
    assert correct(p_values, replace(PLAN, correction=correction), 4, False) == pytest.approx(expected)
    assert correct(p_values[::-1], replace(PLAN, correction=correction), 4, False) == pytest.approx(
        expected[::-1]
    )


@pytest.mark.parametrize(
    ("correction", "languages", "macro", "expected"),
    [
        # Tukey's p covers the pairs: only languages are left, none for one language or the macro average.
        (Correction.HOLM, 3, False, [0.03, 0.06, 1.0]),
        (Correction.BONFERRONI, 3, False, [0.03, 0.06, 1.0]),
        (Correction.BH, 3, False, [0.03, 0.03, 0.5]),
        (Correction.NONE, 3, False, [0.01, 0.02, 0.5]),
        (Correction.HOLM, 1, False, [0.01, 0.02, 0.5]),
        (Correction.HOLM, 3, True, [0.01, 0.02, 0.5]),
    ],
)
def test_corrections_of_tukeys_test(
    correction: Correction, languages: int, macro: bool, expected: list[float]
) -> None:
    plan = Plan(SignificanceTest.TUKEY_HSD, correction)
    assert correct(np.array([0.01, 0.02, 0.5]), plan, languages, macro) == pytest.approx(expected)


def test_families_are_all_pairs_and_languages_of_a_measure_and_all_macro_tests() -> None:
    rng = np.random.default_rng(4)
    sizes = {"de": 20, "fi": 20, "ja": 20}
    runs = {name: rng.random(60) for name in "abc"}
    found = _compare(replace(PLAN, correction=Correction.BONFERRONI), [(0, 1), (0, 2)], sizes, **runs)
    for (_, _, language), comparison in found.items():
        tests = 2 if language == "all" else 6
        assert comparison.p_corrected == pytest.approx(min(1.0, tests * comparison.p))


def test_what_cannot_be_tested_is_no_member_of_the_family() -> None:
    sizes = {"de": 1, "fi": 5}
    rng = np.random.default_rng(5)
    found = _compare(PLAN, [(0, 1)], sizes, a=rng.random(6), b=rng.random(6))
    assert found["a", "b", "de"].p is None
    assert found["a", "b", "de"].p_corrected is None
    assert found["a", "b", "de"].effect_size is None
    assert found["a", "b", "de"].note == "one topic has no variance"
    assert not found["a", "b", "de"].significant
    assert found["a", "b", "fi"].p_corrected == found["a", "b", "fi"].p
    assert found["a", "b", "all"].p is not None


def test_progress_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    topics = monolingual({"de": 5, "fi": 5})
    rng = np.random.default_rng(6)
    scores = as_scores(topics, a=rng.random(10), b=rng.random(10), c=rng.random(10))
    # One for each of two languages and for the macro average, of however many pairs.
    for test, pairs in ((SignificanceTest.STUDENT, [(0, 1), (0, 2)]), (SignificanceTest.TUKEY_HSD, [(0, 1)])):
        compare_runs(scores, topics, [NDCG], pairs, replace(PLAN, test=test), progress=True)
        assert "3/3" in capsys.readouterr().err


def test_which_runs_are_compared() -> None:
    names = ["bm25", "e5", "mimo"]
    student, tukey = SignificanceTest.STUDENT, SignificanceTest.TUKEY_HSD
    assert compared_pairs(names, "e5", None) == [(1, 0), (1, 2)]
    assert compared_pairs(names, "e5", tukey) == [(1, 0), (1, 2)]
    assert compared_pairs(names, None, tukey) == [(0, 1), (0, 2), (1, 2)]
    assert compared_pairs(names, None, None) == []
    assert compared_pairs(["bm25"], None, None) == []
    with pytest.raises(
        UsageError, match="unknown baseline 'bm52'; near: bm25; expected one of the runs bm25, e5, mimo"
    ):
        compared_pairs(names, "bm52", None)
    with pytest.raises(UsageError, match="baseline 'a' is the only run"):
        compared_pairs(["a"], "a", None)
    with pytest.raises(
        UsageError, match="tukey-hsd compares three runs or more, found 2: use student or permutation"
    ):
        compared_pairs(["a", "b"], "a", tukey)
    with pytest.raises(
        UsageError, match="student compares runs with a baseline, found none: add --baseline NAME"
    ):
        compared_pairs(names, None, student)
    with pytest.raises(UsageError) as caught:
        compared_pairs(["a", "b"], "c", tukey)
    assert [line.split()[0] for line in str(caught.value).splitlines()] == ["unknown", "tukey-hsd"]
