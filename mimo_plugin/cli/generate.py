"""Click options: from option models, with several values (`--qrels A B C`), and shared by some commands."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, is_dataclass
from dataclasses import fields as dataclass_fields
from enum import Enum
from functools import wraps
from inspect import get_annotations
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from mimo_plugin.cli.completion import completer
from mimo_plugin.core.option import ADVANCED, Option, Progress

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class GroupedOption(click.Option):
    """An option with a place in `--help`, whose metavar tells shell completion what its values are.

    Args:
        group: heading; "" is "Options".
    """

    def __init__(self, *args: Any, group: str = "", **kwargs: Any) -> None:
        kwargs.setdefault("shell_complete", completer(kwargs.get("metavar")))
        super().__init__(*args, **kwargs)
        self.group = group


class ListOption(GroupedOption):
    """An option with one or more values, after one `--option` or several; the command gets a tuple.

    The command's class must be `CommandWithLists`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "multiple": True})


class Argument(click.Argument):
    """An argument whose metavar tells shell completion what its values are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, shell_complete=completer(kwargs.get("metavar")), **kwargs)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # After `--option A` click takes the next word for an argument.
        unfinished = ctx.meta.get(_UNFINISHED)
        return (
            unfinished.shell_complete(ctx, incomplete)
            if unfinished
            else super().shell_complete(ctx, incomplete)
        )


# In a context's `meta`: the list option that takes the next word.
_UNFINISHED = "mimo_plugin.unfinished"


class CommandWithLists(click.Command):
    """A command whose `ListOption`s (`--option A B`, `--option=A B`) take values up to the next option.

    Its help has the options in groups: those without a group, the others in order, advanced ones last.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = {
            name: option for option in self.params if isinstance(option, ListOption) for name in option.opts
        }
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
        ctx.meta[_UNFINISHED] = names.get(current or "")
        return super().parse_args(ctx, expanded)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"": []}
        for parameter in self.get_params(ctx):
            record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", ""), []).append(record)
        # --help stays with the first options; `sorted` is stable.
        for group in sorted(groups, key=lambda name: (name != "", name == ADVANCED)):
            with formatter.section(f"{group} options" if group else "Options"):
                formatter.write_dl(groups[group])


def given(names: Collection[str]) -> list[str]:
    """The parameters among `names` that the user gave on the command line, as the user writes them."""
    context = click.get_current_context()
    return [
        parameter.opts[0]
        if isinstance(parameter, click.Option)
        else parameter.human_readable_name.strip("[]")
        for parameter in context.command.params
        if parameter.name in names
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]


def model_options(
    model: type[Any], into: str, *, partial: bool = False, by_option: bool = False
) -> Callable[[F], F]:
    """The options of an option model (a dataclass or pydantic model): one for each field with an `Option`.

    ::

        @click.command("encode", cls=CommandWithLists)
        @model_options(EncodeOptions, "options")
        @model_options(EncoderOptions, "encoding")
        def encode_command(options: EncodeOptions, encoding: EncoderOptions, ...) -> None:

    If a model below declares the same option, the option fills the fields of both models. `mimo --help`
    imports the modules of option models, so they import nothing heavy, not even pydantic.

    Args:
        model: the class.
        into: the function's argument that receives the filled model.
        partial: the argument receives a dict of the given values instead, for a model whose other values
            come from elsewhere, such as a recipe.
        by_option: click's parameters are named after the options, because two models of the command have
            fields of the same name.
    """
    fields = model_fields(model)
    parameters = {name: field.parameter(by_option) for name, field in fields.items()}

    def decorate(function: F) -> F:
        there = {option.name for option in getattr(function, "__click_params__", ())}

        @wraps(function)
        def filling(**values: Any) -> Any:
            take = {
                name: values[parameter] if parameter in there else values.pop(parameter)
                for name, parameter in parameters.items()
            }
            filled = {name: fields[name].value(value) for name, value in take.items()}
            if partial:
                values[into] = {name: value for name, value in filled.items() if value not in (None, ())}
            else:
                values[into] = model(**filled)
            return function(**values)

        for name, field in reversed(fields.items()):
            if parameters[name] not in there:
                filling = field.declare(partial, by_option)(filling)
        return cast(F, filling)

    return decorate


class ModelField(NamedTuple):
    """A field of an option model that is an option of a command.

    Attributes:
        kind: type, without None and constraints.
        several: whether the option takes several values.
        default: MISSING where the field has none.
    """

    name: str
    option: Option
    kind: Any
    several: bool
    default: Any
    group: str = ""

    def value(self, given: Any) -> Any:
        """Converts click's value to the field's value."""
        if given is None or self.several:
            return given
        if self.option.parse is not None:
            return self.option.parse(given)
        return self.kind(given) if _is_enum(self.kind) else given

    def parameter(self, by_option: bool) -> str:
        """The name of click's parameter."""
        if not by_option or self.option.name is None:
            return self.name
        return self.option.name.removeprefix("--").replace("-", "_")

    def declare(self, partial: bool = False, by_option: bool = False) -> Callable[[F], F]:
        """The click option; see `model_options`."""
        declaration = self.option.name or f"--{self.name.replace('_', '-')}"
        if self.kind is bool and self.default is not False and self.option.name is None:
            declaration = f"{declaration}/--no-{declaration.removeprefix('--')}"
        help_text, default = self.option.help, self.default
        settings: dict[str, Any] = {
            "metavar": self.option.metavar,
            "default": None,
            "cls": ListOption if self.several else GroupedOption,
            "group": self.group,
        }
        if self.option.examples:
            examples = self.option.examples
            settings["shell_complete"] = lambda _, __, incomplete: [
                name for name in examples if name.startswith(incomplete)
            ]
        if _is_enum(type(default)):
            default = default.value
        if default is MISSING:
            settings["required"] = True
            # With a default, even None, click would not require the option.
            del settings["default"]
        elif partial:
            if default not in (None, ()) and "[default" not in help_text:
                if isinstance(default, bool):
                    default = declaration.removeprefix("--").split("/--")[0 if default else 1]
                help_text = f"{help_text}  [default: {default}]"
        elif default is not None and default != ():
            settings |= {"default": default, "show_default": True}
        if self.kind is not bool:
            settings["type"] = self._click_type()
        elif "/" not in declaration:
            settings["is_flag"] = True
        settings |= self.option.settings
        settings["cls"] = settings["cls"] or GroupedOption
        names = (declaration, *self.option.also, self.parameter(by_option))
        return click.option(*names, help=help_text, **settings)

    def _click_type(self) -> Any:
        option = self.option
        if _is_enum(self.kind):
            return click.Choice([member.value for member in self.kind])
        if choices := option.choices or (get_args(self.kind) if get_origin(self.kind) is Literal else ()):
            return click.Choice(list(choices))
        if self.kind is Path:
            return click.Path(path_type=Path)
        if self.kind in (int, float) and (option.min is not None or option.max is not None):
            ranged: Any = click.IntRange if self.kind is int else click.FloatRange
            return ranged(option.min, option.max)
        return self.kind if self.kind in (int, float) else str


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def model_fields(model: type[Any]) -> dict[str, ModelField]:
    """The fields of an option model that are options, in order."""
    found = {}
    for name, default in _defaults(model).items():
        # A subclass that only changes a field's default inherits its option.
        hints = [get_annotations(base)[name] for base in model.__mro__ if name in get_annotations(base)]
        option = next((option for hint in hints if (option := _annotated(hint, Option)) is not None), None)
        if option is not None:
            kind, several = (str, False) if option.parse else _plain(hints[0])
            group = getattr(model, "GROUP", "") if option.group is None else option.group
            found[name] = ModelField(name, option, kind, several, default, group)
    return found


def _defaults(model: type[Any]) -> dict[str, Any]:
    if is_dataclass(model):
        return {
            field.name: field.default if field.default_factory is MISSING else field.default_factory()
            for field in dataclass_fields(model)
        }
    return {
        name: MISSING if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
    }


def _annotated(hint: Any, kind: type[T]) -> T | None:
    """The first `kind` in the `Annotated` metadata of a type or of a union's members."""
    found = next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, kind)), None)
    if found is not None or not get_args(hint) or get_origin(hint) is Literal:
        return found
    return next((item for part in get_args(hint) if (item := _annotated(part, kind)) is not None), None)


def _plain(hint: Any) -> tuple[Any, bool]:
    """A type without None and constraints, and whether it is a sequence."""
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        parts = [_plain(part) for part in get_args(hint) if part is not NoneType]
        return next((part for part in parts if part[1]), parts[0])
    if get_origin(hint) in (tuple, list, Sequence):
        return _plain(get_args(hint)[0])[0], True
    return hint, False


# For commands without a model that has them.
table_format_option = click.option(
    "--format",
    "table_format",
    type=click.Choice(["text", "markdown", "latex"]),
    default="text",
    show_default=True,
    help="Of the tables.",
)
json_option = click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="File for all numbers as JSON."
)


def _metadata(_: click.Context, __: click.Parameter, given: str | None) -> dict[str, Any] | None:
    from mimo_plugin.core.config import read_yaml

    return read_yaml(Path(given)).values if given else given if given is None else {}


ir_metadata_option = click.option(
    "--ir-metadata",
    "metadata",
    metavar="[FILE]",
    is_flag=False,
    flag_value="",
    callback=_metadata,
    cls=GroupedOption,
    group=ADVANCED,
    help="Begin the run with an ir_metadata header: software, hardware, command and method, and what is in "
    "the YAML FILE, such as actor and research goal. All of mimo reads such runs; Pyserini, pytrec_eval "
    "and ranx do not.",
)
progress_option = ModelField(
    "progress", get_args(Progress)[1], bool, several=False, default=None, group=ADVANCED
).declare()
