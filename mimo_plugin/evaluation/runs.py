"""TREC runs: read with the line of each fault, sorted in trec_eval's order, written."""

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from io import TextIOWrapper
from itertools import pairwise
from operator import ne
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TextIO, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mimo_plugin.core.errors import DataError, Problems
from mimo_plugin.core.files import make_parent, replacing
from mimo_plugin.evaluation.ir_metadata import skip_header

if TYPE_CHECKING:
    import pandas
    import ranx


class Ranking(NamedTuple):
    """The hits of one query in trec_eval's order.

    docids: (n,) bytes, UTF-8 (a fixed-width array: a tenth of the memory of as many `str`).
    scores: (n,) float32, not increasing.
    """

    docids: NDArray[np.bytes_]
    scores: NDArray[np.float32]


@dataclass(frozen=True, repr=False, eq=False)
class Run(Mapping[str, dict[str, float]]):
    """A named run: a mapping from query id to the scores of its hits, best first.

    >>> run = Run.of({"q1": {"d1": 0.5, "d2": 2}}, "e5")
    >>> run["q1"]
    {'d2': 2.0, 'd1': 0.5}

    Attributes:
        queries: the same hits as arrays.
    """

    name: str
    queries: Mapping[str, Ranking]

    def __getitem__(self, query_id: str) -> dict[str, float]:
        docids, scores = self.queries[query_id]
        return dict(zip((docid.decode() for docid in docids.tolist()), scores.tolist(), strict=True))

    def __iter__(self) -> Iterator[str]:
        return iter(self.queries)

    def __len__(self) -> int:
        return len(self.queries)

    @classmethod
    def of(cls, source: Any, name: str | None = None) -> "Run":
        """Makes a run from anything that holds one.

        Args:
            source: query id -> docid -> score, a DataFrame with such columns, a run of ranx, a `Run`, or the
                path of a TREC file.
            name: by default that of a file or a `Run`, else "run".

        Raises:
            DataError: it is not a run, or has an id or a score that a TREC file cannot hold.
        """
        if isinstance(source, str | Path):
            return cls.read(source, name)
        if isinstance(source, Run):
            return cls(name or source.name, source.queries)
        hits = nested(source, "score")
        for query_id, scores in hits.items():
            _check_token("query id", query_id)
            _checked_hits(query_id, list(scores), list(scores.values()))
        return cls.from_hits(name or "run", hits)

    @classmethod
    def from_hits(cls, name: str, hits: Mapping[str, Mapping[str, float]]) -> "Run":
        """Makes a run from query id -> docid -> score, unchecked."""
        return cls(
            name, {qid: ranking(list(docs), list(docs.values())) for qid, docs in hits.items() if docs}
        )

    @classmethod
    def read(cls, path: str | Path, name: str | None = None) -> "Run":
        """Reads a TREC run, see `read_run`. name: by default the file's, without suffixes."""
        return read_run(Path(path), name or _name_of(Path(path)))

    def save(self, path: str | Path, tag: str | None = None) -> int:
        """Writes a TREC run, see `write_run`, and returns its number of lines. tag: by default the name."""
        return write_run(Path(path), decoded(self.queries.items()), tag or self.name)

    def to_frame(self) -> "pandas.DataFrame":
        """A row per hit: query_id, doc_id, score, rank from 1."""
        import pandas

        rows = [
            (query_id, docid, score, rank)
            for query_id, hits in self.items()
            for rank, (docid, score) in enumerate(hits.items(), start=1)
        ]
        return pandas.DataFrame(rows, columns=["query_id", "doc_id", "score", "rank"])

    def to_ranx(self) -> "ranx.Run":
        """The run as a `ranx.Run`."""
        import ranx

        return ranx.Run(dict(self), name=self.name)

    def __repr__(self) -> str:
        return (
            f"run {self.name!r}, {len(self)} queries\n{self.to_frame().to_string(max_rows=10, index=False)}"
        )

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(max_rows=10, index=False))


# What ir_datasets, ir_measures, ranx and PyTerrier call the columns.
_FRAME_COLUMNS = {
    "query id": ("query_id", "q_id", "qid"),
    "docid": ("doc_id", "docno", "docid"),
    "score": ("score",),
    "relevance": ("relevance", "label", "rel", "score"),
}


def nested(source: Any, value: str) -> dict[str, dict[str, Any]]:
    """Query id -> docid -> value, from such a mapping, a DataFrame, or ranx's run or qrels.

    Args:
        value: "score" or "relevance".

    Raises:
        DataError: it is none of these, or a query has a document twice.
    """
    if hasattr(source, "columns"):
        return _of_frame(source, value)
    found = source if isinstance(source, Mapping) or not hasattr(source, "to_dict") else source.to_dict()
    if not isinstance(found, Mapping) or not all(isinstance(inner, Mapping) for inner in found.values()):
        raise DataError(
            f"found {type(source).__name__}, expected query id -> docid -> {value}, a DataFrame or a file"
        )
    return {
        str(query_id): {str(docid): number for docid, number in inner.items()}
        for query_id, inner in found.items()
    }


def _of_frame(frame: Any, value: str) -> dict[str, dict[str, Any]]:
    names = []
    for what in ("query id", "docid", value):
        offered = _FRAME_COLUMNS[what]
        names += [name for name in offered if name in frame.columns][:1]
        if not names or names[-1] not in offered:
            shown = ", ".join(map(str, frame.columns))
            raise DataError(f"no {what} among the columns {shown}; expected {' or '.join(offered)}")
    found: dict[str, dict[str, Any]] = {}
    for query_id, docid, number in frame[names].itertuples(index=False):
        inner = found.setdefault(str(query_id), {})
        if str(docid) in inner:
            raise DataError(f"query {query_id!r} has docid {docid!r} twice, expected each document once")
        inner[str(docid)] = number
    return found


def decoded(
    rankings: Iterable[tuple[str, Ranking]],
) -> Iterator[tuple[str, list[str], NDArray[np.float32]]]:
    """Query ids and rankings as `write_run` takes them."""
    for query_id, (docids, scores) in rankings:
        yield query_id, [docid.decode() for docid in docids.tolist()], scores


def trec_order(docids: NDArray[np.bytes_], scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """The permutation into trec_eval's order: score as float32, then docid as UTF-8 bytes, both descending.

    trec_eval ignores the ranks in the file.
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


def write_run(
    path: Path, items: Iterable[tuple[str, Sequence[str], ArrayLike]], tag: str, header: str = ""
) -> int:
    """Writes a TREC run query by query and returns the number of its hits.

    Ranks count from 1 in trec_eval's order. Scores have nine significant digits, which keep float32 exactly.
    The file appears when it is complete; `.gz` is compressed.

    Args:
        items: query id, docids, scores; hits in any order.
        header: lines before the hits, see `run_header`.

    Raises:
        DataError: an id or the tag is empty or holds white space, a score is not finite, a query or a docid
            of a query is repeated.
        EnvironmentProblem: the file cannot be written.
    """
    _check_token("run tag", tag)
    lines = 0
    seen: set[str] = set()
    with _open_new(Path(path)) as stream:
        stream.write(header)
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
def _open_new(path: Path) -> Iterator[TextIO]:
    make_parent(path)
    with replacing(path) as beside, beside.open("wb") as raw:
        packed: Any = nullcontext(raw)
        if path.suffix == ".gz":
            # No name and no time in the header: the same run gives the same bytes.
            packed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
        with packed as binary, TextIOWrapper(binary, encoding="utf-8", newline="\n") as stream:
            yield stream


def _lines(query_id: str, docids: Sequence[str], scores: NDArray[np.float32], tag: str) -> str:
    # One format for all lines of a query takes half the time of one per line.
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


# The columns of a block fit the processor's cache.
_BLOCK_BYTES = 1 << 18
_PROBLEMS_A_FILE = 5
_SUFFIXES = (".gz", ".trec", ".txt", ".run")
_COLUMNS = "query Q0 docid rank score tag"

_RANK = re.compile(rb"[+-]?[0-9]{1,18}")  # fits int64
_RANKS = re.compile(rb"(?:%b(?: |\Z))*" % _RANK.pattern)


class RunFile(NamedTuple):
    """A run's name and its file."""

    name: str
    path: Path


class _Hits(NamedTuple):
    """Neighbouring lines of one query in the file. All (n,)."""

    docids: NDArray[np.bytes_]
    scores: NDArray[np.float32]
    ranks: NDArray[np.int64]
    lines: NDArray[np.int64]


def run_files(specs: Iterable[str | Path]) -> list[RunFile]:
    """Names runs by `NAME=FILE`, else by the file without `.trec`, `.txt`, `.run` and `.gz`.

    `run_problems` checks names and files.
    """
    files = []
    for spec in map(str, specs):
        name, _, rest = spec.partition("=")
        # A file name may hold "=".
        if rest and name and file_problem(Path(spec)):
            files.append(RunFile(name, Path(rest)))
        else:
            files.append(RunFile(_name_of(Path(spec)), Path(spec)))
    return files


def file_problem(path: Path) -> str | None:
    """Why a run file cannot be opened; None if it can."""
    try:
        if path.is_dir():
            return f"{path}: is a directory, expected a TREC run"
        if not path.is_file():
            return f"{path}: no such file, expected a TREC run"
        with path.open("rb"):
            return None
    except OSError as error:
        return f"{path}: cannot be read as a run: {error.strerror or error}"


def run_problems(files: Sequence[RunFile]) -> list[str]:
    """Problems: runs with the name of an earlier run, files that cannot be opened."""
    first: dict[str, Path] = {}
    problems = []
    for name, path in files:
        if name in first:
            problems.append(
                f"two runs are named {name!r} ({first[name]} and {path}), expected different names: give one "
                f"as NAME=FILE, for example {name}-2={path}"
            )
        first.setdefault(name, path)
    return [*problems, *dict.fromkeys(filter(None, (file_problem(path) for _, path in files)))]


def _name_of(path: Path) -> str:
    name = path.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix) or name
    return name


def read_run(path: Path, name: str) -> Run:
    """Reads a TREC run, plain or gzip, into trec_eval's order; lines may come in any order.

    An ir_metadata header is skipped.

    Raises:
        DataError: with the first problems of the file. It cannot be opened or is empty; a line has not six
            columns or is not UTF-8; a score is not finite in float32; a rank is not an integer or
            contradicts the scores; a query has a document twice.
    """
    missing = file_problem(path)
    if missing:
        raise DataError(missing)
    problems = Problems(DataError, limit=_PROBLEMS_A_FILE)
    parts: dict[bytes, list[_Hits]] = {}
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with cast(IO[bytes], gzip.open(path, "rb")) if packed else path.open("rb") as stream:
            for block, first in _blocks(stream, skip_header(stream, path)):
                for query_id, hits in _segments(block, first, path, problems):
                    parts.setdefault(query_id, []).append(hits)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as a run: {error}") from error
    if not parts and not problems:
        problems.add(f"{path}: is empty, expected lines of six columns ({_COLUMNS})")
    queries: dict[str, Ranking] = {}
    for query_id in list(parts):
        # Popped, to free the columns that only the checks need.
        queries[query_id.decode()] = _ranking(query_id.decode(), parts.pop(query_id), path, problems)
    problems.raise_any()
    return Run(name, queries)


def _blocks(stream: IO[bytes], first: int) -> Iterator[tuple[bytes, int]]:
    """Yields blocks of whole lines, and the number of their first line. first: that of the next line."""
    while block := stream.read(_BLOCK_BYTES) + stream.readline():
        yield block if block.endswith(b"\n") else block + b"\n", first
        first += block.count(b"\n")


def _segments(block: bytes, first: int, path: Path, problems: Problems) -> Iterator[tuple[bytes, _Hits]]:
    """Splits the valid lines of a block by query, and adds the faults of the others."""
    lines = np.arange(first, first + block.count(b"\n"))
    try:
        query_ids, docids, ranks, scores = _columns(block)
    except ValueError:
        rows = [line.split() for line in block.split(b"\n")[:-1]]
        faults = [_fault(row) for row in rows]
        problems.extend(f"{path}:{line}: {fault}" for line, fault in zip(lines, faults, strict=True) if fault)
        good = [bool(row) and not fault for row, fault in zip(rows, faults, strict=True)]
        lines = lines[good]
        if not len(lines):
            return
        kept = [(row[0], b"Q0", *row[2:5], b"t") for row, keep in zip(rows, good, strict=True) if keep]
        query_ids, docids, ranks, scores = _columns(b"".join(b" ".join(row) + b"\n" for row in kept))
    changes = np.flatnonzero(list(map(ne, query_ids[1:], query_ids[:-1]))) + 1
    for start, end in pairwise([0, *changes.tolist(), len(lines)]):
        part = slice(start, end)
        hits = _Hits(np.array(docids[part], dtype=np.bytes_), scores[part], ranks[part], lines[part])
        yield query_ids[start], hits


def _columns(block: bytes) -> tuple[list[bytes], list[bytes], NDArray[np.int64], NDArray[np.float32]]:
    """The query ids, docids, ranks and scores of a block; raises `ValueError` if any line is invalid.

    Splitting the block at once takes half the time of splitting lines.
    """
    # numpy drops a NUL at the end of bytes, so no id may hold one, and it can mark the ends of lines.
    if b"\0" in block:
        raise ValueError
    columns = block.replace(b"\n", b" \0 ").split()
    lines = block.count(b"\n")
    if len(columns) != 7 * lines or columns[6::7].count(b"\0") != lines:
        raise ValueError
    query_ids, docids, ranks, scores = columns[0::7], columns[2::7], columns[3::7], columns[4::7]
    b" ".join(docids).decode()
    b" ".join(set(query_ids)).decode()
    # Python takes 1_0 for a number, trec_eval does not.
    if not _RANKS.fullmatch(b" ".join(ranks)) or b"_" in b" ".join(scores):
        raise ValueError
    with np.errstate(over="ignore"):
        values = np.array(list(map(float, scores)), dtype=np.float64).astype(np.float32)
    if not np.all(np.isfinite(values)):
        raise ValueError
    return query_ids, docids, np.array(list(map(int, ranks)), dtype=np.int64), values


def _fault(row: list[bytes]) -> str | None:
    """The fault of a line; None for a valid or blank line."""
    if not row:
        return None
    if len(row) != 6:
        return f"{len(row)} columns, expected 6 ({_COLUMNS})"
    query_id, _, docid, rank, score, _ = row
    try:
        b" ".join((query_id, docid)).decode()
    except UnicodeDecodeError:
        return "the query id or docid is not UTF-8: convert the file, for example with iconv"
    if b"\0" in query_id + docid:
        return "the query id or docid holds a NUL character, expected text"
    if not _RANK.fullmatch(rank):
        return f"rank {rank.decode(errors='replace')[:40]!r}, expected an integer"
    try:
        _columns(b"q Q0 d 1 %b t\n" % score)
    except ValueError:
        shown = score.decode(errors="replace")[:40]
        return f"score {shown!r}, expected a finite number (trec_eval reads it as float32)"
    return None


def _ranking(query_id: str, parts: list[_Hits], path: Path, problems: Problems) -> Ranking:
    hits = _Hits(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    by_docid = np.argsort(hits.docids, kind="stable")
    repeated = np.flatnonzero(hits.docids[by_docid[1:]] == hits.docids[by_docid[:-1]])
    if len(repeated):
        first, second = by_docid[repeated[0]], by_docid[repeated[0] + 1]
        problems.add(
            f"{path}:{hits.lines[second]}: document {hits.docids[second].decode()!r} comes twice for query "
            f"{query_id!r} (first in line {hits.lines[first]}), expected once: keep its best score"
        )
    # Contradiction: a better rank with a lower score. Equal ranks are no contradiction (some tools write 0).
    by_rank = np.lexsort((-hits.scores, hits.ranks))
    rising = np.flatnonzero(hits.scores[by_rank[1:]] > hits.scores[by_rank[:-1]])
    if len(rising):
        better, worse = by_rank[rising[0]], by_rank[rising[0] + 1]
        problems.add(
            f"{path}:{hits.lines[worse]}: unsorted ranks: query {query_id!r} has score "
            f"{hits.scores[worse]:.9g} at rank {hits.ranks[worse]} but {hits.scores[better]:.9g} at rank "
            f"{hits.ranks[better]}, expected scores that fall with the rank: sort by score and number again"
        )
    order = trec_order(hits.docids, hits.scores)
    return Ranking(hits.docids[order], hits.scores[order])
