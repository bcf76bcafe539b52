"""What the probes must say of spaces whose languages are known to be mixed, apart, or mixed within texts."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mimo_plugin.core.errors import DataError
from mimo_plugin.evaluation.geometry import separability

LANGS = ("de", "en", "fi", "ja")
Vectors = NDArray[np.float32]


def unit(vectors: NDArray[np.float64]) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def versions(texts: int) -> tuple[list[str], list[str]]:
    """Languages and groups of so many texts in all languages."""
    return list(LANGS) * texts, [f"t{number}" for number in range(texts) for _ in LANGS]


def test_the_same_vector_in_every_language_is_chance() -> None:
    rng = np.random.default_rng(0)
    langs, groups = versions(60)
    vectors = np.repeat(unit(rng.normal(size=(60, 16))), len(LANGS), axis=0)
    found, _ = separability(vectors, langs, groups)
    assert found.chance == 0.25
    # All versions of a text are told alike, and one of them is right, but for ties that rounding decides.
    assert found.knn == pytest.approx(0.25, abs=0.06)
    assert found.centroid == pytest.approx(0.25, abs=0.06)


def test_a_cluster_a_language_is_told_without_fault() -> None:
    rng = np.random.default_rng(1)
    langs, groups = versions(30)
    centres = 5 * np.eye(len(LANGS), 16)
    vectors = unit(np.tile(centres, (30, 1)) + 0.1 * rng.normal(size=(120, 16)))
    found, _ = separability(vectors, langs, groups)
    assert (found.centroid, found.knn) == (1.0, 1.0)


def test_versions_of_a_text_never_help_each_other() -> None:
    """Each text has one language and six vectors that are nearly the same: who has seen one knows the others,
    and who has not, nothing."""
    rng = np.random.default_rng(2)
    vectors = unit(np.repeat(rng.normal(size=(80, 32)), 6, axis=0) + 0.001 * rng.normal(size=(480, 32)))
    langs = np.repeat(rng.permutation(list(LANGS) * 20), 6).tolist()
    apart = [str(number) for number in range(480)]
    together = [str(number // 6) for number in range(480)]
    assert separability(vectors, langs, apart, neighbours=1)[0].knn == 1.0
    assert separability(vectors, langs, together, neighbours=1)[0].knn == pytest.approx(0.25, abs=0.1)


def test_translations_among_the_training_vectors_would_mislead() -> None:
    """The nearest vector is the translation, which is in another language: always wrong."""
    rng = np.random.default_rng(3)
    langs, groups = versions(60)
    vectors = unit(
        np.repeat(rng.normal(size=(60, 32)), len(LANGS), axis=0) + 0.01 * rng.normal(size=(240, 32))
    )
    alone = [str(number) for number in range(240)]
    assert separability(vectors, langs, alone, neighbours=1)[0].knn < 0.1
    assert separability(vectors, langs, groups, neighbours=1)[0].knn == pytest.approx(0.25, abs=0.1)


def test_turning_the_space_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    langs, groups = versions(40)
    vectors = unit(np.tile(np.eye(4, 8), (40, 1)) + 0.5 * rng.normal(size=(160, 8)))
    turned = (vectors @ np.linalg.qr(rng.normal(size=(8, 8)))[0]).astype(np.float32)
    one, other = (separability(each, langs, groups)[0] for each in (vectors, turned))
    assert 0.25 < one.centroid < 1
    assert (one.centroid, one.knn) == pytest.approx((other.centroid, other.knn), abs=0.01)


def test_each_language_counts_the_same() -> None:
    """A probe that always says the most frequent language has no more than chance."""
    rng = np.random.default_rng(5)
    langs = ["de"] * 90 + ["fi"] * 10
    vectors = unit(rng.normal(size=(100, 8)))
    found, _ = separability(vectors, langs, [str(number) for number in range(100)], neighbours=15)
    assert found.knn == pytest.approx(0.5, abs=0.03)


def test_rare_languages_are_left_out() -> None:
    rng = np.random.default_rng(6)
    langs = ["de"] * 20 + ["fi"] * 20 + ["ja"] * 4
    groups = [str(number) for number in range(44)]
    found, left_out = separability(unit(rng.normal(size=(44, 8))), langs, groups)
    assert (left_out, found.chance) == (["ja"], 0.5)
    with pytest.raises(DataError, match="1 languages with 5 texts or more, expected two or more"):
        separability(unit(rng.normal(size=(24, 8))), langs[20:], groups[20:])


def test_vectors_that_are_all_the_same() -> None:
    vectors = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (20, 1))
    with pytest.raises(DataError, match="all 20 vectors are the same"):
        separability(vectors, ["de", "fi"] * 10, [str(number) for number in range(20)])
