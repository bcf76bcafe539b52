"""One collection by its name."""

import difflib
from pathlib import Path
from typing import Any

from mimo_plugin.collections import hub
from mimo_plugin.collections.folder import PREFIX, load_folder
from mimo_plugin.collections.packaged import register_sample
from mimo_plugin.collections.plain_files import load_file, plain_file
from mimo_plugin.collections.repairs import repaired
from mimo_plugin.errors import DataError

_SUFFIXES = {".tsv", ".txt", ".trec", ".qrels", ".gz", ".jsonl"}


def load(spec: str) -> Any:
    """Loads a collection as its source has it; nothing is read yet, and only a `hub:` folder downloaded.

    Args:
        spec: an ir_datasets id, `path:DIR`, `path:DIR#SPLIT`, `hub:OWNER/NAME[@REVISION][/FOLDER][#SPLIT]`,
            a packaged id, or a file of topics or qrels.

    Returns:
        An ir_datasets dataset.

    Raises:
        DataError: no such collection, or one that is only the parent of others.
    """
    if spec.startswith(PREFIX):
        return load_folder(spec)
    if spec.startswith(hub.PREFIX):
        return load_folder(hub.folder_spec(spec))
    if (path := plain_file(spec)) is not None:
        return load_file(path)
    import ir_datasets

    register_sample()
    try:
        dataset = ir_datasets.load(spec)
    except KeyError:
        raise DataError(_unknown(spec, list(ir_datasets.registry))) from None
    if not (dataset.has_docs() or dataset.has_queries() or dataset.has_qrels()):
        children = [name for name in ir_datasets.registry if name.startswith(f"{spec}/")]
        shown = ", ".join(children[:6]) + (", ..." if len(children) > 6 else "")
        raise DataError(f"{spec}: holds no documents, queries or qrels of its own, expected one of {shown}")
    return repaired(spec, dataset)


def documents_id(spec: str) -> str:
    """The id of the collection whose documents a registered id has: `miracl/de` for `miracl/de/dev`."""
    import ir_datasets

    if not ir_datasets.registry[spec].has_docs():
        return spec
    return str(ir_datasets.docs_parent_id(spec))


def _unknown(spec: str, known: list[str]) -> str:
    message = (
        f"{spec!r}: unknown collection, expected an ir_datasets id, path:DIR, hub:OWNER/NAME or a packaged id"
    )
    if _is_folder(spec):
        return f"{message}; for the folder write {PREFIX}{spec}"
    if Path(spec).suffix in _SUFFIXES:
        return f"{message}; for topics or qrels a file, and there is none of that name: check the path"
    near = difflib.get_close_matches(spec, known, n=5, cutoff=0.6)
    # A right start is worth more than a similar end: miracl/de/devel -> miracl/de/dev.
    parent, _, _ = spec.rpartition("/")
    near.sort(key=lambda name: not (parent and name.startswith(f"{parent}/")))
    if near:
        return f"{message}; near it: {', '.join(near)}"
    return f"{message}; `mimo collections` lists them"


def _is_folder(spec: str) -> bool:
    try:
        return bool(spec) and Path(spec).expanduser().is_dir()
    except (OSError, RuntimeError):  # no right to look, too long for a path, ~nobody
        return False
