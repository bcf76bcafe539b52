"""What one collection is: languages, fields, a sample, counts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mimo_plugin.collections.ids import pooled_id
from mimo_plugin.collections.languages import usual_language
from mimo_plugin.collections.loading import load
from mimo_plugin.collections.pool import collection_key, load_pool, pool_prefixes
from mimo_plugin.collections.reading import PARTS, read
from mimo_plugin.collections.sources import MissingFile, missing_files
from mimo_plugin.collections.texts import text_fields
from mimo_plugin.errors import DataError, Problems

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
