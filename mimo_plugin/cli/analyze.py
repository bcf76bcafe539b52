from pathlib import Path

import click

from mimo_plugin.cli.options import (
    CommandWithLists,
    ListOption,
    collections_argument,
    duplicates_option,
    encoder_options,
    json_option,
    make_encoder_options,
    progress_option,
    table_format_option,
)


@click.command("analyze", cls=CommandWithLists)
@collections_argument
@click.option(
    "--encoder",
    "encoders",
    cls=ListOption,
    metavar="[NAME=]CHECKPOINT...",
    help="Checkpoints as `mimo index` takes them, or output directories of `mimo train`.",
)
@click.option(
    "--role",
    type=click.Choice(["documents", "queries"]),
    default="documents",
    show_default=True,
    help="Which texts, and with which of the encoder's prompts.",
)
@click.option(
    "--texts",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Texts to draw, each in all its languages; a language, of a collection that is not parallel.",
)
@click.option(
    "--run",
    "runs",
    cls=ListOption,
    metavar="[NAME=]FILE...",
    help="TREC runs: which languages do they bring back?",
)
@click.option(
    "--hits-cutoff",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many hits a query of the runs.",
)
@click.option(
    "--fairness",
    cls=ListOption,
    metavar="MEASURE@K,...",
    help="MRC and PEER at further cutoffs, of each query language too: MRC@5,10,20 PEER@20,100.",
)
@click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True, help="Draws the texts.")
@click.option("--pooled", is_flag=True, help="Ids are lang:id also for a single collection.")
@duplicates_option("texts with one id and different content")
@table_format_option
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Directory for the tables and for pictures as PNG and SVG.  [default: tables on standard output]",
)
@json_option
@encoder_options
@progress_option
def command(
    collections: tuple[str, ...],
    encoders: tuple[str, ...],
    role: str,
    texts: int,
    runs: tuple[str, ...],
    hits_cutoff: int,
    fairness: tuple[str, ...],
    seed: int,
    pooled: bool,
    duplicates: str,
    table_format: str,
    output: Path | None,
    json_file: Path | None,
    progress: bool | None,
    **encoder_values: object,
) -> None:
    """Look at how encoders lay out languages: alignment of translations, uniformity, separability.

    Takes texts that the collections have in several languages; of collections without any, texts of each
    language, and no alignment. Separability is how well a probe tells the language from the vector. The
    directory of a training run stands for its model; alignment and uniformity are shown for its checkpoints,
    too: those that are left, or what was written of its dev collection.

    \b
    Examples:
      mimo analyze mimo-sample --encoder intfloat/multilingual-e5-small --output geometry
      mimo analyze path:data/test --encoder mimo=runs/stage2 xlco=runs/xlco --json geometry.json
      mimo analyze path:data/test --encoder runs/stage2 --role queries --format latex
      mimo analyze mimo-sample --run mimo.trec bm25=runs/bm25.trec --hits-cutoff 20
    """
    from mimo_plugin.analysis.job import AnalyzeOptions, analyze
    from mimo_plugin.analysis.outputs import tables_text, write_directory, write_json
    from mimo_plugin.analysis.texts import Role
    from mimo_plugin.evaluation.choices import TableFormat

    analyzed = analyze(
        collections,
        encoders,
        runs,
        AnalyzeOptions(
            role=Role(role),
            texts=texts,
            seed=seed,
            hits_cutoff=hits_cutoff,
            fairness=fairness,
            pooled=pooled,
            duplicates=duplicates,
            progress=progress,
        ),
        make_encoder_options(encoder_values),
        json_file=json_file,
        output=output,
    )
    for warning in analyzed.warnings:
        click.echo(f"mimo: warning: {warning}", err=True)
    form = TableFormat(table_format)
    if json_file is not None:
        write_json(analyzed, json_file)
    if output is None:
        click.echo(tables_text(analyzed, form), nl=False)
        return
    files = write_directory(analyzed, output, form)
    click.echo(f"{output}: {', '.join(file.name for file in files)}")
