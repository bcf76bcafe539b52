"""Differences from the baseline, language by language, with their intervals."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mimo_plugin.evaluation.comparison import ALL_LANGUAGES
from mimo_plugin.report.comparison_tables import Pair, compared, in_words
from mimo_plugin.report.figure import Figure
from mimo_plugin.report.names import FileNames, measure_name, system_names
from mimo_plugin.report.results import Results
from mimo_plugin.report.shapes import Comparison
from mimo_plugin.report.style import BLUE, FAINT, INK, shortened
from mimo_plugin.report.wording import labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_COLUMNS = 3
_WIDTH_OF_PANELS = 6.6
_MOST_OF_ONE = 4.2
_WIDTH_OF_NAMES = 0.7
_HEIGHT_OF_ROW = 0.2
_HEIGHT_OF_REST = 0.75
_MARGIN = 0.06


def forest_plots(results: Results, files: FileNames) -> Iterator[Figure]:
    """A figure for each measure that was compared."""
    test = results.evaluation.test
    for measure in results.evaluation.quality:
        pairs = compared(results, measure)
        if not pairs or test is None:
            continue
        shown = measure_name(measure)
        caption = (
            f"{shown}, run minus baseline, in each language, with its {100 * test.confidence:g} % interval. "
            "Filled: significant after correction; hollow: not. Diamond: macro average over languages. No "
            "line: the interval is not defined."
        )
        yield Figure(
            name=files.of("forest", measure),
            title=f"{shown}: differences by language",
            caption=caption,
            description=_description(results, pairs),
            draw=partial(draw_forest, pairs, system_names(results), shown),
            labels=labels(results),
        )


def _description(results: Results, pairs: Mapping[Pair, Sequence[Comparison]]) -> str:
    names = system_names(results)
    parts = []
    for (baseline, run), comparisons in pairs.items():
        last = comparisons[-1]
        where = "macro average" if last.language == ALL_LANGUAGES else last.language
        parts.append(f"{names[run]} minus {names[baseline]}, {where}: {in_words(last)}.")
    return " ".join([*parts, "All numbers are in the table that follows."])


def draw_forest(
    pairs: Mapping[Pair, Sequence[Comparison]], names: Mapping[str, str], measure: str
) -> "Canvas":
    """A panel for each pair of runs, a row for each language; all panels have the same axes."""
    from matplotlib.figure import Figure as Canvas

    rows = list(dict.fromkeys(one.language for comparisons in pairs.values() for one in comparisons))
    columns = min(_COLUMNS, len(pairs))
    lines = -(-len(pairs) // columns)
    width = _WIDTH_OF_NAMES + min(_WIDTH_OF_PANELS, columns * _MOST_OF_ONE)
    height = lines * (_HEIGHT_OF_REST + _HEIGHT_OF_ROW * len(rows))
    canvas = Canvas(figsize=(width, height), layout="constrained")
    grid = canvas.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    panels = [axes for line in grid for axes in line]
    for axes, ((baseline, run), comparisons) in zip(panels, pairs.items(), strict=False):
        _panel(axes, comparisons, rows)
        axes.set_title(
            f"{shortened(names[run], 28)}\n− {shortened(names[baseline], 26)}",
            loc="left",
            color=INK,
            fontsize=9,
        )
    for axes in panels[len(pairs) :]:
        axes.set_visible(False)
    low, high = _limits(pairs)
    panels[0].set_xlim(low, high)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    panels[0].set_yticks(
        range(len(rows)), ["macro" if row == ALL_LANGUAGES else shortened(row, 16) for row in rows]
    )
    for place, axes in enumerate(panels[: len(pairs)]):
        last_of_column = place + columns >= len(pairs)
        axes.tick_params(labelbottom=last_of_column)
        if last_of_column:
            axes.set_xlabel(f"difference in {measure}")
    return canvas


def _panel(axes: "Axes", comparisons: Sequence[Comparison], rows: Sequence[str]) -> None:
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    axes.grid(axis="x", color=FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)
    axes.spines["left"].set_visible(False)
    for one in comparisons:
        row = rows.index(one.language)
        macro = one.language == ALL_LANGUAGES
        if macro:
            axes.axhline(row - 0.5, color=FAINT, linewidth=0.6, linestyle=":")
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


def _limits(pairs: Mapping[Pair, Sequence[Comparison]]) -> tuple[float, float]:
    """Of all panels; zero is always in."""
    ends = [0.0]
    for comparisons in pairs.values():
        for one in comparisons:
            ends += [end for end in (one.difference, one.ci_low, one.ci_high) if end is not None]
    span = (max(ends) - min(ends)) or 0.02
    return min(ends) - _MARGIN * span, max(ends) + _MARGIN * span
