"""What runs an encoder: torch, or a graph that was checked against torch before its first use."""

import json
import logging
import math
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.core.artifact import Record
from mimo_plugin.core.errors import EnvironmentProblem, MimoError, ModelError, UsageError
from mimo_plugin.core.files import write_text
from mimo_plugin.encoder import export as onnx_graph
from mimo_plugin.encoder import export as openvino_graph
from mimo_plugin.encoder.batching import Runner, Texts, TorchRunner, encode
from mimo_plugin.encoder.export import cached, reason, trace
from mimo_plugin.encoder.options import AUTO, BACKENDS, ONNX, OPENVINO, TORCH

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)
# Longest text that is compared, in tokens, and what one side of the comparison may cost, in parameters times
# tokens: seconds on a few cores.
LONGEST, WORK = 512, 10**11
# Largest difference of any component of a float32 vector.
TOLERANCE = 1e-5
# Where other number formats round, vectors must still point the same way.
LEAST_COSINE = {"bfloat16": 0.98, "int8": 0.8}
# The difference of vectors that hold NaN or infinity; JSON has neither.
_NOT_FINITE = 3e38


class Verdict(Record):
    """Attributes:
    difference: largest difference of a component between the graph's vectors and torch's in float32.
    cosine: smallest cosine between two vectors of the same text.
    """

    difference: float
    cosine: float

    def problem(self, dtype: str) -> str | None:
        """Why the graph is not to be used, or None."""
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


class CheckFailed(ModelError):
    """A graph's vectors are not the model's."""


def require_same(model: "SentenceTransformer", runner: Runner, dtype: str, directory: Path) -> Verdict:
    """Compares once a processor; the verdict stays beside the graph.

    Raises:
        CheckFailed: the vectors differ by more than they may.
    """
    path = directory / f"check-{dtype}-{_processor()}.json"
    try:
        verdict = Verdict.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        verdict = compare(model, runner)
        write_text(path, verdict.model_dump_json() + "\n")
    problem = verdict.problem(dtype)
    if problem is not None:
        raise CheckFailed(problem)
    return verdict


def compare(model: "SentenceTransformer", runner: Runner) -> Verdict:
    """Encodes real texts with both.

    Raises:
        CheckFailed: the model's own vectors hold NaN or infinity.
    """
    import numpy as np

    budget = affordable(model, WORK)
    longest = int(min(LONGEST, model.max_seq_length, max(budget // 2, 2)))
    texts = list(_texts(longest, budget - longest))
    source = Texts(texts, [len(text) for text in texts], prompt="", batch_size=8)
    with reading_at_most(model, longest):
        expected, found = encode(model, TorchRunner(model), source), encode(model, runner, source)
    if not np.isfinite(expected).all():
        raise CheckFailed("the model's own vectors, as torch computes them, hold NaN or infinity")
    if not np.isfinite(found).all():
        return Verdict(difference=float(np.finfo(np.float32).max), cosine=-1.0)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (expected * found).sum(axis=1) / np.maximum(norms, np.finfo(np.float32).tiny)
    # A text without tokens may have a vector of zeros, which points nowhere.
    cosines = np.where(np.abs(expected - found).max(axis=1) == 0, 1.0, cosines)
    return Verdict(difference=float(np.abs(expected - found).max()), cosine=float(cosines.min()))


def affordable(model: "SentenceTransformer", work: int) -> int:
    """The tokens that can be encoded for so much work, in parameters times tokens, without embeddings."""
    import torch

    tables = sum(
        module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Embedding)
    )
    parameters = sum(parameter.numel() for parameter in model.parameters()) - tables
    return int(work // max(parameters, 1))


@contextmanager
def reading_at_most(model: "SentenceTransformer", tokens: int) -> Iterator[None]:
    """Texts are cut to that many tokens meanwhile, but for static embeddings, which read them whole."""
    before = model.max_seq_length
    if before is not None and math.isinf(before):
        yield
        return
    model.max_seq_length = tokens
    try:
        yield
    finally:
        model.max_seq_length = before


def _texts(longest: int, budget: int) -> Iterator[str]:
    """One text of as many tokens as are read; nothing at all; and of every packaged language a short text and
    a long one, of different descriptions, until the budget of tokens is spent, but one at least."""
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


def _processor() -> str:
    """Identity of the processor's kind: another one may compute differently."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        kind = [platform.machine(), platform.processor()]
    return sha256(json.dumps(kind).encode()).hexdigest()[:16]


# What each can compute in.
DTYPES = {
    TORCH: ("float32", "bfloat16", "float16"),
    ONNX: ("float32", "int8"),
    OPENVINO: ("float32", "bfloat16"),
}
# backend -> what has to be installed, as it is imported
MODULES = {TORCH: (), ONNX: ("onnxruntime", "onnxscript", "onnx"), OPENVINO: ("openvino",)}
_LIBRARIES = {
    ONNX: ("onnx", "onnxruntime", "onnxscript"),
    OPENVINO: ("openvino",),
}
_INT8 = (
    "--dtype int8 changes the vectors: use it for documents and queries alike; performance/README.md has the "
    "loss that was measured"
)


def wanted(backend: str, dtype: str, device: str | None) -> str:
    """The backend that was asked for; "auto" where that is left to the model and the machine.

    The environment variable MIMO_BACKEND stands in for "auto".

    Raises:
        EnvironmentProblem: it is not installed.
        UsageError: no such backend, or it cannot run in this number format or on this device.
    """
    name = os.environ.get("MIMO_BACKEND") or AUTO if backend == AUTO else backend
    if name not in BACKENDS:
        raise UsageError(f"backend {name!r}: one of {', '.join(BACKENDS)} was expected")
    if name == AUTO:
        if dtype == "float32":
            return AUTO
        name = ONNX if dtype == "int8" else TORCH
    if dtype not in DTYPES[name]:
        able = [other for other, dtypes in DTYPES.items() if dtype in dtypes]
        raise UsageError(
            f"--backend {name} runs {', '.join(DTYPES[name])}, not {dtype}: "
            + (f"use --backend {' or '.join(able)}" if able else "choose another --dtype")
        )
    if name != TORCH:
        if device is not None and device != "cpu":
            raise UsageError(f"--backend {name} runs on the CPU, not on {device}: leave --device out")
        missing = [module for module in MODULES[name] if find_spec(module) is None]
        if missing:
            raise EnvironmentProblem(
                f"--backend {name} needs {', '.join(missing)}, which is not installed: "
                f"pip install 'mimo-plugin[{name}]'"
            )
    return name


def installed(backend: str) -> bool:
    return all(find_spec(module) is not None for module in MODULES[backend])


def choose(
    model: "SentenceTransformer", backend: str, dtype: str, name: str, fingerprint: Callable[[], str]
) -> Runner:
    """What runs a loaded float32 model.

    Args:
        backend: of `wanted`.
        name: the checkpoint's, for messages.
        fingerprint: identity of the model.

    Raises:
        EnvironmentProblem: the graph cannot be kept on disk.
        ModelError: the model cannot be exported to the backend that was asked for, or the graph's vectors are
            not the model's.
    """
    if backend == AUTO and model.device.type == "cpu" and installed(OPENVINO):
        try:
            return _graph(model, OPENVINO, dtype, fingerprint())
        except Exception as error:
            _log.warning(f"{name} runs on torch, not on {OPENVINO}: {_said(error)}")
    if backend in (AUTO, TORCH):
        return TorchRunner(model)
    try:
        runner = _graph(model, backend, dtype, fingerprint())
    except EnvironmentProblem:
        raise
    except Exception as error:
        raise ModelError(f"{name} cannot run on {backend}: {_said(error)}; use --backend torch") from error
    if dtype == "int8":
        _log.warning(_INT8)
    return runner


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, MimoError) else reason(error)


def _graph(model: "SentenceTransformer", backend: str, dtype: str, fingerprint: str) -> Runner:
    import torch

    workers = int(torch.get_num_threads())
    runner: Runner
    if backend == OPENVINO:
        key = _key(model, backend, fingerprint)
        directory = cached(key, lambda place: openvino_graph.write_openvino(trace(model), place))
        runner = openvino_graph.OpenVinoRunner(directory, dtype, workers)
    else:
        directory = _onnx(model, dtype, fingerprint)
        runner = onnx_graph.OnnxRunner(directory, workers)
    require_same(model, runner, dtype, directory)
    return runner


def _onnx(model: "SentenceTransformer", dtype: str, fingerprint: str) -> Path:
    key = _key(model, ONNX, fingerprint)
    directory = cached(key, lambda place: onnx_graph.write_onnx(trace(model), place))
    if dtype == "float32":
        return directory
    return cached({**key, "dtype": dtype}, lambda place: onnx_graph.write_int8(directory, place))


def _key(model: "SentenceTransformer", backend: str, fingerprint: str) -> dict[str, str]:
    """All that decides a graph: the fingerprint is of weights and pooling, the config says how layers use
    them."""
    config = model.config.to_dict() if hasattr(model.config, "to_dict") else {}
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    libraries = ("torch", "transformers", "sentence-transformers", *_LIBRARIES[backend])
    return {
        "backend": backend,
        "fingerprint": fingerprint,
        "config": repr(sorted(config.items(), key=lambda item: item[0])),
        **{library: _version(library) for library in libraries},
    }


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
