"""Graphs on disk, in the user's cache directory: each is made once, and read only when it is whole."""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from mimo_plugin.backends.graph import NotExportable
from mimo_plugin.files import user_caches, write_text, writing
from mimo_plugin.manifests import FileRecord, Record

_MANIFEST = "graph.json"


class GraphManifest(Record):
    """Attributes:
    key: what the graph was made of and by.
    files: of the graph, by name; none where it could not be made.
    problem: why it could not be made.
    """

    key: dict[str, str]
    files: dict[str, FileRecord]
    problem: str | None = None


def graphs_directory() -> Path:
    """Where graphs are kept."""
    return user_caches() / "graphs"


def cached(key: Mapping[str, str], make: Callable[[Path], None]) -> Path:
    """The directory of a graph. It is made where it is not there, or not as it was written.

    Another process that makes the same graph is waited for.

    Args:
        key: all that decides the graph.
        make: writes the graph into a directory.

    Raises:
        EnvironmentProblem: the file system refuses.
        NotExportable: it cannot be made; that is kept, too.
    """
    name = sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]
    directory = graphs_directory() / name
    with writing(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory.with_name(f".{name}.lock")):
            found = _read(directory)
            if found is None:
                found = _make(directory, dict(key), make)
    if found.problem is not None:
        raise NotExportable(found.problem)
    return directory


def _read(directory: Path) -> GraphManifest | None:
    try:
        manifest = GraphManifest.model_validate_json((directory / _MANIFEST).read_bytes())
        whole = all(FileRecord.of(directory / name) == record for name, record in manifest.files.items())
    except (OSError, ValueError):
        return None
    return manifest if whole else None


def _make(directory: Path, key: dict[str, str], make: Callable[[Path], None]) -> GraphManifest:
    beside = directory.with_name(f".{directory.name}.tmp")
    for leftover in (beside, directory):
        shutil.rmtree(leftover, ignore_errors=True)
    beside.mkdir()
    try:
        problem = None
        try:
            make(beside)
        except NotExportable as error:
            problem = str(error)
        paths = [] if problem else sorted(beside.iterdir())
        manifest = GraphManifest(
            key=key, files={path.name: FileRecord.of(path) for path in paths}, problem=problem
        )
        write_text(beside / _MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        beside.replace(directory)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        # A file system without locks: the worst is that a graph is made twice.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
