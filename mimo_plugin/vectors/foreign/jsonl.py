"""JSON Lines as `pyserini.encode` writes them: `{"id": ..., "contents": ..., "vector": [...]}` a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mimo_plugin.collections.faults import Faults
from mimo_plugin.collections.jsonlines import get_id, get_lang, read_objects
from mimo_plugin.errors import DataError
from mimo_plugin.vectors.shards import VectorBatch

_ROWS = 1024
# Of float32.
_LARGEST = 3.4028234663852886e38


def read_jsonl(path: Path, faults: Faults) -> Iterator[VectorBatch]:
    """Reads `id` (or `docid`, as Anserini has it), `vector` and, where there is one, `lang`."""
    import numpy as np

    docids: list[str] = []
    langs: list[str] = []
    rows: list[list[float]] = []

    def row(numbered: tuple[int, dict[str, Any]]) -> tuple[str, str, list[float]]:
        number, record = numbered
        where = f"{path}:{number}"
        key = "docid" if "docid" in record and "id" not in record else "id"
        return get_id(record, key, where), get_lang(record, where), _vector(record, where)

    for docid, lang, vector in faults.convert(read_objects(path, faults), row):
        if rows and len(vector) != len(rows[0]):
            faults.add(
                f"{path}: the vector of {docid} has {len(vector)} dimensions, the one before it "
                f"{len(rows[0])}: all must have as many"
            )
            continue
        docids.append(docid)
        langs.append(lang)
        rows.append(vector)
        if len(rows) == _ROWS:
            yield VectorBatch(docids, langs, np.asarray(rows, dtype=np.float32))
            docids, langs, rows = [], [], []
    if rows:
        yield VectorBatch(docids, langs, np.asarray(rows, dtype=np.float32))


def _vector(record: dict[str, Any], where: str) -> list[float]:
    vector = record.get("vector")
    if (
        not isinstance(vector, list)
        or not vector
        or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in vector)
    ):
        raise DataError(f"{where}: 'vector' is no list of numbers, expected one number a dimension")
    # Compared as they are: Python refuses to make a float of a huge integer, NumPy makes infinity of it.
    if not all(-_LARGEST <= value <= _LARGEST for value in vector):
        raise DataError(
            f"{where}: the vector holds NaN, infinity, or a number beyond float32: encode the document again"
        )
    return vector
