import click


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
def command(module: str, arguments: tuple[str, ...]) -> None:
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
    from mimo_plugin.backends import print_notices
    from mimo_plugin.stock import run_module

    print_notices()
    run_module(module, arguments)
