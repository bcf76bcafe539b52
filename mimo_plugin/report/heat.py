"""Heat maps as small multiples: the languages of hits, and pairs of languages."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.evaluation.results import BenchmarkResults, LanguageMixResult
from mimo_plugin.report.figures import VERMILION, Figure, columns_of, shortened
from mimo_plugin.report.tables import FileNames, labels, system_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

# Width of a panel of a heat map: alone, in a row of several, in one column. Inches.
_ALONE, _IN_A_ROW, _IN_A_COLUMN = 4.0, 2.1, 3.3
_WIDTH_OF_TICKS = 0.55
_WRITTEN = 0.24  # inches a cell, from which its number is readable


class Heat(NamedTuple):
    """A panel of a heat map. values: (rows, columns), NaN is left white."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: NDArray[np.float64]


def heat_maps(
    panels: Sequence[Heat],
    unit: str,
    *,
    colours: str,
    low: float,
    high: float,
    framed: bool = False,
    **about: Any,
) -> Figure:
    """Small multiples with one scale of colours.

    Args:
        framed: frame the cells whose row and column have one name.
        about: the other fields of the figure.
    """
    draw = partial(_draw_heat, panels, unit, colours, (low, high), framed)
    several = len(panels) > 1
    return Figure(
        draw=partial(draw, columns_of(len(panels)), _IN_A_ROW if several else _ALONE),
        narrow=partial(draw, 1, _IN_A_COLUMN) if several else None,
        **about,
    )


def mix_figure(results: BenchmarkResults, files: FileNames) -> Figure:
    """The languages of all runs' hits."""
    names, found = system_names(results), results.language_bias
    mixes = {names[name]: bias.language_mix for name, bias in found.items()}
    values = {name: np.nan_to_num(np.array(mix.shares, dtype=np.float64)) for name, mix in mixes.items()}
    cutoff = next(iter(found.values())).cutoff
    return heat_maps(
        [Heat(name, mix.query_languages, mix.doc_languages, values[name]) for name, mix in mixes.items()],
        "share of the hits",
        # One hue from light to dark, which needs no colour vision.
        colours="Blues",
        low=0.0,
        high=max((float(shares.max(initial=0.0)) for shares in values.values()), default=0.0) or 1.0,
        framed=True,
        name=files.of("language mix"),
        title=f"Languages of the first {cutoff} hits",
        caption=(
            f"Of the first {cutoff} hits of queries in a row's language, the share in a column's language. "
            "Rows add up to 1; a framed cell is the query's own language. All systems have the same scale."
        ),
        description=" ".join(f"{name}: {_mix_in_words(mix)}" for name, mix in mixes.items()),
        labels=labels(results),
    )


def _mix_in_words(mix: LanguageMixResult) -> str:
    said = []
    for language, row in zip(mix.query_languages, mix.shares, strict=True):
        share, name = max((share or 0.0, name) for name, share in zip(mix.doc_languages, row, strict=True))
        said.append(f"{language}: most in {name}, {share:.2f}")
    by_language = f"By query language, {'; '.join(said)}. All numbers are in the tables that follow."
    return f"In the query's own language: {mix.own:.4f} of all. {by_language}"


def _draw_heat(
    panels: Sequence[Heat],
    unit: str,
    colours: str,
    scale: tuple[float, float],
    framed: bool,
    columns: int,
    width: float,
) -> "Canvas":
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure as Canvas
    from matplotlib.patches import Rectangle

    lines = -(-len(panels) // columns)
    cell = width / max(len(one.columns) for one in panels)
    height = cell * max(len(one.rows) for one in panels) + 0.6
    # "compressed" is the layout for axes of fixed shape, here of square cells.
    size = ((width + _WIDTH_OF_TICKS) * columns, height * lines + 0.6)
    canvas = Canvas(figsize=size, layout="compressed")
    grid = canvas.subplots(lines, columns, squeeze=False)
    every = [axes for line in grid for axes in line]
    for axes in every[len(panels) :]:
        axes.set_visible(False)
    letters: dict[str, Any] = {"fontsize": min(9.0, max(4.0, 0.62 * 72 * cell))}
    mesh = ScalarMappable(Normalize(*scale), colours)
    for axes, panel in zip(every, panels, strict=False):
        axes.pcolormesh(panel.values, cmap=mesh.cmap, norm=mesh.norm, edgecolors="white", linewidth=0.4)
        for row, column in np.argwhere(np.isfinite(panel.values)).tolist() if cell >= _WRITTEN else ():
            value = panel.values[row, column]
            red, green, blue, _ = mesh.to_rgba(value)
            # Rec. 709
            color = "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5 else "black"
            axes.text(
                column + 0.5, row + 0.5, _brief(value), color=color, ha="center", va="center", fontsize=6.5
            )
        for row, name in enumerate(panel.rows) if framed else ():
            if name in panel.columns:
                corner = (panel.columns.index(name), row)
                axes.add_patch(
                    Rectangle(corner, 1, 1, fill=False, edgecolor=VERMILION, linewidth=1.2, zorder=3)
                )
        axes.set_title(shortened(panel.title, int(15 * width)), loc="left", fontsize=9)
        long = any(len(name) > 2 for name in panel.columns)
        axes.set_xticks(
            [at + 0.5 for at in range(len(panel.columns))],
            [shortened(name, 12) for name in panel.columns],
            rotation=90 if long or len(panel.columns) > 20 else 0,
            **letters,
        )
        axes.set_yticks(
            [at + 0.5 for at in range(len(panel.rows))],
            [shortened(name, 12) for name in panel.rows],
            **letters,
        )
        axes.tick_params(length=0, pad=2)
        axes.spines[:].set_visible(False)
        axes.invert_yaxis()
        axes.set_aspect("equal")
    bar = canvas.colorbar(mesh, ax=every, orientation="horizontal", shrink=0.7, aspect=40, label=unit)
    bar.outline.set_visible(False)
    return canvas


def _brief(share: float) -> str:
    """At most two digits: 0.123 -> ".12", 1 -> "1"."""
    text = f"{share:.2f}"
    return "1" if text == "1.00" else "0" if text == "0.00" and share == 0 else text.removeprefix("0")
