"""Encoder's t and Tukey's HSD against scipy, statsmodels and each other."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.formula.api as smf
from helpers.evaluation_samples import differences
from statsmodels.stats.anova import anova_lm

from mimo_plugin.evaluation.options import SignificanceTest
from mimo_plugin.evaluation.significance import (
    ALL_EQUAL,
    ONE_TOPIC,
    UPPER_BOUND,
    Outcome,
    Plan,
    _tukey_p,
    student,
    tukey_hsd,
)

PLAN = Plan(SignificanceTest.STUDENT)


pytestmark = pytest.mark.filterwarnings("error")


def test_student_is_scipys() -> None:
    rng = np.random.default_rng(1)
    for size in (2, 5, 40):
        values = rng.random((2, size))
        reference = scipy.stats.ttest_rel(values[1], values[0])
        interval = reference.confidence_interval(0.95)
        (outcome,) = student(values, PLAN).values()
        assert outcome[:3] == pytest.approx((reference.pvalue, interval.low, interval.high), rel=1e-9)


def test_tukeys_error_is_that_of_the_two_way_model() -> None:
    rng = np.random.default_rng(2)
    runs, topics = 4, 15
    values = rng.random((runs, topics)) + 3 * rng.random(topics) + 0.3 * np.arange(runs)[:, None]
    frame = pd.DataFrame(
        {
            "score": values.ravel(),
            "run": np.repeat(np.arange(runs), topics),
            "topic": np.tile(np.arange(topics), runs),
        }
    )
    fit = smf.ols("score ~ C(run) + C(topic)", frame).fit()
    error = anova_lm(fit).loc["Residual", "mean_sq"]
    assert fit.df_resid == (runs - 1) * (topics - 1)
    means = values.mean(axis=1)
    scale = np.sqrt(error / topics)
    critical = scipy.stats.studentized_range.ppf(0.95, runs, fit.df_resid)
    for (baseline, run), outcome in tukey_hsd(values, PLAN).items():
        change = means[run] - means[baseline]
        p = scipy.stats.studentized_range.sf(abs(change) / scale, runs, fit.df_resid)
        if outcome.note == UPPER_BOUND:
            assert p < outcome.p < 1e-9
            p = outcome.p
        expected = (p, change - critical * scale, change + critical * scale)
        assert outcome[:3] == pytest.approx(expected, rel=1e-6, abs=1e-12)
        assert (outcome.p <= 0.05) == (outcome.ci_low > 0 or outcome.ci_high < 0)


def test_tukey_of_two_runs_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(3)
    for size in (3, 10, 60):
        values = rng.random((2, size))
        assert tukey_hsd(values, PLAN)[0, 1][:3] == pytest.approx(student(values, PLAN)[0, 1][:3], rel=1e-5)


def test_tukey_uses_the_blocks() -> None:
    """Topics of very different difficulty hide the difference from the unpaired test, not from this one."""
    rng = np.random.default_rng(4)
    values = 10 * rng.random(30) + 0.02 * rng.random((3, 30)) + 0.05 * np.arange(3)[:, None]
    assert scipy.stats.tukey_hsd(*values).pvalue[0, 1] > 0.9
    assert tukey_hsd(values, PLAN)[0, 1].p < 1e-6


@pytest.mark.parametrize("test", [student, tukey_hsd])
@pytest.mark.parametrize(
    ("baseline", "run", "expected"),
    [
        ([0.3, 0.5], [0.3, 0.5], Outcome(1.0, 0.0, 0.0)),
        ([0.3], [0.3], Outcome(1.0, 0.0, 0.0)),
        ([0.3], [0.4], Outcome(None, None, None, ONE_TOPIC)),
        ([0.1, 0.2, 0.3], [0.2, 0.3, 0.4], Outcome(None, None, None, ALL_EQUAL)),
        # 0.1 + 0.2 is not 0.3: rounding is no difference.
        ([0.3, 0.5], [0.1 + 0.2, 0.5], Outcome(1.0, 0.0, 0.0)),
    ],
)
def test_degenerate(test, baseline: list[float], run: list[float], expected: Outcome) -> None:
    assert test(np.array([baseline, run]), PLAN)[0, 1] == expected


def test_tukey_where_one_pair_does_not_differ() -> None:
    values = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.5, 0.2, 0.9]])
    outcomes = tukey_hsd(values, PLAN)
    assert outcomes[0, 1].p == pytest.approx(1.0)
    assert outcomes[0, 1].ci_low == pytest.approx(-outcomes[0, 1].ci_high)
    constant = np.array([[0.1, 0.2], [0.1, 0.2], [0.3, 0.4]])
    assert tukey_hsd(constant, PLAN)[0, 1] == Outcome(1.0, 0.0, 0.0)
    assert tukey_hsd(constant, PLAN)[0, 2] == Outcome(None, None, None, ALL_EQUAL)


def test_level_sets_the_interval() -> None:
    values = np.stack([np.zeros(30), differences(np.random.default_rng(5), 30)])
    wide, narrow = (student(values, Plan(SignificanceTest.STUDENT, alpha=a))[0, 1] for a in (0.01, 0.2))
    assert wide.ci_low < narrow.ci_low < narrow.ci_high < wide.ci_high


@pytest.mark.parametrize("test", [student, tukey_hsd])
def test_p_is_never_zero(test) -> None:
    """What is too small to be computed is given as an upper bound, and the note says so."""
    noise = np.random.default_rng(6).normal(scale=1e-6, size=(2, 500))
    outcome = test(noise + np.array([[0.0], [0.9]]), PLAN)[0, 1]
    assert 0 < outcome.p < 1e-300
    assert outcome.note == UPPER_BOUND
    assert outcome.ci_low < 0.9 < outcome.ci_high
    assert test(noise, PLAN)[0, 1].note == ""


@pytest.mark.parametrize("freedom", [2, 8, 40, 500, 20_000])
def test_tukeys_p_where_its_integral_gives_out(freedom: int) -> None:
    """For two runs it is that of sqrt(2) |t|; for more it never lies below."""
    for p in (1e-3, 1e-6, 1e-8, 2e-9, 1e-10, 1e-13, 1e-100):
        statistic = np.sqrt(2) * scipy.stats.t.isf(p / 2, freedom)
        computed, note = _tukey_p(statistic, 2, freedom)
        assert computed == pytest.approx(p, rel=0.02)
        assert _tukey_p(statistic, 5, freedom)[0] > p
        assert note == UPPER_BOUND or p > 1e-9
