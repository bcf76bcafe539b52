"""What fields of a config, each right by itself, may contradict in each other."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from mimo_plugin.benchmarks.choices import Analyzers, Setting
from mimo_plugin.benchmarks.fields import DATA
from mimo_plugin.benchmarks.schema import BenchmarkConfig
from mimo_plugin.benchmarks.validation import Fault, near, shown_place
from mimo_plugin.evaluation.choices import SignificanceTest
from mimo_plugin.evaluation.measures import MeasureKind, parse_measures

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
