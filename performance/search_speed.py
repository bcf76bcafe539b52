"""`mimo search` beside plain FAISS calls on the same index.

    python performance/search_speed.py --documents 1000000

Synthetic unit vectors with some 32 directions that matter, as embeddings have, are indexed with the code of
`mimo index --factory flat` and `hnsw`. Then the same queries are searched, in turn, by one plain FAISS call
for all of them; by `search`, which cuts them into batches, settles ties and looks up docids; and by `search`
into a TREC run. With --encoder texts are encoded first, on both sides. The ratio that counts is the time of
ours over plain, the fastest of each; where a machine's own noise is larger than that, the processor time of a
search over that of its own FAISS calls. Writes queries per second and recall against flat as JSON.
"""

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from mimo_plugin.cli.generate import CommandWithLists, ListOption
from mimo_plugin.core.environment import git_commit, installed_versions, processor
from mimo_plugin.encoder.packaged import TEACHER
from mimo_plugin.indexing.plan import EncodingPlan
from mimo_plugin.indexing.vectors import VectorBatch, Vectors

if TYPE_CHECKING:
    from mimo_plugin.indexing.open import Index

PACKAGES = ("faiss-cpu", "mimo-plugin", "numpy")
SHARD = 4096


class Synthetic(Vectors):
    """Seeded vectors, made when they are asked for; the same for the same seed and dimension."""

    def __init__(self, documents: int, dimension: int, seed: int) -> None:
        super().__init__(_plan(documents, dimension), [])
        self.languages = {"en": documents}
        self._seed = seed
        self._axes = np.random.default_rng(seed).standard_normal((32, dimension)).astype(np.float32)

    def __len__(self) -> int:
        return -(-self.plan.documents // SHARD)

    def batch(self, shard: int) -> VectorBatch:
        start, stop = shard * SHARD, min((shard + 1) * SHARD, self.plan.documents)
        docids = [f"{number // 7}#{number % 7}" for number in range(start, stop)]
        return VectorBatch(docids, ["en"] * len(docids), self.some(stop - start, shard))

    def some(self, count: int, number: int) -> np.ndarray:
        """Vectors of the kind, float32 (count, dimension)."""
        generator = np.random.default_rng((self._seed, number))
        latent = generator.standard_normal((count, len(self._axes)), dtype=np.float32)
        vectors = latent @ self._axes
        vectors += generator.standard_normal(vectors.shape, dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


class Encoded:
    """Stands for an encoder whose work is done: a query's text is the number of its vector."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        return self._vectors[[int(text) for text in texts]]


@click.command(cls=CommandWithLists)
@click.option("--documents", default=1_000_000, show_default=True)
@click.option("--dimension", default=384, show_default=True)
@click.option("--queries", default=2000, show_default=True)
@click.option("--hits", default=100, show_default=True)
@click.option("--factory", cls=ListOption, default=("flat", "hnsw"), show_default=True)
@click.option("--encoder", help=f"Encode real texts too, e.g. {TEACHER}; its dimension must be the same.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), help="Keeps the indexes.  [default: nowhere]")
@click.option("--output", type=click.Path(path_type=Path), default=Path("performance/search_speed.json"))
def main(
    documents: int,
    dimension: int,
    queries: int,
    hits: int,
    factory: tuple[str, ...],
    encoder: str | None,
    repeats: int,
    seed: int,
    work: Path | None,
    output: Path,
) -> None:
    """Measure what `mimo search` adds to FAISS."""
    import faiss

    from mimo_plugin.indexing.build import index_vectors
    from mimo_plugin.indexing.open import open_index
    from mimo_plugin.indexing.settings import IndexOptions

    synthetic = Synthetic(documents, dimension, seed)
    asked = synthetic.some(queries, len(synthetic))
    rows = []
    truth: np.ndarray | None = None
    with tempfile.TemporaryDirectory() as temporary:
        place = work or Path(temporary)
        for kind in factory:
            began = time.perf_counter()
            built = index_vectors(synthetic, place / kind, IndexOptions(factory=kind))
            seconds = None if built.already else round(time.perf_counter() - began, 1)
            index = open_index(place / kind)
            found = index.faiss.search(asked, hits)[1]
            truth = found if truth is None else truth
            row = {
                "factory": kind,
                "faiss": index.manifest.plan.factory,
                "parameters": index.manifest.plan.parameters,
                "build_seconds": seconds,
                "bytes_a_vector": round(index.manifest.files["index"].bytes / documents, 1),
                f"recall@{hits}_against_{factory[0]}": _recall(found, truth),
                "measured": {
                    "vectors": compared(index, Encoded(asked), _numbers(queries), hits, repeats, place)
                },
            }
            if encoder:
                row["measured"]["texts"] = _with_encoder(encoder, index, queries, hits, repeats, place)
            rows.append(row)
            for what, measured in row["measured"].items():
                click.echo(
                    f"{kind} from {what}: "
                    + ", ".join(f"{name} {value:.4g}" for name, value in measured.items())
                )
    record = {
        "command": " ".join(["python", *sys.argv]),
        "documents": documents,
        "dimension": dimension,
        "queries": queries,
        "hits": hits,
        "encoder": encoder,
        "rows": rows,
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": processor(),
            "faiss_threads": faiss.omp_get_max_threads(),
            "load_average": os.getloadavg(),
            "versions": installed_versions(PACKAGES),
            "git_commit": git_commit(Path(__file__).parent),
        },
    }
    output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def compared(
    index: "Index", student: Any, queries: list[tuple[str, str]], hits: int, repeats: int, place: Path
) -> dict[str, float]:
    """Queries per second of each way, and the time of ours over that of plain FAISS."""
    from mimo_plugin.evaluation.runs import write_run
    from mimo_plugin.indexing.search import find_hits

    def plain() -> None:
        index.faiss.search(student.encode_queries([text for _, text in queries]), hits)

    def ours() -> None:
        for _ in find_hits([index], student, queries, hits=hits):
            pass

    def run() -> None:
        write_run(place / "run.trec", find_hits([index], student, queries, hits=hits), "mimo")

    ways: dict[str, Callable[[], None]] = {"plain": plain, "search": ours, "run": run}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    # In turn, so that whatever else the machine does falls on all of them.
    for _ in range(repeats):
        for name, way in ways.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            way()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - cpu_began)
    return {
        **{f"{name}_queries_a_second": round(len(queries) / min(wall[name]), 1) for name in ways},
        **{f"{name}_over_plain": _ratio(wall, name) for name in ("search", "run")},
        **{f"{name}_over_plain_cpu": _ratio(cpu, name) for name in ("search", "run")},
        "search_over_its_faiss_calls": _over_its_faiss_calls(index, ours),
    }


def _over_its_faiss_calls(index: "Index", search: Callable[[], None]) -> float:
    """Processor time of a search over that of the FAISS calls in it: no two runs of FAISS are compared.

    Right for one thread alone, which is what FAISS uses with OMP_NUM_THREADS=1.
    """
    real, inside = index.faiss.search, 0.0

    def timed(*arguments: Any) -> Any:
        nonlocal inside
        began = time.thread_time()
        found = real(*arguments)
        inside += time.thread_time() - began
        return found

    index.faiss.search = timed
    try:
        began = time.process_time()
        search()
        return round((time.process_time() - began) / inside, 4)
    finally:
        index.faiss.search = real


def _ratio(seconds: dict[str, list[float]], name: str) -> float:
    return round(min(seconds[name]) / min(seconds["plain"]), 4)


def _with_encoder(
    encoder: str, index: "Index", queries: int, hits: int, repeats: int, place: Path
) -> dict[str, float]:
    from mimo_plugin.collections.pool import load
    from mimo_plugin.encoder.encoder import Encoder

    texts = [query.text for query in load("mimo-sample").queries_iter()]
    asked = [(f"q{number}", text) for number, text in enumerate(islice(cycle(texts), queries))]
    return compared(index, Encoder(encoder), asked, hits, repeats, place)


def _numbers(count: int) -> list[tuple[str, str]]:
    return [(f"q{number}", str(number)) for number in range(count)]


def _recall(found: np.ndarray, truth: np.ndarray) -> float:
    shares = [len(np.intersect1d(one, other)) / len(other) for one, other in zip(found, truth, strict=True)]
    return round(float(np.mean(shares)), 4)


def _plan(documents: int, dimension: int) -> EncodingPlan:
    return EncodingPlan(
        collections=("synthetic",),
        prefixes=None,
        fields=None,
        collection_fingerprint="synthetic",
        collection_documents=documents,
        documents=documents,
        shard=None,
        encoder="",
        encoder_fingerprint="",
        dimension=dimension,
        prompt="",
        max_length=None,
        device="",
        dtype="",
        backend="",
        pooling=None,
        normalize=None,
        batch_size=None,
        shard_size=SHARD,
        versions={},
    )


if __name__ == "__main__":
    main()
