"""Exact search in memory."""

import numpy as np

from mimo_plugin.indexing.nearest import nearest


def test_the_largest_inner_products() -> None:
    rng = np.random.default_rng(4)
    queries, documents = (rng.standard_normal((n, 8)).astype(np.float32) for n in (1100, 30))
    docids = [f"d{number}" for number in range(30)]
    found = nearest([f"q{n}" for n in range(1100)], queries, docids, documents, 5)
    order = np.argsort(-(queries @ documents.T), axis=1)[:, :5]
    assert len(found) == 1100
    for number in (0, 511, 512, 1099):
        expected = [f"d{at}".encode() for at in order[number]]
        assert found[f"q{number}"].docids.tolist() == expected


def test_equal_vectors_have_equal_scores_and_are_taken_as_trec_eval_orders_them() -> None:
    """Matrix products round the same two vectors one way or another, by their place in the matrix."""
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((3, 33)).astype(np.float32)
    documents = vectors[rng.integers(3, size=700)]
    docids = [f"d{number}" for number in range(700)]
    queries = rng.standard_normal((90, 33)).astype(np.float32)
    for query, found in zip(
        queries, nearest(list(map(str, range(90))), queries, docids, documents, 20).values(), strict=True
    ):
        best = vectors[np.argmax(vectors @ query)]
        alike = [docid for docid, document in zip(docids, documents, strict=True) if (document == best).all()]
        assert found.docids.tolist() == [docid.encode() for docid in sorted(alike, reverse=True)[:20]]
        assert len(set(found.scores.tolist())) == 1


def test_fewer_documents_than_hits() -> None:
    vectors = np.eye(3, dtype=np.float32)
    assert len(nearest(["q"], vectors[:1], ["a", "b", "c"], vectors, 20)["q"].docids) == 3
