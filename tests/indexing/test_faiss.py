"""What presets stand for, and that FAISS builds, keeps and searches it."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from helpers.seeded_vectors import Seeded
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import UsageError
from mimo_plugin.indexing.faiss import (
    ResolvedFactory,
    filled_index,
    nested,
    new_index,
    read_index,
    resolve,
    training_vectors,
    write_index,
)
from mimo_plugin.indexing.open import IndexPlan
from mimo_plugin.indexing.settings import PRESETS


def built(path: Path, vectors: Seeded, preset: str) -> faiss.Index:
    found = resolve(preset, vectors.plan.dimension, vectors.plan.documents)
    plan = IndexPlan.of(vectors.plan, found.factory, found.parameters, 1)
    write_index(path, filled_index(plan, vectors, progress=False))
    return read_index(path)


@given(
    preset=st.sampled_from(sorted(PRESETS)),
    dimension=st.integers(1, 4096),
    documents=st.integers(1, 10**10),
)
@settings(max_examples=200)
def test_every_size_has_an_index_that_faiss_can_build(preset: str, dimension: int, documents: int) -> None:
    found = resolve(preset, dimension, documents)
    assert found == resolve(preset, dimension, documents)
    if dimension <= 64 or documents <= 10**6:
        index = new_index(found.factory, dimension)
        assert index.metric_type == faiss.METRIC_INNER_PRODUCT
        # Never more lists or codes than there are vectors to learn them from.
        if not index.is_trained and preset == "ivfpq" and found.note is None:
            assert 39 * max(index.nlist, index.pq.ksub) <= documents
            assert dimension % index.pq.M == 0
            assert dimension <= 8 * index.pq.M
            assert index.nprobe <= index.nlist


def test_any_other_string_is_faisss_own() -> None:
    for factory in ("Flat", "SQ8", "HNSW32", "OPQ16_64,IVF256,PQ16", "nonsense"):
        assert resolve(factory, 64, 1000) == ResolvedFactory(factory)
    with pytest.raises(
        UsageError, match="try flat, fp16, sq8, hnsw, hnsw64, ivf, ivfpq, or a factory string"
    ):
        new_index("nonsense", 64)


def test_a_small_collection_gets_no_codes_that_it_cannot_teach() -> None:
    small, large = resolve("ivfpq", 384, 9_983), resolve("ivfpq", 384, 9_984)
    assert small.factory == "SQ8"
    assert small.note is not None
    assert "needs at least 9984 documents" in small.note
    assert large.factory.startswith("IVF")
    assert large.note is None
    prime = resolve("ivfpq", 101, 100_000)
    assert prime.factory == "SQ8"
    assert "cut into small equal pieces, and it is 101" in str(prime.note)


def test_sizes_and_recall_are_in_their_order(tmp_path: Path) -> None:
    vectors = Seeded(10_000, 32)
    truth = None
    size, recall = {}, {}
    for preset in ("flat", "fp16", "sq8", "hnsw", "ivfpq"):
        index = built(tmp_path / preset, vectors, preset)
        assert index.ntotal == vectors.plan.documents
        assert index.metric_type == faiss.METRIC_INNER_PRODUCT
        found = index.search(vectors.queries, 10)[1]
        truth = found if truth is None else truth
        size[preset] = (tmp_path / preset).stat().st_size / vectors.plan.documents
        recall[preset] = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])
    assert size["flat"] == pytest.approx(4 * 32, rel=0.01)
    assert size["fp16"] == pytest.approx(2 * 32, rel=0.01)
    assert size["sq8"] == pytest.approx(32, rel=0.02)
    assert size["ivfpq"] < size["sq8"]
    assert size["hnsw"] < size["flat"] + 300
    for preset, least in {"fp16": 0.99, "sq8": 0.95, "hnsw": 0.95, "ivfpq": 0.3}.items():
        assert recall[preset] >= least, preset


def test_parameters_stay_in_the_file(tmp_path: Path) -> None:
    vectors = Seeded(2000, 16)
    graph = built(tmp_path / "hnsw", vectors, "hnsw").hnsw
    parameters = resolve("hnsw", 16, 2000).parameters
    assert parameters == f"efConstruction={graph.efConstruction},efSearch={graph.efSearch}"
    lists = IndexPlan.of(vectors.plan, "IVF16,Flat", "nprobe=5", 1)
    write_index(tmp_path / "ivf", filled_index(lists, vectors, progress=False))
    assert read_index(tmp_path / "ivf").nprobe == 5
    wrong = IndexPlan.of(vectors.plan, "Flat", "nprobe=5", 1)
    with pytest.raises(UsageError, match="parameters 'nprobe=5' do not fit --factory 'Flat'"):
        filled_index(wrong, vectors, progress=False)


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    vectors = Seeded(3000, 16)
    for factory in ("IVF32,PQ4np", "SQ8"):
        for name in ("one", "other"):
            plan = IndexPlan.of(vectors.plan, factory, None, 1)
            write_index(tmp_path / name, filled_index(plan, vectors, progress=False))
        assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize(
    ("factory", "count"),
    [
        ("SQ8", 50_000),
        ("IVF64,Flat", 64 * 256),
        ("IVF1024,PQ48", 50_000),
        ("OPQ48_192,IVF1024,PQ48", 50_000),
        ("IVF65536_HNSW32,PQ48x4fs", 65_536 * 39),
        ("PCA64,SQ8", 50_000),
        ("IVF256,PQ48,RFlat", 50_000),
    ],
)
def test_training_takes_no_more_than_the_index_has_use_for(factory: str, count: int) -> None:
    index = new_index(factory, 384)
    assert training_vectors(nested(index)) == count
