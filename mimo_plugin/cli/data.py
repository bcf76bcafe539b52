"""`mimo data`: training data."""

from pathlib import Path

import click

from mimo_plugin.cli import LazyGroup
from mimo_plugin.cli.options import CommandWithLists, ListOption, progress_option


@click.group(
    "data",
    cls=LazyGroup,
    modules={"parallel": "data", "aligned": "data", "debian": "data"},
)
def data_command() -> None:
    """Make training data: pairs for stage 1, a table for stage 2.

    What is written is Parquet with a manifest.json beside it: `datasets` loads it, `mimo train` checks it. A
    second run of the same command finds its work done.

    \b
    Examples:
      mimo data parallel --tsv de=opus.de.tsv.gz fr=opus.fr.tsv.gz --output pairs
      mimo data aligned --mmarco de fr nl --output table --stats
      mimo data debian --output debian
    """


_FILE = click.Path(path_type=Path)


@click.command("debian", cls=CommandWithLists)
@click.option("--output", required=True, type=_FILE, help="Directory of the data, new or empty.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="LINE",
    help="A package source as in apt's sources.list, in place of the machine's own; may be repeated.",
)
@click.option(
    "--from-table",
    "main",
    type=_FILE,
    metavar="FILE",
    help="A parsed table in place of the package manager; mimo-sample is the packaged one.",
)
@click.option("--dev-table", type=_FILE, metavar="FILE", help="A parsed table that is the dev split.")
@click.option("--test-table", type=_FILE, metavar="FILE", help="A parsed table that is the test split.")
@click.option(
    "--languages",
    cls=ListOption,
    metavar="CODE...",
    help="The archive's codes.  [default: en it da de fr sk pt_BR ja ko uk pl ru es cs; all of a table]",
)
@click.option("--anchor", default="en", show_default=True, help="Language of what the teacher sees.")
@click.option(
    "--identity/--no-identity",
    default=True,
    show_default=True,
    help="Each anchor text is also a pair with itself.",
)
@click.option(
    "--exclude",
    cls=ListOption,
    default=["mimo-sample"],
    show_default=True,
    metavar="COLLECTION...",
    help="Collections of descriptions that must not train, nor any variant of them.",
)
@click.option("--no-exclude", is_flag=True, help="Exclude no collection.")
@click.option(
    "--min-characters",
    type=click.IntRange(min=1),
    default=25,
    show_default=True,
    help="Shortest long text of the archive.",
)
@click.option(
    "--max-characters",
    type=click.IntRange(min=1),
    default=1200,
    show_default=True,
    help="Where a longer text of the archive is cut.",
)
@click.option(
    "--max-english",
    type=click.FloatRange(0, 1),
    default=0.8,
    show_default=True,
    help="A translation of the archive is none if a larger share of its words is in the English text.",
)
@click.option(
    "--dev-share",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Of the groups of packages; 0 makes no dev collection.",
)
@click.option(
    "--test-share",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Of the groups of packages; 0 makes no test collection.",
)
@click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True, help="Of the split.")
@click.option(
    "--min-doc-languages",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Long texts of descriptions with so many languages are documents of dev and test.",
)
@click.option(
    "--min-query-languages",
    type=click.IntRange(min=1),
    default=7,
    show_default=True,
    help="Short texts of documents' descriptions with so many languages are queries.",
)
@click.option("--overwrite", is_flag=True, help="Replace what this command wrote to --output before.")
@click.option("--stats", is_flag=True, help="Also print rows per language and per ordered pair of languages.")
@progress_option
def debian_command(
    output: Path,
    sources: tuple[str, ...],
    main: Path | None,
    dev_table: Path | None,
    test_table: Path | None,
    languages: tuple[str, ...],
    anchor: str,
    identity: bool,
    exclude: tuple[str, ...],
    no_exclude: bool,
    min_characters: int,
    max_characters: int,
    max_english: float,
    dev_share: float,
    test_share: float,
    seed: int,
    min_doc_languages: int,
    min_query_languages: int,
    overwrite: bool,
    stats: bool,
    progress: bool | None,
) -> None:
    """Make training data and MLIR collections from Debian's package descriptions and their translations.

    apt fetches the translations (27 MB for Debian 12) from the machine's package sources into a directory of
    its own: no root, and nothing on the system changes. A description's short text is the query, its long
    text the passage. The split is by software: packages such as libfoo1, foo-doc and python3-foo, and
    descriptions with nearly the same text, are never on two sides of it.

    \b
    Written to --output:
      pairs/          stage 1, of the train split: short and long texts with their anchor
      table/          stage 2, of the train split: short text, long text, in every language there is
      dev/, test/     collections for path:DIR; every language version is relevant to every version
      table.jsonl.gz  the descriptions, for --from-table: the same data again, when the archive has moved on

    \b
    Examples:
      mimo data debian --output debian
      mimo data debian --output trixie --source "deb https://ftp.debian.org/debian trixie main"
      mimo data debian --output again --from-table debian/table.jsonl.gz
    """
    from mimo_plugin.collections.packaged import SAMPLE, sample_table
    from mimo_plugin.data.debian.archive import CleaningOptions
    from mimo_plugin.data.debian.build import DebianOptions, make_debian, report
    from mimo_plugin.data.debian.split import Split, SplitOptions
    from mimo_plugin.data.debian.table import CollectionOptions

    if main is not None and str(main) == SAMPLE and not main.exists():
        main = sample_table()
    given = {Split.DEV: dev_table, Split.TEST: test_table}
    options = DebianOptions(
        languages=languages or None,
        anchor=anchor,
        identity=identity,
        sources=sources,
        main=main,
        given={split: path for split, path in given.items() if path is not None},
        exclude=() if no_exclude else exclude,
        cleaning=CleaningOptions(min_characters, max_characters, max_english),
        split=SplitOptions(dev_share, test_share, seed),
        collections=CollectionOptions(min_doc_languages, min_query_languages),
        overwrite=overwrite,
        progress=progress,
    )
    manifest, new = make_debian(output, options)
    click.echo(report(output, manifest, new=new, statistics=stats))


@click.command("aligned", cls=CommandWithLists)
@click.option(
    "--mmarco",
    cls=ListOption,
    metavar="LANG...",
    help="mMARCO v2 in these languages (or all) and its English original, msmarco-passage; nl is its dt.",
)
@click.option(
    "--collection",
    "collections",
    cls=ListOption,
    metavar="[LANG=]COLLECTION...",
    help="Documents and queries in one language; LANG where the collection does not say it.",
)
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Directory of the table, new or empty."
)
@click.option(
    "--anchor",
    default="en",
    show_default=True,
    help="Language that the teacher sees; rows without it are left out.",
)
@click.option(
    "--positives",
    type=click.Choice(["triples", "qrels"]),
    help="What names the positive passages: training triples, or qrels above 0.  [default: triples if there]",
)
@click.option(
    "--positives-from",
    metavar="LANG",
    help="Language whose collection has them.  [default: the first that is not the anchor]",
)
@click.option("--require-all", is_flag=True, help="Leave out rows that lack a language.")
@click.option(
    "--max-characters",
    type=click.IntRange(min=1),
    help="Leave a language out of a row where its query or passage is longer.  [default: no limit]",
)
@click.option("--overwrite", is_flag=True, help="Replace what another command wrote to --output.")
@click.option(
    "--stats", is_flag=True, help="Also print rows and mean lengths per language, and rows per language pair."
)
@progress_option
def aligned_command(
    mmarco: tuple[str, ...],
    collections: tuple[str, ...],
    output: Path,
    anchor: str,
    positives: str | None,
    positives_from: str | None,
    require_all: bool,
    max_characters: int | None,
    overwrite: bool,
    stats: bool,
    progress: bool | None,
) -> None:
    """Make a stage-2 table: the same query and positive passage in every language, aligned by their ids.

    The distinct (query, positive passage) of the training triples are the rows. A language whose query or
    passage is missing or empty is left out of that row, and counted. Every row has the anchor language and at
    least one other. ir_datasets downloads what is not on this machine: of mMARCO about 3 GB a language.

    \b
    Examples:
      mimo data aligned --mmarco de fr nl --output table
      mimo data aligned --mmarco all --require-all --output table --stats
      mimo data aligned --collection msmarco-passage/train mmarco/v2/de/train --output table
      mimo data aligned --collection en=path:english de=path:german --positives qrels --output table
    """
    from mimo_plugin.data.aligned import AlignedOptions, Positives, make_table, parse_members
    from mimo_plugin.data.statistics import report

    made = make_table(
        parse_members(collections, mmarco),
        output,
        AlignedOptions(
            anchor=anchor,
            positives=Positives(positives) if positives else None,
            positives_from=positives_from,
            require_all=require_all,
            max_characters=max_characters,
            overwrite=overwrite,
            progress=progress,
        ),
    )
    click.echo(report(output, made.manifest, new=made.new, statistics=stats))


@click.command("parallel", cls=CommandWithLists)
@click.option(
    "--tsv",
    cls=ListOption,
    metavar="LANG=FILE...",
    help="Lines ANCHOR_TEXT<tab>TEXT, plain or .gz; LANG is the language of the second column.",
)
@click.option(
    "--moses",
    cls=ListOption,
    metavar="LANG=ANCHOR_FILE,LANG_FILE...",
    help="Two aligned files, plain or .gz: line n of one is the translation of line n of the other.",
)
@click.option(
    "--dataset",
    "datasets",
    cls=ListOption,
    metavar="LANG=NAME[:CONFIG][#SPLIT]...",
    help="A dataset of the hub (streamed), or a local directory or .parquet, .json(l), .csv or .arrow file.",
)
@click.option(
    "--opus",
    metavar="DIR|hub",
    help="The paper's corpora and languages from OPUS: a folder of downloads (Moses files or their zips, "
    "Sentence Transformers' lists or hub datasets), or `hub`.",
)
@click.option(
    "--opus-corpora",
    cls=ListOption,
    metavar="NAME...",
    help="[default: Europarl GlobalVoices JW300 News-Commentary OpenSubtitles Talks Tatoeba WikiMatrix]",
)
@click.option(
    "--opus-languages",
    cls=ListOption,
    metavar="LANG...",
    help="[default: ar de es fr hi id it ja nl pt ru vi zh]",
)
@click.option(
    "--skip-missing",
    is_flag=True,
    help="Go on where the folder of --opus lacks texts that OPUS has; they are listed.",
)
@click.option(
    "--columns",
    default="english,non_english",
    show_default=True,
    metavar="ANCHOR,TEXT",
    help="Columns of the datasets; a dot leads into a nested one, also one of the lists language and "
    "translation: translation.en,translation.de.",
)
@click.option("--split", default="train", show_default=True, help="Of datasets that name none.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Directory of the pairs, new or empty."
)
@click.option(
    "--anchor", default="en", show_default=True, help="Language of the first column: what the teacher sees."
)
@click.option(
    "--min-characters",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Shortest text, either side.",
)
@click.option(
    "--max-characters",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Longest text, either side.",
)
@click.option(
    "--max-ratio",
    type=click.FloatRange(min=1),
    default=3.0,
    show_default=True,
    help="Of the longer side's characters to the shorter one's.",
)
@click.option(
    "--max-pairs",
    type=click.IntRange(min=1),
    default=500_000,
    show_default=True,
    help="Of a language, and of the identity pairs; more are sampled uniformly over all sources.",
)
@click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True, help="Of that sample.")
@click.option(
    "--identity/--no-identity",
    default=True,
    show_default=True,
    help="Each kept anchor text is also a pair with itself.",
)
@click.option("--overwrite", is_flag=True, help="Replace what another command wrote to --output.")
@click.option("--stats", is_flag=True, help="Also print rows and mean lengths per language.")
@progress_option
def parallel_command(
    tsv: tuple[str, ...],
    moses: tuple[str, ...],
    datasets: tuple[str, ...],
    opus: str | None,
    opus_corpora: tuple[str, ...],
    opus_languages: tuple[str, ...],
    skip_missing: bool,
    columns: str,
    split: str,
    output: Path,
    anchor: str,
    min_characters: int,
    max_characters: int,
    max_ratio: float,
    max_pairs: int,
    seed: int,
    identity: bool,
    overwrite: bool,
    stats: bool,
    progress: bool | None,
) -> None:
    """Make stage-1 pairs (text in LANG, its English side) from parallel corpora.

    White space at the ends of a text is removed, nothing else is changed. Within a language an anchor text is
    kept once, with the translation that came first. Defaults are those of the MIMO paper. A language of which
    no pair is left is an error, and nothing is written then.

    \b
    Examples:
      mimo data parallel --tsv de=opus.de.tsv.gz fr=opus.fr.tsv.gz --output pairs
      mimo data parallel --moses nl=europarl.en,europarl.nl nl=talks.en.gz,talks.nl.gz --output pairs
      mimo data parallel --dataset de=sentence-transformers/parallel-sentences-talks:en-de \\
          fr=sentence-transformers/parallel-sentences-talks:en-fr#train --output pairs
      mimo data parallel --opus downloads --output pairs
      mimo data parallel --dataset de=my.parquet --columns translation.en,translation.de --output pairs
    """
    from mimo_plugin.data.opus import opus_sources
    from mimo_plugin.data.parallel import PairFilter, ParallelOptions, make_pairs, parse_sources
    from mimo_plugin.data.statistics import report

    found = None
    if opus is not None:
        found = opus_sources(opus, corpora=opus_corpora, languages=opus_languages, skip_missing=skip_missing)
    elif opus_corpora or opus_languages or skip_missing:
        raise click.UsageError("--opus-corpora, --opus-languages and --skip-missing go with --opus")
    made = make_pairs(
        parse_sources(
            tsv=tsv,
            moses=moses,
            datasets=datasets,
            columns=columns,
            split=split,
            anchor=anchor,
            opus=found.sources if found else (),
        ),
        output,
        ParallelOptions(
            anchor=anchor,
            pair_filter=PairFilter(min_characters, max_characters, max_ratio),
            max_pairs=max_pairs,
            identity=identity,
            seed=seed,
            overwrite=overwrite,
            progress=progress,
        ),
    )
    if found is not None:
        click.echo(found.summary())
    click.echo(report(output, made.manifest, new=made.new, statistics=stats))
