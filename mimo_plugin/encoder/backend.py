"""What runs an encoder: torch, or a graph that was compared with torch before its first use.

An encoder that ran as a graph is remembered: the next one of the same files and options runs without torch.
"""

import json
import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mimo_plugin.core.artifact import Record
from mimo_plugin.core.environment import installed_versions, native_bfloat16
from mimo_plugin.core.errors import EnvironmentProblem, MimoError, ModelError
from mimo_plugin.core.files import sha256 as file_sha256
from mimo_plugin.core.files import user_caches, write_text
from mimo_plugin.encoder import export
from mimo_plugin.encoder.batching import Runner, Text, Texts, TorchRunner, encode
from mimo_plugin.encoder.checkpoint import CUT, files_root
from mimo_plugin.encoder.options import (
    AUTO,
    BFLOAT16,
    FLOAT32,
    INT8,
    MODULES,
    ONNX,
    OPENVINO,
    TORCH,
    EncoderOptions,
    installed,
)
from mimo_plugin.encoder.side import Facts, GraphSide, TorchSide, capacity

if TYPE_CHECKING:
    import numpy as np
    import tokenizers
    from sentence_transformers import SentenceTransformer

# The parent of this package's loggers: `warnings_noted` listens to all of them.
_log = logging.getLogger("mimo_plugin.encoder")
# The comparison with torch reads texts of at most so many tokens, and each side costs at most so much
# (parameters times tokens): seconds on a few cores.
LONGEST, WORK = 512, 10**11
# Largest difference of any component of a float32 vector.
TOLERANCE = 1e-5
# Other number formats round: smallest cosine to torch's float32 vector.
LEAST_COSINE = {BFLOAT16: 0.98, INT8: 0.8}
# The same, where `auto` is to choose bfloat16.
NEAR = 0.999
# Stands for NaN and infinity in a verdict: JSON has neither.
_NOT_FINITE = 3e38
_FACTS, _TOKENIZER = "facts.json", "tokenizer.json"
# Files of a checkpoint that decide its vectors and prompts.
_SUFFIXES = {".json", ".jinja", ".model", ".safetensors", ".txt"}
# Device files of accelerators: with one of them, torch may find a faster device than the CPU.
_ACCELERATORS = ("nvidia*", "kfd", "dxg", "dri/renderD*", "accel*", "davinci*")


class Chosen(NamedTuple):
    """The runners of an encoder's sides, and their number format; see `Encoder` for its reason."""

    runners: Sequence[Runner]
    dtype: str
    reason: str | None = None


def choose(sides: Mapping[str, TorchSide], backend: str, dtype: str) -> Chosen:
    """The runners of a model that torch has loaded on the CPU in float32.

    Args:
        sides: name -> side, for messages.
        backend: openvino or onnx; auto is OpenVINO, or torch with a warning where that fails.
        dtype: auto is bfloat16 if OpenVINO can run all sides in it, the processor multiplies it natively, and
            all vectors are near those in float32; else float32.

    Raises:
        EnvironmentProblem: the graph cannot be written to disk.
        ModelError: the model cannot be exported to the requested backend, or the graph's vectors are not the
            model's.
    """
    reason = None
    if dtype == AUTO:
        chosen = _in_bfloat16(list(sides.values()), backend)
        if chosen.runners:
            return chosen
        dtype, reason = FLOAT32, chosen.reason
    return Chosen([_runner(side, backend, dtype, name) for name, side in sides.items()], dtype, reason)


def _in_bfloat16(sides: Sequence[TorchSide], backend: str) -> Chosen:
    """No runners if float32 is to be taken."""
    if backend == ONNX:
        return Chosen([], FLOAT32, float32_on(ONNX))
    if not native_bfloat16("cpu"):
        return Chosen([], FLOAT32, "this processor does not multiply bfloat16")
    try:
        runners, verdicts = zip(*(_graph(side, OPENVINO, BFLOAT16) for side in sides), strict=True)
    except Exception as error:
        # The user is told if float32 fails, too.
        return Chosen([], FLOAT32, f"bfloat16 failed: {_said(error)}")
    cosine = min(verdict.cosine for verdict in verdicts)
    return Chosen(runners if cosine >= NEAR else [], BFLOAT16, cosines_text(cosine))


def float32_on(name: str) -> str:
    return f"auto is float32 on {name}"


def cosines_text(least: float, texts: str = "") -> str:
    """What the vectors of bfloat16 were found to be. texts: which, such as "of 64 documents "."""
    # Rounded down: what is not the same must not look so.
    return f"the smallest cosine {texts}between bfloat16 and float32 is {least - 5e-6:.5f}, {NEAR} is enough"


def _runner(side: TorchSide, backend: str, dtype: str, name: str) -> Runner:
    try:
        return _graph(side, OPENVINO if backend == AUTO else backend, dtype)[0]
    except Exception as error:
        if backend == AUTO:
            _log.warning(f"{name} runs on torch, not on {OPENVINO}: {_said(error)}")
            return TorchRunner(side.model)
        if isinstance(error, EnvironmentProblem):
            raise
        raise ModelError(f"{name} cannot run on {backend}: {_said(error)}; use --backend torch") from error


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, MimoError) else export.reason(error)


def _graph(side: TorchSide, backend: str, dtype: str) -> tuple[export.GraphRunner, "Verdict"]:
    """The graph's runner; the graph is exported and compared with torch unless the cache has it."""
    import torch

    key = _key(side.model, backend, side.fingerprint)
    write = {ONNX: export.write_onnx, OPENVINO: export.write_openvino}[backend]
    # The graph is shared by all --dimension settings, so all components are compared.
    with side.model.truncate_embeddings(None):
        exported = directory = export.cached(key, lambda place: write(*export.trace(side.model), place))
        if dtype == INT8:
            int8 = {**key, "dtype": dtype}
            directory = export.cached(int8, lambda place: export.write_int8(exported, place))
        runner = export.open_graph(directory, backend, dtype, int(torch.get_num_threads()))
        path = _verdict_file(directory, dtype)
        verdict = Verdict.read(path)
        if verdict is None:
            verdict = compare(side, runner)
            write_text(path, verdict.model_dump_json() + "\n")
    problem = verdict.problem(dtype)
    if problem is not None:
        raise CheckFailed(problem)
    return runner, verdict


def _key(model: "SentenceTransformer", backend: str, fingerprint: str) -> dict[str, str]:
    """All that decides a graph: weights and pooling (fingerprint), how layers use them (config), versions."""
    config = model.config.to_dict() if hasattr(model.config, "to_dict") else {}
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    return {
        "backend": backend,
        "fingerprint": fingerprint,
        "config": repr(sorted(config.items(), key=lambda item: item[0])),
        **_libraries(backend),
    }


def _libraries(backend: str) -> dict[str, str]:
    return installed_versions(("torch", "transformers", "sentence-transformers", *MODULES[backend]))


class CheckFailed(ModelError):
    """A graph's vectors are not the model's."""


class Verdict(Record):
    """How near a graph's vectors are to torch's float32 vectors.

    Attributes:
        difference: largest absolute difference of a component.
        cosine: smallest cosine between two vectors of the same text.
    """

    difference: float
    cosine: float

    @classmethod
    def read(cls, path: Path) -> "Verdict | None":
        """None where the file is missing or damaged."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            return None

    def problem(self, dtype: str) -> str | None:
        """Why the graph must not be used, or None."""
        if self.difference >= _NOT_FINITE:
            return "its vectors hold NaN or infinity, and torch's do not"
        if dtype in LEAST_COSINE:
            least = LEAST_COSINE[dtype]
            if self.cosine >= least:
                return None
            return f"a cosine of {self.cosine:.3f} to torch's float32 vectors, expected {least} at least"
        if self.difference <= TOLERANCE:
            return None
        return f"its vectors differ from torch's by {self.difference:.1e}, expected {TOLERANCE:.0e} at most"


def _verdict_file(directory: Path, dtype: str) -> Path:
    """A graph's verdict on this kind of processor: another kind may compute differently."""
    return directory / f"check-{dtype}-{_processor()}.json"


def _processor() -> str:
    """A hash of the kind of processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        kind = [platform.machine(), platform.processor()]
    return sha256(json.dumps(kind).encode()).hexdigest()[:16]


def compare(side: TorchSide, runner: Runner) -> Verdict:
    """Encodes the same real texts with torch and with a runner.

    Raises:
        CheckFailed: torch's own vectors hold NaN or infinity.
    """
    import numpy as np

    budget = side.affordable(WORK)
    longest = int(min(LONGEST, side.model.max_seq_length, max(budget // 2, 2)))
    source = Texts(list(_sample_texts(longest, budget - longest)), prompt="", batch_size=8)
    with side.cut_to(longest):
        expected, found = encode(side, source), encode(TorchSide(side.model, runner), source)
    if not np.isfinite(expected).all():
        raise CheckFailed("the model's own vectors, as torch computes them, hold NaN or infinity")
    if not np.isfinite(found).all():
        return Verdict(difference=_NOT_FINITE, cosine=-1.0)
    return Verdict(difference=float(np.abs(expected - found).max()), cosine=least_cosine(expected, found))


def least_cosine(expected: "np.ndarray", found: "np.ndarray") -> float:
    """The smallest cosine between the vectors of a text, both float32 (texts, dimension)."""
    import numpy as np

    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (expected * found).sum(axis=1) / np.maximum(norms, np.finfo(np.float32).tiny)
    # A text without tokens may have a zero vector, whose cosine is undefined.
    return float(np.where(np.abs(expected - found).max(axis=1) == 0, 1.0, cosines).min())


def _sample_texts(longest: int, budget: int) -> Iterator[str]:
    """A text of `longest` tokens, an empty one, and a short and a long one of each packaged language.

    It ends when the budget of tokens is spent, but not before the first packaged text.
    """
    from mimo_plugin.collections.packaged import LANGUAGES, descriptions

    yield "word " * longest
    yield ""
    for lang, row in zip(LANGUAGES, islice(descriptions(), len(LANGUAGES)), strict=False):
        for text in (texts[lang] for texts in (row.short, row.long) if lang in texts):
            yield text
            # Two characters a token, so that languages of one character a token do not cost much more.
            budget -= min(len(text) // 2, longest)
            if budget <= 0:
                return


def recall(checkpoint: str, path: str, backend: str, options: EncoderOptions) -> GraphSide | None:
    """The encoder of these files and options, if it ran as a graph before and nothing has changed.

    Args:
        checkpoint: as given, for warnings.
        path: the same, resolved.
        backend: of `options.wanted`.
    """
    if backend == AUTO and _auto_is_openvino(options):
        backend = OPENVINO
    content = None if backend in (AUTO, TORCH) else _content(path)
    if content is None:
        return None
    # With --max-length, facts of the checkpoint's own length serve, too. Without, that length is unknown.
    for own_length in (True, False)[: 1 if options.max_length is None else 2]:
        directory = export.directory_of(_facts_key(content, backend, options, own_length), _directory)
        if export.whole(directory) is not None:
            return _recalled(directory, checkpoint, backend, options)
    return None


def _recalled(directory: Path, checkpoint: str, backend: str, options: EncoderOptions) -> GraphSide | None:
    import tokenizers

    try:
        facts = Facts.model_validate_json((directory / _FACTS).read_bytes())
        graph = export.graphs_directory() / facts.graph
        verdict = Verdict.read(_verdict_file(graph, facts.dtype))
        if export.whole(graph) is None or verdict is None or verdict.problem(facts.dtype):
            return None
        length = options.max_length or facts.max_length
        if facts.capacity is not None and length > facts.capacity:
            return None
        torch = sys.modules.get("torch")
        workers = facts.workers if torch is None else int(torch.get_num_threads())
        runner = export.open_graph(graph, backend, facts.dtype, workers)
        side = GraphSide(facts, tokenizers.Tokenizer.from_file(str(directory / _TOKENIZER)), runner)
        side.limit(length)
    except Exception:
        # Loading the model with torch will report whatever is wrong.
        return None
    for warning in facts.warnings:
        if options.max_length is None or CUT not in warning:
            _log.warning(warning.replace(facts.checkpoint, checkpoint))
    return side


def remember(
    side: TorchSide,
    checkpoint: str,
    path: str,
    options: EncoderOptions,
    chosen: Chosen,
    warnings: Sequence[str],
) -> None:
    """Keeps what `recall` needs, if a graph runs the side and the tokenizer alone makes its features."""
    if not isinstance(side.runner, export.GraphRunner):
        return
    tokenizer = getattr(side.model.tokenizer, "backend_tokenizer", None)
    content = _content(path)
    lengths = {side.max_length(task) for task in ("query", "document")}
    if tokenizer is None or content is None or len(lengths) > 1:
        return
    backend = side.runner.name
    facts = Facts(
        checkpoint=checkpoint,
        graph=side.runner.directory.name,
        dtype=chosen.dtype,
        dtype_reason=chosen.reason,
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

    def keep(facts: Facts, options: EncoderOptions) -> None:
        def write(place: Path) -> None:
            write_text(place / _FACTS, facts.model_dump_json(indent=2) + "\n")
            tokenizer.save(str(place / _TOKENIZER))

        key = _facts_key(content, backend, options, options.max_length is None)
        export.cached(key, write, _directory)

    asked = [options]
    if options.override and (options.dimension is not None or not side.is_cut):
        # The options that a search gives for the encoder of an index.
        asked.append(replace(options, pooling=facts.pooling, normalize=facts.normalizes))
    # If the cache cannot be written, the next start is only as slow as this one.
    with suppress(MimoError):
        for one in asked:
            keep(facts, one)
            if one.dtype == AUTO:
                # A search asks for the format of the index.
                keep(facts.model_copy(update={"dtype_reason": None}), replace(one, dtype=chosen.dtype))


def _same_features(
    side: TorchSide, tokenizer: "tokenizers.Tokenizer", facts: Facts, runner: export.GraphRunner
) -> bool:
    """Whether the tokenizer alone gives the features that sentence-transformers gives."""
    import numpy as np
    import tokenizers

    texts: list[Text] = list(_sample_texts(facts.max_length, 10_000))
    texts += [(" Title ", "text"), ("", ""), "  UPPER\tcase\n ", ("a", "word " * facts.max_length)]
    for prompt in ("", "query: "):
        expected = side.tokenise(texts, prompt, "document")
        # The tokenizer has the padding and truncation of its last call.
        if tokenizer.truncation is None:
            return False
        copy = tokenizers.Tokenizer.from_str(tokenizer.to_str())
        found = GraphSide(facts, copy, runner).tokenise(texts, prompt, "document")
        if not all(np.array_equal(expected[name], found[name]) for name in runner.inputs):
            return False
    return True


@contextmanager
def warnings_noted() -> Iterator[list[str]]:
    """Yields a list that collects this package's warnings meanwhile."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    _log.addHandler(handler)
    try:
        yield found
    finally:
        _log.removeHandler(handler)


def _auto_is_openvino(options: EncoderOptions) -> bool:
    """Whether `choose` would try OpenVINO first, as far as that is known without torch."""
    if not installed(OPENVINO):
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


def _facts_key(content: str, backend: str, options: EncoderOptions, own_length: bool) -> dict[str, str]:
    """All that decides the facts."""
    settings = ("dtype", "attention", "pooling", "normalize", "dimension", "override")
    return {
        "files": content,
        "options": repr([getattr(options, name) for name in settings]),
        "length": "the checkpoint's own" if own_length else str(options.max_length),
        "backend": backend,
        "processor": _processor(),
        "threads": repr((os.environ.get("OMP_NUM_THREADS"), os.cpu_count())),
        **_libraries(backend),
    }
