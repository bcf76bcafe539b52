"""What runs an encoder: torch, or a graph that was checked against torch before its first use."""

import json
import logging
import os
import platform
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.core.artifact import Record
from mimo_plugin.core.environment import installed_versions
from mimo_plugin.core.errors import EnvironmentProblem, MimoError, ModelError, UsageError
from mimo_plugin.core.files import write_text
from mimo_plugin.encoder import export
from mimo_plugin.encoder.batching import Runner, Texts, TorchRunner, encode
from mimo_plugin.encoder.options import AUTO, BACKENDS, ONNX, OPENVINO, TORCH
from mimo_plugin.encoder.side import TorchSide

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)
# What each can compute in.
DTYPES = {
    TORCH: ("float32", "bfloat16", "float16"),
    ONNX: ("float32", "int8"),
    OPENVINO: ("float32", "bfloat16"),
}
# What has to be installed, named as it is imported.
MODULES = {TORCH: (), ONNX: ("onnx", "onnxruntime", "onnxscript"), OPENVINO: ("openvino",)}
# Longest text that is compared, in tokens, and what one side of the comparison may cost, in parameters times
# tokens: seconds on a few cores.
LONGEST, WORK = 512, 10**11
# Largest difference of any component of a float32 vector.
TOLERANCE = 1e-5
# Where other number formats round, vectors must still point the same way.
LEAST_COSINE = {"bfloat16": 0.98, "int8": 0.8}
# The difference of vectors that hold NaN or infinity; JSON has neither.
_NOT_FINITE = 3e38


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
    """Whether the packages of a backend are there."""
    return all(find_spec(module) is not None for module in MODULES[backend])


def choose(side: TorchSide, backend: str, dtype: str, name: str) -> Runner:
    """What runs a loaded float32 model.

    Args:
        backend: of `wanted`.
        name: the checkpoint's, for messages.

    Raises:
        EnvironmentProblem: the graph cannot be kept on disk.
        ModelError: the model cannot be exported to the backend that was asked for, or the graph's vectors are
            not the model's.
    """
    if backend == AUTO and side.model.device.type == "cpu" and installed(OPENVINO):
        try:
            return _graph(side, OPENVINO, dtype)
        except Exception as error:
            _log.warning(f"{name} runs on torch, not on {OPENVINO}: {_said(error)}")
    if backend in (AUTO, TORCH):
        return TorchRunner(side.model)
    try:
        return _graph(side, backend, dtype)
    except EnvironmentProblem:
        raise
    except Exception as error:
        raise ModelError(f"{name} cannot run on {backend}: {_said(error)}; use --backend torch") from error


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, MimoError) else export.reason(error)


def _graph(side: TorchSide, backend: str, dtype: str) -> export.GraphRunner:
    import torch

    directory = _directory(side, backend, dtype)
    runner = export.open_graph(directory, backend, dtype, int(torch.get_num_threads()))
    path = verdict_file(directory, dtype)
    verdict = Verdict.read(path)
    if verdict is None:
        verdict = compare(side, runner)
        write_text(path, verdict.model_dump_json() + "\n")
    problem = verdict.problem(dtype)
    if problem is not None:
        raise CheckFailed(problem)
    return runner


def _directory(side: TorchSide, backend: str, dtype: str) -> Path:
    """The graph's directory; the graph is made where it is not there."""
    key = _key(side.model, backend, side.fingerprint)
    write = {ONNX: export.write_onnx, OPENVINO: export.write_openvino}[backend]
    directory = export.cached(key, lambda place: write(export.trace(side.model), place))
    if dtype != "int8":
        return directory
    return export.cached({**key, "dtype": dtype}, lambda place: export.write_int8(directory, place))


def _key(model: "SentenceTransformer", backend: str, fingerprint: str) -> dict[str, str]:
    """All that decides a graph: the fingerprint is of weights and pooling, the config says how layers use
    them."""
    config = model.config.to_dict() if hasattr(model.config, "to_dict") else {}
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    return {
        "backend": backend,
        "fingerprint": fingerprint,
        "config": repr(sorted(config.items(), key=lambda item: item[0])),
        **libraries(backend),
    }


def libraries(backend: str) -> dict[str, str]:
    """Versions of what makes and runs a graph."""
    return installed_versions(("torch", "transformers", "sentence-transformers", *MODULES[backend]))


class CheckFailed(ModelError):
    """A graph's vectors are not the model's."""


class Verdict(Record):
    """Attributes:
    difference: largest difference of a component between the graph's vectors and torch's in float32.
    cosine: smallest cosine between two vectors of the same text.
    """

    difference: float
    cosine: float

    @classmethod
    def read(cls, path: Path) -> "Verdict | None":
        """None where there is none yet, or a damaged one."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            return None

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


def verdict_file(directory: Path, dtype: str) -> Path:
    """Where the verdict on a graph is kept, one for each kind of processor: another may compute otherwise."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        kind = [platform.machine(), platform.processor()]
    return directory / f"check-{dtype}-{sha256(json.dumps(kind).encode()).hexdigest()[:16]}.json"


def compare(side: TorchSide, runner: Runner) -> Verdict:
    """Encodes real texts with both.

    Raises:
        CheckFailed: the model's own vectors hold NaN or infinity.
    """
    import numpy as np

    budget = side.affordable(WORK)
    longest = int(min(LONGEST, side.model.max_seq_length, max(budget // 2, 2)))
    source = Texts(list(sample_texts(longest, budget - longest)), prompt="", batch_size=8)
    with side.cut_to(longest):
        expected, found = encode(side, source), encode(TorchSide(side.model, runner), source)
    if not np.isfinite(expected).all():
        raise CheckFailed("the model's own vectors, as torch computes them, hold NaN or infinity")
    if not np.isfinite(found).all():
        return Verdict(difference=float(np.finfo(np.float32).max), cosine=-1.0)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (expected * found).sum(axis=1) / np.maximum(norms, np.finfo(np.float32).tiny)
    # A text without tokens may have a vector of zeros, which points nowhere.
    cosines = np.where(np.abs(expected - found).max(axis=1) == 0, 1.0, cosines)
    return Verdict(difference=float(np.abs(expected - found).max()), cosine=float(cosines.min()))


def sample_texts(longest: int, budget: int) -> Iterator[str]:
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
