"""A model as one graph from tokens to vectors, traced once for any number of texts and tokens."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mimo_plugin.backends.batches import rectangular
from mimo_plugin.errors import ModelError

if TYPE_CHECKING:
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
