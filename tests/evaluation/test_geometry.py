"""Alignment and uniformity against their formulas in float64, and by their symmetries."""

from itertools import combinations
from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import DataError, ModelError
from mimo_plugin.evaluation import geometry
from mimo_plugin.evaluation.geometry import Vectors, alignment, pair_alignment, uniformity

LANGS = ("de", "en", "fi", "ja")


def unit(rng: np.random.Generator, count: int, dimension: int = 8) -> Vectors:
    vectors = rng.normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def versions(rng: np.random.Generator, texts: int) -> tuple[list[str], list[str]]:
    """Texts in two languages or more, in any order."""
    rows = [
        (f"t{text}", language)
        for text in range(texts)
        for language in rng.permutation(LANGS)[: int(rng.integers(2, len(LANGS) + 1))]
    ]
    rng.shuffle(rows)
    return [str(text) for text, _ in rows], [str(language) for _, language in rows]


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), texts=st.integers(1, 12))
def test_alignment_is_the_mean_over_pairs_of_the_mean_over_texts(seed: int, texts: int) -> None:
    rng = np.random.default_rng(seed)
    groups, langs = versions(rng, texts)
    vectors = unit(rng, len(groups))
    at = {(group, lang): row for row, (group, lang) in enumerate(zip(groups, langs, strict=True))}
    expected = {}
    for pair in combinations(LANGS, 2):
        distances = [
            sum(
                (float(x) - float(y)) ** 2
                for x, y in zip(vectors[at[group, pair[0]]], vectors[at[group, pair[1]]], strict=True)
            )
            for group in sorted(set(groups))
            if all((group, lang) in at for lang in pair)
        ]
        if distances:
            expected[pair] = sum(distances) / len(distances)
    found = pair_alignment(vectors, groups, langs)
    assert found == pytest.approx(expected, rel=1e-6)
    value = alignment(vectors, groups, langs)
    assert value == pytest.approx(sum(expected.values()) / len(expected), rel=1e-6)
    order = rng.permutation(len(groups))
    shuffled = alignment(vectors[order], [groups[row] for row in order], [langs[row] for row in order])
    assert shuffled == pytest.approx(value, rel=1e-6)


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 40))
def test_uniformity_is_the_log_of_the_mean_potential(seed: int, count: int) -> None:
    vectors = unit(np.random.default_rng(seed), count)
    potentials = [
        exp(-2 * float(np.sum((u.astype(np.float64) - v.astype(np.float64)) ** 2)))
        for u, v in combinations(vectors, 2)
    ]
    found = uniformity(vectors)
    assert found == pytest.approx(log(sum(potentials) / len(potentials)), abs=1e-5)
    assert -8 - 1e-5 <= found <= 0


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), texts=st.integers(1, 8))
def test_turning_the_space_changes_nothing(seed: int, texts: int) -> None:
    rng = np.random.default_rng(seed)
    groups, langs = versions(rng, texts)
    vectors = unit(rng, len(groups))
    turned = (vectors @ np.linalg.qr(rng.normal(size=(8, 8)))[0]).astype(np.float32)
    assert alignment(turned, groups, langs) == pytest.approx(alignment(vectors, groups, langs), abs=1e-5)
    assert uniformity(turned) == pytest.approx(uniformity(vectors), abs=1e-5)


def test_by_hand() -> None:
    x, y, z = np.eye(3, dtype=np.float32)
    vectors = np.stack([x, x, y, z, -z, y])
    groups = ["1", "1", "1", "2", "2", "3"]
    langs = ["de", "en", "fi", "de", "en", "fi"]
    # de-en: 0 for text 1 and 4 for text 2; text 3 has one version.
    assert pair_alignment(vectors, groups, langs) == {("de", "en"): 2.0, ("de", "fi"): 2.0, ("en", "fi"): 2.0}
    assert alignment(vectors[:3], groups[:3], langs[:3]) == pytest.approx(4 / 3)
    assert uniformity(np.stack([x, -x])) == pytest.approx(-8)
    assert uniformity(np.stack([x, x, y])) == pytest.approx(log((1 + 2 * exp(-4)) / 3))


def test_the_same_vector_everywhere() -> None:
    vectors = np.repeat(unit(np.random.default_rng(1), 1, 300), 12, axis=0)
    assert alignment(vectors, [str(row // 3) for row in range(12)], ["de", "en", "fi"] * 4) == 0
    assert uniformity(vectors) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("count", [2, 3, 8, 9])
def test_every_pair_has_one_number(count: int) -> None:
    numbers = np.arange(count * (count - 1) // 2)
    first, second = geometry._numbered_pairs(numbers, count)
    pairs = {frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    assert pairs == {frozenset(pair) for pair in combinations(range(count), 2)}


def test_drawn_pairs_estimate_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    vectors = unit(rng, 700)
    exact = uniformity(vectors)
    monkeypatch.setattr(geometry, "_EXACT_VECTORS", 1)
    monkeypatch.setattr(geometry, "_PAIRS_A_BLOCK", 999)
    assert uniformity(vectors, pairs=700 * 699 // 2) == exact
    drawn = uniformity(vectors, pairs=40_000, seed=3)
    assert drawn == uniformity(vectors, pairs=40_000, seed=3) != uniformity(vectors, pairs=40_000, seed=4)
    assert drawn == pytest.approx(exact, abs=0.03)
    # All pairs but one, drawn without replacement, leave no room for a mean that is off.
    nearly = uniformity(vectors, pairs=700 * 699 // 2 - 1)
    assert nearly == pytest.approx(exact, abs=1e-4)


def test_blocks_of_rows_count_every_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(np.random.default_rng(5), 50)
    whole = uniformity(vectors)
    monkeypatch.setattr(geometry, "_ROWS_A_BLOCK", 7)
    assert uniformity(vectors) == pytest.approx(whole, abs=1e-6)


def test_vectors_that_are_not_unit_vectors() -> None:
    vectors = unit(np.random.default_rng(6), 4)
    for bad, shown in ((vectors * 3, "3"), (np.full_like(vectors, np.nan), "nan"), (vectors * 0, "0")):
        for measure in (uniformity, lambda x: alignment(x, list("aabb"), list("xyxy"))):
            with pytest.raises(
                ModelError, match=rf"4 of 4 vectors do not have length 1 \(one has {shown}\), expected"
            ):
                measure(bad)


def test_nothing_to_compare() -> None:
    vectors = unit(np.random.default_rng(7), 2)
    with pytest.raises(DataError, match="none of 2 texts has versions in two languages, expected parallel"):
        alignment(vectors, ["a", "b"], ["de", "en"])
    with pytest.raises(DataError, match="text 'a' has two versions in 'de', expected one"):
        alignment(vectors, ["a", "a"], ["de", "de"])
    with pytest.raises(DataError, match="1 vectors, expected at least two"):
        uniformity(vectors[:1])
