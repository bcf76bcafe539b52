"""Which texts share a batch."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import TEXTS
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.core.errors import DataError
from mimo_plugin.encoder.batching import Features, TorchRunner, batches, pieces, rectangular
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions


@given(st.lists(st.integers(0, 10**7), max_size=3000))
def test_pieces_hold_every_text_once_and_the_longest_first(lengths: list[int]) -> None:
    found = pieces(lengths)
    order = [position for piece in found for position in piece]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[position] for position in order] == sorted(lengths, reverse=True)
    assert all(len(piece) <= 1024 for piece in found)
    assert all(len(piece) == 1 or len(piece) * lengths[piece[0]] <= 2**22 for piece in found)


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=60),
    on_right=st.booleans(),
    texts=st.integers(1, 20),
    tokens=st.integers(1, 200),
)
def test_batches_keep_to_their_limits_and_lose_no_token(
    lengths: list[int], on_right: bool, texts: int, tokens: int
) -> None:
    width = max(lengths) + 3
    ids, mask = np.zeros((2, len(lengths), width), dtype=np.int64)
    for row, length in enumerate(lengths):
        columns = slice(0, length) if on_right else slice(width - length, width)
        ids[row, columns] = np.arange(1, length + 1) + 100 * row
        mask[row, columns] = 1
    features = {"input_ids": ids, "attention_mask": mask, "modality": "text"}
    assert rectangular(features, len(lengths))
    seen: list[int] = []
    for rows, part in batches(features, texts=texts, tokens=tokens):
        assert len(rows) <= texts
        assert len(rows) == 1 or part["input_ids"].size <= tokens
        assert part["input_ids"].shape[1] == max(1, *(lengths[row] for row in rows))
        assert len({lengths[row] > 0 for row in rows}) == 1
        assert part["modality"] == "text"
        for row, own in zip(rows, part["input_ids"], strict=True):
            assert own[own > 0].tolist() == ids[row][ids[row] > 0].tolist()
        seen.extend(rows.tolist())
    assert sorted(seen) == list(range(len(lengths)))


@pytest.mark.threads
def test_threads_change_nothing_and_leave_no_trace(tiny: Path) -> None:
    texts = [f"{text} {number}" for number in range(40) for text in TEXTS]
    student = Encoder(str(tiny), EncoderOptions(backend="torch", device="cpu", batch_size=16))
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


@pytest.mark.threads
def test_an_interrupt_stops_the_work(tiny: Path) -> None:
    student = Encoder(str(tiny), EncoderOptions(backend="torch", device="cpu", batch_size=1))
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        student.encode_documents(TEXTS * 20, advance=advance)
    assert done == 1


def test_no_texts_have_no_vectors(tiny: Path) -> None:
    student = Encoder(str(tiny), EncoderOptions(backend="torch", device="cpu"))
    assert student.encode_documents([]).shape == (0, 32)


@pytest.mark.threads
def test_batches_of_documents_have_the_vectors_that_each_has_alone(tiny: Path) -> None:
    student = Encoder(str(tiny), EncoderOptions(backend="torch", device="cpu", batch_size=4))
    texts = [f"{text} {number}" for number in range(9) for text in TEXTS]
    batches = [texts[:1], texts[1:40], texts[40:42], texts[3:4], texts]
    done: list[int] = []
    found = list(student.encode_each(iter(batches), advance=done.append))
    for batch, vectors in zip(batches, found, strict=True):
        assert vectors.tobytes() == student.encode_documents(batch).tobytes()
    assert sum(done) == sum(map(len, batches))


@dataclass
class Watched:
    """torch, with something to do before each batch."""

    runner: TorchRunner
    before: Callable[[], None]
    name: str = "torch"
    workers: int = 1
    tokens: int = 64

    def run(self, features: Features) -> np.ndarray:
        self.before()
        return self.runner.run(features)


def watched(tiny: Path, before: Callable[[], None]) -> Encoder:
    student = Encoder(str(tiny), EncoderOptions(backend="torch", device="cpu", batch_size=2))
    return Encoder.of(student.model, "tiny", student.options, Watched(TorchRunner(student.model), before))


@pytest.mark.threads
def test_documents_are_read_while_those_before_are_computed(tiny: Path) -> None:
    read = threading.Event()
    reader: list[threading.Thread] = []

    def compute() -> None:
        assert read.wait(60)

    def batches() -> Iterator[list[str]]:
        yield TEXTS * 3
        read.set()
        reader.append(threading.current_thread())
        yield TEXTS

    assert len(list(watched(tiny, compute).encode_each(batches()))) == 2
    assert reader[0] is not threading.main_thread()


@pytest.mark.threads
def test_what_was_read_before_an_error_is_encoded(tiny: Path) -> None:
    def batches() -> Iterator[list[str]]:
        yield TEXTS
        yield TEXTS[:1]
        raise DataError("the file ends here")

    found = watched(tiny, lambda: None).encode_each(batches())
    assert [len(next(found)), len(next(found))] == [len(TEXTS), 1]
    with pytest.raises(DataError, match="the file ends here"):
        next(found)


@pytest.mark.threads
def test_a_batch_that_fails_gives_no_half_done_vectors(tiny: Path) -> None:
    calls = 0

    def compute() -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise RuntimeError("out of memory")

    found = watched(tiny, compute).encode_each([TEXTS[:4], TEXTS[:4], TEXTS * 9])
    assert [len(next(found)), len(next(found))] == [4, 4]
    with pytest.raises(RuntimeError, match="out of memory"):
        next(found)
    with pytest.raises(StopIteration):
        next(found)
