"""Options that take several values, those that commands share, and those made from a recipe's models."""

from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click
from click.core import ParameterSource

from mimo_plugin.training.recipe import PROJECTION_INPUT

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mimo_plugin.encoder.encoder import EncoderOptions
    from mimo_plugin.training.recipe import Recipe

F = TypeVar("F", bound=Callable[..., Any])


class ListOption(click.Option):
    """An option that takes one value or more, in one go or repeated; its value is a tuple.

    Works on a command of class `CommandWithLists`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "multiple": True})


class CommandWithLists(click.Command):
    """A command whose `ListOption`s, `--option A B` or `--option=A B`, take every value up to the next
    option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = {name for option in self.params if isinstance(option, ListOption) for name in option.opts}
        expanded: list[str] = []
        current: str | None = None
        for position, token in enumerate(args):
            if token == "--":
                expanded.extend(args[position:])
                break
            if token.startswith("-") and token != "-":
                name, equals, _ = token.partition("=")
                current = name if name in names else None
                following = args[position + 1] if position + 1 < len(args) else None
                # Without a value the bare option stays, for click to say that it needs one.
                if current and not equals and following is not None and not following.startswith("-"):
                    continue
            elif current:
                expanded.append(current)
            expanded.append(token)
        return super().parse_args(ctx, expanded)


def collections_argument(function: F) -> F:
    return click.argument("collections", metavar="COLLECTION...", nargs=-1, required=True)(function)


def encoded_options(function: F) -> F:
    """The options that say which documents are encoded, and how they are cut up meanwhile."""
    decorators = [
        click.option(
            "--fields", cls=ListOption, help="Document fields to encode.  [default: what ir_datasets says]"
        ),
        click.option("--pooled", is_flag=True, help="Ids become lang:id for a single collection, too."),
        duplicates_option("documents with one docid and different content"),
        click.option(
            "--shard",
            metavar="I/N",
            help="Encode the I-th of N parts only, on one of N machines or devices.  [default: everything]",
        ),
        click.option(
            "--shard-size",
            type=click.IntRange(min=1),
            default=4096,
            show_default=True,
            help="Documents encoded and written at a time; a kill loses two shards at most.",
        ),
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def given(names: Collection[str]) -> list[str]:
    """Those of the running command's parameters that are on its command line, as they are written there."""
    context = click.get_current_context()
    return [
        parameter.opts[0]
        if isinstance(parameter, click.Option)
        else parameter.human_readable_name.strip("[]")
        for parameter in context.command.params
        if parameter.name in names
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]


def shared_topics_options(function: F) -> F:
    """The options for collections that have topics in common."""
    decorators = [
        click.option(
            "--shared-topics",
            is_flag=True,
            help="The collections have topics in common, as NeuCLIR's: one query, judged in each of them.",
        ),
        click.option("--topic-field", help="Of shared topics, e.g. title.  [default: what ir_datasets says]"),
        click.option("--topic-lang", help="Of shared topics whose collection does not say it, e.g. en."),
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def dimension_option(function: F) -> F:
    return click.option(
        "--dimension",
        metavar="N",
        type=click.IntRange(min=1),
        help="Keep the first N components of each vector, for Matryoshka models, and normalise what is left "
        "where the vectors are normalised.  [default: all]",
    )(function)


def files_options(function: F) -> F:
    """The options for topics and qrels in files of their own, and for queries that are documents."""
    decorators = [
        click.option(
            "--lang",
            cls=ListOption,
            metavar="LANG...",
            help="Of a FILE, or one for each in order; in a pool it becomes the prefix of its ids.  "
            "[default: what stands before the colon of its ids]",
        ),
        click.option(
            "--remove-query",
            is_flag=True,
            help="Leave out hits that are the query itself: docid and query id, with their prefixes, are the "
            "same.",
        ),
        duplicates_option("queries with one id and different text"),
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def duplicates_option(what: str) -> Callable[[F], F]:
    return click.option(
        "--duplicates",
        type=click.Choice(["error", "first"]),
        default="error",
        show_default=True,
        help=f"Of {what}: an error, or the first is taken. The very same record is always taken once.",
    )


def encoder_options(function: F) -> F:
    """The options that say how a checkpoint becomes vectors."""
    decorators = [
        click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: the fastest that is there]"),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "bfloat16", "float16", "int8"]),
            default="float32",
            show_default=True,
            help="Number format of the model's weights; vectors are always stored as float32. int8 changes "
            "them most, see performance/README.md.",
        ),
        click.option(
            "--backend",
            type=click.Choice(["auto", "torch", "onnx", "openvino"]),
            default="auto",
            show_default=True,
            help="What runs the model. auto: openvino for float32 on a CPU, where it is installed and gives "
            "the same vectors, else torch.",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            default=64,
            show_default=True,
            help="Most texts a batch; long texts share one with fewer.",
        ),
        click.option(
            "--max-length",
            type=click.IntRange(min=3),
            help="Longest text in tokens, the rest is cut off.  [default: the checkpoint's own]",
        ),
        click.option(
            "--pooling",
            type=click.Choice(["mean", "cls", "max", "lasttoken"]),
            help="Overrides the checkpoint's pooling.  [default: the checkpoint's own, else mean]",
        ),
        click.option(
            "--normalize/--no-normalize",
            default=None,
            help="L2-normalise the vectors.  [default: as the checkpoint says, else yes]",
        ),
        dimension_option,
        click.option(
            "--query-prompt",
            metavar="TEXT",
            help="Put before each query exactly as given: quote it, so that a space at its end counts, as in "
            "--query-prompt 'query: '; '' is nothing.  [default: the index's, else the checkpoint's own]",
        ),
        click.option(
            "--document-prompt",
            metavar="TEXT",
            help="Put before each document, likewise, as in --document-prompt 'passage: '.",
        ),
        click.option(
            "--known-prompts/--no-known-prompts",
            default=True,
            show_default=True,
            help="Where a checkpoint's files name no prompts, take those that its family is published with: "
            "E5, BGE, GTE, Arctic, Qwen3-Embedding, EmbeddingGemma, Granite.",
        ),
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def make_encoder_options(values: Mapping[str, Any]) -> "EncoderOptions":
    """The values of `encoder_options`, as the library takes them."""
    from mimo_plugin.encoder.backend import print_notices
    from mimo_plugin.encoder.encoder import EncoderOptions

    print_notices()
    return EncoderOptions(**values)


def table_format_option(function: F) -> F:
    return click.option(
        "--format",
        "table_format",
        type=click.Choice(["text", "markdown", "latex"]),
        default="text",
        show_default=True,
        help="Of the tables.",
    )(function)


def json_option(function: F) -> F:
    return click.option(
        "--json", "json_file", type=click.Path(path_type=Path), help="File for all numbers as JSON."
    )(function)


def progress_option(function: F) -> F:
    return click.option(
        "--progress/--no-progress",
        default=None,
        help="Progress bars on standard error.  [default: only on a terminal]",
    )(function)


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
