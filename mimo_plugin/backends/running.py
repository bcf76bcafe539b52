"""From texts to vectors: read and tokenised ahead, in batches of like length, one batch a core."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mimo_plugin.backends.batches import Batch, batches, pieces, rectangular
from mimo_plugin.backends.runner import Features, Runner

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer

# Batches that lie ready for each worker.
_AHEAD = 2


@dataclass(frozen=True)
class Texts:
    """Texts that batches are made of; no batch holds texts of two.

    Attributes:
        texts: texts, or (title, text) pairs.
        lengths: theirs, in characters.
        prompt: put before each text.
        batch_size: most texts a batch.
        task: "query" or "document", for modules that treat them differently.
    """

    texts: Sequence[Any]
    lengths: Sequence[int]
    prompt: str
    batch_size: int
    task: str | None = None


def encode(
    model: "SentenceTransformer",
    runner: Runner,
    source: Texts,
    advance: Callable[[int], object] | None = None,
) -> "np.ndarray":
    """Vectors in the texts' order, float32 (texts, dimension); arguments as for `encode_each`."""
    import numpy as np

    if not source.texts:
        return np.empty((0, _width(model)), dtype=np.float32)
    with closing(encode_each(model, runner, [source], advance)) as found:
        return next(found)


def encode_each(
    model: "SentenceTransformer",
    runner: Runner,
    sources: Iterable[Texts],
    advance: Callable[[int], object] | None = None,
) -> Generator["np.ndarray", None, None]:
    """Yields the vectors of one source after the other: those that it has alone.

    A core that has a batch to itself does not wait for the others after every operation, as it does where
    all of them share each batch. Only a source's batch that is alone gets all cores. What comes next is read
    and tokenised by a thread of its own meanwhile.

    Args:
        model: whose tokenizer and maximum length are used.
        runner: what computes.
        sources: of one text at least. What reading them raises is raised after what was read before it has
            been yielded.
        advance: called with the number of texts done since the last call.
    """
    import numpy as np

    model.eval()
    vectors: np.ndarray | None = None
    with (
        closing(_ahead(_tokenised(model, sources, runner.tokens))) as jobs,
        closing(_computed(runner, jobs)) as done,
    ):
        for job, found in done:
            if vectors is None:
                vectors = np.empty((len(job.source.texts), _width(model)), dtype=np.float32)
            # A checkpoint may say that only the first dimensions count.
            vectors[job.rows] = found[:, : vectors.shape[1]]
            if advance is not None:
                advance(len(job.rows))
            if job.last:
                yield vectors
                vectors = None


class _Job(NamedTuple):
    """A batch.

    Attributes:
        rows: positions of its texts in the source.
        alone: it is all of the source.
        last: of the source.
    """

    source: Texts
    rows: "np.ndarray"
    features: Features
    alone: bool
    last: bool


def _width(model: "SentenceTransformer") -> int:
    return int(model.get_embedding_dimension())


def _tokenised(model: "SentenceTransformer", sources: Iterable[Texts], tokens: int) -> Iterator[list[_Job]]:
    """The batches of a piece at a time, of one source after the other."""
    for source in sources:
        parts = pieces(source.lengths)
        for number, piece in enumerate(parts, start=1):
            cut = _cut(model, source, piece, tokens)
            alone, end = len(parts) == len(cut) == 1, number == len(parts)
            yield [_Job(source, *batch, alone, end and batch is cut[-1]) for batch in cut]


def _cut(model: "SentenceTransformer", source: Texts, piece: list[int], tokens: int) -> list[Batch]:
    import numpy as np

    def tokenise(positions: list[int], *others: str) -> Features:
        found: Features = model.preprocess(
            [*(source.texts[position] for position in positions), *others],
            prompt=source.prompt,
            task=source.task,
        )
        return found

    features, positions = tokenise(piece), np.asarray(piece)
    if rectangular(features, len(piece)):
        if not features["attention_mask"].shape[1]:
            # No text has a token. One that does brings padding for the others.
            padded = tokenise(piece, "a")
            features = {
                name: value[:-1] if hasattr(value, "shape") else value for name, value in padded.items()
            }
        cut = batches(features, texts=source.batch_size, tokens=tokens)
        return [Batch(positions[rows], part) for rows, part in cut]
    # Something else than rows of tokens: it cannot be cut, only made again.
    parts = [piece[start : start + source.batch_size] for start in range(0, len(piece), source.batch_size)]
    return [Batch(np.asarray(part), tokenise(part)) for part in parts]


def _ahead(tokenised: Iterator[list[_Job]]) -> Generator[_Job, None, None]:
    """Has the next piece tokenised while the batches of this one are taken."""
    with _threads(ThreadPoolExecutor(1, "tokenizer")) as thread:
        piece = thread.submit(next, tokenised, None)
        while (jobs := piece.result()) is not None:
            piece = thread.submit(next, tokenised, None)
            yield from jobs


def _computed(runner: Runner, jobs: Iterator[_Job]) -> Generator[tuple[_Job, "np.ndarray"], None, None]:
    """Every batch with its vectors, in the batches' order."""
    waiting: deque[tuple[_Job, Future[np.ndarray]]] = deque()
    trouble: Exception | None = None
    with _one_core_each(runner.workers) as pool:
        while True:
            try:
                job = next(jobs, None)
            except Exception as error:
                job, trouble = None, error
            full = job is not None and not job.alone
            while len(waiting) > (_AHEAD * runner.workers if full else 0):
                before, vectors = waiting.popleft()
                yield before, vectors.result()
            if job is None:
                break
            if job.alone:
                yield job, runner.run(job.features)
            else:
                waiting.append((job, pool.submit(runner.run, job.features)))
    if trouble is not None:
        raise trouble


@contextmanager
def _one_core_each(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads in which torch computes with one core."""
    import torch

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        with _threads(pool):
            yield pool
    finally:
        # It is also what threads start with that begin later.
        torch.set_num_threads(before)


@contextmanager
def _threads(pool: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Waits for the threads when the work is done; after an interrupt one of them may hang."""
    try:
        yield pool
    except BaseException as error:
        # An interrupt reaches a generator in which it was not raised as GeneratorExit.
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()
