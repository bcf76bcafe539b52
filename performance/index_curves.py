"""Recall, size, build time and speed of indexes: what the presets of `mimo index --factory` rest on.

    python performance/index_curves.py path:performance/data/debian/dev
    python performance/index_curves.py mimo-sample --encoder packaged:multilingual-e5-small --queries 1000 \\
        --vectors 100000 1000000 --output performance/index_curves_million.json

Encodes the documents of the collections as one pool (into --work, where a second run finds them) and their
queries, builds each index with the code of `mimo index`, and measures build time, bytes of the file a vector,
queries per second in one FAISS call, and recall@100 against an exact search. efSearch and nprobe of the
presets are chosen as by `mimo index`, on every second query, and measured on the others; the choice that
documents in place of queries would have made is recorded beside it. Prints a table, writes JSON and a plot
beside it. Each finished index is kept in the JSON, and the same command goes on from there. --table adds the
passages of an aligned table (of `mimo data debian`), --queries takes a seeded sample.

Without --vectors the documents are indexed in a grid of the presets and what lies around them, and nDCG@20 is
measured, too. With --vectors only the presets are built, on as many vectors of the encoder's own distribution
as are asked for, since texts for a million are not at hand. They are drawn from a mixture of Gaussians: its
means and weights are the clusters that k-means finds among the documents, 40 documents each, its one
covariance is that of the documents around their means (Ledoit-Wolf; a cluster alone has too few documents for
hundreds of dimensions). So they have the encoder's narrow cone, its languages and topics, and within these
the few directions that matter. The queries are real, and lie beside the documents. What is lacking
is structure below a cluster: near-copies, translations of one text, dense and sparse regions. Many documents
are then almost as near as the nearest, which graphs and lists find hard: recall at a setting may differ from
that of real vectors, mostly downwards. Sizes do not depend on that, and times hardly.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from mimo_plugin.cli.generate import CommandWithLists, ListOption
from mimo_plugin.core.environment import git_commit, installed_versions, processor
from mimo_plugin.core.files import write_text
from mimo_plugin.core.table import Column, Table, number, render
from mimo_plugin.encoder.packaged import TEACHER
from mimo_plugin.evaluation.topics import Topics
from mimo_plugin.indexing.plan import foreign_plan
from mimo_plugin.indexing.vectors import VectorBatch, Vectors

HITS, CUTOFF, SHARD = 100, 20, 4096
PACKAGES = ("faiss-cpu", "mimo-plugin", "numpy")
FAMILIES = {
    "flat": "flat",
    "fp16": "scalar codes",
    "sq8": "scalar codes",
    "hnsw": "HNSW",
    "hnsw64": "HNSW",
    "ivf": "IVF",
    "ivfpq": "IVF-PQ",
}
# Points from a preset's marker to its name: graphs are named on the left, lists on the right.
LABELS = {
    "flat": (-10, 20),
    "fp16": (-10, 20),
    "sq8": (-10, 20),
    "hnsw": (-10, -34),
    "hnsw64": (-14, -22),
    "ivf": (12, 24),
    "ivfpq": (12, 20),
}
# Of k-means: 5,000 documents have 125 clusters.
DOCUMENTS_A_CLUSTER = 40
# Settings of a preset up to this multiple of the chosen one are drawn.
BEYOND = 4


@dataclass(frozen=True)
class Candidate:
    """Attributes:
    family: what it is drawn as.
    search: FAISS search parameters to look at; "" is as the index is.
    preset: its name, where it is one: then `search` is what lies around the chosen setting.
    """

    family: str
    factory: str
    parameters: str | None = None
    search: tuple[str, ...] = ("",)
    preset: str | None = None


@dataclass(frozen=True)
class Asked:
    """Queries of the pool: vectors, float32 (queries, dimension), ids (queries,), and all topics."""

    vectors: np.ndarray
    ids: list[str]
    topics: Topics

    def every_second(self, start: int) -> "Asked":
        return Asked(self.vectors[start::2], self.ids[start::2], self.topics)


class Mixture:
    """A mixture of Gaussians with one covariance, fitted to vectors; see the top of this file.

    Args:
        vectors: float32 (n, dimension).
    """

    def __init__(self, vectors: np.ndarray, seed: int) -> None:
        from sklearn.cluster import KMeans
        from sklearn.covariance import LedoitWolf

        clusters = max(len(vectors) // DOCUMENTS_A_CLUSTER, 1)
        found = KMeans(clusters, n_init=1, random_state=seed).fit(vectors)
        covariance = LedoitWolf(assume_centered=True).fit(vectors - found.cluster_centers_[found.labels_])
        self._means = found.cluster_centers_.astype(np.float32)
        self._weights = np.bincount(found.labels_, minlength=clusters) / len(vectors)
        self._root = np.linalg.cholesky(covariance.covariance_).T.astype(np.float32)

    def draw(self, count: int, seed: Sequence[int]) -> np.ndarray:
        """Unit vectors, float32 (count, dimension)."""
        generator = np.random.default_rng(seed)
        places = generator.choice(len(self._means), count, p=self._weights)
        noise = generator.standard_normal((count, self._means.shape[1]), dtype=np.float32)
        vectors = self._means[places] + noise @ self._root
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Drawn(Vectors):
    """Vectors of a mixture, made when they are asked for; the same for the same seed."""

    def __init__(self, mixture: Mixture, documents: int, dimension: int, seed: int) -> None:
        super().__init__(foreign_plan(("drawn",), "", documents, dimension, SHARD), [])
        self.languages = {"": documents}
        self._mixture = mixture
        self._seed = seed

    def __len__(self) -> int:
        return -(-self.plan.documents // SHARD)

    def batch(self, shard: int) -> VectorBatch:
        start, stop = shard * SHARD, min((shard + 1) * SHARD, self.plan.documents)
        docids = [f"d{row}" for row in range(start, stop)]
        return VectorBatch(docids, [""] * len(docids), self._mixture.draw(len(docids), (self._seed, shard)))


def grid(dimension: int, documents: int, *, only_presets: bool) -> Iterator[Candidate]:
    """The presets, and what lies around them."""
    from mimo_plugin.indexing.faiss import list_count, resolve
    from mimo_plugin.indexing.settings import PRESETS

    for preset in PRESETS:
        found = resolve(preset, dimension, documents)
        if found.note is None:
            yield Candidate(FAMILIES[preset], found.factory, found.parameters, preset=preset)
    if only_presets:
        return
    for factory in ("SQbf16", "SQ6", "SQ4"):
        yield Candidate("scalar codes", factory)
    widths = tuple(f"efSearch={width}" for width in (32, 64, 128, 256, 512))
    for links, effort in ((16, 200), (32, 40), (32, 200), (64, 200)):
        yield Candidate("HNSW", f"HNSW{links}", f"efConstruction={effort}", widths)
    yield Candidate("HNSW + scalar codes", "HNSW32_SQ8", "efConstruction=200", widths)
    lists = list_count(documents)
    for count in (lists // 4, lists):
        probes = tuple(f"nprobe={max(count // part, 1)}" for part in (64, 32, 16, 8, 4))
        yield Candidate("IVF", f"IVF{count},Flat", None, probes)
        yield Candidate("IVF-PQ", f"IVF{count},PQ{dimension // 4}np", None, probes)
    yield Candidate("IVF", f"IVF{lists},SQ8", None, probes)
    yield Candidate("IVF-PQ", f"IVF{lists},PQ{dimension // 2}np", None, probes)
    yield Candidate("IVF-PQ", f"IVF{lists},PQ{dimension // 8}np", None, probes)
    for size in (dimension // 8, dimension // 4):
        yield Candidate("OPQ + IVF-PQ", f"OPQ{size},IVF{lists},PQ{size}np", None, probes)


@click.command(cls=CommandWithLists)
@click.argument("collections", nargs=-1, required=True)
@click.option("--encoder", default=TEACHER, show_default=True)
@click.option("--max-length", type=int, help="In tokens.  [default: the checkpoint's own]")
@click.option("--table", type=click.Path(path_type=Path, exists=True), help="Of `mimo data debian`.")
@click.option("--queries", type=int, help="As many, seeded.  [default: all]")
@click.option("--vectors", cls=ListOption, type=int, help="Draw as many.  [default: index the documents]")
@click.option("--only", cls=ListOption, help="Presets and factory strings to look at.  [default: the grid]")
@click.option("--repeats", default=3, show_default=True, help="Of each search; the fastest counts.")
@click.option("--seed", default=42, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("performance/data/index_curves"))
@click.option("--output", type=click.Path(path_type=Path), default=Path("performance/index_curves.json"))
def main(
    collections: tuple[str, ...],
    encoder: str,
    max_length: int | None,
    table: Path | None,
    queries: int | None,
    vectors: tuple[int, ...],
    only: tuple[str, ...],
    repeats: int,
    seed: int,
    work: Path,
    output: Path,
) -> None:
    """Build indexes and measure their size, speed and recall."""
    real, asked = encoded(collections, encoder, max_length, table, queries, seed, work)
    dimension = real.plan.dimension
    setup = {
        "collections": list(collections),
        "table": table and str(table),
        "encoder": encoder,
        "max_length": max_length,
        "dimension": dimension,
        "queries": len(asked.ids),
        "seed": seed,
        "vectors": "drawn" if vectors else "documents",
    }
    record = begun(output, setup)
    sources: list[Vectors] = [real]
    if vectors:
        mixture = Mixture(np.concatenate([batch.vectors for batch in real.batches()]), seed)
        sources = [Drawn(mixture, count, dimension, seed) for count in vectors]
    for source in sources:
        documents = source.plan.documents
        chosen = [
            one
            for one in grid(dimension, documents, only_presets=bool(vectors))
            if not only or {one.preset, one.factory} & set(only)
        ]
        kept = {
            (row["documents"], row["preset"], row["factory"], row["parameters"]) for row in record["rows"]
        }
        left = [one for one in chosen if (documents, one.preset, one.factory, one.parameters) not in kept]
        click.echo(f"{documents:,} vectors: {len(chosen) - len(left)} of {len(chosen)} indexes are there")
        truth = exact(source, asked.every_second(1)) if left else None
        for candidate in left:
            record["rows"] += measured(candidate, source, asked, truth, repeats, seed, work, not vectors)
            write_text(output, json.dumps(record, indent=2) + "\n")
    click.echo(render([summary(record)], "markdown"))
    draw(record, output.with_suffix(".png"))


def begun(output: Path, setup: dict[str, Any]) -> dict[str, Any]:
    """The record of an earlier run with the same setup, or an empty one."""
    import faiss

    if output.is_file():
        record = json.loads(output.read_text(encoding="utf-8"))
        if record.get("setup") != setup:
            raise click.ClickException(f"{output} has curves of another setup: give another --output")
        return dict(record)
    return {
        "command": " ".join(["python", *sys.argv]),
        "setup": setup,
        "rows": [],
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": processor(),
            "faiss_threads": faiss.omp_get_max_threads(),
            "versions": installed_versions(PACKAGES),
            "git_commit": git_commit(Path(__file__).parent),
        },
    }


def exact(vectors: Vectors, asked: Asked) -> np.ndarray:
    """The documents of an exact search, (queries, HITS)."""
    import faiss
    from faiss.contrib.exhaustive_search import knn_ground_truth

    from mimo_plugin.indexing.faiss import matrix_products

    blocks = (batch.vectors for batch in vectors.batches())
    with matrix_products():
        return knn_ground_truth(asked.vectors, blocks, HITS, faiss.METRIC_INNER_PRODUCT, ngpu=0)[1]


def encoded(
    collections: Sequence[str],
    encoder: str,
    max_length: int | None,
    table: Path | None,
    most: int | None,
    seed: int,
    work: Path,
) -> tuple[Vectors, Asked]:
    """The vectors of the documents, kept in the work directory, and of the queries."""
    from mimo_plugin.collections.pool import load
    from mimo_plugin.encoder.encoder import Encoder
    from mimo_plugin.encoder.options import EncoderOptions
    from mimo_plugin.evaluation.topics import load_topics
    from mimo_plugin.indexing.encode import encode_collections
    from mimo_plugin.indexing.vectors import open_vectors

    work.mkdir(parents=True, exist_ok=True)
    specs = [*collections, *([f"path:{table_folder(table, work)}"] if table else [])]
    student = Encoder(encoder, EncoderOptions(max_length=max_length))
    pool = load(*specs)
    encode_collections(pool, student, work / "vectors")
    texts = [(query.query_id, query.text) for query in pool.queries_iter()]
    if most is not None and most < len(texts):
        kept = np.random.default_rng(seed).choice(len(texts), size=most, replace=False)
        texts = [texts[place] for place in sorted(kept.tolist())]
    vectors = student.encode_queries([text for _, text in texts])
    asked = Asked(vectors, [query_id for query_id, _ in texts], load_topics(pool))
    return open_vectors([work / "vectors"]), asked


def table_folder(table: Path, work: Path) -> Path:
    """The passages of an aligned table as a collection without queries."""
    from pyarrow import parquet

    folder = work / "table"
    folder.mkdir(exist_ok=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as lines:
        for file in sorted(table.glob("*.parquet")):
            for row in parquet.read_table(file, columns=["passage_id", "langs", "passages"]).to_pylist():
                for lang, text in zip(row["langs"], row["passages"], strict=True):
                    document = {"_id": f"{lang}:{row['passage_id']}", "text": text, "lang": lang}
                    lines.write(json.dumps(document, ensure_ascii=False) + "\n")
    return folder


def measured(
    candidate: Candidate,
    vectors: Vectors,
    asked: Asked,
    truth: np.ndarray,
    repeats: int,
    seed: int,
    work: Path,
    judged: bool,
) -> Iterator[dict[str, Any]]:
    """A row of figures for each of the candidate's search parameters.

    Args:
        truth: of every second query.
        judged: whether nDCG@20 can be measured.
    """
    from mimo_plugin.indexing.faiss import filled_index, matrix_products, set_parameters, write_index
    from mimo_plugin.indexing.open import IndexPlan
    from mimo_plugin.indexing.recall import tune

    path = work / "index"
    plan = IndexPlan.of(vectors.plan, candidate.factory, candidate.parameters, seed)
    began, cpu = time.perf_counter(), time.process_time()
    index = filled_index(plan, vectors)
    built = {
        "documents": vectors.plan.documents,
        "family": candidate.family,
        "preset": candidate.preset,
        "factory": candidate.factory,
        "parameters": candidate.parameters,
        "build_seconds": round(time.perf_counter() - began, 2),
        "build_cpu_seconds": round(time.process_time() - cpu, 2),
        "load_average": os.getloadavg(),
    }
    write_index(path, index)
    built["bytes_a_vector"] = round(path.stat().st_size / vectors.plan.documents, 1)
    path.unlink()
    searches, chosen = candidate.search, None
    if candidate.preset:
        by_documents = tune(index, vectors, None, seed)
        began = time.perf_counter()
        by_queries = tune(index, vectors, asked.every_second(0).vectors, seed)
        built["tuning_seconds"] = round(time.perf_counter() - began, 2)
        built["by_documents"] = by_documents and by_documents.model_dump()
        built["by_queries"] = by_queries and by_queries.model_dump()
        searches, chosen = around(index, by_queries)
    others = asked.every_second(1)
    for search in searches:
        if search:
            set_parameters(index, search, candidate.factory)
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            with matrix_products():
                scores, found = index.search(others.vectors, HITS)
            seconds.append(time.perf_counter() - began)
        row = {
            **built,
            "search": search or None,
            "chosen": search == chosen,
            "queries_a_second": round(len(others.ids) / min(seconds), 1),
            "recall@100": round(recall(found, truth), 4),
            "ndcg@20": round(ndcg(vectors, others, scores, found), 4) if judged else None,
        }
        click.echo(f"{row['factory']:>22} {search:>14} recall@100 {row['recall@100']:.4f}")
        yield row


def around(index: Any, found: Any) -> tuple[list[str], str]:
    """The search parameters of a preset's curve, and the chosen ones; "" where it has none.

    Args:
        found: a `Recall`; None for an exact index.
    """
    from mimo_plugin.indexing.recall import ladder

    if found is None or found.parameter is None:
        return [""], ""
    values = {value for value in ladder(index)[1][::2] if value <= BEYOND * found.value}
    named = [f"{found.parameter}={value}" for value in sorted({*values, found.value})]
    return named, f"{found.parameter}={found.value}"


def summary(record: dict[str, Any]) -> Table:
    """The presets with their chosen settings."""
    names = ("vectors", "bytes a vector", "build, s", "recall@100", "queries/s")
    columns = [Column("preset", text=True), Column("FAISS", text=True), *map(Column, names)]
    cells = [
        [
            row["preset"],
            ", ".join(filter(None, (row["factory"], row["search"]))),
            number(row["documents"], ",d"),
            number(row["bytes_a_vector"], ",.0f"),
            number(row["build_seconds"], ",.0f"),
            number(row["recall@100"]),
            number(row["queries_a_second"], ",.0f"),
        ]
        for row in record["rows"]
        if row["preset"] and row["chosen"]
    ]
    return Table.of("Presets", columns, cells)


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of the flat index's hits that were found, mean over queries."""
    shares = [len(np.intersect1d(one, other)) / len(other) for one, other in zip(found, truth, strict=True)]
    return float(np.mean(shares))


def ndcg(vectors: Vectors, asked: Asked, scores: np.ndarray, found: np.ndarray) -> float:
    """Mean nDCG@20 over the judged topics among the queries."""
    from mimo_plugin.evaluation.measures import parse_measures, score_run
    from mimo_plugin.evaluation.runs import Ranking, Run

    docids = np.array([docid.encode() for batch in vectors.batches() for docid in batch.docids])
    run = {}
    for query_id, row, values in zip(asked.ids, found[:, :CUTOFF], scores[:, :CUTOFF], strict=True):
        run[query_id] = Ranking(docids[row[row >= 0]], values[row >= 0])
    (measure,) = parse_measures([f"ndcg@{CUTOFF}"])
    per_topic = score_run(Run("run", run), asked.topics, [measure]).per_topic[measure]
    there = np.isin(asked.topics.query_ids, asked.ids)
    return float(per_topic[there].mean())


def draw(record: dict[str, Any], path: Path) -> None:
    """Recall against queries per second, a panel per size; the area of a marker is the size of the index."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    sizes = sorted({row["documents"] for row in record["rows"]})
    families = list(dict.fromkeys(row["family"] for row in record["rows"]))
    figure, panels = plt.subplots(
        1, len(sizes), figsize=(9 * len(sizes), 6), layout="constrained", squeeze=False, sharey=True
    )
    for axes, size in zip(panels[0], sizes, strict=True):
        _panel(axes, [row for row in record["rows"] if row["documents"] == size], families)
        axes.set_title(f"{size:,} x {record['setup']['dimension']} dimensions; area: bytes a vector")
    threads = record["environment"]["faiss_threads"]
    panels[0, 0].set_ylabel(f"queries per second, {threads} thread{'s' if threads > 1 else ''}")
    panels[0, 0].legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _panel(axes: Any, rows: Sequence[dict[str, Any]], families: Sequence[str]) -> None:
    from mimo_plugin.report.maps import look

    for place, family in enumerate(families):
        color = look(place)["color"]
        mine = [row for row in rows if row["family"] == family]
        for kind in dict.fromkeys((row["factory"], row["parameters"]) for row in mine):
            points = [row for row in mine if (row["factory"], row["parameters"]) == kind]
            across = [row["recall@100"] for row in points]
            up = [row["queries_a_second"] for row in points]
            axes.plot(across, up, color=color, linewidth=0.7, alpha=0.5)
            areas = [row["bytes_a_vector"] / 8 for row in points]
            axes.scatter(across, up, s=areas, color=color, alpha=0.5, linewidths=0)
        if mine:
            axes.scatter([], [], s=40, color=color, label=family)
    chosen = [row for row in rows if row["preset"] and row["chosen"]]
    for row in chosen:
        right, up = LABELS[row["preset"]]
        axes.annotate(
            row["preset"],
            (row["recall@100"], row["queries_a_second"]),
            textcoords="offset points",
            xytext=(right, up),
            ha="left" if right > 0 else "right",
            fontsize=8,
            fontweight="bold",
            arrowprops={"arrowstyle": "-", "linewidth": 0.8},
        )
    # Most of what matters lies close to 1.
    axes.set_xscale(
        "function", functions=(lambda x: -np.log10(1.005 - np.minimum(x, 1.004)), lambda y: 1.005 - 10.0**-y)
    )
    low = min(row["recall@100"] for row in rows)
    ticks = [tick for tick in (0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0) if tick >= low - 0.1]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(low - 0.02, 1.001)
    axes.set_yscale("log")
    # Room for a name below the lowest point.
    axes.set_ylim(bottom=min(row["queries_a_second"] for row in rows) / 2)
    axes.set_xlabel("recall@100 against flat")
    axes.grid(alpha=0.3, which="both", linewidth=0.4)


if __name__ == "__main__":
    main()
