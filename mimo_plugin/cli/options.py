"""Options that take several values (`--qrels A B C`), and the ones that several commands share."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from mimo_plugin.encoder.encoder import EncoderOptions

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
