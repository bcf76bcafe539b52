"""Encoders as graphs for ONNX Runtime or OpenVINO, exported once and kept in a cache."""

import fcntl
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.artifact import FileRecord, Record
from mimo_plugin.core.errors import ModelError
from mimo_plugin.core.files import user_caches, write_text, writing
from mimo_plugin.encoder.batching import CPU_TOKENS, Features, first_batch, rectangular
from mimo_plugin.encoder.options import OPENVINO

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer

# Three texts of different length: torch.export takes a size of one for a constant.
_EXAMPLE = ["a", "two words", "a few more words than before"]
_ONNX_FILE, _OPENVINO_FILE = "model.onnx", "model.xml"
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
_MANIFEST = "graph.json"


class NotExportable(ModelError):
    """A model that cannot become a graph."""


def trace(model: "SentenceTransformer") -> tuple[Any, tuple[str, ...]]:
    """Traces all modules of a float32 model on a CPU: transformer, pooling, normalisation and others.

    Returns:
        A `torch.export.ExportedProgram`, and the names of its input features in order.

    Raises:
        NotExportable: torch cannot trace the model.
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

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(list(model))

        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            features: Any = {**others, **dict(zip(tensors, given, strict=True))}
            for part in self.parts:
                features = part(features)
            vectors: torch.Tensor = features["sentence_embedding"]
            return vectors

    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with _exporting(), torch.no_grad():
        program = torch.export.export(
            Whole().eval(),
            tuple(tensors.values()),
            dynamic_shapes=(tuple(dynamic for _ in tensors),),
            strict=False,
        )
    return program, tuple(tensors)


@contextmanager
def _exporting() -> Iterator[None]:
    """Silences the exporters, and turns their errors into NotExportable, except OSError."""
    loggers = [logging.getLogger(name) for name in (None, "torch.onnx", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    except Exception as error:
        raise NotExportable(reason(error)) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def reason(error: Exception) -> str:
    """A library's error in one line."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text[:300]}"


def write_onnx(program: Any, inputs: Sequence[str], directory: Path) -> None:
    """Writes `model.onnx`, with weights in a separate file: an ONNX file may not exceed 2 GiB.

    Raises:
        NotExportable: ONNX lacks an operation of the model.
    """
    import torch

    with _exporting():
        # The old exporter (dynamo=False) silently gives wrong vectors.
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(inputs),
            output_names=["vectors"],
            verbose=False,
        )
        exported.save(directory / _ONNX_FILE, external_data=True)


def write_int8(source: Path, directory: Path) -> None:
    """Writes an ONNX graph with 8-bit weights, one scale an output channel, and dynamic 8-bit activations.

    Raises:
        NotExportable: ONNX Runtime cannot quantize it.
    """
    _import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _exporting():
        quantize_dynamic(
            source / _ONNX_FILE,
            directory / _ONNX_FILE,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
        )


def write_openvino(program: Any, inputs: Sequence[str], directory: Path) -> None:
    """Writes `model.xml` and `model.bin`.

    Raises:
        NotExportable: OpenVINO lacks an operation of the model.
    """
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    with _exporting():
        # openvino.convert_model does the same, but sends telemetry.
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchFXPythonDecoder.from_exported_program(program)
        converted = openvino.Model(frontend.convert(frontend.load(decoder)))
        for given, name in zip(converted.inputs, inputs, strict=True):
            given.get_tensor().set_names({name})
        openvino.save_model(converted, directory / _OPENVINO_FILE, compress_to_fp16=False)


def _import_onnxruntime() -> Any:
    # By default it sends telemetry with an identifier of the machine.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


class GraphRunner:
    """A graph on the CPU: several batches at a time, each on one core.

    Attributes:
        inputs: names of the features that the graph takes.
    """

    name: str
    tokens = CPU_TOKENS

    def __init__(self, directory: Path, inputs: Sequence[str], workers: int) -> None:
        self.directory = directory
        # The second name is that of earlier versions.
        self.inputs = self._names = inputs
        self.workers = workers
        self._infer(first_batch(inputs))

    def run(self, features: Features) -> "np.ndarray":
        """As `Runner.run`; features may be tensors of torch, too."""
        given = {name: features[name] for name in self.inputs}
        return self._infer(
            {name: value.numpy() if hasattr(value, "numpy") else value for name, value in given.items()}
        )

    def _infer(self, feed: dict[str, "np.ndarray"]) -> "np.ndarray":
        raise NotImplementedError


class OnnxRunner(GraphRunner):
    """A graph of `write_onnx` or `write_int8`."""

    name = "onnx"

    def __init__(self, directory: Path, workers: int) -> None:
        onnxruntime = _import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            directory / _ONNX_FILE, options, providers=["CPUExecutionProvider"]
        )
        super().__init__(directory, [given.name for given in self._session.get_inputs()], workers)

    def _infer(self, feed: dict[str, "np.ndarray"]) -> "np.ndarray":
        vectors: np.ndarray = self._session.run(None, feed)[0]
        return vectors


class OpenVinoRunner(GraphRunner):
    """A graph of `write_openvino`.

    Args:
        dtype: float32 or bfloat16, for products and sums.
    """

    name = "openvino"

    def __init__(self, directory: Path, dtype: str, workers: int) -> None:
        import openvino

        compiled = openvino.Core().compile_model(
            directory / _OPENVINO_FILE,
            "CPU",
            {
                # By default OpenVINO computes in bfloat16 where the processor can.
                "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
                "NUM_STREAMS": workers,
                "INFERENCE_NUM_THREADS": workers,
                # Two pinned processes would share the same cores.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(workers):
            self._requests.put(compiled.create_infer_request())
        super().__init__(directory, [given.any_name for given in compiled.inputs], workers)

    def _infer(self, feed: dict[str, "np.ndarray"]) -> "np.ndarray":
        import numpy as np

        request = self._requests.get()
        try:
            return np.array(request.infer(feed, share_inputs=True, share_outputs=True)[0])
        finally:
            self._requests.put(request)


def open_graph(directory: Path, backend: str, dtype: str, workers: int) -> GraphRunner:
    """The runner of a graph; it computes `workers` batches at a time."""
    return (
        OpenVinoRunner(directory, dtype, workers) if backend == OPENVINO else OnnxRunner(directory, workers)
    )


class GraphManifest(Record):
    """Says that a directory of the cache is finished.

    Attributes:
        key: all that decides the files.
        files: by name; empty where they could not be made.
        problem: why they could not be made.
    """

    key: dict[str, str]
    files: dict[str, FileRecord]
    problem: str | None = None


def graphs_directory() -> Path:
    """The cache of graphs."""
    return user_caches() / "graphs"


def cached(
    key: Mapping[str, str], make: Callable[[Path], None], where: Callable[[], Path] = graphs_directory
) -> Path:
    """The cache's directory of this key, made if it is missing or damaged.

    If another process is making the same directory, this one waits for it.

    Args:
        key: all that decides the files.
        make: writes the files into a directory.
        where: the cache.

    Raises:
        EnvironmentProblem: the directory cannot be written.
        NotExportable: the files cannot be made; the cache keeps the reason.
    """
    directory = directory_of(key, where)
    with writing(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        with directory.with_name(f".{directory.name}.lock").open("w") as lock:
            # On a file system without locks a graph may be made twice, which does no harm.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            found = whole(directory) or _make(directory, dict(key), make)
    if found.problem is not None:
        raise NotExportable(found.problem)
    return directory


def directory_of(key: Mapping[str, str], where: Callable[[], Path] = graphs_directory) -> Path:
    """The directory of a key, see `cached`; it need not exist."""
    return where() / sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]


def whole(directory: Path) -> GraphManifest | None:
    """The manifest of an intact directory, else None."""
    try:
        manifest = GraphManifest.model_validate_json((directory / _MANIFEST).read_bytes())
        same = all(FileRecord.of(directory / name) == record for name, record in manifest.files.items())
    except (OSError, ValueError):
        return None
    return manifest if same else None


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
        made = () if problem else sorted(path for path in beside.rglob("*") if path.is_file())
        files = {path.relative_to(beside).as_posix(): FileRecord.of(path) for path in made}
        manifest = GraphManifest(key=key, files=files, problem=problem)
        write_text(beside / _MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        beside.replace(directory)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest
