"""A run's metrics, and a small picture of them; TensorBoard has all of the curves."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.errors import DataError, EnvironmentProblem
from mimo_plugin.core.files import make_parent, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


@dataclass(frozen=True)
class _Panel:
    """curves: metric -> label in the legend."""

    title: str
    unit: str
    curves: dict[str, str]
    dev: bool = True


_PANELS = (
    _Panel(
        "Training loss",
        "loss",
        {
            "loss": "total (weighted sum)",
            "contrastive": "contrastive (nats)",
            "distillation": "distillation (1 - cosine)",
            "divergence": "divergence (nats)",
        },
        dev=False,
    ),
    _Panel("Learning rate", "learning rate", {"learning_rate": ""}, dev=False),
    _Panel("Dev: multilingual retrieval", "nDCG@20 (0 to 1)", {"ndcg@20": ""}),
    _Panel("Dev: hits in the query's own language", "share of the top 20", {"same_language@20": ""}),
    _Panel("Dev: alignment, lower is closer", "mean squared distance (0 to 4)", {"alignment": ""}),
    _Panel("Dev: uniformity, lower is more even", "log mean exp(-2 distance²) (-8 to 0)", {"uniformity": ""}),
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
    panels = [p for p in _PANELS if any(metrics.series(name, dev=p.dev)[0] for name in p.curves)]
    if not panels:
        names = ", ".join(name for panel in _PANELS for name in panel.curves)
        raise DataError(f"{path}: none of the metrics that can be drawn, expected some of {names}")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    # Without pyplot, which keeps figures and chooses a back end for the whole process.
    figure = Figure(figsize=(5.6 * columns, 3.1 * rows), layout="constrained")
    for number, panel in enumerate(panels, start=1):
        _draw(figure.add_subplot(rows, columns, number), panel, metrics)
    make_parent(output)
    with replacing(output) as beside:
        figure.savefig(beside, format="png", dpi=130, metadata={"Software": None})


def _draw(axes: "Axes", panel: _Panel, metrics: Metrics) -> None:
    drawn: list[float] = []
    for name, label in panel.curves.items():
        steps, values = metrics.series(name, dev=panel.dev)
        if steps:
            axes.plot(steps, values, label=label, marker="o" if panel.dev else None, markersize=4)
            drawn += values
    # The parts of the loss differ by an order of magnitude.
    if "loss" in panel.curves and all(value > 0 for value in drawn):
        axes.set_yscale("log")
    axes.set(title=panel.title, xlabel="optimiser step", ylabel=panel.unit)
    if len(axes.get_lines()) > 1:
        axes.legend(frameon=False, fontsize="small")
    axes.grid(alpha=0.25)
