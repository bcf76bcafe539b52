"""A fusion of systems that have a run already."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.data.identity import identity_key
from mimo_plugin.evaluation.runs import write_run
from mimo_plugin.manifests import FileRecord
from mimo_plugin.reproduction.made import MadeRun, RunPlace

if TYPE_CHECKING:
    import numpy as np

    from mimo_plugin.benchmarks.schema import Fusion


def fuse(name: str, fusion: "Fusion", parts: Mapping[str, MadeRun], output: Path, depth: int) -> MadeRun:
    """Fuses runs, or returns the fusion that is there already.

    Args:
        parts: the runs by name, in the order of the weights.
        depth: hits a query.
    """
    from mimo_plugin.evaluation.fusion import FusionOptions, fused_queries, fusion_warnings
    from mimo_plugin.evaluation.run_reader import read_run

    place = RunPlace(output, name)
    key = identity_key(
        {
            "parts": {part: made.run.sha256 for part, made in parts.items()},
            "fusion": fusion.model_dump(mode="json"),
            "depth": depth,
            "name": name,
        }
    )
    if (made := place.finished(key)) is not None:
        return made
    began = time.perf_counter()
    runs = [read_run(RunPlace(output, part).file, part) for part in parts]
    options = FusionOptions(fusion.method, fusion.k, fusion.norm, fusion.weights)
    queries = 0

    def fused() -> Iterator[tuple[str, list[str], "np.ndarray"]]:
        nonlocal queries
        for query_id, found in fused_queries(runs, options, hits=depth):
            queries += 1
            yield query_id, [docid.decode() for docid in found.docids.tolist()], found.scores

    lines = write_run(place.file, fused(), name)
    return place.finish(
        MadeRun(
            system=name,
            key=key,
            seconds={"fusion": round(time.perf_counter() - began, 3)},
            queries=queries,
            lines=lines,
            run=FileRecord.of(place.file),
            details=fusion.model_dump(mode="json"),
            warnings=tuple(f"fusion {name!r}: {warning}" for warning in fusion_warnings(runs)),
        )
    )
