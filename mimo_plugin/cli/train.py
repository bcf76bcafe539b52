"""`mimo push` and `mimo train`, whose commands are in `stages.py`: their options need pydantic, too slow for
`mimo --help`."""

from pathlib import Path

import click

from mimo_plugin.cli import LazyGroup
from mimo_plugin.cli.generate import CommandWithLists, model_options
from mimo_plugin.training.push import PushOptions


@click.group(
    "train",
    cls=LazyGroup,
    modules={"stage1": "stages:stage1", "stage2": "stages:stage2", "all": "stages:both"},
)
def train_command() -> None:
    """Train a multilingual student from an English teacher.

    Distillation warm-up comes first, then the joint stage or a baseline.

    \b
    stage1   the student's text, in any language, against the English teacher's embedding of its translation
    stage2   cross-lingual contrastive learning and distillation together (MIMO), or xlco, infonce, lakda
    all      both, one after the other

    The same command, given again, resumes an interrupted run from its last checkpoint, and the weights are
    the same at the end. Several GPUs: torchrun --nproc-per-node 4 -m mimo_plugin train stage2 ...

    \b
    Example, on two CPU cores and without a model hub:
      mimo data debian --output debian
      mimo train all --student new:mini --teacher packaged:all-MiniLM-L6-v2 --pairs debian/pairs \\
        --table debian/table --dev path:debian/dev --output student
      mimo index path:debian/test --encoder student/stage2/model --output indexes/debian
    """


@click.command("push", cls=CommandWithLists)
@click.argument("student", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("repo", metavar="REPO")
@model_options(PushOptions, "options")
def push_command(student: Path, repo: str, options: PushOptions) -> None:
    """Upload a student to the Hugging Face hub.

    DIR is the output directory of a finished run, or any sentence-transformers directory; REPO is OWNER/NAME.
    Weights, tokenizer, configuration and a card go up, and nothing else. The card is the student's own, with
    the scores in the --results files; results of `mimo reproduce` say by themselves which system is the
    student. `hf auth login` keeps the token that an upload needs.

    \b
    Examples:
      mimo push student/stage2 me/student --dry-run
      mimo push student/stage2 me/student --results scores.json --license mit --private
      mimo push student/stage2 me/student --results mimo=scores.json indexes/miracl/results.json
    """
    from mimo_plugin.training.push import push

    pushed = push(student, repo, options)
    for warning in pushed.warnings:
        click.echo(f"mimo: warning: {warning}", err=True)
    click.echo(str(pushed))
