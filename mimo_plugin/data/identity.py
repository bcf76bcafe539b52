"""What tells files that data was made from, from others: their content, not where they lie."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimo_plugin.collections import hub
from mimo_plugin.collections.faults import unreadable
from mimo_plugin.collections.folder import PREFIX, parse_spec
from mimo_plugin.errors import DataError
from mimo_plugin.files import sha256

_KEY_LENGTH = 10


def identity_key(identity: Mapping[str, Any]) -> str:
    """A short name for all that decides what a step makes, as plain data."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


def file_identity(path: Path | zipfile.Path) -> dict[str, Any]:
    """Name, size and hash of a file, or of the member of a zip file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        if isinstance(path, zipfile.Path):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
            size = path.root.getinfo(path.at).file_size
            return {"name": path.name, "bytes": size, "sha256": digest.hexdigest()}
        return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
    except OSError as error:
        raise DataError(unreadable(path, error)) from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: damaged zip file ({error}), expected a whole one: fetch it again"
        ) from error


def files_identity(path: Path) -> list[dict[str, Any]]:
    """The identity of a file, or of every file of a directory."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [file_identity(file) for file in files]


def collection_identity(spec: str) -> Any:
    """A collection's id; of a folder, here or on the hub, which may change, its name and files.

    Raises:
        DataError: there is no such folder, or a file of it cannot be read.
    """
    if spec.startswith(hub.PREFIX):
        spec = hub.folder_spec(spec)
    if not spec.startswith(PREFIX):
        return spec
    folder = parse_spec(spec)
    files = [file_identity(file) for file in folder.files]
    return {"folder": folder.place.name, "split": folder.split, "files": files}
