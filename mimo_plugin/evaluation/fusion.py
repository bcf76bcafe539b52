"""Fusion of runs: reciprocal ranks, or a weighted sum of normalised scores."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.core.files import check_outputs
from mimo_plugin.evaluation.ir_metadata import run_header
from mimo_plugin.evaluation.options import FusionMethod, FusionOptions, Normalization
from mimo_plugin.evaluation.runs import (
    Ranking,
    Run,
    decoded,
    read_run,
    run_files,
    run_problems,
    trec_order,
    write_run,
)

DEFAULT_K = 60
_NAMED = 3

Values = NDArray[np.float64]


def fused_queries(runs: Sequence[Run], options: FusionOptions | None = None) -> Iterator[tuple[str, Ranking]]:
    """Yields query id and fused hits, a query at a time in the order of first appearance.

    A document's score is the sum over runs of weight x contribution.

    rrf: 1 / (k + rank), ranks from 1 in trec_eval's order (Cormack, Clarke and Buettcher, SIGIR 2009). A
    document that a run lacks gets nothing from it.

    sum: scores, per run and query scaled to [0, 1] by min-max, or to mean 0 and standard deviation 1 by z, or
    as they are. A document that a run lacks gets the contribution of the run's last document (as in
    Pyserini's hybrid search). Zero would be the mean under z, better than half of the run's own hits. If all
    scores are equal, min-max makes them 1 and z makes them 0; with min-max, missing documents stay at 0 (as
    in Pyserini's fusion).

    A run without a query does not count for it. Contributions are added in float64 from small to large, so
    that the order of runs changes no bit. Sums are rounded to float32, as trec_eval reads them, and ties are
    in its order.

    Raises:
        UsageError: the options do not make sense for these runs.
        DataError: two runs share no query; a fused score is beyond float32's range.
    """
    options = options or FusionOptions()
    problems = Problems()
    problems.extend(options.problems(len(runs)), UsageError)
    problems.raise_any()
    problems.extend(_strangers(runs))
    problems.raise_any()
    weights = options.weights or (1.0,) * len(runs)
    for query_id in dict.fromkeys(query_id for run in runs for query_id in run.queries):
        lists = [
            (run.queries[query_id], weight)
            for run, weight in zip(runs, weights, strict=True)
            if query_id in run.queries
        ]
        fused = _fuse([ranking for ranking, _ in lists], [weight for _, weight in lists], options)
        if not np.all(np.isfinite(fused.scores)):
            raise DataError(
                f"query {query_id!r}: a fused score is beyond float32's range: use smaller weights, or "
                "min-max normalised scores"
            )
        yield query_id, fused


def fusion_warnings(runs: Sequence[Run]) -> list[str]:
    """Warnings about the runs: queries that only some have, no document in common."""
    warnings = []
    every = set().union(*(run.queries for run in runs))
    for run in runs:
        missing = sorted(every - run.queries.keys())
        if missing:
            shown = ", ".join(islice(missing, _NAMED)) + (", ..." if len(missing) > _NAMED else "")
            warnings.append(
                f"run {run.name!r} lacks {len(missing)} of {len(every)} queries ({shown}): there the other "
                "runs decide alone"
            )
    for one, other in combinations(runs, 2):
        if not _common_document(one, other):
            warnings.append(
                f"runs {one.name!r} and {other.name!r} have no document in common in any query: are their "
                "docids of one collection, with the same prefixes?"
            )
    return warnings


def _strangers(runs: Sequence[Run]) -> Iterator[str]:
    """A problem for each two runs without a common query."""
    for one, other in combinations(runs, 2):
        if one.queries.keys().isdisjoint(other.queries):
            examples = [next(iter(run.queries), "none") for run in (one, other)]
            yield (
                f"runs {one.name!r} and {other.name!r} have no query in common, their ids look like "
                f"{examples[0]!r} and {examples[1]!r}: expected runs of the same topics"
            )


def _common_document(one: Run, other: Run) -> bool:
    return any(
        bool(np.isin(ranking.docids, other.queries[query_id].docids).any())
        for query_id, ranking in one.queries.items()
        if query_id in other.queries
    )


def _fuse(rankings: Sequence[Ranking], weights: Sequence[float], options: FusionOptions) -> Ranking:
    docids, places = np.unique(np.concatenate([ranking.docids for ranking in rankings]), return_inverse=True)
    parts = np.empty((len(rankings), len(docids)))  # (runs, documents)
    start = 0
    # Overflow is found in the sums.
    with np.errstate(over="ignore", invalid="ignore"):
        for row, (ranking, weight) in enumerate(zip(rankings, weights, strict=True)):
            given, missing = _contributions(ranking, options)
            parts[row] = weight * missing
            parts[row, places[start : start + len(given)]] = weight * given
            start += len(given)
        parts.sort(axis=0)
        scores = parts.sum(axis=0).astype(np.float32)
    # -0.0 and 0.0 are one score, and one text in the file.
    scores += np.float32(0.0)
    order = trec_order(docids, scores)[: options.hits]
    return Ranking(docids[order], scores[order])


def _contributions(ranking: Ranking, options: FusionOptions) -> tuple[Values, float]:
    """A run's contribution to each of its hits, (n,), and to a document that it lacks."""
    if options.method is FusionMethod.RRF:
        k = DEFAULT_K if options.k is None else options.k
        return 1.0 / (k + np.arange(1.0, len(ranking.scores) + 1.0)), 0.0
    scores = ranking.scores.astype(np.float64)
    highest, lowest = float(scores[0]), float(scores[-1])
    if options.norm is Normalization.NONE:
        return scores, lowest
    constant = highest == lowest
    if options.norm is Normalization.Z:
        normal = np.zeros_like(scores) if constant else (scores - scores.mean()) / scores.std()
        return normal, float(normal[-1])
    normal = np.ones_like(scores) if constant else (scores - lowest) / (highest - lowest)
    return normal, 0.0


class Fused(NamedTuple):
    """Result of a fusion: queries and lines of the run, and warnings."""

    queries: int
    lines: int
    warnings: list[str]


def fuse_files(
    specs: Sequence[str],
    output: Path,
    options: FusionOptions | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Fused:
    """Reads runs, FILE or NAME=FILE, and writes their fusion query by query.

    Memory holds the input runs and one query of the result.

    Args:
        metadata: of an ir_metadata header, see `run_header`; None writes none.

    Raises:
        DataError, UsageError: with all problems of options and files, before a run is read; then with all
            problems in the runs. A `UsageError` if all are about options.
        EnvironmentProblem: the run cannot be written.
    """
    options = options or FusionOptions()
    files = run_files(specs)
    problems = Problems()
    problems.extend(options.problems(len(files)), UsageError)
    with problems.collect():
        check_outputs([output], {f"the run {name!r}": path for name, path in files})
    problems.extend(run_problems(files))
    problems.raise_any()
    runs = []
    for file in bar(files, what="reading", unit="runs", enabled=options.progress):
        with problems.collect():
            runs.append(read_run(file.path, file.name))
    problems.raise_any()
    total = len(set().union(*(run.queries for run in runs)))
    fused = bar(
        fused_queries(runs, options), total=total, what="fusing", unit="queries", enabled=options.progress
    )
    header = ""
    if metadata is not None:
        step: dict[str, Any] = {
            "name": options.tag,
            "method": options.method.value,
            "interpolates": [run.name for run in runs],
            "weights": options.weights or (1.0,) * len(runs),
        }
        if options.method is FusionMethod.RRF:
            step["k"] = DEFAULT_K if options.k is None else options.k
        else:
            step["norm"] = (options.norm or Normalization.MIN_MAX).value
        header = run_header(options.tag, [step], metadata)
    return Fused(total, write_run(output, decoded(fused), options.tag, header), fusion_warnings(runs))
