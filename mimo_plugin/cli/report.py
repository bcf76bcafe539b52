from pathlib import Path

import click


@click.command("report")
@click.argument("results", metavar="RESULTS", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Directory of the report.  [default: report, beside the results]",
)
def command(results: Path, output: Path | None) -> None:
    """Make the report of a reproduction again, from its results.

    RESULTS is the directory of `mimo reproduce --output`, or the results.json in it. Writes index.html, one
    file that needs no other and no network, and beside it figures/ (SVG, PNG) and tables/ (CSV, LaTeX).
    Nothing is computed again.

    \b
    Examples:
      mimo report indexes/miracl-dev
      mimo report results.json --output public
    """
    from mimo_plugin.report.results import read_results
    from mimo_plugin.report.writing import write_report

    found = read_results(results)
    beside = results if results.is_dir() else results.parent
    click.echo(write_report(found, output or beside / "report"))
