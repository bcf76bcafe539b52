"""`manifest.json` of what `mimo data debian` writes. Without a valid one the directory is not finished."""

from pathlib import Path
from typing import Any, Final, Literal

from mimo_plugin.data.debian.mlir import Counts
from mimo_plugin.files import write_text
from mimo_plugin.manifests import FileRecord, SealedRecord, parse_manifest, require_files

MANIFEST = "manifest.json"
FORMAT: Final = "mimo-debian"


class DebianManifest(SealedRecord):
    """What lies beside it, and what made it.

    Attributes:
        parameters: the options, and the SHA-256 of tables that were given: what makes the same data again.
        source: where the descriptions came from: the tables' names and hashes, or the archive's suites with
            the dates of their releases.
        descriptions: split -> language -> number of descriptions that have it.
        pairs, table: rows of the training data.
        collections: split -> what its MLIR collection holds.
        dropped: reason -> language -> number of texts that were left out for it.
        files: path below the directory -> size and hash.
    """

    format: Literal["mimo-debian"] = FORMAT
    format_version: Literal[1] = 1
    parameters: dict[str, Any]
    source: dict[str, Any]
    descriptions: dict[str, dict[str, int]]
    pairs: int
    table: int
    collections: dict[str, Counts]
    dropped: dict[str, dict[str, int]]
    files: dict[str, FileRecord]
    versions: dict[str, str]

    def write(self, directory: Path) -> None:
        write_text(directory / MANIFEST, self.sealed(indent=2))


def read_manifest(directory: Path) -> DebianManifest:
    """Reads the manifest and checks it against the files beside it.

    Raises:
        ArtifactError: it is none, or the data is incomplete or damaged.
    """
    manifest = parse_manifest(directory / MANIFEST, DebianManifest, "`mimo data debian`")
    require_files(directory, manifest.files, "the data is damaged; make it again with --overwrite")
    return manifest
