"""Graphs in OpenVINO."""

from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from mimo_plugin.backends.graph import NotExportable, Traced, exporting, reason
from mimo_plugin.backends.runner import CPU_TOKENS, Features, first_batch

if TYPE_CHECKING:
    import numpy as np

_FILE = "model.xml"
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


def write(traced: Traced, directory: Path) -> None:
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
        openvino.save_model(converted, directory / _FILE, compress_to_fp16=False)
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
            directory / _FILE,
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
