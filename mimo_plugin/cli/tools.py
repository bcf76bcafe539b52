"""`mimo doctor`, `collections`, `demo`."""

from pathlib import Path

import click

from mimo_plugin.cli.generate import Argument, CommandWithLists, progress_option


@click.command("doctor", cls=CommandWithLists)
@click.pass_context
def doctor_command(ctx: click.Context) -> None:
    """Say what is installed and usable, and how to fix what is not.

    Exits with 1 when a requirement of the package is missing.
    """
    from mimo_plugin.doctor import examine, text

    findings = examine()
    click.echo(text(findings))
    if any(finding.state == "problem" for finding in findings):
        ctx.exit(1)


@click.command("collections", cls=CommandWithLists)
@click.argument("collections", cls=Argument, metavar="[COLLECTION]...", nargs=-1)
@click.option(
    "--count", is_flag=True, help="Read every document to count them by language; downloads what is missing."
)
def collections_command(collections: tuple[str, ...], count: bool) -> None:
    """List the known collections, or describe some of them.

    For a COLLECTION: languages, fields, a sample document and query, numbers of queries and judgments.
    Without --count nothing is downloaded, and only the first document is read. For several, also what their
    ids become in one pool.

    \b
    Examples:
      mimo collections
      mimo collections mimo-sample --count
      mimo collections miracl/de/dev miracl/sw/dev
      mimo collections path:my-folder#dev
    """
    from mimo_plugin.collections.describe import catalog_text, describe

    click.echo(describe(collections, count=count) if collections else catalog_text())


@click.command("demo", cls=CommandWithLists)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("indexes/demo"),
    show_default=True,
    help="Where data, models, indexes and runs go.",
)
@progress_option
def demo_command(output: Path, progress: bool | None) -> None:
    """Train, index, search and evaluate on packaged data.

    It takes minutes on two CPU cores. The data is a thousand package descriptions of Debian, each in five
    of 14 languages; three quarters are for training, the rest is searched. MIMO trains two layers of a
    pretrained multilingual encoder from an English teacher. XLCO, contrastive learning alone, starts from
    the same layers and has as many stage-2 updates. BM25, and a hybrid of it and MIMO, stand beside them.

    \b
    Example:
      mimo demo --output demo
    """
    from mimo_plugin.cli.evaluate import evaluate_command as evaluate
    from mimo_plugin.demo import DemoOptions, run_demo

    demo = run_demo(output, click.echo, DemoOptions(progress=progress))
    arguments = [
        *(str(run) for run in demo.runs),
        "--qrels",
        demo.collection,
        "--measures",
        "ndcg@20",
        "--baseline",
        "bm25",
    ]
    click.echo("7. Which is better, and is the difference significant?")
    click.echo(f"   mimo evaluate {' '.join(arguments)}\n")
    evaluate.main(args=arguments, prog_name="mimo evaluate", standalone_mode=False)
    click.echo(f"\n{demo.picture} shows it, with the languages that each run brings back.")
