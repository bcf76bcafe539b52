from pathlib import Path

import click

from mimo_plugin.cli.options import progress_option


@click.command("merge")
@click.argument(
    "index_dirs", metavar="INDEX_DIR...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory of the merged index.",
)
@click.option(
    "--factory",
    help="flat, fp16, sq8, hnsw, ivfpq, or any FAISS factory string.  [default: what the indexes are]",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Leave a finished merge as it is, or start over.",
)
@progress_option
def command(
    index_dirs: tuple[Path, ...], output: Path, factory: str | None, resume: bool, progress: bool | None
) -> None:
    """Join indexes that were built apart: the parts of one collection, or languages made with --pooled.

    The vectors are taken from the indexes, which must hold them as they were or in 16 bits: flat, hnsw, fp16.
    Indexes that learn codes from their vectors (sq8, ivfpq) cannot be joined; search them together with
    `mimo search A B`, or keep vectors with `mimo encode`. The parts of a collection may come in any order;
    merged they are the same files as if the whole had been indexed at once.

    \b
    Examples:
      mimo merge indexes/part-1 indexes/part-2 indexes/part-3 --output indexes/whole
      mimo merge indexes/sw indexes/yo --output indexes/sw-yo --factory hnsw
    """
    from mimo_plugin.indexing.merge import merge_indexes

    built = merge_indexes(index_dirs, output, factory, resume=resume, progress=progress)
    click.echo(built.summary(output))
