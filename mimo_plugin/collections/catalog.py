"""What collections there are: the packaged ones, and ir_datasets' multilingual families."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mimo_plugin.collections.packaged import LANGUAGES, SAMPLE, descriptions

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
