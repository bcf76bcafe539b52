"""Which languages the hits of each language's queries are in."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from mimo_plugin.report.bias_shapes import LanguageMix
from mimo_plugin.report.figure import Figure
from mimo_plugin.report.names import FileNames, system_names
from mimo_plugin.report.results import Results
from mimo_plugin.report.style import INK, VERMILION, shortened
from mimo_plugin.report.wording import labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_CELL = 0.27
_MOST_WRITTEN = 20  # languages; more would not be readable
# One hue from light to dark: it needs no colour vision, and little ink where there is little.
_COLOUR_MAP = "Blues"
_DARK = 0.7  # part of the scale from which white text is read more easily


def heat_maps(results: Results, files: FileNames) -> Iterator[tuple[str, LanguageMix, Figure]]:
    """For each run that has a language mix: its name, the mix, the figure."""
    names = system_names(results)
    mixes = {name: bias.language_mix for name, bias in results.language_bias.items() if bias.language_mix}
    highest = top(mixes)
    for name, mix in mixes.items():
        cutoff = results.language_bias[name].cutoff
        yield (
            name,
            mix,
            Figure(
                name=files.of("language mix", name),
                title=f"{names[name]}: languages of the first {cutoff} hits",
                caption=(
                    f"{names[name]}: of the first {cutoff} hits of queries in a row's language, the share in "
                    "a column's language. Rows add up to 1; a framed cell is the query's own language. All "
                    "systems have the same scale."
                ),
                description=_description(mix),
                draw=partial(draw_mix, mix, highest),
                labels=labels(results),
            ),
        )


def top(mixes: Mapping[str, LanguageMix]) -> float:
    """The largest share of any system: the top of the scale."""
    return (
        max((share or 0.0 for mix in mixes.values() for row in mix.shares for share in row), default=0.0)
        or 1.0
    )


def _description(mix: LanguageMix) -> str:
    said = []
    for language, row in zip(mix.query_languages, mix.shares, strict=True):
        shares = [(share or 0.0, name) for name, share in zip(mix.doc_languages, row, strict=True)]
        share, name = max(shares)
        said.append(f"{language}: most in {name}, {share:.2f}")
    own = "" if mix.own is None else f"In the query's own language: {mix.own:.4f} of all. "
    return f"{own}By query language, {'; '.join(said)}. All numbers are in the table that follows."


def draw_mix(mix: LanguageMix, highest: float) -> "Canvas":
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
                axes.text(
                    column + 0.5,
                    row + 0.5,
                    brief(share),
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="white" if share / highest > _DARK else "black",
                )
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
    bar.ax.tick_params(color=INK)
    return canvas


def brief(share: float) -> str:
    """Two digits, which fit a cell: 0.123 -> ".12", 1 -> "1"."""
    text = f"{share:.2f}"
    return "1" if text == "1.00" else "0" if text == "0.00" and share == 0 else text.removeprefix("0")
