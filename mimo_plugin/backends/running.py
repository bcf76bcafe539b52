"""From texts to vectors: tokenised a piece ahead, in batches of like length, one batch a core."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mimo_plugin.backends.batches import Batch, batches, pieces, rectangular
from mimo_plugin.backends.runner import Features, Runner

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer

# Positions of texts, and their vectors.
Computed = Generator[tuple[Any, "np.ndarray"], None, None]

# Batches that lie ready for each worker.
_AHEAD = 2


@dataclass(frozen=True)
class Texts:
    """Attributes:
    texts: texts, or (title, text) pairs.
    lengths: theirs, in characters.
    prompt: put before each text.
    batch_size: most texts a batch.
    """

    texts: Sequence[Any]
    lengths: Sequence[int]
    prompt: str
    batch_size: int


def encode(
    model: "SentenceTransformer",
    runner: Runner,
    source: Texts,
    advance: Callable[[int], object] | None = None,
) -> "np.ndarray":
    """Vectors in the texts' order, float32 (texts, dimension).

    A core that has a batch to itself does not wait for the others after every operation, as it does where
    all of them share each batch. Only a batch that is alone gets all cores.

    Args:
        model: whose tokenizer and maximum length are used.
        runner: what computes.
        advance: called with the number of texts done since the last call.
    """
    import numpy as np

    vectors = np.empty((len(source.texts), int(model.get_embedding_dimension())), dtype=np.float32)
    parts = pieces(source.lengths)
    if not parts:
        return vectors
    model.eval()
    work = _Work(model, source, runner.tokens)
    first = work.tokenise(parts[0])
    if rectangular(first, len(parts[0])):
        ready = list(work.cut(parts[0], first))
        alone = len(parts) == len(ready) == 1
        done = _one(runner, ready[0]) if alone else _many(runner, work.batches(ready, parts[1:]))
    else:
        done = work.plainly(parts)
    with closing(done):
        for rows, found in done:
            # A checkpoint may say that only the first dimensions count.
            vectors[rows] = found[:, : vectors.shape[1]]
            if advance is not None:
                advance(len(rows))
    return vectors


@dataclass(frozen=True)
class _Work:
    """Attributes:
    tokens: most tokens a batch.
    """

    model: "SentenceTransformer"
    source: Texts
    tokens: int

    def tokenise(self, piece: Sequence[int]) -> Features:
        features: Features = self.model.preprocess(self._texts(piece), prompt=self.source.prompt)
        return features

    def cut(self, piece: Sequence[int], features: Features) -> Iterator[Batch]:
        import numpy as np

        positions = np.asarray(piece)
        for rows, part in batches(features, texts=self.source.batch_size, tokens=self.tokens):
            yield Batch(positions[rows], part)

    def batches(self, ready: Iterable[Batch], rest: Sequence[list[int]]) -> Generator[Batch, None, None]:
        """Those that are ready, then those of the other pieces; each piece is tokenised while the batches of
        the one before are taken."""
        with ThreadPoolExecutor(1) as tokenizer:
            for piece in rest:
                ahead = tokenizer.submit(self.tokenise, piece)
                yield from ready
                ready = self.cut(piece, ahead.result())
            yield from ready

    def plainly(self, parts: Iterable[list[int]]) -> Computed:
        """Vectors of a model whose tokenizer makes something else than rows of tokens."""
        for piece in parts:
            yield (
                piece,
                self.model.encode(
                    self._texts(piece),
                    prompt=self.source.prompt,
                    batch_size=self.source.batch_size,
                    show_progress_bar=False,
                    convert_to_numpy=True,
                ),
            )

    def _texts(self, piece: Sequence[int]) -> list[Any]:
        return [self.source.texts[position] for position in piece]


def _one(runner: Runner, batch: Batch) -> Computed:
    yield batch.rows, runner.run(batch.features)


def _many(runner: Runner, source: Generator[Batch, None, None]) -> Computed:
    """Rows and vectors of every batch, in the batches' order."""
    waiting: deque[tuple[Any, Future[np.ndarray]]] = deque()
    with _one_core_each(runner.workers) as pool, closing(source):
        for batch in source:
            waiting.append((batch.rows, pool.submit(runner.run, batch.features)))
            if len(waiting) > _AHEAD * runner.workers:
                rows, vectors = waiting.popleft()
                yield rows, vectors.result()
        for rows, vectors in waiting:
            yield rows, vectors.result()


@contextmanager
def _one_core_each(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads in which torch computes with one core."""
    import torch

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        # It is also what threads start with that begin later.
        torch.set_num_threads(before)
