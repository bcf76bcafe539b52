"""The tables of an evaluation."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mimo_plugin.core.table import DAGGER, MISSING, Cell, Column, Table, in_bold, number, probability, words
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
    """Counts, scores and, if there are any, comparisons and slices."""
    result, measures = evaluation.result, [str(measure) for measure in evaluation.measures]
    several = len(result.topics.languages) > 1
    tables = [_counts(result, str(evaluation.judged))]
    notes = _notes(result)
    scores = [_by_language(result, name) for name in measures] if several else [_by_measure(result, measures)]
    for title, headers, rows in scores:
        dagger = _dagger(rows, evaluation.baseline, notes)
        unseen = result_marks(result)[1]
        if apart_averages(result) and several:
            unseen.append(APART)
        tables.append(Table.of(title, headers, rows, [*dagger, *unseen]))
    for measure in measures:
        chosen = [
            one
            for one in result.comparisons
            if one.measure == measure and (several or one.language != ALL_LANGUAGES)
        ]
        if chosen and result.test is not None:
            tables.append(_comparisons(result, result.test, measure, chosen, notes))
    return [*tables, *slice_tables(result)]


def make_summary(evaluation: "Evaluation") -> Table:
    """Scores alone, over all languages together."""
    result = evaluation.result
    title, headers, rows = _by_measure(result, [str(measure) for measure in evaluation.measures])
    return Table.of(title, headers, rows, _dagger(rows, evaluation.baseline, _notes(result)[-1:]))


def _dagger(rows: Sequence[Sequence[Cell]], baseline: str | None, notes: Sequence[str]) -> list[str]:
    """What a dagger says, if there is one. notes: how differences were tested."""
    if not any(cell.marked for row in rows for cell in row):
        return []
    return [f"{DAGGER} differs from {baseline}: {notes[0]}", *notes[1:]]


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
    """Title, headers and rows for one language, or the macro average of several: a column per measure."""
    topics = result.topics
    several = len(topics.languages) > 1
    language = ALL_LANGUAGES if several else next(iter(topics.languages))
    rows = [
        [words(name), *(_score(result, name, measure, language) for measure in measures)]
        for name in result.runs
    ]
    mark = result_marks(result)[0].get(language, "")
    over = f"macro average of {len(topics.languages)} languages" if several else f"language: {language}{mark}"
    title = f"scores, {topics.judged} topics ({over})"
    return title, ["run", *measures], rows


def _by_language(result: EvaluationResult, measure: str) -> _Parts:
    """The same for several languages: few are columns, many are rows."""
    topics, marks = result.topics, result_marks(result)[0]
    apart = apart_averages(result)
    names = [*(f"{language}{marks.get(language, '')}" for language in topics.languages)]
    names += ["macro", *apart, "mean"]
    empty = [words("")] * (1 + len(apart))
    numbers = [*map(_whole, topics.languages.values()), *empty, _whole(topics.judged)]
    columns = {
        name: [
            *(_score(result, name, measure, language) for language in (*topics.languages, ALL_LANGUAGES)),
            *(number(run.apart.get(average, {}).get(measure)) for average in apart),
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
    """A score, bold if no run's is higher, with a dagger if it differs significantly from the baseline's."""
    cells = {}
    for other, run in result.runs.items():
        values = run.macro if language == ALL_LANGUAGES else run.per_language[language]
        cells[other] = number(values[measure])
    (cell,) = [
        best for other, best in zip(cells, in_bold(list(cells.values())), strict=True) if other == name
    ]
    return cell._replace(marked=result.differs(name, measure, language))


def _whole(value: int) -> Cell:
    return Cell(str(value), value)


APART = "seen, unseen: macro averages over the languages of the training data, and over the others."


def unseen_marks(
    languages: Iterable[str], unseen: Mapping[str, Collection[str]], names: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """Marks of languages that encoders were not trained on, language -> "*", "**", ..., and their notes.

    Languages that the same systems were not trained on have the same mark.

    Args:
        unseen: system -> languages.
        names: system -> its name in tables.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for language in languages:
        systems = tuple(name for name, own in unseen.items() if language in own)
        if systems:
            groups.setdefault(systems, []).append(language)
    marks: dict[str, str] = {}
    notes = []
    for place, (systems, own) in enumerate(groups.items(), start=1):
        marks |= dict.fromkeys(own, "*" * place)
        called = ", ".join((names or {}).get(name, name) for name in systems)
        notes.append(f"{'*' * place} not among the training languages of {called}.")
    return marks, notes


def result_marks(
    result: EvaluationResult, names: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """The marks of an evaluation's languages."""
    unseen = {name: run.unseen_languages for name, run in result.runs.items()}
    return unseen_marks(result.topics.languages, unseen, names)


def apart_averages(result: EvaluationResult) -> list[str]:
    """The averages of seen and unseen languages, by name, if there are any."""
    return [name for name in ("seen", "unseen") if any(name in run.apart for run in result.runs.values())]


def _comparisons(
    result: EvaluationResult,
    test: ProcedureResult,
    measure: str,
    chosen: Sequence[ComparisonResult],
    notes: Sequence[str],
) -> Table:
    marks, unseen = result_marks(result)
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
        row += ["macro" if one.language == ALL_LANGUAGES else f"{one.language}{marks.get(one.language, '')}"]
        if one.note and one.note != UPPER_BOUND:
            remarks[", ".join((*row, one.note))] = None
        rows.append([*map(words, row), _whole(one.queries), *difference_cells(one)])
    return Table.of(title, columns, rows, [*remarks, *notes, *unseen])


def slice_tables(
    result: EvaluationResult, names: Mapping[str, str] | None = None, called: Callable[[str], str] = str
) -> Iterator[Table]:
    """The slices of topics, if there are any: a table per measure, a row per slice and run.

    Args:
        names: run -> its name in tables.
        called: measure -> its name in titles.
    """
    test, several = result.test, len(result.topics.languages) > 1
    name_of = dict(zip(result.runs, result.runs, strict=True)) | dict(names or {})
    average = "macro" if several else "mean"
    columns: list[Column | str] = ["slice", "topics", Column("run", text=True), average]
    columns += difference_headers(test.alpha) if test else []
    for measure in result.tested if result.slices else ():
        rows, remarks = [], []
        for name, part in result.slices.items():
            compared = [one for one in part.comparisons if one.measure == measure]
            against = {one.run: one for one in compared if test and one.baseline == test.baseline}
            shown: list[tuple[str, float | None, ComparisonResult | None]] = [
                (name_of[run], part.macro[run][measure], against.get(run)) for run in result.runs
            ]
            if test and test.baseline is None:
                shown += [(f"{name_of[one.run]} - {name_of[one.baseline]}", None, one) for one in compared]
            for run, value, one in shown:
                cells = difference_cells(one) if one else [Cell(MISSING)] * (len(columns) - 4)
                rows.append([words(name), _whole(part.topics), words(run), number(value), *cells])
                if one and one.note and one.note != UPPER_BOUND:
                    remarks.append(f"{name}, {run}: {one.note}")
        yield Table.of(
            f"{called(measure)}, slices of topics", columns, rows, [*remarks, *_slice_notes(result)]
        )


def _slice_notes(result: EvaluationResult) -> Iterator[str]:
    test, topics = result.test, result.topics
    if test:
        pairs = len({(one.baseline, one.run) for one in result.comparisons})
        how = TEST_NAMES[test.name]
        if len(topics.languages) > 1:
            unit = ", their language versions together" if topics.parallel else ""
            how = f"macro averages: run labels randomised within topics{unit}, interval by bootstrap"
        yield f"{how}; {_family(test, pairs, len(result.slices), 'slices')}; level {test.alpha:g}."
    if result.unsliced:
        yield f"{result.unsliced} of {topics.judged} topics are in no slice."


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


def _family(test: ProcedureResult, pairs: int, languages: int, called: str = "languages") -> str:
    tukey = test.name == SignificanceTest.TUKEY_HSD
    covers = "p holds for all pairs at once"
    if test.correction == Correction.NONE or pairs * languages == 1:
        return covers if tukey else "p not corrected"
    if tukey and languages == 1:
        return covers
    if tukey and test.correction != Correction.BH:
        return f"{covers}, corrected by Bonferroni over {languages} {called}"
    factors = [f"{pairs} pairs of runs"] * (pairs > 1) + [f"{languages} {called}"] * (languages > 1)
    return f"p corrected by {CORRECTION_NAMES[test.correction]} over {' x '.join(factors)}"
