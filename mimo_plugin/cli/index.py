from pathlib import Path

import click

from mimo_plugin.cli.options import (
    CommandWithLists,
    ListOption,
    encoded_options,
    encoder_options,
    given,
    make_encoder_options,
    progress_option,
)


@click.command("index", cls=CommandWithLists)
@click.argument("collections", metavar="[COLLECTION...]", nargs=-1)
@click.option("--encoder", help="Checkpoint: a directory, a hub id or packaged:all-MiniLM-L6-v2.")
@click.option(
    "--vectors",
    cls=ListOption,
    type=click.Path(path_type=Path),
    metavar="DIR...",
    help="Of `mimo encode`, in place of COLLECTION and --encoder; the parts of one, or several.",
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
    help="flat, fp16, sq8, hnsw, ivfpq, or any FAISS factory string, e.g. IVF256,Flat.",
)
@encoded_options
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
    encoder: str | None,
    vectors: tuple[Path, ...],
    output: Path,
    factory: str,
    fields: tuple[str, ...],
    pooled: bool,
    duplicates: str,
    shard: str | None,
    shard_size: int,
    seed: int,
    resume: bool,
    progress: bool | None,
    **encoder_values: object,
) -> None:
    """Encode COLLECTION... and build one FAISS index of all their languages.

    The collection is read once before anything is encoded, so that a bad record shows early. Killed at any
    moment and started again, the command goes on from the last complete shard. Where several indexes of the
    same documents are wanted, `mimo encode` first: with --vectors nothing is encoded again.

    \b
    Examples:
      mimo index miracl/sw/dev miracl/yo/dev --encoder intfloat/multilingual-e5-small --output indexes/sw-yo
      mimo index path:my-folder --encoder ./student --output indexes/mine --factory HNSW32
      mimo index mimo-sample --encoder packaged:all-MiniLM-L6-v2 --output indexes/sample
      mimo index --vectors vectors/sw-yo --output indexes/sw-yo-ivfpq --factory ivfpq
    """
    needless = {"collections", "encoder", "fields", "pooled", "shard", "shard_size", *encoder_values}
    if vectors and (found := given(needless)):
        raise click.UsageError(f"--vectors says what is indexed: leave {', '.join(found)} out")
    if not vectors and not (collections and encoder):
        raise click.UsageError("COLLECTION... with --encoder, or --vectors DIR..., was expected")

    from mimo_plugin.indexing import IndexOptions, index_collections, index_vectors
    from mimo_plugin.vectors.part import Part

    options = IndexOptions(
        factory=factory,
        seed=seed,
        part=Part.parse(shard),
        shard_size=shard_size,
        resume=resume,
        progress=progress,
        duplicates=duplicates,
    )
    if encoder is None:
        from mimo_plugin.vectors import open_vectors

        built = index_vectors(open_vectors(vectors), output, options)
    else:
        built = index_collections(
            collections,
            encoder,
            output,
            options,
            make_encoder_options(encoder_values),
            fields=fields or None,
            pooled=pooled,
        )
    click.echo(built.summary(output))
