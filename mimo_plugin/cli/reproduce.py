import shlex
import sys
from functools import partial
from pathlib import Path

import click

from mimo_plugin.cli.options import (
    CommandWithLists,
    ListOption,
    encoder_options,
    make_encoder_options,
    progress_option,
)


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
@encoder_options
@progress_option
def command(
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
    **encoder_values: object,
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
    from mimo_plugin.benchmarks import config_names, load_config
    from mimo_plugin.errors import Problems, UsageError
    from mimo_plugin.reproduction.suite import SUITES, reproduce_suite

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
    from mimo_plugin.benchmarks.choices import Gain
    from mimo_plugin.evaluation.choices import TableFormat
    from mimo_plugin.evaluation.rendering import render
    from mimo_plugin.evaluation.tables import make_tables
    from mimo_plugin.indexing import IndexOptions
    from mimo_plugin.reproduction.options import ReproduceOptions
    from mimo_plugin.reproduction.running import plan, reproduce
    from mimo_plugin.reproduction.selection import parse_docs

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
        encoder=make_encoder_options(encoder_values),
        threads=threads,
        command=shlex.join(["mimo", *sys.argv[1:]]),
        progress=progress,
    )
    if read is None:
        together = reproduce_suite(suite or "", load, options, click.echo, only_plan=dry_run)
        for name, results in together.results.items():
            for warning in results["warnings"]:
                click.echo(f"mimo: warning: {name}: {warning}", err=True)
        if together.results:
            click.echo(render([together.table()], TableFormat.TEXT), nl=False)
        together.raise_lacking()
        return
    if dry_run:
        plan(read, options, click.echo)
        return
    done = reproduce(read, options, click.echo)
    for warning in done.results["warnings"]:
        click.echo(f"mimo: warning: {warning}", err=True)
    click.echo(render(make_tables(done.evaluation), TableFormat.TEXT), nl=False)
    if done.results["subset"] is not None:
        click.echo(done.results["subset"]["text"])
