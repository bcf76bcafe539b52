"""An encoder as a graph for ONNX Runtime or OpenVINO, exported once and kept in the cache."""

import fcntl
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.artifact import FileRecord, Record
from mimo_plugin.core.errors import ModelError
from mimo_plugin.core.files import user_caches, write_text, writing
from mimo_plugin.encoder.batching import CPU_TOKENS, Features, first_batch, rectangular

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer

# Three texts of different length: a size of one would be taken for a constant.
_EXAMPLE = ["a", "two words", "a few more words than before"]


class NotExportable(ModelError):
    """A model that cannot become a graph."""


@dataclass(frozen=True)
class Traced:
    """Attributes:
    program: a `torch.export.ExportedProgram`.
    inputs: names of the features that it takes, in order.
    """

    program: Any
    inputs: tuple[str, ...]


def trace(model: "SentenceTransformer") -> Traced:
    """Traces all modules of a float32 model on a CPU: transformer, pooling, normalisation and others.

    Raises:
        NotExportable: with what torch says.
    """
    import torch

    model.eval()
    features = dict(model.preprocess(_EXAMPLE, prompt=""))
    tensors = {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}
    if not rectangular(features, len(_EXAMPLE)):
        raise NotExportable("its tokenizer makes something else than rows of tokens")
    if any(getattr(module, "include_prompt", True) is False for module in model):
        raise NotExportable("its pooling leaves out the prompt")
    others = {name: value for name, value in features.items() if name not in tensors}
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with exporting(), torch.no_grad():
            program = torch.export.export(
                _whole(model, tuple(tensors), others),
                tuple(tensors.values()),
                dynamic_shapes=(tuple(dynamic for _ in tensors),),
                strict=False,
            )
    except Exception as error:
        raise NotExportable(reason(error)) from error
    return Traced(program, tuple(tensors))


def _whole(model: "SentenceTransformer", names: tuple[str, ...], others: dict[str, Any]) -> Any:
    import torch

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(list(model))

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            features: Any = {**others, **dict(zip(names, tensors, strict=True))}
            for part in self.parts:
                features = part(features)
            vectors: torch.Tensor = features["sentence_embedding"]
            return vectors

    return Whole().eval()


@contextmanager
def exporting() -> Iterator[None]:
    """Without what exporters say of torch's own insides."""
    loggers = [logging.getLogger(name) for name in (None, "torch.onnx", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def reason(error: Exception) -> str:
    """A library's error in one line."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text[:300]}"


_ONNX_FILE = "model.onnx"


def write_onnx(traced: Traced, directory: Path) -> None:
    """Writes the graph as `model.onnx`, its weights beside it: the file itself may not exceed 2 GiB.

    Raises:
        NotExportable: ONNX has no such operation.
    """
    import torch

    try:
        # The exporter before this one (dynamo=False) gives wrong vectors without a word.
        with exporting():
            exported = torch.onnx.export(
                traced.program,
                dynamo=True,
                input_names=list(traced.inputs),
                output_names=["vectors"],
                verbose=False,
            )
            exported.save(directory / _ONNX_FILE, external_data=True)
    except OSError:
        raise
    except Exception as error:
        raise NotExportable(reason(error)) from error


def write_int8(source: Path, directory: Path) -> None:
    """Writes the graph with weights in 8 bits, a scale an output channel; its inputs are rounded batch by
    batch to 8 bits, too.

    Raises:
        NotExportable: ONNX Runtime cannot do it.
    """
    _import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        quantize_dynamic(
            source / _ONNX_FILE,
            directory / _ONNX_FILE,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
        )
    except OSError:
        raise
    except Exception as error:
        raise NotExportable(reason(error)) from error
    finally:
        root.setLevel(level)


def _import_onnxruntime() -> Any:
    # Left alone, it reports its use to its makers, and gives the machine an identity for that.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


class OnnxRunner:
    """A graph on the CPU.

    Args:
        directory: what `write` or `write_int8` wrote.
        workers: batches at a time, each on one core.
    """

    name = "onnx"
    tokens = CPU_TOKENS

    def __init__(self, directory: Path, workers: int) -> None:
        onnxruntime = _import_onnxruntime()
        self.workers = workers
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            directory / _ONNX_FILE, options, providers=["CPUExecutionProvider"]
        )
        self._names = [given.name for given in self._session.get_inputs()]
        self._infer(first_batch(self._names))

    def run(self, features: Features) -> "np.ndarray":
        return self._infer({name: features[name].numpy() for name in self._names})

    def _infer(self, feed: dict[str, "np.ndarray"]) -> "np.ndarray":
        vectors: np.ndarray = self._session.run(None, feed)[0]
        return vectors


_OPENVINO_FILE = "model.xml"
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


def write_openvino(traced: Traced, directory: Path) -> None:
    """Writes the graph as `model.xml` and `model.bin`.

    Raises:
        NotExportable: OpenVINO does not know an operation.
    """
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    try:
        # openvino.convert_model does the same, and reports each use to its makers.
        with exporting():
            frontend = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchFXPythonDecoder.from_exported_program(traced.program)
            converted = openvino.Model(frontend.convert(frontend.load(decoder)))
        for given, name in zip(converted.inputs, traced.inputs, strict=True):
            given.get_tensor().set_names({name})
        openvino.save_model(converted, directory / _OPENVINO_FILE, compress_to_fp16=False)
    except OSError:
        raise
    except Exception as error:
        raise NotExportable(reason(error)) from error


class OpenVinoRunner:
    """A graph on the CPU.

    Args:
        directory: what `write` wrote.
        dtype: float32, or bfloat16 for products and sums.
        workers: batches at a time, each on one core.
    """

    name = "openvino"
    tokens = CPU_TOKENS

    def __init__(self, directory: Path, dtype: str, workers: int) -> None:
        import openvino

        self.workers = workers
        compiled = openvino.Core().compile_model(
            directory / _OPENVINO_FILE,
            "CPU",
            {
                # Left alone, OpenVINO computes in bfloat16 where the processor can.
                "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
                "NUM_STREAMS": workers,
                "INFERENCE_NUM_THREADS": workers,
                # Two processes would share the same cores.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._names = [given.any_name for given in compiled.inputs]
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(workers):
            self._requests.put(compiled.create_infer_request())
        self._infer(first_batch(self._names))

    def run(self, features: Features) -> "np.ndarray":
        return self._infer({name: features[name].numpy() for name in self._names})

    def _infer(self, feed: dict[str, "np.ndarray"]) -> "np.ndarray":
        import numpy as np

        request = self._requests.get()
        try:
            return np.array(request.infer(feed, share_inputs=True, share_outputs=True)[0])
        finally:
            self._requests.put(request)


_MANIFEST = "graph.json"


class GraphManifest(Record):
    """Attributes:
    key: what the graph was made of and by.
    files: of the graph, by name; none where it could not be made.
    problem: why it could not be made.
    """

    key: dict[str, str]
    files: dict[str, FileRecord]
    problem: str | None = None


def graphs_directory() -> Path:
    """Where graphs are kept."""
    return user_caches() / "graphs"


def cached(key: Mapping[str, str], make: Callable[[Path], None]) -> Path:
    """The directory of a graph. It is made where it is not there, or not as it was written.

    Another process that makes the same graph is waited for.

    Args:
        key: all that decides the graph.
        make: writes the graph into a directory.

    Raises:
        EnvironmentProblem: the file system refuses.
        NotExportable: it cannot be made; that is kept, too.
    """
    name = sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]
    directory = graphs_directory() / name
    with writing(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory.with_name(f".{name}.lock")):
            found = _read(directory)
            if found is None:
                found = _make(directory, dict(key), make)
    if found.problem is not None:
        raise NotExportable(found.problem)
    return directory


def _read(directory: Path) -> GraphManifest | None:
    try:
        manifest = GraphManifest.model_validate_json((directory / _MANIFEST).read_bytes())
        whole = all(FileRecord.of(directory / name) == record for name, record in manifest.files.items())
    except (OSError, ValueError):
        return None
    return manifest if whole else None


def _make(directory: Path, key: dict[str, str], make: Callable[[Path], None]) -> GraphManifest:
    beside = directory.with_name(f".{directory.name}.tmp")
    for leftover in (beside, directory):
        shutil.rmtree(leftover, ignore_errors=True)
    beside.mkdir()
    try:
        problem = None
        try:
            make(beside)
        except NotExportable as error:
            problem = str(error)
        paths = [] if problem else sorted(beside.iterdir())
        manifest = GraphManifest(
            key=key, files={path.name: FileRecord.of(path) for path in paths}, problem=problem
        )
        write_text(beside / _MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        beside.replace(directory)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        # A file system without locks: the worst is that a graph is made twice.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
