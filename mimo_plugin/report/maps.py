"""Pictures of an encoder's space."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.core.errors import DataError
from mimo_plugin.core.files import make_parent, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = NDArray[np.float64]

_POINTS_AN_INCH = 72
# Of a letter and a line, in parts of the font size.
_LETTER, _LINE = 0.66, 1.3
# How far a name keeps from a point, in points.
_CLEAR = 5.0
# From how far on a line leads from a point to its name.
_FAR = 10.0
_DIRECTIONS = 16


def place_labels(
    axes: "Axes",
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    *,
    avoid: Sequence[tuple[float, float]] = (),
    size: float = 9,
    **style: Any,
) -> None:
    """Writes a name beside each point, where it covers neither a point nor another name, with a thin line
    to it where that is not near.

    The axes' limits must be set and the figure laid out before. Deterministic.

    Args:
        points: in data coordinates.
        avoid: further points that are not to be covered.
        size: of the font, in points.
        style: of the text, as matplotlib takes it.
    """
    inside = np.array(axes.get_window_extent().size) / axes.figure.dpi * _POINTS_AN_INCH
    corner = np.array([axes.get_xlim()[0], axes.get_ylim()[0]])
    extent = np.array([axes.get_xlim()[1], axes.get_ylim()[1]]) - corner
    # In points, like font sizes.
    at, others = ((np.reshape(given, (-1, 2)) - corner) / extent * inside for given in (points, avoid))
    halves = np.array([[len(name) * _LETTER * size / 2, _LINE * size / 2] for name in names])
    places = _places(at, np.concatenate([at, others]), halves, inside)
    far = (np.abs(places - at) - halves).max(axis=1) > _FAR
    for name, point, way, distant in zip(names, points, places - at, far, strict=True):
        line = {"arrowstyle": "-", "color": "0.45", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            name,
            point,
            xytext=tuple(way),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            arrowprops=line if distant else None,
            **style,
        )


def _places(points: Values, taken: Values, halves: Values, inside: Values) -> Values:
    """Centres for boxes: each as near to its point as there is room, outward first.

    points, halves: (n, 2) points, and half the widths and heights of their boxes. taken: (m, 2) points that
    no box may cover. inside: (2,) width and height of the axes.
    """
    middle = points.mean(axis=0) if len(points) else points
    places = np.empty_like(points)
    # Those farthest out have the most room, and leave the rest to the others.
    order = np.argsort(-np.linalg.norm(points - middle, axis=1), kind="stable")
    for position, number in enumerate(order.tolist()):
        done = order[:position]
        outward = points[number] - middle
        # A point by itself has its name above it.
        start = np.arctan2(outward[1], outward[0]) if outward.any() else np.pi / 2
        for place in _around(points[number], halves[number], start, float(inside.max())):
            kept = np.clip(place, halves[number], inside - halves[number])
            from_points = np.abs(taken - kept) - halves[number] - _CLEAR
            from_names = np.abs(places[done] - kept) - halves[done] - halves[number]
            places[number] = kept
            if (from_points.max(axis=1) >= 0).all() and (from_names.max(axis=1, initial=-1) >= 0).all():
                break
    return places


def _around(point: Values, half: Values, start: float, farthest: float) -> Iterator[Values]:
    """Places around a point, nearest first, and of those equally near the ones towards `start`."""
    turns = sorted(range(-_DIRECTIONS // 2 + 1, _DIRECTIONS // 2 + 1), key=lambda turn: (abs(turn), turn))
    angles = start + 2 * np.pi * np.array(turns) / _DIRECTIONS
    # A box that touches its point, in every direction: a rectangle of places, not a circle.
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    touching = ((half + _CLEAR) / np.abs(directions).clip(1e-9)).min(axis=1)
    away = 0.0
    while away < farthest:
        yield from point + directions * (touching + away)[:, None]
        away += 6.0


# Okabe and Ito, Color Universal Design (2008), without the yellow, which is lost on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Their number has no divisor in common with that of the colours: 56 different looks.
_MARKERS = ("o", "s", "^", "D", "P", "v", "X", "<")
# Even for the eye at every step, with and without colour vision.
COLOR_MAP = "cividis"


class Look(NamedTuple):
    """A colour and a marker of matplotlib."""

    color: str
    marker: str


def look(number: int) -> Look:
    """The look of the language or model of that number."""
    return Look(_COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)])


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
