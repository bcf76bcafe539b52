"""An evaluation as tables: text, Markdown, LaTeX."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mimo_plugin.core.files import make_parent, write_text
from mimo_plugin.evaluation.compare import ALL_LANGUAGES, Comparison
from mimo_plugin.evaluation.evaluate import Evaluation, to_json
from mimo_plugin.evaluation.measures import Measure, RunScores
from mimo_plugin.evaluation.options import (
    CORRECTION_NAMES,
    TEST_NAMES,
    Correction,
    SignificanceTest,
    TableFormat,
)
from mimo_plugin.evaluation.significance import UPPER_BOUND, Plan

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


def make_tables(evaluation: Evaluation) -> list[Table]:
    """Counts, scores and, where runs were compared, the comparisons."""
    notes = _notes(evaluation)
    tables = [_counts(evaluation)]
    several = len(evaluation.topics.languages) > 1
    if several:
        scores = [_by_language(evaluation, measure) for measure in evaluation.measures]
    else:
        scores = [_by_measure(evaluation)]
    for table in scores:
        marked = any(DAGGER in cell for row in table.rows for cell in row)
        note = (f"{DAGGER} differs from {evaluation.baseline}: {notes[0]}", *notes[1:]) if marked else ()
        tables.append(table._replace(notes=note))
    for measure in evaluation.measures:
        chosen = [
            comparison
            for comparison in evaluation.comparisons
            if comparison.measure == measure and (several or comparison.language != ALL_LANGUAGES)
        ]
        if chosen and evaluation.plan is not None:
            table = _comparisons(evaluation.plan, evaluation.baseline, measure, chosen)
            tables.append(table._replace(notes=(*table.notes, *notes)))
    return tables


def _counts(evaluation: Evaluation) -> Table:
    columns = {
        "judged": [scores.counts.judged for scores in evaluation.scores],
        "retrieved": [scores.counts.retrieved for scores in evaluation.scores],
        "missing": [scores.counts.missing for scores in evaluation.scores],
        "unjudged": [scores.counts.unjudged for scores in evaluation.scores],
        "unknown": [scores.counts.unknown for scores in evaluation.scores],
    }
    shown = {
        name: values for name, values in columns.items() if any(values) or name not in ("unjudged", "unknown")
    }
    rows = [
        [
            scores.name,
            *(str(values[position]) for values in shown.values()),
            _score(evaluation.averages(scores, evaluation.judged).mean),
        ]
        for position, scores in enumerate(evaluation.scores)
    ]
    return Table("topics", ["run", *shown, str(evaluation.judged)], rows)


def _by_measure(evaluation: Evaluation) -> Table:
    """One language: a column a measure."""
    language = evaluation.topics.languages[0]
    rows = [
        [
            scores.name,
            *(
                _score(evaluation.averages(scores, measure).mean)
                + _mark(evaluation, scores, measure, language)
                for measure in evaluation.measures
            ),
        ]
        for scores in evaluation.scores
    ]
    title = f"scores, {len(evaluation.topics.query_ids)} topics (language: {language})"
    return Table(title, ["run", *map(str, evaluation.measures)], rows)


def _by_language(evaluation: Evaluation, measure: Measure) -> Table:
    """Several languages: columns while they are few, rows when they are many."""
    topics = evaluation.topics
    names = [*topics.languages, "macro", "mean"]
    numbers = [*map(str, topics.counts.values()), "", str(len(topics.query_ids))]
    columns = [_column(evaluation, scores, measure) for scores in evaluation.scores]
    runs = [scores.name for scores in evaluation.scores]
    if len(topics.languages) <= _MOST_LANGUAGE_COLUMNS:
        rows = [["(topics)", *numbers]]
        rows += [[run, *column] for run, column in zip(runs, columns, strict=True)]
        return Table(str(measure), ["run", *names], rows)
    rows = [list(row) for row in zip(names, numbers, *columns, strict=True)]
    return Table(str(measure), ["language", "topics", *runs], rows)


def _column(evaluation: Evaluation, scores: RunScores, measure: Measure) -> Row:
    averages = evaluation.averages(scores, measure)
    cells = [
        _score(value) + _mark(evaluation, scores, measure, language)
        for language, value in averages.per_language.items()
    ]
    macro = _score(averages.macro) + _mark(evaluation, scores, measure, ALL_LANGUAGES)
    return [*cells, macro, _score(averages.mean)]


def _mark(evaluation: Evaluation, scores: RunScores, measure: Measure, language: str) -> str:
    """A dagger where the run differs from the baseline; without a baseline the pairs have their own
    table."""
    significant = any(
        comparison.significant
        for comparison in evaluation.comparisons
        if comparison.baseline == evaluation.baseline
        and (comparison.run, comparison.measure, comparison.language) == (scores.name, measure, language)
    )
    return DAGGER if significant else ""


def _comparisons(plan: Plan, baseline: str | None, measure: Measure, chosen: Sequence[Comparison]) -> Table:
    several = len({(comparison.baseline, comparison.run) for comparison in chosen}) > 1
    title = f"{measure}, difference " + (f"from {baseline}" if several and baseline else "")
    headers = ["run"] if several else []
    if not several:
        title += f"{chosen[0].run} - {chosen[0].baseline}"
    headers += ["language", "topics", "difference", f"{100 * (1 - plan.alpha):g}% interval", "d_z"]
    headers += ["w/t/l", "p", "corrected p"]
    rows = []
    notes: dict[str, None] = {}
    for comparison in chosen:
        bound = comparison.note == UPPER_BOUND
        language = "macro" if comparison.language == ALL_LANGUAGES else comparison.language
        row = [comparison.run if baseline else f"{comparison.run} - {comparison.baseline}"] if several else []
        row += [language, str(comparison.queries), f"{comparison.difference:+.4f}"]
        row += [_interval(comparison), _number(comparison.effect_size, "+.2f")]
        row += [f"{comparison.wins}/{comparison.ties}/{comparison.losses}", _p(comparison.p, bound)]
        rows.append([*row, _p(comparison.p_corrected, bound) + (DAGGER if comparison.significant else "")])
        if comparison.note and not bound:
            notes[", ".join((*row[: len(headers) - 7], comparison.note))] = None
    return Table(title.strip(), headers, rows, 2 if several else 1, tuple(notes))


def _notes(evaluation: Evaluation) -> tuple[str, ...]:
    """How p-values were made: a line for the languages, one for the macro average where there are several."""
    plan, topics = evaluation.plan, evaluation.topics
    if plan is None:
        return ()
    pairs = len({(comparison.baseline, comparison.run) for comparison in evaluation.comparisons})
    notes = [f"{TEST_NAMES[plan.test]}; {_family(plan, pairs, len(topics.languages))}; level {plan.alpha:g}."]
    if len(topics.languages) > 1:
        unit = f", their language versions together ({topics.blocks} units)" if topics.parallel else ""
        notes.append(
            f"macro: run labels randomised within topics{unit}, interval by bootstrap; "
            f"{_family(plan, pairs, 1)}."
        )
    return tuple(notes)


def _family(plan: Plan, pairs: int, languages: int) -> str:
    tukey = plan.test is SignificanceTest.TUKEY_HSD
    covers = "p holds for all pairs at once"
    if plan.correction is Correction.NONE or pairs * languages == 1:
        return covers if tukey else "p not corrected"
    if tukey and languages == 1:
        return covers
    name = CORRECTION_NAMES[plan.correction]
    if tukey and plan.correction is not Correction.BH:
        return f"{covers}, corrected by Bonferroni over {languages} languages"
    factors = [f"{pairs} pairs of runs"] * (pairs > 1) + [f"{languages} languages"] * (languages > 1)
    return f"p corrected by {name} over {' x '.join(factors)}"


def _score(value: float) -> str:
    return f"{value:.4f}"


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)


def _p(value: float | None, bound: bool) -> str:
    if value is None:
        return MISSING
    return ("<" if bound else "") + (f"{value:.4f}" if value >= 0.001 else f"{value:.1e}")


def _interval(comparison: Comparison) -> str:
    if comparison.ci_low is None or comparison.ci_high is None:
        return MISSING
    return f"{comparison.ci_low:+.4f} .. {comparison.ci_high:+.4f}"


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


def write_outputs(
    evaluation: Evaluation, form: TableFormat, output: Path | None = None, json_file: Path | None = None
) -> str:
    """Writes the tables to `output` and the JSON to `json_file`, where they are given; returns the
    tables' text."""
    tables = render(make_tables(evaluation), form)
    for path, text in ((output, tables), (json_file, to_json(evaluation))):
        if path is not None:
            make_parent(path)
            write_text(path, text)
    return tables
