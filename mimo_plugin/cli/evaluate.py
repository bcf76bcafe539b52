"""`mimo evaluate` and `mimo fuse`."""

from pathlib import Path
from typing import Any

import click

from mimo_plugin.cli.generate import (
    CommandWithLists,
    ListOption,
    ir_metadata_option,
    json_option,
    model_options,
    table_format_option,
)
from mimo_plugin.evaluation.options import EvaluationOptions, FusionOptions, TableFormat


@click.command("evaluate", cls=CommandWithLists)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--qrels",
    cls=ListOption,
    required=True,
    metavar="COLLECTION|FILE...",
    help="Topics and judgments; a FILE holds TREC qrels, plain or .gz.",
)
@model_options(EvaluationOptions, "options")
@table_format_option
@click.option(
    "--output", type=click.Path(path_type=Path), help="File for the tables.  [default: standard output]"
)
@json_option
def evaluate_command(
    runs: tuple[str, ...],
    qrels: tuple[str, ...],
    options: EvaluationOptions,
    table_format: str,
    output: Path | None,
    json_file: Path | None,
) -> None:
    """Score TREC runs and compare them with significance tests.

    RUN is a file, or NAME=FILE; the default name is the file's. Measures equal trec_eval -c. Scores are
    shown per language, as macro average over languages and as mean over topics; a dagger marks a difference
    from the baseline that is significant after correction.

    \b
    Examples:
      mimo evaluate e5.trec --qrels miracl/sw/dev
      mimo evaluate e5.trec bm25.trec --qrels miracl/sw/dev miracl/yo/dev --baseline bm25
      mimo evaluate sw.trec --qrels qrels.miracl-v1.0-sw-dev.tsv --topic-lang sw
      mimo evaluate a=1/run.trec b=2/run.trec c=3/run.trec --qrels mimo-sample --test tukey-hsd
      mimo evaluate e5.trec bm25.trec --qrels miracl/sw/dev --baseline bm25 --test permutation \\
          --measures ndcg@10,recall@100,mrr@10 --format latex --output table.tex --json scores.json
    """
    from mimo_plugin.core.files import write_text
    from mimo_plugin.evaluation.evaluate import evaluate

    outputs = [path for path in (output, json_file) if path is not None]
    evaluation = evaluate(runs, qrels, options, outputs=outputs)
    for warning in evaluation.warnings:
        click.echo(f"mimo: warning: {warning}", err=True)
    tables = evaluation.render(TableFormat(table_format), bold=output is None)
    if output is None:
        click.echo(tables, nl=False)
    else:
        write_text(output, tables)
    if json_file is not None:
        evaluation.save(json_file)


@click.command("fuse", cls=CommandWithLists)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The TREC run to write.")
@model_options(FusionOptions, "options")
@ir_metadata_option
def fuse_command(
    runs: tuple[str, ...], output: Path, options: FusionOptions, metadata: dict[str, Any] | None
) -> None:
    """Fuse two or more TREC runs of the same topics into one.

    RUN is a file, or NAME=FILE to name it in messages. Queries that only some runs have are kept. If a run
    lacks a document, rrf adds nothing for it, and sum adds the score of the run's last document.

    \b
    Examples:
      mimo fuse bm25.trec mdpr.trec --output hybrid.trec
      mimo fuse bm25.trec mdpr.trec --method sum --weights 0.4,0.6 --hits 1000 --output hybrid.trec
      mimo fuse a=1/run.trec b=2/run.trec c=3/run.trec --k 10 --output three.trec.gz
    """
    from mimo_plugin.evaluation.fusion import fuse_files

    fused = fuse_files(runs, output, options, metadata)
    for warning in fused.warnings:
        click.echo(f"mimo: warning: {warning}", err=True)
    click.echo(f"{output}: {fused.queries} queries, {fused.lines} lines")
