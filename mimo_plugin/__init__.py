"""MIMO for Pyserini: multilingual dense retrieval with one mixed-language index.

Importing this package starts nothing: no JVM, no torch, no Pyserini. The names below are resolved on
first use.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mimo_plugin.pyserini.encoders import MimoDocumentEncoder, MimoQueryEncoder, register

__all__ = ["MimoDocumentEncoder", "MimoQueryEncoder", "register"]
__version__ = version("mimo-plugin")


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("mimo_plugin.pyserini.encoders"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
