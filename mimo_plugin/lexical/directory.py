"""The directory of a Lucene index: whose it is, and whether it is finished."""

import re
from pathlib import Path
from typing import Final, Literal

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import write_text, writing
from mimo_plugin.locking import NOTES
from mimo_plugin.manifests import FileRecord, Record, SealedRecord, parse_manifest, require_files, said_format

MANIFEST = "manifest.json"
# It is there while the index is built.
PLAN = "plan.json"
FORMAT: Final = "mimo-bm25-index"
DAMAGED = "the index is damaged; remove the directory and build it again"

_LUCENE = re.compile(r"_[\w-]+\.\w+|(pending_)?segments_\w+|write\.lock")
_LEFTOVER = re.compile(rf"\.({re.escape(MANIFEST)}|{re.escape(PLAN)})\.\d+\.tmp")


class Bm25Plan(Record):
    """All that decides what the index finds.

    Attributes:
        collection_fingerprint: see `collections.survey.Survey`.
        documents: number of documents in the collection.
        language: what Anserini was told; None is the plain analysis.
        analyzer: name of the Java class that made the terms.
    """

    collection_fingerprint: str
    documents: int
    language: str | None
    analyzer: str

    def differences(self, other: "Bm25Plan") -> list[str]:
        """What is not the same in `other`, a line each."""
        mine, others = self.model_dump(), other.model_dump()
        return [
            f"{name} is {mine[name]!r}, there it is {others[name]!r}"
            for name in mine
            if mine[name] != others[name]
        ]


class Bm25Manifest(SealedRecord):
    """What lies beside Lucene's files.

    Attributes:
        indexed: documents that Lucene holds; those without text are left out.
        languages: language -> number of documents.
        note: what a user should know of the analysis; empty where it is the one asked for.
        versions: of Pyserini, Anserini and Lucene.
        files: what is known of Lucene's files, by name.
    """

    format: Literal["mimo-bm25-index"] = FORMAT
    format_version: Literal[1] = 1
    plan: Bm25Plan
    indexed: int
    languages: dict[str, int]
    note: str
    versions: dict[str, str]
    files: dict[str, FileRecord]


def read_bm25_manifest(directory: Path) -> Bm25Manifest:
    """Reads an index's manifest and checks it against the files beside it.

    Raises:
        ArtifactError: the directory is no index, or an incomplete or damaged one.
    """
    if not directory.is_dir():
        raise ArtifactError(f"{directory}: no such directory; a BM25 index was expected")
    path = directory / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{directory} has no {MANIFEST}: it is not a finished BM25 index; build it again, which goes on "
            "from nothing where a build was cut short"
        )
    manifest = parse_manifest(path, Bm25Manifest, "a BM25 index")
    require_files(directory, manifest.files, DAMAGED)
    return manifest


def refuse_foreign(directory: Path) -> None:
    """Raises an ArtifactError where the directory holds anything that is not a BM25 index, whole or begun."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise ArtifactError(f"{directory} is a file: a new or empty directory, or a BM25 index, was expected")
    names = {path.name for path in directory.iterdir()}
    foreign = {name for name in names if not _is_ours(name)}
    if not _began(directory):
        foreign |= names - set(NOTES)
    if foreign:
        shown = ", ".join(sorted(foreign)[:5])
        raise ArtifactError(
            f"{directory} holds something else ({shown}): a new or empty directory, or an index that was "
            "begun here, was expected"
        )


def _began(directory: Path) -> bool:
    """Whether a BM25 index lies here, or was to."""
    return (directory / PLAN).is_file() or said_format(directory / MANIFEST) == FORMAT


def finished(directory: Path, plan: Bm25Plan) -> Bm25Manifest | None:
    """The manifest of the finished index that lies here, or None.

    Raises:
        ArtifactError: it was made otherwise, or is damaged.
    """
    if not (directory / MANIFEST).exists():
        return None
    manifest = read_bm25_manifest(directory)
    if differences := plan.differences(manifest.plan):
        raise ArtifactError(
            f"{directory} holds an index made otherwise: {'; '.join(differences)}. Choose another directory, "
            "or remove this one"
        )
    return manifest


def begin(directory: Path, plan: Bm25Plan) -> None:
    """Marks the directory as that of a build, and removes what an earlier one left.

    The manifest goes first: from then on this is no index.
    """
    write_text(directory / PLAN, plan.model_dump_json(indent=2))
    with writing(directory):
        (directory / MANIFEST).unlink(missing_ok=True)
        clear(directory)


def clear(directory: Path) -> None:
    """Removes Lucene's files, and what was left of others."""
    for path in list(directory.iterdir()):
        if _LUCENE.fullmatch(path.name) or _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def finish(directory: Path, manifest: Bm25Manifest) -> None:
    write_text(directory / MANIFEST, manifest.sealed(indent=2))
    (directory / PLAN).unlink(missing_ok=True)


def lucene_files(directory: Path) -> dict[str, FileRecord]:
    names = (path.name for path in directory.iterdir())
    return {
        name: FileRecord.of(directory / name)
        for name in sorted(names)
        if _LUCENE.fullmatch(name) and name != "write.lock"
    }


def _is_ours(name: str) -> bool:
    return name in (MANIFEST, PLAN, *NOTES) or bool(_LUCENE.fullmatch(name) or _LEFTOVER.fullmatch(name))
