"""A run's metrics, and a small picture of them; TensorBoard has all of the curves."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimo_plugin.core.errors import DataError, EnvironmentProblem
from mimo_plugin.core.files import make_parent, replacing

Records = dict[int, dict[str, float]]  # step -> metric -> value, in order of the steps


@dataclass(frozen=True)
class Metrics:
    """What a run wrote down: while it trained, and each time its dev collection was scored."""

    training: Records
    dev: Records

    def series(self, metric: str, *, dev: bool) -> tuple[list[int], list[float]]:
        """Steps and values of a metric."""
        records = self.dev if dev else self.training
        found = {step: record[metric] for step, record in records.items() if metric in record}
        return list(found), list(found.values())


def read_metrics(path: Path) -> Metrics:
    """Reads `{"step": 10, "stage": "stage1", "loss": 0.7, ...}` and `{"step": 10, "dev": {"ndcg@20": 0.5}}`.

    Of a step that comes again after a resume, the later line counts. Lines that a kill cut short are passed
    over.

    Raises:
        DataError: the file cannot be read, or has no metrics.
    """
    training: Records = {}
    dev: Records = {}
    for record in _records(path):
        scores = record.get("dev")
        if isinstance(scores, dict):
            dev[record["step"]] = _numbers(scores)
        else:
            training[record["step"]] = _numbers(record)
    if not training and not dev:
        raise DataError(f"{path}: no line with a step and metrics, expected those that a training run writes")
    return Metrics(dict(sorted(training.items())), dict(sorted(dev.items())))


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
    """Whether it is of one of these types, and 64 bits hold it."""
    return type(value) in kinds and (not isinstance(value, int) or abs(value) < 2**63)


# Title, unit, whether of the dev collection, metrics.
_PANELS = (
    ("Training", "loss", False, ("loss", "contrastive", "distillation", "divergence")),
    ("Dev: retrieval", "0 to 1, higher is better", True, ("ndcg@20", "same_language@20")),
    ("Dev: vectors", "lower is better", True, ("alignment", "uniformity")),
)


def draw_curves(path: Path, output: Path) -> None:
    """Draws a training run's metrics, see `read_metrics`, as a PNG; panels without data are left out.

    Raises:
        DataError: no metrics, or none of those that are drawn.
        EnvironmentProblem: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentProblem(
            "training curves need matplotlib, which is not installed: pip install matplotlib"
        ) from error
    metrics = read_metrics(path)
    drawn = []
    for title, unit, dev, names in _PANELS:
        series = {name: metrics.series(name, dev=dev) for name in names}
        if any(steps for steps, _ in series.values()):
            drawn.append((title, unit, series))
    if not drawn:
        known = ", ".join(name for panel in _PANELS for name in panel[3])
        raise DataError(f"{path}: none of the metrics that can be drawn, expected some of {known}")
    # Without pyplot, which keeps figures and chooses a back end for the whole process.
    figure = Figure(figsize=(5 * len(drawn), 3), layout="constrained")
    places = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axes, (title, unit, series) in zip(places, drawn, strict=True):
        for name, (steps, values) in series.items():
            if steps:
                axes.plot(steps, values, label=name, marker="." if title != "Training" else None)
        # The parts of the loss differ by an order of magnitude.
        if title == "Training" and all(value > 0 for _, values in series.values() for value in values):
            axes.set_yscale("log")
        axes.set(title=title, xlabel="optimiser step", ylabel=unit)
        axes.legend(frameon=False, fontsize="small")
        axes.grid(alpha=0.25)
    make_parent(output)
    with replacing(output) as beside:
        figure.savefig(beside, format="png", dpi=130, metadata={"Software": None})
