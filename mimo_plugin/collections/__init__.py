"""Documents, queries and qrels: whatever the source, an ir_datasets dataset.

A collection is named by an ir_datasets id (`miracl/de/dev`), a folder (`path:DIR`, `path:DIR#SPLIT`), a
folder of a hub dataset (`hub:OWNER/NAME/FOLDER`) or a packaged id (`mimo-sample`, `mimo-sample/de`). The
packaged ids enter ir_datasets' registry with the first call of `load`, `load_pool`, `require` or
`register_sample`; after that `ir_datasets.load("mimo-sample/de")` works too. Importing this package does not
import ir_datasets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mimo_plugin.collections.records import Doc, Query

if TYPE_CHECKING:
    from mimo_plugin.collections.loading import load
    from mimo_plugin.collections.packaged import register_sample
    from mimo_plugin.collections.pool import collection_key, load_pool, pool_prefixes
    from mimo_plugin.collections.requirements import require

__all__ = [
    "Doc",
    "Query",
    "collection_key",
    "load",
    "load_pool",
    "pool_prefixes",
    "register_sample",
    "require",
]

# Their modules define subclasses of ir_datasets' classes, so they are imported on first use only.
_MODULES = {
    "collection_key": "pool",
    "load": "loading",
    "load_pool": "pool",
    "pool_prefixes": "pool",
    "register_sample": "packaged",
    "require": "requirements",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
