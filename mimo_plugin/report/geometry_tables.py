"""Geometry of the encoders in numbers."""

from collections.abc import Iterator

from mimo_plugin.report.geometry_shapes import Encoder, Geometry
from mimo_plugin.report.results import Results
from mimo_plugin.report.table import Cell, Column, Note, Part, Table, count, number, words
from mimo_plugin.report.wording import labels


def geometry_table(results: Results, geometry: Geometry) -> Table:
    """A row an encoder; what is undefined has its reason below."""
    columns = (
        Column("encoder"),
        *map(Column, ("dimension", "alignment", "uniformity")),
        Column("nearest centroid", "telling languages apart", apart=True),
        *(Column(name, "telling languages apart") for name in ("k nearest", "chance")),
    )
    rows = [_row(label, encoder) for label, encoder in geometry.encoders.items()]
    texts = geometry.texts
    parallel = "" if "alignment" in geometry.skipped else "parallel "
    notes = [
        f"{texts.vectors:,} vectors of {texts.groups:,} {parallel}texts ({texts.role}) in "
        f"{len(texts.languages)} languages of {', '.join(texts.collections)}; seed {texts.seed}.",
        "Alignment: mean squared distance between language versions of a text, 0 is best, 4 the most there "
        "can be. Uniformity: log mean exp(−2 distance²) over distinct pairs, lower is more even; the lower "
        "left corner of the plane is the best.",
        "Telling languages apart: cross-validated accuracy of guessing the language from the vector. At "
        "chance, vectors say nothing of their language.",
        *(f"On {what}: {why}." for what, why in geometry.skipped.items()),
    ]
    return Table(
        "geometry", "Geometry of the encoders", columns, [Part(rows)], list(map(Note, notes)), labels(results)
    )


def _row(label: str, encoder: Encoder) -> list[Cell]:
    probe = encoder.separability
    return [
        words(label),
        count(encoder.dimension),
        number(encoder.alignment),
        number(encoder.uniformity),
        number(probe.centroid if probe else None),
        number(probe.knn if probe else None),
        number(probe.chance if probe else None),
    ]


def geometry_details(results: Results, geometry: Geometry) -> Iterator[Table]:
    """Uniformity by language, alignment by pair, checkpoints: those that there are."""
    encoders = geometry.encoders
    uniform = {label: encoder.uniformity_per_language or {} for label, encoder in encoders.items()}
    pairs = {
        label: {(a, b): value for a, b, value in encoder.pair_alignment or ()}
        for label, encoder in encoders.items()
    }
    names = [Column(label) for label in encoders]
    languages = sorted({language for values in uniform.values() for language in values})
    if languages:
        rows = [
            [words(language), *(number(values.get(language)) for values in uniform.values())]
            for language in languages
        ]
        yield _table(
            results, "uniformity-by-language", "Uniformity by language", [Column("language"), *names], rows
        )
    both = sorted({pair for values in pairs.values() for pair in values})
    if both:
        rows = [
            [words(f"{a} – {b}"), *(number(values.get((a, b))) for values in pairs.values())] for a, b in both
        ]
        title = "Alignment by pair of languages"
        yield _table(results, "alignment-by-pair", title, [Column("languages"), *names], rows)
    for label, encoder in encoders.items():
        distances = encoder.centroid_distances
        if distances:
            rows = [
                [words(language), *map(number, row)]
                for language, row in zip(distances.languages, distances.distances, strict=True)
            ]
            columns = [Column("language"), *map(Column, distances.languages)]
            title = f"{label}: distances between the centroids of languages"
            yield _table(results, f"centroids {label}", title, columns, rows)
    for label, encoder in encoders.items():
        if encoder.trail:
            rows = [[count(one.step), number(one.alignment), number(one.uniformity)] for one in encoder.trail]
            columns = [Column("step"), Column("alignment"), Column("uniformity")]
            yield _table(
                results, f"checkpoints {label}", f"{label}: checkpoints of the training run", columns, rows
            )


def _table(results: Results, name: str, title: str, columns: list[Column], rows: list[list[Cell]]) -> Table:
    return Table(name, title, columns, [Part(rows)], (), labels(results))
