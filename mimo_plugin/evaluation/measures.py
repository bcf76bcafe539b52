"""ranx's measures in trec_eval's order, per query, per language and averaged."""

import os
import re
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from math import fsum
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.core.errors import Problems, UsageError, near
from mimo_plugin.core.files import user_caches
from mimo_plugin.evaluation.options import OFFERED_MEASURES, split_names
from mimo_plugin.evaluation.results import CountsResult
from mimo_plugin.evaluation.runs import Run
from mimo_plugin.evaluation.topics import Judged, Topics


class MeasureKind(StrEnum):
    """A measure without its cutoff; the value is its canonical name."""

    NDCG = "ndcg"
    MAP = "map"
    MRR = "mrr"
    RECALL = "recall"
    PRECISION = "p"
    SUCCESS = "success"
    RPREC = "rprec"
    JUDGED = "judged"


# The names that ir_measures and ranx use.
_ALIASES = {
    "ap": MeasureKind.MAP,
    "rr": MeasureKind.MRR,
    "r": MeasureKind.RECALL,
    "precision": MeasureKind.PRECISION,
    "hit_rate": MeasureKind.SUCCESS,
    "r-precision": MeasureKind.RPREC,
}
_CUTOFF_OPTIONAL = {MeasureKind.NDCG, MeasureKind.MAP, MeasureKind.MRR}


@dataclass(frozen=True)
class Measure:
    """A measure with its cutoff; `str` gives the canonical name, such as `ndcg@10`."""

    kind: MeasureKind
    cutoff: int | None = None

    def __str__(self) -> str:
        return self.kind.value if self.cutoff is None else f"{self.kind.value}@{self.cutoff}"


def parse_measures(names: str | Iterable[str]) -> tuple[Measure, ...]:
    """Reads measures, `"nDCG@10,recall@100"` or several such, without repetitions.

    Raises:
        UsageError: with every unknown name, near matches and the list of measures.
    """
    problems = Problems(UsageError)
    measures: dict[Measure, None] = {}
    for name in split_names(names):
        try:
            measures[_parse(name)] = None
        except UsageError as error:
            problems.add(str(error))
    problems.raise_any()
    return tuple(measures)


def _parse(name: str) -> Measure:
    base, at, cutoff = name.lower().partition("@")
    known = {kind.value: kind for kind in MeasureKind} | _ALIASES
    if base not in known:
        meant = near(re.split(r"[_.@]", base)[0], known)
        raise UsageError(f"unknown measure {name!r}{meant}; expected one of {OFFERED_MEASURES}")
    kind = known[base]
    if not at:
        if kind in _CUTOFF_OPTIONAL or kind is MeasureKind.RPREC:
            return Measure(kind)
        raise UsageError(f"measure {name!r} has no cutoff, expected one, for example {kind}@100")
    if kind is MeasureKind.RPREC:
        raise UsageError(
            f"measure {name!r} has a cutoff, expected rprec: it cuts at the number of relevant documents"
        )
    if not (cutoff.isascii() and cutoff.isdigit()) or int(cutoff) < 1:
        raise UsageError(
            f"measure {name!r}: cutoff {cutoff!r}, expected a whole number from 1, as in {kind}@10"
        )
    return Measure(kind, int(cutoff))


_TOPICS_A_CALL = 1000
_UNJUDGED = -1
_RANX_FUNCTIONS = {
    MeasureKind.NDCG: "ndcg",
    MeasureKind.MAP: "average_precision",
    MeasureKind.MRR: "reciprocal_rank",
    MeasureKind.RECALL: "recall",
    MeasureKind.PRECISION: "precision",
    MeasureKind.SUCCESS: "hit_rate",
    MeasureKind.RPREC: "r_precision",
}

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class RunScores:
    """Scores of one run. per_topic: measure -> (n,) in the order of the topics. depth: longest ranking."""

    name: str
    per_topic: Mapping[Measure, Scores]
    counts: CountsResult
    depth: int


def score_run(run: Run, topics: Topics, measures: Sequence[Measure]) -> RunScores:
    """Scores a run on every judged topic, as `trec_eval -c` does: a topic that the run lacks scores 0.

    A document is relevant with a relevance of 1 or more. nDCG's gain is the relevance; negative values count
    as 0. Judged@k is the share of judged documents among the first min(k, hits), 0 without hits (as in
    ir_measures).
    """
    per_topic = {measure: np.zeros(len(topics.query_ids)) for measure in measures}
    for start in range(0, len(topics.query_ids), _TOPICS_A_CALL):
        part = slice(start, start + _TOPICS_A_CALL)
        hits = [
            _match(run, query_id, judged)
            for query_id, judged in zip(topics.query_ids[part], topics.judged[part], strict=True)
        ]
        computed = _ranx_scores(
            topics.judged[part], hits, [m for m in measures if m.kind is not MeasureKind.JUDGED]
        )
        for measure in measures:
            if measure.kind is MeasureKind.JUDGED:
                tops = [positions[: measure.cutoff] for positions in hits]
                per_topic[measure][part] = [np.mean(top != _UNJUDGED) if len(top) else 0.0 for top in tops]
            else:
                per_topic[measure][part] = computed[measure]
    return RunScores(
        run.name,
        per_topic,
        _counts(run, topics),
        max((len(r.scores) for r in run.queries.values()), default=0),
    )


def _counts(run: Run, topics: Topics) -> CountsResult:
    judged = len(topics.query_ids)
    retrieved = sum(query_id in run.queries for query_id in topics.query_ids)
    in_topics = sum(query_id in topics.all_ids for query_id in run.queries)
    return CountsResult(
        judged=judged,
        retrieved=retrieved,
        missing=judged - retrieved,
        unjudged=in_topics - retrieved,
        unknown=len(run.queries) - in_topics,
    )


def _match(run: Run, query_id: str, judged: Judged) -> NDArray[np.intp]:
    """The hits of a topic as positions in its judged documents, `_UNJUDGED` for the rest. (hits,)"""
    ranking = run.queries.get(query_id)
    if ranking is None:
        return np.empty(0, dtype=np.intp)
    positions = np.searchsorted(judged.docids, ranking.docids)
    positions[positions == len(judged.docids)] = 0
    return np.where(judged.docids[positions] == ranking.docids, positions, _UNJUDGED)


def _ranx_scores(
    judged: Sequence[Judged], hits: Sequence[NDArray[np.intp]], measures: Sequence[Measure]
) -> dict[Measure, Scores]:
    """Calls ranx's measures on their own input, lists of (documents, 2) arrays: id and relevance or score.

    This input needs no typed dictionaries of strings: the compiled code is the same for every collection,
    comes from numba's cache, and no two docids have one hash. ranx takes hits in the given order and judged
    documents by falling relevance; the scores only repeat the order. All unjudged hits share an id.
    """
    if not measures:
        return {}
    metrics, typed_list = _import_ranx()
    qrels, run = typed_list(), typed_list()
    for documents, positions in zip(judged, hits, strict=True):
        order = np.argsort(-documents.relevance, kind="stable")
        qrels.append(np.column_stack((order.astype(np.float64), documents.relevance[order])))
        falling = -np.arange(len(positions), dtype=np.float64)
        run.append(np.column_stack((positions.astype(np.float64), falling)))
    with warnings.catch_warnings():
        # numba warns, in colour, of a cast of loop counters when it compiles ranx.
        warnings.filterwarnings("ignore", message=".*unsafe cast")
        return {
            measure: getattr(metrics, _RANX_FUNCTIONS[measure.kind])(qrels, run, measure.cutoff or 0)
            for measure in measures
        }


@cache
def _import_ranx() -> tuple[Any, Any]:
    """The compiled measures of ranx, without the plots and tables that it imports, and their list type.

    ranx compiles each measure on its first call, which takes seconds. Unless `NUMBA_CACHE_DIR` is set, the
    result is kept in the user's cache directory, as the installation may be read-only.
    """
    if "ranx" in sys.modules:
        from ranx import metrics
    else:
        os.environ.setdefault("NUMBA_CACHE_DIR", str(user_caches() / "numba"))
        spec = find_spec("ranx")
        if spec is None:
            raise ModuleNotFoundError("No module named 'ranx'", name="ranx")
        # An empty package in its place. A later import of ranx gets all of it, with these measures.
        package = ModuleType("ranx")
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules["ranx"] = package
        try:
            metrics = import_module("ranx.metrics")
        finally:
            del sys.modules["ranx"]
    import numba
    from numba.typed import List as TypedList

    # As ranx itself sets it.
    numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]
    return metrics, TypedList


@dataclass(frozen=True)
class Averages:
    """mean: over all judged topics. per_language: over its topics. macro: over the languages' means."""

    mean: float
    macro: float
    per_language: Mapping[str, float]

    def over(self, languages: Sequence[str]) -> float | None:
        """The macro average of some languages; None of none."""
        values = [self.per_language[language] for language in languages]
        return fsum(values) / len(values) if values else None


def average(values: Scores, topics: Topics) -> Averages:
    """Averages the scores of one measure; sums are exact, so the order of topics does not matter.

    Args:
        values: (n,) in the order of the topics.
    """
    per_language = topics.means(values)
    macro = fsum(per_language.values()) / len(per_language)
    return Averages(fsum(values) / len(values), macro, per_language)
