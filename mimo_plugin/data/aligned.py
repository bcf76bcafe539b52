"""Stage-2 training data: a table of queries and passages aligned over languages."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mimo_plugin.collections.loading import open_collection, require
from mimo_plugin.collections.pool import load
from mimo_plugin.collections.reading import offline_problem, read
from mimo_plugin.collections.records import usual_language
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, EnvironmentProblem, Problems, UsageError
from mimo_plugin.data.options import AlignedOptions, Positives
from mimo_plugin.data.sources import collection_identity
from mimo_plugin.data.writers import Made, TableWriter
from mimo_plugin.training.data import Format, data_directory

_MMARCO = {"nl": "dt"}
MMARCO_LANGUAGES = ("ar", "de", "es", "fr", "hi", "id", "it", "ja", "nl", "pt", "ru", "vi", "zh")
_ENGLISH = "msmarco-passage/train"


class Member(NamedTuple):
    """A collection and the code of its language in the table."""

    lang: str
    spec: str


def mmarco_members(languages: Sequence[str]) -> list[Member]:
    """English and the named languages of mMARCO v2; "all" takes every language.

    Raises:
        UsageError: a language is not in mMARCO.
    """
    if not languages:
        return []
    named = [usual_language(code) for code in languages]
    wanted = MMARCO_LANGUAGES if "all" in named else tuple(code for code in named if code != "en")
    with Problems(UsageError) as problems:
        problems.extend(
            f"--mmarco {code}: not a language of mMARCO v2, expected all, or some of "
            f"{' '.join(MMARCO_LANGUAGES)}"
            for code in wanted
            if code not in MMARCO_LANGUAGES
        )
    members = [Member(code, f"mmarco/v2/{_MMARCO.get(code, code)}/train") for code in dict.fromkeys(wanted)]
    return [Member("en", _ENGLISH), *members]


def parse_members(specs: Sequence[str], mmarco: Sequence[str] = ()) -> list[Member]:
    """The collections that options name, in order.

    Args:
        specs: LANG=COLLECTION, or COLLECTION if it states its language itself.
        mmarco: see `mmarco_members`.

    Raises:
        MimoError: with all problems of the options.
    """
    members: list[Member] = []
    with Problems() as problems:
        with problems.collect():
            members += mmarco_members(mmarco)
        for spec in specs:
            lang, equals, rest = spec.partition("=")
            if equals and lang.split() == [lang] and rest and not lang.startswith("path:"):
                members.append(Member(usual_language(lang), rest))
                continue
            with problems.collect():
                lang = _own_language(open_collection(spec))
                if not lang:
                    raise UsageError(f"--collection {spec}: has no known language, expected LANG={spec}")
                members.append(Member(lang, spec))
    return members


def check_members(members: Sequence[Member], options: AlignedOptions) -> tuple[str, Positives]:
    """Checks that the collections are available and that a table can be made of them.

    Returns:
        The collection whose triples or qrels name the positive passages, and which of the two it uses: by
        default triples, if there are any. By default it is the first collection that is not the anchor's:
        ir_datasets' triples of msmarco-passage differ from those of mMARCO and the paper.

    Raises:
        MimoError: with all problems of the collections and the options.
    """
    problems = Problems()
    problems.extend(_usage_problems(members, options.anchor, options.positives_from), UsageError)
    with problems.collect():
        require([member.spec for member in members], docs=True, queries=True)
    judges = []
    for member in members:
        try:
            own = _own_language(open_collection(member.spec))
        except DataError:
            continue  # `require` has reported it
        if own and own != member.lang:
            problems.add(f"{member.lang}={member.spec}: its documents are in {own}, expected {member.lang}")
        wanted = options.positives_from
        if member.lang == wanted if wanted else member.lang != options.anchor:
            judges.append(member.spec)
    if judges:
        with problems.collect():
            kind = _positives(judges[0], options.positives)
    problems.raise_any()
    return judges[0], kind


def _usage_problems(members: Sequence[Member], anchor: str, positives_from: str | None) -> Iterator[str]:
    counts = Counter(member.lang for member in members)
    found = ", ".join(counts)
    for lang, count in counts.items():
        if count > 1:
            yield f"{lang}: {count} collections, expected one for each language: leave the others out"
    for spec, count in Counter(member.spec for member in members).items():
        langs = " and ".join(member.lang for member in members if member.spec == spec)
        if count > 1:
            yield f"{spec} was given for {langs}, expected another collection for each language"
    if not members:
        yield "no collection was given, expected --mmarco, or --collection for each language"
    elif anchor not in counts:
        example = f"{anchor}={_ENGLISH if anchor == 'en' else 'COLLECTION'}"
        yield (
            f"no collection in the anchor language {anchor}, found {found}: add --collection {example}, or "
            "choose another --anchor"
        )
    elif len(counts) < 2:
        yield f"only {anchor} was given, expected at least one other language"
    if members and positives_from is not None and positives_from not in counts:
        yield f"--positives-from {positives_from}: expected one of {found}"


def _own_language(dataset: Any) -> str:
    return usual_language((dataset.docs_lang() if dataset.has_docs() else "") or "")


def _positives(spec: str, asked: Positives | None) -> Positives:
    """Whether triples or qrels name a collection's positive passages; raises if files are missing."""
    dataset = open_collection(spec)
    there = [kind for kind in Positives if dataset.has(kind.part)]
    if not there or (asked is not None and asked not in there):
        instead = f"--positives {there[0]}" if there else "--positives-from another language"
        raise DataError(
            f"{spec} has no {asked or 'triples or qrels'} to name the positive passages: give {instead}"
        )
    kind = asked or there[0]
    problem = offline_problem(getattr(dataset, f"{kind.part}_handler")(), "qrels", spec)
    if problem:
        raise DataError(problem)
    return kind


class _TriplesAsQrels:
    """Presents a collection's triples as its qrels, to the reader of qrels."""

    def __init__(self, dataset: Any) -> None:
        self.qrels_handler = dataset.docpairs_handler
        self.qrels_iter = dataset.docpairs_iter


def read_positives(spec: str, kind: Positives, progress: bool | None = None) -> set[tuple[str, str]]:
    """The distinct (query id, passage id) of positive passages: of triples, or of qrels above 0.

    Raises:
        DataError: the file cannot be read, or names no positive passage.
    """
    triples = kind is Positives.TRIPLES
    dataset = open_collection(spec)
    records = read(_TriplesAsQrels(dataset) if triples else dataset, "qrels", spec)
    found = {
        (record.query_id, record.doc_id_a if triples else record.doc_id)
        for record in bar(records, what=f"{kind} of {spec}", unit="lines", enabled=progress)
        if triples or record.relevance > 0
    }
    if not found:
        raise DataError(f"{spec}: its {kind} name no positive passage, expected at least one")
    return found


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    """A temporary SQLite file for the texts; removed when the block ends."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            # The file does not outlive this process.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            yield connection
    except sqlite3.OperationalError as error:
        raise EnvironmentProblem(
            f"cannot write {path}: {error}. Make room or choose another place, and run the command again"
        ) from error
    finally:
        path.unlink(missing_ok=True)


def _fill(connection: sqlite3.Connection, table: str, texts: Iterable[tuple[int, str]]) -> None:
    """Stores (number, text) in a new table, the first text of each number."""
    connection.execute(f"CREATE TABLE {table} (number INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?)", texts)
    connection.commit()


def _join(
    connection: sqlite3.Connection, rows: Iterable[tuple[int, int]], languages: int
) -> Iterator[tuple[tuple[str | None, str | None], ...]]:
    """Yields, for each (query number, passage number), both texts in each language; None if missing."""
    connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, query INTEGER, passage INTEGER)")
    connection.executemany("INSERT INTO rows (query, passage) VALUES (?, ?)", rows)
    connection.commit()
    cursors = [
        connection.execute(
            "SELECT q.text, p.text FROM rows "
            f"LEFT JOIN queries{language} AS q ON q.number = rows.query "
            f"LEFT JOIN passages{language} AS p ON p.number = rows.passage ORDER BY rows.number"
        )
        for language in range(languages)
    ]
    return zip(*cursors, strict=True)


# Reasons for leaving a language out of a row, or a row out of the table, as reports name them.
NO_QUERY, NO_PASSAGE = "query missing", "passage missing"
EMPTY, LONG = "empty", "too long"
INCOMPLETE = "row not in every language"


def make_table(members: Sequence[Member], output: Path, options: AlignedOptions | None = None) -> Made:
    """Aligns the positive (query, passage) pairs over languages by their ids and writes a table of them.

    Each collection is read once. Memory holds the ids of the positive pairs, a temporary file their texts.
    If a collection lacks a text, its language is left out of the row and counted.

    Raises:
        DataError: a collection cannot be read or has no positive passages, or no row has its language.
        ArtifactError, UsageError: the output holds something else; options contradict each other.
    """
    options = options or AlignedOptions()
    problems = Problems()
    with problems.collect():
        data_directory(output, Format.TABLE).check_output()
    with problems.collect():
        judge, kind = check_members(members, options)
    problems.raise_any()
    writer = TableWriter(
        output,
        anchor=options.anchor,
        parameters={"require_all": options.require_all, "max_characters": options.max_characters},
        source={
            "collections": {member.lang: collection_identity(member.spec) for member in members},
            "positives": {"kind": kind, "collection": judge},
        },
        overwrite=options.overwrite,
    )
    done = writer.finished()
    if done is not None:
        return Made(done, new=False)
    with writer, _database(writer.work / "texts.sqlite") as texts:
        # The usual order of passages in collections, so that the file is written and read sequentially.
        pairs = sorted(read_positives(judge, kind, options.progress), key=_by_number)
        queries = _numbers(query_id for query_id, _ in pairs)
        passages = _numbers(passage_id for _, passage_id in pairs)
        for number, member in enumerate(members):
            for part, numbers in (("queries", queries), ("passages", passages)):
                _fill(texts, f"{part}{number}", _wanted(member, part, numbers, options.progress))
        numbered = ((queries[query_id], passages[passage_id]) for query_id, passage_id in pairs)
        joined = _join(texts, numbered, len(members))
        rows = zip(pairs, joined, strict=True)
        shown = bar(rows, total=len(pairs), what="writing", unit="rows", enabled=options.progress)
        _write(shown, [member.lang for member in members], options, writer)
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
    with Problems() as problems:
        for lang, counts in reasons.items():
            for reason, count in counts.items():
                writer.drop(reason, lang, count)
            if not present[lang]:
                why = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
                problems.add(
                    f"{lang}: no row has it{f' ({why})' if why else ''}, expected at least one: check that "
                    "the collections have the same ids, or leave the language out"
                )


def _reason(query: str | None, passage: str | None, max_characters: int | None) -> str | None:
    if query is None:
        return NO_QUERY
    if passage is None:
        return NO_PASSAGE
    if not query or not passage:
        return EMPTY
    return LONG if max_characters is not None and max(len(query), len(passage)) > max_characters else None


def _wanted(
    member: Member, part: str, numbers: Mapping[str, int], progress: bool | None
) -> Iterator[tuple[int, str]]:
    """Yields (number, text) of a collection's queries or passages that are in a positive pair."""
    pool = load(member.spec, pooled=False)
    records = pool.queries_iter() if part == "queries" else pool.docs_iter()
    for record in bar(records, what=f"{member.lang} {part}", unit=part, enabled=progress):
        number = numbers.get(record[0])
        if number is None:
            continue
        if record.lang and usual_language(record.lang) != member.lang:
            raise DataError(
                f"{member.lang}={member.spec}: {record[0]!r} of its {part} is in {record.lang}, expected "
                f"{member.lang}: give a collection with one language"
            )
        yield number, record.text.strip()


def _by_number(pair: tuple[str, str]) -> tuple[int, str, int, str]:
    """Sorts by passage, then query; ids of digits as numbers."""
    query_id, passage_id = pair
    return len(passage_id), passage_id, len(query_id), query_id


def _numbers(ids: Iterator[str]) -> dict[str, int]:
    return {identifier: number for number, identifier in enumerate(dict.fromkeys(ids))}
