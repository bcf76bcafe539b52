"""An encoder that ran as a graph before: it runs again without torch, from its files, the graph and facts."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.core.artifact import Record
from mimo_plugin.core.errors import MimoError
from mimo_plugin.core.files import sha256 as file_sha256
from mimo_plugin.core.files import user_caches, write_text
from mimo_plugin.encoder import backend as backends
from mimo_plugin.encoder import export
from mimo_plugin.encoder.batching import Features, Text
from mimo_plugin.encoder.checkpoint import CUT, files_root
from mimo_plugin.encoder.options import AUTO, OPENVINO, TORCH, EncoderOptions
from mimo_plugin.encoder.side import TorchSide, capacity

if TYPE_CHECKING:
    import tokenizers

_log = logging.getLogger("mimo_plugin.encoder")
_FACTS, _TOKENIZER = "facts.json", "tokenizer.json"
# The files of a checkpoint that decide its vectors and prompts.
_SUFFIXES = {".json", ".jinja", ".model", ".safetensors", ".txt"}
# Where one of them is there, torch may find a faster device than the CPU.
_ACCELERATORS = ("nvidia*", "kfd", "dxg", "dri/renderD*", "accel*", "davinci*")


class Facts(Record):
    """What torch and sentence-transformers said of an encoder.

    Attributes:
        checkpoint: its name in warnings.
        graph: name of its graph's directory.
        capacity: the most tokens that its positions allow; None where nothing limits them.
        workers: batches that are computed at a time.
        warnings: what was logged while it was loaded.
    """

    checkpoint: str
    graph: str
    fingerprint: str
    dimension: int
    max_length: int
    capacity: int | None
    pooling: str | None
    normalizes: bool
    normalizes_cut: bool
    prompts: dict[str, str]
    default_prompt_name: str | None
    workers: int
    warnings: tuple[str, ...]


class GraphSide:
    """A graph with the checkpoint's own tokenizer; as `TorchSide`, without torch."""

    def __init__(self, facts: Facts, tokenizer: "tokenizers.Tokenizer", runner: export.GraphRunner) -> None:
        self.facts = facts
        self.runner = runner
        self.dimension, self.fingerprint = facts.dimension, facts.fingerprint
        self.normalizes, self.normalizes_cut = facts.normalizes, facts.normalizes_cut
        self.pooling = facts.pooling
        self._tokenizer = tokenizer
        self.limit(facts.max_length)

    def tokenise(self, texts: Sequence[Text], prompt: str, task: str | None) -> Features:
        return _tokenise(self._tokenizer, texts, prompt, self.runner.inputs)

    def max_length(self, task: str | None) -> int:
        return self._max_length

    @contextmanager
    def cut_to(self, max_length: int | None, task: str | None = None) -> Iterator[None]:
        before = self._max_length
        self.limit(min(max_length or before, self.facts.capacity or sys.maxsize))
        try:
            yield
        finally:
            self.limit(before)

    def limit(self, length: int) -> None:
        """Cuts texts to so many tokens."""
        self._max_length = length
        self._tokenizer.enable_truncation(**{**self._tokenizer.truncation, "max_length": length})


def _tokenise(
    tokenizer: "tokenizers.Tokenizer", texts: Sequence[Text], prompt: str, names: Sequence[str]
) -> Features:
    """What `SentenceTransformer.preprocess` gives where the tokenizer alone decides it."""
    import numpy as np

    put_before = [prompt + text if isinstance(text, str) else (prompt + text[0], *text[1:]) for text in texts]
    found = tokenizer.encode_batch(put_before)
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: np.array([getattr(one, columns[name]) for one in found], dtype=np.int64) for name in names}


def recall(checkpoint: str, path: str, backend: str, options: EncoderOptions) -> GraphSide | None:
    """The encoder of these files and options, if it ran as a graph before and all is as it was then.

    Args:
        checkpoint: as given; it is in warnings.
        path: the same, resolved.
        backend: of `backend.wanted`.
    """
    if backend == TORCH or (backend == AUTO and not _auto_is_openvino(options)):
        return None
    content = _content(path)
    if content is None:
        return None
    # The checkpoint's own length can be replaced by any other; the other way round it is not known.
    for own_length in (True, False)[: 1 if options.max_length is None else 2]:
        directory = export.directory_of(_key(content, backend, options, own_length), _directory)
        if export.whole(directory) is not None:
            return _recalled(directory, checkpoint, backend, options)
    return None


def _recalled(directory: Path, checkpoint: str, backend: str, options: EncoderOptions) -> GraphSide | None:
    import tokenizers

    try:
        facts = Facts.model_validate_json((directory / _FACTS).read_bytes())
        graph = export.graphs_directory() / facts.graph
        verdict = backends.Verdict.read(backends.verdict_file(graph, options.dtype))
        if export.whole(graph) is None or verdict is None or verdict.problem(options.dtype):
            return None
        length = options.max_length or facts.max_length
        if facts.capacity is not None and length > facts.capacity:
            return None
        torch = sys.modules.get("torch")
        workers = facts.workers if torch is None else int(torch.get_num_threads())
        kind = OPENVINO if backend == AUTO else backend
        runner = export.open_graph(graph, kind, options.dtype, workers)
        side = GraphSide(facts, tokenizers.Tokenizer.from_file(str(directory / _TOKENIZER)), runner)
        side.limit(length)
    except Exception:
        # Whatever it is, loading the model with torch says it.
        return None
    for warning in facts.warnings:
        if options.max_length is None or CUT not in warning:
            _log.warning(warning.replace(facts.checkpoint, checkpoint))
    return side


def remember(
    side: TorchSide,
    checkpoint: str,
    path: str,
    backend: str,
    options: EncoderOptions,
    warnings: Sequence[str],
) -> None:
    """Keeps what `recall` needs, where the tokenizer alone gives the features that the model's graph gets."""
    if not isinstance(side.runner, export.GraphRunner):
        return
    tokenizer = getattr(side.model.tokenizer, "backend_tokenizer", None)
    content = _content(path)
    lengths = {side.max_length(task) for task in ("query", "document")}
    if tokenizer is None or content is None or len(lengths) > 1:
        return
    facts = Facts(
        checkpoint=checkpoint,
        graph=side.runner.directory.name,
        fingerprint=side.fingerprint,
        dimension=side.dimension,
        max_length=lengths.pop(),
        capacity=capacity(side.model),
        pooling=side.pooling,
        normalizes=side.normalizes,
        normalizes_cut=side.normalizes_cut,
        prompts=side.model.prompts,
        default_prompt_name=side.model.default_prompt_name,
        workers=side.runner.workers,
        warnings=tuple(warnings),
    )
    if not _same_features(side, tokenizer, facts, side.runner):
        return

    def write(place: Path) -> None:
        write_text(place / _FACTS, facts.model_dump_json(indent=2) + "\n")
        tokenizer.save(str(place / _TOKENIZER))

    asked = [options]
    if options.override and (options.dimension is not None or not side.is_cut):
        # As a search asks for the encoder of an index.
        asked.append(replace(options, pooling=facts.pooling, normalize=facts.normalizes))
    # Where it cannot be kept, the next start is as slow as this one.
    with suppress(MimoError):
        for one in asked:
            export.cached(_key(content, backend, one, one.max_length is None), write, _directory)


def _same_features(
    side: TorchSide, tokenizer: "tokenizers.Tokenizer", facts: Facts, runner: export.GraphRunner
) -> bool:
    import numpy as np
    import tokenizers

    texts: list[Text] = list(backends.sample_texts(facts.max_length, 10_000))
    texts += [(" Title ", "text"), ("", ""), "  UPPER\tcase\n ", ("a", "word " * facts.max_length)]
    for prompt in ("", "query: "):
        expected = side.tokenise(texts, prompt, "document")
        # Padding and truncation are those of the last call.
        if tokenizer.truncation is None:
            return False
        copy = tokenizers.Tokenizer.from_str(tokenizer.to_str())
        found = GraphSide(facts, copy, runner).tokenise(texts, prompt, "document")
        if not all(np.array_equal(expected[name], found[name]) for name in runner.inputs):
            return False
    return True


@contextmanager
def warnings_noted() -> Iterator[list[str]]:
    """Yields a list of what this package's encoders warn of meanwhile."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    _log.addHandler(handler)
    try:
        yield found
    finally:
        _log.removeHandler(handler)


def _auto_is_openvino(options: EncoderOptions) -> bool:
    if options.dtype != "float32" or not backends.installed(OPENVINO):
        return False
    if options.device is not None:
        return options.device == "cpu"
    return sys.platform == "linux" and not any(any(Path("/dev").glob(pattern)) for pattern in _ACCELERATORS)


def _directory() -> Path:
    return user_caches() / "encoders"


def _content(path: str) -> str | None:
    """SHA-256 over the files of a checkpoint; None where they are not on this machine."""
    root = files_root(path, fetch=True)
    if root is None:
        return None
    files = sorted(file for file in root.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    lines = "".join(f"{file.relative_to(root)} {file_sha256(file)}\n" for file in files)
    return sha256(lines.encode()).hexdigest()


def _key(content: str, backend: str, options: EncoderOptions, own_length: bool) -> dict[str, str]:
    """All that decides the facts."""
    backend = OPENVINO if backend == AUTO else backend
    settings = ("dtype", "attention", "pooling", "normalize", "dimension", "override")
    return {
        "files": content,
        "options": repr([getattr(options, name) for name in settings]),
        "length": "the checkpoint's own" if own_length else str(options.max_length),
        "backend": backend,
        "threads": repr((os.environ.get("OMP_NUM_THREADS"), os.cpu_count())),
        **backends.libraries(backend),
    }
