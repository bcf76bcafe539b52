"""The files behind a part of an ir_datasets dataset: which are missing, and where they would have to lie.

ir_datasets takes a file that lies in its place, under IR_DATASETS_HOME, without asking the network. It says
where that place is only while it downloads, so the places are read off the objects that make up a dataset.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

from ir_datasets.util import (
    Cache,
    Download,
    LocalDownload,
    RelativePath,
    RequestsDownload,
    TarExtractAll,
    ZipExtractCache,
    home_path,
)

from mimo_plugin.collections.faults import unreadable
from mimo_plugin.errors import DataError


@dataclass(frozen=True)
class MissingFile:
    """Attributes:
    place: where ir_datasets looks for the file (or the folder of an unpacked archive) first.
    urls: where it would download it from; none for what a user has to obtain.
    """

    place: Path
    urls: tuple[str, ...]


def missing_files(handler: Any) -> list[MissingFile]:
    """The files that reading a docs, queries or qrels handler needs and that are not on this machine.

    Raises:
        DataError: the folder of one may not be looked at.
    """
    found: dict[Path, MissingFile] = {}
    try:
        for file in _missing(handler, set()):
            found.setdefault(file.place, file)
    except OSError as error:
        raise DataError(unreadable(error.filename, error)) from error
    return [] if found and _has_docstore(handler) else list(found.values())


def streams(handler: Any) -> Iterator[tuple[str, Any]]:
    """Yields (path, object with `stream()`) of the local files that a handler reads record by record."""
    for name in ("_dlcs", "_docs_dlc", "_queries_dlc", "_qrels_dlc", "_dlc"):
        value = vars(handler).get(name)
        for dlc in value if isinstance(value, list | tuple) else [value]:
            if hasattr(dlc, "stream") and hasattr(dlc, "path"):
                yield str(dlc.path(force=False)), dlc


def _has_docstore(handler: Any) -> bool:
    """Whether a lookup store was built once: ir_datasets reads that instead of the files."""
    if not hasattr(handler, "docs_store"):
        return False
    try:
        store = handler.docs_store()
        return hasattr(store, "built") and bool(store.built())
    except Exception:  # a few datasets download before they can say where their store would be
        return False


def _missing(node: Any, seen: set[int]) -> Iterator[MissingFile]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, Download):
        yield from _missing_download(node)
    elif isinstance(node, RelativePath):
        yield from _missing_member(node)
    elif isinstance(node, TarExtractAll):
        yield from _missing_extract(Path(node._extract_path), node._streamer)
    elif isinstance(node, ZipExtractCache):
        yield from _missing_extract(Path(node.extract_path), node.dlc)
    elif isinstance(node, Cache):
        yield from _missing_extract(Path(node._path), node._streamer)
    elif isinstance(node, LocalDownload):
        if not node.path(force=False).exists():
            yield MissingFile(node.path(force=False), ())
    else:
        for child in _children(node):
            yield from _missing(child, seen)


def _missing_download(download: Any) -> Iterator[MissingFile]:
    copies = [mirror.path(force=False) for mirror in download.mirrors if isinstance(mirror, LocalDownload)]
    if any(path.exists() for path in copies):
        return
    urls = tuple(mirror.url for mirror in download.mirrors if isinstance(mirror, RequestsDownload))
    if download._cache_path is not None:
        place = Path(download._cache_path)
    elif copies:
        place = copies[0]
    else:
        place = home_path() / "downloads" / str(download.expected_md5)
    if not place.exists():
        yield MissingFile(place, urls)


def _missing_extract(place: Path, archive: Any) -> Iterator[MissingFile]:
    # What has been unpacked is used as it is, without a look at the archive.
    behind = [] if place.exists() else list(_missing(archive, set()))
    if behind:
        yield MissingFile(place, _urls(behind))


def _missing_member(node: Any) -> Iterator[MissingFile]:
    place = Path(node.path(force=False))
    if place.exists():
        return
    behind = list(_missing(node._streamer, set()))
    if behind or Path(node._streamer.path(force=False)).exists():
        yield MissingFile(place, _urls(behind))


def _urls(files: list[MissingFile]) -> tuple[str, ...]:
    return tuple(url for file in files for url in file.urls)


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, list | tuple):
        yield from node
    elif isinstance(node, dict):
        yield from node.values()
    elif isinstance(node, FunctionType):
        yield from (cell.cell_contents for cell in node.__closure__ or ())
    elif isinstance(node, partial):
        yield from (node.func, *node.args)
    elif type(node).__module__.split(".")[0] == "ir_datasets" and hasattr(node, "__dict__"):
        yield from vars(node).values()
