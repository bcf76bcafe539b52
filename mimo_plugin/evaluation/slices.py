"""Slices: named parts of the topics, each with averages and comparisons of its own."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.collections.rows import read_lines
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Problems, near
from mimo_plugin.evaluation.compare import ALL_LANGUAGES, compare_in, corrected, tested_measures
from mimo_plugin.evaluation.measures import Measure, RunScores, average
from mimo_plugin.evaluation.results import SliceResult
from mimo_plugin.evaluation.significance import Pair, Plan
from mimo_plugin.evaluation.topics import Topics

COLUMNS = ("topic", "slice")
_TOPIC_COLUMNS = ("topic", "query_id", "qid", "query-id")


@dataclass(frozen=True)
class Slices:
    """Slices of judged topics, in the order in which their names were given.

    Attributes:
        members: slice -> (n,) whether a listed topic is in it.
        unsliced: number of listed topics in none.
    """

    members: Mapping[str, NDArray[np.bool_]]
    unsliced: int

    @classmethod
    def of(cls, source: Any, topics: Topics) -> "Slices":
        """The slices of topics that are judged; topics without judgments are passed over.

        Args:
            source: topic -> slice or slices; a DataFrame with columns `topic` and `slice`; or a file of lines
                TOPIC, tab or comma, SLICE, with or without that header. A topic may be in several slices.

        Raises:
            DataError: with all problems: unreadable lines, unknown topics, or no judged topic in a slice.
        """
        listed = topics.listed()
        places = {query_id: place for place, query_id in enumerate(listed.query_ids)}
        members: dict[str, NDArray[np.bool_]] = {}
        unknown: dict[str, str] = {}
        with Problems(DataError) as problems:
            for where, topic, name in _entries(source, problems):
                inside = members.setdefault(name, np.zeros(len(places), dtype=np.bool_))
                if topic in places:
                    inside[places[topic]] = True
                elif topic not in topics.all_ids:
                    unknown.setdefault(topic, where)
            known = sorted(topics.all_ids) if unknown else []
            for count, (topic, where) in enumerate(unknown.items()):
                # Similar names are looked up for the first problems only, which are shown.
                hint = near(topic, known) if count < _HINTS else ""
                problems.add(
                    f"{where}: topic {topic!r} is not among the {len(known):,} of the collection, expected "
                    f"ids such as {known[0]!r}{hint}"
                )
            if not problems and not any(inside.any() for inside in members.values()):
                problems.add("slices: none has a judged topic, expected one or more with topics")
        members = {name: inside for name, inside in members.items() if inside.any()}
        return cls(members, int((~np.any(list(members.values()), axis=0)).sum()))


_HINTS = 5


def _entries(source: Any, problems: Problems) -> Iterator[tuple[str, str, str]]:
    """Yields (place for messages, topic, slice)."""
    if isinstance(source, str | Path):
        yield from _file_entries(Path(source), problems)
        return
    if hasattr(source, "columns"):
        shown = ", ".join(map(str, source.columns))
        topic = next((name for name in _TOPIC_COLUMNS if name in source.columns), None)
        if topic is None or "slice" not in source.columns:
            problems.add(f"slices: columns {shown}; expected {' and '.join(COLUMNS)}")
            return
        for name, part in source[[topic, "slice"]].itertuples(index=False):
            yield "slices", str(name), str(part)
        return
    if not isinstance(source, Mapping):
        problems.add(
            f"slices: found {type(source).__name__}, expected topic -> slice or slices, a DataFrame or a file"
        )
        return
    for topic, parts in source.items():
        for part in [parts] if isinstance(parts, str) else parts:
            yield "slices", str(topic), str(part)


def _file_entries(path: Path, problems: Problems) -> Iterator[tuple[str, str, str]]:
    first = True
    for number, line in read_lines(path, problems):
        columns = line.split("\t") if "\t" in line else next(csv.reader([line]))
        values = [column.strip() for column in columns]
        header = first and len(values) == 2 and values[0] in _TOPIC_COLUMNS and values[1] == "slice"
        first = False
        if len(values) == 2 and all(values):
            if not header:
                yield f"{path}:{number}", values[0], values[1]
        else:
            problems.add(
                f"{path}:{number}: {line!r:.60}, expected a topic and a slice with a tab or comma between"
            )


def compare_slices(
    slices: Slices,
    scores: Sequence[RunScores],
    topics: Topics,
    measures: Sequence[Measure],
    pairs: Sequence[Pair],
    plan: Plan | None,
    progress: bool | None = False,
) -> dict[str, SliceResult]:
    """Averages each slice as `average` does, and compares the runs on it as over all topics.

    Where the topics are in several languages, that is the test of macro averages; else the plan's. p-values
    of a measure are corrected over pairs x slices. Judged@k is left out.

    Args:
        pairs: to compare; none without a plan.
    """
    listed, topics = topics.in_languages, topics.listed()
    language = ALL_LANGUAGES if len(topics.languages) > 1 else topics.languages[0]
    measures = tested_measures(measures)
    parts = {}
    for name, inside in slices.members.items():
        parts[name] = topics.restricted({at: topics.judged[at] for at in np.flatnonzero(inside).tolist()})
    macro: dict[str, dict[str, dict[str, float]]] = {
        name: {score.name: {} for score in scores} for name in parts
    }
    comparisons: dict[str, list[Any]] = {name: [] for name in parts}
    total = len(measures) * len(parts)
    with bar(total=total, what="comparing slices", unit="slices", enabled=progress) as counter:
        for measure in measures:
            family = []
            for name, part in parts.items():
                rows = [score.per_topic[measure][listed][slices.members[name]] for score in scores]
                for score, row in zip(scores, rows, strict=True):
                    macro[name][score.name][str(measure)] = average(row, part).macro
                if plan is not None:
                    family += compare_in(language, np.stack(rows), part, scores, measure, pairs, plan)
                counter.update()
            if plan is not None:
                family = corrected(family, plan, len(parts), macro=False)
            for place, name in enumerate(parts):
                comparisons[name] += family[place * len(pairs) : (place + 1) * len(pairs)]
    return {
        name: SliceResult(
            topics=len(part.query_ids),
            units=part.blocks,
            macro=macro[name],
            comparisons=tuple(comparisons[name]),
        )
        for name, part in parts.items()
    }
