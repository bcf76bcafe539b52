"""Runs against a baseline, or against each other: one record a measure, pair and language."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import fsum

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.core.errors import Problems, UsageError, near
from mimo_plugin.evaluation.measures import Measure, MeasureKind, RunScores
from mimo_plugin.evaluation.options import Correction, SignificanceTest
from mimo_plugin.evaluation.significance import (
    TINY,
    Outcome,
    Pair,
    Plan,
    Values,
    difference,
    macro_test,
    pairs_of,
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


@dataclass(frozen=True)
class Comparison:
    """Run minus baseline for one measure on one language, or on the macro average (`language` is "all").

    effect_size: d_z, the mean difference over the standard deviation of the differences; for "all", over
    the root of the languages' mean variance. wins, ties, losses: topics. None where a value is not
    defined, and then why in `note`. p is never 0: where it is too small to be computed, it and
    p_corrected are upper bounds, which `note` says.
    """

    baseline: str
    run: str
    measure: Measure
    language: str
    queries: int
    difference: float
    ci_low: float | None
    ci_high: float | None
    effect_size: float | None
    wins: int
    ties: int
    losses: int
    p: float | None
    p_corrected: float | None
    significant: bool
    note: str


def compared_pairs(names: Sequence[str], baseline: str | None, test: SignificanceTest | None) -> list[Pair]:
    """Which runs are compared: all with the baseline; without one, all pairs for Tukey's test and none
    otherwise.

    Raises `UsageError` with a baseline that is no run, and a test that the runs do not allow.
    """
    problems = Problems(UsageError)
    if baseline is not None and baseline not in names:
        known = ", ".join(dict.fromkeys(names))
        problems.add(
            f"unknown baseline {baseline!r}{near(baseline, names)}; expected one of the runs {known}"
        )
    elif baseline is not None and len(names) < 2:
        problems.add(f"baseline {baseline!r} is the only run, expected another one to compare with it")
    tukey = test is SignificanceTest.TUKEY_HSD
    if tukey and len(names) < 3:
        problems.add(f"{test} compares three runs or more, found {len(names)}: use student or permutation")
    elif test is not None and not tukey and baseline is None:
        problems.add(f"{test} compares runs with a baseline, found none: add --baseline NAME")
    problems.raise_any()
    if baseline is None:
        return list(combinations(range(len(names)), 2)) if tukey else []
    first = names.index(baseline)
    return [(first, run) for run in range(len(names)) if run != first]


def compare_runs(
    scores: Sequence[RunScores],
    topics: Topics,
    measures: Sequence[Measure],
    pairs: Sequence[Pair],
    plan: Plan,
    advance: Callable[[], object] = lambda: None,
) -> list[Comparison]:
    """Compares pairs of runs, measure by measure; Judged@k is no measure of quality and is left out.

    p-values are corrected within families: for each measure, those of all pairs and languages are one,
    the macro tests of all pairs another. `advance` is called after each test.
    """
    comparisons: list[Comparison] = []
    listed, topics = topics.in_languages, topics.listed()
    for measure in tested_measures(measures):
        values = np.stack([score.per_topic[measure][listed] for score in scores])
        families: dict[bool, list[Comparison]] = {False: [], True: []}
        for rows, wanted in _groups(len(scores), pairs, plan.test):
            for language in (*topics.languages, ALL_LANGUAGES):
                outcomes = _test(values[rows], language, topics, plan)
                for pair in wanted:
                    names = scores[rows[pair[0]]].name, scores[rows[pair[1]]].name
                    families[language == ALL_LANGUAGES].append(
                        _compare(values[rows], pair, names, measure, language, topics, outcomes)
                    )
                advance()
        for macro, family in families.items():
            comparisons += _corrected(family, plan, len(topics.languages), macro)
    order = {(scores[baseline].name, scores[run].name): place for place, (baseline, run) in enumerate(pairs)}
    # Sorting is stable: languages keep their order, "all" comes last.
    places = {measure: place for place, measure in enumerate(measures)}
    return sorted(comparisons, key=lambda c: (places[c.measure], order[c.baseline, c.run]))


def tested_measures(measures: Sequence[Measure]) -> list[Measure]:
    return [measure for measure in measures if measure.kind is not MeasureKind.JUDGED]


def count_tests(
    runs: int, topics: Topics, measures: Sequence[Measure], pairs: Sequence[Pair], plan: Plan
) -> int:
    """How often `compare_runs` will call `advance`."""
    return len(tested_measures(measures)) * len(_groups(runs, pairs, plan.test)) * (len(topics.languages) + 1)


def _groups(runs: int, pairs: Sequence[Pair], test: SignificanceTest) -> list[tuple[list[int], list[Pair]]]:
    """The runs that go into one test, and the pairs of its rows that are wanted."""
    if not pairs:
        return []
    if test is SignificanceTest.TUKEY_HSD:
        return [(list(range(runs)), list(pairs))]
    return [([baseline, run], [(0, 1)]) for baseline, run in pairs]


def _test(values: Values, language: str, topics: Topics, plan: Plan) -> dict[Pair, Outcome]:
    if language == ALL_LANGUAGES:
        outcomes = macro_test(values, topics, plan)
    else:
        outcomes = _TESTS[plan.test](values[:, _of(language, topics)], plan)
    return outcomes | {
        (run, baseline): _swapped(outcomes[baseline, run]) for baseline, run in pairs_of(values)
    }


def _swapped(outcome: Outcome) -> Outcome:
    low, high = outcome.ci_low, outcome.ci_high
    if low is None or high is None:
        return outcome
    return outcome._replace(ci_low=0.0 - high, ci_high=0.0 - low)


def _of(language: str, topics: Topics) -> NDArray[np.bool_]:
    return np.asarray(topics.language_of == topics.languages.index(language))


def _compare(
    values: Values,
    pair: Pair,
    names: tuple[str, str],
    measure: Measure,
    language: str,
    topics: Topics,
    outcomes: dict[Pair, Outcome],
) -> Comparison:
    change = difference(values, pair)
    if language == ALL_LANGUAGES:
        parts = [change[_of(name, topics)] for name in topics.languages]
    else:
        change = change[_of(language, topics)]
        parts = [change]
    outcome = outcomes[pair]
    mean = fsum(fsum(part) / len(part) for part in parts) / len(parts)
    return Comparison(
        baseline=names[0],
        run=names[1],
        measure=measure,
        language=language,
        queries=len(change),
        difference=mean,
        ci_low=outcome.ci_low,
        ci_high=outcome.ci_high,
        effect_size=effect_size(mean, parts),
        wins=int(np.count_nonzero(change > 0)),
        ties=int(np.count_nonzero(change == 0)),
        losses=int(np.count_nonzero(change < 0)),
        p=outcome.p,
        p_corrected=None,
        significant=False,
        note=outcome.note,
    )


def effect_size(mean: float, parts: Sequence[Values]) -> float | None:
    """d_z: the mean difference over the root of the parts' mean variance; None where it is not defined.

    parts: differences, (n,) each, one array a language
    """
    if not any(part.any() for part in parts):
        return 0.0
    if any(len(part) < 2 for part in parts):
        return None
    deviation = float(np.sqrt(np.mean([np.var(part, ddof=1) for part in parts])))
    return mean / deviation if deviation > TINY else None


def _corrected(family: list[Comparison], plan: Plan, languages: int, macro: bool) -> list[Comparison]:
    tested = [position for position, comparison in enumerate(family) if comparison.p is not None]
    corrected: list[float | None] = [None] * len(family)
    values = correct(np.array([family[position].p for position in tested]), plan, languages, macro)
    for position, value in zip(tested, values.tolist(), strict=True):
        corrected[position] = value
    return [
        replace(comparison, p_corrected=p, significant=p is not None and p <= plan.alpha)
        for comparison, p in zip(family, corrected, strict=True)
    ]


def correct(p_values: Values, plan: Plan, languages: int, macro: bool) -> Values:
    """Corrects a family of p-values, those of the pairs of all languages or of the macro tests. (m,) ->
    (m,)

    Tukey's p-values already hold for all pairs of a language at once (and the macro's for all pairs):
    what is left is the number of languages, and Holm's step-down is not valid over sets of pairs that are
    rejected in part, so it and Bonferroni both multiply by the number of languages. Benjamini-Hochberg
    takes them as they are, one by one.
    """
    from statsmodels.stats.multitest import multipletests

    if len(p_values) == 0 or plan.correction is Correction.NONE:
        return p_values
    if plan.test is SignificanceTest.TUKEY_HSD:
        if macro or languages == 1:
            return p_values
        if plan.correction is not Correction.BH:
            return np.minimum(p_values * languages, 1.0)
    method = {Correction.HOLM: "holm", Correction.BONFERRONI: "bonferroni", Correction.BH: "fdr_bh"}[
        plan.correction
    ]
    return np.asarray(multipletests(p_values, alpha=plan.alpha, method=method)[1])
