from pathlib import Path

import click

from mimo_plugin.cli.options import dimension_option, progress_option


@click.command("export")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--to",
    "kind",
    required=True,
    type=click.Choice(["lucene-hnsw", "lucene-flat", "jsonl", "parquet"]),
    help="What to write.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="A new directory for lucene-hnsw and lucene-flat, a new file for jsonl and parquet.",
)
@click.option("--text", is_flag=True, help="jsonl: put the documents' texts into `contents`.")
@click.option(
    "--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Threads that Lucene uses."
)
@dimension_option
@progress_option
def command(
    sources: tuple[Path, ...],
    kind: str,
    output: Path,
    text: bool,
    threads: int,
    dimension: int | None,
    progress: bool | None,
) -> None:
    """Write the vectors of SOURCE for other tools: a Lucene index, JSON Lines as Pyserini has them, Parquet.

    SOURCE is what `mimo encode` wrote, several of its directories that belong together, or an index that
    keeps its vectors unchanged, such as a Flat one.

    \b
    Examples:
      mimo export vectors/sw-yo --to lucene-hnsw --output indexes/sw-yo-lucene --threads 8
      mimo export indexes/sample --to lucene-flat --output indexes/sample-lucene
      mimo export indexes/sample --to jsonl --text --output vectors/sample.jsonl
    """
    from mimo_plugin.exporting import Format, export_vectors

    done = export_vectors(
        sources, Format(kind), output, text=text, dimension=dimension, threads=threads, progress=progress
    )
    for warning in done.warnings:
        click.echo(f"mimo: warning: {warning}", err=True)
    click.echo(f"{output}: {done.documents} vectors, {done.dimension} dimensions, {kind}")
    if done.already:
        click.echo("it was complete already; nothing was written")
