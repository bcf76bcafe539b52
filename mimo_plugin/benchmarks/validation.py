"""A config's fields one by one, so that a wrong one hides nothing; what is wrong, in words to act on."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mimo_plugin.benchmarks.reading import Place
from mimo_plugin.benchmarks.schema import (
    BenchmarkConfig,
    Bm25,
    Fairness,
    Fusion,
    Geometry,
    Reference,
    TopicOptions,
)
from mimo_plugin.manifests import Record

EXTENDS = "extends"

_RECORDS: dict[str, type[Record]] = {
    "topics": TopicOptions,
    "fairness": Fairness,
    "geometry": Geometry,
    "bm25": Bm25,
    "fusion": Fusion,
    "reference": Reference,
}
# Fields of which the good part is of use when another is wrong.
_LISTS = ("collections", "languages", "measures", "fusion", "reference", "systems")
_MAPPINGS = ("collections", "per_language")
_EXPECTED = {
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_too_short": "text that is not empty",
    "string_unicode": "text of valid characters",
    "too_short": "{min_length} or more entries",
    "string_too_long": "at most {max_length} characters",
}
_PATTERNS = {
    "languages": "a language code such as de",
    "collections": "a language code such as de",
    "per_language": "a language code such as de",
    "lang": "a language code such as de",
}
_NAME = "a name of letters, digits, '-', '_', '.' and '+'"

Fault = tuple[Place, str]


def validate(values: Mapping[str, Any], written: Mapping[Place, str]) -> tuple[dict[str, Any], list[Fault]]:
    """Validates every field by itself.

    Args:
        values: of a file, without `extends`.
        written: scalars as they are written, for messages.

    Returns:
        The fields that are good, and what is good of the others: of a list its items, with None for the
        others, of a mapping its entries, of a record its fields, with None or their default for the others.
        And what is wrong: its place in the values, and a message.
    """
    good: dict[str, Any] = {}
    faults: list[Fault] = []
    known = [*BenchmarkConfig.model_fields, EXTENDS]
    for name, value in values.items():
        if name not in BenchmarkConfig.model_fields:
            faults.append(((name,), _unknown(name, known)))
            continue
        try:
            good[name] = _adapter(BenchmarkConfig, name).validate_python(value)
        except ValidationError as error:
            faults.extend(_faults(error, name, value, written))
            part = _good_part(BenchmarkConfig, name, value)
            if part is not None:
                good[name] = part
    for name, info in BenchmarkConfig.model_fields.items():
        if info.is_required() and name not in values:
            faults.append(((), f"key {name!r} is missing, expected it"))
    return good, faults


def _good_part(record: type[Record], name: str, value: Any) -> Any:
    """What is good of a field's value that is not; None where nothing is."""
    if isinstance(value, list) and name in _LISTS:
        return tuple(_item(record, name, item) for item in value)
    if isinstance(value, dict) and name in _MAPPINGS:
        found = {key: _single(record, name, {key: item}, key) for key, item in value.items()}
        return {key: item for key, item in found.items() if item is not None}
    if isinstance(value, dict) and name in _RECORDS and name not in _LISTS:
        return _part_of_record(_RECORDS[name], value)
    return None


def _item(record: type[Record], name: str, item: Any) -> Any:
    found = _single(record, name, [item], 0)
    if found is None and name in _RECORDS and isinstance(item, dict):
        return _part_of_record(_RECORDS[name], item)
    return found


def _part_of_record(record: type[Record], value: Mapping[str, Any]) -> Record:
    fields: dict[str, Any] = {}
    for name, info in record.model_fields.items():
        fields[name] = None if info.is_required() else info.get_default(call_default_factory=True)
        if name in value:
            try:
                fields[name] = _adapter(record, name).validate_python(value[name])
            except ValidationError:
                fields[name] = _good_part(record, name, value[name])
    return record.model_construct(**fields)


def _single(record: type[Record], name: str, value: Any, key: Any) -> Any:
    try:
        return _adapter(record, name).validate_python(value)[key]
    except ValidationError:
        return None


@cache
def _adapter(record: type[Record], name: str) -> TypeAdapter[Any]:
    return TypeAdapter(get_type_hints(record, include_extras=True)[name])


def _faults(error: ValidationError, name: str, value: Any, written: Mapping[Place, str]) -> Iterator[Fault]:
    for problem in error.errors(include_url=False):
        place = (name, *_steps(value, problem["loc"]))
        kind = problem["type"]
        last = problem["loc"][-1] if problem["loc"] else name
        if kind == "missing":
            yield place, f"{shown_place((*place, last))} is missing, expected it"
        elif kind == "extra_forbidden":
            yield place, f"{_inside(place[:-1])}{_unknown(str(last), list(_RECORDS[name].model_fields))}"
        elif kind == "value_error":
            yield place, f"{shown_place(place)}: {problem['msg'].removeprefix('Value error, ')}"
        else:
            found = _found(problem["input"], None if last == "[key]" else written.get(place))
            yield place, f"{shown_place(place)}: found {found}, expected {_expected(dict(problem), place)}"


def _steps(value: Any, loc: tuple[str | int, ...]) -> Iterator[str | int]:
    """The steps of a location that are there in the value: pydantic's have names of types between them."""
    for step in loc:
        there = isinstance(value, dict) and step in value
        if there or (isinstance(value, list) and isinstance(step, int)):
            value = value[step]
            yield step


def _expected(problem: dict[str, Any], place: Place) -> str:
    kind = problem["type"]
    context = problem.get("ctx", {})
    if kind == "enum":
        given = problem["input"]
        choices = re.findall(r"'([^']*)'", str(context["expected"]))
        return f"{context['expected']}{near(str(given), choices)}"
    if kind == "string_pattern_mismatch":
        where = next((step for step in reversed(place) if step in _PATTERNS), None)
        return _PATTERNS[str(where)] if where is not None else _NAME
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(**context)
    said = str(problem["msg"]).removeprefix("Input should be ")
    return f"a number {said}" if kind.startswith(("less_than", "greater_than")) else said


def _found(value: Any, written: str | None) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"{written!r}, which is {str(value).lower()} in YAML (text needs quotes)"
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = written if written is not None else str(value)
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def _unknown(name: str, known: list[str]) -> str:
    return f"unknown key {name!r}, expected one of {', '.join(known)}{near(name, known)}"


def near(name: str, known: list[str]) -> str:
    """ " (near: ...)" where there is something like the name."""
    found = get_close_matches(name, known, n=3, cutoff=0.6)
    return f" (near: {', '.join(found)})" if found else ""


def _inside(place: Place) -> str:
    return f"{shown_place(place)}: " if place else ""


def shown_place(place: Place) -> str:
    """`reference[2].measure` for `("reference", 2, "measure")`, in one line whatever the keys are."""
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            plain = step if re.fullmatch(r"[\w.+-]+", step) else repr(step)
            text += f".{plain}" if text else plain
    return text
