"""Options of training commands, made from the recipe's own models, and back to a recipe."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from mimo_plugin.training.options import PROJECTION_INPUT

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mimo_plugin.training.options import Recipe

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

    from mimo_plugin.errors import UsageError
    from mimo_plugin.manifests import field_problems
    from mimo_plugin.training.options import Recipe, read_yaml

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
