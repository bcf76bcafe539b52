"""What is wrong with a config, every problem with its line."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mimo_plugin.benchmark.config import (
    DATA,
    BenchmarkConfig,
    Bm25,
    Fairness,
    Fusion,
    Geometry,
    Reference,
    TopicOptions,
)
from mimo_plugin.benchmark.reading import Place
from mimo_plugin.core.artifact import Record
from mimo_plugin.core.errors import near
from mimo_plugin.evaluation.measures import MeasureKind, parse_measures
from mimo_plugin.evaluation.options import Analyzers, Setting, SignificanceTest

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


# Names of systems that a fusion may take, but not have.
_RESERVED = ("bm25", "encoder")


def contradictions(good: Mapping[str, Any], given: Collection[str]) -> Iterator[Fault]:
    """Places and messages.

    Args:
        good: fields as `validate` returns them; a check that needs one that is not there says nothing.
        given: keys that are there, good or not.
    """
    yield from _collections(good, given)
    yield from _languages(good)
    yield from _measures(good)
    yield from _systems(good)
    yield from _reference(good)


def unknown_languages(asked: Sequence[str], good: Mapping[str, Any]) -> list[str]:
    """What is wrong with languages that a caller asks for: they restrict those of the config."""
    known = _known_languages(good)
    chosen = [name for name in good.get("languages", ()) if name is not None]
    within = [name for name in known or chosen if not chosen or name in chosen]
    if not within:
        return []
    return [
        f"--languages: {name!r} is not in this benchmark, expected some of {', '.join(within)}"
        f"{near(name, within)}"
        for name in dict.fromkeys(asked)
        if name not in within
    ]


def _known_languages(good: Mapping[str, Any]) -> list[str]:
    """The mapping's languages; none where collections hold several, which only reading them tells."""
    collections = good.get("collections")
    return list(collections) if isinstance(collections, dict) else []


def _collections(good: Mapping[str, Any], given: Collection[str]) -> Iterator[Fault]:
    collections = good.get("collections")
    if isinstance(collections, tuple):
        if good.get("setting") is Setting.MULTI_MONOLINGUAL:
            yield (
                ("collections",),
                f"collections: found a list, expected a mapping language: collection, since "
                f"{Setting.MULTI_MONOLINGUAL} has an index of each language",
            )
        places = [(("collections", number), spec) for number, spec in enumerate(collections) if spec]
    else:
        places = [(("collections", language), spec) for language, spec in (collections or {}).items()]
    counts = Counter(spec for _, spec in places)
    seen = set()
    for place, spec in places:
        if counts[spec] > 1 and spec in seen:
            yield place, f"{shown_place(place)}: {spec!r} is there twice, expected each collection once"
        seen.add(spec)
    source = good["topics"].source if good.get("topics") else None
    if "obtain" not in given and any(DATA in spec for spec in (*(spec for _, spec in places), source or "")):
        yield (
            ("collections",),
            f"collections: found {DATA}, expected a key 'obtain' that says where its files come from",
        )


def _languages(good: Mapping[str, Any]) -> Iterator[Fault]:
    known = _known_languages(good)
    chosen = good.get("languages", ())
    for number, name in enumerate(chosen):
        place = ("languages", number)
        if name is None:
            continue
        if known and name not in known:
            expected = f"one of {', '.join(known)}{near(name, known)}"
            yield place, f"{shown_place(place)}: {name!r} is not in the collections, expected {expected}"
        elif name in chosen[:number]:
            yield place, f"{shown_place(place)}: {name!r} is there twice, expected each language once"


def _measures(good: Mapping[str, Any]) -> Iterator[Fault]:
    depth = good.get("depth", BenchmarkConfig.model_fields["depth"].default)
    names = good.get("measures", ())
    for number, name in enumerate(names):
        place = ("measures", number)
        if name is None:
            continue
        measure = parse_measures(name)[0]
        if measure.cutoff is not None and measure.cutoff > depth:
            yield (
                place,
                f"{shown_place(place)}: {name} looks deeper than depth, which is {depth}, expected a depth "
                f"of {measure.cutoff} or more",
            )
        if name in names[:number]:
            yield place, f"{shown_place(place)}: {name} is there twice, expected each measure once"
        if number == 0 and measure.kind is MeasureKind.JUDGED:
            yield (
                place,
                f"{shown_place(place)}: {name} is no measure of quality, expected one such as ndcg@20 as the "
                "first",
            )
    fairness = good.get("fairness")
    cutoffs: list[tuple[tuple[str | int, ...], int | None]] = []
    if fairness is not None:
        cutoffs.append((("fairness", "cutoff"), fairness.cutoff))
        for name in ("peer", "mrc"):
            found = enumerate(getattr(fairness, name) or ())
            cutoffs += [(("fairness", name, number), cutoff) for number, cutoff in found]
    for where, cutoff in cutoffs:
        if (cutoff or 0) > depth:
            yield (
                where,
                f"{shown_place(where)}: {cutoff} is deeper than depth, which is {depth}, expected a depth of "
                f"{cutoff} or more",
            )


def _systems(good: Mapping[str, Any]) -> Iterator[Fault]:
    baseline, test = good.get("baseline"), good.get("test")
    bm25, setting = good.get("bm25"), good.get("setting")
    if baseline is not None and test is SignificanceTest.TUKEY_HSD:
        yield (
            ("baseline",),
            f"baseline: found {baseline!r}, expected none: {test} compares all systems with each other",
        )
    if (
        bm25 is not None
        and bm25.analyzers is Analyzers.LANGUAGE
        and setting not in (None, Setting.MULTI_MONOLINGUAL)
    ):
        yield (
            ("bm25", "analyzers"),
            f"bm25.analyzers: found 'language', expected 'plain': in {setting} one index holds several "
            "languages",
        )
    names: list[str] = list(_RESERVED)
    for number, fusion in enumerate(good.get("fusion", ())):
        if fusion is None or fusion.name is None:
            continue
        place = ("fusion", number, "name")
        if fusion.name in names:
            yield (
                place,
                f"{shown_place(place)}: {fusion.name!r} is another system's, expected a name of its own",
            )
        if fusion.name in (fusion.systems or ()):
            yield place, f"{shown_place(place)}: {fusion.name!r} goes into itself, expected other systems"
        names.append(fusion.name)


def _reference(good: Mapping[str, Any]) -> Iterator[Fault]:
    known = _known_languages(good)
    topics = good.get("topics")
    if known and topics is not None and topics.lang is not None:
        known = [*known, topics.lang]
    measures = good.get("measures", ())
    for number, reference in enumerate(good.get("reference", ())):
        if reference is None:
            continue
        if reference.measure and measures and None not in measures and reference.measure not in measures:
            place: tuple[str | int, ...] = ("reference", number, "measure")
            yield (
                place,
                f"{shown_place(place)}: {reference.measure} is not measured here, expected one of "
                f"{', '.join(measures)}{near(reference.measure, list(measures))}",
            )
        for name in reference.per_language or ():
            if known and name not in known:
                place = ("reference", number, "per_language", name)
                expected = f"one of {', '.join(known)}{near(name, known)}"
                yield place, f"{shown_place(place)}: {name!r} is not in the collections, expected {expected}"
