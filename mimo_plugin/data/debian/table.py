"""The rows of the training data and of the test collections."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mimo_plugin.collections.records import pooled_id
from mimo_plugin.collections.rows import get_id, get_text, read_objects
from mimo_plugin.core.errors import DataError, Findings, Problems
from mimo_plugin.core.files import replacing, writing
from mimo_plugin.data.writers import PairsWriter, TableWriter
from mimo_plugin.training.data import DataManifest

# A language's code with, where the archive has it, the country: pt_BR.
_CODE = re.compile(r"([a-z]{2,3})([_@-][A-Za-z]+)*")

NO_TEXT = "empty text"
NO_TRANSLATION = "no translation"


class Texts(NamedTuple):
    """A description in one language: its first line and its body."""

    short: str
    long: str


class Row(NamedTuple):
    """A package description.

    Attributes:
        id: the first twelve hexadecimal digits of `Description-md5`.
        package: a package that carries it.
        text: language -> its texts, English first where it is there.
    """

    id: str
    package: str
    text: dict[str, Texts]

    def english(self) -> Texts:
        """The English texts; those of another language where there is none."""
        return self.text.get("en") or next(iter(self.text.values()))


def language_code(archive_code: str) -> str:
    """The language of an archive's code, without the country: `pt` for `pt_BR`.

    Raises:
        DataError: it is no such code.
    """
    match = _CODE.fullmatch(archive_code)
    if match is None:
        raise DataError(f"language {archive_code!r}, expected a code such as 'de' or 'pt_BR'")
    return match[1]


def read_tables(
    paths: Sequence[Path], languages: Collection[str] | None
) -> tuple[list[list[Row]], dict[str, Counter[str]]]:
    """Reads parsed tables, plain or gzipped.

    Args:
        languages: those to read; None reads all.

    Returns:
        The rows with texts in two languages or more, a list a table; and what was left out, reason ->
        language -> count.

    Raises:
        DataError: lines that are not right, of all tables together.
    """
    dropped = {NO_TEXT: Counter[str](), NO_TRANSLATION: Counter[str]()}
    findings = Findings()
    tables = [findings.attempt(_read_table, path, languages, dropped) for path in paths]
    findings.raise_any()
    return [rows for rows in tables if rows is not None], dropped


def _read_table(path: Path, languages: Collection[str] | None, dropped: dict[str, Counter[str]]) -> list[Row]:
    seen: dict[str, int] = {}
    rows = []
    with Problems(stop=True) as faults:
        for row in faults.convert(read_objects(path, faults), partial(_row, path, seen)):
            wanted = {
                lang: texts for lang, texts in row.text.items() if languages is None or lang in languages
            }
            kept = {lang: texts for lang, texts in wanted.items() if texts.short and texts.long}
            dropped[NO_TEXT].update(wanted.keys() - kept.keys())
            if len(kept) > 1:
                rows.append(row._replace(text=kept))
            else:
                dropped[NO_TRANSLATION].update(kept.keys())
    if not rows:
        raise DataError(f"{path}: no description in two languages or more, expected at least one")
    return rows


def _row(path: Path, seen: dict[str, int], numbered: tuple[int, dict[str, Any]]) -> Row:
    number, record = numbered
    where = f"{path}:{number}"
    identifier = get_id(record, "id", where)
    first = seen.setdefault(identifier, number)
    if first != number:
        raise DataError(f"{where}: id {identifier!r} is that of line {first}, expected each id once")
    package = get_id(record, "package", where)
    versions = record.get("text")
    if not isinstance(versions, dict):
        raise DataError(f"{where}: 'text' is no object, expected {{LANG: {{'short': ..., 'long': ...}}}}")
    text: dict[str, Texts] = {}
    for code, version in versions.items():
        try:
            lang = language_code(code)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if lang in text:
            raise DataError(f"{where}: {lang!r} comes twice (as {code!r}, too), expected each language once")
        if not isinstance(version, dict):
            raise DataError(f"{where}: {code!r} is no object, expected one with 'short' and 'long'")
        place = f"{where}: {code!r}"
        text[lang] = Texts(
            get_text(version, "short", place).strip(), get_text(version, "long", place).strip()
        )
    return Row(identifier, package, text)


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Writes a table that `read_tables` reads; the same rows are the same bytes."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file,
    ):
        for row in rows:
            text = {lang: texts._asdict() for lang, texts in row.text.items()}
            line = json.dumps({"id": row.id, "package": row.package, "text": text}, ensure_ascii=False)
            file.write(f"{line}\n".encode())


NO_ANCHOR = "no text in the anchor language"
REPEATED = "the same pair before"


class Origin(NamedTuple):
    """What the manifests of training data say about its making.

    Attributes:
        anchor: language of the texts that the teacher sees.
    """

    anchor: str
    parameters: Mapping[str, Any]
    source: Mapping[str, Any]


def write_pairs(directory: Path, rows: Sequence[Row], origin: Origin, *, identity: bool) -> DataManifest:
    """Writes short and long texts with those of the anchor language, each pair of texts once.

    Args:
        identity: whether the anchor's texts are paired with themselves, too.
    """
    seen: set[tuple[str, str, str]] = set()
    with PairsWriter(directory, **origin._asdict()) as writer:
        for row in rows:
            anchors = row.text.get(origin.anchor)
            for lang, texts in row.text.items():
                if anchors is None:
                    writer.drop(NO_ANCHOR, lang, len(texts))
                    continue
                if lang == origin.anchor and not identity:
                    continue
                for text, anchor_text in zip(texts, anchors, strict=True):
                    pair = (text, lang, anchor_text)
                    if pair in seen:
                        writer.drop(REPEATED, lang)
                        continue
                    seen.add(pair)
                    writer.add(*pair)
    return writer.manifest


def write_aligned(directory: Path, rows: Sequence[Row], origin: Origin) -> DataManifest:
    """Writes one row a description: its short texts are the queries, its long texts the passages."""
    with TableWriter(directory, **origin._asdict()) as writer:
        for row in rows:
            writer.add(row.id, row.id, {lang: (texts.short, texts.long) for lang, texts in row.text.items()})
    return writer.manifest


@dataclass(frozen=True)
class CollectionOptions:
    """Attributes:
    min_doc_languages: long texts of descriptions with so many languages or more are documents.
    min_query_languages: short texts of documents' descriptions with so many or more are queries.
    """

    min_doc_languages: int = 5
    min_query_languages: int = 7

    def documents(self, rows: Iterable[Row]) -> list[Row]:
        return [row for row in rows if len(row.text) >= self.min_doc_languages]

    def queries(self, rows: Iterable[Row]) -> list[Row]:
        return [row for row in self.documents(rows) if len(row.text) >= self.min_query_languages]


@dataclass(frozen=True)
class Counts:
    """Attributes:
    documents, queries: language -> number.
    judgments: number of relevant pairs.
    """

    documents: dict[str, int]
    queries: dict[str, int]
    judgments: int


def write_collection(directory: Path, split: str, rows: Sequence[Row], options: CollectionOptions) -> Counts:
    """Writes `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`.

    Ids are `lang:id`, so versions of one text are parallel; every language version of a long text is relevant
    to every version of its short text.
    """
    documents, queries = options.documents(rows), options.queries(rows)
    with writing(directory):
        (directory / "qrels").mkdir(parents=True)
    _write(directory / "corpus.jsonl", _records((row, "long") for row in documents))
    _write(directory / "queries.jsonl", _records((row, "short") for row in queries))
    _write(directory / "qrels" / f"{split}.tsv", _judgments(queries))
    return Counts(_languages(documents), _languages(queries), sum(len(row.text) ** 2 for row in queries))


def _records(parts: Iterable[tuple[Row, str]]) -> Iterator[str]:
    for row, part in parts:
        for lang, texts in row.text.items():
            record = {"_id": pooled_id(lang, row.id), "text": getattr(texts, part), "lang": lang}
            yield json.dumps(record, ensure_ascii=False)


def _judgments(rows: Iterable[Row]) -> Iterator[str]:
    yield "query-id\tcorpus-id\tscore"
    for row in rows:
        for query_lang in row.text:
            for doc_lang in row.text:
                yield f"{pooled_id(query_lang, row.id)}\t{pooled_id(doc_lang, row.id)}\t1"


def _languages(rows: Iterable[Row]) -> dict[str, int]:
    return dict(sorted(Counter(lang for row in rows for lang in row.text).items()))


def _write(path: Path, lines: Iterable[str]) -> None:
    with replacing(path) as beside, beside.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
