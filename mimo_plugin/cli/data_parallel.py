from pathlib import Path

import click

from mimo_plugin.cli.options import CommandWithLists, ListOption, progress_option


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
def command(
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
    from mimo_plugin.data.filters import PairFilter
    from mimo_plugin.data.opus import opus_sources
    from mimo_plugin.data.parallel import ParallelOptions, make_pairs
    from mimo_plugin.data.parallel_specs import parse_sources
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
