"""Which backend runs a model: what the user asked for, or the fastest that gives the model's own vectors."""

import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.backends import onnx_graph, openvino_graph
from mimo_plugin.backends.cache import cached
from mimo_plugin.backends.check import require_same
from mimo_plugin.backends.graph import reason, trace
from mimo_plugin.backends.notices import notify
from mimo_plugin.backends.runner import Runner, TorchRunner
from mimo_plugin.errors import EnvironmentProblem, MimoError, ModelError, UsageError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

AUTO, TORCH, ONNX, OPENVINO = BACKENDS = ("auto", "torch", "onnx", "openvino")
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
    "--dtype int8 changes the vectors: use it for documents and queries alike; benchmarks/README.md has the "
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
            notify(f"{name} runs on torch, not on {OPENVINO}: {_said(error)}")
    if backend in (AUTO, TORCH):
        return TorchRunner(model)
    try:
        runner = _graph(model, backend, dtype, fingerprint())
    except EnvironmentProblem:
        raise
    except Exception as error:
        raise ModelError(f"{name} cannot run on {backend}: {_said(error)}; use --backend torch") from error
    if dtype == "int8":
        notify(_INT8)
    return runner


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, MimoError) else reason(error)


def _graph(model: "SentenceTransformer", backend: str, dtype: str, fingerprint: str) -> Runner:
    import torch

    workers = int(torch.get_num_threads())
    runner: Runner
    if backend == OPENVINO:
        key = _key(model, backend, fingerprint)
        directory = cached(key, lambda place: openvino_graph.write(trace(model), place))
        runner = openvino_graph.OpenVinoRunner(directory, dtype, workers)
    else:
        directory = _onnx(model, dtype, fingerprint)
        runner = onnx_graph.OnnxRunner(directory, workers)
    require_same(model, runner, dtype, directory)
    return runner


def _onnx(model: "SentenceTransformer", dtype: str, fingerprint: str) -> Path:
    key = _key(model, ONNX, fingerprint)
    directory = cached(key, lambda place: onnx_graph.write(trace(model), place))
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
