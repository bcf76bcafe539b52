"""Exact and approximate nearest neighbours, with ties in trec_eval's order."""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.core.errors import ArtifactError, UsageError
from mimo_plugin.evaluation.runs import Ranking, ranking
from mimo_plugin.indexing.faiss import choosing, matrix_products, reason

if TYPE_CHECKING:
    import pyarrow as pa

# Documents searched beyond those asked for, so that ties at the last place rarely need a second search.
_SPARE = 16
# Factor of the next search's size, and the size at which it ends, as a multiple of the hits. Then flat
# indexes are scored completely, and other indexes keep the tie as FAISS cut it.
_FURTHER, _FURTHEST = 8, 64
# Documents of a flat index that are scored at a time.
_BLOCK = 1 << 16
# Maximum number of scores in memory.
_AT_ONCE = 1 << 22


class Docids(Protocol):
    """Docids by position."""

    def take(self, numbers: np.ndarray) -> list[str]:
        """The docids at these positions, int64 (n,), in that order."""


class Listed(list[str]):
    """Docids in memory."""

    def take(self, numbers: np.ndarray) -> list[str]:
        return [self[number] for number in numbers.tolist()]

    def find(self, docids: Sequence[str]) -> np.ndarray:
        """The positions of docids, int64 (n,); -1 for those that are not here."""
        places = {docid: number for number, docid in enumerate(self)}
        return np.array([places.get(docid, -1) for docid in docids], dtype=np.int64)


class Lines:
    """The lines of a text file by number, such as docids, mapped from disk: 8 bytes of memory per line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> str:
        return self.between(number, number + 1)[0]

    def between(self, start: int, stop: int) -> list[str]:
        """The lines from `start` up to, not including, `stop`."""
        return _split(self._bytes[int(self._starts[start]) : int(self._starts[stop])])

    def take(self, numbers: np.ndarray) -> list[str]:
        """The lines with these numbers, int64 (n,), in that order."""
        import pyarrow as pa

        content = self._table.take(pa.array(numbers)).buffers()[2]
        return [] if content is None else _split(content.to_pybytes())

    def find(self, lines: Sequence[str]) -> np.ndarray:
        """The numbers of lines, int64 (n,), in the order of `lines`; -1 for what is no line."""
        found: np.ndarray = np.full(len(lines), -1, dtype=np.int64)
        places = self._places(lines)
        numbers = np.flatnonzero(places >= 0)
        found[places[numbers]] = numbers
        return found

    def among(self, lines: Sequence[str]) -> np.ndarray:
        """Whether each line of the file is one of `lines`, bool (len(self),)."""
        return self._places(lines) >= 0

    def _places(self, lines: Sequence[str]) -> np.ndarray:
        """The place of each line of the file in `lines`, which differ; -1 for what is not there."""
        import pyarrow as pa
        from pyarrow import compute

        wanted = pa.array([f"{line}\n".encode() for line in lines], pa.large_binary())
        places: np.ndarray = compute.index_in(self._table, value_set=wanted).fill_null(-1).to_numpy()
        return places

    @cached_property
    def _bytes(self) -> mmap.mmap:
        with self._path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def _starts(self) -> np.ndarray:
        """The start of each line and the end of the last one, int64 (lines + 1,)."""
        piece = 1 << 24
        ends = [
            np.flatnonzero(np.frombuffer(self._bytes[at : at + piece], dtype=np.uint8) == ord("\n")) + at
            for at in range(0, len(self._bytes), piece)
        ]
        return np.concatenate([np.zeros(1, dtype=np.int64), *(part + 1 for part in ends)])

    @cached_property
    def _table(self) -> "pa.LargeBinaryArray":
        import pyarrow as pa

        buffers = [None, pa.py_buffer(self._starts), pa.py_buffer(self._bytes)]
        return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), buffers)


def _split(lines: bytes) -> list[str]:
    return lines.decode("utf-8").split("\n")[:-1]


class Ranked(NamedTuple):
    """Documents of several queries, best first.

    Attributes:
        scores: float32 (queries, documents); -inf without a document.
        rows: int64 (queries, documents), positions counted through all indexes; -1 without a document.
        floor: (queries,), upper bound of the scores of all other documents.
        told: docids by row, of indexes that have no `docids`.
    """

    scores: np.ndarray
    rows: np.ndarray
    floor: np.ndarray
    told: Mapping[int, str] = {}


class Part(Protocol):
    """An index among those that are searched as one; its documents are rows, counted from 0."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def rows(self) -> int:
        """Number of all documents."""

    @property
    def documents(self) -> int:
        """Number of documents that may be hits, at least one."""

    def best(self, vectors: np.ndarray, reach: int) -> Ranked:
        """The best `reach` documents, or fewer if the index finds no more."""

    @property
    def docids(self) -> Docids | None:
        """By row; None where `best` tells them."""


@dataclass(frozen=True)
class Searchable:
    """A FAISS index with its docids.

    Attributes:
        chosen: the documents that may be hits, bool (documents,), at least one; None is all.
    """

    name: str
    faiss: Any
    docids: Docids
    chosen: np.ndarray | None = None

    @property
    def rows(self) -> int:
        return int(self.faiss.ntotal)

    @property
    def documents(self) -> int:
        return self.rows if self.chosen is None else int(np.count_nonzero(self.chosen))

    @property
    def flat(self) -> bool:
        import faiss

        return isinstance(self.faiss, faiss.IndexFlat)

    def best(self, vectors: np.ndarray, reach: int) -> Ranked:
        """Raises a UsageError where FAISS refuses the search parameters."""
        try:
            with matrix_products():
                scores, rows = self.faiss.search(vectors, reach, params=self._parameters)
        except RuntimeError as error:
            if self._parameters is not None:
                raise UsageError(
                    f"FAISS cannot search some documents of this kind of index only: {reason(error)}; leave "
                    "--lang out, or build a flat, fp16, sq8, hnsw or IVF index"
                ) from error
            raise UsageError(
                f"FAISS refuses to search: {reason(error)}; check --search-parameters"
            ) from error
        # FAISS fills missing documents with row -1.
        scores[rows < 0] = -np.inf
        rounding: Any = 0.0
        if self.flat:
            again = self.scores(vectors, rows)
            # Bounds the rounding error of matrix products for the documents that were left out.
            rounding = 4 * np.abs(again - scores).max(initial=0)
            scores, rows = descending(again, rows)
        floor = scores[:, -1] + rounding
        if reach >= self.documents:
            floor[:] = -np.inf
        return Ranked(scores, rows, floor)

    def scores(self, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Exact inner products of queries and documents of a flat index, (queries, documents)."""
        return inner_products(vectors, self.faiss.get_xb(), rows)

    @cached_property
    def _parameters(self) -> Any:
        """See `faiss.choosing`; None searches all documents."""
        return None if self.chosen is None else choosing(self.faiss, self.chosen)


class Found(NamedTuple):
    """The documents that were asked for; `scores`, `rows` and `told` as in `Ranked`.

    Attributes:
        cut: bool (queries,), whether other documents may have the last one's score and a better docid.
    """

    scores: np.ndarray
    rows: np.ndarray
    cut: np.ndarray
    told: Mapping[int, str] = {}


class Nearest:
    """Searches one or more indexes of comparable vectors as one."""

    def __init__(self, indexes: Sequence[Part]) -> None:
        self._indexes = list(indexes)
        self._starts: np.ndarray = np.cumsum([0, *(index.rows for index in indexes)])
        self._counts = [index.documents for index in indexes]
        self._documents = sum(self._counts)
        flat = [index for index in indexes if isinstance(index, Searchable) and index.flat]
        # Of flat indexes every document can be scored; empty where some index is not.
        self._flat = flat if len(flat) == len(self._indexes) else []

    def search(self, vectors: np.ndarray, hits: int) -> Found:
        """Each query's nearest documents, in no fixed order of ties.

        Args:
            vectors: float32 (queries, dimension).
            hits: maximum number of documents per query; approximate indexes may find fewer.

        Raises:
            UsageError: FAISS refuses the search parameters.
        """
        hits = min(hits, self._documents)
        return self._best(vectors, hits, hits + _SPARE)

    def named(self, found: Found) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yields the docids and scores, float32, of each query."""
        scores, rows = found.scores, found.rows
        there = rows >= 0
        counts = there.sum(axis=1)
        docids = self._docids_of(rows.ravel() if there.all() else rows[there], found.told)
        start = 0
        for query, count in enumerate(counts.tolist()):
            mine = docids[start : start + count]
            if len(self._indexes) > 1 and len(set(mine)) < count:
                self._raise_twice(mine, rows[query])
            yield mine, scores[query, :count]
            start += count

    def _best(self, vectors: np.ndarray, hits: int, reach: int) -> Found:
        """As `search`. reach: number of documents to get from each index first; ties can need more."""
        reach = min(reach, self._documents)
        scores: np.ndarray = np.empty((len(vectors), hits), dtype=np.float32)
        rows: np.ndarray = np.empty((len(vectors), hits), dtype=np.int64)
        cut: np.ndarray = np.zeros(len(vectors), dtype=bool)
        told: dict[int, str] = {}
        step = max(_AT_ONCE // reach, 1)
        for start in range(0, len(vectors), step):
            some = vectors[start : start + step]
            ranked = self._ranked(some, reach)
            told |= ranked.told
            last = ranked.scores[:, hits - 1]
            unsettled = (last <= ranked.floor) & (ranked.rows[:, hits - 1] >= 0)
            if reach >= _FURTHEST * hits and not self._flat:
                cut[start : start + step] = unsettled
                unsettled[:] = False
            self._break_ties(ranked, ~unsettled, hits)
            scores[start : start + step] = ranked.scores[:, :hits]
            rows[start : start + step] = ranked.rows[:, :hits]
            again = np.flatnonzero(unsettled)
            if reach >= _FURTHEST * hits:
                for query in again:
                    scores[start + query], rows[start + query] = self._read_through(
                        some[query : query + 1], hits, last[query]
                    )
            elif len(again):
                scores[start + again], rows[start + again], cut[start + again], more = self._best(
                    some[again], hits, _FURTHER * reach
                )
                told |= more
        return Found(scores, rows, cut, told)

    def _read_through(
        self, vector: np.ndarray, hits: int, least: np.floating[Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores all documents of flat indexes; returns the scores and rows, (hits,), of the best ones.

        Args:
            vector: (1, dimension).
            least: a lower bound of the last hit's score.
        """
        order = self._docid_order
        best: np.ndarray = np.empty(0, dtype=np.float32)
        rows: np.ndarray = np.empty(0, dtype=np.int64)
        lowest = -1
        for index, start in zip(self._flat, self._starts.tolist(), strict=False):
            for first in range(0, index.rows, _BLOCK):
                block: np.ndarray = np.arange(first, min(first + _BLOCK, index.rows))
                scores = index.scores(vector, block[None])[0]
                block += start
                better = (scores > least) | ((scores == least) & (order[block] > lowest))
                if index.chosen is not None:
                    better &= index.chosen[block - start]
                best, rows = np.append(best, scores[better]), np.append(rows, block[better])
                ranks = np.lexsort((-order[rows], -best))[:hits]
                best, rows = best[ranks], rows[ranks]
                if len(rows) == hits:
                    least, lowest = best[-1], order[rows[-1]]
        return best, rows

    @cached_property
    def _docid_order(self) -> np.ndarray:
        """The rank of each document in the order of docids, int64 (documents,)."""
        every: np.ndarray = np.arange(self._starts[-1])
        names: np.ndarray = np.array([docid.encode() for docid in self._docids_of(every, {})])
        order: np.ndarray = np.empty(len(names), dtype=np.int64)
        order[np.argsort(names, kind="stable")] = every
        return order

    def _ranked(self, vectors: np.ndarray, reach: int) -> Ranked:
        """The best `reach` documents of each index, merged."""
        parts = [
            _shifted(index.best(vectors, min(reach, count)), start)
            for index, start, count in zip(self._indexes, self._starts.tolist(), self._counts, strict=False)
        ]
        if len(parts) == 1:
            return parts[0]
        scores, rows = descending(
            *(np.concatenate([part[field] for part in parts], axis=1) for field in (0, 1))
        )
        floor: np.ndarray = np.max([part.floor for part in parts], axis=0)
        return Ranked(scores, rows, floor, {row: docid for part in parts for row, docid in part.told.items()})

    def _break_ties(self, ranked: Ranked, settled: np.ndarray, hits: int) -> None:
        """Sorts ties at the last place by docid, as trec_eval does."""
        scores, rows = ranked.scores, ranked.rows
        if scores.shape[1] == hits:
            return
        tied = settled & (scores[:, hits - 1] == scores[:, hits]) & (rows[:, hits] >= 0)
        for query in np.flatnonzero(tied):
            places = np.flatnonzero(scores[query] == scores[query, hits - 1])
            names = [name.encode() for name in self._docids_of(rows[query, places], ranked.told)]
            order = sorted(range(len(names)), key=names.__getitem__, reverse=True)
            rows[query, places] = rows[query, places[order]]

    def _docids_of(self, rows: np.ndarray, told: Mapping[int, str]) -> list[str]:
        if len(self._indexes) == 1:
            return self._docids_in(0, rows, told)
        names: np.ndarray = np.empty(len(rows), dtype=object)
        home = self._home(rows)
        for number in range(len(self._indexes)):
            mine = home == number
            names[mine] = self._docids_in(number, rows[mine], told)
        return list(names.tolist())

    def _docids_in(self, number: int, rows: np.ndarray, told: Mapping[int, str]) -> list[str]:
        """The docids of rows that are all in one index."""
        docids = self._indexes[number].docids
        if docids is None:
            return [told[row] for row in rows.tolist()]
        return docids.take(rows - self._starts[number])

    def _home(self, rows: np.ndarray) -> np.ndarray:
        """The position of each document's index in the list."""
        found: np.ndarray = np.searchsorted(self._starts, rows, side="right") - 1
        return found

    def _raise_twice(self, docids: list[str], rows: np.ndarray) -> None:
        twice = next(docid for place, docid in enumerate(docids) if docid in docids[:place])
        places = [place for place, docid in enumerate(docids) if docid == twice]
        one, other = (self._indexes[home].name for home in self._home(rows[places[:2]]))
        raise ArtifactError(
            f"docid {twice!r} is in {one} and in {other}, expected each document in one index: leave one "
            "out, or make them with --pooled, which puts the language before it"
        )


@contextmanager
def searching_thread() -> Iterator[ThreadPoolExecutor]:
    """A thread for searches, with as many FAISS threads as the caller's."""
    import faiss

    # FAISS's number of threads is a setting of each calling thread.
    with ThreadPoolExecutor(1, "search", faiss.omp_set_num_threads, (faiss.omp_get_max_threads(),)) as pool:
        yield pool


def _shifted(ranked: Ranked, start: int) -> Ranked:
    """The same with rows counted from `start`."""
    if not start:
        return ranked
    ranked.rows[ranked.rows >= 0] += start
    return ranked._replace(told={row + start: docid for row, docid in ranked.told.items()})


def descending(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and rows, (queries, documents), best first; ties keep their order."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)


def inner_products(vectors: np.ndarray, documents: Any, rows: np.ndarray) -> np.ndarray:
    """Inner products as FAISS computes them pair by pair, float32, in the shape of `rows`.

    Args:
        vectors: (queries, dimension).
        documents: FAISS's pointer to contiguous float32 vectors of that dimension.
        rows: which of them, int64 (queries, n); -1 gives -inf.
    """
    import faiss

    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    rows = np.ascontiguousarray(rows)
    scores: np.ndarray = np.full(rows.shape, -np.inf, dtype=np.float32)
    faiss.fvec_inner_products_by_idx(
        faiss.swig_ptr(scores),
        faiss.swig_ptr(vectors),
        documents,
        faiss.swig_ptr(rows),
        vectors.shape[1],
        *rows.shape,
    )
    return scores


def nearest(
    query_ids: Sequence[str],
    queries: NDArray[np.float32],
    docids: Sequence[str],
    documents: NDArray[np.float32],
    hits: int,
) -> dict[str, Ranking]:
    """For each query the `hits` documents with the largest inner products.

    Args:
        query_ids, queries: (m,) and (m, d).
        docids, documents: (n,) and (n, d), n at least 1.
    """
    import faiss

    index = faiss.IndexFlatIP(documents.shape[1])
    index.add(documents)
    search = Nearest([Searchable("vectors in memory", index, Listed(docids))])
    found = search.named(search.search(queries, hits))
    return {query_id: ranking(*hit) for query_id, hit in zip(query_ids, found, strict=True)}
