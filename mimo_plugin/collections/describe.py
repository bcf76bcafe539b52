"""The texts of `mimo collections`: the known collections, and details of given ones."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mimo_plugin.collections.loading import open_collection
from mimo_plugin.collections.packaged import LANGUAGES, SAMPLE, descriptions
from mimo_plugin.collections.pool import collection_key, load, pool_prefixes
from mimo_plugin.collections.reading import PARTS, missing_files, read
from mimo_plugin.collections.records import pooled_id, text_fields, usual_language
from mimo_plugin.core.errors import DataError, Problems


def describe(specs: Sequence[str], *, count: bool = False) -> str:
    """Describes collections, and the prefixes of their ids if there are several.

    Without `count` only files on this machine are read, and only the first document.

    Args:
        count: read every document, and download missing files.

    Raises:
        DataError: with all problems of all collections.
    """
    problems = Problems()
    blocks = []
    for spec in specs:
        with problems.collect():
            blocks.append("\n".join(_lines(spec, count)))
    problems.raise_any()
    if len(specs) > 1:
        try:
            prefixes = pool_prefixes(specs)
        except DataError as error:
            blocks.append(f"Cannot be used as one pool: {error}")
        else:
            ids = {spec: pooled_id(prefixes[collection_key(spec)], "ID") for spec in specs}
            blocks.append("\n".join(["Ids as one pool", *(f"  {spec:<24} {ids[spec]}" for spec in specs)]))
    return "\n\n".join(blocks)


def _lines(spec: str, count: bool) -> Iterator[str]:
    dataset = open_collection(spec)
    yield spec
    for part, title in PARTS.items():
        if not dataset.has(part):
            yield f"  {title:<10} none"
            continue
        missing = [] if count else missing_files(getattr(dataset, f"{part}_handler")())
        if part == "docs":
            total, facts = _docs(dataset, spec, bool(missing), count)
        elif missing:
            total, facts = None, {}
            if part == "queries":
                facts["language"] = usual_language(dataset.queries_lang()) or "that of each record"
        else:
            total, facts = _queries(spec) if part == "queries" else _qrels(spec)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            yield f"  {title:<10} not on this machine, downloaded on first use to {missing[0].place}{more}"
        else:
            yield f"  {title:<10} {'not counted (--count counts)' if total is None else f'{total:,}'}"
        for name, value in facts.items():
            yield f"    {name:<10} {value}"


def _docs(dataset: Any, spec: str, missing: bool, count: bool) -> tuple[int | None, dict[str, str]]:
    """The number of documents, if counted, and facts about them."""
    facts = {"language": usual_language(dataset.docs_lang()) or "that of each record"}
    total = None
    if count:
        languages = Counter(doc.lang for doc in load(spec, pooled=False).docs_iter())
        total = languages.total()
        facts["language"] = _languages(languages)
    facts["fields"] = ", ".join(text_fields(dataset.docs_cls()))
    for record in () if missing else islice(read(dataset, "docs", spec), 1):
        facts["sample"] = str(record.doc_id)
        for name in record._fields[1:]:
            value = getattr(record, name)
            facts[f"  {name}"] = _shortened(value) if isinstance(value, str) else type(value).__name__
    return total, facts


def _queries(spec: str) -> tuple[int, dict[str, str]]:
    languages: Counter[str] = Counter()
    sample: dict[str, str] = {}
    for query in load(spec, pooled=False).queries_iter():
        languages[query.lang] += 1
        sample = sample or {"sample": query.query_id, "  text": _shortened(query.text)}
    return languages.total(), {"language": _languages(languages), **sample}


def _qrels(spec: str) -> tuple[int, dict[str, str]]:
    grades: Counter[int] = Counter()
    judged = set()
    for qrel in load(spec, pooled=False).qrels_iter():
        grades[qrel.relevance] += 1
        judged.add(qrel.query_id)
    relevance = ", ".join(f"{grade}: {number:,}" for grade, number in sorted(grades.items()))
    return grades.total(), {"judged": f"{len(judged):,} queries", "relevance": relevance}


def _languages(languages: Counter[str]) -> str:
    ordered = sorted(languages.items(), key=lambda item: (not item[0], item[0]))
    return ", ".join(f"{lang or 'unknown'} {count:,}" for lang, count in ordered) or "none"


def _shortened(text: str) -> str:
    line = " ".join(text.split()) or "(empty)"
    return line if len(line) <= 160 else f"{line[:160]}..."


# Families with one collection per language; ir_datasets' registry has their languages and splits.
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

FOLDERS = """\
A folder of your own
  path:DIR         corpus.jsonl    {"_id": "d1", "title": "...", "text": "...", "lang": "de"}
                   queries.jsonl   {"_id": "q1", "text": "...", "lang": "de"}
                   qrels/test.tsv  the header query-id, corpus-id, score, then a judgment per line, with tabs
                   title and lang may be left out
  path:DIR#SPLIT   takes qrels/SPLIT.tsv instead of qrels/test.tsv, and the queries that it judges
  The paper's benchmark files work as well: corpus.jsonl {"d1": {"text": "...", "lang": "de"}} and
  qrels.jsonl {"q1": {"d1": 1}}. Each file may be gzipped (.gz).
  hub:OWNER/NAME[@REVISION][/FOLDER] is such a folder in a dataset repository of the Hugging Face hub.
  For topics and qrels alone, a file: lines of id, tab and text, or of a TREC qrels file.

Several collections given together are one pool: ids become LANG:ID, in the index, in runs and in qrels.
Where two of them share a language, or one has several, the collection's id takes the language's place."""


@dataclass(frozen=True)
class FamilyRow:
    """Ids of one family that differ only in their language.

    Attributes:
        pattern: such as `miracl/LANG`, or an id without a language.
        splits: that may follow the pattern, with a star if there are no qrels; "" is no split.
        languages: that may replace LANG.
    """

    pattern: str
    splits: tuple[str, ...]
    languages: tuple[str, ...]


def family_rows(family: str, has_qrels: Mapping[str, bool]) -> list[FamilyRow]:
    """Groups a family's ids by pattern and splits; `has_qrels`: id -> whether it has qrels."""
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
    return [FamilyRow(pattern, own, tuple(languages)) for (pattern, own), languages in sorted(rows.items())]


def catalog_text() -> str:
    """The list of `mimo collections`; reads only the packaged sample and ir_datasets' registry."""
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
        if name.split("/")[0] in FAMILIES and any(map(ir_datasets.registry[name].has, PARTS))
    }
    for family, title in FAMILIES.items():
        lines.append(f"  {title}")
        for row in family_rows(family, known):
            splits = " ".join(filter(None, row.splits))
            lines.append(f"    {row.pattern}[/SPLIT]   SPLIT: {splits}" if splits else f"    {row.pattern}")
            languages = " ".join(filter(None, row.languages))
            lines += textwrap.wrap(languages, 100, initial_indent=" " * 8, subsequent_indent=" " * 8)
    lines.append("  Every other id of ir_datasets works too: https://ir-datasets.com")
    return "\n".join([*lines, "", FOLDERS])
