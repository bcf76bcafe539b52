"""The run of a system, and the note beside it that says what made it."""

import shutil
from pathlib import Path
from typing import Any, Final, Literal

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import sha256, write_text, writing
from mimo_plugin.manifests import FileRecord, SealedRecord, parse_manifest
from mimo_plugin.reproduction.directory import RUNS

FORMAT: Final = "mimo-reproduction-run"


class MadeRun(SealedRecord):
    """Written last: where it is there and fits, the run is finished.

    Attributes:
        key: names all that decides the run.
        encoder, fingerprint: of a dense system.
        documents: in the index; None for fusions.
        index_bytes: of the index; None for fusions.
        seconds: step -> what it took; one that an earlier command did in part is not there.
        queries, lines: of the run.
        run: the file.
        details: what else a reader wants to know, such as the analyzer of each language.
        warnings: what a user should know of it.
    """

    format: Literal["mimo-reproduction-run"] = FORMAT
    format_version: Literal[1] = 1
    system: str
    key: str
    encoder: str | None = None
    fingerprint: str | None = None
    documents: int | None = None
    index_bytes: int | None = None
    seconds: dict[str, float]
    queries: int
    lines: int
    run: FileRecord
    details: dict[str, Any]
    warnings: tuple[str, ...] = ()


class RunPlace:
    """Where a system's run and its note lie."""

    def __init__(self, output: Path, system: str) -> None:
        self.file = output / RUNS / f"{system}.trec.gz"
        self.note = output / RUNS / f"{system}.json"

    def finished(self, key: str) -> MadeRun | None:
        """The note, where the run is there, is whole, and was made as the key says."""
        try:
            made = parse_manifest(self.note, MadeRun, "a run")
            if made.key != key or self.file.stat().st_size != made.run.bytes:
                return None
            return made if sha256(self.file) == made.run.sha256 else None
        except (OSError, ArtifactError):
            return None

    def finish(self, made: MadeRun) -> MadeRun:
        write_text(self.note, made.sealed(indent=2))
        return made


def directory_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def discard(directory: Path) -> None:
    """Removes a damaged index; renamed first, so that a kill leaves none that is half there."""
    gone = directory.with_name(f".{directory.name}.discarded")
    shutil.rmtree(gone, ignore_errors=True)
    with writing(directory):
        directory.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
