"""Imports vectors of other tools: NumPy arrays, Pyserini's JSON Lines, Parquet."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mimo_plugin.collections.records import Doc, check_id
from mimo_plugin.collections.rows import get_id, get_lang, read_lines, read_objects
from mimo_plugin.collections.survey import survey
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.core.files import sha256
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.encode import Encoded, begin_vectors, check_checkpoint, finish_vectors
from mimo_plugin.indexing.plan import foreign_plan
from mimo_plugin.indexing.settings import EncodeOptions
from mimo_plugin.indexing.vectors import VECTORS, VectorBatch

# Documents in memory at a time.
_ROWS = 1024
# The largest float32.
_LARGEST = 3.4028234663852886e38


def read_jsonl(path: Path, faults: Problems) -> Iterator[VectorBatch]:
    """Reads `id` (or Anserini's `docid`), `vector` and, if present, `lang`."""

    def row(numbered: tuple[int, dict[str, Any]]) -> tuple[str, str, list[float]]:
        number, record = numbered
        where = f"{path}:{number}"
        key = "docid" if "docid" in record and "id" not in record else "id"
        return get_id(record, key, where), get_lang(record, where), _vector(record, where)

    rows = faults.convert(read_objects(path, faults), row)
    while some := list(islice(rows, _ROWS)):
        dimension = len(some[0][2])
        for docid, _, vector in some:
            if len(vector) != dimension:
                faults.add(
                    f"{path}: the vector of {docid} has {len(vector)} dimensions, the first one "
                    f"{dimension}: all must have the same number"
                )
        docids, langs, vectors = zip(*(found for found in some if len(found[2]) == dimension), strict=True)
        yield VectorBatch(list(docids), list(langs), np.asarray(vectors, dtype=np.float32))


def _vector(record: dict[str, Any], where: str) -> list[float]:
    vector = record.get("vector")
    if (
        not isinstance(vector, list)
        or not vector
        or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in vector)
    ):
        raise DataError(f"{where}: 'vector' is no list of numbers, expected one number per dimension")
    # Compared without conversion: Python refuses to make a float of a huge integer.
    if not all(-_LARGEST <= value <= _LARGEST for value in vector):
        raise DataError(
            f"{where}: the vector holds NaN, infinity, or a number beyond float32: encode the document again"
        )
    return vector


def read_npy(path: Path, faults: Problems) -> Iterator[VectorBatch]:
    """Reads an array of floats (documents, dimension), mapped from disk, and one docid per line."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        # NumPy parses the header as Python, so a corrupted one can raise anything.
        reason = " ".join(str(error).split())
        faults.add(f"{path}: cannot be read ({reason}), expected an array as numpy.save writes it")
        return
    if array.ndim != 2 or array.dtype.kind != "f":
        faults.add(
            f"{path}: {array.dtype} of {array.ndim} axes, expected an array of floats (documents, dimension)"
        )
        return
    beside = path.with_suffix(".docid")
    if not beside.is_file():
        faults.add(f"{path}: {beside.name} is missing beside it, expected one docid per line")
        return
    languages = path.with_suffix(".lang")
    docids = faults.convert(
        read_lines(beside, faults), lambda numbered: check_id(numbered[1], f"{beside}:{numbered[0]}")
    )
    langs = (line for _, line in read_lines(languages, faults)) if languages.is_file() else None
    for start in range(0, len(array), _ROWS):
        vectors = np.asarray(array[start : start + _ROWS], dtype=np.float32)
        names = list(islice(docids, len(vectors)))
        spoken = [""] * len(vectors) if langs is None else list(islice(langs, len(vectors)))
        if len(names) < len(vectors) or len(spoken) < len(vectors):
            short = beside if len(names) < len(vectors) else languages
            faults.add(f"{short}: fewer lines than {path.name} has vectors ({len(array)}), expected one each")
            return
        with faults.collect():
            _check_finite(vectors, path, start)
        yield VectorBatch(names, spoken, vectors)
    if next(docids, None) is not None:
        faults.add(f"{beside}: more lines than {path.name} has vectors ({len(array)}), expected one each")


_DOCID, _VECTOR, _LANG = (
    ("docid", "id", "_id", "doc_id"),
    ("vector", "embedding", "emb"),
    ("lang", "language"),
)


def read_parquet(path: Path, faults: Problems) -> Iterator[VectorBatch]:
    """Reads the columns docid (or id, _id, doc_id), vector (or embedding, emb) and, if present, lang."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            docid, vector, lang = (
                next((name for name in wanted if name in names), None) for wanted in (_DOCID, _VECTOR, _LANG)
            )
            if docid is None or vector is None:
                faults.add(
                    f"{path}: columns {', '.join(names)}, expected one of {', '.join(_DOCID)} and one of "
                    f"{', '.join(_VECTOR)}"
                )
                return
            columns = [name for name in (docid, vector, lang) if name is not None]
            start = 0
            for rows in file.iter_batches(batch_size=_ROWS, columns=columns):
                docids = _texts(rows.column(docid), docid, path)
                for row, value in enumerate(docids, start=start):
                    check_id(value, f"{path}: {docid} of row {row}")
                langs = [""] * len(docids) if lang is None else _texts(rows.column(lang), lang, path)
                yield VectorBatch(docids, langs, _matrix(rows.column(vector), path, start))
                start += len(docids)
    except (pa.ArrowException, OSError, ValueError) as error:
        faults.add(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())}): write it again")
    except DataError as error:
        faults.add(str(error))


def _texts(column: Any, name: str, path: Path) -> list[str]:
    values: list[Any] = column.to_pylist()
    if not all(isinstance(value, str) for value in values):
        raise DataError(f"{path}: column {name} holds values other than text, expected a text in every row")
    return values


def _matrix(column: Any, path: Path, start: int) -> np.ndarray:
    """The vectors of a list column, float32 (rows, dimension)."""
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise DataError(f"{path}: the vectors are of type {kind}, expected lists of floats")
    flat = column.flatten()
    if column.null_count or flat.null_count or not pa.types.is_floating(flat.type) or len(flat) % len(column):
        raise DataError(
            f"{path}: rows from {start} on hold no vector, or vectors of different lengths, expected the "
            "same number of floats in every row"
        )
    if not pa.types.is_fixed_size_list(kind) and len(set(column.value_lengths().to_pylist())) > 1:
        raise DataError(f"{path}: vectors of different lengths from row {start} on, expected one length")
    vectors: np.ndarray = (
        flat.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(len(column), -1)
    )
    _check_finite(vectors, path, start)
    return vectors


def _check_finite(vectors: np.ndarray, path: Path, start: int) -> None:
    """Raises a DataError for NaN and infinity; `start` is the first vector's number in its file."""
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise DataError(f"{path}: vector {start + wrong[0]} holds NaN or infinity: encode the document again")


Reader = Callable[[Path, Problems], Iterator[VectorBatch]]

# Ending of a file's name -> its reader.
READERS: dict[str, Reader] = {
    ".npy": read_npy,
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl,
    ".parquet": read_parquet,
}


def reader_of(path: Path) -> Reader:
    """Raises a UsageError for a missing file, or one of an unknown kind."""
    if not path.is_file():
        raise UsageError(f"--import {path}: no such file; {', '.join(READERS)} was expected")
    for ending, reader in READERS.items():
        if path.name.endswith(ending):
            return reader
    raise UsageError(f"--import {path}: a file that ends in {', '.join(READERS)} was expected")


class Foreign:
    """Vector files as one sequence, and as a collection without texts.

    Attributes:
        dimension: of all vectors; 0 before `docs_iter` was read.

    Args:
        lang: language of documents whose file names none.
    """

    def __init__(self, files: Sequence[Path], lang: str = "") -> None:
        self.files = files
        self.dimension = 0
        self._readers = [reader_of(path) for path in files]
        self._lang = lang

    def batches(self) -> Iterator[VectorBatch]:
        """Yields all documents in order; raises a DataError with the faults of all files at its end."""
        with Problems(stop=True) as faults:
            for path, reader in zip(self.files, self._readers, strict=True):
                for batch in reader(path, faults):
                    yield batch._replace(langs=[lang or self._lang for lang in batch.langs])

    def docs_iter(self) -> Iterator[Doc]:
        for batch in self.batches():
            dimension = batch.vectors.shape[1]
            if self.dimension and dimension != self.dimension:
                raise DataError(
                    f"vectors of {dimension} and of {self.dimension} dimensions (at docid "
                    f"{batch.docids[0]!r}), expected those of one encoder: import them separately"
                )
            self.dimension = dimension
            for docid, lang in zip(batch.docids, batch.langs, strict=True):
                yield Doc(docid, "", lang)


def import_vectors(
    files: Sequence[Path],
    output: Path,
    options: EncodeOptions | None = None,
    *,
    encoder: str | None = None,
    encoder_options: EncoderOptions | None = None,
    lang: str = "",
) -> Encoded:
    """Imports vectors from `.npy`, `.jsonl` and `.parquet` files into a directory of vectors.

    The files are read twice, so that faults show before anything is written.

    Args:
        encoder: the checkpoint that made them, for later searches; None is unknown.
        lang: language of documents whose file names none.

    Raises:
        ArtifactError: the output directory holds something else.
        DataError: a file is corrupted, a docid is repeated, or vectors differ in dimension or hold NaN.
        EnvironmentProblem: the disk is full, or the file system refuses.
        UsageError: a file is missing, or of an unknown kind.
    """
    options = options or EncodeOptions()
    directory = Artifact(output, VECTORS)
    problems = Problems()
    for path in files:
        with problems.collect():
            reader_of(path)
    with problems.collect():
        directory.check_output()
    if encoder is not None:
        with problems.collect():
            check_checkpoint(encoder)
    problems.raise_any()
    foreign = Foreign(files, lang)
    found = survey(foreign, identical=False, progress=options.progress)
    loaded = None if encoder is None else Encoder(encoder, encoder_options)
    if loaded is not None and loaded.dimension != foreign.dimension:
        raise DataError(
            f"the vectors have {foreign.dimension} dimensions and {loaded.name} gives {loaded.dimension}: "
            "name the --encoder that made them, or leave it out"
        )
    plan = foreign_plan(
        tuple(path.name for path in files),
        hashlib.sha256("\n".join(map(sha256, files)).encode()).hexdigest(),
        found.documents,
        foreign.dimension,
        options.shard_size,
        loaded,
    )
    with (
        directory.held(),
        bar(total=plan.documents, what="importing", unit="docs", enabled=options.progress) as counter,
    ):
        begun = begin_vectors(directory, plan, options.resume)
        wanted = set(begun.missing)
        for shard, batch in enumerate(rebatched(foreign.batches(), options.shard_size) if wanted else ()):
            if shard in wanted:
                begun.shards.write(shard, batch)
            counter.update(len(batch.docids))
        return finish_vectors(directory, plan, begun)


def rebatched(batches: Iterator[VectorBatch], size: int) -> Iterator[VectorBatch]:
    """The same documents in batches of `size`, the last one smaller."""

    def joined() -> VectorBatch:
        return VectorBatch(
            [docid for batch in held for docid in batch.docids],
            [lang for batch in held for lang in batch.langs],
            np.concatenate([batch.vectors for batch in held]),
        )

    held: list[VectorBatch] = []
    for batch in batches:
        held.append(batch)
        while sum(len(one.docids) for one in held) >= size:
            every = joined()
            yield every.rows(0, size)
            held = [every.rows(size, len(every.docids))]
    if any(one.docids for one in held):
        yield joined()
