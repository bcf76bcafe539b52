"""An analysis as pictures, drawn from its JSON object, see `json_report.as_json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.analysis.labels import place_labels
from mimo_plugin.analysis.palette import COLOR_MAP, look
from mimo_plugin.errors import DataError
from mimo_plugin.files import make_parent, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LAYERS = 4
_LEGEND_ROWS = 20
# With more languages than this, there is no room for numbers in cells, and for names among points.
_MOST_NAMED = 30


def draw_plane(geometry: Mapping[str, Any]) -> "Figure":
    """Alignment against uniformity, a point for each encoder, and the way to it where there is a trail.

    Raises:
        DataError: no encoder has an alignment.
    """
    drawn = {label: one for label, one in geometry["encoders"].items() if one["alignment"] is not None}
    if not drawn:
        raise DataError(f"no alignment to draw: {geometry['skipped'].get('alignment', 'no encoder')}")
    figure = _figure(6.4, 4.8)
    axes = figure.add_subplot()
    for number, (label, one) in enumerate(drawn.items()):
        color, marker = look(number)
        trail = _trail(one)
        if trail:
            axes.plot(
                *zip(*trail.values(), strict=True),
                color=color,
                linewidth=1.2,
                linestyle=":" if _elsewhere(geometry, label) else "-",
                marker=marker,
                markersize=3.5,
                markerfacecolor="white",
            )
        axes.plot(
            one["alignment"], one["uniformity"], color=color, marker=marker, markersize=10, linestyle=""
        )
    axes.set_title(f"Alignment and uniformity: {_texts(geometry)}", fontsize="medium")
    axes.set_xlabel("Alignment: mean squared distance of translations (0 to 4)\n← lower is better")
    axes.set_ylabel("Uniformity: log mean exp(-2 distance²) (-8 to 0)\n← lower is better")
    axes.margins(0.15)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _explain_trails(figure, geometry, drawn)
    _settle(figure)
    points: list[tuple[float, float]] = []
    avoid: list[tuple[float, float]] = []
    names: list[str] = []
    for label, one in drawn.items():
        points.append((one["alignment"], one["uniformity"]))
        names.append(label)
        trail = _trail(one)
        avoid += trail.values()
        for step in (min(trail), max(trail)) if len(trail) > 1 else ():
            points.append(trail[step])
            names.append(f"step {step:,}")
    place_labels(axes, points, names, avoid=avoid)
    return figure


def draw_projection(geometry: Mapping[str, Any], label: str) -> "Figure":
    """One encoder's vectors in the plane of their two principal components, a look for each language; large
    and named, the middle of each language."""
    projection = geometry["encoders"][label]["projection"]
    points = np.array(projection["points"], dtype=np.float64)
    languages = projection["languages"]
    columns = -(-len(languages) // _LEGEND_ROWS)
    figure = _figure(6.5 + 1.1 * columns, 5.2)
    axes = figure.add_subplot()
    handles = []
    # A few of each language in turn, so that the last one does not cover the others.
    size = 14 if len(points) <= 1000 else 8
    for step in range(_LAYERS):
        for number in range(len(languages)):
            color, marker = look(number)
            rows = points[points[:, 2] == number][step::_LAYERS]
            axes.scatter(rows[:, 0], rows[:, 1], s=size, color=color, marker=marker, alpha=0.55, linewidths=0)
    middles = [tuple(points[points[:, 2] == number, :2].mean(axis=0)) for number in range(len(languages))]
    for number, (x, y) in enumerate(middles):
        color, marker = look(number)
        handles.append(
            axes.plot(
                x,
                y,
                linestyle="",
                color=color,
                marker=marker,
                markersize=9,
                markeredgecolor="white",
                label=languages[number],
                zorder=3,
            )[0]
        )
    first, second = (100 * share for share in projection["explained"])
    total = geometry["texts"]["vectors"]
    part = f"{len(points):,} of " if len(points) < total else ""
    axes.set_title(f"{label}: {part}{_texts(geometry)}", fontsize="medium")
    axes.set_xlabel(f"first principal component, {first:.1f} % of the variance")
    axes.set_ylabel(f"second, {second:.1f} %")
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    figure.legend(
        handles=handles,
        loc="outside right center",
        frameon=False,
        title="large: mean",
        ncols=columns,
    )
    _settle(figure)
    if len(languages) <= _MOST_NAMED:
        place_labels(axes, middles, languages, weight="bold", zorder=4, path_effects=_halo())
    return figure


def draw_centroids(geometry: Mapping[str, Any], label: str) -> "Figure":
    """One encoder's distances between the mean vectors of the languages, as a heat map."""
    found = geometry["encoders"][label]["centroid_distances"]
    values = np.array(found["distances"], dtype=np.float64)
    others = [one["centroid_distances"]["distances"] for one in geometry["encoders"].values()]
    return _heat_map(
        found["languages"],
        values,
        [value for rows in others for row in rows for value in row if value],
        f"{label}: distance between languages, {_texts(geometry)}",
        "euclidean distance of mean vectors (lower is better)",
    )


def draw_pair_alignment(geometry: Mapping[str, Any], label: str) -> "Figure":
    """One encoder's alignment of each pair of languages, as a heat map; white where no text is in both.

    Raises:
        DataError: no parallel texts.
    """
    pairs = geometry["encoders"][label]["pair_alignment"]
    if not pairs:
        raise DataError(f"no alignment to draw: {geometry['skipped'].get('alignment', 'no parallel texts')}")
    languages = sorted({language for pair in pairs for language in pair[:2]})
    values = np.full((len(languages), len(languages)), np.nan)
    for first, second, value in pairs:
        row, column = languages.index(first), languages.index(second)
        values[row, column] = values[column, row] = value
    return _heat_map(
        languages,
        values,
        [pair[2] for one in geometry["encoders"].values() for pair in one["pair_alignment"]],
        f"{label}: alignment of translations, {_texts(geometry)}",
        "mean squared distance of translations (lower is better)",
    )


def draw_all(geometry: Mapping[str, Any]) -> "dict[tuple[str, str | None], Figure]":
    """(what, label) -> picture, of all that can be drawn; the plane has no label."""
    figures: dict[tuple[str, str | None], Figure] = {}
    aligned = [label for label, one in geometry["encoders"].items() if one["alignment"] is not None]
    if aligned:
        figures["plane", None] = draw_plane(geometry)
    for label in geometry["encoders"]:
        figures["projection", label] = draw_projection(geometry, label)
        if len(geometry["texts"]["languages"]) > 1:
            figures["centroids", label] = draw_centroids(geometry, label)
        if label in aligned:
            figures["pair-alignment", label] = draw_pair_alignment(geometry, label)
    return figures


def save_figure(figure: "Figure", path: Path) -> list[Path]:
    """Writes a picture as PNG and SVG, the same bytes each time; `path` is without a suffix.

    Raises:
        EnvironmentProblem: the file system refuses.
    """
    import matplotlib

    files = []
    for form, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        file = path.with_name(f"{path.name}.{form}")
        make_parent(file)
        with replacing(file) as beside, matplotlib.rc_context({"svg.hashsalt": "mimo"}):
            figure.savefig(beside, format=form, dpi=150, metadata=metadata)
        files.append(file)
    return files


def _heat_map(
    languages: Sequence[str], values: NDArray[np.float64], scale: Sequence[float], title: str, unit: str
) -> "Figure":
    """values: (m, m); the diagonal, which says nothing, and NaN stay white. scale: all encoders' values, so
    that their maps have the same colours."""
    from matplotlib.figure import Figure

    count = len(languages)
    numbered = count <= _MOST_NAMED
    side = max(3.0, (0.42 if numbered else 0.14) * count)
    # "compressed" is for axes whose shape is given, as here by square cells.
    figure = Figure(figsize=(side + 1.8, side + 0.9), layout="compressed")
    axes = figure.add_subplot()
    shown = np.where(np.eye(count, dtype=np.bool_), np.nan, values)
    image = axes.imshow(shown, cmap=COLOR_MAP, vmin=min(scale, default=0.0), vmax=max(scale, default=1.0))
    for row, column in np.argwhere(np.isfinite(shown)).tolist() if numbered else ():
        value = shown[row, column]
        red, green, blue, _ = image.to_rgba(value)
        # Rec. 709
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
        axes.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=7.5,
            color="white" if dark else "black",
        )
    size = "medium" if numbered else "x-small"
    axes.set_xticks(range(count), languages, fontsize=size, rotation=0 if numbered else 90)
    axes.set_yticks(range(count), languages, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize="medium")
    figure.colorbar(image, ax=axes, label=unit, shrink=0.9)
    return figure


def _trail(one: Mapping[str, Any]) -> dict[int, tuple[float, float]]:
    """Step -> alignment and uniformity."""
    return {
        point["step"]: (point["alignment"], point["uniformity"])
        for point in one["trail"]
        if point["alignment"] is not None and point["uniformity"] is not None
    }


def _explain_trails(figure: "Figure", geometry: Mapping[str, Any], drawn: Mapping[str, Any]) -> None:
    from matplotlib.lines import Line2D

    trails = [_elsewhere(geometry, label) for label, one in drawn.items() if _trail(one)]
    names = {False: "while it trained", True: "while it trained, on its dev collection"}
    lines = [
        Line2D([], [], color="0.3", linewidth=1.2, linestyle=":" if other else "-", label=names[other])
        for other in sorted(set(trails))
    ]
    if lines:
        figure.legend(
            handles=lines, frameon=False, fontsize="small", loc="outside lower left", ncols=len(lines)
        )


def _elsewhere(geometry: Mapping[str, Any], label: str) -> bool:
    """Whether a trail is of other texts than the encoder's point."""
    return f"{label}: trail" in geometry["skipped"]


def _figure(width: float, height: float) -> "Figure":
    # Without pyplot, which keeps figures and chooses a back end for the whole process.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _settle(figure: "Figure") -> None:
    """Lays the figure out, so that labels know how much room there is."""
    figure.draw_without_rendering()


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground="white")]


def _texts(geometry: Mapping[str, Any]) -> str:
    texts = geometry["texts"]
    return f"{texts['vectors']:,} {texts['role']} in {len(texts['languages'])} languages"
