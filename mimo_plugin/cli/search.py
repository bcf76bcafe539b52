"""`mimo search` and `mimo pyserini`."""

from pathlib import Path

import click

from mimo_plugin.cli.generate import CommandWithLists, ListOption, model_options
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.settings import SearchOptions


@click.command("search", cls=CommandWithLists)
@click.argument(
    "index_dirs", metavar="INDEX_DIR...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--topics",
    cls=ListOption,
    required=True,
    metavar="COLLECTION|FILE...",
    help="Whose queries to search; a FILE holds lines of id, tab and text, plain or .gz.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The TREC run to write.")
@model_options(SearchOptions, "options")
@model_options(EncoderOptions, "encoding")
def search_command(
    index_dirs: tuple[Path, ...],
    topics: tuple[str, ...],
    output: Path,
    options: SearchOptions,
    encoding: EncoderOptions,
) -> None:
    """Search the queries of one or more collections in an index and write a TREC run.

    Several indexes, of the same encoder, are searched as one: each query is encoded once and the best hits of
    all of them are its hits. Over the parts of a flat index that is the run over the whole, bit for bit.

    Query ids become lang:id exactly when the index has pooled ids; those of a FILE with --lang, or where they
    are so already. An index that Pyserini made (`index` and `docid`) is searched with --encoder.

    \b
    Examples:
      mimo search indexes/sw-yo --topics miracl/sw/dev miracl/yo/dev --output runs/e5.trec
      mimo search indexes/sample --topics mimo-sample --hits 20 --output runs/sample.trec
      mimo search indexes/sw --topics topics.miracl-v1.0-sw-dev.tsv --lang sw --output runs/sw.trec
      mimo search indexes/sw indexes/yo --topics miracl/sw/dev miracl/yo/dev --output runs/e5.trec
      mimo search indexes/ru-zh --topics neuclir/1/ru/trec-2022 neuclir/1/zh/trec-2022 --shared-topics \\
          --topic-field title --hits 1000 --output runs/neuclir.trec
    """
    from mimo_plugin.indexing.search import search_to_run

    found = search_to_run(index_dirs, topics, output, options, encoding)
    for warning in found.warnings:
        click.echo(f"mimo: warning: {warning}", err=True)
    click.echo(f"{output}: {found.queries} queries, {found.lines} lines")


@click.command(
    "pyserini",
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "allow_interspersed_args": False,
    },
    add_help_option=True,
)
@click.argument("module")
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
def pyserini_command(module: str, arguments: tuple[str, ...]) -> None:
    """Run a stock Pyserini MODULE with the encoder class `mimo` registered, on whatever Java there is.

    With that class, length and dimension are the checkpoint's own where they are not given. In the
    configuration of Pyserini's server, mimo:CHECKPOINT names an encoder. docs/pyserini.md is a tutorial.

    \b
    Examples:
      mimo pyserini search.faiss --encoder-class mimo --encoder ./student --index indexes/sample \\
          --topics topics.tsv --output run.trec
      mimo pyserini encode input --corpus corpus.jsonl output --embeddings vectors \\
          encoder --encoder ./student --encoder-class mimo
      mimo pyserini server.rest --config server.yaml --no-prebuilt-indexes --host 127.0.0.1
      mimo pyserini eval.trec_eval -c -m ndcg_cut.10 qrels.txt run.trec
    """
    from mimo_plugin.pyserini.commands import run_module

    run_module(module, arguments)
