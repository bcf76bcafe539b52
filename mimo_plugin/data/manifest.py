"""`manifest.json` beside training data: what it is and what made it. Without it nothing is finished."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import write_text
from mimo_plugin.manifests import FileRecord, SealedRecord, parse_manifest, require_files

MANIFEST = "manifest.json"


class Format(StrEnum):
    """What a directory of training data holds."""

    PAIRS = "mimo-pairs"
    TABLE = "mimo-table"

    @property
    def noun(self) -> str:
        """What messages call it."""
        return {Format.PAIRS: "stage-1 pairs", Format.TABLE: "a stage-2 table"}[self]


class DataManifest(SealedRecord):
    """What lies beside the Parquet files of training data.

    Attributes:
        anchor: the language of the texts that the teacher sees.
        rows: of all files together.
        languages: language -> rows that have a text in it.
        dropped: reason -> language -> how many of the source's entries were left out for it.
        parameters: the options that decided what was kept.
        source: what the rows were made from.
        files: name -> size and hash, in the order of the rows.
        versions: of the libraries that wrote the files.
    """

    format: Format
    format_version: Literal[1] = 1
    anchor: str
    rows: int
    languages: dict[str, int]
    dropped: dict[str, dict[str, int]]
    parameters: dict[str, Any]
    source: dict[str, Any]
    files: dict[str, FileRecord]
    versions: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the format, the anchor and the files' hashes in order; hexadecimal."""
        parts = [self.format, self.anchor, *(record.sha256 for record in self.files.values())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def made_from(self, anchor: str, parameters: Mapping[str, Any], source: Mapping[str, Any]) -> bool:
        """Whether the same parameters and sources would make it again."""
        return (self.anchor, self.parameters, self.source) == (anchor, dict(parameters), dict(source))

    def write(self, directory: Path) -> None:
        write_text(directory / MANIFEST, self.sealed(indent=2))


@dataclass(frozen=True)
class Made:
    """What a command made, or found.

    Attributes:
        new: False where the same was there already.
    """

    manifest: DataManifest
    new: bool


def read_manifest(directory: Path, expected: Format) -> DataManifest:
    """Reads the manifest of training data and checks it against the files beside it.

    Raises:
        ArtifactError: the directory holds something else, or is incomplete or damaged.
    """
    path = directory / MANIFEST
    if not directory.is_dir():
        raise ArtifactError(f"{directory}: no such directory, expected {expected.noun} made by `mimo data`")
    if not path.is_file():
        raise ArtifactError(
            f"{directory} has no {MANIFEST}: it is not a finished directory of {expected.noun}; run the "
            "`mimo data` command again that was to write it"
        )
    manifest = parse_manifest(path, DataManifest, expected.noun)
    if manifest.format is not expected:
        raise ArtifactError(f"{directory} holds {manifest.format.noun}, expected {expected.noun}")
    require_files(directory, manifest.files, "the data is damaged; make it again with --overwrite")
    return manifest
