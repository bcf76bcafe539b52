"""What `mimo collections` says: the known collections, and one of them in detail."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mimo_plugin.collections.loading import load
from mimo_plugin.collections.packaged import LANGUAGES, SAMPLE, descriptions
from mimo_plugin.collections.pool import collection_key, load_pool, pool_prefixes
from mimo_plugin.collections.reading import PARTS, MissingFile, missing_files, read
from mimo_plugin.collections.records import pooled_id, text_fields, usual_language
from mimo_plugin.core.errors import DataError, Problems

_SAMPLE_CHARACTERS = 160


@dataclass(frozen=True)
class Part:
    """Documents, queries or qrels of a collection.

    Attributes:
        facts: lines such as ("fields", "title, text").
        count: number of records; None where they were not counted.
        missing: files that are not on this machine; nothing was read then.
    """

    facts: tuple[tuple[str, str], ...]
    count: int | None
    missing: tuple[MissingFile, ...]


def describe(specs: Sequence[str], *, count: bool = False) -> str:
    """Describes collections, and the prefixes of their ids where there are several.

    Without `count` only files that are on this machine are read, and of the documents only the first.

    Args:
        count: read every document, downloading what is missing.

    Raises:
        DataError: with every problem of every collection.
    """
    problems = Problems(DataError)
    blocks = []
    for spec in specs:
        try:
            blocks.append("\n".join(_block(spec, count=count)))
        except DataError as error:
            problems.extend(str(error).splitlines())
    problems.raise_any()
    if len(specs) > 1:
        blocks.append(_ids_text(specs))
    return "\n\n".join(blocks)


def _ids_text(specs: Sequence[str]) -> str:
    try:
        prefixes = pool_prefixes(specs)
    except DataError as error:
        return f"Not to be used as one pool: {error}"
    return "\n".join(
        [
            "Ids as one pool",
            *(f"  {spec:<24} {pooled_id(prefixes[collection_key(spec)], 'ID')}" for spec in specs),
        ]
    )


def _block(spec: str, *, count: bool) -> Iterator[str]:
    dataset = load(spec)
    yield spec
    for part, title in PARTS.items():
        if not dataset.has(part):
            yield f"  {title:<10} none"
            continue
        found = _part(dataset, part, spec, count=count)
        total = "not counted (--count counts)" if found.count is None else f"{found.count:,}"
        yield f"  {title:<10} {total if not found.missing else _missing_text(found.missing)}"
        for name, value in found.facts:
            yield f"    {name:<10} {value}"


def _part(dataset: Any, part: str, spec: str, *, count: bool) -> Part:
    missing = () if count else tuple(missing_files(getattr(dataset, f"{part}_handler")()))
    if part == "docs":
        return _docs(dataset, spec, missing, count=count)
    return _queries(dataset, spec, missing) if part == "queries" else _qrels(dataset, spec, missing)


def _docs(dataset: Any, spec: str, missing: tuple[MissingFile, ...], *, count: bool) -> Part:
    facts = []
    total = None
    lang = usual_language(dataset.docs_lang())
    if count:
        languages = Counter(doc.lang for doc in load_pool([spec], pooled=False).docs_iter())
        total = languages.total()
        facts.append(("language", _languages(languages)))
    else:
        facts.append(("language", lang or "that of each record"))
    facts.append(("fields", ", ".join(text_fields(dataset.docs_cls()))))
    if not missing:
        for record in islice(read(dataset, "docs", spec), 1):
            facts.extend(_sample(record))
    return Part(tuple(facts), total, missing)


def _queries(dataset: Any, spec: str, missing: tuple[MissingFile, ...]) -> Part:
    if missing:
        return Part(
            (("language", usual_language(dataset.queries_lang()) or "that of each record"),), None, missing
        )
    languages: Counter[str] = Counter()
    sample: list[tuple[str, str]] = []
    for query in load_pool([spec], pooled=False).queries_iter():
        languages[query.lang] += 1
        if not sample:
            sample = [("sample", query.query_id), ("  text", _shortened(query.text))]
    return Part((("language", _languages(languages)), *sample), languages.total(), missing)


def _qrels(dataset: Any, spec: str, missing: tuple[MissingFile, ...]) -> Part:
    if missing:
        return Part((), None, missing)
    grades: Counter[int] = Counter()
    judged = set()
    for qrel in load_pool([spec], pooled=False).qrels_iter():
        grades[qrel.relevance] += 1
        judged.add(qrel.query_id)
    text = ", ".join(f"{grade}: {number:,}" for grade, number in sorted(grades.items()))
    return Part((("judged", f"{len(judged):,} queries"), ("relevance", text)), grades.total(), missing)


def _sample(record: Any) -> Iterator[tuple[str, str]]:
    yield "sample", str(record.doc_id)
    for name in record._fields[1:]:
        value = getattr(record, name)
        yield f"  {name}", _shortened(value) if isinstance(value, str) else type(value).__name__


def _languages(languages: Counter[str]) -> str:
    if not languages:
        return "none"
    ordered = sorted(languages.items(), key=lambda item: (not item[0], item[0]))
    return ", ".join(f"{lang or 'unknown'} {count:,}" for lang, count in ordered)


def _shortened(text: str) -> str:
    line = " ".join(text.split()) or "(empty)"
    return line if len(line) <= _SAMPLE_CHARACTERS else f"{line[:_SAMPLE_CHARACTERS]}..."


def _missing_text(missing: tuple[MissingFile, ...]) -> str:
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"not on this machine, downloaded on first use to {missing[0].place}{more}"


# The families with one collection a language; which languages and splits they have is the registry's to say.
FAMILIES = {
    "miracl": "MIRACL: Wikipedia passages, monolingual topics",
    "mr-tydi": "Mr. TyDi: Wikipedia passages, monolingual topics, no titles",
    "mmarco": "mMARCO: MS MARCO passages and queries, machine-translated (v2: Google; dt is nl, Dutch)",
    "neuclir": "NeuCLIR: web news, English topics",
    "hc4": "HC4: web news, English topics",
    "neumarco": "NeuMARCO: MS MARCO passages, machine-translated, English queries",
    "wikiclir": "WikiCLIR: Wikipedia articles, English queries",
}
_LANGUAGE = re.compile(r"[a-z]{2}(-[a-z]+)?")
_WIDTH = 100

FOLDERS = """\
A folder of your own
  path:DIR         corpus.jsonl    {"_id": "d1", "title": "...", "text": "...", "lang": "de"}
                   queries.jsonl   {"_id": "q1", "text": "...", "lang": "de"}
                   qrels/test.tsv  the header query-id, corpus-id, score, then a judgment a line, tabs between
                   title and lang may be left out
  path:DIR#SPLIT   takes qrels/SPLIT.tsv instead of qrels/test.tsv, and the queries that it judges
  The paper's benchmark files work as well: corpus.jsonl {"d1": {"text": "...", "lang": "de"}} and
  qrels.jsonl {"q1": {"d1": 1}}. Each file may be gzipped (.gz).
  hub:OWNER/NAME[@REVISION][/FOLDER] is such a folder in a dataset repository of the Hugging Face hub.
  For topics and qrels alone, a file: lines of id, tab and text, or of a TREC qrels file.

Several collections given together are one pool: ids become LANG:ID, in the index, in runs and in qrels.
Where two of them share a language, or one has several, the collection's id takes the language's place."""


@dataclass(frozen=True)
class Row:
    """Ids of one family that differ in their language only.

    Attributes:
        pattern: such as `miracl/LANG`, or an id without a language in it.
        splits: what may follow the pattern, with a star where there are no qrels; "" is nothing.
        languages: what may take the place of LANG.
    """

    pattern: str
    splits: tuple[str, ...]
    languages: tuple[str, ...]


def family_rows(family: str, has_qrels: Mapping[str, bool]) -> list[Row]:
    """Groups a family's ids, each with whether it has qrels, by their pattern and splits."""
    splits: dict[tuple[str, str], list[str]] = {}
    for name, judged in has_qrels.items():
        parts = name.split("/")
        if parts[0] != family:
            continue
        place = next((i for i, part in enumerate(parts) if i and _LANGUAGE.fullmatch(part)), len(parts))
        lang = parts[place] if place < len(parts) else ""
        pattern = "/".join([*parts[:place], "LANG"] if lang else parts)
        split = "/".join(parts[place + 1 :])
        splits.setdefault((pattern, lang), []).append(split if judged or not split else f"{split}*")
    rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (pattern, lang), own in splits.items():
        rows.setdefault((pattern, tuple(sorted(own))), []).append(lang)
    return [Row(pattern, own, tuple(languages)) for (pattern, own), languages in sorted(rows.items())]


def catalog_text() -> str:
    """What `mimo collections` shows; only the packaged sample and ir_datasets' registry are read."""
    import ir_datasets
    from ir_datasets.util import home_path

    documents = sum(len(row.long) for row in descriptions())
    lines = [
        "Packaged, nothing to download",
        f"  {SAMPLE:<18} Debian package descriptions, one parallel collection: {documents:,} documents in "
        f"{len(LANGUAGES)} languages",
        f"  {SAMPLE + '/LANG':<18} one language of it: {' '.join(LANGUAGES)}",
        "",
        f"From ir_datasets, downloaded on first use to {home_path()}  (* = topics without qrels)",
    ]
    known = {
        name: ir_datasets.registry[name].has_qrels()
        for name in ir_datasets.registry
        if name.split("/")[0] in FAMILIES and _holds_something(ir_datasets.registry[name])
    }
    for family, title in FAMILIES.items():
        lines.append(f"  {title}")
        for row in family_rows(family, known):
            lines.extend(_row_lines(row))
    lines.append("  Every other id of ir_datasets works too: https://ir-datasets.com")
    return "\n".join([*lines, "", FOLDERS])


def _holds_something(dataset: object) -> bool:
    return any(dataset.has(part) for part in ("docs", "queries", "qrels"))  # type: ignore[attr-defined]


def _row_lines(row: Row) -> list[str]:
    splits = [split for split in row.splits if split]
    head = f"    {row.pattern}[/SPLIT]   SPLIT: {' '.join(splits)}" if splits else f"    {row.pattern}"
    languages = [language for language in row.languages if language]
    return [head, *_wrapped(languages, indent=8)] if languages else [head]


def _wrapped(words: Iterable[str], indent: int) -> list[str]:
    lines = [" " * indent]
    for word in words:
        if len(lines[-1]) + len(word) >= _WIDTH:
            lines.append(" " * indent)
        lines[-1] += word + " "
    return [line.rstrip() for line in lines]
