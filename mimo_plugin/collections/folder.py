"""A folder as a collection, whichever layout it has; plain files of topics and qrels."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ir_datasets import Dataset
from ir_datasets.formats import BaseQueries, TrecQrel

from mimo_plugin.collections.beir import (
    HEADER,
    BeirDocs,
    FolderQrels,
    FolderQueries,
    PaperDocs,
    PaperQrels,
    TsvQrels,
    to_relevance,
)
from mimo_plugin.collections.jsonlines import read_lines, read_objects
from mimo_plugin.collections.mteb import MTEB_PARTS, TableQrels, find_parts, is_table, load_parts
from mimo_plugin.collections.reading import unreadable
from mimo_plugin.collections.records import Query, check_id
from mimo_plugin.core.errors import DataError, Problems

FOLDER_PREFIX = "path:"


@dataclass(frozen=True)
class FolderSpec:
    """Attributes:
    directory: the folder, absolute.
    split: the qrels' split that was asked for after `#`, if any.
    subset: what was asked for of a folder in MTEB's layout, such as a language; "" is all of it.
    """

    directory: Path
    split: str | None
    subset: str = ""

    @property
    def collection_id(self) -> str:
        """The folder's name, made fit to stand before the colon of a pooled id."""
        return "_".join((self.subset or self.directory.name).replace(":", " ").split()) or "root"

    @property
    def place(self) -> Path:
        return self.directory / self.subset

    @property
    def files(self) -> list[Path]:
        """Of a subset: its files; otherwise all of the folder."""
        if not self.subset:
            return sorted(file for file in self.directory.rglob("*") if file.is_file())
        parts = find_parts(self.directory, self.subset).values()
        return [file for splits in parts for files in splits.values() for file in files]


def parse_spec(spec: str) -> FolderSpec:
    """Takes `path:DIR` or `path:DIR#SPLIT` apart.

    Raises:
        DataError: there is no such folder, or it cannot be looked at.
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

    Raises:
        DataError: no such folder or split, nothing in it that is known, a first document of neither layout,
            or a file that cannot be read; with every such problem of the folder.
    """
    from ir_datasets import Dataset

    folder = parse_spec(spec)
    if folder.subset:
        found = load_parts(folder.directory, folder.subset, folder.split, spec, MTEB_PARTS)
        return Dataset(*(found.get(part) for part in MTEB_PARTS))
    parts: list[Any] = []
    with Problems(stop=True) as faults:
        for find in (_docs, _queries, _qrels):
            try:
                parts.append(find(folder))
            except OSError as error:
                faults.add(f"{spec}: {unreadable(error.filename, error)}")
            except DataError as error:
                faults.add(str(error))
    # What is not there in these layouts may be in MTEB's.
    found = dict(zip(MTEB_PARTS, parts, strict=True))
    missing = [part for part in MTEB_PARTS if found[part] is None]
    tables = load_parts(folder.directory, "", folder.split, spec, missing)
    docs, queries, qrels = (tables.get(part, found[part]) for part in MTEB_PARTS)
    if not (docs or queries or qrels):
        raise DataError(
            f"{spec}: no corpus.jsonl, queries.jsonl or qrels in it, expected a folder in BEIR layout"
        )
    if isinstance(queries, Path):
        queries = FolderQueries(queries, qrels)
    return Dataset(docs, queries, qrels)


def _docs(folder: FolderSpec) -> BeirDocs | PaperDocs | None:
    corpus = _find(folder.directory, "corpus.jsonl")
    if corpus is None:
        return None
    faults = Problems(stop=True)
    first = next(read_objects(corpus, faults), None)
    if first is not None:
        # Problems before it are raised by whoever reads the documents, along with those that follow.
        return _layout(corpus, *first)
    faults.raise_any()
    return BeirDocs(corpus)


def _layout(corpus: Path, number: int, record: dict[str, Any]) -> BeirDocs | PaperDocs:
    if "_id" in record:
        return BeirDocs(corpus)
    if record and all(isinstance(value, dict) for value in record.values()):
        return PaperDocs(corpus)
    raise DataError(
        f"{corpus}:{number}: keys {', '.join(map(repr, record)) or 'none'}, expected '_id' and 'text' "
        "(BEIR), or a docid with an object of 'text' and 'lang'"
    )


def _queries(folder: FolderSpec) -> Path | None:
    return _find(folder.directory, "queries.jsonl")


def _qrels(folder: FolderSpec) -> FolderQrels | None:
    directory = folder.directory / "qrels"
    paper = _find(folder.directory, "qrels.jsonl")
    splits = _splits(directory)
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
        return TableQrels((paper,)) if is_table(paper) else PaperQrels(paper)
    return TsvQrels(directory, tuple(splits.items()), folder.split) if splits else None


def _splits(directory: Path) -> dict[str, Path]:
    """The splits in a folder `qrels`, by name; `glob` would pass over a folder that may not be read."""
    if not directory.is_dir():
        return {}
    names = sorted({path.name.removesuffix(".gz") for path in directory.iterdir() if path.name[0] != "."})
    files = {name.removesuffix(".tsv"): _find(directory, name) for name in names if name.endswith(".tsv")}
    return {name: path for name, path in files.items() if path is not None}


def _find(directory: Path, name: str) -> Path | None:
    found = [path for path in (directory / name, directory / f"{name}.gz") if path.exists()]
    if len(found) > 1:
        raise DataError(
            f"{found[0]} and {found[1].name} are both there, expected one of them: remove the other"
        )
    if found and found[0].is_dir():
        raise DataError(f"{found[0]}: is a folder, expected a file: put the file in its place")
    return found[0] if found else None


_ITERATION = re.compile(r"[Qq]?[0-9]+")
_LANGUAGE = re.compile(r"([a-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*):.")


def plain_file(spec: str) -> Path | None:
    """The file that a collection's name is the path of; None where it is no file's."""
    try:
        path = Path(spec).expanduser()
        return path if spec and path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # no right to look, too long for a path, ~nobody, a NUL
        return None


def load_file(path: Path) -> Any:
    """A file of topics or of qrels as an ir_datasets dataset with that part; only its first line is read.

    One of qrels has queries, too: the ids that it judges, without text.

    Raises:
        DataError: it cannot be read, is empty, or begins with neither.
    """
    with Problems(stop=True) as faults:
        _, first = next(read_lines(path, faults), (1, ""))
    if not first:
        raise DataError(f"{path}: holds no line, expected topics (id, tab, text) or qrels")
    made = _of_kind(path, first)
    return (
        Dataset(None, JudgedIds(made), made) if isinstance(made, FolderQrels) else Dataset(None, made, None)
    )


def _of_kind(path: Path, first: str) -> Any:
    words, tabs = first.split(), first.count("\t")
    if first.startswith("{"):
        try:
            record = json.loads(first)
        except ValueError:
            record = {"_id": None}  # whoever reads it says what is wrong
        return FolderQueries(path, None) if "_id" in record else PaperQrels(path)
    if words == HEADER:
        return TsvQrels(path.parent, ((path.name, path),), path.name)
    if first.startswith("<"):
        raise DataError(
            f"{path}: begins with a tag, {first!r:.40}, expected topics as lines of id, tab and text: write "
            "them so"
        )
    # A run and a file with a column too many or too few are taken for qrels as well: then that is said.
    looks_judged = len(words) > 2 and _ITERATION.fullmatch(words[1]) and len(words) in (3, 4, 5, 6)
    return FileQrels(path) if tabs > 1 or (tabs == 0 and looks_judged) else FileQueries(path)


def language_of_id(identifier: str) -> str:
    """The language that an id as `sw:17` begins with; "" where it does not."""
    match = _LANGUAGE.match(identifier)
    return match[1] if match else ""


@dataclass(frozen=True)
class FileQueries(BaseQueries):
    """Attributes:
    path: plain or .gz.
    """

    path: Path

    def queries_cls(self) -> type[Query]:
        return Query

    def queries_path(self) -> str:
        return str(self.path)

    def queries_lang(self) -> None:
        return None

    def queries_iter(self) -> Iterator[Query]:
        with Problems(stop=True) as faults:
            yield from faults.convert(read_lines(self.path, faults), self._query)

    def _query(self, numbered: tuple[int, str]) -> Query:
        number, line = numbered
        where = f"{self.path}:{number}"
        # Without a tab, the first white space ends the id.
        columns = line.split("\t") if "\t" in line else line.split(None, 1)
        if len(columns) != 2:
            raise DataError(f"{where}: {len(columns)} columns, expected 2 with a tab between them: id, text")
        query_id = check_id(columns[0], f"{where}: query id")
        return Query(query_id, columns[1].strip(), language_of_id(query_id))


@dataclass(frozen=True)
class FileQrels(FolderQrels):
    """Attributes:
    path: plain or .gz.
    """

    path: Path

    def file(self) -> Path:
        return self.path

    def qrels_iter(self) -> Iterator[Any]:
        with Problems(stop=True) as faults:
            yield from faults.convert(read_lines(self.path, faults), partial(self._qrel, self.path))

    def _qrel(self, path: Path, numbered: tuple[int, str]) -> Any:
        number, line = numbered
        where = f"{path}:{number}"
        columns = line.split()
        if len(columns) != 4:
            raise DataError(
                f"{where}: {len(columns)} columns, expected 4 with tabs or spaces between them: query id, "
                "iteration, docid, relevance"
            )
        query_id, iteration, doc_id, relevance = columns
        check_id(query_id, f"{where}: query id")
        return TrecQrel(
            query_id, check_id(doc_id, f"{where}: docid"), to_relevance(relevance, where), iteration
        )


@dataclass(frozen=True)
class JudgedIds(BaseQueries):
    """The queries that qrels judge, each once, without text: to evaluate a run, not to search.

    Attributes:
        qrels: of a file.
    """

    qrels: FolderQrels

    def queries_cls(self) -> type[Query]:
        return Query

    def queries_lang(self) -> None:
        return None

    def queries_iter(self) -> Iterator[Query]:
        for query_id in dict.fromkeys(qrel.query_id for qrel in self.qrels.qrels_iter()):
            yield Query(query_id, "", language_of_id(query_id))
