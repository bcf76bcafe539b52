"""`mimo train stage1`, `stage2` and `all`: options from the recipe's models, and back to a recipe."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from mimo_plugin.cli.options import progress_option
from mimo_plugin.training.recipe import PROJECTION_INPUT, Attention, Stage1Options, Stage2Options

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mimo_plugin.training.recipe import Recipe
    from mimo_plugin.training.start import Job, Trained

F = TypeVar("F", bound=Callable[..., Any])

# Option names that are not the field's own.
_NAMES = {
    "contrastive_weight": "--lambda",
    "carry_projection": "--carry-projection/--fresh-projection",
    "cache_gradients": "--cache-gradients/--no-cache-gradients",
    "gradient_checkpointing": "--gradient-checkpointing/--no-gradient-checkpointing",
}
_HELP = {
    "batch_size": "Texts (stage 1) or rows (stage 2) an optimiser step, over all devices.",
    "learning_rate": "Highest learning rate; it falls linearly to 0.",
    "max_length": "Longest text in tokens.",
    "warmup": "Share of the steps over which the learning rate rises.",
    "epochs": "Passes over the data.",
    "steps": "Optimiser steps, in place of --epochs.",
    "weight_decay": "Of AdamW.",
    "max_grad_norm": "Longer gradients of the encoder are cut to this length.",
    "metric": "How far the projected student is from the teacher.",
    "projection_input": "What the projection reads: the pooled vector as it is, as in the paper, or "
    f"L2-normalised.  [default: as in stage 1, else {PROJECTION_INPUT}]",
    "gradient_accumulation_steps": "Cut each batch into so many parts, one after another; each has the "
    "negatives of its own part only.",
    "gradient_checkpointing": "Compute activations again in the backward pass: slower, with less memory.",
    "precision": "Of the forward pass; auto is bfloat16 where the device has it.",
    "eval_steps": "Steps between two scores on --dev, each with a checkpoint.  [default: ten times a run]",
    "save_steps": "Steps between two checkpoints, each scored on --dev.  [default: ten times a run]",
    "log_steps": "Steps between two lines of metrics.",
    "collapse_similarity": "Stop when the mean cosine of different texts stays above this ...",
    "collapse_steps": "... for so many steps.",
    "cache_gradients": "Memory of one mini-batch whatever the batch; without, a step is a quarter faster.",
    "objective": "MIMO, or a baseline.",
    "contrastive_weight": "Share of the contrastive loss in MIMO.",
    "temperature": "Of the contrastive loss.",
    "mini_batch_size": "Texts embedded at a time, those of like length together.",
    "carry_projection": "Go on with stage 1's projection, or start a new one.",
    "lakda_alpha": "Share of the divergence in LaKDA.",
}


def model_options(model: "type[BaseModel]") -> Callable[[F], F]:
    """A click option for every field of a stage's options; the value is None where none was given."""

    def decorate(function: F) -> F:
        for name, field in reversed(model.model_fields.items()):
            declaration = _NAMES.get(name, f"--{name.replace('_', '-')}")
            text = _HELP[name]
            if field.default is not None and "[default" not in text:
                shown = field.default.value if isinstance(field.default, StrEnum) else field.default
                if isinstance(shown, bool):
                    shown = declaration.removeprefix("--").split("/--")[0 if shown else 1]
                text = f"{text}  [default: {shown}]"
            kind = None if "/" in declaration else _click_type(field.annotation)
            function = click.option(declaration, name, type=kind, default=None, help=text)(function)
        return function

    return decorate


def _click_type(annotation: Any) -> Any:
    """The type of the option for a field: its own, or what it is besides None or a constraint."""
    if isinstance(annotation, type):
        if issubclass(annotation, StrEnum):
            return click.Choice([member.value for member in annotation])
        return {int: click.INT, float: click.FLOAT}[annotation]
    return _click_type(get_args(annotation)[0])


def load_recipe(path: Path | None, changes: Mapping[str, Any]) -> "Recipe":
    """A recipe file with what the command line says in its place.

    Args:
        changes: dotted field -> value; None is left out.

    Raises:
        UsageError: the file is no recipe, or a value is not allowed; all of them together.
    """
    from pydantic import ValidationError

    from mimo_plugin.core.artifact import field_problems
    from mimo_plugin.core.errors import UsageError
    from mimo_plugin.training.recipe import Recipe, read_yaml

    values = {} if path is None else read_yaml(path)
    for name, value in changes.items():
        if value is None:
            continue
        *sections, field = name.split(".")
        place = values
        for section in sections:
            inner = place.setdefault(section, {})
            if not isinstance(inner, dict):
                raise UsageError(f"{path}: {section} is {inner!r}, expected a mapping of options")
            place = inner
        place[field] = value
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        where = "the recipe" if path is None else str(path)
        raise UsageError("\n".join(f"{where}: {problem}" for problem in field_problems(error))) from error


_DIRECTORY = click.Path(path_type=Path)


def _common(function: F) -> F:
    decorators = [
        click.option(
            "--recipe",
            "recipe_file",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="YAML file; options given here win over it.",
        ),
        click.option(
            "--student",
            help="Directory, hub id, or new:tiny, new:mini, new:small.  "
            "[default: FacebookAI/xlm-roberta-large]",
        ),
        click.option(
            "--teacher",
            help="English encoder: directory, hub id or packaged:all-MiniLM-L6-v2.  "
            "[default: Qwen/Qwen3-Embedding-8B]",
        ),
        click.option("--teacher-query-prompt", help="Put before queries.  [default: the teacher's own]"),
        click.option("--teacher-passage-prompt", help="Put before passages.  [default: the teacher's own]"),
        click.option(
            "--teacher-max-length", type=click.IntRange(min=3), help="Tokens.  [default: the teacher's own]"
        ),
        click.option(
            "--teacher-dtype",
            type=click.Choice(["float32", "bfloat16", "float16"]),
            help="Number format of the teacher's weights.  [default: that of the store; of a new one "
            "bfloat16 on an accelerator, float32 on a CPU]",
        ),
        click.option(
            "--teacher-batch-size",
            type=click.IntRange(min=1),
            help="Texts a batch of the teacher.  [default: --encoder-batch-size]",
        ),
        click.option(
            "--teacher-attention",
            type=click.Choice(get_args(Attention)),
            help="Of the teacher.  [default: what transformers chooses]",
        ),
        click.option(
            "--teacher-store",
            type=_DIRECTORY,
            help="Directory of the teacher's embeddings, shared between runs.  "
            "[default: teacher-store beside --output]",
        ),
        click.option(
            "--vocabulary",
            type=click.IntRange(min=300),
            help="Tokens of a new student's tokenizer, for example 24000.  [default: the size's own]",
        ),
        click.option(
            "--pooling",
            type=click.Choice(["mean", "cls", "lasttoken"]),
            help="Of the student.  [default: the checkpoint's own, else mean]",
        ),
        click.option(
            "--query-prompt",
            help="Put before the student's queries, from stage 2 on.  [default: the checkpoint's own]",
        ),
        click.option(
            "--document-prompt", help="Before its passages and documents.  [default: the checkpoint's own]"
        ),
        click.option(
            "--dev",
            metavar="COLLECTION",
            help="Scored while training, so that the best checkpoint is kept.  [default: none, the last is]",
        ),
        click.option(
            "--seed", type=click.IntRange(min=0), help="Of order, fresh weights, dropout.  [default: 42]"
        ),
        click.option(
            "--output", required=True, type=_DIRECTORY, help="Directory of the run, new or begun before."
        ),
        click.option("--device", help="cpu, cuda or mps.  [default: the fastest that is there]"),
        click.option(
            "--encoder-batch-size",
            type=click.IntRange(min=1),
            default=64,
            show_default=True,
            help="Texts a batch of the teacher and of --dev.",
        ),
        click.option(
            "--resume/--no-resume",
            default=True,
            show_default=True,
            help="Go on with a run that was cut short, or start over.",
        ),
        click.option(
            "--report-to",
            multiple=True,
            metavar="NAME",
            help="Tracker to report to besides: wandb, mlflow, ...; may be given more than once.",
        ),
        progress_option,
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


_pairs = click.option("--pairs", type=_DIRECTORY, help="Stage-1 data that `mimo data` wrote.")
_table = click.option("--table", type=_DIRECTORY, help="Stage-2 data that `mimo data` wrote.")
_projection = click.option(
    "--projection", type=_DIRECTORY, help="Projection of stage 1.  [default: the one beside --student]"
)


@click.command("stage1")
@_pairs
@_common
@model_options(Stage1Options)
def stage1(pairs: Path | None, **values: Any) -> None:
    """Distillation warm-up on parallel pairs.

    \b
    Examples:
      mimo train stage1 --pairs pairs --output warm-up
      mimo train stage1 --student new:mini --teacher packaged:all-MiniLM-L6-v2 --pairs debian/pairs \\
        --dev path:debian/dev --learning-rate 1e-3 --output warm-up
    """
    from mimo_plugin.training.stages import train_stage1

    recipe, job = _read(values, {"pairs": _text(pairs), **_section("stage1", Stage1Options, values)})
    _say(train_stage1(recipe, job))


@click.command("stage2")
@_table
@_projection
@_common
@model_options(Stage2Options)
def stage2(table: Path | None, projection: Path | None, **values: Any) -> None:
    """The joint stage (MIMO) on a table of queries and passages, or a baseline.

    \b
    Examples:
      mimo train stage2 --student warm-up --table table --output mimo
      mimo train stage2 --student warm-up --table table --lambda 0.5 --output mimo-0.5
      mimo train stage2 --student FacebookAI/xlm-roberta-large --table table --objective xlco --output xlco
    """
    from mimo_plugin.training.stages import train_stage2

    recipe, job = _read(values, {"table": _text(table), **_section("stage2", Stage2Options, values)})
    _say(train_stage2(recipe, job, projection))


@click.command("all")
@_pairs
@_table
@_common
def both(pairs: Path | None, table: Path | None, **values: Any) -> None:
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
    from mimo_plugin.training.stages import train_both

    recipe, job = _read(values, {"pairs": _text(pairs), "table": _text(table)})
    for trained in train_both(recipe, job):
        _say(trained)


def _read(values: dict[str, Any], changes: dict[str, Any]) -> "tuple[Recipe, Job]":
    from mimo_plugin.training.start import Job

    own = {
        "student.checkpoint": values["student"],
        "student.vocabulary": values["vocabulary"],
        "teacher.checkpoint": values["teacher"],
        "teacher.query_prompt": values["teacher_query_prompt"],
        "teacher.passage_prompt": values["teacher_passage_prompt"],
        "teacher.max_length": values["teacher_max_length"],
        "teacher.compute_dtype": values["teacher_dtype"],
        "teacher.batch_size": values["teacher_batch_size"],
        "teacher.attention": values["teacher_attention"],
        "student.pooling": values["pooling"],
        "student.query_prompt": values["query_prompt"],
        "student.document_prompt": values["document_prompt"],
        "report_to": values["report_to"] or None,
        "dev": values["dev"],
        "seed": values["seed"],
    }
    recipe = load_recipe(values["recipe_file"], {**own, **changes})
    output: Path = values["output"]
    job = Job(
        output=output,
        teacher_store=values["teacher_store"] or output.absolute().parent / "teacher-store",
        device=values["device"],
        encoder_batch_size=values["encoder_batch_size"],
        resume=values["resume"],
        progress=values["progress"],
    )
    return recipe, job


def _section(
    name: str, model: type[Stage1Options] | type[Stage2Options], values: dict[str, Any]
) -> dict[str, Any]:
    return {f"{name}.{field}": values[field] for field in model.model_fields}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _say(trained: "Trained") -> None:
    from accelerate import PartialState

    from mimo_plugin.training.stages import describe

    if PartialState().is_main_process:
        click.echo(describe(trained))
