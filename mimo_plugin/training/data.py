"""Training data on disk: Parquet with a manifest, opened and checked."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mimo_plugin.core.artifact import (
    FileRecord,
    SealedRecord,
    one_writer,
    parse_manifest,
    require_content,
    require_files,
    said_format,
)
from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.core.files import check_place, replacing, write_text

if TYPE_CHECKING:
    from datasets import Dataset

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


# Ends what is not yet in its place.
UNFINISHED = ".tmp"
_OURS = re.compile(
    rf"(pairs|rows)-\d{{5}}\.parquet({re.escape(UNFINISHED)})?|[a-z0-9.]+{re.escape(UNFINISHED)}"
)


def finished(
    directory: Path,
    data_format: Format,
    *,
    anchor: str,
    parameters: Mapping[str, Any],
    source: Mapping[str, Any],
    overwrite: bool = False,
) -> DataManifest | None:
    """Looks at an output directory before any work is done for it.

    Returns:
        The manifest of what lies there, if it was made from the same parameters and sources; None where the
        work is to be done.

    Raises:
        ArtifactError: it holds something else, and `overwrite` is false or it is none of `mimo data`.
        UsageError: it cannot be written to.
    """
    check_output(directory)
    if overwrite or not (directory / MANIFEST).exists():
        return None
    manifest = read_manifest(directory, data_format)
    if not manifest.made_from(anchor, parameters, source):
        raise ArtifactError(
            f"{directory} holds {data_format.noun} made otherwise: "
            f"{_differences(manifest, anchor, parameters, source)}. Choose another --output, give the same "
            "options, or replace it with --overwrite"
        )
    return manifest


def check_output(directory: Path) -> None:
    """Checks that data can be written to a directory, new, empty or written by `mimo data` before.

    Raises:
        ArtifactError: it holds files that are not of `mimo data`.
        UsageError: it cannot be written to.
    """
    check_place(directory / MANIFEST)
    if not directory.exists():
        return
    names = {path.name for path in directory.iterdir() if not path.name.startswith(".")}
    foreign = sorted(name for name in names if name != MANIFEST and not _OURS.fullmatch(name))
    if foreign or (MANIFEST in names and said_format(directory / MANIFEST) not in set(Format)):
        shown = ", ".join(foreign[:5]) or f"a {MANIFEST} of another kind"
        raise ArtifactError(
            f"{directory} holds something else ({shown}): --output must name a new or empty directory, or "
            "one that the command wrote"
        )


@contextmanager
def one_writer_of(directory: Path) -> Iterator[None]:
    """Makes the directory, holds it for one writer, and removes what is unfinished, before and after.

    Raises:
        ArtifactError: another process is writing here.
        EnvironmentProblem: the directory cannot be made.
    """
    with one_writer(directory):
        _remove_unfinished(directory)
        try:
            yield
        finally:
            _remove_unfinished(directory)


def _remove_unfinished(directory: Path) -> None:
    for path in directory.glob(f"*{UNFINISHED}"):
        if _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _differences(
    manifest: DataManifest, anchor: str, parameters: Mapping[str, Any], source: Mapping[str, Any]
) -> str:
    there = {"anchor": manifest.anchor, **manifest.parameters}
    here = {"anchor": anchor, **parameters}
    found = [
        f"{name} is {here.get(name)!r}, there it is {there.get(name)!r}"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]
    # Sources can be long lists of files.
    names = [name for name in {**manifest.source, **source} if manifest.source.get(name) != source.get(name)]
    if names:
        found.append(f"its {' and '.join(names)} are others")
    return "; ".join(found)


@dataclass(frozen=True)
class _Stored:
    """Attributes:
    directory: where it lies.
    manifest: what made it.
    dataset: the rows, mapped from disk.
    """

    directory: Path
    manifest: DataManifest
    dataset: "Dataset"

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint


class Pairs(_Stored):
    """Stage-1 data: `text` in the language `lang`, and `anchor`, the text that the teacher sees."""

    def texts(self) -> Iterator[str]:
        """Every text, anchors too, from disk."""
        for batch in self.dataset.select_columns(["text", "anchor"]).iter(batch_size=4096):
            yield from batch["text"]
            yield from batch["anchor"]


class Table(_Stored):
    """Stage-2 data: a row is one (query, positive passage), `queries` and `passages` parallel to `langs`.

    Every row has the anchor language and at least one other.
    """

    def texts(self) -> Iterator[str]:
        """Every text, queries and passages, from disk."""
        for batch in self.dataset.select_columns(["queries", "passages"]).iter(batch_size=1024):
            for versions in (*batch["queries"], *batch["passages"]):
                yield from versions


def open_pairs(directory: Path) -> Pairs:
    """Opens stage-1 pairs.

    Raises:
        ArtifactError: no directory of pairs, or an unfinished or damaged one.
    """
    manifest = read_manifest(directory, Format.PAIRS)
    return Pairs(directory, manifest, _mapped(directory, manifest))


def open_table(directory: Path) -> Table:
    """Opens a stage-2 table.

    Raises:
        ArtifactError: no directory of a table, or an unfinished or damaged one.
    """
    manifest = read_manifest(directory, Format.TABLE)
    return Table(directory, manifest, _mapped(directory, manifest))


def _mapped(directory: Path, manifest: DataManifest) -> "Dataset":
    """The rows as a dataset that is mapped into memory.

    Parquet cannot be mapped, so an Arrow copy is made once, named by what is in it: beside the Parquet files,
    or in the cache of `datasets` where nothing may be written there.
    """
    from datasets import Dataset, config

    name = f".{manifest.fingerprint[:16]}.arrow"
    places = [directory / name, Path(config.HF_DATASETS_CACHE) / "mimo" / name]
    found = next((place for place in places if _is_whole(place)), None)
    if found is None:
        found = places[0] if os.access(directory, os.W_OK) else places[1]
        found.parent.mkdir(parents=True, exist_ok=True)
        # Read once from here on, so what is in them is checked once.
        require_content(directory, manifest.files, "the data is damaged; make it again with --overwrite")
        _convert([directory / file for file in manifest.files], found)
        write_text(_record(found), FileRecord.of(found).model_dump_json() + "\n")
    dataset: Dataset = Dataset.from_file(str(found))
    if len(dataset) != manifest.rows:
        raise ArtifactError(
            f"{directory} holds {len(dataset)} rows, its manifest says {manifest.rows}: the data is damaged; "
            "make it again with --overwrite"
        )
    return dataset


def _record(arrow: Path) -> Path:
    return arrow.with_name(f"{arrow.name}.json")


def _is_whole(arrow: Path) -> bool:
    """Whether a copy is there as it was written; a damaged one is made again."""
    try:
        return FileRecord.of(arrow) == FileRecord.model_validate_json(_record(arrow).read_bytes())
    except (OSError, ValueError):
        return False


def _convert(files: Sequence[Path], arrow: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(arrow) as beside:
        try:
            schema = pq.read_schema(files[0])
            with pa.ipc.new_stream(str(beside), schema) as stream:
                for file in files:
                    for batch in pq.ParquetFile(file).iter_batches(batch_size=4096):
                        stream.write_batch(batch)
        except pa.ArrowInvalid as error:
            raise ArtifactError(
                f"{arrow.parent}: its Parquet files cannot be read ({str(error).splitlines()[0]}); make the "
                "data again with --overwrite"
            ) from error
