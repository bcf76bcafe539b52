"""Graphs in ONNX Runtime."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.backends.graph import NotExportable, Traced, exporting, reason
from mimo_plugin.backends.runner import CPU_TOKENS, Features, first_batch

if TYPE_CHECKING:
    import numpy as np

_FILE = "model.onnx"


def write(traced: Traced, directory: Path) -> None:
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
            exported.save(directory / _FILE, external_data=True)
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
    _import_runtime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        quantize_dynamic(
            source / _FILE,
            directory / _FILE,
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


def _import_runtime() -> Any:
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
        onnxruntime = _import_runtime()
        self.workers = workers
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            directory / _FILE, options, providers=["CPUExecutionProvider"]
        )
        self._names = [given.name for given in self._session.get_inputs()]
        self._infer(first_batch(self._names))

    def run(self, features: Features) -> "np.ndarray":
        return self._infer({name: features[name].numpy() for name in self._names})

    def _infer(self, feed: dict[str, "np.ndarray"]) -> "np.ndarray":
        vectors: np.ndarray = self._session.run(None, feed)[0]
        return vectors
