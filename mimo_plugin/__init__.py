"""MIMO for Pyserini: multilingual dense retrieval with one mixed-language index.

Importing this package starts nothing: no JVM, no torch, no Pyserini. The names below are resolved on
first use.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mimo_plugin.evaluation.evaluate import Evaluation, evaluate
    from mimo_plugin.evaluation.runs import Run
    from mimo_plugin.pyserini.encoders import MimoDocumentEncoder, MimoQueryEncoder, register

__all__ = ["Evaluation", "MimoDocumentEncoder", "MimoQueryEncoder", "Run", "evaluate", "register"]
__version__ = version("mimo-plugin")

# Name -> its module.
_PLACES = {
    "Evaluation": "evaluation.evaluate",
    "MimoDocumentEncoder": "pyserini.encoders",
    "MimoQueryEncoder": "pyserini.encoders",
    "Run": "evaluation.runs",
    "evaluate": "evaluation.evaluate",
    "register": "pyserini.encoders",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"mimo_plugin.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
