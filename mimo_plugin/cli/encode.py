import os
from pathlib import Path

import click
from click.core import ParameterSource

from mimo_plugin.cli.options import (
    CommandWithLists,
    ListOption,
    encoded_options,
    encoder_options,
    given,
    make_encoder_options,
    progress_option,
)


@click.command("encode", cls=CommandWithLists)
@click.argument("collections", metavar="[COLLECTION...]", nargs=-1)
@click.option("--encoder", help="Checkpoint: a directory, a hub id or packaged:all-MiniLM-L6-v2.")
@click.option(
    "--import",
    "files",
    cls=ListOption,
    type=click.Path(path_type=Path),
    metavar="FILE...",
    help="Vectors that are there already, in place of COLLECTION: .npy with docids in NAME.docid, .jsonl as "
    "Pyserini writes it, .parquet.",
)
@click.option("--lang", default="", help="Language of imported documents whose file does not say it.")
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory of the vectors, new or begun before.",
)
@encoded_options
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on with work that was cut short, or start over.",
)
@click.option(
    "--ray",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="local",
    help="Encode with Ray Data: on the cluster at HOST:PORT, on the one that this machine is part of (auto), "
    "or, without a value, on what RAY_ADDRESS says, else on this machine with a worker for each GPU.",
)
@click.option(
    "--ray-workers",
    type=click.IntRange(min=1),
    help="Processes that encode.  [default: as many as there is room for]",
)
@click.option(
    "--ray-cpus-per-worker",
    type=click.IntRange(min=1),
    help="Cores of each.  [default: 1 beside a GPU, else the smallest machine's, in groups of at most 8]",
)
@click.option(
    "--ray-gpus-per-worker",
    type=click.FloatRange(min=0),
    help="GPUs of each; 0.5 lets two share one.  [default: 1 where there are GPUs]",
)
@encoder_options
@progress_option
def command(
    collections: tuple[str, ...],
    encoder: str | None,
    files: tuple[Path, ...],
    lang: str,
    output: Path,
    fields: tuple[str, ...],
    pooled: bool,
    duplicates: str,
    shard: str | None,
    shard_size: int,
    resume: bool,
    ray: str | None,
    ray_workers: int | None,
    ray_cpus_per_worker: int | None,
    ray_gpus_per_worker: float | None,
    progress: bool | None,
    **encoder_values: object,
) -> None:
    """Encode COLLECTION... once, into a directory of vectors that any number of indexes are made from.

    The directory holds Parquet files (docid, lang, vector), which any tool reads, and a manifest. Killed at
    any moment and started again, the command goes on from the last complete shard.

    \b
    Examples:
      mimo encode miracl/sw/dev miracl/yo/dev --encoder intfloat/multilingual-e5-small --output vectors/sw-yo
      mimo index --vectors vectors/sw-yo --output indexes/sw-yo --factory hnsw
    On two machines, or two GPUs of one:
      mimo encode miracl/ja/dev --encoder ./student --device cuda:0 --shard 1/2 --output vectors/ja-1
      mimo encode miracl/ja/dev --encoder ./student --device cuda:1 --shard 2/2 --output vectors/ja-2
      mimo index --vectors vectors/ja-1 vectors/ja-2 --output indexes/ja
    On a Ray cluster, or on all GPUs of this machine:
      mimo encode miracl/ja/dev --encoder ./student --output vectors/ja --ray head:6379
      mimo encode miracl/ja/dev --encoder ./student --output vectors/ja --ray
    Vectors from elsewhere:
      mimo encode --import corpus.jsonl.gz --encoder BAAI/bge-m3 --output vectors/bge
    """
    needless = {
        "collections",
        "fields",
        "pooled",
        "duplicates",
        "shard",
        "ray",
        *(() if encoder else encoder_values),
    }
    if files and (found := given(needless)):
        raise click.UsageError(f"--import says what the vectors are: leave {', '.join(found)} out")
    if not files and not (collections and encoder):
        raise click.UsageError("COLLECTION... with --encoder, or --import FILE..., was expected")
    sizes = ray_workers, ray_cpus_per_worker, ray_gpus_per_worker
    if ray is None and any(size is not None for size in sizes):
        raise click.UsageError(
            "--ray-workers and --ray-...-per-worker are options of --ray, which was expected"
        )

    from mimo_plugin.vectors import EncodeOptions, encode_collections
    from mimo_plugin.vectors.importing import import_vectors
    from mimo_plugin.vectors.part import Part

    options = EncodeOptions(Part.parse(shard), shard_size, resume, progress, duplicates)
    encoding = make_encoder_options(encoder_values)
    if encoder is None or files:
        done = import_vectors(files, output, options, encoder=encoder, encoder_options=encoding, lang=lang)
    elif ray is not None:
        from mimo_plugin.vectors.ray_encoding import encode_on_ray
        from mimo_plugin.vectors.ray_options import RayOptions

        cluster = RayOptions(ray, *sizes, debug=_debug())
        done = encode_on_ray(
            collections, encoder, output, cluster, options, encoding, fields=fields or None, pooled=pooled
        )
    else:
        done = encode_collections(
            collections, encoder, output, options, encoding, fields=fields or None, pooled=pooled
        )
    click.echo(done.summary(output))


def _debug() -> bool:
    source = click.get_current_context().find_root().get_parameter_source("debug")
    return source is ParameterSource.COMMANDLINE or bool(os.environ.get("MIMO_DEBUG"))
