"""An analysis as tables for a reader; `evaluation.rendering` writes them."""

from collections.abc import Mapping, Sequence
from math import fsum

import numpy as np

from mimo_plugin.analysis.records import Analysis, Geometry
from mimo_plugin.evaluation.tables import MISSING, Table

# A matrix of more languages fits no page; `--json` has it.
_MOST_COLUMNS = 24


def make_tables(analysis: Analysis) -> list[Table]:
    """All encoders, then by language, then each encoder's matrices and trail."""
    tables = [_summary(analysis), _by_language(analysis)]
    for label, geometry in analysis.encoders.items():
        if geometry.pair_alignment:
            tables.append(_pairs(label, geometry.pair_alignment))
        centroids = geometry.centroids
        if len(centroids.languages) > 1:
            title = f"{label}: distance between the mean vectors of languages"
            tables.append(matrix(title, centroids.languages, centroids.languages, centroids.distances))
        if geometry.trail:
            why = analysis.skipped.get(f"{label}: trail")
            tables.append(_trail(label, geometry, why))
    return [table for table in tables if len(table.headers) <= _MOST_COLUMNS + 1]


def matrix(title: str, rows: Sequence[str], columns: Sequence[str], values: np.ndarray) -> Table:
    """values: (rows, columns); NaN is missing."""
    cells = [
        [name, *(MISSING if np.isnan(value) else f"{value:.2f}" for value in line)]
        for name, line in zip(rows, values, strict=True)
    ]
    return Table(title, ["", *columns], cells)


def _summary(analysis: Analysis) -> Table:
    texts = analysis.texts
    title = (
        f"geometry on {texts.group_count:,} texts, {len(texts.texts):,} {texts.role} in {len(texts.counts)} "
        "languages"
    )
    headers = ["encoder", "dimensions", "alignment", "uniformity", "centroid probe", "kNN probe", "chance"]
    rows = []
    for label, geometry in analysis.encoders.items():
        probe = geometry.separability
        told = (None, None, None) if probe is None else (probe.centroid, probe.knn, probe.chance)
        values = (geometry.alignment, geometry.uniformity, *told)
        rows.append([label, str(geometry.dimension), *map(_cell, values)])
    notes = [
        "alignment: mean squared distance of translations, 0 to 4; uniformity: log mean exp(-2 distance^2), "
        "-8 to 0; both: lower is better."
    ]
    probes = [one.separability for one in analysis.encoders.values() if one.separability]
    if probes:
        notes.append(
            f"probes: share of texts whose language is told from the vector, by the nearest mean vector and "
            f"by {probes[0].neighbours} nearest neighbours; {probes[0].folds} folds, versions of a text in "
            "one fold; at chance the languages are mixed."
        )
    notes += [f"{what}: {why}." for what, why in analysis.skipped.items()]
    return Table(title, headers, rows, notes=tuple(notes))


def _by_language(analysis: Analysis) -> Table:
    """Alignment of a language: the mean over its pairs."""
    several = len(analysis.encoders) > 1
    parallel = any(one.pair_alignment for one in analysis.encoders.values())
    headers = ["language", "texts"]
    columns = []
    for label, geometry in analysis.encoders.items():
        if parallel:
            headers.append(f"alignment, {label}" if several else "alignment")
            columns.append(_per_language(geometry.pair_alignment))
        headers.append(f"uniformity, {label}" if several else "uniformity")
        columns.append(geometry.uniformity_per_language)
    rows = [
        [language, f"{count:,}", *(_cell(column.get(language)) for column in columns)]
        for language, count in analysis.texts.counts.items()
    ]
    notes = ("alignment of a language: the mean over its pairs with the others.",) if parallel else ()
    return Table("by language", headers, rows, notes=notes)


def _per_language(pairs: Mapping[tuple[str, str], float]) -> Mapping[str, float | None]:
    values: dict[str, list[float]] = {}
    for pair, value in pairs.items():
        for language in pair:
            values.setdefault(language, []).append(value)
    return {language: fsum(own) / len(own) for language, own in values.items()}


def _pairs(label: str, pairs: Mapping[tuple[str, str], float]) -> Table:
    names = sorted({language for pair in pairs for language in pair})
    values = np.full((len(names), len(names)), np.nan)
    for (first, second), value in pairs.items():
        row, column = names.index(first), names.index(second)
        values[row, column] = values[column, row] = value
    return matrix(f"{label}: alignment of pairs of languages", names, names, values)


def _trail(label: str, geometry: Geometry, why: str | None) -> Table:
    rows = [[f"{point.step:,}", _cell(point.alignment), _cell(point.uniformity)] for point in geometry.trail]
    return Table(
        f"{label}: while it trained",
        ["step", "alignment", "uniformity"],
        rows,
        0,
        (f"{why}.",) if why else (),
    )


def _cell(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"
