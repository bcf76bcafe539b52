"""From Debian's archive to a directory of pairs, a table and two test collections."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

from tabulate import tabulate

from mimo_plugin.core.artifact import FileRecord, SealedRecord, one_writer, parse_manifest, require_files
from mimo_plugin.core.errors import ArtifactError, DataError, Findings, Problems, UsageError
from mimo_plugin.core.files import check_place, remove_tree, sha256, write_text, writing
from mimo_plugin.data.debian.archive import CleaningOptions, check_apt, clean, read_archive
from mimo_plugin.data.debian.split import Split, SplitOptions, excluded_texts, split_rows
from mimo_plugin.data.debian.table import (
    CollectionOptions,
    Counts,
    Origin,
    Row,
    language_code,
    read_tables,
    write_aligned,
    write_collection,
    write_pairs,
    write_table,
)
from mimo_plugin.data.sources import collection_identity

MANIFEST = "manifest.json"
FORMAT: Final = "mimo-debian"


class DebianManifest(SealedRecord):
    """What lies beside it, and what made it.

    Attributes:
        parameters: the options, and the SHA-256 of tables that were given: what makes the same data again.
        source: where the descriptions came from: the tables' names and hashes, or the archive's suites with
            the dates of their releases.
        descriptions: split -> language -> number of descriptions that have it.
        pairs, table: rows of the training data.
        collections: split -> what its MLIR collection holds.
        dropped: reason -> language -> number of texts that were left out for it.
        files: path below the directory -> size and hash.
    """

    format: Literal["mimo-debian"] = FORMAT
    format_version: Literal[1] = 1
    parameters: dict[str, Any]
    source: dict[str, Any]
    descriptions: dict[str, dict[str, int]]
    pairs: int
    table: int
    collections: dict[str, Counts]
    dropped: dict[str, dict[str, int]]
    files: dict[str, FileRecord]
    versions: dict[str, str]

    def write(self, directory: Path) -> None:
        write_text(directory / MANIFEST, self.sealed(indent=2))


def read_manifest(directory: Path) -> DebianManifest:
    """Reads the manifest and checks it against the files beside it.

    Raises:
        ArtifactError: it is none, or the data is incomplete or damaged.
    """
    manifest = parse_manifest(directory / MANIFEST, DebianManifest, "`mimo data debian`")
    require_files(directory, manifest.files, "the data is damaged; make it again with --overwrite")
    return manifest


BUILDING = ".building"
TABLE_FILE, PAIRS, TABLE = "table.jsonl.gz", "pairs", "table"
CONTENT = (TABLE_FILE, PAIRS, TABLE, "dev", "test")


def check_output(directory: Path) -> None:
    """Checks that the directory is new, empty, or what an earlier run of this command left.

    Raises:
        UsageError: it cannot be written to.
        ArtifactError: it holds something else.
    """
    check_place(directory / MANIFEST)
    if not directory.exists():
        return
    names = {path.name for path in directory.iterdir() if not path.name.startswith(".")}
    foreign = sorted(names - {MANIFEST, *CONTENT})
    if foreign:
        raise ArtifactError(
            f"{directory} holds something else ({', '.join(foreign[:5])}): --output must name a new or empty "
            "directory, or one that this command wrote"
        )
    # A run that was killed while it put things in their place leaves its folder.
    ours = _is_ours(directory / MANIFEST) if MANIFEST in names else (directory / BUILDING).is_dir()
    if names and not ours:
        raise ArtifactError(
            f"{directory} holds {', '.join(sorted(names))}, not from this command: --output must name a new "
            "or empty directory, or one that this command wrote"
        )


def _is_ours(manifest: Path) -> bool:
    try:
        found = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


@contextmanager
def building(directory: Path) -> Iterator[Path]:
    """Holds the directory for one writer and yields the folder to make everything in; it is gone after."""
    work = directory / BUILDING
    with one_writer(directory):
        with writing(work):
            if work.exists():
                remove_tree(work)
            work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def publish(work: Path, manifest: DebianManifest) -> None:
    """Puts what was made in its place, and the manifest last."""
    directory = work.parent
    with writing(directory):
        # From here until the manifest is written the directory counts as unfinished.
        (directory / MANIFEST).unlink(missing_ok=True)
        try:
            _remove_content(directory)
            for path in work.iterdir():
                path.rename(directory / path.name)
            manifest.write(directory)
        except BaseException:
            _remove_content(directory)
            raise


def _remove_content(directory: Path) -> None:
    for name in CONTENT:
        path = directory / name
        if path.is_dir():
            remove_tree(path)
        path.unlink(missing_ok=True)


LANGUAGES = ("en", "it", "da", "de", "fr", "sk", "pt_BR", "ja", "ko", "uk", "pl", "ru", "es", "cs")


@dataclass(frozen=True)
class DebianOptions:
    """Attributes:
    languages: the archive's codes; None is `LANGUAGES` from the archive, and all of a table.
    anchor: language of the texts that the teacher sees.
    identity: whether the anchor's texts are paired with themselves.
    sources: lines as in apt's sources.list; none are the machine's own.
    main: a parsed table in the archive's place.
    given: parsed tables that are a split.
    exclude: collections whose descriptions do not train.
    """

    languages: tuple[str, ...] | None = None
    anchor: str = "en"
    identity: bool = True
    sources: tuple[str, ...] = ()
    main: Path | None = None
    given: Mapping[Split, Path] = field(default_factory=dict)
    exclude: tuple[str, ...] = ("mimo-sample",)
    cleaning: CleaningOptions = field(default_factory=CleaningOptions)
    split: SplitOptions = field(default_factory=SplitOptions)
    collections: CollectionOptions = field(default_factory=CollectionOptions)
    overwrite: bool = False
    progress: bool | None = None

    @property
    def codes(self) -> tuple[str, ...] | None:
        """The languages without countries, as in what is written."""
        return None if self.languages is None else tuple(map(language_code, self.languages))

    def tables(self) -> dict[str, Path]:
        """The tables that are read, by what they are."""
        main = {} if self.main is None else {"main": self.main}
        return main | {str(split): path for split, path in self.given.items()}

    def shares(self) -> dict[Split, float]:
        """The shares of dev and test; only those that have no table of their own."""
        shares = {Split.DEV: self.split.dev_share, Split.TEST: self.split.test_share}
        return {split: share for split, share in shares.items() if split not in self.given}

    def evaluated(self) -> list[Split]:
        """The splits that become collections."""
        shares = self.shares()
        return [split for split in (Split.DEV, Split.TEST) if split in self.given or shares[split] > 0]


def check_options(options: DebianOptions) -> None:
    """Raises a UsageError with every contradiction among the options."""
    problems = Problems(UsageError)
    if options.main is not None and options.sources:
        problems.add("--source and --from-table: two places to take the descriptions from, expected one")
    shares = options.shares()
    if sum(shares.values()) >= 1:
        named = " and ".join(f"--{split}-share {share:g}" for split, share in shares.items())
        problems.add(f"{named}: nothing is left to train with, expected shares that add up to less than 1")
    try:
        codes = Counter(options.codes or map(language_code, LANGUAGES))
    except DataError as error:
        problems.add(str(error))
    else:
        problems.extend(
            f"language {code!r} was asked for {count} times, expected each once (the country is not kept)"
            for code, count in codes.items()
            if count > 1
        )
        if options.main is None or options.languages is not None:
            if options.anchor not in codes:
                problems.add(f"--anchor {options.anchor} is not among the languages: {' '.join(codes)}")
            if options.main is None and "en" not in codes:
                problems.add("'en' is not among the languages: translations are known by the English text")
            if len(codes) < 2:
                problems.add(f"one language ({' '.join(codes)}), expected two or more")
    problems.raise_any()


def parameters_of(options: DebianOptions, hashes: Mapping[str, str]) -> dict[str, Any]:
    """What makes the same data again; in JSON's types, as it comes back from a manifest."""
    common = {
        "languages": None if options.languages is None else list(options.languages),
        "anchor": options.anchor,
        "identity": options.identity,
        "exclude": [collection_identity(spec) for spec in options.exclude],
        "tables": dict(hashes),
        **asdict(options.split),
        **asdict(options.collections),
    }
    if options.main is not None:
        return common
    return {
        **common,
        "languages": list(options.languages or LANGUAGES),
        "sources": list(options.sources),
        **asdict(options.cleaning),
    }


Dropped = dict[str, Counter[str]]


def make_debian(output: Path, options: DebianOptions) -> tuple[DebianManifest, bool]:
    """Makes `pairs/`, `table/`, the collections `dev/` and `test/`, and `table.jsonl.gz`.

    Returns:
        The manifest; and whether it was made now, not found finished.

    Raises:
        UsageError, DataError, EnvironmentProblem: what is wrong with the options, the tables, the machine.
        ArtifactError: the directory holds something else, or data made otherwise.
    """
    findings = Findings()
    findings.attempt(check_options, options)
    findings.attempt(check_output, output)
    hashes = findings.attempt(_hashes, options.tables())
    if options.main is None:
        findings.attempt(check_apt)
    excluded = findings.attempt(excluded_texts, options.exclude)
    parameters = parameters_of(options, findings.complete(hashes))
    finished = _finished(output, parameters, overwrite=options.overwrite)
    if finished is not None:
        return finished, False
    with building(output) as work:
        return _build(work, options, parameters, excluded or {}), True


def _build(
    work: Path, options: DebianOptions, parameters: dict[str, Any], excluded: Mapping[str, str]
) -> DebianManifest:
    tables, unread = read_tables(list(options.tables().values()), options.codes)
    unclean: Dropped = {}
    if options.main is None:
        archive = read_archive(options.languages or LANGUAGES, options.sources, progress=options.progress)
        main, unclean = clean(archive.descriptions, options.cleaning)
        source: dict[str, Any] = {"archive": [asdict(release) for release in archive.releases]}
    else:
        main = tables.pop(0)
        source = {}
    given = dict(zip(options.given, tables, strict=True))
    source["tables"] = {
        name: {"file": path.name, "sha256": parameters["tables"][name]}
        for name, path in options.tables().items()
    }
    splits, left_out = split_rows(main, given, excluded, options.split)
    _check_splits(splits, options)

    with writing(work):
        write_table(work / TABLE_FILE, main)
    train = splits[Split.TRAIN]
    origin = Origin(options.anchor, parameters, source)
    pairs = write_pairs(work / PAIRS, train, origin, identity=options.identity)
    aligned = write_aligned(work / TABLE, train, origin)
    collections = {
        str(split): write_collection(work / split, split, splits[split], options.collections)
        for split in options.evaluated()
    }
    unwritten = {
        f"{made.format.noun}: {reason}": Counter(counts)
        for made in (pairs, aligned)
        for reason, counts in made.dropped.items()
    }
    manifest = DebianManifest(
        parameters=parameters,
        source=source,
        descriptions={str(split): _languages(rows) for split, rows in splits.items() if rows},
        pairs=pairs.rows,
        table=aligned.rows,
        collections=collections,
        dropped=_sums(unread, unclean, left_out, unwritten),
        files={
            str(path.relative_to(work)): FileRecord.of(path)
            for path in sorted(work.rglob("*"))
            if path.is_file()
        },
        versions={"mimo-plugin": version("mimo-plugin")},
    )
    publish(work, manifest)
    return manifest


def _hashes(tables: Mapping[str, Path]) -> dict[str, str]:
    problems = Problems(DataError)
    hashes = {}
    for name, path in tables.items():
        try:
            hashes[name] = sha256(path)
        except OSError as error:
            problems.add(
                f"{path}: cannot be read ({error.strerror or error}), expected a table as `mimo data debian` "
                f"writes it ({TABLE_FILE})"
            )
    problems.raise_any()
    return hashes


def _finished(output: Path, parameters: Mapping[str, Any], *, overwrite: bool) -> DebianManifest | None:
    if overwrite or not (output / MANIFEST).exists():
        return None
    manifest = read_manifest(output)
    there = manifest.parameters
    differences = [
        f"{name} is {parameters.get(name)!r}, there it is {there.get(name)!r}"
        for name in sorted({*parameters, *there})
        if parameters.get(name) != there.get(name)
    ]
    if differences:
        raise ArtifactError(
            f"{output} holds data made otherwise ({'; '.join(differences)}): choose another --output, give "
            "the same options, or replace it with --overwrite"
        )
    return manifest


def _check_splits(splits: Mapping[Split, Sequence[Row]], options: DebianOptions) -> None:
    """Raises a DataError, before anything is written, where a split would be empty."""
    problems = Problems(DataError)
    if not any(options.anchor in row.text for row in splits[Split.TRAIN]):
        problems.add(
            f"none of the {len(splits[Split.TRAIN]):,} descriptions to train with has a text in the anchor "
            f"language {options.anchor!r}: see --anchor, the shares, --exclude and the tables"
        )
    limits = options.collections
    for split in options.evaluated():
        if not limits.queries(splits[split]):
            most = max((len(row.text) for row in splits[split]), default=0)
            problems.add(
                f"{split}: no query among its {len(splits[split]):,} descriptions, the most languages that "
                f"one has are {most} and --min-doc-languages is {limits.min_doc_languages}, "
                f"--min-query-languages {limits.min_query_languages}: lower them, or set --{split}-share 0"
            )
    problems.raise_any()


def _sums(*dropped: Dropped) -> dict[str, dict[str, int]]:
    sums: Dropped = {}
    for counts in dropped:
        for reason, found in counts.items():
            sums.setdefault(reason, Counter()).update(found)
    return {reason: dict(sorted(found.items())) for reason, found in sums.items() if found}


def _languages(rows: Sequence[Row]) -> dict[str, int]:
    return dict(sorted(Counter(lang for row in rows for lang in row.text).items()))


def report(directory: Path, manifest: DebianManifest, *, new: bool, statistics: bool) -> str:
    """A summary of the data.

    Args:
        new: False where the command found it finished.
        statistics: with rows per language and per pair of languages, for which the data is read.
    """
    blocks = [
        f"{directory}: {'written' if new else 'finished before, made from the same; left as it is'}",
        "\n".join(_source(manifest)),
        "Descriptions\n" + _matrix(manifest.descriptions),
        "\n".join(_parts(directory, manifest)),
    ]
    if manifest.dropped:
        blocks.append("Texts left out\n" + _matrix(manifest.dropped))
    if statistics:
        from mimo_plugin.data.statistics import statistics_text
        from mimo_plugin.training.data import open_pairs, open_table

        blocks += [
            statistics_text(open_pairs(directory / PAIRS)),
            statistics_text(open_table(directory / TABLE)),
        ]
    return "\n\n".join(blocks)


def _source(manifest: DebianManifest) -> Sequence[str]:
    releases = [
        f"from {release['site']} {release['suite']} ({' '.join(release['components'])}), "
        f"{release['version'] or 'no version'}, {release['date'] or 'no date'}"
        for release in manifest.source.get("archive", ())
    ]
    tables = [f"{name} from {table['file']}" for name, table in manifest.source["tables"].items()]
    return [*releases, *tables]


def _parts(directory: Path, manifest: DebianManifest) -> Sequence[str]:
    lines = [
        f"stage 1  {directory / PAIRS}: {manifest.pairs:,} pairs",
        f"stage 2  {directory / TABLE}: {manifest.table:,} rows",
    ]
    for split, counts in manifest.collections.items():
        documents, queries = sum(counts.documents.values()), sum(counts.queries.values())
        lines.append(
            f"{split:<8} path:{directory / split}: {documents:,} documents, {queries:,} queries, "
            f"{counts.judgments:,} relevant pairs"
        )
    return lines


def _matrix(counts: Mapping[str, Mapping[str, int]]) -> str:
    """A line a language, a column a key."""
    langs = sorted({lang for found in counts.values() for lang in found})
    rows = [[lang, *(f"{found.get(lang, 0):,}" for found in counts.values())] for lang in langs]
    align = ["left", *(["right"] * len(counts))]
    return tabulate(rows, ["language", *counts], colalign=align, disable_numparse=True)
