"""`mimo train`. Its commands are in `stages.py`: their options need pydantic, too slow for `mimo --help`."""

import click

from mimo_plugin.cli import LazyGroup


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
