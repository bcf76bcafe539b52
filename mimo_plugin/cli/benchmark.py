"""`mimo reproduce`, `experiment`, `report`, `analyze`."""

import shlex
import sys
from functools import partial
from pathlib import Path

import click

from mimo_plugin.benchmark.options import AnalyzeOptions
from mimo_plugin.cli.options import (
    CommandWithLists,
    ListOption,
    collections_argument,
    json_option,
    model_options,
    progress_option,
    table_format_option,
)
from mimo_plugin.core.errors import MimoError
from mimo_plugin.encoder.options import EncoderOptions


@click.command("reproduce", cls=CommandWithLists)
@click.argument("config", required=False)
@click.option(
    "--encoder",
    "encoders",
    cls=ListOption,
    metavar="[NAME=]CHECKPOINT...",
    help="Each is a system: a directory, a training run, a hub id or packaged:all-MiniLM-L6-v2.",
)
@click.option(
    "--run", "runs", cls=ListOption, metavar="[NAME=]FILE...", help="TREC runs that were made elsewhere."
)
@click.option("--bm25/--no-bm25", default=None, help="BM25 as a system.  [default: as the config says]")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Directory, new or begun before.  [default: indexes/NAME]",
)
@click.option("--languages", cls=ListOption, metavar="LANG,...", help="These only.  [default: the config's]")
@click.option(
    "--docs",
    metavar="judged+N",
    help="A quick look: the judged documents and N others a language. Every number is labelled as such.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=42,
    show_default=True,
    help="Of the others in --docs, and of the sample that trains IVF, PQ and the like.",
)
@click.option(
    "--data",
    metavar="DIR|hub:OWNER/NAME",
    help="Where {data} of a config lies, or copies of hub repositories.  [default: $MIMO_DATA, else data]",
)
@click.option(
    "--suite",
    metavar="NAME",
    help="Several benchmarks in place of one, with a table of all: `paper` is what the MIMO paper reports.",
)
@click.option(
    "--gain",
    type=click.Choice(["graded", "binary"]),
    help="What judgments count: their grade, or 1 if relevant at all.  [default: the config's]",
)
@click.option(
    "--fairness",
    cls=ListOption,
    metavar="MEASURE@K,...",
    help="Further cutoffs of MRC and PEER, such as MRC@5,10,20 PEER@20,100.  [default: the config's]",
)
@click.option(
    "--baseline", metavar="NAME", help="Compare with this system.  [default: the config's, else the first]"
)
@click.option("--factory", default="Flat", show_default=True, help="FAISS factory string.")
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    help="Documents encoded and written at a time; a kill loses two shards at most.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Of Lucene, for BM25."
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on with indexes that were cut short, or start over with those of unfinished runs.",
)
@click.option("--dry-run", is_flag=True, help="Check everything, say what there is to do, and stop.")
@click.option("--list", "list_configs", is_flag=True, help="Name the configs that come with the package.")
@model_options(EncoderOptions, "encoding")
@progress_option
def reproduce_command(
    config: str | None,
    encoders: tuple[str, ...],
    runs: tuple[str, ...],
    bm25: bool | None,
    output: Path | None,
    languages: tuple[str, ...],
    docs: str | None,
    seed: int,
    data: str | None,
    suite: str | None,
    gain: str | None,
    fairness: tuple[str, ...],
    baseline: str | None,
    factory: str,
    shard_size: int,
    threads: int,
    resume: bool,
    dry_run: bool,
    list_configs: bool,
    progress: bool | None,
    encoding: EncoderOptions,
) -> None:
    """Index, search, evaluate and report a whole benchmark: CONFIG is a name from --list or a YAML file.

    It begins with an estimate of time and disk. What is done is not done again; killed at any moment and
    started again, the command goes on. The output holds runs/, indexes/, results.json and report/index.html.

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
    from mimo_plugin.benchmark.loading import config_names, load_config
    from mimo_plugin.benchmark.suite import SUITES, reproduce_suite
    from mimo_plugin.core.errors import Problems, UsageError

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
    if suite is not None and runs:
        problems.add("--run with --suite, expected it with a CONFIG: a run is of one benchmark")
    problems.raise_any()
    from mimo_plugin.benchmark.reproduce import ReproduceOptions, plan, reproduce
    from mimo_plugin.collections.survey import parse_docs
    from mimo_plugin.evaluation.options import Gain, TableFormat
    from mimo_plugin.evaluation.tables import make_tables, render
    from mimo_plugin.indexing.options import IndexOptions

    load = partial(
        load_config, languages=languages, data=data, gain=Gain(gain) if gain else None, fairness=fairness
    )
    read = load(config) if config is not None else None
    options = ReproduceOptions(
        output=output or Path("indexes", f"suite-{suite}" if read is None else read.name),
        encoders=encoders,
        runs=runs,
        bm25=bm25,
        baseline=baseline,
        distractors=None if docs is None else parse_docs(docs),
        seed=seed,
        index=IndexOptions(
            factory=factory, shard_size=shard_size, seed=seed, resume=resume, progress=progress
        ),
        encoder=encoding,
        threads=threads,
        command=shlex.join(["mimo", *sys.argv[1:]]),
        progress=progress,
    )
    if read is None:
        together = reproduce_suite(suite or "", load, options, click.echo, only_plan=dry_run)
        for name, results in together.results.items():
            for warning in results.warnings:
                click.echo(f"mimo: warning: {name}: {warning}", err=True)
        if together.results:
            click.echo(render([together.table()], TableFormat.TEXT), nl=False)
        together.raise_lacking()
        return
    if dry_run:
        plan(read, options, click.echo)
        return
    done = reproduce(read, options, click.echo)
    for warning in done.results.warnings:
        click.echo(f"mimo: warning: {warning}", err=True)
    click.echo(render(make_tables(done.evaluation), TableFormat.TEXT), nl=False)
    if done.results.subset is not None:
        click.echo(done.results.subset.text)


_DIRECTORY = click.Path(path_type=Path)


@click.command("experiment", cls=CommandWithLists)
@click.argument("recipe", metavar="RECIPE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--output",
    type=_DIRECTORY,
    help="Directory of the experiment, new or begun before.  [default: experiments/NAME]",
)
@click.option("--only", cls=ListOption, metavar="SYSTEM...", help="Run these systems.  [default: all]")
@click.option(
    "--seeds", type=click.IntRange(min=1), help="Run the first so many of the recipe's seeds.  [default: all]"
)
@click.option(
    "--dry-run", is_flag=True, help="Check everything, say what is done and what is to do, and stop."
)
@click.option("--keep-indexes", is_flag=True, help="Keep the indexes of the students that were scored.")
@click.option(
    "--teacher-store",
    type=_DIRECTORY,
    help="Directory of the teacher's embeddings, to share them.  [default: inside --output]",
)
@click.option("--device", help="cpu, cuda or mps.  [default: the fastest that is there]")
@click.option(
    "--encoder-batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Texts a batch when teacher and students encode.",
)
@progress_option
def experiment_command(
    recipe: Path,
    output: Path | None,
    only: tuple[str, ...],
    seeds: int | None,
    dry_run: bool,
    keep_indexes: bool,
    teacher_store: Path | None,
    device: str | None,
    encoder_batch_size: int,
    progress: bool | None,
) -> None:
    """Train and score a grid of systems and seeds, and compare each with a baseline.

    Systems share all that they can: a seed's new student, warm-ups with the same options, the teacher's
    embeddings. What is done is not done again; killed at any moment and started again, the command goes on.
    Writes results.json and results.md, figures as mean and standard deviation over seeds.

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
    from mimo_plugin.benchmark.experiment import ExperimentOptions, plan_experiment, run_experiment
    from mimo_plugin.benchmark.grid import Experiment

    experiment = Experiment.read(recipe)
    options = ExperimentOptions(
        output=output or Path("experiments", experiment.recipe.name),
        only=only,
        seeds=seeds,
        keep_indexes=keep_indexes,
        teacher_store=teacher_store,
        device=device,
        encoder_batch_size=encoder_batch_size,
        progress=progress,
    )
    if dry_run:
        click.echo(plan_experiment(experiment, options))
        return
    results = run_experiment(experiment, options, click.echo)
    if results.failed:
        raise MimoError(f"{len(results.failed)} could not be trained: {'; '.join(results.failed)}")


@click.command("report")
@click.argument("results", metavar="RESULTS", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Directory of the report.  [default: report, beside the results]",
)
def report_command(results: Path, output: Path | None) -> None:
    """Make the report of a reproduction again, from its results.

    RESULTS is the directory of `mimo reproduce --output`, or the results.json in it. Writes index.html, one
    file that needs no other and no network, and beside it figures/ (SVG, PNG) and tables/ (CSV, LaTeX).
    Nothing is computed again.

    \b
    Examples:
      mimo report indexes/miracl-dev
      mimo report results.json --output public
    """
    from mimo_plugin.evaluation.results import read_results
    from mimo_plugin.report.page import write_report

    found = read_results(results)
    beside = results if results.is_dir() else results.parent
    click.echo(write_report(found, output or beside / "report"))


@click.command("analyze", cls=CommandWithLists)
@collections_argument
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
    help="TREC runs: which languages do they bring back?",
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
    """Look at how encoders lay out languages: alignment of translations, uniformity, separability.

    Takes texts that the collections have in several languages; of collections without any, texts of each
    language, and no alignment. Separability is how well a probe tells the language from the vector. The
    directory of a training run stands for its model; alignment and uniformity are shown for its checkpoints,
    too: those that are left, or what was written of its dev collection.

    \b
    Examples:
      mimo analyze mimo-sample --encoder intfloat/multilingual-e5-small --output geometry
      mimo analyze path:data/test --encoder mimo=runs/stage2 xlco=runs/xlco --json geometry.json
      mimo analyze path:data/test --encoder runs/stage2 --role queries --format latex
      mimo analyze mimo-sample --run mimo.trec bm25=runs/bm25.trec --hits-cutoff 20
    """
    from mimo_plugin.benchmark.analyze import analyze, write_outputs

    analysis = analyze(collections, encoders, runs, options, encoding, json_file=json_file, output=output)
    for warning in analysis.warnings:
        click.echo(f"mimo: warning: {warning}", err=True)
    click.echo(write_outputs(analysis, table_format, output, json_file), nl=False)
