"""How alignment and uniformity went while a run trained."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mimo_plugin.training.curve_data import read_stages
from mimo_plugin.training.run_directory import RunDirectory


@dataclass(frozen=True)
class TrailPoint:
    """step: of the optimiser. alignment: None where it is not defined."""

    step: int
    alignment: float | None
    uniformity: float


def checkpoints(run: Path) -> Iterator[tuple[int, Path]]:
    """The complete checkpoints that a run holds, with their steps, newest first.

    They are there while a run trains, or where it was stopped; a finished run has its model only.
    """
    from mimo_plugin.training.trainer import last_checkpoint

    directory = RunDirectory(run).checkpoints
    found = last_checkpoint(directory)
    while found is not None:
        step = int(found.name.rpartition("-")[2])
        yield step, found
        found = last_checkpoint(directory, before=step)


def written_trail(run: Path) -> tuple[TrailPoint, ...]:
    """What the run wrote down each time it scored its dev collection; empty where it has none.

    Raises:
        DataError: its metrics cannot be read.
    """
    metrics = RunDirectory(run).metrics
    if not metrics.is_file():
        return ()
    return tuple(
        TrailPoint(stage.start + step, scores.get("alignment"), scores["uniformity"])
        for stage in read_stages(metrics)
        for step, scores in stage.dev.items()
        if "uniformity" in scores
    )
