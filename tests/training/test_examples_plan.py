"""What shares a batch, and how often a row comes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import UsageError
from mimo_plugin.training.examples import (
    Relevance,
    _merged,
    contrastive_batches,
    shuffled_batches,
)
from mimo_plugin.training.recipe import Stage1Options


def number(texts: list[str]) -> np.ndarray:
    return pd.factorize(np.array(texts))[0]


@st.composite
def tables(draw: st.DrawFn) -> tuple[Relevance, int]:
    rows = draw(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=4, max_size=40))
    queries, passages = (number([str(row[side]) for row in rows]) for side in (0, 1))
    return Relevance(queries, passages), draw(st.integers(1, 4))


@given(tables(), st.integers(0, 99), st.integers(0, 3))
@settings(max_examples=150)
def test_no_passage_is_relevant_to_another_rows_query(
    table: tuple[Relevance, int], seed: int, count: int
) -> None:
    relevance, batch_size = table
    judged = set(zip(relevance.queries.tolist(), relevance.passages.tolist(), strict=True))
    usable = np.arange(len(relevance.queries))
    rng = np.random.default_rng(seed)
    negatives = rng.integers(len(usable), size=(len(usable), count)) if count else None
    try:
        batches = contrastive_batches(relevance, usable, batch_size, 12, rng, negatives)
    except UsageError:
        # A single row conflicts with none.
        assert batch_size > 1
        return
    assert batches.shape == (12, batch_size)
    for batch in batches.tolist():
        assert len(set(batch)) == batch_size
        for one in batch:
            for other in batch:
                brought = [other, *([] if negatives is None else negatives[other].tolist())]
                for row in brought:
                    pair = (int(relevance.queries[one]), int(relevance.passages[row]))
                    assert one == other or pair not in judged


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=100)
def test_every_row_comes_once_a_pass(rows: int, batch_size: int, passes: int, seed: int) -> None:
    rows = rows * batch_size
    each = np.arange(rows)
    rng = np.random.default_rng(seed)
    batches = contrastive_batches(Relevance(each, each), each, batch_size, rows // batch_size * passes, rng)
    for one_pass in np.split(batches.reshape(-1), passes):
        assert sorted(one_pass.tolist()) == each.tolist()


def test_rows_that_wait_come_soon_and_none_is_lost() -> None:
    """Twenty rows of one query among 380 others: a batch takes one of them."""
    queries = np.concatenate([np.zeros(20, dtype=int), np.arange(1, 381)])
    each = np.arange(400)
    batches = contrastive_batches(Relevance(queries, each), each, 10, 40, np.random.default_rng(0))
    counts = np.bincount(batches.reshape(-1), minlength=400)
    assert ((batches < 20).sum(axis=1) <= 1).all()
    assert counts.max() <= 2
    assert (counts == 0).sum() <= 10


def test_only_usable_rows_are_taken() -> None:
    each = np.arange(30)
    batches = contrastive_batches(Relevance(each, each), each[::2], 5, 9, np.random.default_rng(0))
    assert set(batches.reshape(-1).tolist()) <= set(each[::2].tolist())


def test_a_batch_that_cannot_be_filled() -> None:
    same_query = Relevance(np.zeros(8, dtype=int), np.arange(8))
    with pytest.raises(UsageError, match="--batch-size 2: only 1 rows"):
        contrastive_batches(same_query, np.arange(8), 2, 1, np.random.default_rng(0))


def test_a_batch_larger_than_the_data() -> None:
    with pytest.raises(UsageError, match="--batch-size 9 is larger than the data, which has 8 usable rows"):
        Stage1Options(batch_size=9).steps_on(8)
    assert Stage1Options(batch_size=8).steps_on(8) == 1
    assert Stage1Options(batch_size=8, epochs=2.5).steps_on(100) == 31
    assert Stage1Options(batch_size=8, epochs=2.5, steps=7).steps_on(100) == 7


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=100)
def test_shuffled_batches_take_each_row_once_a_pass(
    rows: int, batch_size: int, steps: int, seed: int
) -> None:
    batches = shuffled_batches(rows, batch_size, steps, np.random.default_rng(seed))
    assert batches.shape == (steps, batch_size)
    flat = batches.reshape(-1)
    for start in range(0, len(flat), rows):
        one_pass = flat[start : start + rows].tolist()
        assert len(set(one_pass)) == len(one_pass)


def test_a_seed_decides_everything() -> None:
    each = np.arange(40)
    for make in (
        lambda rng: contrastive_batches(Relevance(each % 30, each), each, 8, 20, rng),
        lambda rng: shuffled_batches(40, 8, 20, rng),
    ):
        one, same, other = (make(np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert (one == same).all()
        assert (one != other).any()


def test_the_same_by_id_or_text_or_in_a_chain() -> None:
    ids, texts = number(["a", "a", "b", "c", "d"]), number(["x", "y", "y", "z", "z"])
    found = _merged(ids, texts).tolist()
    assert found[0] == found[1] == found[2]
    assert found[3] == found[4] != found[0]


def test_many_copies_are_one() -> None:
    """256 equal pairs would be none in a byte."""
    found = _merged(np.zeros(256, dtype=np.int64), np.zeros(256, dtype=np.int64))
    assert len(set(found.tolist())) == 1
