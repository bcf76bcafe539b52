"""MIMO for Pyserini: multilingual dense retrieval with one mixed-language index.

The names below are the public API; `docs/api.md` shows each of them. Importing this package starts nothing:
no JVM, no torch, no Pyserini. A name is resolved on first use.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mimo_plugin.benchmark.reproduce import reproduce
    from mimo_plugin.collections.dataset import collection
    from mimo_plugin.collections.pool import load
    from mimo_plugin.encoder.encoder import Encoder
    from mimo_plugin.evaluation.evaluate import Evaluation, evaluate
    from mimo_plugin.evaluation.runs import Run
    from mimo_plugin.indexing.build import index
    from mimo_plugin.indexing.open import Index
    from mimo_plugin.indexing.search import search
    from mimo_plugin.pyserini.encoders import MimoDocumentEncoder, MimoQueryEncoder, register
    from mimo_plugin.training.push import push
    from mimo_plugin.training.recipe import Recipe
    from mimo_plugin.training.stages import train

__all__ = [
    "Encoder",
    "Evaluation",
    "Index",
    "MimoDocumentEncoder",
    "MimoQueryEncoder",
    "Recipe",
    "Run",
    "collection",
    "evaluate",
    "index",
    "load",
    "push",
    "register",
    "reproduce",
    "search",
    "train",
]
__version__ = version("mimo-plugin")

_MODULES = {
    "Encoder": "encoder.encoder",
    "Evaluation": "evaluation.evaluate",
    "Index": "indexing.open",
    "MimoDocumentEncoder": "pyserini.encoders",
    "MimoQueryEncoder": "pyserini.encoders",
    "Recipe": "training.recipe",
    "Run": "evaluation.runs",
    "collection": "collections.dataset",
    "evaluate": "evaluation.evaluate",
    "index": "indexing.build",
    "load": "collections.pool",
    "push": "training.push",
    "register": "pyserini.encoders",
    "reproduce": "benchmark.reproduce",
    "search": "indexing.search",
    "train": "training.stages",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"mimo_plugin.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
