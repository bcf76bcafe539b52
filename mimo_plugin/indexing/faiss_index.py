"""From vector shards to one FAISS index file, inner product whatever the factory string."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.errors import ArtifactError, UsageError
from mimo_plugin.files import replacing
from mimo_plugin.indexing.manifest import Plan
from mimo_plugin.indexing.shards import Shards
from mimo_plugin.progress import bar

if TYPE_CHECKING:
    import numpy as np

# Vectors that an index is trained on at most; faiss itself uses 256 a centroid and fewer.
TRAINING_VECTORS = 200_000


def new_index(factory: str, dimension: int) -> Any:
    """An empty index.

    Raises:
        UsageError: FAISS does not know the factory string for this dimension, or not with inner product.
    """
    import faiss

    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UsageError(
            f"--factory {factory!r} with {dimension} dimensions is not a FAISS index: {reason(error)}; "
            "try Flat, SQ8, HNSW32, IVF256,Flat"
        ) from error
    # FAISS makes some kinds with L2 distance whatever metric it is asked for: best hits would come last.
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise UsageError(
            f"--factory {factory!r}: FAISS cannot build this kind with inner product; try HNSW32, "
            "HNSW32_SQ8, IVF256,PQ16, PQ16"
        )
    if isinstance(faiss.downcast_index(index), faiss.IndexIDMap):
        raise UsageError(f"--factory {factory!r}: docids are kept beside the index; leave IDMap out")
    return index


def write_index(
    path: Path, plan: Plan, shards: Shards, languages: Mapping[str, int], *, progress: bool | None = None
) -> None:
    """Trains the index if it needs that, adds every shard in order, and writes it to `path` at once.

    Raises:
        UsageError: FAISS cannot train the index on these vectors.
        EnvironmentProblem: the file cannot be written.
    """
    import faiss
    import numpy as np

    index = new_index(plan.factory, plan.dimension)
    if not index.is_trained:
        sample = training_sample(shards, languages, TRAINING_VECTORS, plan.seed)
        try:
            index.train(sample)
        except RuntimeError as error:
            raise UsageError(
                f"--factory {plan.factory!r} cannot be trained on {len(sample)} vectors: {reason(error)}"
            ) from error
    for shard in bar(range(len(shards)), what="indexing", unit="shards", enabled=progress):
        index.add(np.ascontiguousarray(shards.vectors(shard)))
    with replacing(path) as beside, beside.open("wb") as file:
        # Through Python's file, whose every error is seen; FAISS's own can lose what a full disk cuts off.
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write, 1 << 20))


def read_index(path: Path) -> Any:
    """Reads an index file.

    Raises:
        ArtifactError: FAISS cannot read it.
    """
    import faiss

    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise ArtifactError(
            f"{path} cannot be read by FAISS ({reason(error)}): build the index again"
        ) from error


def training_sample(shards: Shards, languages: Mapping[str, int], most: int, seed: int) -> "np.ndarray":
    """Vectors to train on, float32 (n, dimension), n <= most; the same for the same seed.

    Every language gives as many, or all that it has, so that no language's vectors alone shape the index.

    Args:
        languages: language -> its number of documents.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    wanted: dict[str, set[int]] = {}
    left = most
    # The smallest first: what a language cannot fill goes to the ones after it.
    for count, (lang, size) in enumerate(sorted(languages.items(), key=lambda item: item[1])):
        share = min(size, left // (len(languages) - count))
        wanted[lang] = set(generator.choice(size, size=share, replace=False).tolist())
        left -= share
    seen = dict.fromkeys(languages, 0)
    rows: list[np.ndarray] = []
    for shard in range(len(shards)):
        inside = []
        for row, (_, lang) in enumerate(shards.entries(shard)):
            if seen[lang] in wanted[lang]:
                inside.append(row)
            seen[lang] += 1
        rows.append(np.asarray(shards.vectors(shard)[inside]))
    return np.ascontiguousarray(np.concatenate(rows))


def reason(error: RuntimeError) -> str:
    """FAISS puts the C++ function and line before its reason."""
    return str(error).rsplit(": ", 1)[-1].strip()
