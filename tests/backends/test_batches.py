"""Which texts share a batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import TEXTS
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.backends.batches import batches, pieces, rectangular
from mimo_plugin.student import EncoderOptions, Student


@given(st.lists(st.integers(0, 10**7), max_size=3000))
def test_pieces_hold_every_text_once_and_the_longest_first(lengths: list[int]) -> None:
    found = pieces(lengths)
    order = [position for piece in found for position in piece]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[position] for position in order] == sorted(lengths, reverse=True)
    assert all(len(piece) <= 1024 for piece in found)
    assert all(len(piece) == 1 or len(piece) * lengths[piece[0]] <= 2**22 for piece in found)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    on_right=st.booleans(),
    texts=st.integers(1, 20),
    tokens=st.integers(1, 200),
)
def test_batches_keep_to_their_limits_and_lose_no_token(
    lengths: list[int], on_right: bool, texts: int, tokens: int
) -> None:
    width = max(lengths) + 3
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.int64), torch.zeros(len(lengths), width)
    mask = mask.to(torch.int64)
    for row, length in enumerate(lengths):
        columns = slice(0, length) if on_right else slice(width - length, width)
        ids[row, columns] = torch.arange(1, length + 1) + 100 * row
        mask[row, columns] = 1
    features = {"input_ids": ids, "attention_mask": mask, "modality": "text"}
    assert rectangular(features, len(lengths))
    seen: list[int] = []
    for rows, part in batches(features, texts=texts, tokens=tokens):
        assert len(rows) <= texts
        assert len(rows) == 1 or part["input_ids"].numel() <= tokens
        assert part["input_ids"].shape[1] == max(lengths[row] for row in rows)
        assert part["modality"] == "text"
        for row, own in zip(rows, part["input_ids"], strict=True):
            assert own[own > 0].tolist() == ids[row][ids[row] > 0].tolist()
        seen.extend(rows.tolist())
    assert sorted(seen) == list(range(len(lengths)))


def test_threads_change_nothing_and_leave_no_trace(tiny: Path) -> None:
    texts = [f"{text} {number}" for number in range(40) for text in TEXTS]
    student = Student.load(str(tiny), EncoderOptions(backend="torch", device="cpu", batch_size=16))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = student.encode_documents(texts)
        torch.set_num_threads(2)
        two = student.encode_documents(texts)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(one, two)


def test_an_interrupt_stops_the_work(tiny: Path) -> None:
    student = Student.load(str(tiny), EncoderOptions(backend="torch", device="cpu", batch_size=1))
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        student.encode_documents(TEXTS * 20, advance=advance)
    assert done == 1


def test_no_texts_have_no_vectors(tiny: Path) -> None:
    student = Student.load(str(tiny), EncoderOptions(backend="torch", device="cpu"))
    assert student.encode_documents([]).shape == (0, 32)
