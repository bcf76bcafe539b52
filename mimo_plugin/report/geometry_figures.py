"""Figures of alignment and uniformity, and of the language mix."""

from collections.abc import Iterator, Sequence
from functools import partial
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mimo_plugin.core.files import make_parent, replacing
from mimo_plugin.evaluation.language import language_mix
from mimo_plugin.evaluation.measures import parse_measures, score_run
from mimo_plugin.evaluation.results import BenchmarkResults, EncoderResult, GeometryResult
from mimo_plugin.evaluation.runs import read_run
from mimo_plugin.evaluation.topics import load_topics, open_pool
from mimo_plugin.report.figures import Figure
from mimo_plugin.report.tables import FileNames, labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def geometry_figures(
    results: BenchmarkResults, geometry: GeometryResult, files: FileNames
) -> Iterator[Figure]:
    """The plane of all encoders; of each encoder its projection, centroids and pairs of languages."""
    if any(
        encoder.alignment is not None and encoder.uniformity is not None
        for encoder in geometry.encoders.values()
    ):
        trails = any(encoder.trail for encoder in geometry.encoders.values())
        yield Figure(
            name=files.of("plane"),
            title="Alignment and uniformity",
            caption="Each point is an encoder; lower left is better."
            + (
                " A line with small points leads through the checkpoints of its training run."
                if trails
                else ""
            ),
            description=" ".join(map(_placed, geometry.encoders.items())),
            draw=partial(_draw, results, "draw_plane"),
            labels=labels(results),
        )
    for label, encoder in geometry.encoders.items():
        yield from _of_encoder(results, label, encoder, files)


def _placed(item: tuple[str, EncoderResult]) -> str:
    label, encoder = item
    if encoder.alignment is None or encoder.uniformity is None:
        return f"{label}: not defined."
    return f"{label}: alignment {encoder.alignment:.4f}, uniformity {encoder.uniformity:.4f}."


def _of_encoder(
    results: BenchmarkResults, label: str, encoder: EncoderResult, files: FileNames
) -> Iterator[Figure]:
    projection = encoder.projection
    if projection is not None and projection.points:
        explained = " and ".join(f"{100 * share:.1f} %" for share in projection.explained)
        yield Figure(
            name=files.of("projection", label),
            title=f"{label}: vectors of parallel texts in two dimensions",
            caption=(
                f"{label}: vectors of parallel texts on two axes ({projection.method}), which hold "
                f"{explained} of the variance: little of it can be seen here. Colour, mark and name: "
                "language. Where languages lie apart, the encoder tells them apart."
            ),
            description=f"{len(projection.points):,} points in {len(projection.languages)} languages.",
            draw=partial(_draw, results, "draw_projection", label),
            labels=labels(results),
        )
    distances = encoder.centroid_distances
    if distances is not None and len(distances.languages) > 1:
        pairs = [
            (value, f"{a} and {b}")
            for row, a in enumerate(distances.languages)
            for value, b in zip(distances.distances[row][:row], distances.languages[:row], strict=True)
            if value is not None
        ]
        yield Figure(
            name=files.of("centroids", label),
            title=f"{label}: distances between languages",
            caption=f"{label}: distances between the mean vectors of languages; 0 where they are the same.",
            description=_ends(pairs),
            draw=partial(_draw, results, "draw_centroids", label),
            labels=labels(results),
        )
    aligned = [(value, f"{a} and {b}") for a, b, value in encoder.pair_alignment or () if value is not None]
    if aligned:
        yield Figure(
            name=files.of("pair alignment", label),
            title=f"{label}: alignment of each pair of languages",
            caption=f"{label}: mean squared distance between the two versions of a text. 0 is best.",
            description=_ends(aligned),
            draw=partial(_draw, results, "draw_pair_alignment", label),
            labels=labels(results),
        )


def _ends(pairs: list[tuple[float, str]]) -> str:
    if not pairs:
        return "No pair has a value."
    (low, nearest), (high, farthest) = min(pairs), max(pairs)
    return f"Lowest {low:.4f}, {nearest}; highest {high:.4f}, {farthest}."


def _draw(results: BenchmarkResults, picture: str, *label: str) -> "Canvas":
    from mimo_plugin.report import maps as pictures

    geometry = results.geometry.model_dump(mode="json") if results.geometry else {}
    canvas: Canvas = getattr(pictures, picture)(geometry, *label)
    return canvas


_CUTOFF = 20
_NORMAL_95 = 1.96


def draw_systems(runs: Sequence[Path], collections: Sequence[str], output: Path) -> None:
    """Draws, as a PNG, each run's nDCG@20 with a 95 % interval, and the share of its first 20 hits that are
    in the query's own language, next to the share where languages play no part.

    The interval is the normal one over topics; versions of one topic in several languages count once.

    Raises:
        DataError: a run or the collections cannot be read.
    """
    from matplotlib.figure import Figure

    pool = open_pool(collections)
    topics = load_topics(pool)
    doc_langs = {doc.doc_id: doc.lang for doc in pool.docs_iter()}
    (measure,) = parse_measures([f"ndcg@{_CUTOFF}"])
    names, means, errors, own = [], [], [], []
    for path in runs:
        run = read_run(path, path.stem)
        scores = score_run(run, topics, [measure]).per_topic[measure]
        blocks = np.bincount(topics.block_of, scores) / np.bincount(topics.block_of)
        names.append(path.stem)
        means.append(scores.mean())
        errors.append(_NORMAL_95 * blocks.std(ddof=1) / np.sqrt(len(blocks)) if len(blocks) > 1 else 0.0)
        own.append(language_mix(run, topics.query_languages, doc_langs, _CUTOFF).own)
    even = _even_share(topics.counts, list(doc_langs.values()))

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    quality, mix = figure.subplots(1, 2)
    colors = [f"C{number}" for number in range(len(names))]
    quality.bar(names, means, yerr=errors, color=colors, capsize=4)
    quality.set_ylabel(f"nDCG@{_CUTOFF} (0 to 1)")
    quality.set_title(f"Quality: {len(topics.query_ids):,} queries, {len(topics.languages)} languages")
    mix.bar(names, own, color=colors)
    mix.axhline(even, color="0.3", linestyle="--", linewidth=1, label=f"languages mixed evenly: {even:.2f}")
    mix.legend(frameon=False, fontsize="small", loc="upper left")
    mix.set_ylim(0, 1)
    mix.set_ylabel(f"share of the first {_CUTOFF} hits")
    mix.set_title("Hits in the query's own language")
    for axes in (quality, mix):
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    make_parent(output)
    with replacing(output) as beside:
        figure.savefig(beside, format="png", dpi=130, metadata={"Software": None})


def _even_share(topics: dict[str, int], documents: Sequence[str]) -> float:
    """The share of own-language hits if hits were drawn from all documents alike, over the topics."""
    languages, counts = np.unique(documents, return_counts=True)
    share = dict(zip(languages.tolist(), (counts / counts.sum()).tolist(), strict=True))
    own = fsum(number * share.get(language, 0.0) for language, number in topics.items())
    return own / sum(topics.values())
