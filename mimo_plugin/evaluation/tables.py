"""The tables of an evaluation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mimo_plugin.core.table import DAGGER, MISSING, Cell, Column, Table, number, probability, words
from mimo_plugin.evaluation.compare import ALL_LANGUAGES
from mimo_plugin.evaluation.options import CORRECTION_NAMES, TEST_NAMES, Correction, SignificanceTest
from mimo_plugin.evaluation.results import (
    ComparisonResult,
    DifferenceResult,
    EvaluationResult,
    ProcedureResult,
)
from mimo_plugin.evaluation.significance import UPPER_BOUND

if TYPE_CHECKING:
    from mimo_plugin.evaluation.evaluate import Evaluation

# More languages are rows: as columns they would not fit a page.
_MOST_LANGUAGE_COLUMNS = 7


def make_tables(evaluation: "Evaluation") -> list[Table]:
    """Counts, scores and, if runs were compared, comparisons."""
    result, measures = evaluation.result, [str(measure) for measure in evaluation.measures]
    several = len(result.topics.languages) > 1
    tables = [_counts(result, str(evaluation.judged))]
    notes = _notes(result)
    scores = [_by_language(result, name) for name in measures] if several else [_by_measure(result, measures)]
    for title, headers, rows in scores:
        marked = any(cell.marked for row in rows for cell in row)
        dagger = [f"{DAGGER} differs from {evaluation.baseline}: {notes[0]}", *notes[1:]] if marked else []
        tables.append(Table.of(title, headers, rows, dagger))
    for measure in measures:
        chosen = [
            one
            for one in result.comparisons
            if one.measure == measure and (several or one.language != ALL_LANGUAGES)
        ]
        if chosen and result.test is not None:
            tables.append(_comparisons(result.test, measure, chosen, notes))
    return tables


def _counts(result: EvaluationResult, judged: str) -> Table:
    counts = {name: run.queries.model_dump() for name, run in result.runs.items()}
    shown = [
        column
        for column in ("judged", "retrieved", "missing", "unjudged", "unknown")
        if column not in ("unjudged", "unknown") or any(count[column] for count in counts.values())
    ]
    rows = [
        [words(name), *(_whole(counts[name][column]) for column in shown), number(run.mean[judged])]
        for name, run in result.runs.items()
    ]
    return Table.of("topics", ["run", *shown, judged], rows)


_Parts = tuple[str, list[str], list[list[Cell]]]


def _by_measure(result: EvaluationResult, measures: Sequence[str]) -> _Parts:
    """Title, headers and rows for one language: a column per measure."""
    (language,) = result.topics.languages
    rows = [
        [words(name), *(_score(result, name, measure, language) for measure in measures)]
        for name in result.runs
    ]
    return f"scores, {result.topics.judged} topics (language: {language})", ["run", *measures], rows


def _by_language(result: EvaluationResult, measure: str) -> _Parts:
    """The same for several languages: few are columns, many are rows."""
    topics = result.topics
    names = [*topics.languages, "macro", "mean"]
    numbers = [*map(_whole, topics.languages.values()), words(""), _whole(topics.judged)]
    columns = {
        name: [
            *(_score(result, name, measure, language) for language in (*topics.languages, ALL_LANGUAGES)),
            number(run.mean[measure]),
        ]
        for name, run in result.runs.items()
    }
    if len(topics.languages) <= _MOST_LANGUAGE_COLUMNS:
        rows = [[words("(topics)"), *numbers], *([words(name), *cells] for name, cells in columns.items())]
        return measure, ["run", *names], rows
    rows = [[words(name), *cells] for name, *cells in zip(names, numbers, *columns.values(), strict=True)]
    return measure, ["language", "topics", *columns], rows


def _score(result: EvaluationResult, name: str, measure: str, language: str) -> Cell:
    """A score, with a dagger if it differs significantly from the baseline's."""
    run = result.runs[name]
    values = run.macro if language == ALL_LANGUAGES else run.per_language[language]
    return number(values[measure])._replace(marked=result.differs(name, measure, language))


def _whole(value: int) -> Cell:
    return Cell(str(value), value)


def _comparisons(
    test: ProcedureResult, measure: str, chosen: Sequence[ComparisonResult], notes: Sequence[str]
) -> Table:
    several = len({(one.baseline, one.run) for one in chosen}) > 1
    title = f"{measure}, difference {chosen[0].run} - {chosen[0].baseline}"
    columns: list[Column | str] = [Column("language", text=True), "topics", *difference_headers(test.alpha)]
    if several:
        title = f"{measure}, difference from {test.baseline}" if test.baseline else f"{measure}, difference"
        columns = ["run", *columns]
    rows = []
    remarks: dict[str, None] = {}
    for one in chosen:
        row = [one.run if test.baseline else f"{one.run} - {one.baseline}"] if several else []
        row += ["macro" if one.language == ALL_LANGUAGES else one.language]
        if one.note and one.note != UPPER_BOUND:
            remarks[", ".join((*row, one.note))] = None
        rows.append([*map(words, row), _whole(one.queries), *difference_cells(one)])
    return Table.of(title, columns, rows, [*remarks, *notes])


def difference_headers(alpha: float) -> list[str]:
    """Headers of `difference_cells`."""
    return ["difference", f"{100 * (1 - alpha):g}% interval", "d_z", "w/t/l", "p", "corrected p"]


def difference_cells(one: DifferenceResult) -> list[Cell]:
    """Difference, interval, effect size, wins, ties and losses, p, corrected p."""
    bound = one.note == UPPER_BOUND
    return [
        number(one.difference, "+.4f"),
        words(MISSING if one.ci_low is None else f"{one.ci_low:+.4f} .. {one.ci_high:+.4f}"),
        number(one.effect_size, "+.2f"),
        words(f"{one.wins}/{one.ties}/{one.losses}"),
        probability(one.p, bound),
        probability(one.p_corrected, bound)._replace(marked=one.significant),
    ]


def _notes(result: EvaluationResult) -> list[str]:
    """How p-values were computed: a line for languages, and one for the macro average of several."""
    test, topics = result.test, result.topics
    if test is None:
        return []
    pairs = len({(one.baseline, one.run) for one in result.comparisons})
    notes = [f"{TEST_NAMES[test.name]}; {_family(test, pairs, len(topics.languages))}; level {test.alpha:g}."]
    if len(topics.languages) > 1:
        unit = f", their language versions together ({topics.units} units)" if topics.parallel else ""
        notes.append(
            f"macro: run labels randomised within topics{unit}, interval by bootstrap; "
            f"{_family(test, pairs, 1)}."
        )
    return notes


def _family(test: ProcedureResult, pairs: int, languages: int) -> str:
    tukey = test.name == SignificanceTest.TUKEY_HSD
    covers = "p holds for all pairs at once"
    if test.correction == Correction.NONE or pairs * languages == 1:
        return covers if tukey else "p not corrected"
    if tukey and languages == 1:
        return covers
    if tukey and test.correction != Correction.BH:
        return f"{covers}, corrected by Bonferroni over {languages} languages"
    factors = [f"{pairs} pairs of runs"] * (pairs > 1) + [f"{languages} languages"] * (languages > 1)
    return f"p corrected by {CORRECTION_NAMES[test.correction]} over {' x '.join(factors)}"
