"""Makes training data and collections from Debian's package descriptions."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

from mimo_plugin.collections.records import pooled_id
from mimo_plugin.core.artifact import BUILDING, Artifact, FileRecord, Kind, Manifest, differences
from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.core.files import replacing, sha256, writing
from mimo_plugin.data.debian.archive import (
    Dropped,
    Row,
    check_apt,
    clean,
    read_archive,
    read_tables,
    write_table,
)
from mimo_plugin.data.debian.split import excluded_texts, split_rows
from mimo_plugin.data.options import LANGUAGES, CollectionOptions, DebianOptions, Split, language_code
from mimo_plugin.data.sources import collection_identity
from mimo_plugin.data.statistics import counts_table, opening, statistics_text
from mimo_plugin.data.writers import PairsWriter, TableWriter
from mimo_plugin.training.data import DataManifest, open_pairs, open_table

FORMAT: Final = "mimo-debian"
TABLE_FILE, PAIRS, TABLE = "table.jsonl.gz", "pairs", "table"


@dataclass(frozen=True)
class CollectionCounts:
    """Size of a collection.

    Attributes:
        documents, queries: language -> number.
        judgments: number of relevant pairs.
    """

    documents: dict[str, int]
    queries: dict[str, int]
    judgments: int


class DebianManifest(Manifest):
    """Manifest of a directory of `mimo data debian`.

    Attributes:
        parameters: options and SHA-256 of given tables; they reproduce the data.
        source: names and hashes of tables, and the archive's suites with their release dates.
        descriptions: split -> language -> number of descriptions.
        pairs, table: rows of the training data; 0 with `--test-only`.
        collections: split -> size of its MLIR collection.
        dropped: reason -> language -> number of texts left out.
    """

    format: Literal["mimo-debian"] = FORMAT
    format_version: Literal[1] = 1
    parameters: dict[str, Any]
    source: dict[str, Any]
    descriptions: dict[str, dict[str, int]]
    pairs: int
    table: int
    collections: dict[str, CollectionCounts]
    dropped: dict[str, dict[str, int]]
    versions: dict[str, str]


_KIND = Kind(
    manifest=DebianManifest,
    formats=frozenset({FORMAT}),
    noun="data of Debian's descriptions",
    command="mimo data debian",
    names=re.compile(rf"{re.escape(TABLE_FILE)}|{PAIRS}|{TABLE}|dev|test"),
    mark=BUILDING,
    mark_is_folder=True,
    again="make it again with --overwrite",
)


def debian_directory(path: Path) -> Artifact[DebianManifest]:
    """A directory for the data of `mimo data debian`."""
    return Artifact(path, _KIND)


def check_options(options: DebianOptions) -> None:
    """Raises a UsageError with all contradictions between options."""
    with Problems(UsageError) as problems:
        if options.main is not None and options.sources:
            problems.add("--source and --from-table: two sources of descriptions, expected one")
        if options.test_only and options.given:
            named = " and ".join(f"--{split}-table" for split in options.given)
            problems.add(f"--test-only takes all descriptions of one source, expected no {named}")
        elif sum(options.shares.values()) >= 1 and not options.test_only:
            named = " and ".join(f"--{split}-share {share:g}" for split, share in options.shares.items())
            problems.add(f"{named}: no training data is left, expected shares that add up to less than 1")
        try:
            codes = Counter(options.codes or map(language_code, LANGUAGES))
        except DataError as error:
            problems.add(str(error))
            return
        problems.extend(
            f"language {code!r} was given {count} times, expected each once (the country is ignored)"
            for code, count in codes.items()
            if count > 1
        )
        if options.main is not None and not options.languages:
            return
        if options.anchor not in codes and not options.test_only:
            problems.add(f"--anchor {options.anchor} is not among the languages: {' '.join(codes)}")
        if options.main is None and "en" not in codes:
            problems.add("'en' is not among the languages: translations refer to the English text")
        if len(codes) < 2:
            problems.add(f"one language ({' '.join(codes)}), expected two or more")


def _parameters(options: DebianOptions, hashes: Mapping[str, str]) -> dict[str, Any]:
    """Everything that determines the data, in the JSON types of a manifest."""
    trained = {
        "anchor": options.anchor,
        "identity": options.identity,
        "exclude": [collection_identity(spec) for spec in options.exclude],
    }
    common = {
        "languages": list(options.languages) or None,
        **({"test_only": True} if options.test_only else trained),
        "tables": dict(hashes),
        **({} if options.test_only else asdict(options.split)),
        **asdict(options.collections),
    }
    if options.main is not None:
        return common
    archive = {"languages": list(options.languages or LANGUAGES), "sources": list(options.sources)}
    return {**common, **archive, **asdict(options.cleaning)}


def make_debian(output: Path, options: DebianOptions) -> tuple[DebianManifest, bool]:
    """Makes `pairs/`, `table/`, the collections `dev/` and `test/`, and `table.jsonl.gz`.

    With `options.test_only`, all descriptions are in `test/`, and there are no `pairs/`, `table/` and `dev/`.

    Returns:
        The manifest; and False if the data was finished before.

    Raises:
        UsageError, DataError, EnvironmentProblem: with all problems of options, tables and machine.
        ArtifactError: the directory holds something else, or data made with other options.
    """
    directory = debian_directory(output)
    problems = Problems()
    with problems.collect():
        check_options(options)
    with problems.collect():
        directory.check_output()
    with problems.collect():
        hashes = _hashes(options.tables)
    if options.main is None:
        with problems.collect():
            check_apt()
    with problems.collect():
        excluded = {} if options.test_only else excluded_texts(options.exclude)
    problems.raise_any()
    parameters = _parameters(options, hashes)
    found = None if options.overwrite else directory.finished()
    if found is not None:
        directory.refuse(list(differences(parameters, found.parameters).values()))
        return found, False
    with directory.building() as work:
        manifest = _build(work, options, parameters, excluded)
        directory.publish(manifest)
    return manifest, True


def _hashes(tables: Mapping[str, Path]) -> dict[str, str]:
    hashes = {}
    with Problems() as problems:
        for name, path in tables.items():
            try:
                hashes[name] = sha256(path)
            except OSError as error:
                problems.add(
                    f"{path}: cannot be read ({error.strerror or error}), expected a table as `mimo data "
                    f"debian` writes it ({TABLE_FILE})"
                )
    return hashes


def _build(
    work: Path, options: DebianOptions, parameters: dict[str, Any], excluded: Mapping[str, str]
) -> DebianManifest:
    tables, unread = read_tables(list(options.tables.values()), options.codes)
    unclean: Dropped = {}
    source: dict[str, Any] = {}
    if options.main is None:
        rows, releases = read_archive(
            options.languages or LANGUAGES, options.sources, progress=options.progress
        )
        main, unclean = clean(rows, options.cleaning)
        source["archive"] = [release._asdict() for release in releases]
    else:
        main = tables.pop(0)
    source["tables"] = {
        name: {"file": path.name, "sha256": parameters["tables"][name]}
        for name, path in options.tables.items()
    }
    given = dict(zip(options.given, tables, strict=True))
    splits: dict[Split, list[Row]] = {Split.TEST: main}
    left_out: Dropped = {}
    if not options.test_only:
        splits, left_out = split_rows(main, given, excluded, options.split)
    _check_splits(splits, options)

    with writing(work):
        write_table(work / TABLE_FILE, main)
    trained: list[DataManifest] = []
    if not options.test_only:
        train = splits[Split.TRAIN]
        origin: dict[str, Any] = {"anchor": options.anchor, "parameters": parameters, "source": source}
        trained = [
            _write_pairs(PairsWriter(work / PAIRS, **origin), train, options),
            write_aligned(TableWriter(work / TABLE, **origin), train),
        ]
    collections = {
        str(split): _write_collection(work / split, split, splits[split], options.collections)
        for split in options.evaluated
    }
    dropped: Dropped = {}
    unwritten = {
        f"{made.format.noun}: {reason}": Counter(counts)
        for made in trained
        for reason, counts in made.dropped.items()
    }
    for counts in (unread, unclean, left_out, unwritten):
        for reason, found in counts.items():
            dropped.setdefault(reason, Counter()).update(found)
    return DebianManifest(
        parameters=parameters,
        source=source,
        descriptions={str(split): _languages(rows) for split, rows in splits.items() if rows},
        pairs=trained[0].rows if trained else 0,
        table=trained[1].rows if trained else 0,
        collections=collections,
        dropped={reason: dict(sorted(found.items())) for reason, found in dropped.items() if found},
        files={
            str(path.relative_to(work)): FileRecord.of(path)
            for path in sorted(work.rglob("*"))
            if path.is_file()
        },
        versions={"mimo-plugin": version("mimo-plugin")},
    )


def _check_splits(splits: Mapping[Split, Sequence[Row]], options: DebianOptions) -> None:
    """Raises a DataError if a split would be empty."""
    limits = options.collections
    with Problems() as problems:
        if not (options.test_only or any(options.anchor in row.text for row in splits[Split.TRAIN])):
            problems.add(
                f"none of the {len(splits[Split.TRAIN]):,} training descriptions has a text in the anchor "
                f"language {options.anchor!r}: check --anchor, the shares, --exclude and the tables"
            )
        for split in options.evaluated:
            if not any(_queries(splits[split], limits)):
                most = max((len(row.text) for row in splits[split]), default=0)
                problems.add(
                    f"{split}: no query among its {len(splits[split]):,} descriptions, which have at most "
                    f"{most} languages; --min-doc-languages is {limits.min_doc_languages}, "
                    f"--min-query-languages {limits.min_query_languages}: lower them"
                    + ("" if options.test_only else f", or set --{split}-share 0")
                )


def _write_pairs(writer: PairsWriter, rows: Sequence[Row], options: DebianOptions) -> DataManifest:
    """Writes short and long texts with those of the anchor language, without repeated pairs."""
    seen: set[tuple[str, str, str]] = set()
    with writer:
        for row in rows:
            anchors = row.text.get(options.anchor)
            for lang, texts in row.text.items():
                if anchors is None:
                    writer.drop("no text in the anchor language", lang, len(texts))
                    continue
                if lang == options.anchor and not options.identity:
                    continue
                for text, anchor_text in zip(texts, anchors, strict=True):
                    pair = (text, lang, anchor_text)
                    if pair in seen:
                        writer.drop("the same pair before", lang)
                    else:
                        seen.add(pair)
                        writer.add(*pair)
    return writer.manifest


def write_aligned(writer: TableWriter, rows: Sequence[Row]) -> DataManifest:
    """Writes one row per description: short texts are the queries, long texts the passages."""
    with writer:
        for row in rows:
            writer.add(row.id, row.id, {lang: (short, long) for lang, (short, long) in row.text.items()})
    return writer.manifest


def _write_collection(
    directory: Path, split: str, rows: Sequence[Row], limits: CollectionOptions
) -> CollectionCounts:
    """Writes `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`.

    Ids are `lang:id`, so versions of one text are parallel. Every language version of a long text is relevant
    to every version of its short text.
    """
    documents = [row for row in rows if len(row.text) >= limits.min_doc_languages]
    queries = list(_queries(rows, limits))
    with writing(directory):
        (directory / "qrels").mkdir(parents=True)
    _write_lines(directory / "corpus.jsonl", _records(documents, "long"))
    _write_lines(directory / "queries.jsonl", _records(queries, "short"))
    _write_lines(directory / "qrels" / f"{split}.tsv", _judgments(queries))
    judgments = sum(len(row.text) ** 2 for row in queries)
    return CollectionCounts(_languages(documents), _languages(queries), judgments)


def _queries(rows: Iterable[Row], limits: CollectionOptions) -> Iterator[Row]:
    least = max(limits.min_doc_languages, limits.min_query_languages)
    return (row for row in rows if len(row.text) >= least)


def _records(rows: Iterable[Row], part: str) -> Iterator[str]:
    for row in rows:
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


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with replacing(path) as beside, beside.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def report(directory: Path, manifest: DebianManifest, *, new: bool, statistics: bool) -> str:
    """The command's summary; `statistics` adds rows per language and language pair, and reads the data."""
    origins = [
        f"from {release['site']} {release['suite']} ({' '.join(release['components'])}), "
        f"{release['version'] or 'no version'}, {release['date'] or 'no date'}"
        for release in manifest.source.get("archive", ())
    ]
    origins += [f"{name} from {table['file']}" for name, table in manifest.source["tables"].items()]
    parts = []
    if manifest.pairs:
        parts = [
            f"stage 1  {directory / PAIRS}: {manifest.pairs:,} pairs",
            f"stage 2  {directory / TABLE}: {manifest.table:,} rows",
        ]
    for split, counts in manifest.collections.items():
        documents, queries = sum(counts.documents.values()), sum(counts.queries.values())
        parts.append(
            f"{split:<8} path:{directory / split}: {documents:,} documents, {queries:,} queries, "
            f"{counts.judgments:,} relevant pairs"
        )
    blocks = [
        opening(directory, new),
        "\n".join(origins),
        "Descriptions\n" + counts_table(manifest.descriptions),
        "\n".join(parts),
    ]
    if manifest.dropped:
        blocks.append("Texts left out\n" + counts_table(manifest.dropped))
    if statistics and manifest.pairs:
        blocks.append(statistics_text(open_pairs(directory / PAIRS)))
        blocks.append(statistics_text(open_table(directory / TABLE)))
    return "\n\n".join(blocks)
