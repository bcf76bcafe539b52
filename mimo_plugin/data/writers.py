"""Writes training data as Parquet shards, in bounded memory."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

from mimo_plugin.core.artifact import FileRecord, differences
from mimo_plugin.core.errors import ArtifactError, DataError
from mimo_plugin.core.files import writing
from mimo_plugin.training.data import (
    NEGATIVES,
    DataManifest,
    Format,
    NegativesRecord,
    data_directory,
    read_manifest,
)

# Bytes of text in memory, and at most in one file.
ROW_GROUP_BYTES = 16 * 2**20
SHARD_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Made:
    """Data that a command made or found.

    Attributes:
        new: False if the same data was there already.
    """

    manifest: DataManifest
    new: bool


class _Writer:
    """Writes rows in a `with` block, whose end publishes the files and their manifest.

    Args:
        directory: new, empty, or one that `mimo data` wrote or began.
        anchor: language of the texts that the teacher sees.
        parameters, source: options and sources for the manifest, as JSON values.
        overwrite: whether finished data may be replaced; it stays until the new data is complete.

    Attributes:
        work: folder for temporary files, inside the block.
        manifest: of the written data, after the block.
        negatives: for the manifest, if rows are added with mined negatives.

    Raises:
        ArtifactError: the directory holds something else; on entry, finished data that may not be replaced.
        UsageError: the directory is not writable.
    """

    work: Path
    manifest: DataManifest
    FORMAT: ClassVar[Format]
    _STEM: ClassVar[str]
    _TEXT: ClassVar[tuple[str, ...]]
    negatives: NegativesRecord | None = None

    def __init__(
        self,
        directory: Path,
        *,
        anchor: str,
        parameters: Mapping[str, Any],
        source: Mapping[str, Any],
        overwrite: bool = False,
    ) -> None:
        self._artifact = data_directory(directory, self.FORMAT)
        self._artifact.check_output()
        self._anchor = anchor
        self._parameters = dict(parameters)
        self._source = dict(source)
        self._overwrite = overwrite
        self._pending: list[Mapping[str, Any]] = []
        self._pending_bytes = self._shard_bytes = self._rows = 0
        self._languages: Counter[str] = Counter()
        self._dropped: dict[str, Counter[str]] = defaultdict(Counter)
        self._shards: list[str] = []
        self._parquet: Any = None

    def finished(self) -> DataManifest | None:
        """The manifest of finished data; None if there is none, or it is to be replaced.

        Raises:
            ArtifactError: the data was made from other sources, or with other parameters.
        """
        if self._overwrite or not self._artifact.manifest.exists():
            return None
        there = read_manifest(self._artifact.path, self.FORMAT)
        mine = {"anchor": self._anchor, **self._parameters}
        lines = list(differences(mine, {"anchor": there.anchor, **there.parameters}).values())
        # Sources can be long lists of files.
        if changed := differences(self._source, there.source):
            lines.append(f"its {' and '.join(changed)} differ")
        self._artifact.refuse(lines)
        return there

    def drop(self, reason: str, lang: str, count: int = 1) -> None:
        """Counts entries of the source that are left out."""
        if count:
            self._dropped[reason][lang] += count

    def __enter__(self) -> Self:
        if self._artifact.manifest.exists() and not self._overwrite:
            raise ArtifactError(
                f"{self._artifact.path} holds finished data: choose another --output, or replace it with "
                "--overwrite"
            )
        self._block = self._written()
        self._block.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._block.__exit__(*error)

    @contextmanager
    def _written(self) -> Iterator[None]:
        with self._artifact.building() as self.work, writing(self._artifact.path):
            try:
                yield
                self._finish()
            finally:
                # After an error a shard may still be open.
                with suppress(Exception):
                    self._close_shard()

    def _append(self, row: Mapping[str, Any], langs: list[str], size: int) -> None:
        """Adds one row with texts of `size` bytes."""
        self._pending.append(row)
        self._pending_bytes += size
        self._rows += 1
        self._languages.update(langs)
        if self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        text, texts = pa.string(), pa.list_(pa.string())
        schema = pa.schema([(name, text if name in self._TEXT else texts) for name in self._pending[0]])
        if self._shard_bytes + self._pending_bytes > SHARD_BYTES:
            self._close_shard()
        if self._parquet is None:
            self._shards.append(f"{self._STEM}-{len(self._shards):05d}.parquet")
            self._parquet = pq.ParquetWriter(self.work / self._shards[-1], schema, compression="zstd")
        self._parquet.write_table(pa.Table.from_pylist(self._pending, schema))
        self._shard_bytes += self._pending_bytes
        self._pending, self._pending_bytes = [], 0

    def _close_shard(self) -> None:
        parquet, self._parquet, self._shard_bytes = self._parquet, None, 0
        if parquet is not None:
            parquet.close()

    def _finish(self) -> None:
        dropped = {reason: dict(sorted(found.items())) for reason, found in sorted(self._dropped.items())}
        if not self._rows:
            counts = ", ".join(f"{reason} {sum(found.values()):,}" for reason, found in dropped.items())
            reasons = f" (dropped: {counts})" if counts else ""
            raise DataError(f"{self._artifact.path}: no rows are left{reasons}")
        if self._pending:
            self._flush()
        self._close_shard()
        self.manifest = DataManifest(
            format=self.FORMAT,
            anchor=self._anchor,
            rows=self._rows,
            languages=dict(sorted(self._languages.items())),
            dropped=dropped,
            parameters=self._parameters,
            source=self._source,
            files={name: FileRecord.of(self.work / name) for name in self._shards},
            versions={name: version(name) for name in ("mimo-plugin", "datasets", "pyarrow")},
            negatives=self.negatives,
        )
        self._artifact.publish(self.manifest)


class PairsWriter(_Writer):
    """Writes stage-1 pairs, one per row: columns `text`, `lang`, `anchor`.

    >>> with PairsWriter(path, anchor="en", parameters={}, source={}) as writer:  # doctest: +SKIP
    ...     writer.add("ein Haus", "de", "a house")
    """

    FORMAT = Format.PAIRS
    _STEM = "pairs"
    _TEXT = ("text", "lang", "anchor")

    def add(self, text: str, lang: str, anchor_text: str) -> None:
        """Adds one pair.

        Args:
            text: in the language `lang`.
            anchor_text: its translation in the anchor language; the text itself if `lang` is the anchor.

        Raises:
            DataError: a text is empty or not valid Unicode, or there is no language.
        """
        _check_lang(lang)
        size = _size(text, f"a text in {lang!r}") + _size(anchor_text, f"an anchor of a text in {lang!r}")
        self._append({"text": text, "lang": lang, "anchor": anchor_text}, [lang], size)


class TableWriter(_Writer):
    """Writes a stage-2 table, one (query, positive passage) per row.

    Columns: `query_id`, `passage_id`, and the parallel lists `langs` (sorted), `queries`, `passages`.
    """

    FORMAT = Format.TABLE
    _STEM = "rows"
    _TEXT = ("query_id", "passage_id")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._keys: set[bytes] = set()

    def add(
        self,
        query_id: str,
        passage_id: str,
        texts: Mapping[str, tuple[str, str]],
        negatives: Sequence[str] | None = None,
    ) -> bool:
        """Adds one row, unless it lacks the anchor language or has no other.

        Args:
            texts: language -> query and passage in it.
            negatives: passage ids of its mined negatives, in a table that has them in all rows.

        Returns:
            Whether it was added; if not, it is counted as dropped.

        Raises:
            DataError: the ids are repeated, or a text is empty or not valid Unicode.
        """
        # 16 bytes per row instead of two ids.
        key = blake2b(f"{query_id}\t{passage_id}".encode(), digest_size=16).digest()
        if key in self._keys:
            raise DataError(
                f"query {query_id!r} and passage {passage_id!r} occur twice, expected one row per pair of ids"
            )
        self._keys.add(key)
        if self._anchor not in texts or len(texts) < 2:
            which = "another language" if self._anchor in texts else "the anchor language"
            self.drop(f"no text in {which}", self._anchor)
            return False
        langs = sorted(texts)
        size = len(query_id) + len(passage_id)
        for lang in langs:
            _check_lang(lang)
            query, passage = texts[lang]
            size += _size(query, f"query {query_id!r} in {lang!r}")
            size += _size(passage, f"passage {passage_id!r} in {lang!r}")
        queries, passages = ([texts[lang][part] for lang in langs] for part in (0, 1))
        row = {"query_id": query_id, "passage_id": passage_id, "langs": langs}
        mined = {} if negatives is None else {NEGATIVES: list(negatives)}
        self._append({**row, "queries": queries, "passages": passages, **mined}, langs, size)
        return True


def _check_lang(lang: str) -> None:
    if lang.split() != [lang]:
        raise DataError(f"language {lang!r}: expected a code such as 'de'")


def _size(text: str, what: str) -> int:
    """The text's size in bytes; raises a DataError if it is empty or not valid Unicode."""
    if not text or text.isspace():
        raise DataError(f"{what} is empty, expected text")
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise DataError(
            f"{what} is not valid Unicode: a lone surrogate (U+{ord(text[error.start]):04X}) at character "
            f"{error.start}, expected whole characters"
        ) from None
