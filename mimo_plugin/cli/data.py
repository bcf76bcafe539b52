"""`mimo data`: training data."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from mimo_plugin.cli import LazyGroup
from mimo_plugin.cli.generate import Argument, CommandWithLists, F, GroupedOption, ListOption, model_options
from mimo_plugin.data.options import (
    AlignedOptions,
    CleaningOptions,
    CollectionOptions,
    DebianOptions,
    NegativesOptions,
    PairFilter,
    ParallelOptions,
    SliceOptions,
    SourceOptions,
    SplitOptions,
)
from mimo_plugin.encoder.options import EncoderOptions


@click.group(
    "data",
    cls=LazyGroup,
    modules=dict.fromkeys(("parallel", "aligned", "debian", "negatives", "slices"), "data"),
)
def data_command() -> None:
    """Make training data: pairs, tables, hard negatives; slices.

    Pairs are for stage 1, a table with its hard negatives for stage 2, slices of topics for evaluation. The
    output is Parquet with a manifest.json beside it: `datasets` loads it, `mimo train` checks it. The same
    command, given again, finds its work done.

    \b
    Examples:
      mimo data parallel --tsv de=opus.de.tsv.gz fr=opus.fr.tsv.gz --output pairs
      mimo data aligned --mmarco de fr nl --output table --stats
      mimo data debian --output debian
      mimo data negatives debian/table --encoder packaged:all-MiniLM-L6-v2 --output debian-negatives
      mimo data slices path:debian/test --output slices.tsv
    """


def _output(what: str) -> Callable[[F], F]:
    return click.option(
        "--output",
        required=True,
        type=click.Path(path_type=Path),
        help=f"Directory of the {what}, new or empty.",
    )


def _stats(what: str) -> Callable[[F], F]:
    return click.option("--stats", is_flag=True, help=f"Also print {what}.")


@click.command("debian", cls=CommandWithLists)
@_output("data")
@model_options(DebianOptions, "options")
@click.option("--no-exclude", is_flag=True, help="Exclude no collection.")
@model_options(CleaningOptions, "cleaning")
@model_options(SplitOptions, "split")
@model_options(CollectionOptions, "collections")
@_stats("rows per language and per ordered pair of languages")
def debian_command(
    output: Path,
    options: DebianOptions,
    no_exclude: bool,
    cleaning: CleaningOptions,
    split: SplitOptions,
    collections: CollectionOptions,
    stats: bool,
) -> None:
    """Make training data and MLIR collections from Debian's package descriptions and their translations.

    apt fetches the translations (27 MB for Debian 12) from the machine's package sources into a separate
    directory: it needs no root and changes nothing on the system. A description's short text is the query,
    its long text the passage. The split is by software: packages such as libfoo1, foo-doc and python3-foo,
    and descriptions with nearly the same text, are always in the same split.

    --from-table takes texts of any kind: JSON lines with an id and, for each language, a short text as the
    query and a long one as the passage, {"id": ..., "text": {"de": {"short": ..., "long": ...}}}. Two rows
    with the same "package" are in the same split; without it, none are but near-duplicates. --test-only makes
    a test collection of another domain of it.

    \b
    Written to --output:
      pairs/          stage 1, of the train split: short and long texts with their anchor
      table/          stage 2, of the train split: short text, long text, in every available language
      dev/, test/     collections for path:DIR; every language version is relevant to every version
      table.jsonl.gz  the descriptions, for --from-table: the same data again, when the archive has moved on

    \b
    Examples:
      mimo data debian --output debian
      mimo data debian --output trixie --source "deb https://ftp.debian.org/debian trixie main"
      mimo data debian --output again --from-table debian/table.jsonl.gz
      mimo data debian --output debian-de --from-table debian/table.jsonl.gz --anchor de
      mimo data debian --output manuals --from-table manuals.jsonl.gz --test-only
    """
    from mimo_plugin.collections.packaged import SAMPLE, sample_table
    from mimo_plugin.data.debian.build import make_debian, report

    options = replace(options, cleaning=cleaning, split=split, collections=collections)
    if no_exclude:
        options = replace(options, exclude=())
    if str(options.main) == SAMPLE and not Path(SAMPLE).exists():
        options = replace(options, main=sample_table())
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
@_output("table")
@model_options(AlignedOptions, "options")
@_stats("rows and mean lengths per language, and rows per language pair")
def aligned_command(
    mmarco: tuple[str, ...],
    collections: tuple[str, ...],
    output: Path,
    options: AlignedOptions,
    stats: bool,
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
    from mimo_plugin.data.aligned import make_table, parse_members
    from mimo_plugin.data.statistics import report

    made = make_table(parse_members(collections, mmarco), output, options)
    click.echo(report(output, made, statistics=stats))


@click.command("parallel", cls=CommandWithLists)
@model_options(SourceOptions, "named")
@_output("pairs")
@model_options(PairFilter, "pair_filter")
@model_options(ParallelOptions, "options")
@_stats("rows and mean lengths per language")
def parallel_command(
    named: SourceOptions,
    output: Path,
    pair_filter: PairFilter,
    options: ParallelOptions,
    stats: bool,
) -> None:
    """Make stage-1 pairs (text in LANG, its English side) from parallel corpora.

    White space at the ends of a text is removed, nothing else is changed. Within a language an anchor text is
    kept once, with its first translation. Defaults are those of the MIMO paper. A language without a
    remaining pair is an error, and nothing is written then.

    \b
    Examples:
      mimo data parallel --tsv de=opus.de.tsv.gz fr=opus.fr.tsv.gz --output pairs
      mimo data parallel --moses nl=europarl.en,europarl.nl nl=talks.en.gz,talks.nl.gz --output pairs
      mimo data parallel --dataset de=sentence-transformers/parallel-sentences-talks:en-de \\
          fr=sentence-transformers/parallel-sentences-talks:en-fr#train --output pairs
      mimo data parallel --opus downloads --output pairs
      mimo data parallel --dataset de=my.parquet --columns translation.en,translation.de --output pairs
    """
    from mimo_plugin.data.parallel import make_pairs, parse_sources
    from mimo_plugin.data.statistics import report

    sources, opus = parse_sources(named)
    made = make_pairs(sources, output, replace(options, pair_filter=pair_filter))
    if opus is not None:
        click.echo(opus.summary())
    click.echo(report(output, made, statistics=stats))


@click.command("negatives", cls=CommandWithLists)
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--index",
    type=click.Path(path_type=Path),
    help="Index to search, whose docids are passage ids of the table, perhaps with a language before them.  "
    "[default: one of the table's passages, made with --encoder in OUTPUT-index]",
)
@click.option(
    "--encoder",
    cls=GroupedOption,
    metavar="CHECKPOINT",
    help="Checkpoint that compares queries and passages.  [default: the encoder of --index]",
)
@_output("table with negatives")
@model_options(NegativesOptions, "options")
@model_options(EncoderOptions, "encoding")
def negatives_command(
    table: Path,
    index: Path | None,
    encoder: str | None,
    output: Path,
    options: NegativesOptions,
    encoding: EncoderOptions,
) -> None:
    """Mine hard negatives for a stage-2 table: passages that a search for the query wrongly brings up.

    Writes the rows of TABLE again, each with the ids of its negatives, which are passages of other rows.
    Queries and passages are compared in the anchor language, so an English encoder will do; training takes
    each negative in the language that it draws for the row's passage. The row's own passage, others of its
    query and equal texts are never taken. An interrupted command resumes.

    \b
    Examples:
      mimo data negatives debian/table --encoder packaged:all-MiniLM-L6-v2 --output debian-negatives
      mimo data negatives table --encoder Qwen/Qwen3-Embedding-0.6B --negatives 7 --output table-7
      mimo data negatives table --index table-7-index --skip 5 --output table-5
      mimo train stage2 --table debian-negatives --student warm-up --output mimo
    """
    from mimo_plugin.data.negatives import mine_negatives
    from mimo_plugin.data.statistics import report

    made = mine_negatives(table, output, options, encoding, index=index, encoder=encoder)
    click.echo(report(output, made, statistics=False))


@click.command("slices", cls=CommandWithLists)
@click.argument("collections", cls=Argument, metavar="COLLECTION...", nargs=-1, required=True)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="File of the slices, TSV.")
@model_options(SliceOptions, "options")
def slices_command(collections: tuple[str, ...], output: Path, options: SliceOptions) -> None:
    """Divide the topics of collections into slices for `mimo evaluate --slices`.

    \b
    entity, no-entity  whether the query has a word that looks like a name
    rare, common       by its rarest word: in how many documents of its language it is

    What looks like a name: a word with a digit or capital inside (mp3, LibreOffice, HTML), Latin letters in a
    text of another script, or a capitalised word that does not begin a sentence. The last does not count in
    titles and in German. All language versions of a topic are in one slice: the one that most of them say. A
    rule, no linguistics: translated names such as Germany count as their capitals do, and names in scripts
    without capitals are not seen.

    Scripts without spaces are counted in pairs of characters. What cannot be told is in neither slice. FILE
    holds lines TOPIC<tab>SLICE: edit it, or write your own.

    \b
    Examples:
      mimo data slices path:debian/test --output slices.tsv
      mimo data slices miracl/sw/dev miracl/yo/dev --by rarity --rare-share 0.25 --output slices.tsv
      mimo evaluate e5.trec bm25.trec --qrels path:debian/test --slices slices.tsv --baseline bm25
    """
    from mimo_plugin.data.slices import make_slices

    click.echo(make_slices(collections, output, options))
