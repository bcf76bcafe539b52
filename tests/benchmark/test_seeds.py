"""Systems over seeds and topics, against scipy and statsmodels."""

from collections.abc import Mapping

import numpy as np
import pytest
from helpers.evaluation_samples import monolingual, parallel
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests

from mimo_plugin.benchmark.seeds import OverSeeds, contrasts, unit_values
from mimo_plugin.evaluation.options import Correction, SignificanceTest
from mimo_plugin.evaluation.significance import Plan
from mimo_plugin.evaluation.topics import make_topics

STUDENT = Plan(SignificanceTest.STUDENT)


def test_undefined_values_do_not_count_as_zero() -> None:
    assert OverSeeds.of({1: 0.5, 2: None, 3: 0.7}).mean == pytest.approx(0.6)
    assert OverSeeds.of({1: 0.5, 2: None}).deviation is None
    assert OverSeeds.of({1: None}) == OverSeeds(mean=None, deviation=None, per_seed={1: None})


def test_units_keep_the_mean_over_topics() -> None:
    ids = {"de:1": "de", "fi:1": "fi", "de:2": "de", "de:3": "de", "fi:3": "fi", "ja:3": "ja"}
    topics = make_topics({name: {f"d{name[-1]}": 1} for name in ids}, ids)
    values = np.random.default_rng(1).random((2, len(ids)))
    units = unit_values(values, topics)
    assert units.shape == (2, 3)
    assert units.mean(axis=1) == pytest.approx(values.mean(axis=1), abs=1e-12)


def systems(topics: int) -> Mapping[str, Mapping[int, np.ndarray]]:
    rng = np.random.default_rng(7)
    base = rng.random(topics)
    return {
        name: {seed: base + shift + 0.1 * rng.standard_normal(topics) for seed in (1, 2, 3)}
        for name, shift in (("base", 0.0), ("better", 0.02), ("same", 0.0), ("worse", -0.05))
    }


def test_each_system_against_the_baseline_with_holm() -> None:
    topics = monolingual({"de": 30, "fi": 20})
    scores = systems(50)
    found = contrasts(scores, "base", topics, STUDENT)
    assert [one.system for one in found] == ["better", "same", "worse"]
    means = {name: np.mean(list(by_seed.values()), axis=0) for name, by_seed in scores.items()}
    expected = [ttest_rel(means[one.system], means["base"]).pvalue for one in found]
    assert [one.p for one in found] == pytest.approx(expected, rel=1e-9)
    assert [one.p_corrected for one in found] == pytest.approx(multipletests(expected, method="holm")[1])
    for one in found:
        assert one.significant == (one.p_corrected is not None and one.p_corrected <= 0.05)
        assert one.wins + one.ties + one.losses == one.queries == one.units == 50


def test_versions_of_a_topic_are_no_further_evidence() -> None:
    """Every version copied from one language: p must stay that of the topics, not fall with their copies."""
    one, many = monolingual({"de": 15}), parallel(["de", "en", "fi", "ja"], 15)
    rng = np.random.default_rng(3)
    values = {name: {1: rng.random(15)} for name in ("base", "other")}
    # Topics are sorted by id, so languages follow each other.
    copied = {name: {1: np.tile(by_seed[1], 4)} for name, by_seed in values.items()}
    for plan in (STUDENT, Plan(SignificanceTest.PERMUTATION, Correction.NONE)):
        alone, together = contrasts(values, "base", one, plan)[0], contrasts(copied, "base", many, plan)[0]
        assert together.p == pytest.approx(alone.p, rel=1e-9)
        assert together.effect_size == pytest.approx(alone.effect_size)
        assert (together.ci_low, together.ci_high) == pytest.approx((alone.ci_low, alone.ci_high))
        assert (together.units, together.queries) == (15, 60)


def test_only_seeds_that_both_have_are_compared() -> None:
    topics = monolingual({"de": 20})
    scores = systems(20)
    partly = {"base": {1: scores["base"][1], 2: scores["base"][2]}, "better": {2: scores["better"][2]}}
    (one,) = contrasts({**partly, "same": {3: scores["same"][3]}}, "base", topics, STUDENT)
    assert (one.system, one.seeds) == ("better", (2,))
    assert one.p == pytest.approx(ttest_rel(scores["better"][2], scores["base"][2]).pvalue, rel=1e-9)


def test_a_value_without_seeds_against_averages_over_seeds() -> None:
    topics = monolingual({"de": 20})
    values = np.random.default_rng(5).random((2, 20))
    seeded, alone = systems(20)["better"], {None: values[0]}
    mean = np.mean(list(seeded.values()), axis=0)
    for scores, sides, seeds in (
        ({"base": seeded, "bm25": alone}, (values[0], mean), (1, 2, 3)),
        ({"bm25": alone, "better": seeded}, (mean, values[0]), (1, 2, 3)),
        ({"bm25": alone, "teacher": {None: values[1]}}, (values[1], values[0]), ()),
    ):
        (one,) = contrasts(scores, next(iter(scores)), topics, STUDENT)
        assert one.seeds == seeds
        assert one.p == pytest.approx(ttest_rel(*sides).pvalue, rel=1e-9)
        assert one.difference == pytest.approx(np.mean(sides[0] - sides[1]), abs=1e-12)
    found = OverSeeds.of({None: 0.5})
    assert found == OverSeeds(mean=0.5, deviation=None, per_seed={})


def test_what_cannot_be_tested_is_said() -> None:
    topics = monolingual({"de": 1})
    (one,) = contrasts({"base": {1: np.array([0.2])}, "x": {1: np.array([0.7])}}, "base", topics, STUDENT)
    assert (one.p, one.p_corrected, one.effect_size, one.significant) == (None, None, None, False)
    assert one.note == "one topic has no variance"
