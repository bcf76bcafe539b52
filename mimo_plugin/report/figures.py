"""Writing of figures; forest plots of differences; heat maps of the languages of hits."""

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

from mimo_plugin.core.table import MISSING
from mimo_plugin.evaluation.compare import ALL_LANGUAGES
from mimo_plugin.evaluation.results import BenchmarkResults, ComparisonResult, LanguageMixResult
from mimo_plugin.report.tables import FileNames, Pair, compared, labels, measure_name, system_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# Two of Okabe and Ito's colours, which differ also without colour vision.
BLUE = "#0072B2"
VERMILION = "#D55E00"
_INK = "#222222"
_FAINT = "#767676"

# No date, version or random ids, so that the same results give the same bytes. Text stays text, and dollar
# signs are not formulas.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mimo-plugin",
    "text.parse_math": False,
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
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
    """

    name: str
    title: str
    caption: str
    description: str
    draw: Callable[[], "Canvas"]
    labels: Sequence[str] = ()


def write_figure(figure: Figure, directory: Path) -> str:
    """Writes NAME.svg and NAME.png into the directory; returns the SVG as part of a page."""
    buffer = io.StringIO()
    with _drawing():
        canvas = figure.draw()
        # Laid out once here, instead of twice for each file.
        canvas.draw_without_rendering()
        canvas.set_layout_engine("none")
        _add_labels(canvas, figure.labels)
        box = canvas.get_tightbbox().padded(_MARGIN)
        canvas.savefig(buffer, format="svg", metadata=_NO_METADATA, transparent=True, bbox_inches=box)
        canvas.savefig(
            directory / f"{figure.name}.png",
            format="png",
            dpi=_PNG_DPI,
            metadata={"Software": None},
            facecolor="white",
            bbox_inches=box,
        )
    text = buffer.getvalue()
    (directory / f"{figure.name}.svg").write_text(text, encoding="utf-8")
    return _inline(text, figure)


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


def _inline(text: str, figure: Figure) -> str:
    """An SVG document as an element of a page, with unique ids, without style sheet and without own fonts."""
    own = f"figure-{figure.name}"
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


def shortened(name: str, limit: int) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


_COLUMNS = 3
_WIDTH_OF_PANELS = 6.6
_MOST_OF_ONE = 4.2
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
        draw=partial(_draw_forest, pairs, names, shown),
        labels=labels(results),
    )


def _in_words(one: ComparisonResult) -> str:
    where = "macro average" if one.language == ALL_LANGUAGES else one.language
    known = one.ci_low is not None and one.ci_high is not None
    interval = f"{one.ci_low:+.4f} to {one.ci_high:+.4f}" if known else MISSING
    found = "significant" if one.significant else "not significant"
    return f"{where}: {one.difference:+.4f}, interval {interval}, {found}"


def _draw_forest(
    pairs: Mapping[Pair, Sequence[ComparisonResult]], names: Mapping[str, str], measure: str
) -> "Canvas":
    """A panel per pair of runs, a row per language; all panels have the same axes."""
    from matplotlib.figure import Figure as Canvas

    rows = list(dict.fromkeys(one.language for comparisons in pairs.values() for one in comparisons))
    columns = min(_COLUMNS, len(pairs))
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


_CELL = 0.27
_MOST_WRITTEN = 20  # languages; more would not be readable
# One hue from light to dark, which needs no colour vision.
_COLOUR_MAP = "Blues"
_DARK = 0.7  # part of the scale from which text is white


def heat_maps(results: BenchmarkResults, files: FileNames) -> Iterator[tuple[str, Figure]]:
    """Each run's name and heat map of its hits' languages; all have the same scale."""
    names, found = system_names(results), results.language_bias
    shares = [share or 0.0 for bias in found.values() for row in bias.language_mix.shares for share in row]
    highest = max(shares, default=0.0) or 1.0
    for name, bias in found.items():
        mix, cutoff = bias.language_mix, bias.cutoff
        figure = Figure(
            name=files.of("language mix", name),
            title=f"{names[name]}: languages of the first {cutoff} hits",
            caption=(
                f"{names[name]}: of the first {cutoff} hits of queries in a row's language, the share in "
                "a column's language. Rows add up to 1; a framed cell is the query's own language. All "
                "systems have the same scale."
            ),
            description=_mix_in_words(mix),
            draw=partial(_draw_mix, mix, highest),
            labels=labels(results),
        )
        yield name, figure


def _mix_in_words(mix: LanguageMixResult) -> str:
    said = []
    for language, row in zip(mix.query_languages, mix.shares, strict=True):
        share, name = max((share or 0.0, name) for name, share in zip(mix.doc_languages, row, strict=True))
        said.append(f"{language}: most in {name}, {share:.2f}")
    own = "" if mix.own is None else f"In the query's own language: {mix.own:.4f} of all. "
    return f"{own}By query language, {'; '.join(said)}. All numbers are in the table that follows."


def _draw_mix(mix: LanguageMixResult, highest: float) -> "Canvas":
    """highest: the top of the colour scale."""
    from matplotlib.figure import Figure as Canvas
    from matplotlib.patches import Rectangle

    rows, columns = len(mix.query_languages), len(mix.doc_languages)
    canvas = Canvas(figsize=(1.6 + _CELL * max(columns, 6), 0.9 + _CELL * max(rows, 3)), layout="constrained")
    axes = canvas.subplots()
    values = [[share if share is not None else float("nan") for share in row] for row in mix.shares]
    mesh = axes.pcolormesh(
        values, cmap=_COLOUR_MAP, vmin=0.0, vmax=highest, edgecolors="white", linewidth=0.5
    )
    for row, language in enumerate(mix.query_languages):
        for column, name in enumerate(mix.doc_languages):
            share = mix.shares[row][column]
            if share is not None and max(rows, columns) <= _MOST_WRITTEN:
                color = "white" if share / highest > _DARK else "black"
                middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6.5}
                axes.text(column + 0.5, row + 0.5, _brief(share), color=color, **middle)
            if name == language:
                axes.add_patch(
                    Rectangle((column, row), 1, 1, fill=False, edgecolor=VERMILION, linewidth=1.8, zorder=3)
                )
    axes.set_xticks([at + 0.5 for at in range(columns)], [shortened(name, 12) for name in mix.doc_languages])
    axes.set_yticks([at + 0.5 for at in range(rows)], [shortened(name, 12) for name in mix.query_languages])
    if any(len(name) > 2 for name in mix.doc_languages):
        axes.tick_params(axis="x", rotation=90)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.set_xlabel("language of the hits")
    axes.set_ylabel("language of the query")
    bar = canvas.colorbar(mesh, ax=axes, shrink=0.7, label="share of the hits")
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=_INK)
    return canvas


def _brief(share: float) -> str:
    """At most two digits: 0.123 -> ".12", 1 -> "1"."""
    text = f"{share:.2f}"
    return "1" if text == "1.00" else "0" if text == "0.00" and share == 0 else text.removeprefix("0")
