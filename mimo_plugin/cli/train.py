"""`mimo train`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from mimo_plugin.cli import LazyGroup
from mimo_plugin.cli.options import load_recipe, model_options, progress_option
from mimo_plugin.training.recipe import Attention, Stage1Options, Stage2Options

if TYPE_CHECKING:
    from mimo_plugin.training.recipe import Recipe
    from mimo_plugin.training.start import Job, Trained


@click.group(
    "train",
    cls=LazyGroup,
    modules={"stage1": "train:stage1", "stage2": "train:stage2", "all": "train:both"},
)
def train_command() -> None:
    """Train a multilingual student: distillation warm-up, then the joint stage or a baseline.

    \b
    stage1   the student's text, in any language, against the English teacher's embedding of its translation
    stage2   cross-lingual contrastive learning and distillation together (MIMO), or xlco, infonce, lakda
    all      both, one after the other

    A run that was cut short goes on from its last checkpoint when the same command is given again, and ends
    with the same weights. Several GPUs: torchrun --nproc-per-node 4 -m mimo_plugin train stage2 ...

    \b
    Example, on two CPU cores and without a model hub:
      mimo data debian --output debian
      mimo train all --student new:mini --teacher packaged:all-MiniLM-L6-v2 --pairs debian/pairs \\
        --table debian/table --dev path:debian/dev --output student
      mimo index path:debian/test --encoder student/stage2/model --output indexes/debian
    """


F = TypeVar("F", bound=Callable[..., Any])

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
    from mimo_plugin.encoder.backend import print_notices
    from mimo_plugin.training.start import Job

    print_notices()
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
