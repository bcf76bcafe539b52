"""`mimo train stage1`, `stage2` and `all`: options from the recipe's models make a recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mimo_plugin.cli.generate import CommandWithLists, F, model_options
from mimo_plugin.training.models import StudentOptions, TeacherOptions
from mimo_plugin.training.recipe import Recipe, RunSettings, Stage1Options, Stage2Options


def _common(function: F) -> F:
    decorators = [
        click.option(
            "--recipe",
            "recipe_file",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="YAML file; options given here win over it.",
        ),
        model_options(StudentOptions, "student", partial=True, by_option=True),
        model_options(TeacherOptions, "teacher", partial=True, by_option=True),
        model_options(Recipe, "recipe", partial=True),
        model_options(RunSettings, "settings"),
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


_pairs = click.option("--pairs", type=click.Path(), help="Stage-1 data that `mimo data` wrote.")
_table = click.option("--table", type=click.Path(), help="Stage-2 data that `mimo data` wrote.")
_projection = click.option(
    "--projection",
    type=click.Path(path_type=Path),
    help="Projection of stage 1.  [default: the one beside --student]",
)


@click.command("stage1", cls=CommandWithLists)
@_pairs
@_common
@model_options(Stage1Options, "stage1", partial=True)
def stage1(**given: Any) -> None:
    """Distillation warm-up on parallel pairs.

    \b
    Examples:
      mimo train stage1 --pairs pairs --output warm-up
      mimo train stage1 --student new:mini --teacher packaged:all-MiniLM-L6-v2 --pairs debian/pairs \\
        --dev path:debian/dev --learning-rate 1e-3 --output warm-up
    """
    _train(["stage1"], **given)


@click.command("stage2", cls=CommandWithLists)
@_table
@_projection
@_common
@model_options(Stage2Options, "stage2", partial=True)
def stage2(**given: Any) -> None:
    """The joint stage (MIMO) on a table of queries and passages, or a baseline.

    \b
    Examples:
      mimo train stage2 --student warm-up --table table --output mimo
      mimo train stage2 --student warm-up --table table --lambda 0.5 --output mimo-0.5
      mimo train stage2 --student warm-up --table table --anchor-teacher packaged:multilingual-e5-small \\
        --anchor-share 0:0.5 --output progressive
      mimo train stage2 --student FacebookAI/xlm-roberta-large --table table --objective xlco --output xlco
    """
    _train(["stage2"], **given)


@click.command("all", cls=CommandWithLists)
@_pairs
@_table
@_common
def both(**given: Any) -> None:
    """Both stages; their hyper-parameters come from --recipe, or are the paper's.

    Writes OUTPUT/stage1 and OUTPUT/stage2.

    \b
    Example:
      mimo train all --recipe recipe.yaml --output student

    \b
    Example of a recipe:
      student: {checkpoint: new:mini}
      teacher: {checkpoint: packaged:all-MiniLM-L6-v2}
      pairs: debian/pairs
      table: debian/table
      stage1: {batch_size: 256, learning_rate: 1e-3, epochs: 3}
      stage2: {batch_size: 512, learning_rate: 5e-4, steps: 600}
    """
    _train(["stage1", "stage2"], **given)


def _train(
    stages: Sequence[str],
    *,
    recipe_file: Path | None,
    recipe: dict[str, Any],
    settings: RunSettings,
    projection: Path | None = None,
    **sections: Any,
) -> None:
    """Runs stages; `sections` holds sections of the recipe and paths of its data, None where not given."""
    from mimo_plugin.training.stages import run_stages

    changes = {name: value for name, value in sections.items() if value is not None}
    found = Recipe.read(recipe_file, {**recipe, **changes})
    for trained in run_stages(found, settings, stages, projection=projection):
        from accelerate import PartialState

        if PartialState().is_main_process:
            click.echo(str(trained))
