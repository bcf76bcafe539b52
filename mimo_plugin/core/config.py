"""Configs and recipes in YAML, each problem with file and line number; the base of records in JSON."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from mimo_plugin.core.errors import UsageError, near

# Steps to a value, such as ("fusion", 0, "name").
Place = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)
# Lists and mappings within each other.
_DEEPEST = 20
_LONGEST = 60


@dataclass(frozen=True)
class YamlFile:
    """A YAML file that holds a mapping.

    Attributes:
        values: plain dicts, lists, text, numbers, booleans, dates and None.
    """

    path: Path
    values: dict[str, Any]

    @cached_property
    def _root(self) -> Any:
        from ruamel.yaml import YAML

        return YAML().load(self.path.read_bytes())

    def where(self, place: Place) -> str:
        """FILE:LINE of the key or item at a place, or of the nearest enclosing one."""
        node: Any = self._root
        line = 0
        for step in place:
            try:
                inner = node[step]
            except (LookupError, TypeError):
                continue
            marks = node.lc
            line = (marks.key if isinstance(node, dict) else marks.item)(step)[0]
            node = inner
        return f"{self.path}:{line + 1}"


def read_yaml(path: Path) -> YamlFile:
    """Reads a YAML file that holds a mapping.

    Raises:
        UsageError: the file cannot be read, or does not hold a mapping.
    """
    from ruamel.yaml.error import YAMLError

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}), expected YAML") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise UsageError(f"{path}:{line}: not valid UTF-8 (byte 0x{byte:02x}), expected UTF-8") from error
    try:
        _refuse_traps(path, text)
        values = _yaml().load(text)
    except YAMLError as error:
        line, reason = _line_of(error, text), _reason(error)
        raise UsageError(f"{path}:{line}: not valid YAML ({reason}), expected a mapping") from error
    # The parser raises errors of many classes for malformed text and for impossible numbers and dates.
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}:1: cannot be read as YAML ({reason}), expected a mapping") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}:1: found {_shown(values)}, expected a mapping such as `name: value`")
    return YamlFile(path, values)


def yaml_text(values: Mapping[str, Any]) -> str:
    """Plain data as YAML, in its own order."""
    stream = StringIO()
    _yaml().dump(dict(values), stream)
    return stream.getvalue()


def _yaml() -> Any:
    from ruamel.yaml import YAML

    found: Any = YAML(typ="safe", pure=True)
    found.default_flow_style = False
    found.sort_base_mapping_type_on_output = False
    found.width = 4096
    return found


def _refuse_traps(path: Path, text: str) -> None:
    """Refuses aliases and deep nesting, with which a few lines can fill memory or take forever."""
    from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

    depth = 0
    for event in _yaml().parse(text):
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent):
            raise UsageError(f"{path}:{line}: *{event.anchor} is an alias, expected the value itself")
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > _DEEPEST:
            raise UsageError(f"{path}:{line}: nested in {depth} lists and mappings, expected a few")


def _line_of(error: Any, text: str) -> int:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return int(mark.line) + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1


def _reason(error: Any) -> str:
    said = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    return " ".join("; ".join(part for part in said if part).split()) or type(error).__name__


def validate(model: type[M], values: Mapping[str, Any], where: Callable[[Place], str]) -> M:
    """Validates values as a record.

    Args:
        where: file and line of a place, see `YamlFile.where`.

    Raises:
        UsageError: with every invalid field, a line each.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = field_faults(error, model, values)
        raise UsageError("\n".join(f"{where(place)}: {message}" for place, message in faults)) from error


def field_faults(error: ValidationError, model: type[BaseModel], values: Any) -> Iterator[tuple[Place, str]]:
    """Pydantic's errors as places, and messages that begin with the place."""
    for problem in error.errors(include_url=False):
        kind, value = problem["type"], problem["input"]
        place = (*_steps(values, problem["loc"]), *(problem["loc"][-1:] if kind == "missing" else ()))
        # Pydantic shows an enum member in a Literal as <Class.NAME: 'value'>.
        said = re.sub(r"<\w+\.\w+: ('[^']*')>", r"\1", problem["msg"].removeprefix("Value error, "))
        expected = said.removeprefix("Input should be ")
        if kind == "missing":
            message = "is missing, expected a value"
        elif kind == "extra_forbidden":
            keys = _keys_at(model, place[:-1])
            message = f"unknown key, expected one of {', '.join(keys)}{near(str(place[-1]), keys)}"
        elif kind in ("enum", "literal_error"):
            message = f"found {_shown(value)}, expected {expected}{near(str(value), _QUOTED.findall(said))}"
        elif kind == "value_error":
            message = said
        else:
            message = f"found {_shown(value)}{': ' if expected == said else ', expected '}{expected}"
        yield place, f"{shown_place(place)}: {message}" if place else message


_QUOTED = re.compile("'([^']*)'")


def _steps(value: Any, loc: Place) -> Iterator[str | int]:
    """The steps that exist in the value, without pydantic's own, such as names of types."""
    for step in loc:
        there = isinstance(value, dict) and step in value
        if there or (isinstance(value, list | tuple) and isinstance(step, int)):
            value = value[step]
            yield step


def _keys_at(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that the record at a place may have."""
    models = [model]
    for step in place:
        inner = [
            found
            for one in models
            for name, field in one.model_fields.items()
            if step in (name, field.alias)
            for found in _models_in(field.annotation)
        ]
        models = inner or models
    return [field.alias or name for one in models for name, field in one.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def shown_place(place: Place) -> str:
    """`reference[2].measure` for `("reference", 2, "measure")`, always on one line."""
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{' '.join(step.split())}" if text else " ".join(step.split())
    return text


def _shown(value: object) -> str:
    """A value for a message, on one line."""
    if isinstance(value, dict | list | tuple):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    if value is None or isinstance(value, bool):
        return "nothing" if value is None else str(value).lower()
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class ResultRecord(BaseModel):
    """A part of the results, made from keywords, parsed JSON, or an object with these attributes.

    Unknown fields are ignored: later versions may add some. A number is finite or null.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, from_attributes=True)

    def to_json(self) -> str:
        """The JSON object, indented, with a line break at its end."""
        content = self.model_dump(mode="json")
        return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


# Control characters, lone surrogates and non-characters: neither XML nor a terminal can show them.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(value: Any) -> Any:
    """The value with escapes such as `\\x00` in its texts; a tab or line break becomes a space."""
    if isinstance(value, str):
        return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], re.sub(r"[\t\n\r]", " ", value))
    if isinstance(value, BaseModel):
        return printable(value.model_dump())
    if isinstance(value, Mapping):
        return {printable(key): printable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [printable(part) for part in value]
    return value
