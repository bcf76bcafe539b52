"""`mimo reproduce`, `experiment`, `report`, `analyze`."""

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from mimo_plugin.benchmark.settings import AnalyzeOptions, ExperimentOptions, ReproduceOptions
from mimo_plugin.cli.generate import (
    Argument,
    CommandWithLists,
    ListOption,
    json_option,
    model_options,
    table_format_option,
)
from mimo_plugin.encoder import packaged
from mimo_plugin.encoder.options import EncoderOptions

_DIRECTORY = click.Path(path_type=Path)


@click.command("reproduce", cls=CommandWithLists)
@click.argument("config", cls=Argument, metavar="[CONFIG]", required=False)
@click.option(
    "--encoder",
    "encoders",
    cls=ListOption,
    metavar="[NAME=]CHECKPOINT...",
    help=f"Each is a system: a directory, a training run, a hub id, {packaged.NAMES}.",
)
@click.option("--output", type=_DIRECTORY, help="Directory, new or begun before.  [default: indexes/NAME]")
@click.option(
    "--suite",
    metavar="NAME",
    help="Several benchmarks instead of one, with a table of all: `paper` has those of the MIMO paper.",
)
@click.option("--dry-run", is_flag=True, help="Check everything, report the remaining work, and stop.")
@click.option("--list", "list_configs", is_flag=True, help="List the packaged configs.")
@click.option("--tables", is_flag=True, help="Print scores and differences for every language at the end.")
@model_options(ReproduceOptions, "options")
@model_options(EncoderOptions, "encoding")
def reproduce_command(
    config: str | None,
    encoders: tuple[str, ...],
    output: Path | None,
    suite: str | None,
    dry_run: bool,
    list_configs: bool,
    tables: bool,
    options: ReproduceOptions,
    encoding: EncoderOptions,
) -> None:
    """Index, search, evaluate and report a whole benchmark.

    CONFIG is a name from --list or a YAML file. It begins with an estimate of time and disk. Finished steps
    are skipped: after a kill, the same command resumes. The output holds runs/, indexes/, results.json and
    report/index.html.

    \b
    Examples:
      mimo reproduce --list
      mimo reproduce sample --encoder packaged:all-MiniLM-L6-v2
      mimo reproduce miracl-dev --encoder intfloat/multilingual-e5-small --languages sw,yo
      mimo reproduce neuclir-2022 --encoder mimo=runs/mimo e5=intfloat/multilingual-e5-large --dry-run
      mimo reproduce belebele --data hub:yjoonjang/mlir-benchmarks --encoder yjoonjang/MIMO-xlm-roberta-large
      mimo reproduce --suite paper --data hub:yjoonjang/mlir-benchmarks --encoder mimo=runs/mimo
      mimo reproduce debian --data debian --encoder mimo=student/stage2 --run colbert.trec --docs judged+1000
    """
    from mimo_plugin.benchmark.loading import config_names
    from mimo_plugin.benchmark.reproduce import plan, reproduce
    from mimo_plugin.benchmark.suite import SUITES, reproduce_suite
    from mimo_plugin.core.errors import Problems, UsageError
    from mimo_plugin.core.table import render
    from mimo_plugin.evaluation.options import TableFormat

    if list_configs:
        names = config_names()
        width = max(len(name) for name, _ in names)
        click.echo("\n".join(f"{name:<{width}}  {title}" for name, title in names))
        for name, parts in SUITES.items():
            click.echo(f"--suite {name}: {', '.join(parts)}")
        return
    problems = Problems(UsageError)
    if config is None and suite is None:
        problems.add("no CONFIG was given, expected a name from --list or a YAML file, or --suite NAME")
    if config is not None and suite is not None:
        problems.add(f"{config} and --suite {suite}, expected one of them")
    if suite is not None and options.runs:
        problems.add("--run with --suite, expected it with a CONFIG: a run is of one benchmark")
    if suite is not None and options.slices is not None:
        problems.add("--slices with --suite, expected it with a CONFIG: slices are of one benchmark's topics")
    problems.raise_any()
    command = shlex.join(["mimo", *sys.argv[1:]])
    if suite is not None:
        finished = reproduce_suite(
            suite,
            output or Path("indexes", f"suite-{suite}"),
            encoders,
            vars(options),
            encoding=encoding,
            command=command,
            say=click.echo,
            only_plan=dry_run,
        )
        for name, results in finished.results.items():
            _warn(f"{name}: {warning}" for warning in results.warnings)
        if finished.results:
            click.echo(render([finished.table()], TableFormat.TEXT, bold=True), nl=False)
        finished.raise_lacking()
    elif dry_run:
        plan(config or "", output, encoders, encoding=encoding, say=click.echo, **vars(options))
    else:
        done = reproduce(
            config or "",
            output,
            encoders,
            encoding=encoding,
            command=command,
            say=click.echo,
            **vars(options),
        )
        _warn(done.results.warnings)
        click.echo()
        scores = done.evaluation
        click.echo(scores.render(bold=True) if tables else scores.summary(bold=True), nl=False)
        if done.results.subset is not None:
            click.echo(done.results.subset.text)
        click.echo(f"report: {done.report}{'' if tables else '; --tables prints its tables of scores'}")


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f"mimo: warning: {warning}", err=True)


@click.command("experiment", cls=CommandWithLists)
@click.argument("recipe", metavar="RECIPE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--output",
    type=_DIRECTORY,
    help="Directory of the experiment, new or begun before.  [default: experiments/NAME]",
)
@click.option("--dry-run", is_flag=True, help="Check everything, list finished and missing steps, and stop.")
@model_options(ExperimentOptions, "options")
def experiment_command(recipe: Path, output: Path | None, dry_run: bool, options: ExperimentOptions) -> None:
    """Train and score a grid of systems and seeds.

    Each system is compared with a baseline. Systems share a seed's new student, warm-ups with the same
    options, and the teacher's embeddings. Finished steps are skipped: after a kill, the same command resumes.
    Writes results.json and results.md, scores as mean and standard deviation over seeds.

    \b
    Example of a recipe; paths are relative to it:
      name: debian
      data: {pairs: data/debian/pairs, table: data/debian/table}
      collections: {test: path:data/debian/test}
      student: {checkpoint: new:mini}
      teacher: {checkpoint: packaged:all-MiniLM-L6-v2}
      stage1: {batch_size: 256, learning_rate: 1e-3, steps: 2400}
      stage2: {batch_size: 256, learning_rate: 5e-4, steps: 800}
      systems:
        xlco: {objective: xlco}
        mimo: {objective: mimo, lambda: 0.2}
        mimo-0: {objective: mimo, lambda: 0}
        cold: {objective: mimo, lambda: 0.2, warm_up: false}
      seeds: [1, 2, 3]
      baseline: xlco

    \b
    Examples:
      mimo experiment debian.yaml --dry-run
      mimo experiment debian.yaml --output experiments/debian
      mimo experiment debian.yaml --only xlco mimo --seeds 1
    """
    from mimo_plugin.benchmark.experiment import plan_experiment, run_experiment
    from mimo_plugin.benchmark.grid import Experiment
    from mimo_plugin.core.errors import MimoError

    experiment = Experiment.read(recipe)
    output = output or Path("experiments", experiment.recipe.name)
    if dry_run:
        click.echo(plan_experiment(experiment, output, options))
        return
    results = run_experiment(experiment, output, options, click.echo)
    if results.failed:
        raise MimoError(f"{len(results.failed)} could not be trained: {'; '.join(results.failed)}")


@click.command("report", cls=CommandWithLists)
@click.argument("results", metavar="RESULTS", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Directory of the report.  [default: report, beside the results]",
)
def report_command(results: Path, output: Path | None) -> None:
    """Make the report of a reproduction again, from its results.

    RESULTS is the directory of `mimo reproduce --output`, or the results.json in it; the hits of topics come
    from topics.json beside it. Writes a self-contained index.html, topics.html, figures/ (SVG, PNG) and
    tables/ (CSV, LaTeX). Nothing is computed again.

    \b
    Examples:
      mimo report indexes/miracl-dev
      mimo report results.json --output public
    """
    from mimo_plugin.evaluation.per_topic import read_per_topic
    from mimo_plugin.evaluation.results import read_results
    from mimo_plugin.report.page import write_report

    found = read_results(results)
    beside = results if results.is_dir() else results.parent
    click.echo(write_report(found, output or beside / "report", read_per_topic(beside)))


@click.command("analyze", cls=CommandWithLists)
@click.argument("collections", cls=Argument, metavar="COLLECTION...", nargs=-1)
@click.option(
    "--encoder",
    "encoders",
    cls=ListOption,
    metavar="[NAME=]CHECKPOINT...",
    help="Checkpoints as `mimo index` takes them, or output directories of `mimo train`.",
)
@click.option(
    "--run",
    "runs",
    cls=ListOption,
    metavar="[NAME=]FILE...",
    help="TREC runs, whose language bias is measured.",
)
@model_options(AnalyzeOptions, "options")
@table_format_option
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Directory for the tables and for pictures as PNG and SVG.  [default: tables on standard output]",
)
@json_option
@model_options(EncoderOptions, "encoding")
def analyze_command(
    collections: tuple[str, ...],
    encoders: tuple[str, ...],
    runs: tuple[str, ...],
    options: AnalyzeOptions,
    table_format: str,
    output: Path | None,
    json_file: Path | None,
    encoding: EncoderOptions,
) -> None:
    """Measure how encoders represent languages.

    Measures are alignment of translations, uniformity and separability. Uses texts that the collections have
    in several languages; without any, texts of each language, and no alignment. Separability is how well a
    probe predicts the language from the vector. The directory of a training run stands for its model;
    alignment and uniformity are also shown for its checkpoints: those on disk, else the values recorded on
    its dev collection. --sts measures sentence similarity: Spearman's rho of cosines and gold scores, with an
    interval, per language pair, and against the first encoder; it needs no COLLECTION.

    \b
    Examples:
      mimo analyze mimo-sample --encoder intfloat/multilingual-e5-small --output geometry
      mimo analyze path:data/test --encoder mimo=runs/stage2 xlco=runs/xlco --json geometry.json
      mimo analyze path:data/test --encoder runs/stage2 --role queries --format latex
      mimo analyze mimo-sample --run mimo.trec bm25=runs/bm25.trec --hits-cutoff 20
      mimo analyze --sts sts17.jsonl sts22.jsonl.gz --encoder intfloat/multilingual-e5-small mimo=runs/stage2
    """
    from mimo_plugin.benchmark.analyze import analyze, write_outputs

    analysis = analyze(collections, encoders, runs, options, encoding, json_file=json_file, output=output)
    _warn(analysis.warnings)
    click.echo(write_outputs(analysis, table_format, output, json_file), nl=False)
