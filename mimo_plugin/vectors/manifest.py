"""`manifest.json` of a vectors directory: what the vectors are of and what made them."""

from pathlib import Path
from typing import Final, Literal

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import write_text
from mimo_plugin.manifests import FileRecord, SealedRecord, parse_manifest, require_files
from mimo_plugin.vectors.plan import EncodingPlan

MANIFEST = "manifest.json"
FORMAT: Final = "mimo-vectors"


class VectorsManifest(SealedRecord):
    """Attributes:
    languages: language -> number of documents.
    empty_documents: documents without text; None where the texts were never seen.
    files: the shards, by name.
    """

    format: Literal["mimo-vectors"] = FORMAT
    format_version: Literal[1] = 1
    plan: EncodingPlan
    languages: dict[str, int]
    empty_documents: int | None
    files: dict[str, FileRecord]

    def write(self, directory: Path) -> None:
        write_text(directory / MANIFEST, self.sealed(indent=2))


def read_manifest(directory: Path) -> VectorsManifest:
    """Reads the manifest of a vectors directory and checks it against the files beside it.

    Raises:
        ArtifactError: the directory holds no vectors, or incomplete or damaged ones.
    """
    path = directory / MANIFEST
    if not directory.is_dir():
        raise ArtifactError(f"{directory}: no such directory; vectors made by `mimo encode` were expected")
    if not path.is_file():
        raise ArtifactError(
            f"{directory} has no {MANIFEST}: it holds no finished vectors; run the `mimo encode` command "
            "again that was to write them"
        )
    manifest = parse_manifest(path, VectorsManifest, "vectors of `mimo encode`")
    require_files(directory, manifest.files, "the vectors are damaged; encode again with --no-resume")
    return manifest
