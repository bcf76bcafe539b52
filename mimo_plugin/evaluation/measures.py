"""The measures on offer: their names, read and written."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from mimo_plugin.errors import Problems, UsageError
from mimo_plugin.evaluation.choices import split_names


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
OFFERED = "ndcg, ndcg@k, map, map@k, mrr, mrr@k, recall@k, p@k, success@k, rprec, judged@k"


@dataclass(frozen=True)
class Measure:
    """A measure with its cutoff; `str` gives the canonical name, such as `ndcg@10`."""

    kind: MeasureKind
    cutoff: int | None = None

    def __str__(self) -> str:
        return self.kind.value if self.cutoff is None else f"{self.kind.value}@{self.cutoff}"


def parse_measures(names: str | Iterable[str]) -> tuple[Measure, ...]:
    """Reads measures, `"nDCG@10,recall@100"` or several such, without repetitions.

    Raises `UsageError` with every name that is not a measure, near matches and the list.
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
        near = get_close_matches(re.split(r"[_.@]", base)[0], known, n=3, cutoff=0.5)
        meant = f"; near: {', '.join(near)}" if near else ""
        raise UsageError(f"unknown measure {name!r}{meant}; expected one of {OFFERED}")
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
