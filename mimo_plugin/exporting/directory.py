"""The directory of an exported Lucene index: whose it is, and how it comes to be whole or not at all."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import check_place, remove_tree, write_text, writing
from mimo_plugin.locking import NOTES, one_writer
from mimo_plugin.manifests import FileRecord, SealedRecord, parse_manifest, require_files
from mimo_plugin.vectors import EncodingPlan
from mimo_plugin.vectors.plan import OF_THE_MACHINE

MANIFEST = "manifest.json"
FORMAT: Final = "mimo-lucene-vectors"
_LOCK = "write.lock"


class LuceneManifest(SealedRecord):
    """What lies beside Lucene's files.

    Attributes:
        kind: lucene-hnsw or lucene-flat.
        plan: of the vectors.
        versions: of Pyserini, Anserini and Lucene; another Anserini may not read the index.
        files: what is known of Lucene's files, by name.
    """

    format: Literal["mimo-lucene-vectors"] = FORMAT
    format_version: Literal[1] = 1
    kind: str
    plan: EncodingPlan
    versions: dict[str, str]
    files: dict[str, FileRecord]


def finished(path: Path, kind: str, plan: EncodingPlan) -> bool:
    """Whether the very export lies there already; False where there is nothing.

    Raises:
        ArtifactError: something else does.
        UsageError: nothing can be written there.
    """
    check_place(path / MANIFEST)
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if not names:
        return False
    if not _is_ours(path):
        raise ArtifactError(
            f"{path} holds something else ({', '.join(names[:5])}): --output must name a new or empty "
            "directory"
        )
    manifest = parse_manifest(path / MANIFEST, LuceneManifest, "exported vectors")
    require_files(path, manifest.files, "the export is damaged; remove the directory and export again")
    differences = plan.differences(manifest.plan, ignoring=OF_THE_MACHINE)
    if manifest.kind != kind:
        differences.append(f"kind is {kind!r}, there it is {manifest.kind!r}")
    if differences:
        raise ArtifactError(
            f"{path} holds an export of other vectors: {'; '.join(differences)}. Choose another --output, or "
            "remove it"
        )
    return True


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """A directory beside `path`, empty and this process's alone; what an earlier one left is removed.

    Raises:
        ArtifactError: another process is exporting to `path`.
        EnvironmentProblem: the file system refuses.
    """
    path = path.absolute()
    beside = path.with_name(f".{path.name}.exporting")
    try:
        with one_writer(beside):
            with writing(beside):
                for left in _others(beside):
                    remove_tree(left)
            try:
                yield beside
            finally:
                for made in _others(beside):
                    shutil.rmtree(made, ignore_errors=True)
    finally:
        # It stays where another process holds it.
        with suppress(OSError):
            beside.rmdir()


def _others(directory: Path) -> list[Path]:
    return [entry for entry in directory.glob("*") if entry.name not in NOTES]


def seal(index: Path, path: Path, kind: str, plan: EncodingPlan, versions: dict[str, str]) -> None:
    """Writes the manifest into a finished index and puts it in its place.

    Raises:
        EnvironmentProblem: the file system refuses.
    """
    (index / _LOCK).unlink(missing_ok=True)
    files = {entry.name: FileRecord.of(entry) for entry in sorted(index.iterdir())}
    manifest = LuceneManifest(kind=kind, plan=plan, versions=versions, files=files)
    write_text(index / MANIFEST, manifest.sealed(indent=2))
    with writing(path):
        index.rename(path)


def _is_ours(path: Path) -> bool:
    try:
        found = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT
