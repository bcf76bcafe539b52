"""The systems of a table: encoders, BM25, fusions of them, and runs that were made elsewhere."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.analysis.encoders import Encoder
from mimo_plugin.errors import Problems, UsageError
from mimo_plugin.evaluation.choices import SignificanceTest
from mimo_plugin.evaluation.run_reader import file_problem, run_files

if TYPE_CHECKING:
    from mimo_plugin.benchmarks.schema import BenchmarkConfig, Fusion

BM25 = "bm25"
# Among the parts of a config's fusion: there is one fusion for each encoder.
_EACH_ENCODER = "encoder"
# Tukey's test is one of all pairs of so many or more.
_FOR_TUKEY = 3
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class Kind(StrEnum):
    DENSE = "dense"
    BM25 = "bm25"
    FUSION = "fusion"
    RUN = "run"


@dataclass(frozen=True)
class System:
    """Attributes:
    name: in tables, files and the runs' sixth column.
    encoder: checkpoint; of dense systems.
    training: the run that the checkpoint is of, where a run was named.
    run: file; of runs made elsewhere.
    fusion: how parts are fused; of fusions.
    parts: names of the systems that are fused.
    """

    name: str
    kind: Kind
    encoder: str | None = None
    training: Path | None = None
    run: Path | None = None
    fusion: "Fusion | None" = None
    parts: tuple[str, ...] = ()


def all_systems(
    config: "BenchmarkConfig", encoders: Sequence[Encoder], runs: Sequence[str], bm25: bool
) -> tuple[System, ...]:
    """The systems asked for, each after those that it needs.

    Args:
        runs: `NAME=FILE` or a file.
        bm25: whether BM25 is one of them; without it fusions that need it are left out.

    Raises:
        UsageError: with every name that cannot be used or is there twice, and every file that is missing.
    """
    problems = Problems(UsageError)
    systems = [System(BM25, Kind.BM25)] if bm25 else []
    dense = [
        System(encoder.label, Kind.DENSE, encoder=encoder.checkpoint, training=encoder.run)
        for encoder in encoders
    ]
    systems += dense
    systems += _fusions(config, {system.name for system in systems}, [system.name for system in dense])
    for file in run_files(runs):
        if problem := file_problem(file.path):
            problems.add(problem)
        systems.append(System(file.name, Kind.RUN, run=file.path))
    for system in systems:
        if not _LABEL.fullmatch(system.name):
            problems.add(
                f"system {system.name!r}: expected a name of at most 64 letters, digits and . _ + -: give it "
                f"one, for example mine={system.encoder or system.run}"
            )
    names = [system.name for system in systems]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        problems.add(f"{names.count(name)} systems are named {name!r}: give each a name, as NAME=CHECKPOINT")
    if not systems:
        problems.add("no system: name an --encoder or a --run, or use --bm25")
    problems.raise_any()
    return tuple(systems)


def _fusions(config: "BenchmarkConfig", there: set[str], dense: Sequence[str]) -> Iterator[System]:
    """Fusions of systems that are there; of a fusion of `encoder`, one for each of them."""
    for fusion in config.fusion:
        each = dense if _EACH_ENCODER in fusion.systems else [""]
        for encoder in each:
            parts = tuple(encoder if part == _EACH_ENCODER else part for part in fusion.systems)
            if set(parts) <= there:
                name = f"{fusion.name}-{encoder}" if len(each) > 1 else fusion.name
                yield System(name, Kind.FUSION, fusion=fusion, parts=parts)


def chosen_test(config: "BenchmarkConfig", systems: Sequence[System]) -> SignificanceTest | None:
    """The config's test; None where there is nothing to compare, and student where Tukey's lacks a third."""
    if len(systems) < 2:
        return None
    if config.test is SignificanceTest.TUKEY_HSD and len(systems) < _FOR_TUKEY:
        return SignificanceTest.STUDENT
    return config.test


def chosen_baseline(config: "BenchmarkConfig", systems: Sequence[System], asked: str | None) -> str | None:
    """The system that others are compared with: the one asked for, the config's, else the first.

    None where there is nothing to compare, and with Tukey's test, which compares all with each other.

    Raises:
        UsageError: there is no system of the name that was asked for.
    """
    names = [system.name for system in systems]
    if asked is not None and asked not in names:
        raise UsageError(f"--baseline {asked!r}: no such system, expected one of {', '.join(names)}")
    if len(names) < 2:
        return None
    if asked is not None:
        return asked
    if chosen_test(config, systems) is SignificanceTest.TUKEY_HSD:
        return None
    return config.baseline if config.baseline in names else names[0]
