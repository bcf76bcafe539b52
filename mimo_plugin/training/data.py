"""Training data on disk: Parquet with a manifest, opened and checked."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mimo_plugin.core.artifact import Artifact, FileRecord, Kind, Manifest, Record, require_content
from mimo_plugin.core.errors import ArtifactError, DataError
from mimo_plugin.core.files import replacing, write_text

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset


class Format(StrEnum):
    """Kinds of training data."""

    PAIRS = "mimo-pairs"
    TABLE = "mimo-table"

    @property
    def noun(self) -> str:
        """Name in messages."""
        return {Format.PAIRS: "stage-1 pairs", Format.TABLE: "a stage-2 table"}[self]


class NegativesRecord(Record):
    """The mined negatives of a table.

    Attributes:
        encoder: checkpoint that found them; "" if unknown.
        rows: number of negatives -> rows that have so many.
        missed: queries whose own passage was not among the hits.
    """

    encoder: str
    rows: dict[int, int]
    missed: int

    @property
    def most(self) -> int:
        """The largest number of negatives of a row."""
        return max(self.rows, default=0)


class DataManifest(Manifest):
    """Manifest of a directory of Parquet files.

    Attributes:
        anchor: the language of the texts that the teacher sees.
        languages: language -> rows with a text in it.
        dropped: reason -> language -> number of source entries left out.
        parameters: the options that decided which rows were kept.
        source: what the rows were made from.
        files: name -> size and SHA-256, in the order of the rows.
        versions: of the libraries that wrote the files.
        negatives: of a table with the column `negatives`.
    """

    format: Format
    format_version: Literal[1] = 1
    anchor: str
    rows: int
    languages: dict[str, int]
    dropped: dict[str, dict[str, int]]
    parameters: dict[str, Any]
    source: dict[str, Any]
    versions: dict[str, str]
    negatives: NegativesRecord | None = Field(default=None, exclude_if=lambda found: found is None)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the format, the anchor and the files' hashes in order; hexadecimal."""
        parts = [self.format, self.anchor, *(record.sha256 for record in self.files.values())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


_AGAIN = "make it again with --overwrite"
_KINDS = {
    held: Kind(
        manifest=DataManifest,
        formats=frozenset(Format),
        noun=f"training data ({held.noun})",
        command="mimo data",
        names=re.compile(r"(pairs|rows)-\d{5}\.parquet|\.[0-9a-f]{16}\.arrow(\.json)?"),
        again=_AGAIN,
    )
    for held in Format
}


def data_directory(path: Path, expected: Format) -> Artifact[DataManifest]:
    """A directory for training data of a format."""
    return Artifact(path, _KINDS[expected])


def read_manifest(directory: Path, expected: Format) -> DataManifest:
    """Reads the manifest of training data and checks it against the files beside it.

    Raises:
        ArtifactError: the directory holds something else, or is incomplete or damaged.
    """
    manifest = data_directory(directory, expected).read()
    if manifest.format is not expected:
        raise ArtifactError(f"{directory} holds {manifest.format.noun}, expected {expected.noun}")
    return manifest


@dataclass(frozen=True)
class Rereadable:
    """Texts that `make` reads anew for each iteration."""

    make: Callable[[], Iterator[str]]

    def __iter__(self) -> Iterator[str]:
        return self.make()


@dataclass(frozen=True)
class _Stored:
    """Training data.

    Attributes:
        dataset: the rows, memory-mapped.
        directory: None for a dataset that was passed in memory.
    """

    manifest: DataManifest
    dataset: "Dataset"
    directory: Path | None = None

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def name(self) -> str:
        """Name in a model card."""
        return "dataset" if self.directory is None else self.directory.name

    def _read(self, columns: list[str], rows: "np.ndarray | None") -> Iterator[dict[str, list[Any]]]:
        """Some columns in batches, from disk."""
        found = self.dataset.select_columns(columns)
        found = found if rows is None else found.select(rows)
        yield from found.iter(batch_size=1024)


class Pairs(_Stored):
    """Stage-1 data: `text` in the language `lang`, and `anchor`, the text that the teacher sees."""

    def texts(self) -> Iterator[str]:
        """Every text, anchors too, from disk."""
        for batch in self.dataset.select_columns(["text", "anchor"]).iter(batch_size=4096):
            yield from batch["text"]
            yield from batch["anchor"]

    def labelled(self) -> Iterator[tuple[str, str]]:
        """(language, text) of every pair."""
        for batch in self.dataset.iter(batch_size=4096):
            yield from zip(batch["lang"], batch["text"], strict=True)

    def anchors(self, column: str = "anchor", rows: "np.ndarray | None" = None) -> Iterator[str]:
        """The texts that the teacher sees, of all rows or of some."""
        for batch in self._read([column], rows):
            yield from batch[column]


class Table(_Stored):
    """Stage-2 data: a row is one (query, positive passage), `queries` and `passages` parallel to `langs`.

    Every row has the anchor language and at least one other. A table with mined negatives has a column
    `negatives`: passage ids of other rows, the hardest first.
    """

    def texts(self) -> Iterator[str]:
        """Every text, queries and passages, from disk."""
        for batch in self.dataset.select_columns(["queries", "passages"]).iter(batch_size=1024):
            for versions in (*batch["queries"], *batch["passages"]):
                yield from versions

    def labelled(self) -> Iterator[tuple[str, str]]:
        """(language, text) of every query and passage."""
        for batch in self.dataset.iter(batch_size=1024):
            for langs, *columns in zip(batch["langs"], batch["queries"], batch["passages"], strict=True):
                for texts in columns:
                    yield from zip(langs, texts, strict=True)

    def anchors(self, column: str, rows: "np.ndarray | None" = None) -> Iterator[str]:
        """The queries or passages that the teacher sees, one per row, of all rows or of some."""
        anchor = self.manifest.anchor
        for batch in self._read(["langs", column], rows):
            for langs, texts in zip(batch["langs"], batch[column], strict=True):
                yield texts[langs.index(anchor)]


def open_pairs(directory: Path) -> Pairs:
    """Opens stage-1 pairs.

    Raises:
        ArtifactError: no directory of pairs, or an unfinished or damaged one.
    """
    manifest = read_manifest(directory, Format.PAIRS)
    return Pairs(manifest, _mapped(directory, manifest), directory)


def open_table(directory: Path) -> Table:
    """Opens a stage-2 table.

    Raises:
        ArtifactError: no directory of a table, or an unfinished or damaged one.
    """
    manifest = read_manifest(directory, Format.TABLE)
    return Table(manifest, _mapped(directory, manifest), directory)


NEGATIVES = "negatives"
_COLUMNS = {
    Format.PAIRS: ["text", "lang", "anchor"],
    Format.TABLE: ["query_id", "passage_id", "langs", "queries", "passages"],
}


def data_of(dataset: "Dataset", held: Format, anchor: str = "en") -> Pairs | Table:
    """Training data from a dataset with the columns of `mimo data`'s Parquet files.

    Args:
        anchor: language of the texts that the teacher sees.

    Raises:
        DataError: a column is missing; or a row of a table lacks the anchor language, or has no other.
    """
    columns = _COLUMNS[held]
    missing = [name for name in columns if name not in dataset.column_names]
    if missing or not len(dataset):
        found = f"columns {', '.join(dataset.column_names)}" if missing else "no row"
        raise DataError(f"a dataset with {found}: {held.noun} need rows with {', '.join(columns)}")
    mined = held is Format.TABLE and NEGATIVES in dataset.column_names
    if mined:
        columns = [*columns, NEGATIVES]
    # Applies a selection of rows, which `dataset.data` ignores.
    rows = dataset.select_columns(columns).flatten_indices()
    digest, languages, negatives = hashlib.sha256(), Counter[str](), Counter[int]()
    for batch in rows.iter(batch_size=1024):
        digest.update(json.dumps([batch[name] for name in columns]).encode())
        negatives.update(map(len, batch.get(NEGATIVES, ())))
        for langs in batch.get("langs") or [[lang] for lang in batch["lang"]]:
            if held is Format.TABLE and (anchor not in langs or len(langs) < 2):
                raise DataError(
                    f"a row of the dataset is in {', '.join(langs)}: {held.noun} needs {anchor} and another "
                    "language in each row"
                )
            languages.update(langs)
    manifest = DataManifest(
        format=held,
        anchor=anchor,
        rows=len(rows),
        languages=dict(sorted(languages.items())),
        dropped={},
        parameters={},
        source={},
        files={"dataset": FileRecord(bytes=rows.data.nbytes, sha256=digest.hexdigest())},
        versions={},
        negatives=NegativesRecord(encoder="", rows=negatives, missed=0) if mined else None,
    )
    return (Pairs if held is Format.PAIRS else Table)(manifest, rows)


def _mapped(directory: Path, manifest: DataManifest) -> "Dataset":
    """The rows as a memory-mapped dataset.

    Parquet cannot be mapped, so an Arrow copy is made once and named by its content. It lies beside the
    Parquet files, or in the cache of `datasets` if their directory is read-only.
    """
    from datasets import Dataset, config

    name = f".{manifest.fingerprint[:16]}.arrow"
    places = [directory / name, Path(config.HF_DATASETS_CACHE) / "mimo" / name]
    found = next((place for place in places if _is_whole(place)), None)
    if found is None:
        found = places[0] if os.access(directory, os.W_OK) else places[1]
        found.parent.mkdir(parents=True, exist_ok=True)
        # The Parquet files are read only here, so their hashes are checked only here.
        require_content(directory, manifest.files, f"the data is damaged; {_AGAIN}")
        _convert([directory / file for file in manifest.files], found)
        write_text(_record(found), FileRecord.of(found).model_dump_json() + "\n")
    dataset: Dataset = Dataset.from_file(str(found))
    if len(dataset) != manifest.rows:
        raise ArtifactError(
            f"{directory} holds {len(dataset)} rows, its manifest says {manifest.rows}: the data is damaged; "
            f"{_AGAIN}"
        )
    return dataset


def _record(arrow: Path) -> Path:
    return arrow.with_name(f"{arrow.name}.json")


def _is_whole(arrow: Path) -> bool:
    """Whether there is an undamaged copy."""
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
