"""An evaluation as tables: text, Markdown, LaTeX."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mimo_plugin.evaluation.compare import ALL_LANGUAGES
from mimo_plugin.evaluation.options import (
    CORRECTION_NAMES,
    TEST_NAMES,
    Correction,
    SignificanceTest,
    TableFormat,
)
from mimo_plugin.evaluation.results import ComparisonResult, ContrastResult, EvaluationResult, ProcedureResult
from mimo_plugin.evaluation.significance import UPPER_BOUND

if TYPE_CHECKING:
    from mimo_plugin.evaluation.evaluate import Evaluation

DAGGER = "†"
MISSING = "–"
# With more languages than this, they are rows: as columns they would not fit a page.
_MOST_LANGUAGE_COLUMNS = 7

Row = list[str]


class Table(NamedTuple):
    """A table: the first `left` columns are text, the others numbers, set to the right."""

    title: str
    headers: Row
    rows: list[Row]
    left: int = 1
    notes: tuple[str, ...] = ()


def make_tables(evaluation: "Evaluation") -> list[Table]:
    """Counts, scores and, where runs were compared, the comparisons."""
    result, measures = evaluation.result, [str(measure) for measure in evaluation.measures]
    several = len(result.topics.languages) > 1
    tables = [_counts(result, str(evaluation.judged))]
    notes = _notes(result)
    scores = [_by_language(result, name) for name in measures] if several else [_by_measure(result, measures)]
    for table in scores:
        marked = any(DAGGER in cell for row in table.rows for cell in row)
        note = (f"{DAGGER} differs from {evaluation.baseline}: {notes[0]}", *notes[1:]) if marked else ()
        tables.append(table._replace(notes=note))
    for measure in measures:
        chosen = [
            one
            for one in result.comparisons
            if one.measure == measure and (several or one.language != ALL_LANGUAGES)
        ]
        if chosen and result.test is not None:
            table = _comparisons(result.test, measure, chosen)
            tables.append(table._replace(notes=(*table.notes, *notes)))
    return tables


def _counts(result: EvaluationResult, judged: str) -> Table:
    counts = {name: run.queries.model_dump() for name, run in result.runs.items()}
    shown = [
        column
        for column in ("judged", "retrieved", "missing", "unjudged", "unknown")
        if column not in ("unjudged", "unknown") or any(count[column] for count in counts.values())
    ]
    rows = [
        [name, *(str(counts[name][column]) for column in shown), _number(run.mean[judged])]
        for name, run in result.runs.items()
    ]
    return Table("topics", ["run", *shown, judged], rows)


def _by_measure(result: EvaluationResult, measures: Sequence[str]) -> Table:
    """One language: a column a measure."""
    (language,) = result.topics.languages
    rows = [
        [name, *(_number(run.mean[measure]) + _mark(result, name, measure, language) for measure in measures)]
        for name, run in result.runs.items()
    ]
    title = f"scores, {result.topics.judged} topics (language: {language})"
    return Table(title, ["run", *measures], rows)


def _by_language(result: EvaluationResult, measure: str) -> Table:
    """Several languages: columns while they are few, rows when they are many."""
    topics = result.topics
    names = [*topics.languages, "macro", "mean"]
    numbers = [*map(str, topics.languages.values()), "", str(topics.judged)]
    columns = {name: _column(result, name, measure) for name in result.runs}
    if len(topics.languages) <= _MOST_LANGUAGE_COLUMNS:
        rows = [["(topics)", *numbers], *([name, *column] for name, column in columns.items())]
        return Table(measure, ["run", *names], rows)
    rows = [list(row) for row in zip(names, numbers, *columns.values(), strict=True)]
    return Table(measure, ["language", "topics", *columns], rows)


def _column(result: EvaluationResult, name: str, measure: str) -> Row:
    run = result.runs[name]
    values = {language: row[measure] for language, row in run.per_language.items()}
    values[ALL_LANGUAGES] = run.macro[measure]
    cells = [_number(value) + _mark(result, name, measure, where) for where, value in values.items()]
    return [*cells, _number(run.mean[measure])]


def _mark(result: EvaluationResult, run: str, measure: str, language: str) -> str:
    """A dagger where the run differs from the baseline; pairs without one have their own table."""
    baseline = result.test.baseline if result.test else None
    wanted = (baseline, run, measure, language)
    return (
        DAGGER
        if any(
            one.significant and (one.baseline, one.run, one.measure, one.language) == wanted
            for one in result.comparisons
        )
        else ""
    )


def _comparisons(test: ProcedureResult, measure: str, chosen: Sequence[ComparisonResult]) -> Table:
    several = len({(one.baseline, one.run) for one in chosen}) > 1
    title = f"{measure}, difference " + (f"from {test.baseline}" if several and test.baseline else "")
    headers = ["run"] if several else []
    if not several:
        title += f"{chosen[0].run} - {chosen[0].baseline}"
    headers += ["language", "topics", *difference_headers(test.alpha)]
    rows = []
    notes: dict[str, None] = {}
    for one in chosen:
        row = [one.run if test.baseline else f"{one.run} - {one.baseline}"] if several else []
        row += ["macro" if one.language == ALL_LANGUAGES else one.language]
        if one.note and one.note != UPPER_BOUND:
            notes[", ".join((*row, one.note))] = None
        rows.append([*row, str(one.queries), *difference_cells(one)])
    return Table(title.strip(), headers, rows, 2 if several else 1, tuple(notes))


def difference_headers(alpha: float) -> Row:
    """Headers of `difference_cells`."""
    return ["difference", f"{100 * (1 - alpha):g}% interval", "d_z", "w/t/l", "p", "corrected p"]


def difference_cells(one: ComparisonResult | ContrastResult) -> Row:
    """Difference, interval, effect size, wins, ties and losses, p, corrected p."""
    bound = one.note == UPPER_BOUND
    interval = MISSING if one.ci_low is None else f"{one.ci_low:+.4f} .. {one.ci_high:+.4f}"
    return [
        f"{one.difference:+.4f}",
        interval,
        _number(one.effect_size, "+.2f"),
        f"{one.wins}/{one.ties}/{one.losses}",
        _p(one.p, bound),
        _p(one.p_corrected, bound) + (DAGGER if one.significant else ""),
    ]


def _notes(result: EvaluationResult) -> tuple[str, ...]:
    """How p-values were made: a line for the languages, one for the macro average where there are several."""
    test, topics = result.test, result.topics
    if test is None:
        return ()
    pairs = len({(one.baseline, one.run) for one in result.comparisons})
    notes = [f"{TEST_NAMES[test.name]}; {_family(test, pairs, len(topics.languages))}; level {test.alpha:g}."]
    if len(topics.languages) > 1:
        unit = f", their language versions together ({topics.units} units)" if topics.parallel else ""
        notes.append(
            f"macro: run labels randomised within topics{unit}, interval by bootstrap; "
            f"{_family(test, pairs, 1)}."
        )
    return tuple(notes)


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


def _number(value: float | None, form: str = ".4f") -> str:
    return MISSING if value is None else format(value, form)


def _p(value: float | None, bound: bool) -> str:
    if value is None:
        return MISSING
    return ("<" if bound else "") + (f"{value:.4f}" if value >= 0.001 else f"{value:.1e}")


_ESCAPES = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\ensuremath{|}",
    '"': r"\textquotedbl{}",
    "[": "{[}",
    "]": "{]}",
    "\u2212": r"\ensuremath{-}",
    "–": "--",
    "→": r"\ensuremath{\rightarrow}",
    "²": r"\ensuremath{^2}",
    "†": r"\ensuremath{^{\dagger}}",
}


def escape_latex(text: str) -> str:
    r"""100 % -> 100 \%. Quotation marks need the T1 encoding."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def render(tables: Sequence[Table], form: TableFormat) -> str:
    """Writes tables one below the other; LaTeX needs the package booktabs."""
    write = {TableFormat.TEXT: _text, TableFormat.MARKDOWN: _markdown, TableFormat.LATEX: _latex}[form]
    return "\n\n".join(write(table) for table in tables) + "\n"


def _tabulate(table: Table, rows: Sequence[Sequence[str]], tablefmt: str) -> str:
    from tabulate import tabulate

    right = len(table.headers) - table.left
    return tabulate(
        rows,
        headers=table.headers,
        tablefmt=tablefmt,
        colalign=["left"] * table.left + ["right"] * right,
        disable_numparse=True,
        preserve_whitespace=True,
    )


def _text(table: Table) -> str:
    # A space where other cells of the column have a dagger keeps the digits in line.
    marked = [any(row[column].endswith(DAGGER) for row in table.rows) for column in range(len(table.headers))]
    rows = [
        [
            cell + " " if wide and not cell.endswith(DAGGER) else cell
            for cell, wide in zip(row, marked, strict=True)
        ]
        for row in table.rows
    ]
    return "\n".join((table.title, "", _tabulate(table, rows, "simple"), *table.notes))


def _markdown(table: Table) -> str:
    escaped = table._replace(headers=[_escape_markdown(header) for header in table.headers])
    rows = [[_escape_markdown(cell) for cell in row] for row in table.rows]
    parts = [f"**{table.title}**", _tabulate(escaped, rows, "pipe")]
    return "\n\n".join((*parts, *(_escape_markdown(note) for note in table.notes)))


def _escape_markdown(text: str) -> str:
    return re.sub(r"([|*_`<])", r"\\\1", text)


def _latex(table: Table) -> str:
    notes = "".join(f"\\\\[2pt]\n\\footnotesize {_escape_latex(note)}\n" for note in table.notes)
    body = _latex_marks(_tabulate(table, table.rows, "latex_booktabs"))
    caption = _escape_latex(table.title)
    return f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n{body}\n{notes}\\end{{table}}"


def _escape_latex(text: str) -> str:
    return _latex_marks(escape_latex(text))


def _latex_marks(text: str) -> str:
    text = re.sub(r"(?<![\w.-])([-+])(?=\d)", r"$\1$", text)
    return text.replace(DAGGER, r"$^{\dagger}$").replace(MISSING, "--")
