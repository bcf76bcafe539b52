from pathlib import Path

import click

from mimo_plugin.cli.options import CommandWithLists, ListOption, progress_option
from mimo_plugin.errors import MimoError

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
def command(
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
    from mimo_plugin.backends import print_notices
    from mimo_plugin.experiment.running import ExperimentOptions, plan_experiment, run_experiment
    from mimo_plugin.experiment.systems import Experiment

    print_notices()
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
