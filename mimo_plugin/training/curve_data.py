"""The metrics that a training run writes down, a JSON object a line, read back for its curves."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.errors import DataError

_DEV = "dev"

Values = NDArray[np.float64]
Records = Mapping[int, Mapping[str, float]]  # step -> metric -> value, in order of the steps


@dataclass(frozen=True)
class Stage:
    """One stage's metrics. start: where its step 0 is when the stages follow one another."""

    name: str
    start: int
    training: Records
    dev: Records

    @property
    def end(self) -> int:
        return self.start + max((*self.training, *self.dev))

    def series(self, metric: str, *, dev: bool) -> tuple[Values, Values]:
        """Steps, counted over the stages, and values. (n,) each"""
        records = self.dev if dev else self.training
        points = [(self.start + step, record[metric]) for step, record in records.items() if metric in record]
        steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
        return steps, values


def read_stages(path: Path) -> list[Stage]:
    """Reads `{"step": 10, "stage": "stage1", "loss": 0.7, ...}` and `{"step": 10, "dev": {"ndcg@20": 0.5}}`.

    A line without a stage belongs to that of the line before. Of a step that comes again after a resume, the
    later line counts. Lines that are cut short, as a kill leaves them, are passed over. Where a stage counts
    its steps anew, they go on after those of the stage before.

    Raises:
        DataError: the file cannot be read, or has no metrics.
    """
    found: dict[str, tuple[dict[int, dict[str, float]], dict[int, dict[str, float]]]] = {}
    name = ""
    for record in _records(path):
        name = str(record.get("stage", name))
        training, dev = found.setdefault(name, ({}, {}))
        if isinstance(record.get(_DEV), dict):
            dev[record["step"]] = _numbers(record[_DEV])
        else:
            training[record["step"]] = _numbers(record)
    if not found:
        raise DataError(f"{path}: no line with a step and metrics, expected those that a training run writes")
    stages: list[Stage] = []
    for name, (training, dev) in found.items():
        end = stages[-1].end if stages else 0
        start = end if min((*training, *dev)) <= end else 0
        stages.append(Stage(name, start, _ordered(training), _ordered(dev)))
    return stages


def has(stages: Sequence[Stage], metric: str, *, dev: bool) -> bool:
    return any(len(stage.series(metric, dev=dev)[0]) for stage in stages)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read as metrics: {error.strerror or error}") from error
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and _is_number(record.get("step"), int):
            yield record


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in record.items() if _is_number(value, int, float)}


def _is_number(value: object, *kinds: type) -> bool:
    """Whether it is of one of these types, and an array of float64 can hold it."""
    return type(value) in kinds and (not isinstance(value, int) or abs(value) < 2**63)


def _ordered(records: Mapping[int, dict[str, float]]) -> Records:
    return dict(sorted(records.items()))
