"""Writing of figures; the ranking of systems; forest plots of differences."""

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from mimo_plugin.core.table import DAGGER, MISSING
from mimo_plugin.evaluation.compare import ALL_LANGUAGES
from mimo_plugin.evaluation.results import BenchmarkResults, ComparisonResult
from mimo_plugin.report.tables import (
    FileNames,
    Pair,
    compared,
    is_judged,
    labels,
    measure_name,
    overall_differences,
    ranking,
    system_names,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# Two of Okabe and Ito's colours, which differ also without colour vision.
BLUE = "#0072B2"
VERMILION = "#D55E00"
_INK = "#222222"
_FAINT = "#767676"
_BAR = "#a9bccb"

# No date, version or random ids, so that the same results give the same bytes. Text stays text, and dollar
# signs are not formulas.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mimo-plugin",
    "text.parse_math": False,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    # Where a title is anyway: a place that matplotlib looks for costs as much as the drawing.
    "axes.titley": 1.0,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_PNG_DPI = 200
_MARGIN = 0.05  # inches
_CHARACTERS_AN_INCH = 17  # of a label in its size
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_HREF = "{http://www.w3.org/1999/xlink}href"
_LOCAL = re.compile(r"url\(#([^)]+)\)")
_FAMILY = re.compile(r"font-family:[^;]*;?|(?<=font: )(.*?px) [^;]*")


class Figure(NamedTuple):
    """A figure to be drawn.

    Attributes:
        name: of its files.
        description: text for readers who cannot see it.
        labels: texts that must accompany every number.
        narrow: the same in one column, for narrow screens; None if `draw` fits them.
    """

    name: str
    title: str
    caption: str
    description: str
    draw: Callable[[], "Canvas"]
    labels: Sequence[str] = ()
    narrow: Callable[[], "Canvas"] | None = None


def write_figure(figure: Figure, directory: Path) -> str:
    """Writes NAME.svg and NAME.png into the directory; returns the SVG as part of a page."""
    text = _svg(figure, figure.draw, directory / f"{figure.name}.png")
    (directory / f"{figure.name}.svg").write_text(text, encoding="utf-8")
    return _inline(text, figure, f"figure-{figure.name}")


def narrow_figure(figure: Figure) -> str:
    """The SVG for narrow screens as part of a page, or nothing."""
    return (
        "" if figure.narrow is None else _inline(_svg(figure, figure.narrow), figure, f"narrow-{figure.name}")
    )


def _svg(figure: Figure, draw: Callable[[], "Canvas"], png: Path | None = None) -> str:
    buffer = io.StringIO()
    with _drawing():
        canvas = draw()
        # Laid out once here. With any engine, "none" too, every file would be drawn twice.
        layout = canvas.get_layout_engine()
        if layout is not None:
            layout.execute(canvas)
            canvas.set_layout_engine(None)
        _add_labels(canvas, figure.labels)
        box = canvas.get_tightbbox().padded(_MARGIN)
        canvas.savefig(buffer, format="svg", metadata=_NO_METADATA, transparent=True, bbox_inches=box)
        if png is not None:
            look: dict[str, Any] = {"metadata": {"Software": None}, "facecolor": "white", "dpi": _PNG_DPI}
            canvas.savefig(png, format="png", bbox_inches=box, **look)
    return buffer.getvalue()


@contextmanager
def _drawing() -> Iterator[None]:
    """Sets our style, and silences warnings about characters that only the page's fonts have."""
    import matplotlib as mpl

    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")
        fonts.setLevel(logging.ERROR)
        try:
            yield
        finally:
            fonts.setLevel(level)


def _add_labels(canvas: "Canvas", labels: Sequence[str]) -> None:
    """Writes the labels below the drawing, as a part of it."""
    width = max(30, int(canvas.get_figwidth() * _CHARACTERS_AN_INCH))
    text = "\n".join(fill(label, width) for label in labels)
    if text:
        below = -0.06 / canvas.get_figheight()
        canvas.text(0.01, below, text, va="top", ha="left", fontsize=7, color=_FAINT)


def _inline(text: str, figure: Figure, own: str) -> str:
    """An SVG document as an element of a page, without style sheet and own fonts. own: prefix of its ids."""
    root = ElementTree.fromstring(text)
    for parent in root.iter():
        for child in [part for part in parent if part.tag.endswith("}style")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        link = element.attrib.pop(_HREF, None)
        if link is not None:
            local = link.startswith("#")
            element.set("href", f"#{own}-{link[1:]}" if local else link)
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{own}-{value}")
            elif "url(#" in value:
                element.set(key, _LOCAL.sub(rf"url(#{own}-\1)", value))
            elif key == "style" and "font" in value:
                element.set(key, _FAMILY.sub(lambda match: f"{match[1]} inherit" if match[1] else "", value))
    width = float(root.attrib["width"].removesuffix("pt"))
    root.set("style", f"--natural: {width * 4 / 3:.0f}px")
    for key in ("width", "height", "version"):
        del root.attrib[key]
    root.set("role", "img")
    root.set("aria-labelledby", f"{own}-title {own}-desc")
    for place, (name, words) in enumerate((("title", figure.title), ("desc", figure.description))):
        part = ElementTree.Element(name, {"id": f"{own}-{name}"})
        part.text = words
        root.insert(place, part)
    return ElementTree.tostring(root, encoding="unicode")


def columns_of(panels: int) -> int:
    """Columns of small multiples: at most four, in rows of about the same length."""
    return -(-panels // -(-panels // 4))


def shortened(name: str, limit: int) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def winner_chart(results: BenchmarkResults, files: FileNames) -> Figure | None:
    """The scores of all runs, a panel per measure, the best run first; None without a score."""
    measures = [one for one in results.evaluation.measures if not is_judged(one) and ranking(results, one)]
    if not measures:
        return None
    test, names = results.evaluation.test, system_names(results)
    compared_with = (
        f" Lines: {100 * test.confidence:g} % interval of the difference from {names[test.baseline]}, whose "
        f"score is the dashed line. {DAGGER} differs significantly from it."
        if test and test.baseline
        else ""
    )
    average = "Macro average over languages. " if len(results.evaluation.topics.languages) > 1 else ""
    said = (
        f"{measure_name(one)}: "
        + ", ".join(f"{names[run]} {score:.4f}" for run, score in ranking(results, one))
        for one in measures
    )
    return Figure(
        name=files.of("ranking"),
        title="Scores of the systems",
        caption=f"{average}Blue: the best.{compared_with}",
        description=f"{'; '.join(said)}.",
        draw=partial(_draw_ranking, results, measures, min(2, len(measures))),
        narrow=partial(_draw_ranking, results, measures, 1) if len(measures) > 1 else None,
        labels=labels(results),
    )


_WIDTH_OF_BARS, _HEIGHT_OF_BAR = 4.2, 0.26


def _draw_ranking(results: BenchmarkResults, measures: Sequence[str], columns: int) -> "Canvas":
    from matplotlib.figure import Figure as Canvas
    from matplotlib.patheffects import withStroke

    names, test = system_names(results), results.evaluation.test
    halo = [withStroke(linewidth=2.5, foreground="white")]
    order = [run for run, _ in ranking(results, measures[0])]
    lines = -(-len(measures) // columns)
    height = lines * (_HEIGHT_OF_REST + _HEIGHT_OF_BAR * len(order))
    canvas = Canvas(figsize=(_WIDTH_OF_BARS * columns, height), layout="constrained")
    grid = canvas.subplots(lines, columns, sharey=True, squeeze=False)
    panels = [axes for line in grid for axes in line]
    for axes, measure in zip(panels, measures, strict=False):
        scores = dict(ranking(results, measure))
        best = max(scores.values())
        baseline = test.baseline if test else None
        ends = [best, 0.0]
        differences = overall_differences(results, measure)
        for run, score in scores.items():
            place, end, one = order.index(run), score, differences.get((baseline or "", run))
            axes.barh(place, score, height=0.66, color=BLUE if score == best else _BAR)
            if one is not None and one.ci_low is not None and one.ci_high is not None:
                interval = [score - one.difference + bound for bound in (one.ci_low, one.ci_high)]
                axes.plot(interval, [place, place], color=_INK, linewidth=1.3)
                end = max(end, *interval)
            ends += [end]
            text = f"{score:.4f}{DAGGER * (one is not None and one.significant)}"
            style: dict[str, Any] = {"va": "center", "fontsize": 8.5, "path_effects": halo}
            axes.annotate(text, (end, place), xytext=(4, 0), textcoords="offset points", **style)
        if baseline in scores:
            axes.axvline(scores[baseline], color=_INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.set_title(measure_name(measure), loc="left", fontsize=9.5, fontweight="bold")
        # Room for the numbers beside the longest bar.
        axes.set_xlim(0, max(ends) * 1.22 or 1)
        axes.locator_params(axis="x", nbins=5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    for axes in panels[len(measures) :]:
        axes.set_visible(False)
    panels[0].set_yticks(range(len(order)), [shortened(names[run], 24) for run in order])
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    return canvas


_WIDTH_OF_PANELS = 7.4
_MOST_OF_ONE = 3.9
_WIDTH_OF_NAMES = 0.7
_HEIGHT_OF_ROW = 0.2
_HEIGHT_OF_REST = 0.75
_FOREST_MARGIN = 0.06


def forest_plot(results: BenchmarkResults, measure: str, confidence: float, files: FileNames) -> Figure:
    """Differences between runs per language, with intervals."""
    pairs, names, shown = compared(results, measure), system_names(results), measure_name(measure)
    said = [
        f"{names[run]} minus {names[baseline]}, {_in_words(comparisons[-1])}."
        for (baseline, run), comparisons in pairs.items()
    ]
    return Figure(
        name=files.of("forest", measure),
        title=f"{shown}: differences by language",
        caption=(
            f"{shown}, run minus baseline, in each language, with its {100 * confidence:g} % interval. "
            "Filled: significant after correction; hollow: not. Diamond: macro average over languages. No "
            "line: the interval is undefined."
        ),
        description=" ".join([*said, "All numbers are in the table that follows."]),
        draw=partial(_draw_forest, pairs, names, shown, columns_of(len(pairs))),
        narrow=partial(_draw_forest, pairs, names, shown, 1) if len(pairs) > 1 else None,
        labels=labels(results),
    )


def _in_words(one: ComparisonResult) -> str:
    where = "macro average" if one.language == ALL_LANGUAGES else one.language
    known = one.ci_low is not None and one.ci_high is not None
    interval = f"{one.ci_low:+.4f} to {one.ci_high:+.4f}" if known else MISSING
    found = "significant" if one.significant else "not significant"
    return f"{where}: {one.difference:+.4f}, interval {interval}, {found}"


def _draw_forest(
    pairs: Mapping[Pair, Sequence[ComparisonResult]], names: Mapping[str, str], measure: str, columns: int
) -> "Canvas":
    """A panel per pair of runs, a row per language; all panels have the same axes."""
    from matplotlib.figure import Figure as Canvas

    rows = list(dict.fromkeys(one.language for comparisons in pairs.values() for one in comparisons))
    lines = -(-len(pairs) // columns)
    width = _WIDTH_OF_NAMES + min(_WIDTH_OF_PANELS, columns * _MOST_OF_ONE)
    height = lines * (_HEIGHT_OF_REST + _HEIGHT_OF_ROW * len(rows))
    canvas = Canvas(figsize=(width, height), layout="constrained")
    grid = canvas.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    panels = [axes for line in grid for axes in line]
    for place, (axes, ((baseline, run), comparisons)) in enumerate(zip(panels, pairs.items(), strict=False)):
        _draw_panel(axes, comparisons, rows)
        title = f"{shortened(names[run], 28)}\n− {shortened(names[baseline], 26)}"
        axes.set_title(title, loc="left", color=_INK, fontsize=9)
        last_of_column = place + columns >= len(pairs)
        axes.tick_params(labelbottom=last_of_column)
        if last_of_column:
            axes.set_xlabel(f"difference in {measure}")
    for axes in panels[len(pairs) :]:
        axes.set_visible(False)
    every = [one for comparisons in pairs.values() for one in comparisons]
    # Zero is always visible.
    values = [value for one in every for value in (one.difference, one.ci_low, one.ci_high)]
    ends = [0.0, *(value for value in values if value is not None)]
    margin = _FOREST_MARGIN * ((max(ends) - min(ends)) or 0.02)
    panels[0].set_xlim(min(ends) - margin, max(ends) + margin)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    named = ["macro" if row == ALL_LANGUAGES else shortened(row, 16) for row in rows]
    panels[0].set_yticks(range(len(rows)), named)
    return canvas


def _draw_panel(axes: "Axes", comparisons: Sequence[ComparisonResult], rows: Sequence[str]) -> None:
    axes.axvline(0, color=_INK, linewidth=0.8, zorder=1)
    axes.grid(axis="x", color=_FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)
    axes.spines["left"].set_visible(False)
    for one in comparisons:
        row = rows.index(one.language)
        macro = one.language == ALL_LANGUAGES
        if macro:
            axes.axhline(row - 0.5, color=_FAINT, linewidth=0.6, linestyle=":")
        if one.ci_low is not None and one.ci_high is not None:
            axes.plot([one.ci_low, one.ci_high], [row, row], color=BLUE, linewidth=2.2 if macro else 1.4)
        axes.plot(
            one.difference,
            row,
            marker="D" if macro else "o",
            markersize=6.5 if macro else 5,
            color=BLUE,
            markerfacecolor=BLUE if one.significant else "white",
            linestyle="none",
        )
