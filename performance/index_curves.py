"""Recall, size and speed of indexes on real vectors: what the presets of `mimo index --factory` rest on.

    python performance/index_curves.py path:performance/data/debian/dev

Encodes the documents of the collections as one pool (into --work, where a second run finds them) and their
queries, builds each index of a grid with the code of `mimo index`, and measures bytes of the
file a vector, build time, queries per second in one FAISS call, recall@100 against flat, and nDCG@20. Writes
JSON, and a plot beside it. --table adds the passages of an aligned table (of `mimo data debian`) as further
documents, --queries takes a seeded sample of the queries.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mimo_plugin.cli.generate import CommandWithLists, ListOption
from mimo_plugin.core.environment import git_commit, installed_versions
from mimo_plugin.encoder.packaged import TEACHER

if TYPE_CHECKING:
    import numpy as np

    from mimo_plugin.evaluation.topics import Topics
    from mimo_plugin.indexing.vectors import Vectors

HITS, CUTOFF = 100, 20
PACKAGES = ("faiss-cpu", "mimo-plugin", "numpy")
FAMILIES = ("flat", "scalar codes", "HNSW", "IVF", "IVF-PQ", "OPQ + IVF-PQ", "HNSW + scalar codes")


@dataclass(frozen=True)
class Candidate:
    """Attributes:
    family: what it is drawn as.
    search: FAISS search parameters to look at; "" is as the index is.
    preset: its name, where it is one.
    """

    family: str
    factory: str
    parameters: str | None = None
    search: tuple[str, ...] = ("",)
    preset: str | None = None


@dataclass(frozen=True)
class Asked:
    """The queries of the pool.

    Attributes:
        vectors: float32 (queries, dimension).
        ids: (queries,)
    """

    vectors: "np.ndarray"
    ids: list[str]
    topics: "Topics"


def grid(dimension: int, documents: int) -> Iterator[Candidate]:
    """The presets and what lies around them."""
    from mimo_plugin.indexing.faiss import list_count, resolve
    from mimo_plugin.indexing.settings import PRESETS

    families = {
        "flat": "flat",
        "fp16": "scalar codes",
        "sq8": "scalar codes",
        "hnsw": "HNSW",
        "ivfpq": "IVF-PQ",
    }
    for preset in PRESETS:
        found = resolve(preset, dimension, documents)
        if found.note is None:
            yield Candidate(families[preset], found.factory, found.parameters, preset=preset)
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
    only: tuple[str, ...],
    repeats: int,
    seed: int,
    work: Path,
    output: Path,
) -> None:
    """Build indexes of the collections' documents and measure their size, speed and recall."""
    import faiss

    vectors, asked = encoded(collections, encoder, max_length, table, queries, seed, work)
    plan = vectors.plan
    click.echo(f"{plan.documents} documents, {len(asked.ids)} queries, {plan.dimension} dimensions")
    chosen = [
        candidate
        for candidate in grid(vectors.plan.dimension, vectors.plan.documents)
        if not only or {candidate.preset, candidate.factory} & set(only)
    ]
    rows: list[dict[str, Any]] = []
    truth = None
    for candidate in sorted(chosen, key=lambda candidate: candidate.preset != "flat"):
        for row, found in measured(candidate, vectors, asked, repeats, seed, work):
            truth = found if truth is None else truth
            row["recall@100"] = round(recall(found, truth), 4)
            rows.append(row)
            click.echo(
                f"{row['preset'] or '':>6} {row['factory']:>22} {row['search'] or '':>14} "
                f"{row['bytes_a_vector']:7.1f} B {row['build_seconds']:7.1f} s "
                f"{row['queries_a_second']:9.0f} q/s recall {row['recall@100']:.4f} nDCG {row['ndcg@20']:.4f}"
            )
    record = {
        "command": " ".join(["python", *sys.argv]),
        "documents": vectors.plan.documents,
        "queries": len(asked.ids),
        "dimension": vectors.plan.dimension,
        "languages": vectors.languages,
        "encoder": vectors.plan.encoder,
        "rows": rows,
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "faiss_threads": faiss.omp_get_max_threads(),
            "load_average": os.getloadavg(),
            "versions": installed_versions(PACKAGES),
            "git_commit": git_commit(Path(__file__).parent),
        },
    }
    output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draw(record, output.with_suffix(".png"))


def encoded(
    collections: Sequence[str],
    encoder: str,
    max_length: int | None,
    table: Path | None,
    most: int | None,
    seed: int,
    work: Path,
) -> tuple["Vectors", Asked]:
    """The vectors of the documents, kept in the work directory, and of the queries."""
    import numpy as np

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
    candidate: Candidate, vectors: "Vectors", asked: Asked, repeats: int, seed: int, work: Path
) -> Iterator[tuple[dict[str, Any], "np.ndarray"]]:
    """A row of figures for each of the candidate's search parameters, and the rows that it found."""
    import faiss

    from mimo_plugin.indexing.faiss import matrix_products, read_index, write_index
    from mimo_plugin.indexing.open import IndexPlan

    path = work / "index"
    plan = IndexPlan.of(vectors.plan, candidate.factory, candidate.parameters, seed)
    began, cpu = time.perf_counter(), time.process_time()
    write_index(path, plan, vectors)
    built = {
        "family": candidate.family,
        "preset": candidate.preset,
        "factory": candidate.factory,
        "parameters": candidate.parameters,
        "build_seconds": round(time.perf_counter() - began, 2),
        "build_cpu_seconds": round(time.process_time() - cpu, 2),
        "bytes_a_vector": round(path.stat().st_size / vectors.plan.documents, 1),
    }
    index = read_index(path)
    path.unlink()
    for search in candidate.search:
        if search:
            faiss.ParameterSpace().set_index_parameters(index, search)
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            with matrix_products():
                scores, found = index.search(asked.vectors, HITS)
            seconds.append(time.perf_counter() - began)
        row = {**built, "search": search or None, "queries_a_second": round(len(asked.ids) / min(seconds), 1)}
        row["ndcg@20"] = round(ndcg(vectors, asked, scores, found), 4)
        yield row, found


def recall(found: "np.ndarray", truth: "np.ndarray") -> float:
    """The share of the flat index's hits that were found, mean over queries."""
    import numpy as np

    shares = [len(np.intersect1d(one, other)) / len(other) for one, other in zip(found, truth, strict=True)]
    return float(np.mean(shares))


def ndcg(vectors: "Vectors", asked: Asked, scores: "np.ndarray", found: "np.ndarray") -> float:
    """Mean nDCG@20 over the judged topics among the queries."""
    import numpy as np

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
    """Recall against queries per second; the area of a marker is the size of the index."""
    import matplotlib as mpl

    mpl.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    from mimo_plugin.report.maps import look

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    for number, family in enumerate(FAMILIES):
        rows = [row for row in record["rows"] if row["family"] == family]
        color = look(number)["color"]
        for kind in dict.fromkeys((row["factory"], row["parameters"]) for row in rows):
            points = [row for row in rows if (row["factory"], row["parameters"]) == kind]
            across = [row["recall@100"] for row in points]
            up = [row["queries_a_second"] for row in points]
            axes.plot(across, up, color=color, linewidth=0.7, alpha=0.5)
            areas = [row["bytes_a_vector"] / 8 for row in points]
            axes.scatter(across, up, s=areas, color=color, alpha=0.5, linewidths=0)
        if rows:
            axes.scatter([], [], s=40, color=color, label=family)
    for row in record["rows"]:
        if row["preset"]:
            axes.annotate(
                f"{row['preset']}, {row['bytes_a_vector']:.0f} B",
                (row["recall@100"], row["queries_a_second"]),
                textcoords="offset points",
                xytext=(-8, 14),
                ha="right",
                fontweight="bold",
                arrowprops={"arrowstyle": "-", "linewidth": 0.8},
            )
    # Most of what matters lies close to 1.
    axes.set_xscale(
        "function", functions=(lambda x: -np.log10(1.005 - np.minimum(x, 1.004)), lambda y: 1.005 - 10.0**-y)
    )
    low = min(row["recall@100"] for row in record["rows"])
    ticks = [tick for tick in (0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0) if tick >= low - 0.1]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(low - 0.02, 1.001)
    axes.set_yscale("log")
    axes.set_xlabel("recall@100 against flat")
    threads = record["environment"]["faiss_threads"]
    axes.set_ylabel(f"queries per second, {threads} thread{'s' if threads > 1 else ''}")
    axes.set_title(
        f"{record['documents']:,} documents x {record['dimension']} dimensions; area: bytes a vector",
        fontsize=10,
    )
    axes.grid(alpha=0.3, which="both", linewidth=0.4)
    axes.legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
