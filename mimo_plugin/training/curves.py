"""A run's metrics as curves."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.core.errors import DataError, EnvironmentProblem
from mimo_plugin.core.files import make_parent, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


_COLUMNS = 2
_PANEL_INCHES = (5.6, 3.1)
_SMOOTHED_FROM = 100  # points a stage; fewer are drawn as they are
_WINDOWS = 40  # a running mean covers this part of the points
_GREY = "0.4"


@dataclass(frozen=True)
class _Panel:
    """curves: metric -> label in the legend. best: whether the highest value is marked."""

    title: str
    unit: str
    curves: dict[str, str]
    dev: bool = True
    smooth: bool = False
    best: bool = False
    limits: tuple[float, float] | None = None


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
        smooth=True,
    ),
    _Panel("Learning rate", "learning rate", {"learning_rate": "learning rate"}, dev=False),
    _Panel("Dev: multilingual retrieval", "nDCG@20 (0 to 1)", {"ndcg@20": "nDCG@20"}, best=True),
    _Panel(
        "Dev: hits in the query's own language",
        "share of the top 20",
        {"same_language@20": "own language"},
        limits=(0.0, 1.0),
    ),
    _Panel(
        "Dev: alignment of translations, lower is closer",
        "mean squared distance (0 to 4)",
        {"alignment": "alignment"},
    ),
    _Panel(
        "Dev: uniformity, lower is more even",
        "log mean exp(-2 distance²) (-8 to 0)",
        {"uniformity": "uniformity"},
    ),
)


def draw_curves(metrics: Path, output: Path) -> None:
    """Draws a training run's metrics, see `read_stages`, as a PNG; panels without data are left out.

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
    stages = read_stages(metrics)
    panels = [panel for panel in _PANELS if any(has(stages, name, dev=panel.dev) for name in panel.curves)]
    if not panels:
        names = ", ".join(name for panel in _PANELS for name in panel.curves)
        raise DataError(f"{metrics}: none of the metrics that can be drawn, expected some of {names}")
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    # Without pyplot, which keeps figures and chooses a back end for the whole process.
    figure = Figure(figsize=(columns * _PANEL_INCHES[0], rows * _PANEL_INCHES[1]), layout="constrained")
    first: Axes | None = None
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number, sharex=first)
        first = first or axes
        _draw(axes, panel, stages)
        _mark_stages(axes, stages)
    make_parent(output)
    with replacing(output) as beside:
        figure.savefig(beside, format="png", dpi=130, metadata={"Software": None})


def _draw(axes: "Axes", panel: _Panel, stages: Sequence[Stage]) -> None:
    drawn = []
    for color, (name, label) in enumerate(panel.curves.items()):
        series = [stage.series(name, dev=panel.dev) for stage in stages]
        series = [(steps, values) for steps, values in series if len(steps)]
        drawn += series
        for number, (steps, values) in enumerate(series):
            # The first curve is wider, so that one that covers it does not hide it.
            style = {"color": f"C{color}", "linewidth": 1.2 if color else 2.0}
            _draw_series(axes, steps, values, panel, style, "" if number else label)
    axes.set_title(f"{panel.title}{_mark_best(axes, drawn) if panel.best else ''}", fontsize="medium")
    if panel.smooth and all((values > 0).all() for _, values in drawn):
        _set_log_scale(axes)
    else:
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    if panel.limits is not None:
        axes.set_ylim(panel.limits)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False, fontsize="small")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(panel.unit)
    axes.margins(x=0.02)
    axes.grid(alpha=0.25)


def _set_log_scale(axes: "Axes") -> None:
    """For the loss, whose parts differ by an order of magnitude."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_series(
    axes: "Axes", steps: Values, values: Values, panel: _Panel, style: dict[str, Any], label: str
) -> None:
    if not panel.smooth or len(steps) < _SMOOTHED_FROM:
        axes.plot(steps, values, **style, label=label, marker="o" if panel.dev else None, markersize=4)
        return
    axes.plot(steps, values, color=style["color"], alpha=0.2, linewidth=0.8)
    width = 2 * (len(values) // (2 * _WINDOWS)) + 1
    means = np.convolve(values, np.full(width, 1 / width), mode="valid")
    axes.plot(steps[width // 2 : len(steps) - width // 2], means, **style, label=label)


def _mark_best(axes: "Axes", series: Sequence[tuple[Values, Values]]) -> str:
    """Rings the highest value; returns what the title says about it."""
    steps, values = (np.concatenate(part) for part in zip(*series, strict=True))
    if not np.isfinite(values).any():
        return ""
    at = int(np.nanargmax(values))
    axes.plot(steps[at], values[at], marker="o", color=_GREY, fillstyle="none", markersize=9)
    return f", best {values[at]:.4f} at step {steps[at]:,.0f}"


def _mark_stages(axes: "Axes", stages: Sequence[Stage]) -> None:
    """A line and a name where a later stage begins."""
    for before, stage in pairwise(stages):
        axes.axvline(before.end, color=_GREY, linestyle=":", linewidth=1)
        axes.annotate(
            stage.name,
            (before.end, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(3, -10),
            textcoords="offset points",
            color=_GREY,
            fontsize="small",
        )
