"""Writes training data as Parquet shards in bounded memory; a directory is finished or says it is not."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mimo_plugin.core.artifact import FileRecord
from mimo_plugin.core.errors import ArtifactError, DataError
from mimo_plugin.core.files import writing
from mimo_plugin.training.data import MANIFEST, UNFINISHED, DataManifest, Format, check_output, one_writer_of

if TYPE_CHECKING:
    import pyarrow as pa

# Bytes of text: what is held in memory, and what goes into one file at most.
ROW_GROUP_BYTES = 16 * 2**20
SHARD_BYTES = 256 * 2**20


class _Writer:
    """Rows into shards under unfinished names; renamed, and sealed with the manifest, on a clean exit.

    Args:
        directory: new, empty, or one that `mimo data` wrote or began.
        anchor: language of the texts that the teacher sees.
        parameters, source: what the manifest says about the making; values that JSON has.
        overwrite: whether a finished directory may be replaced; it stays as it is until the new one is whole.

    Raises:
        ArtifactError, UsageError: see `check_output`; or a finished directory, and `overwrite` is false.
    """

    _format: Format
    _stem: str

    def __init__(
        self,
        directory: Path,
        *,
        anchor: str,
        parameters: Mapping[str, Any],
        source: Mapping[str, Any],
        overwrite: bool = False,
    ) -> None:
        check_output(directory)
        if (directory / MANIFEST).exists() and not overwrite:
            raise ArtifactError(
                f"{directory} is finished already: choose another --output, or replace it with --overwrite"
            )
        self._directory = directory
        self._anchor = anchor
        self._parameters = dict(parameters)
        self._source = dict(source)
        self._columns: dict[str, list[Any]] = {}
        self._pending = 0
        self._shard_bytes = 0
        self._rows = 0
        self._languages: Counter[str] = Counter()
        self._dropped: dict[str, Counter[str]] = defaultdict(Counter)
        self._shards: list[str] = []
        self._parquet: Any = None
        self._held = ExitStack()
        self._manifest: DataManifest | None = None

    @property
    def manifest(self) -> DataManifest:
        """What was written; there once the `with` block has been left without an error."""
        if self._manifest is None:
            raise RuntimeError("the manifest is there when the data is finished")
        return self._manifest

    def drop(self, reason: str, lang: str, count: int = 1) -> None:
        """Counts entries of the source that are left out."""
        if count:
            self._dropped[reason][lang] += count

    def __enter__(self) -> Self:
        self._held.enter_context(one_writer_of(self._directory))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._held:
            try:
                if kind is None:
                    with writing(self._directory):
                        self._finish()
            finally:
                # After a clean exit there is none; else its file goes with what else is unfinished.
                with suppress(Exception):
                    self._close_shard()

    def _append(self, row: Mapping[str, Any], langs: list[str], size: int) -> None:
        """Adds one row with texts of `size` bytes."""
        for name, value in row.items():
            self._columns.setdefault(name, []).append(value)
        self._rows += 1
        self._languages.update(langs)
        self._pending += size
        if self._pending >= ROW_GROUP_BYTES:
            with writing(self._directory):
                self._flush()

    def _schema(self) -> "pa.Schema":
        raise NotImplementedError

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._columns:
            return
        if self._parquet is not None and self._shard_bytes + self._pending > SHARD_BYTES:
            self._close_shard()
        if self._parquet is None:
            self._shards.append(f"{self._stem}-{len(self._shards):05d}.parquet")
            path = self._directory / f"{self._shards[-1]}{UNFINISHED}"
            self._parquet = pq.ParquetWriter(path, self._schema(), compression="zstd")
        self._parquet.write_table(pa.table(self._columns, schema=self._schema()))
        self._shard_bytes += self._pending
        self._pending = 0
        self._columns = {}

    def _close_shard(self) -> None:
        parquet, self._parquet = self._parquet, None
        self._shard_bytes = 0
        if parquet is not None:
            parquet.close()

    def _finish(self) -> None:
        if not self._rows:
            raise DataError(f"{self._directory}: no row is left to write{self._reasons()}")
        self._flush()
        self._close_shard()
        records = {name: FileRecord.of(self._directory / f"{name}{UNFINISHED}") for name in self._shards}
        manifest = DataManifest(
            format=self._format,
            anchor=self._anchor,
            rows=self._rows,
            languages=dict(sorted(self._languages.items())),
            dropped={
                reason: dict(sorted(counts.items())) for reason, counts in sorted(self._dropped.items())
            },
            parameters=self._parameters,
            source=self._source,
            files=records,
            versions={name: version(name) for name in ("mimo-plugin", "datasets", "pyarrow")},
        )
        # From here until the manifest is written the directory counts as unfinished.
        (self._directory / MANIFEST).unlink(missing_ok=True)
        for old in [*self._directory.glob("*-*.parquet"), *self._directory.glob(".*.arrow*")]:
            old.unlink()
        for name in self._shards:
            (self._directory / f"{name}{UNFINISHED}").replace(self._directory / name)
        manifest.write(self._directory)
        self._manifest = manifest

    def _reasons(self) -> str:
        counts = {reason: found.total() for reason, found in sorted(self._dropped.items())}
        return f" (dropped: {', '.join(f'{reason} {count:,}' for reason, count in counts.items())})" * bool(
            counts
        )


class PairsWriter(_Writer):
    """Writes stage-1 pairs: columns `text`, `lang`, `anchor`, one pair a row.

    >>> with PairsWriter(path, anchor="en", parameters={}, source={}) as writer:  # doctest: +SKIP
    ...     writer.add("ein Haus", "de", "a house")
    """

    _format = Format.PAIRS
    _stem = "pairs"

    def add(self, text: str, lang: str, anchor_text: str) -> None:
        """Adds one pair.

        Args:
            text: in the language `lang`.
            anchor_text: the same in the anchor language; where `lang` is that, the text itself.

        Raises:
            DataError: a text is empty or not valid Unicode, or there is no language.
        """
        _check_lang(lang)
        size = _size(text, f"a text in {lang!r}") + _size(anchor_text, f"an anchor of a text in {lang!r}")
        self._append({"text": text, "lang": lang, "anchor": anchor_text}, [lang], size)

    def _schema(self) -> "pa.Schema":
        import pyarrow as pa

        return pa.schema([(name, pa.string()) for name in ("text", "lang", "anchor")])


class TableWriter(_Writer):
    """Writes a stage-2 table: columns `query_id`, `passage_id` and the parallel lists `langs` (sorted),
    `queries`, `passages`; one (query, positive passage) a row."""

    _format = Format.TABLE
    _stem = "rows"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._keys: set[bytes] = set()

    def add(self, query_id: str, passage_id: str, texts: Mapping[str, tuple[str, str]]) -> bool:
        """Adds one row, unless it lacks the anchor language or has no other.

        Args:
            texts: language -> query and passage in it.

        Returns:
            Whether it was added; if not, it is counted among the dropped.

        Raises:
            DataError: the same ids a second time, or a text is empty or not valid Unicode.
        """
        # 16 bytes a row in place of two ids.
        key = blake2b(f"{query_id}\t{passage_id}".encode(), digest_size=16).digest()
        if key in self._keys:
            raise DataError(
                f"query {query_id!r} and passage {passage_id!r} come twice, expected one row a pair of ids"
            )
        self._keys.add(key)
        if self._anchor not in texts:
            self.drop("no text in the anchor language", self._anchor)
            return False
        if len(texts) < 2:
            self.drop("no text in another language", self._anchor)
            return False
        langs = sorted(texts)
        size = len(query_id) + len(passage_id)
        for lang in langs:
            _check_lang(lang)
            query, passage = texts[lang]
            size += _size(query, f"query {query_id!r} in {lang!r}")
            size += _size(passage, f"passage {passage_id!r} in {lang!r}")
        row = {
            "query_id": query_id,
            "passage_id": passage_id,
            "langs": langs,
            "queries": [texts[lang][0] for lang in langs],
            "passages": [texts[lang][1] for lang in langs],
        }
        self._append(row, langs, size)
        return True

    def _schema(self) -> "pa.Schema":
        import pyarrow as pa

        texts = pa.list_(pa.string())
        ids = [(name, pa.string()) for name in ("query_id", "passage_id")]
        return pa.schema([*ids, *((name, texts) for name in ("langs", "queries", "passages"))])


def _check_lang(lang: str) -> None:
    if lang.split() != [lang]:
        raise DataError(f"language {lang!r}: expected a code such as 'de'")


def _size(text: str, what: str) -> int:
    """Bytes of a text that is one."""
    if not text or text.isspace():
        raise DataError(f"{what} is empty, expected text")
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise DataError(
            f"{what} is not valid Unicode: a lone surrogate (U+{ord(text[error.start]):04X}) at character "
            f"{error.start}, expected whole characters"
        ) from None
