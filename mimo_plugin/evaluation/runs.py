"""TREC runs in memory, and written to a file, in trec_eval's order."""

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mimo_plugin.errors import DataError
from mimo_plugin.files import make_parent, replacing


class Ranking(NamedTuple):
    """The hits of one query in trec_eval's order.

    docids: (n,) bytes, UTF-8 (a fixed-width array: a tenth of the memory of as many `str`).
    scores: (n,) float32, not increasing.
    """

    docids: NDArray[np.bytes_]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Run:
    """A named run: query id -> its hits."""

    name: str
    queries: Mapping[str, Ranking]

    @classmethod
    def from_hits(cls, name: str, hits: Mapping[str, Mapping[str, float]]) -> "Run":
        """Makes a run of query id -> docid -> score."""
        return cls(
            name, {qid: ranking(list(docs), list(docs.values())) for qid, docs in hits.items() if docs}
        )


def trec_order(docids: NDArray[np.bytes_], scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """The permutation that puts hits into trec_eval's order: score as float32, then docid, both
    descending.

    trec_eval compares docids with `strcmp`, that is by their UTF-8 bytes. Ranks in the file play no part.
    """
    if np.all(scores[:-1] > scores[1:]):
        return np.arange(len(scores))
    return np.lexsort((docids, scores))[::-1]


def ranking(docids: Sequence[str], scores: ArrayLike) -> Ranking:
    """Sorts the hits of one query into trec_eval's order."""
    encoded = np.array([docid.encode() for docid in docids], dtype=np.bytes_)
    values = np.asarray(scores, dtype=np.float32)
    order = trec_order(encoded, values)
    return Ranking(encoded[order], values[order])


def write_run(path: Path, items: Iterable[tuple[str, Sequence[str], ArrayLike]], tag: str) -> int:
    """Writes a TREC run query by query and returns the number of its lines.

    Each item is (query id, docids, scores) in any order of hits; six columns are written, ranks from 1 in
    trec_eval's order, scores with nine significant digits, which give every float32 back exactly. The
    file appears under its name when it is complete; `.gz` is compressed.

    Raises `DataError` for ids or a tag that are empty or hold white space, scores that are not finite, a
    docid twice in a query or a query twice, and `EnvironmentProblem` when the file cannot be written.
    """
    _check_token("run tag", tag)
    lines = 0
    seen: set[str] = set()
    with _open(Path(path)) as stream:
        for query_id, docids, scores in items:
            _check_token("query id", query_id)
            if query_id in seen:
                raise DataError(f"query {query_id!r} comes twice, expected once: a run has one list a query")
            seen.add(query_id)
            ordered, values = _checked_hits(query_id, docids, scores)
            stream.write(_lines(query_id, ordered, values, tag))
            lines += len(ordered)
    return lines


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    make_parent(path)
    with replacing(path) as beside, beside.open("wb") as raw:
        if path.suffix == ".gz":
            # No name and no time in the header: the same run gives the same bytes.
            with (
                gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
                TextIOWrapper(packed, encoding="utf-8", newline="\n") as stream,
            ):
                yield stream
        else:
            with TextIOWrapper(raw, encoding="utf-8", newline="\n") as stream:
                yield stream


def _lines(query_id: str, docids: Sequence[str], scores: NDArray[np.float32], tag: str) -> str:
    # One format for all lines of a query takes half the time of one format a line.
    values: list[object] = [query_id, "", 0.0] * len(docids)
    values[1::3] = docids
    values[2::3] = scores.tolist()
    return _format(len(docids), tag) % tuple(values)


@lru_cache(maxsize=16)
def _format(hits: int, tag: str) -> str:
    tag = tag.replace("%", "%%")
    return "".join(f"%s Q0 %s {rank} %.9g {tag}\n" for rank in range(1, hits + 1))


def _checked_hits(
    query_id: str, docids: Sequence[str], scores: ArrayLike
) -> tuple[Sequence[str], NDArray[np.float32]]:
    """Docids and scores in trec_eval's order."""
    together = "\n".join(docids)
    if together.split() != list(docids) or "\0" in together:
        for docid in docids:
            _check_token(f"docid of query {query_id!r}", docid)
    if len(set(docids)) != len(docids):
        twice = next(docid for position, docid in enumerate(docids) if docid in docids[:position])
        raise DataError(f"query {query_id!r} has docid {twice!r} twice, expected each document once")
    values = np.asarray(scores, dtype=np.float32)
    if values.shape != (len(docids),):
        raise DataError(f"query {query_id!r} has {len(docids)} docids and scores of shape {values.shape}")
    if not np.all(np.isfinite(values)):
        raise DataError(
            f"query {query_id!r} has a score that is not finite: the encoder's vectors are unusable"
        )
    if np.all(values[:-1] > values[1:]):
        return docids, values
    order = trec_order(np.array([docid.encode() for docid in docids], dtype=np.bytes_), values)
    return [docids[place] for place in order.tolist()], values[order]


def _check_token(what: str, text: str) -> None:
    if not text or text.split() != [text] or "\0" in text:
        raise DataError(
            f"{what} {text!r}, expected at least one character and no white space: a TREC run is split there"
        )
