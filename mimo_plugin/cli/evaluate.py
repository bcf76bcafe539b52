"""`mimo evaluate` and `mimo fuse`."""

from pathlib import Path

import click

from mimo_plugin.cli.options import (
    CommandWithLists,
    ListOption,
    files_options,
    json_option,
    progress_option,
    shared_topics_options,
    table_format_option,
)


@click.command("evaluate", cls=CommandWithLists)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--qrels",
    cls=ListOption,
    required=True,
    metavar="COLLECTION|FILE...",
    help="Whose topics and judgments; a FILE holds TREC qrels, plain or .gz.",
)
@click.option(
    "--topics",
    cls=ListOption,
    metavar="COLLECTION|FILE...",
    help="Whose topics, where --qrels is a FILE; without them its query ids are the topics.",
)
@click.option(
    "--measures",
    cls=ListOption,
    default=("ndcg@10,recall@100",),
    show_default="ndcg@10,recall@100",
    metavar="MEASURE,...",
    help="ndcg, ndcg@k, map, map@k, mrr, mrr@k, recall@k, p@k, success@k, rprec, judged@k.",
)
@click.option("--baseline", metavar="NAME", help="Compare every other run with this one.")
@click.option(
    "--test",
    type=click.Choice(["student", "permutation", "tukey-hsd"]),
    help="Paired t, paired randomisation, or (three runs or more) Tukey's HSD with topics as blocks, which "
    "without a baseline compares all pairs.  [default: student, with a baseline]",
)
@click.option(
    "--correction",
    type=click.Choice(["holm", "bonferroni", "bh", "none"]),
    default="holm",
    show_default=True,
    help="For the number of tests, runs x languages, of a measure.",
)
@click.option("--alpha", type=float, default=0.05, show_default=True, help="Level of tests and intervals.")
@click.option(
    "--permutations",
    type=click.IntRange(min=1000),
    default=10_000,
    show_default=True,
    help="Most permutations and bootstrap samples; where there are fewer, all are looked at.",
)
@click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True, help="For both of these.")
@click.option(
    "--languages", cls=ListOption, metavar="LANG,...", help="Evaluate on these only.  [default: all]"
)
@click.option("--pooled", is_flag=True, help="Ids are lang:id also for a single collection.")
@shared_topics_options
@files_options
@click.option("--ignore-unknown-queries", is_flag=True, help="Leave out queries that are no topics.")
@table_format_option
@click.option(
    "--output", type=click.Path(path_type=Path), help="File for the tables.  [default: standard output]"
)
@json_option
@progress_option
def evaluate_command(
    runs: tuple[str, ...],
    qrels: tuple[str, ...],
    measures: tuple[str, ...],
    baseline: str | None,
    test: str | None,
    correction: str,
    alpha: float,
    permutations: int,
    seed: int,
    languages: tuple[str, ...],
    pooled: bool,
    shared_topics: bool,
    topic_field: str | None,
    topic_lang: str | None,
    topics: tuple[str, ...],
    lang: tuple[str, ...],
    remove_query: bool,
    duplicates: str,
    ignore_unknown_queries: bool,
    table_format: str,
    output: Path | None,
    json_file: Path | None,
    progress: bool | None,
) -> None:
    """Score one or more TREC runs and compare them with significance tests.

    RUN is a file, or NAME=FILE to name it; without a name it is called like the file. Measures equal
    trec_eval -c. Scores are shown per language, as macro average over languages and as mean over topics;
    a dagger marks a difference from the baseline that is significant after correction.

    \b
    Examples:
      mimo evaluate e5.trec --qrels miracl/sw/dev
      mimo evaluate e5.trec bm25.trec --qrels miracl/sw/dev miracl/yo/dev --baseline bm25
      mimo evaluate sw.trec --qrels qrels.miracl-v1.0-sw-dev.tsv --lang sw
      mimo evaluate a=1/run.trec b=2/run.trec c=3/run.trec --qrels mimo-sample --test tukey-hsd
      mimo evaluate e5.trec bm25.trec --qrels miracl/sw/dev --baseline bm25 --test permutation \\
          --measures ndcg@10,recall@100,mrr@10 --format latex --output table.tex --json scores.json
    """
    from mimo_plugin.evaluation.evaluate import EvaluationOptions, evaluate
    from mimo_plugin.evaluation.options import Correction, SignificanceTest, TableFormat
    from mimo_plugin.evaluation.tables import write_outputs

    evaluation = evaluate(
        runs,
        qrels,
        EvaluationOptions(
            measures=measures,
            baseline=baseline,
            test=SignificanceTest(test) if test else None,
            correction=Correction(correction),
            alpha=alpha,
            permutations=permutations,
            seed=seed,
            pooled=pooled or None,
            shared_topics=shared_topics,
            topic_field=topic_field,
            topic_lang=topic_lang,
            languages=languages,
            topics=topics,
            lang=lang,
            remove_query=remove_query,
            duplicates=duplicates,
            ignore_unknown_queries=ignore_unknown_queries,
            progress=progress,
        ),
        [path for path in (output, json_file) if path is not None],
    )
    for warning in evaluation.warnings:
        click.echo(f"mimo: warning: {warning}", err=True)
    tables = write_outputs(evaluation, TableFormat(table_format), output, json_file)
    if output is None:
        click.echo(tables, nl=False)


@click.command("fuse")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The TREC run to write.")
@click.option(
    "--method",
    type=click.Choice(["rrf", "sum"]),
    default="rrf",
    show_default=True,
    help="Reciprocal rank fusion, or a sum of normalised scores.",
)
@click.option("--k", type=click.IntRange(min=0), help="Of rrf: 1 / (k + rank).  [default: 60]")
@click.option(
    "--norm",
    type=click.Choice(["min-max", "z", "none"]),
    help="Of sum: how scores are normalised, per run and query.  [default: min-max]",
)
@click.option("--weights", metavar="W,...", help="What each run counts, in order.  [default: 1 each]")
@click.option("--hits", type=click.IntRange(min=1), help="Documents a query.  [default: all]")
@click.option("--tag", default="fusion", show_default=True, help="Sixth column of the run.")
@progress_option
def fuse_command(
    runs: tuple[str, ...],
    output: Path,
    method: str,
    k: int | None,
    norm: str | None,
    weights: str | None,
    hits: int | None,
    tag: str,
    progress: bool | None,
) -> None:
    """Fuse two or more TREC runs of the same topics into one.

    RUN is a file, or NAME=FILE to name it in messages. Queries that only some runs have are kept. A document
    that a run does not have gets nothing from it with rrf, and as much as its last document with sum.

    \b
    Examples:
      mimo fuse bm25.trec mdpr.trec --output hybrid.trec
      mimo fuse bm25.trec mdpr.trec --method sum --weights 0.4,0.6 --hits 1000 --output hybrid.trec
      mimo fuse a=1/run.trec b=2/run.trec c=3/run.trec --k 10 --output three.trec.gz
    """
    from mimo_plugin.evaluation.fusion import FusionMethod, FusionOptions, Normalization, fuse_files

    fused = fuse_files(
        runs,
        output,
        FusionOptions(
            method=FusionMethod(method),
            k=k,
            norm=None if norm is None else Normalization(norm),
            weights=None if weights is None else _numbers(weights),
        ),
        hits=hits,
        tag=tag,
        progress=progress,
    )
    for warning in fused.warnings:
        click.echo(f"mimo: warning: {warning}", err=True)
    click.echo(f"{output}: {fused.queries} queries, {fused.lines} lines")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{text!r}, expected numbers with commas between them, such as 0.4,0.6", param_hint="'--weights'"
        ) from None
