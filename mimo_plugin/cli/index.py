"""`mimo index`, `encode`, `merge`, `export`."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from mimo_plugin.cli.generate import (
    Argument,
    CommandWithLists,
    F,
    GroupedOption,
    ListOption,
    given,
    model_fields,
    model_options,
)
from mimo_plugin.encoder import packaged
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.settings import (
    EncodeOptions,
    ExportOptions,
    Format,
    IndexOptions,
    MergeOptions,
    RayOptions,
)

_encoder = click.option(
    "--encoder",
    cls=GroupedOption,
    metavar="CHECKPOINT",
    help=f"Checkpoint: a directory, a hub id, {packaged.NAMES}.",
)


def _output(help_text: str) -> Callable[[F], F]:
    return click.option("--output", required=True, type=click.Path(path_type=Path), help=help_text)


@click.command("index", cls=CommandWithLists)
@click.argument("collections", cls=Argument, metavar="[COLLECTION...]", nargs=-1)
@_encoder
@click.option(
    "--vectors",
    cls=ListOption,
    type=click.Path(path_type=Path),
    metavar="DIR...",
    help="Directories of `mimo encode`, in place of COLLECTION and --encoder: one or several, or all parts.",
)
@_output("Directory of the index, new or begun before.")
@model_options(IndexOptions, "options")
@model_options(EncoderOptions, "encoding")
def index_command(
    collections: tuple[str, ...],
    encoder: str | None,
    vectors: tuple[Path, ...],
    output: Path,
    options: IndexOptions,
    encoding: EncoderOptions,
) -> None:
    """Encode COLLECTION... into one FAISS index for all languages.

    The collection is read once before anything is encoded, so that a bad record shows early. An interrupted
    command resumes from the last complete shard. For several indexes of the same documents, run `mimo encode`
    first: with --vectors nothing is encoded again.

    The recall of an approximate index is measured on queries, and its efSearch or nprobe is the smallest that
    reaches a recall@100 of 0.95. With --vectors, name queries with --topics: documents are easier to find.

    \b
    Examples:
      mimo index miracl/sw/dev miracl/yo/dev --encoder intfloat/multilingual-e5-small --output indexes/sw-yo
      mimo index path:my-folder --encoder ./student --output indexes/mine --factory HNSW32
      mimo index mimo-sample --encoder packaged:all-MiniLM-L6-v2 --output indexes/sample
      mimo index --vectors vectors/sw-yo --output indexes/sw-yo-hnsw --factory hnsw --topics miracl/sw/dev
    """
    needless = {"collections", "encoder", "fields", "pooled", "shard", "shard_size"}
    if vectors and (found := given({*needless, *model_fields(EncoderOptions)})):
        raise click.UsageError(f"--vectors already decides what is indexed: leave {', '.join(found)} out")
    if not vectors and not (collections and encoder):
        raise click.UsageError("COLLECTION... with --encoder, or --vectors DIR..., was expected")

    from mimo_plugin.indexing.build import index, index_vectors
    from mimo_plugin.indexing.vectors import open_vectors

    if encoder is None:
        built = index_vectors(open_vectors(vectors), output, options)
    else:
        built = index(collections, encoder, output, options, encoding)
    click.echo(built.summary())


@click.command("encode", cls=CommandWithLists)
@click.argument("collections", cls=Argument, metavar="[COLLECTION...]", nargs=-1)
@_encoder
@click.option(
    "--import",
    "files",
    cls=ListOption,
    type=click.Path(path_type=Path),
    metavar="FILE...",
    help="Existing vectors, in place of COLLECTION: .npy with docids in NAME.docid, Pyserini's .jsonl, "
    ".parquet.",
)
@click.option("--lang", default="", help="Language of imported documents whose file names none.")
@_output("Directory of the vectors, new or begun before.")
@model_options(EncodeOptions, "options")
@model_options(RayOptions, "cluster", by_option=True)
@model_options(EncoderOptions, "encoding")
def encode_command(
    collections: tuple[str, ...],
    encoder: str | None,
    files: tuple[Path, ...],
    lang: str,
    output: Path,
    options: EncodeOptions,
    cluster: RayOptions,
    encoding: EncoderOptions,
) -> None:
    """Encode COLLECTION... once, for any number of indexes.

    The directory of vectors holds Parquet files (docid, lang, vector), which any tool reads, and a manifest.
    An interrupted command resumes from the last complete shard.

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
    needless = {"collections", "fields", "pooled", "duplicates", "shard", "ray"}
    if files and (found := given(needless if encoder else {*needless, *model_fields(EncoderOptions)})):
        raise click.UsageError(f"--import already decides the vectors: leave {', '.join(found)} out")
    if not files and not (collections and encoder):
        raise click.UsageError("COLLECTION... with --encoder, or --import FILE..., was expected")
    if cluster.address is None and cluster != RayOptions():
        raise click.UsageError("--ray-workers and --ray-...-per-worker need --ray: add it, or leave them out")

    if encoder is None or files:
        from mimo_plugin.indexing.importing import import_vectors

        done = import_vectors(files, output, options, encoder=encoder, encoder_options=encoding, lang=lang)
    elif cluster.address is not None:
        from mimo_plugin.indexing.ray import encode_on_ray

        cluster = replace(cluster, debug=_debug())
        done = encode_on_ray(collections, encoder, output, cluster, options, encoding)
    else:
        from mimo_plugin.indexing.encode import encode_collections

        done = encode_collections(collections, encoder, output, options, encoding)
    click.echo(done.summary(output))


def _debug() -> bool:
    source = click.get_current_context().find_root().get_parameter_source("debug")
    return source is ParameterSource.COMMANDLINE or bool(os.environ.get("MIMO_DEBUG"))


@click.command("merge", cls=CommandWithLists)
@click.argument(
    "index_dirs",
    cls=Argument,
    metavar="INDEX_DIR...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@_output("Directory of the merged index.")
@model_options(MergeOptions, "options")
def merge_command(index_dirs: tuple[Path, ...], output: Path, options: MergeOptions) -> None:
    """Merge indexes that were built separately.

    They are the parts of one collection, or languages made with --pooled. The indexes must keep their vectors
    unchanged or in 16 bits: flat, hnsw, fp16. Indexes with learned codes (sq8, ivfpq) cannot be merged:
    search them together with `mimo search A B`, or keep vectors with `mimo encode`. The parts of a collection
    may come in any order; merged they are the same files as if the whole had been indexed at once, but for an
    efSearch or nprobe that queries of the collection chose.

    \b
    Examples:
      mimo merge indexes/part-1 indexes/part-2 indexes/part-3 --output indexes/whole
      mimo merge indexes/sw indexes/yo --output indexes/sw-yo --factory hnsw
    """
    from mimo_plugin.indexing.build import merge_indexes

    click.echo(merge_indexes(index_dirs, output, options).summary())


@click.command("export", cls=CommandWithLists)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--to",
    "kind",
    required=True,
    type=click.Choice([kind.value for kind in Format]),
    help="What to write.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(),
    help="A new directory for lucene-hnsw, lucene-flat and flex, a new file for jsonl and parquet, an "
    "address for milvus.",
)
@model_options(ExportOptions, "options")
def export_command(sources: tuple[Path, ...], kind: str, output: str, options: ExportOptions) -> None:
    """Export vectors to Lucene, Milvus, PyTerrier or files.

    JSON Lines are Pyserini's, and flex is pyterrier_dr's FlexIndex. SOURCE is a directory of `mimo encode`,
    several of them that belong together, or an index that keeps its vectors unchanged, such as a Flat one.

    The address of a collection of Milvus is milvus:DIR.db#NAME for Milvus Lite, in a directory of this
    machine, or milvus:http://HOST:PORT#NAME for a server or cluster, with a token or user:password in
    MILVUS_TOKEN. `mimo search` takes the same address. The same command goes on with a load that was cut
    short.

    \b
    Examples:
      mimo export vectors/sw-yo --to lucene-hnsw --output indexes/sw-yo-lucene --threads 8
      mimo export indexes/sample --to lucene-flat --output indexes/sample-lucene
      mimo export indexes/sample --to flex --output indexes/sample.flex
      mimo export indexes/sample --to jsonl --text --output vectors/sample.jsonl
      mimo export vectors/sw-yo --to milvus --output milvus:indexes/sw-yo.db
      mimo export vectors/sw-yo --to milvus --output milvus:http://head:19530#sw_yo
    """
    from mimo_plugin.indexing.exporting import export_vectors

    done = export_vectors(sources, Format(kind), output, options)
    for warning in done.warnings:
        click.echo(f"mimo: warning: {warning}", err=True)
    click.echo(f"{output}: {done.documents} vectors, {done.dimension} dimensions, {kind}")
    if done.already:
        click.echo("it was complete already; nothing was written")
