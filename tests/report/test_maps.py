"""Distances between languages and projections against definitions, and by their symmetries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.evaluation.geometry import centroid_distances, project

LANGS = ("de", "en", "fi")


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), texts=st.integers(1, 10))
def test_distances_of_means_of_shared_texts(seed: int, texts: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [(lang, str(text)) for text in range(texts) for lang in LANGS if rng.random() < 0.7]
    rows = [*rows, ("de", "x"), ("en", "x")]
    vectors = rng.normal(size=(len(rows), 5)).astype(np.float32)
    langs, groups = map(list, zip(*rows, strict=True))
    languages, found = centroid_distances(vectors, langs, groups)
    at = {row: vectors[number].astype(np.float64) for number, row in enumerate(rows)}
    for a, first in enumerate(languages):
        for b, second in enumerate(languages):
            both = [text for text in {*groups} if (first, text) in at and (second, text) in at]
            if a == b:
                assert found[a, b] == 0
            elif not both:
                assert np.isnan(found[a, b])
            else:
                means = (sum(at[lang, text] for text in both) / len(both) for lang in (first, second))
                assert found[a, b] == pytest.approx(
                    float(np.linalg.norm(next(means) - next(means))), abs=1e-6
                )


def test_languages_with_the_same_vectors_are_at_one_place_whatever_texts_they_have() -> None:
    rng = np.random.default_rng(0)
    rows = [(lang, text) for text in range(40) for lang in LANGS if rng.random() < 0.7]
    vectors = rng.normal(size=(40, 6)).astype(np.float32)[[text for _, text in rows]]
    langs, groups = [lang for lang, _ in rows], [str(text) for _, text in rows]
    assert centroid_distances(vectors, langs, groups)[1] == pytest.approx(np.zeros((3, 3)))
    # Without knowing which texts are the same, what they are about sets languages apart.
    assert centroid_distances(vectors, langs)[1].max() > 0.1


def test_distances_without_groups_are_of_plain_means() -> None:
    vectors = np.array([[1, 0], [3, 0], [0, 4]], dtype=np.float32)
    languages, distances = centroid_distances(vectors, ["fi", "fi", "de"])
    assert languages == ("de", "fi")
    assert distances == pytest.approx(np.array([[0, 20**0.5], [20**0.5, 0]]))


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(3, 30))
def test_projection_keeps_the_most_variance(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(count, 6)) * np.array([5, 3, 1, 1, 0.5, 0.1])).astype(np.float32)
    found = project(vectors)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    singular = np.linalg.svd(centred, compute_uv=False)
    assert np.square(found.points).sum(axis=0) == pytest.approx(np.square(singular[:2]), rel=1e-6)
    assert found.explained == pytest.approx(tuple(np.square(singular[:2]) / np.square(singular).sum()))
    assert found.points.sum(axis=0) == pytest.approx([0, 0], abs=1e-4)
    # The same picture of the same vectors in a space that is turned, signs included.
    turned = vectors @ np.linalg.qr(rng.normal(size=(6, 6)))[0].astype(np.float32)
    farthest = np.sort(np.abs(found.points), axis=0)
    if np.all(farthest[-1] - farthest[-2] > 1e-2) and singular[0] > 1.05 * singular[1] > 1.1 * singular[2]:
        assert project(turned).points == pytest.approx(found.points, abs=2e-2)


def test_vectors_that_are_all_the_same() -> None:
    found = project(np.ones((4, 3), dtype=np.float32))
    assert found.points == pytest.approx(np.zeros((4, 2)))
    assert found.explained == (0, 0)
