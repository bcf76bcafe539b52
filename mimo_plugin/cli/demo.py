from pathlib import Path

import click

from mimo_plugin.cli.options import progress_option


@click.command("demo")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("indexes/demo"),
    show_default=True,
    help="Where index and runs go.",
)
@progress_option
@click.pass_context
def command(ctx: click.Context, output: Path, progress: bool | None) -> None:
    """Do the main job on packaged data: index, search, compare with BM25, in minutes on two CPU cores.

    The collection is about a thousand package descriptions of Debian in up to 14 languages; the encoder is an
    English one, so that there is something left to gain for a multilingual student.
    """
    from mimo_plugin.cli.evaluate import command as evaluate
    from mimo_plugin.demo import COLLECTION, run_demo

    dense, bm25 = run_demo(output, click.echo, progress=progress)
    arguments = [
        str(dense),
        str(bm25),
        "--qrels",
        COLLECTION,
        "--measures",
        "ndcg@10,recall@100",
        "--baseline",
        "bm25",
    ]
    click.echo("4. Which is better, and is the difference significant?")
    click.echo(f"   mimo evaluate {' '.join(arguments)}\n")
    evaluate.main(args=arguments, prog_name="mimo evaluate", standalone_mode=False)
