"""What `mimo data aligned` does: parallel collections, one a language, become the table of stage 2."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimo_plugin.collections import load_pool
from mimo_plugin.collections.languages import usual_language
from mimo_plugin.data.aligned_specs import Member, check_members
from mimo_plugin.data.aligned_texts import AlignedTexts, Part
from mimo_plugin.data.directory import UNFINISHED, check_output, finished
from mimo_plugin.data.identity import collection_identity
from mimo_plugin.data.manifest import Format, Made
from mimo_plugin.data.positives import Positives, read_positives
from mimo_plugin.data.writers import TableWriter
from mimo_plugin.errors import DataError, Findings, Problems, UsageError
from mimo_plugin.progress import bar

# Why a language is left out of a row, or a row out of the table; what reports call it.
NO_QUERY, NO_PASSAGE = "query missing", "passage missing"
EMPTY, LONG = "empty", "too long"
INCOMPLETE = "row not in every language"


@dataclass(frozen=True)
class AlignedOptions:
    """Attributes:
    anchor: language of the texts that the teacher sees; rows without it are left out.
    positives: None takes the triples where there are any, else the qrels.
    positives_from: language whose collection has them; None: the first one that is not the anchor's.
    require_all: leave out rows that lack a language.
    max_characters: of a query or passage; a language with a longer one is left out of the row.
    overwrite: replace what another command wrote to the output.
    """

    anchor: str = "en"
    positives: Positives | None = None
    positives_from: str | None = None
    require_all: bool = False
    max_characters: int | None = None
    overwrite: bool = False
    progress: bool | None = None


def make_table(members: Sequence[Member], output: Path, options: AlignedOptions | None = None) -> Made:
    """Aligns the positive (query, passage) pairs over languages by their ids and writes a table of them.

    Each collection is read once. Memory holds the ids of the positive pairs; the texts wait in a file beside
    the output. A text that a collection lacks is counted, and the language left out of its rows.

    Raises:
        DataError: collections that cannot be read, no positive passages, a language without any row.
        ArtifactError, UsageError: the output, see `finished`; options that make no sense.
    """
    options = options or AlignedOptions()
    findings = Findings()
    chosen = findings.attempt(
        check_members,
        members,
        options.anchor,
        positives=options.positives,
        positives_from=options.positives_from,
    )
    findings.attempt(check_output, output)
    if options.max_characters is not None and options.max_characters < 1:
        findings.add(UsageError, [f"at most {options.max_characters} characters a text: expected 1 or more"])
    judge, kind = findings.complete(chosen)
    parameters = {"require_all": options.require_all, "max_characters": options.max_characters}
    source = {
        "collections": {member.lang: collection_identity(member.spec) for member in members},
        "positives": {"kind": kind, "collection": judge.spec},
    }
    done = finished(
        output,
        Format.TABLE,
        anchor=options.anchor,
        parameters=parameters,
        source=source,
        overwrite=options.overwrite,
    )
    if done is not None:
        return Made(done, new=False)
    writer = TableWriter(
        output, anchor=options.anchor, parameters=parameters, source=source, overwrite=options.overwrite
    )
    with writer, AlignedTexts(output / f"texts{UNFINISHED}", len(members)) as texts:
        # In the order in which collections usually have their passages: the file is written and read in it.
        pairs = sorted(read_positives(judge.spec, kind, options.progress), key=_by_number)
        queries = _numbers(query_id for query_id, _ in pairs)
        passages = _numbers(passage_id for _, passage_id in pairs)
        for language, member in enumerate(members):
            texts.fill(Part.QUERIES, language, _wanted(member, Part.QUERIES, queries, options.progress))
            texts.fill(Part.PASSAGES, language, _wanted(member, Part.PASSAGES, passages, options.progress))
        numbered = ((queries[query_id], passages[passage_id]) for query_id, passage_id in pairs)
        joined = zip(pairs, texts.join(numbered), strict=True)
        rows = bar(joined, total=len(pairs), what="writing", unit="rows", enabled=options.progress)
        _write(rows, [member.lang for member in members], options, writer)
    return Made(writer.manifest, new=True)


def _write(rows: Any, langs: Sequence[str], options: AlignedOptions, writer: TableWriter) -> None:
    present: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {lang: Counter() for lang in langs}
    for (query_id, passage_id), texts in rows:
        row: dict[str, tuple[str, str]] = {}
        for lang, (query, passage) in zip(langs, texts, strict=True):
            reason = _reason(query, passage, options.max_characters)
            if reason is not None:
                reasons[lang][reason] += 1
            elif query and passage:
                row[lang] = (query, passage)
        if options.require_all and len(row) < len(langs):
            writer.drop(INCOMPLETE, options.anchor)
        elif writer.add(query_id, passage_id, row):
            present.update(row.keys())
    problems = Problems(DataError)
    for lang, counts in reasons.items():
        for reason, count in counts.items():
            writer.drop(reason, lang, count)
        if not present[lang]:
            why = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
            problems.add(
                f"{lang}: no row has it{f' ({why})' if why else ''}, expected at least one: check that the "
                "collections have the same ids, or leave the language out"
            )
    problems.raise_any()


def _reason(query: str | None, passage: str | None, max_characters: int | None) -> str | None:
    if query is None:
        return NO_QUERY
    if passage is None:
        return NO_PASSAGE
    if not query or not passage:
        return EMPTY
    return LONG if max_characters is not None and max(len(query), len(passage)) > max_characters else None


def _wanted(
    member: Member, part: Part, numbers: Mapping[str, int], progress: bool | None
) -> Iterator[tuple[int, str]]:
    """(number, text) of the collection's records that rows need; the collection is read to its end.

    Raises:
        DataError: one of them says that it is in another language.
    """
    pool = load_pool([member.spec], pooled=False)
    records = pool.queries_iter() if part is Part.QUERIES else pool.docs_iter()
    for record in bar(records, what=f"{member.lang} {part}", unit=part, enabled=progress):
        number = numbers.get(record[0])
        if number is not None:
            if record.lang and usual_language(record.lang) != member.lang:
                raise DataError(
                    f"{member.lang}={member.spec}: {record[0]!r} of its {part} is in {record.lang}, expected "
                    f"{member.lang}: give a collection with one language"
                )
            yield number, record.text.strip()


def _by_number(pair: tuple[str, str]) -> tuple[int, str, int, str]:
    """Orders by passage, then query, and ids of digits as numbers."""
    query_id, passage_id = pair
    return len(passage_id), passage_id, len(query_id), query_id


def _numbers(ids: Iterator[str]) -> dict[str, int]:
    return {identifier: number for number, identifier in enumerate(dict.fromkeys(ids))}
