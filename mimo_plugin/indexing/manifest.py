"""`manifest.json`: what an index is and what made it. An index without a valid one is not an index."""

from pathlib import Path
from typing import Final, Literal

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import sha256, write_text
from mimo_plugin.manifests import FileRecord, SealedRecord, parse_manifest, require_files
from mimo_plugin.vectors.plan import EncodingPlan

MANIFEST = "manifest.json"
FORMAT: Final = "mimo-index"
INDEX, DOCID, LANG = "index", "docid", "lang"
FILES = (INDEX, DOCID, LANG)
# What is needed only while the index is built lies here. It is renamed before it is removed, so that what a
# kill leaves of it is never taken for shards.
WORK, DISCARDED = "building", ".discarded"


class Plan(EncodingPlan):
    """All that decides the bytes of an index.

    Attributes:
        factory: FAISS factory string.
        parameters: what is set on the empty index before vectors come in, and stays in its file, such as
            "efConstruction=200,efSearch=128"; None leaves FAISS's own.
        seed: of the training sample, where the factory needs training.
    """

    factory: str
    parameters: str | None
    seed: int

    @classmethod
    def of(cls, vectors: EncodingPlan, factory: str, parameters: str | None, seed: int) -> "Plan":
        return cls(**vectors.model_dump(), factory=factory, parameters=parameters, seed=seed)


class IndexManifest(SealedRecord):
    """What lies beside `index`, `docid` and `lang`.

    Attributes:
        languages: language -> number of documents.
        empty_documents: documents without text; None where the texts were never seen.
        files: what is known of the files beside it, by name.
    """

    format: Literal["mimo-index"] = FORMAT
    format_version: Literal[2] = 2
    plan: Plan
    languages: dict[str, int]
    empty_documents: int | None
    files: dict[str, FileRecord]

    def write(self, directory: Path) -> None:
        write_text(directory / MANIFEST, self.sealed(indent=2))


def made_by_pyserini(directory: Path) -> bool:
    """Whether `index` and `docid` lie there, and nothing that `mimo index` leaves before it is done."""
    ours = (MANIFEST, LANG, WORK, DISCARDED)
    return all((directory / name).is_file() for name in (INDEX, DOCID)) and not any(
        (directory / name).exists() for name in ours
    )


def read_manifest(directory: Path) -> IndexManifest:
    """Reads an index's manifest and checks it against the files beside it.

    Raises:
        ArtifactError: the directory is no index, or an incomplete or damaged one.
    """
    path = directory / MANIFEST
    if not directory.is_dir():
        raise ArtifactError(f"{directory}: no such directory; an index made by `mimo index` was expected")
    if made_by_pyserini(directory):
        raise ArtifactError(
            f"{directory} has no {MANIFEST}: it looks like an index that Pyserini made, which `mimo search` "
            "takes with --encoder; for anything else make one with `mimo index`"
        )
    if not path.is_file():
        raise ArtifactError(
            f"{directory} has no {MANIFEST}: it is not a finished index; run the `mimo index` command "
            "again that was to write it"
        )
    manifest = parse_manifest(path, IndexManifest, "a mimo index")
    require_files(directory, manifest.files, "the index is damaged; build it again with --no-resume")
    return manifest


def require_unchanged(directory: Path, manifest: IndexManifest, names: tuple[str, ...]) -> None:
    """Checks files of an index, as large as they are, against their SHA-256.

    Raises:
        ArtifactError: one of them is not the file that was written.
    """
    for name in names:
        if sha256(directory / name) != manifest.files[name].sha256:
            raise ArtifactError(
                f"{directory / name} is not the file that the manifest names (SHA-256): the index is "
                "damaged; build it again with --no-resume"
            )
