"""The options of evaluation and fusion, and the choices that configs share with them.

It is imported for `mimo --help`: nothing heavy is imported here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite
from typing import Annotated, Any

from mimo_plugin.core.errors import UsageError
from mimo_plugin.core.option import (
    ADVANCED,
    TOPIC_LANG,
    Option,
    Progress,
    RemoveQuery,
    SharedTopics,
    TopicField,
    duplicates_of,
)


class SignificanceTest(StrEnum):
    """The test behind the p-values of one language."""

    STUDENT = "student"
    PERMUTATION = "permutation"
    TUKEY_HSD = "tukey-hsd"


class Correction(StrEnum):
    """How p-values are corrected for the number of tests in their family."""

    HOLM = "holm"
    BONFERRONI = "bonferroni"
    BH = "bh"
    NONE = "none"


TEST_NAMES: Mapping[str, str] = {
    SignificanceTest.STUDENT: "paired t test",
    SignificanceTest.PERMUTATION: "paired randomisation test",
    SignificanceTest.TUKEY_HSD: "Tukey's HSD with topics as blocks",
}
CORRECTION_NAMES: Mapping[str, str] = {
    Correction.HOLM: "Holm",
    Correction.BONFERRONI: "Bonferroni",
    Correction.BH: "Benjamini-Hochberg",
    Correction.NONE: "none",
}


class TableFormat(StrEnum):
    """How tables are written."""

    TEXT = "text"
    MARKDOWN = "markdown"
    LATEX = "latex"


def split_names(names: str | Iterable[str]) -> list[str]:
    """The names in `"a,b c"` or in several such texts; an empty text gives one empty name."""
    text = names if isinstance(names, str) else ",".join(names)
    return re.split(r"[,\s]+", text.strip(", \n\t"))


class Setting(StrEnum):
    """The languages of queries and index.

    MULTI_MONOLINGUAL: each language's queries search an index of their own. MLIR: queries in one or several
    languages search one mixed index; documents are judged in all languages. CLIR: queries in one language
    search an index of other languages. MIXED_MONOLINGUAL: a mixed index, but documents are judged in the
    query's own language only.
    """

    MULTI_MONOLINGUAL = "multi-monolingual"
    MLIR = "mlir"
    CLIR = "clir"
    MIXED_MONOLINGUAL = "mixed-monolingual"


class Gain(StrEnum):
    """The gain of a judgment: its grade, or 1 for every relevant document."""

    GRADED = "graded"
    BINARY = "binary"


class Analyzers(StrEnum):
    """BM25's analysis of text: Pyserini's for each language, or one for all languages."""

    LANGUAGE = "language"
    PLAIN = "plain"


OFFERED_MEASURES = "ndcg, ndcg@k, map, map@k, mrr, mrr@k, recall@k, p@k, success@k, rprec, judged@k"
_STATISTICS = "Statistics"
_DUPLICATES = duplicates_of("queries with one id and different text")
SLICES = Option(
    "Also average and compare parts of the topics: lines TOPIC<tab>SLICE, as `mimo data slices` writes them.",
    metavar="FILE",
)
SeenLanguages = Annotated[
    Sequence[str],
    Option(
        "Languages that a run's encoder was trained on, or every run's: the others are marked, and averaged "
        "by themselves.  [default: as its checkpoint says, if this package trained it]",
        metavar="[NAME=]LANG,...",
    ),
]


@dataclass(frozen=True)
class EvaluationOptions:
    """How runs are evaluated.

    `measures`, `languages`: one text or several, such as `"de,en"`. `test`: None is student with a baseline,
    and no comparison without a baseline. `slices`: a file, or what else `Slices.of` takes. `pooled`: several
    collections are always pooled.
    """

    topics: Annotated[
        Sequence[str],
        Option(
            "Topics for a FILE as --qrels.  [default: its query ids]",
            metavar="COLLECTION|FILE...",
        ),
    ] = ()
    measures: Annotated[Sequence[str], Option(f"{OFFERED_MEASURES}.", metavar="MEASURE,...")] = (
        "ndcg@10,recall@100",
    )
    baseline: Annotated[str | None, Option("Compare every other run with this one.", metavar="NAME")] = None
    test: Annotated[
        SignificanceTest | None,
        Option(
            "Paired t, paired randomisation, or (three runs or more) Tukey's HSD with topics as blocks, "
            "which without a baseline compares all pairs.  [default: student, with a baseline]"
        ),
    ] = None
    correction: Annotated[
        Correction,
        Option("Correction for the number of tests of a measure: runs x languages.", group=_STATISTICS),
    ] = Correction.HOLM
    alpha: Annotated[float, Option("Level of tests and intervals.", group=_STATISTICS)] = 0.05
    permutations: Annotated[
        int,
        Option(
            "Number of permutations and bootstrap samples; all are used if there are fewer.",
            min=1000,
            group=_STATISTICS,
        ),
    ] = 10_000
    seed: Annotated[int, Option("Seed of permutations and bootstrap samples.", min=0, group=_STATISTICS)] = 42
    languages: Annotated[
        Sequence[str], Option("Evaluate on these only.  [default: all]", metavar="LANG,...")
    ] = ()
    slices: Annotated[Any, SLICES] = None
    seen_languages: SeenLanguages = ()
    pooled: Annotated[bool, Option("Ids are lang:id also for a single collection.")] = False
    shared_topics: SharedTopics = False
    topic_field: TopicField = None
    topic_lang: Annotated[Sequence[str], replace(TOPIC_LANG, also=("--lang",))] = ()
    remove_query: RemoveQuery = False
    duplicates: Annotated[str, _DUPLICATES] = "error"
    ignore_unknown_queries: Annotated[
        bool, Option("Leave out queries that are no topics.", group=ADVANCED)
    ] = False
    progress: Progress = None


class FusionMethod(StrEnum):
    """The contribution of a run: the reciprocal of the rank, or the score."""

    RRF = "rrf"
    SUM = "sum"


class Normalization(StrEnum):
    """How the scores of a run are normalised, per query."""

    MIN_MAX = "min-max"
    Z = "z"
    NONE = "none"


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise UsageError(
            f"weights are {text!r}, expected numbers with commas between them, such as 0.4,0.6"
        ) from None


@dataclass(frozen=True)
class FusionOptions:
    """How runs are fused, see `fusion.fused_queries`."""

    method: Annotated[FusionMethod, Option("Reciprocal rank fusion, or a sum of normalised scores.")] = (
        FusionMethod.RRF
    )
    k: Annotated[int | None, Option("Of rrf: 1 / (k + rank).  [default: 60]", min=0)] = None
    norm: Annotated[
        Normalization | None,
        Option("Of sum: how scores are normalised, per run and query.  [default: min-max]"),
    ] = None
    weights: Annotated[
        tuple[float, ...] | None,
        Option("Weight of each run, in order.  [default: 1 each]", metavar="W,...", parse=_numbers),
    ] = None
    hits: Annotated[int | None, Option("Documents a query.  [default: all]", min=1)] = None
    tag: Annotated[str, Option("Sixth column of the run.", group=ADVANCED)] = "fusion"
    progress: Progress = None

    def problems(self, runs: int) -> list[str]:
        """Invalid options for this number of runs, a line each."""
        found = []
        if runs < 2:
            found.append(f"{runs} run to fuse, expected two or more")
        if self.method is FusionMethod.RRF and self.norm is not None:
            found.append(f"norm is {self.norm}: rrf looks at ranks only, leave it out or use the method sum")
        if self.method is FusionMethod.SUM and self.k is not None:
            found.append(f"k is {self.k}: it belongs to rrf, leave it out or use the method rrf")
        if self.k is not None and self.k < 0:
            found.append(f"k is {self.k}, expected 0 or more")
        if self.hits is not None and self.hits < 1:
            found.append(f"hits is {self.hits}, expected 1 or more")
        if self.tag.split() != [self.tag]:
            found.append(f"tag is {self.tag!r}, expected one word: a TREC run is split at white space")
        if self.weights is not None:
            if len(self.weights) != runs:
                found.append(f"{len(self.weights)} weights for {runs} runs, expected one for each run")
            if not all(isfinite(weight) and weight >= 0 for weight in self.weights):
                shown = ", ".join(f"{weight:g}" for weight in self.weights)
                found.append(f"weights are {shown}, expected finite numbers from 0")
            elif not any(self.weights):
                found.append("all weights are 0, expected one above it")
        return found
