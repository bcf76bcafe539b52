"""Folders and files as collections, in the layouts of BEIR, the MIMO paper and MTEB."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ir_datasets import Dataset

from mimo_plugin.collections.dataset import (
    StreamedDocs,
    StreamedQrels,
    StreamedQueries,
    read_rows,
    to_doc,
    to_qrel,
    to_query,
    to_titled_doc,
)
from mimo_plugin.collections.records import Query, TitledDoc, usual_language
from mimo_plugin.collections.rows import (
    QREL_COLUMNS,
    beir_qrel_rows,
    is_table,
    json_rows,
    language_of_id,
    paper_qrel_rows,
    paper_rows,
    read_lines,
    table_qrel_rows,
    table_rows,
    topic_rows,
    trec_qrel_rows,
    unreadable,
)
from mimo_plugin.core.errors import DataError, Problems

FOLDER_PREFIX = "path:"
MTEB_PARTS = ("corpus", "queries", "qrels")


@dataclass(frozen=True)
class FolderSpec:
    """A parsed `path:` name.

    Attributes:
        directory: the folder, absolute.
        split: of the qrels, given after `#`, if any.
        subset: of a folder in MTEB's layout, such as a language; "" is the whole folder.
    """

    directory: Path
    split: str | None
    subset: str = ""

    @property
    def collection_id(self) -> str:
        """The folder's name as a prefix for pooled ids, without colons and white space."""
        return "_".join((self.subset or self.directory.name).replace(":", " ").split()) or "root"

    @property
    def place(self) -> Path:
        return self.directory / self.subset

    @property
    def files(self) -> list[Path]:
        """The files of the subset, or all files of the folder."""
        if not self.subset:
            return sorted(file for file in self.directory.rglob("*") if file.is_file())
        parts = find_parts(self.directory, self.subset).values()
        return [file for splits in parts for files in splits.values() for file in files]


def parse_spec(spec: str) -> FolderSpec:
    """Parses `path:DIR` or `path:DIR#SPLIT`.

    Raises:
        DataError: the folder does not exist, or cannot be read.
    """
    rest = spec.removeprefix(FOLDER_PREFIX)
    candidates = [(rest, "")]
    if "#" in rest:
        directory, _, split = rest.rpartition("#")
        candidates.append((directory, split))
    found = "no such folder"
    try:
        for name, split in candidates:
            path = Path(name).expanduser()
            if name and path.is_dir():
                return FolderSpec(path.resolve(), split or None)
            if name and path.is_file():
                found = "is a file"
            elif name and find_parts(path.parent, path.name):
                return FolderSpec(path.parent.resolve(), split or None, path.name)
    except OSError as error:
        raise DataError(f"{spec}: {unreadable(error.filename, error)}") from error
    except RuntimeError as error:  # ~nobody
        found = str(error)
    raise DataError(f"{spec}: {found}, expected path:DIR with a folder that holds corpus.jsonl")


def load_folder(spec: str) -> Any:
    """The folder as an ir_datasets dataset with the parts that it has.

    Parts that are missing in the layout of BEIR or of the MIMO paper are looked up in that of MTEB.

    Raises:
        DataError: with all problems of the folder: no such folder or split, no known part, a first document
            of unknown layout, or an unreadable file.
    """
    folder = parse_spec(spec)
    parts: dict[str, Any] = {}
    if not folder.subset:
        with Problems() as problems:
            with problems.collect(), _looking(spec):
                parts["corpus"] = _docs(folder)
            with problems.collect(), _looking(spec):
                parts["queries"] = _find(folder.directory, "queries.jsonl")
            with problems.collect(), _looking(spec):
                parts["qrels"] = _qrels(folder)
    tables = _tables(folder, spec, [part for part in MTEB_PARTS if parts.get(part) is None])
    docs, queries, qrels = (tables.get(part, parts.get(part)) for part in MTEB_PARTS)
    if not (docs or queries or qrels):
        raise DataError(
            f"{spec}: no corpus.jsonl, queries.jsonl or qrels in it, expected a folder in BEIR layout"
        )
    if isinstance(queries, Path):
        # As in BEIR's own loader: queries.jsonl holds the queries of every split.
        several = len(_qrels_splits(folder.directory / "qrels")) > 1 and "qrels" not in tables
        queries = StreamedQueries(_judged_queries, (queries, qrels if several else None))
    return Dataset(docs, queries, qrels)


def _docs(folder: FolderSpec) -> StreamedDocs | None:
    corpus = _find(folder.directory, "corpus.jsonl")
    if corpus is None:
        return None
    faults = Problems(stop=True)
    where, record = next(json_rows(corpus, faults), ("", {"_id": ""}))
    if not where:
        faults.raise_any()
    # Faults before the first record are raised on reading the documents.
    if "_id" in record:
        return StreamedDocs(read_rows, (json_rows, corpus, to_titled_doc), cls=TitledDoc)
    if record and all(isinstance(value, dict) for value in record.values()):
        return StreamedDocs(read_rows, (paper_rows, corpus, to_doc))
    raise DataError(
        f"{where}: keys {', '.join(map(repr, record)) or 'none'}, expected '_id' and 'text' (BEIR), or a "
        "docid with an object of 'text' and 'lang'"
    )


def _judged_queries(path: Path, qrels: StreamedQrels | None) -> Iterator[Query]:
    judged = None if qrels is None else {qrel.query_id for qrel in qrels.qrels_iter()}
    for query in read_rows(json_rows, path, to_query):
        if judged is None or query.query_id in judged:
            yield query


def _qrels(folder: FolderSpec) -> StreamedQrels | None:
    directory = folder.directory / "qrels"
    paper = _find(folder.directory, "qrels.jsonl")
    splits = _qrels_splits(directory)
    if paper and splits:
        raise DataError(
            f"{paper} and {directory}{'/'}*.tsv: qrels in two layouts, expected one: remove the other"
        )
    if folder.split is not None and folder.split not in splits:
        raise DataError(
            f"{FOLDER_PREFIX}{folder.directory}#{folder.split}: no such split, expected one of the files "
            f"qrels/*.tsv: {', '.join(splits) or 'there are none'}"
        )
    if paper:
        if is_table(paper):
            return StreamedQrels(read_rows, (table_qrel_rows, (paper,), to_qrel))
        return StreamedQrels(read_rows, (paper_qrel_rows, paper, to_qrel))
    if not splits:
        return None
    split = folder.split or ("test" if "test" in splits else next(iter(splits)))
    problem = ""
    if folder.split is None and split != "test" and len(splits) > 1:
        problem = (
            f"path:{folder.directory}: qrels for the splits {', '.join(splits)} and no 'test', expected a "
            f"choice such as path:{folder.directory}#{split}"
        )
    return StreamedQrels(read_rows, (beir_qrel_rows, splits[split], to_qrel), problem=problem)


def _qrels_splits(directory: Path) -> dict[str, Path]:
    """The splits in a folder `qrels`, by name; `glob` would ignore an unreadable folder."""
    if not directory.is_dir():
        return {}
    names = sorted({path.name.removesuffix(".gz") for path in directory.iterdir() if path.name[0] != "."})
    files = {name.removesuffix(".tsv"): _find(directory, name) for name in names if name.endswith(".tsv")}
    return {name: path for name, path in files.items() if path is not None}


def _find(directory: Path, name: str) -> Path | None:
    found = [path for path in (directory / name, directory / f"{name}.gz") if path.exists()]
    if len(found) > 1:
        raise DataError(f"{found[0]} and {found[1].name} both exist, expected one of them: remove the other")
    if found and found[0].is_dir():
        raise DataError(f"{found[0]}: is a folder, expected a file: put the file in its place")
    return found[0] if found else None


@contextmanager
def _looking(spec: str) -> Iterator[None]:
    """Turns an error of the file system into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{spec}: {unreadable(error.filename, error)}") from error


_DATA = re.compile(r"(?P<stem>.+)\.(parquet|(jsonl|tsv)(\.gz)?)", re.ASCII)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*")
_SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}", re.ASCII)
_MTEB_READERS: dict[str, Callable[..., Any]] = {
    "corpus": lambda files, lang: StreamedDocs(
        read_rows, (table_rows, files, to_titled_doc, lang), cls=TitledDoc, lang=lang or None
    ),
    "queries": lambda files, lang: StreamedQueries(
        read_rows, (table_rows, files, to_query, lang), lang=lang or None
    ),
    "qrels": lambda files, lang: StreamedQrels(read_rows, (table_qrel_rows, files, to_qrel)),
}


def part_names(subset: str, part: str) -> list[str]:
    """Possible names of a part's files, without endings; the first one that exists counts."""
    if not subset:
        return [part]
    names = [f"{subset}-{part}", f"{part}-{subset}", f"{subset}/{part}", f"{part}/{subset}"]
    return [*names, f"data/news.{subset}"] if part == "queries" else names


def find_parts(directory: Path, subset: str) -> dict[str, dict[str, tuple[Path, ...]]]:
    """Part -> split -> files, for the parts in MTEB's layout.

    Raises:
        OSError: a folder cannot be read.
    """
    found = {}
    for part in MTEB_PARTS:
        splits = (_data_files(directory / name) for name in part_names(subset, part))
        if first := next(filter(None, splits), None):
            found[part] = first
    return found


def _data_files(place: Path) -> dict[str, tuple[Path, ...]]:
    """The files in a folder, by split; or files of this name, as a split."""
    if place.is_dir():
        files = sorted(place.iterdir())
    elif place.parent.is_dir():
        files = [file for file in sorted(place.parent.iterdir()) if file.name.startswith(f"{place.name}.")]
    else:
        return {}
    splits: dict[str, tuple[Path, ...]] = {}
    for file in files:
        named = _DATA.fullmatch(file.name)
        if named and file.is_file():
            shard = _SHARD.fullmatch(named["stem"])
            split = shard["split"] if shard else named["stem"]
            splits[split] = (*splits.get(split, ()), file)
    return splits


def _tables(folder: FolderSpec, spec: str, wanted: Sequence[str]) -> dict[str, Any]:
    """Part -> handler, for the wanted parts in MTEB's layout."""
    with _looking(spec):
        parts = find_parts(folder.directory, folder.subset)
    lang = usual_language(folder.subset.casefold()) if _LANGUAGE.fullmatch(folder.subset) else ""
    # A folder named by a language holds its files.
    own = usual_language(folder.directory.name.casefold())
    if not folder.subset and len(own) == 2 and own.isalpha():
        lang = own
    return {
        part: _MTEB_READERS[part](_of_split(splits, folder.split, part, spec), lang)
        for part, splits in parts.items()
        if part in wanted
    }


def _of_split(
    splits: dict[str, tuple[Path, ...]], asked: str | None, part: str, spec: str
) -> tuple[Path, ...]:
    if len(splits) == 1 and (asked is None or part != "qrels"):
        return next(iter(splits.values()))
    name = asked or "test"
    if name in splits:
        return splits[name]
    found = ", ".join(splits)
    if asked is not None:
        raise DataError(f"{spec}: its {part} have no split {asked!r}, expected one of {found}")
    raise DataError(
        f"{spec}: {part} for the splits {found} and no 'test', expected a choice such as "
        f"{spec.partition('#')[0]}#{min(splits)}"
    )


def local_path(spec: str) -> Path | None:
    """The file or folder with a collection's name as its path, if it exists."""
    try:
        path = Path(spec).expanduser()
        return path if spec and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # no permission, too long for a path, ~nobody, a NUL
        return None


_ITERATION = re.compile(r"[Qq]?[0-9]+")


def load_file(path: Path) -> Any:
    """A file of topics or qrels as an ir_datasets dataset with that part; reads only the first line.

    A file of qrels also gives queries: the judged ids, without text.

    Raises:
        DataError: the file cannot be read, is empty, or starts with neither topics nor qrels.
    """
    with Problems(stop=True) as faults:
        _, first = next(read_lines(path, faults), (1, ""))
    if not first:
        raise DataError(f"{path}: holds no line, expected topics (id, tab, text) or qrels")
    if first.startswith("<"):
        raise DataError(
            f"{path}: begins with a tag, {first!r:.40}, expected topics as lines of id, tab and text: "
            "convert the file"
        )
    rows = _rows_of(first)
    if rows in (json_rows, topic_rows):
        return Dataset(StreamedQueries(read_rows, (rows, path, to_query)))
    qrels = StreamedQrels(read_rows, (rows, path, to_qrel))
    return Dataset(StreamedQueries(judged_ids, (qrels,)), qrels)


def _rows_of(first: str) -> Callable[..., Any]:
    """The reader of a file that begins with this line."""
    if first.startswith("{"):
        try:
            return json_rows if "_id" in json.loads(first) else paper_qrel_rows
        except ValueError:
            return json_rows  # which reports the fault
    words, tabs = first.split(), first.count("\t")
    if words == QREL_COLUMNS:
        return beir_qrel_rows
    # Runs and files with a wrong number of columns are read as qrels, too, which reports the fault.
    looks_judged = 2 < len(words) < 7 and _ITERATION.fullmatch(words[1])
    return trec_qrel_rows if tabs > 1 or (tabs == 0 and looks_judged) else topic_rows


def judged_ids(qrels: StreamedQrels) -> Iterator[Query]:
    """The judged queries, each once and without text: to evaluate a run, not to search."""
    for query_id in dict.fromkeys(qrel.query_id for qrel in qrels.qrels_iter()):
        yield Query(query_id, "", language_of_id(query_id))
