"""Collections in the layout of MTEB's tasks, and folders found by their released names."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ir_datasets.formats import BaseQueries, TrecQrel

from mimo_plugin.collections.beir import BeirDoc, FolderQrels
from mimo_plugin.collections.jsonlines import StreamedDocs, get_lang, read_lines, read_objects
from mimo_plugin.collections.reading import unreadable
from mimo_plugin.collections.records import Query, check_id, check_text, usual_language
from mimo_plugin.core.errors import DataError, Problems

MTEB_PARTS = ("corpus", "queries", "qrels")
_DATA = re.compile(r"(?P<stem>.+)\.(parquet|(jsonl|tsv)(\.gz)?)", re.ASCII)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*")
_CODE = 2
_SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}", re.ASCII)
# Other names of columns that published sets have.
_IDS = ("_id", "id", "docid", "query_id")
_TEXTS = ("text", "query")
_QRELS = (("query-id", "query_id"), ("corpus-id", "corpus_id", "docid"), ("score", "relevance"))


def part_names(subset: str, part: str) -> list[str]:
    """What the files of a part may be called, without what follows; the first that is there counts."""
    if not subset:
        return [part]
    names = [f"{subset}-{part}", f"{part}-{subset}", f"{subset}/{part}", f"{part}/{subset}"]
    return [*names, f"data/news.{subset}"] if part == "queries" else names


def find_parts(directory: Path, subset: str) -> dict[str, dict[str, tuple[Path, ...]]]:
    """Part -> split -> its files, of the parts that are there.

    Raises:
        OSError: a folder cannot be looked at.
    """
    found = {}
    for part in MTEB_PARTS:
        for name in part_names(subset, part):
            splits = _splits(directory / name)
            if splits:
                found[part] = splits
                break
    return found


def _splits(place: Path) -> dict[str, tuple[Path, ...]]:
    """The files in a folder, by split; or the file that is called so, as a split of that name."""
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


def load_parts(
    directory: Path, subset: str, split: str | None, spec: str, wanted: Sequence[str]
) -> dict[str, Any]:
    """Part -> its ir_datasets handler, of the wanted parts that are there.

    Raises:
        DataError: no such split, or several and none was chosen; a folder that cannot be looked at.
    """
    try:
        parts = find_parts(directory, subset)
    except OSError as error:
        raise DataError(f"{spec}: {unreadable(error.filename, error)}") from error
    lang = usual_language(subset.casefold()) if _LANGUAGE.fullmatch(subset) else ""
    # A folder that is called like a language holds that one's files.
    if not subset and len(own := usual_language(directory.name.casefold())) == _CODE and own.isalpha():
        lang = own
    makers: dict[str, Callable[[tuple[Path, ...]], Any]] = {
        "corpus": partial(TableDocs, lang=lang),
        "queries": partial(TableQueries, lang=lang),
        "qrels": TableQrels,
    }
    return {
        part: makers[part](_chosen(splits, split, part, spec))
        for part, splits in parts.items()
        if part in wanted
    }


def is_table(file: Path) -> bool:
    """Whether a file of judgments has a judgment a line, with the columns of MTEB's."""
    _, first = next(_rows((file,), Problems(stop=True)), ("", {}))
    return all(any(name in first for name in names) for names in _QRELS)


def _chosen(splits: dict[str, tuple[Path, ...]], asked: str | None, part: str, spec: str) -> tuple[Path, ...]:
    if len(splits) == 1 and (asked is None or part != "qrels"):
        return next(iter(splits.values()))
    name = asked or "test"
    if name in splits:
        return splits[name]
    found = ", ".join(splits)
    base = spec.partition("#")[0]
    if asked is not None:
        raise DataError(f"{spec}: its {part} have no split {asked!r}, expected one of {found}")
    raise DataError(
        f"{spec}: {part} for the splits {found} and no 'test', expected a choice such as {base}#{min(splits)}"
    )


Row = tuple[str, dict[str, Any]]


def _rows(files: tuple[Path, ...], faults: Problems) -> Iterator[Row]:
    """(file and number of the row, columns) of every row."""
    for file in files:
        name = file.name.removesuffix(".gz")
        if name.endswith(".parquet"):
            yield from _parquet(file, faults)
        elif name.endswith(".jsonl"):
            yield from ((f"{file}:{number}", record) for number, record in read_objects(file, faults))
        else:
            yield from _tsv(file, faults)


def _parquet(file: Path, faults: Problems) -> Iterator[Row]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=4096):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{file}:{number}", record
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        faults.add(
            unreadable(file, error)
            if isinstance(error, PermissionError)
            else f"{file}: not a whole Parquet file ({reason}), expected one: fetch it again"
        )


def _tsv(file: Path, faults: Problems) -> Iterator[Row]:
    """Rows of a file with a header; NeuCLIRBench's queries have none."""
    columns: list[str] | None = ["_id", "text"] if file.name.startswith("news.") else None
    for number, line in read_lines(file, faults):
        values = line.split("\t")
        if columns is None:
            columns = values
        elif len(values) != len(columns):
            faults.add(
                f"{file}:{number}: {len(values)} columns, expected {len(columns)} with tabs between them"
            )
        else:
            yield f"{file}:{number}", dict(zip(columns, values, strict=True))


def _value(record: dict[str, Any], names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if name in record:
            return record[name]
    found = ", ".join(map(repr, record)) or "none"
    raise DataError(f"{where}: column {names[0]!r} is missing (columns found: {found}): add it")


def _id(record: dict[str, Any], names: tuple[str, ...], where: str) -> str:
    value = _value(record, names, where)
    return check_id(str(value) if type(value) is int else value, f"{where}: {names[0]!r}")


def _text(value: Any, where: str) -> str:
    return "" if value is None else check_text(value, where)


# Two loads of the same files are equal, as a pool has to see.
@dataclass(frozen=True)
class TableDocs(StreamedDocs):
    """Attributes:
    files: of the corpus.
    lang: of documents that do not say.
    """

    files: tuple[Path, ...]
    lang: str

    def docs_cls(self) -> type[BeirDoc]:
        return BeirDoc

    def docs_path(self, force: bool = True) -> str:
        return str(self.files[0])

    def docs_lang(self) -> str | None:
        return self.lang or None

    def stream(self) -> Iterator[BeirDoc]:
        with Problems(stop=True) as faults:
            yield from faults.convert(_rows(self.files, faults), self._doc)

    def _doc(self, row: Row) -> BeirDoc:
        where, record = row
        title = _text(record.get("title"), f"{where}: 'title'")
        text = _text(_value(record, _TEXTS, where), f"{where}: 'text'")
        return BeirDoc(_id(record, _IDS, where), title, text, get_lang(record, where) or self.lang)


@dataclass(frozen=True)
class TableQueries(BaseQueries):
    """Attributes:
    files: of the queries.
    lang: of queries that do not say.
    """

    files: tuple[Path, ...]
    lang: str

    def queries_cls(self) -> type[Query]:
        return Query

    def queries_path(self) -> str:
        return str(self.files[0])

    def queries_lang(self) -> str | None:
        return self.lang or None

    def queries_iter(self) -> Iterator[Query]:
        with Problems(stop=True) as faults:
            yield from faults.convert(_rows(self.files, faults), self._query)

    def _query(self, row: Row) -> Query:
        where, record = row
        text = _text(_value(record, _TEXTS, where), f"{where}: 'text'")
        return Query(_id(record, _IDS, where), text, get_lang(record, where) or self.lang)


@dataclass(frozen=True)
class TableQrels(FolderQrels):
    """Attributes:
    files: of the judgments.
    """

    files: tuple[Path, ...]

    def file(self) -> Path:
        return self.files[0]

    def qrels_iter(self) -> Iterator[Any]:
        with Problems(stop=True) as faults:
            yield from faults.convert(_rows(self.files, faults), _qrel)


def _qrel(row: Row) -> Any:
    where, record = row
    query_id, docid = (_id(record, names, where) for names in _QRELS[:2])
    relevance = _value(record, _QRELS[2], where)
    try:
        if isinstance(relevance, bool) or int(relevance) != float(relevance):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"{where}: 'score' is {relevance!r:.40}, expected an integer (0 = not relevant)"
        ) from None
    return TrecQrel(query_id, docid, int(relevance), "0")


# Of the MIMO paper's releases, the one with queries in every language.
_PREFERRED = "MMLIR"
_SPLITS = ("test", "", "dev")
_NAME = re.compile(r"(?P<stem>.+?)([-_. ](?P<split>test|dev))?", re.ASCII)


def matching_folders(folders: Iterable[str], name: str) -> list[str]:
    """The folders that fit a name best; several where nothing decides between them.

    A folder fits that is called so but for case, punctuation, a version and `_test` or `_dev` at the end,
    where the name says or below any one folder there. Best are the first of these that there are: the name
    itself, at its place, in `MMLIR`, elsewhere; of those `_test` comes first and `_dev` last.

    Args:
        folders: of a directory, relative to it, with `/`.
    """
    parent, _, last = name.rpartition("/")
    ranked: dict[tuple[int, int], list[str]] = {}
    for folder in sorted(set(folders)):
        within = folder.removeprefix(f"{parent}/") if parent else folder
        above, _, own = within.rpartition("/")
        stem, split = _stem(own)
        if (parent and within == folder) or "/" in above or stem != _stem(last)[0]:
            continue
        # Anything may have a folder of that name.
        if last.casefold() in _SPLITS and folder != name:
            continue
        place = 0 if folder == name else 1 if not above else 2 if above == _PREFERRED else 3
        ranked.setdefault((place, _SPLITS.index(split)), []).append(folder)
    return ranked[min(ranked)] if ranked else []


def _stem(name: str) -> tuple[str, str]:
    """What names have in common that mean the same, and the split."""
    found = _NAME.fullmatch(name.casefold())
    if found is None:
        return name, ""
    return re.sub(r"[-_. ]?v[0-9]+$|[-_. ]", "", found["stem"]), found["split"] or ""
