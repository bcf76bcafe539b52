"""`mimo search`, `bm25`, `serve` and `pyserini`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mimo_plugin.cli.generate import (
    Argument,
    CommandWithLists,
    F,
    ListOption,
    given,
    ir_metadata_option,
    model_fields,
    model_options,
)
from mimo_plugin.core.errors import MimoError
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.settings import SHOWN, Bm25Options, SearchOptions, ServeOptions, ShowOptions

if TYPE_CHECKING:
    from mimo_plugin.indexing.search import Searched


def _topics(what: str, default: str = "") -> Callable[[F], F]:
    return click.option(
        "--topics",
        cls=ListOption,
        metavar="COLLECTION|FILE...",
        help=f"{what}, or a FILE with lines of id, tab and text, plain or .gz.{default}",
    )


@click.command("search", cls=CommandWithLists)
@click.argument(
    "index_dirs",
    cls=Argument,
    metavar="INDEX_DIR...",
    nargs=-1,
    required=True,
    type=click.Path(),
)
@click.option("-q", "--query", "queries", multiple=True, metavar="TEXT", help="A query whose hits are shown.")
@click.option("--interactive", is_flag=True, help="Read queries line by line and show their hits.")
@_topics("Collections with the queries of a run")
@click.option("--output", type=click.Path(path_type=Path), help="With --topics: the TREC run to write.")
@model_options(ShowOptions, "show")
@model_options(SearchOptions, "options")
@model_options(EncoderOptions, "encoding")
@ir_metadata_option
def search_command(
    index_dirs: tuple[str, ...],
    queries: tuple[str, ...],
    interactive: bool,
    topics: tuple[str, ...],
    output: Path | None,
    show: ShowOptions,
    options: SearchOptions,
    encoding: EncoderOptions,
    metadata: dict[str, Any] | None,
) -> None:
    """Search an index: show the hits of queries, or write a run.

    The run, in TREC's format, is of the topics of collections or files.

    Several indexes of the same encoder are searched as one. The parts of a flat index give the same run as
    the whole, bit for bit. --lang is exact on flat, fp16 and sq8 indexes; hnsw and IVF look at more
    documents, in proportion, and stay approximate.

    Of a single query 10 hits are shown, unless --hits says otherwise. Their texts are those that `mimo index
    --texts` kept, else those of the index's collections, if they are on this machine. In an interactive
    search `:lang de,fr` chooses languages, and Ctrl-D ends.

    Query ids become lang:id where the index has pooled ids; those of a FILE need --topic-lang, or have that
    form already. An index that Pyserini made (`index` and `docid`) needs --encoder. INDEX_DIR may be the
    address of a collection of Milvus, see `mimo export --help`.

    \b
    Examples:
      mimo search indexes/sw-yo -q "gioco di strategia" -k 5
      mimo search indexes/sw-yo --interactive --lang sw
      mimo search indexes/sw-yo --topics miracl/sw/dev miracl/yo/dev --output runs/e5.trec
      mimo search indexes/sample --topics mimo-sample --hits 20 --output runs/sample.trec
      mimo search indexes/sw --topics topics.miracl-v1.0-sw-dev.tsv --topic-lang sw --output runs/sw.trec
      mimo search indexes/sw indexes/yo --topics miracl/sw/dev miracl/yo/dev --output runs/e5.trec
      mimo search milvus:http://head:19530#sw_yo --topics miracl/sw/dev --lang sw --output runs/e5.trec
      mimo search indexes/ru-zh --topics neuclir/1/ru/trec-2022 neuclir/1/zh/trec-2022 --shared-topics \\
          --topic-field title --hits 1000 --output runs/neuclir.trec
    """
    if [bool(queries), interactive, bool(topics)].count(True) != 1:
        raise click.UsageError("one of -q TEXT, --interactive, and --topics with --output was expected")
    if bool(topics) != (output is not None):
        raise click.UsageError("--topics and --output belong together: a run is written; -q shows hits")
    if needless := given(model_fields(ShowOptions) if topics else _OF_A_RUN):
        mode = "--topics" if topics else "-q and --interactive"
        raise click.UsageError(f"{', '.join(needless)} cannot be used with {mode}: leave it out")
    if output is not None:
        from mimo_plugin.indexing.search import search_to_run

        _report(output, search_to_run(index_dirs, topics, output, options, encoding, metadata))
        return

    from mimo_plugin.indexing.ask import Searcher, Session, shown

    if not given(["hits"]):
        options = replace(options, hits=SHOWN)
    searcher = Searcher(index_dirs, options, encoding)
    if queries:
        for text in shown(queries, searcher.search(queries), show):
            click.echo(text)
        return
    session = Session(searcher, show)
    for line in _lines():
        try:
            for text in session.answers(line):
                click.echo(text)
        except MimoError as error:
            click.echo(f"mimo: {error}", err=True)


# Options that only a run has.
_OF_A_RUN = ("metadata", "tag", "shared_topics", "topic_field", "topic_lang", "remove_query", "duplicates")


def _lines() -> Iterator[str]:
    """Lines of standard input; on a terminal with a prompt, editing and a history."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with suppress(ImportError):
        # Makes `input` edit.
        import readline  # noqa: F401
    while True:
        try:
            yield input("query> ")
        except EOFError:
            click.echo()
            return


def _report(output: Path, found: "Searched") -> None:
    for warning in found.warnings:
        click.echo(f"mimo: warning: {warning}", err=True)
    click.echo(f"{output}: {found.queries} queries, {found.lines} lines")


@click.command("bm25", cls=CommandWithLists)
@click.argument("collections", cls=Argument, metavar="COLLECTION...", nargs=-1, required=True)
@_topics("Collections with the queries", "  [default: COLLECTION...]")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The TREC run to write.")
@model_options(Bm25Options, "options")
@ir_metadata_option
def bm25_command(
    collections: tuple[str, ...],
    topics: tuple[str, ...],
    output: Path,
    options: Bm25Options,
    metadata: dict[str, Any] | None,
) -> None:
    """Search with BM25, the baseline, and write a TREC run.

    Lucene indexes COLLECTION..., and queries of these or other collections are searched. Several collections
    are one pool with ids lang:id, as in `mimo index`. The index is gone after the search unless --index keeps
    it; then further searches of the same documents take it as it is. k1 is 0.9 and b 0.4, Anserini's defaults
    for passages.

    \b
    Examples:
      mimo bm25 miracl/sw/dev miracl/yo/dev --output runs/bm25.trec
      mimo bm25 miracl/sw/dev --analyzers language --output runs/bm25-sw.trec
      mimo bm25 mimo-sample --index indexes/sample-bm25 --hits 20 --output runs/bm25.trec
      mimo bm25 miracl/sw --topics topics.miracl-v1.0-sw-dev.tsv --topic-lang sw --output runs/bm25-sw.trec
      mimo evaluate runs/e5.trec runs/bm25.trec --qrels miracl/sw/dev miracl/yo/dev --baseline bm25
    """
    from mimo_plugin.indexing.lexical import bm25_to_run

    _report(output, bm25_to_run(collections, output, options, topics, metadata))


@click.command("serve", cls=CommandWithLists)
@click.argument("index_dir", cls=Argument, metavar="INDEX_DIR", type=click.Path(path_type=Path))
@model_options(ServeOptions, "options")
@model_options(EncoderOptions, "encoding")
def serve_command(index_dir: Path, options: ServeOptions, encoding: EncoderOptions) -> None:
    """Serve an index over HTTP with Pyserini's server.

    The answers are Pyserini's JSON, with the documents' texts: those that `mimo index --texts` kept, else
    those of the index's collections. Its server reads texts from a Lucene index, which is built first and
    gone afterwards unless --lucene keeps it; the same index answers with BM25. Pyserini 2.1 to 2.3 serve
    local indexes, and need Python 3.12 or newer. Ctrl-C ends.

    \b
    Examples:
      mimo serve indexes/de-it
      mimo serve indexes/sw-yo --lucene indexes/sw-yo-texts --host 0.0.0.0 --port 80
      curl 'http://127.0.0.1:8081/v1/dense/search?query=gioco+di+strategia&hits=5'
      curl 'http://127.0.0.1:8081/v1/bm25/search?query=gioco+di+strategia&hits=5'
    """
    from mimo_plugin.indexing.serving import serve

    serve(index_dir, options, encoding)


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
    """Run Pyserini's own MODULE with the encoder class `mimo`.

    Any usable Java will do. With that class, the defaults of length and dimension are the checkpoint's own.
    In the configuration of Pyserini's server, mimo:CHECKPOINT names an encoder. docs/pyserini.md is a
    tutorial.

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
