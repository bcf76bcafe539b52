"""Comparison of runs with a baseline or with each other: one record per measure, pair and language."""

from collections.abc import Callable, Sequence
from itertools import combinations
from math import fsum

import numpy as np

from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import Problems, UsageError, near
from mimo_plugin.evaluation.measures import Measure, MeasureKind, RunScores
from mimo_plugin.evaluation.options import Correction, SignificanceTest
from mimo_plugin.evaluation.results import ComparisonResult
from mimo_plugin.evaluation.significance import (
    TINY,
    Outcome,
    Pair,
    Plan,
    Values,
    difference,
    macro_test,
    permutation,
    student,
    tukey_hsd,
)
from mimo_plugin.evaluation.topics import Topics

ALL_LANGUAGES = "all"

_TESTS: dict[SignificanceTest, Callable[[Values, Plan], dict[Pair, Outcome]]] = {
    SignificanceTest.STUDENT: student,
    SignificanceTest.PERMUTATION: permutation,
    SignificanceTest.TUKEY_HSD: tukey_hsd,
}


def compared_pairs(names: Sequence[str], baseline: str | None, test: SignificanceTest | None) -> list[Pair]:
    """Pairs to compare: each run with the baseline; without a baseline all pairs for Tukey's test, else none.

    Raises:
        UsageError: the baseline is not a run, or the runs do not allow the test.
    """
    problems = Problems(UsageError)
    if baseline is not None and baseline not in names:
        known = ", ".join(dict.fromkeys(names))
        problems.add(
            f"unknown baseline {baseline!r}{near(baseline, names)}; expected one of the runs {known}"
        )
    elif baseline is not None and len(names) < 2:
        problems.add(f"baseline {baseline!r} is the only run, expected another one to compare with it")
    tukey = test == SignificanceTest.TUKEY_HSD
    if tukey and len(names) < 3:
        problems.add(f"{test} compares three runs or more, found {len(names)}: use student or permutation")
    elif test is not None and not tukey and baseline is None:
        problems.add(f"{test} compares runs with a baseline, found none: add --baseline NAME")
    problems.raise_any()
    if baseline is None:
        return list(combinations(range(len(names)), 2)) if tukey else []
    first = names.index(baseline)
    return [(first, run) for run in range(len(names)) if run != first]


def tested_measures(measures: Sequence[Measure]) -> list[Measure]:
    """The measures without Judged@k, which does not measure quality."""
    return [measure for measure in measures if measure.kind is not MeasureKind.JUDGED]


def compare_runs(
    scores: Sequence[RunScores],
    topics: Topics,
    measures: Sequence[Measure],
    pairs: Sequence[Pair],
    plan: Plan,
    progress: bool | None = False,
) -> list[ComparisonResult]:
    """Compares pairs of runs, by measure, pair and language; Judged@k is left out.

    p-values are corrected within families. Each measure has two: the tests of all pairs and languages, and
    the macro tests of all pairs.
    """
    listed, topics = topics.in_languages, topics.listed()
    measures = tested_measures(measures)
    comparisons: list[ComparisonResult] = []
    languages = len(topics.languages)
    total = len(measures) * (languages + 1) * len(_groups(len(scores), pairs, plan))
    with bar(total=total, what="comparing", unit="tests", enabled=progress) as counter:
        for measure in measures:
            values = np.stack([score.per_topic[measure][listed] for score in scores])
            *by_language, macro = [
                compare_in(language, values, topics, scores, measure, pairs, plan, counter.update)
                for language in (*topics.languages, ALL_LANGUAGES)
            ]
            family = [one for by_pair in zip(*by_language, strict=True) for one in by_pair]
            family = corrected(family, plan, languages, macro=False)
            for place, average in enumerate(corrected(macro, plan, languages, macro=True)):
                comparisons += [*family[place * languages : (place + 1) * languages], average]
    return comparisons


def compare_in(
    language: str,
    values: Values,
    topics: Topics,
    scores: Sequence[RunScores],
    measure: Measure,
    pairs: Sequence[Pair],
    plan: Plan,
    advance: Callable[[], object] = lambda: None,
) -> list[ComparisonResult]:
    """Compares each pair in one language, or by the macro average of all; p is not corrected yet.

    Args:
        values: (runs, n) scores of the topics, which are all listed.
        advance: called after each test.
    """
    outcomes: dict[Pair, Outcome] = {}
    for rows in _groups(len(values), pairs, plan):
        for (first, second), outcome in _test(values[rows], language, topics, plan).items():
            outcomes[rows[first], rows[second]] = outcome
            outcomes[rows[second], rows[first]] = _swapped(outcome)
        advance()
    return [_compare(values, pair, scores, measure, language, topics, outcomes[pair]) for pair in pairs]


def _groups(runs: int, pairs: Sequence[Pair], plan: Plan) -> list[list[int]]:
    """The runs of each test: Tukey's takes all at once, the others one pair."""
    return [[*range(runs)]] if plan.test is SignificanceTest.TUKEY_HSD else [list(pair) for pair in pairs]


def _test(values: Values, language: str, topics: Topics, plan: Plan) -> dict[Pair, Outcome]:
    if language == ALL_LANGUAGES:
        return macro_test(values, topics, plan)
    return _TESTS[plan.test](values[:, topics.is_in(language)], plan)


def _swapped(outcome: Outcome) -> Outcome:
    low, high = outcome.ci_low, outcome.ci_high
    if low is None or high is None:
        return outcome
    return outcome._replace(ci_low=0.0 - high, ci_high=0.0 - low)


def _compare(
    values: Values,
    pair: Pair,
    scores: Sequence[RunScores],
    measure: Measure,
    language: str,
    topics: Topics,
    outcome: Outcome,
) -> ComparisonResult:
    change = difference(values, pair)
    if language == ALL_LANGUAGES:
        parts = [change[topics.is_in(name)] for name in topics.languages]
    else:
        change = change[topics.is_in(language)]
        parts = [change]
    mean = fsum(fsum(part) / len(part) for part in parts) / len(parts)
    found = compared(scores[pair[0]].name, scores[pair[1]].name, change, parts, outcome, mean)
    return found.model_copy(update={"measure": str(measure), "language": language})


def compared(
    baseline: str, run: str, change: Values, parts: Sequence[Values], outcome: Outcome, mean: float
) -> ComparisonResult:
    """Summarises the comparison of a run with a baseline; p is uncorrected, measure and language are empty.

    Args:
        change: difference of each topic, (n,).
        parts: the differences for the effect size, one array per language.
        mean: of the differences.
    """
    return ComparisonResult(
        baseline=baseline,
        run=run,
        measure="",
        language="",
        queries=len(change),
        difference=mean,
        ci_low=outcome.ci_low,
        ci_high=outcome.ci_high,
        effect_size=effect_size(fsum(fsum(part) / len(part) for part in parts) / len(parts), parts),
        wins=int(np.count_nonzero(change > 0)),
        ties=int(np.count_nonzero(change == 0)),
        losses=int(np.count_nonzero(change < 0)),
        p=outcome.p,
        p_corrected=None,
        significant=False,
        note=outcome.note or None,
    )


def effect_size(mean: float, parts: Sequence[Values]) -> float | None:
    """d_z: the mean difference over the root of the parts' mean variance; None if it is not defined.

    Args:
        parts: differences, (n,) each, one array per language.
    """
    if not any(part.any() for part in parts):
        return 0.0
    if any(len(part) < 2 for part in parts):
        return None
    deviation = float(np.sqrt(np.mean([np.var(part, ddof=1) for part in parts])))
    return mean / deviation if deviation > TINY else None


def corrected(
    family: Sequence[ComparisonResult], plan: Plan, languages: int, macro: bool
) -> list[ComparisonResult]:
    """A family of comparisons with corrected p-values, see `correct`."""
    p_values = np.array([one.p for one in family if one.p is not None])
    remaining = iter(correct(p_values, plan, languages, macro).tolist())
    found = []
    for one in family:
        p = None if one.p is None else next(remaining)
        found.append(
            one.model_copy(update={"p_corrected": p, "significant": p is not None and p <= plan.alpha})
        )
    return found


def correct(p_values: Values, plan: Plan, languages: int, macro: bool) -> Values:
    """Corrects a family of p-values: of all pairs and languages, or of the macro tests. (m,) -> (m,)

    Tukey's p-values already hold for all pairs of a language at once, and the macro's for all pairs. Only
    the number of languages remains to be corrected for. Holm's step-down is not valid over sets of pairs
    that are rejected in part, so Holm and Bonferroni both multiply by the number of languages.
    Benjamini-Hochberg takes each p-value as it is.
    """
    from statsmodels.stats.multitest import multipletests

    if len(p_values) == 0 or plan.correction is Correction.NONE:
        return p_values
    if plan.test is SignificanceTest.TUKEY_HSD:
        if macro or languages == 1:
            return p_values
        if plan.correction is not Correction.BH:
            return np.minimum(p_values * languages, 1.0)
    method = {Correction.HOLM: "holm", Correction.BONFERRONI: "bonferroni", Correction.BH: "fdr_bh"}
    return np.asarray(multipletests(p_values, alpha=plan.alpha, method=method[plan.correction])[1])
