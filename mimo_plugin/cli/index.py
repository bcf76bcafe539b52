from pathlib import Path

import click

from mimo_plugin.cli.options import (
    CommandWithLists,
    ListOption,
    collections_argument,
    encoder_options,
    make_encoder_options,
    progress_option,
)


@click.command("index", cls=CommandWithLists)
@collections_argument
@click.option(
    "--encoder", required=True, help="Checkpoint: a directory, a hub id or packaged:all-MiniLM-L6-v2."
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory of the index, new or begun before.",
)
@click.option(
    "--factory",
    default="Flat",
    show_default=True,
    help="FAISS factory string, e.g. SQ8, HNSW32, IVF256,Flat.",
)
@click.option("--fields", cls=ListOption, help="Document fields to encode.  [default: what ir_datasets says]")
@click.option("--pooled", is_flag=True, help="Ids become lang:id for a single collection, too.")
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    help="Documents encoded and written at a time; a kill loses at most one shard.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=42,
    show_default=True,
    help="Of the sample that trains IVF, PQ and the like.",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on with an index that was cut short, or start over.",
)
@encoder_options
@progress_option
def command(
    collections: tuple[str, ...],
    encoder: str,
    output: Path,
    factory: str,
    fields: tuple[str, ...],
    pooled: bool,
    shard_size: int,
    seed: int,
    resume: bool,
    progress: bool | None,
    **encoder_values: object,
) -> None:
    """Encode COLLECTION... and build one FAISS index of all their languages.

    The collection is read once before anything is encoded, so that a bad record shows early. Killed at any
    moment and started again, the command goes on from the last complete shard.

    \b
    Examples:
      mimo index miracl/sw/dev miracl/yo/dev --encoder intfloat/multilingual-e5-small --output indexes/sw-yo
      mimo index path:my-folder --encoder ./student --output indexes/mine --factory HNSW32
      mimo index mimo-sample --encoder packaged:all-MiniLM-L6-v2 --output indexes/sample
    """
    from mimo_plugin.indexing import IndexOptions, index_collections

    built = index_collections(
        collections,
        encoder,
        output,
        IndexOptions(factory=factory, seed=seed, shard_size=shard_size, resume=resume, progress=progress),
        make_encoder_options(encoder_values),
        fields=fields or None,
        pooled=pooled,
    )
    click.echo(built.summary(output))
