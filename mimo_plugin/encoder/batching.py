"""From texts to vectors: tokenised ahead, in batches of similar length, one batch a core."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer

# One text, or a (title, text) pair that the tokenizer joins.
Text = str | tuple[str, str]
# A model's input: name -> array (texts, tokens), or a value that is no array.
Features = Mapping[str, Any]

# With more, a layer's activations do not fit a core's cache, and there is more padding.
CPU_TOKENS = 512
# Enough to keep a GPU busy; XLM-R-large needs less than 4 GiB for them.
GPU_TOKENS = 16_384
# Most texts that are tokenised at a time, and most characters of their padded rows.
_PIECE_TEXTS = 1024
_PIECE_CHARACTERS = 2**22
# Batches that wait for each worker.
_AHEAD = 2


class Runner(Protocol):
    """Computes batches, several at a time."""

    @property
    def name(self) -> str:
        """torch, onnx or openvino."""

    @property
    def workers(self) -> int:
        """Batches that are computed at the same time; on a CPU, each by one core."""

    @property
    def tokens(self) -> int:
        """Most tokens a batch, padding included."""

    def run(self, features: Features) -> "np.ndarray":
        """The vectors of one batch, float32 (texts, dimension). Thread-safe."""


class Tokenised(Protocol):
    """A side of an encoder: a tokenizer and a runner."""

    @property
    def runner(self) -> Runner:
        """Computes the batches."""

    @property
    def dimension(self) -> int:
        """Number of components to keep; the runner may give more."""

    def tokenise(self, texts: Sequence[Text], prompt: str, task: str | None) -> Features:
        """Features of texts; some modules distinguish the tasks "query" and "document"."""


class TorchRunner:
    """Runs the model with torch, on the model's device."""

    name = "torch"

    def __init__(self, model: "SentenceTransformer") -> None:
        import torch

        self._model = model
        # See `first_batch`.
        torch.from_numpy(torch.zeros(1).numpy())

    @property
    def workers(self) -> int:
        import torch

        # With a GPU, the second worker prepares a batch while the first one's is computed.
        return int(torch.get_num_threads()) if self._on_cpu else 2

    @property
    def tokens(self) -> int:
        return CPU_TOKENS if self._on_cpu else GPU_TOKENS

    @property
    def _on_cpu(self) -> bool:
        return bool(self._model.device.type == "cpu")

    def run(self, features: Features) -> "np.ndarray":
        import torch

        with torch.inference_mode():
            moved = {name: self._moved(value) for name, value in features.items()}
            vectors: np.ndarray = self._model(moved)["sentence_embedding"].float().cpu().numpy()
        return vectors

    def _moved(self, value: Any) -> Any:
        import numpy as np
        import torch

        device = self._model.device
        if not isinstance(value, np.ndarray):
            return value
        tensor = torch.from_numpy(value)
        if device.type == "cuda":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)


def first_batch(names: Sequence[str]) -> dict[str, "np.ndarray"]:
    """A small batch that a new runner computes at once, in one thread, to avoid a deadlock.

    A library's bridge to NumPy initialises itself at its first conversion. If two threads do the first
    conversion together, they can deadlock: one initialises and waits for the GIL, the other holds the GIL and
    waits for the initialisation.

    Args:
        names: of the features.
    """
    import numpy as np

    tokens: np.ndarray = np.zeros((1, 2), dtype=np.int64)
    return {name: tokens + 1 if "mask" in name else tokens for name in names}


class Batch(NamedTuple):
    """A batch of a piece.

    Attributes:
        rows: positions in the piece, of shape (texts,).
        features: of the texts, padded to the longest of them.
    """

    rows: "np.ndarray"
    features: Features


def pieces(lengths: Sequence[int]) -> list[list[int]]:
    """Positions of texts that are tokenised together: of similar length, the longest texts first.

    That way the batch that needs most memory comes first.

    Args:
        lengths: of the texts, in characters.
    """
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    found, start = [], 0
    while start < len(order):
        count = min(_PIECE_TEXTS, max(1, _PIECE_CHARACTERS // max(1, lengths[order[start]])))
        found.append(order[start : start + count])
        start += count
    return found


def rectangular(features: Features, texts: int) -> bool:
    """Whether every array has shape (texts, tokens), so that rows can be batched again."""
    mask = features.get("attention_mask")
    if mask is None or mask.ndim != 2 or len(mask) != texts:
        return False
    return all(value.shape == mask.shape for value in features.values() if hasattr(value, "shape"))


def batches(features: Features, *, texts: int, tokens: int) -> Iterator[Batch]:
    """Cuts the features of a piece into batches of similar length, the longest first.

    Some tokenizers give no tokens for an empty text. Such texts get separate batches with one column of
    padding, so that their vectors do not depend on other texts.

    Args:
        texts: most texts a batch.
        tokens: most tokens a batch, padding included; a longer text is a batch of its own.
    """
    import numpy as np

    mask = features["attention_mask"]
    lengths = mask.sum(axis=1)
    # All rows are padded on the same side: on the right if every text that has tokens begins with one.
    on_right = bool((mask[lengths > 0, 0] == 1).all())
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        rows = order[start : start + max(1, min(texts, tokens // longest))]
        if lengths[rows[0]] > 0:
            rows = rows[lengths[rows] > 0]
        columns = slice(0, longest) if on_right else slice(mask.shape[1] - longest, None)
        yield Batch(
            rows,
            {
                name: np.ascontiguousarray(value[rows][:, columns]) if hasattr(value, "shape") else value
                for name, value in features.items()
            },
        )
        start += len(rows)


@dataclass(frozen=True)
class Texts:
    """Texts to encode; no batch mixes two `Texts`.

    Attributes:
        texts: texts, or (title, text) pairs.
        prompt: put before each text.
        batch_size: most texts a batch.
        task: see `Tokenised.tokenise`.
    """

    texts: Sequence[Text]
    prompt: str
    batch_size: int
    task: str | None = None

    def lengths(self) -> list[int]:
        """Length of each text, in characters."""
        return [len(text) if isinstance(text, str) else sum(map(len, text)) for text in self.texts]


def encode(side: Tokenised, source: Texts, advance: Callable[[int], object] | None = None) -> "np.ndarray":
    """Vectors in the texts' order, float32 (texts, dimension); arguments as for `encode_each`."""
    import numpy as np

    if not source.texts:
        return np.empty((0, side.dimension), dtype=np.float32)
    with closing(encode_each(side, [source], advance)) as found:
        return next(found)


def encode_each(
    side: Tokenised, sources: Iterable[Texts], advance: Callable[[int], object] | None = None
) -> Generator["np.ndarray", None, None]:
    """Yields the vectors of one source after the other; they do not depend on the other sources.

    Each core computes a batch of its own. If all cores shared each batch, they would wait for each other
    after every operation. Only the single batch of a small source gets all cores. Another thread reads and
    tokenises the next texts meanwhile.

    Args:
        sources: each with at least one text. An error of reading them is raised after the vectors of earlier
            sources.
        advance: called with the number of texts done since the last call.
    """
    import numpy as np

    vectors: np.ndarray | None = None
    with (
        closing(_ahead(_jobs(side, sources))) as jobs,
        closing(_computed(side.runner, jobs)) as done,
    ):
        for job, found in done:
            if vectors is None:
                vectors = np.empty((len(job.source.texts), side.dimension), dtype=np.float32)
            # `truncate_dim` or --dimension may keep only the first components.
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
        alone: whether it is the source's only batch.
        last: whether it is the source's last batch.
    """

    source: Texts
    rows: "np.ndarray"
    features: Features
    alone: bool
    last: bool


def _jobs(side: Tokenised, sources: Iterable[Texts]) -> Iterator[list[_Job]]:
    """The batches of one source after the other, a piece at a time."""
    for source in sources:
        parts = pieces(source.lengths())
        for number, piece in enumerate(parts, start=1):
            cut = _cut(side, source, piece)
            alone, end = len(parts) == len(cut) == 1, number == len(parts)
            yield [_Job(source, *batch, alone, end and batch is cut[-1]) for batch in cut]


def _cut(side: Tokenised, source: Texts, piece: list[int]) -> list[Batch]:
    import numpy as np

    def tokenise(positions: list[int], *others: str) -> Features:
        texts = [*(source.texts[position] for position in positions), *others]
        return side.tokenise(texts, source.prompt, source.task)

    features, positions = tokenise(piece), np.asarray(piece)
    if rectangular(features, len(piece)):
        if not features["attention_mask"].shape[1]:
            # No text has a token. Another text with one makes the tokenizer pad them.
            padded = tokenise(piece, "a")
            features = {
                name: value[:-1] if hasattr(value, "shape") else value for name, value in padded.items()
            }
        cut = batches(features, texts=source.batch_size, tokens=side.runner.tokens)
        return [Batch(positions[rows], part) for rows, part in cut]
    # Features without rows of tokens cannot be cut, so each batch is tokenised separately.
    parts = [piece[start : start + source.batch_size] for start in range(0, len(piece), source.batch_size)]
    return [Batch(np.asarray(part), tokenise(part)) for part in parts]


def _ahead(tokenised: Iterator[list[_Job]]) -> Generator[_Job, None, None]:
    """Tokenises the next piece while the consumer takes the batches of this one."""
    with _threads(ThreadPoolExecutor(1, "tokenizer")) as thread:
        piece = thread.submit(next, tokenised, None)
        while (jobs := piece.result()) is not None:
            piece = thread.submit(next, tokenised, None)
            yield from jobs


def _computed(runner: Runner, jobs: Iterator[_Job]) -> Generator[tuple[_Job, "np.ndarray"], None, None]:
    """Each batch with its vectors, in order."""
    waiting: deque[tuple[_Job, Future[np.ndarray]]] = deque()
    trouble: Exception | None = None
    with _one_core_each(runner) as pool:
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
def _one_core_each(runner: Runner) -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads use one core each; graphs always use one."""
    if runner.name != "torch":
        with _threads(ThreadPoolExecutor(runner.workers)) as pool:
            yield pool
        return
    import torch

    before = torch.get_num_threads()
    try:
        with _threads(
            ThreadPoolExecutor(runner.workers, initializer=torch.set_num_threads, initargs=(1,))
        ) as pool:
            yield pool
    finally:
        # Later threads start with this number, too.
        torch.set_num_threads(before)


@contextmanager
def _threads(pool: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Waits for the threads at the end, but not after an interrupt, when one of them may hang."""
    try:
        yield pool
    except BaseException as error:
        # If the interrupt is raised outside this generator, it arrives here as GeneratorExit.
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()
