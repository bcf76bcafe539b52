from pathlib import Path

import click

from mimo_plugin.cli.options import progress_option


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
def command(
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
    from mimo_plugin.evaluation.fusion import FusionMethod, FusionOptions, Normalization
    from mimo_plugin.evaluation.fusion_files import fuse_files

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
