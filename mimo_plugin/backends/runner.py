"""What runs one batch: the interface, and torch behind it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer

# What a tokenizer hands to a model: name -> tensor (texts, tokens), or something that is no tensor.
Features = Mapping[str, Any]

# With more, what a layer works on leaves a core's own cache, and there is more padding.
CPU_TOKENS = 512
# They keep a GPU busy, and XLM-R-large needs less than 4 GiB for them.
GPU_TOKENS = 16_384


class Runner(Protocol):
    """Computes batches, several at a time."""

    @property
    def name(self) -> str:
        """torch, onnx or openvino."""

    @property
    def workers(self) -> int:
        """Batches that are computed at the same time, on a CPU each by one core."""

    @property
    def tokens(self) -> int:
        """Most tokens a batch, padding included."""

    def run(self, features: Features) -> "np.ndarray":
        """The vectors of one batch, float32 (texts, dimension); several threads may call it at once."""


def first_batch(names: Sequence[str]) -> dict[str, "np.ndarray"]:
    """A small batch that whoever makes a runner runs at once, in its own thread.

    The layer between a library and NumPy sets itself up at its first conversion. Two threads that come first
    together can lock each other out for ever: one sets up and waits for the GIL, which the other holds while
    it waits for the set-up.

    Args:
        names: of the features, each with a row of tokens.
    """
    import numpy as np

    tokens: np.ndarray = np.zeros((1, 2), dtype=np.int64)
    return {name: tokens + 1 if "mask" in name else tokens for name in names}


class TorchRunner:
    """The model as it is, on its own device."""

    name = "torch"

    def __init__(self, model: "SentenceTransformer") -> None:
        import torch

        self._model = model
        # For the reason that `first_batch` gives.
        torch.zeros(1).numpy()

    @property
    def workers(self) -> int:
        import torch

        # Beside a GPU the second one prepares a batch while the first one's is computed.
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
        device = self._model.device
        if not hasattr(value, "to") or device.type == "cpu":
            return value
        if device.type == "cuda":
            return value.pin_memory().to(device, non_blocking=True)
        return value.to(device)
