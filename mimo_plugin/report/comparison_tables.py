"""Differences between runs, in full."""

from collections.abc import Iterator, Sequence

from mimo_plugin.evaluation.comparison import ALL_LANGUAGES
from mimo_plugin.evaluation.significance import UPPER_BOUND
from mimo_plugin.evaluation.tables import DAGGER, MISSING
from mimo_plugin.report.names import measure_name, system_names
from mimo_plugin.report.results import Results
from mimo_plugin.report.shapes import Comparison, Procedure
from mimo_plugin.report.table import Cell, Column, Note, Part, Table, count, number, probability, words
from mimo_plugin.report.wording import labels, macro_procedure, procedure

# Pair of runs: baseline, run.
Pair = tuple[str, str]


def compared(results: Results, measure: str) -> dict[Pair, list[Comparison]]:
    """Pair -> its comparisons; the macro average comes last, and is left out where there is one language."""
    several = len(results.evaluation.topics.languages) > 1
    found: dict[Pair, list[Comparison]] = {}
    for one in results.evaluation.comparisons:
        if one.measure == measure and (several or one.language != ALL_LANGUAGES):
            found.setdefault((one.baseline, one.run), []).append(one)
    return {
        pair: sorted(comparisons, key=lambda one: one.language == ALL_LANGUAGES)
        for pair, comparisons in found.items()
    }


def comparison_tables(results: Results) -> Iterator[Table]:
    """One for each measure that was compared."""
    test = results.evaluation.test
    for measure in results.evaluation.quality:
        pairs = compared(results, measure)
        if pairs and test is not None:
            yield _table(results, measure, pairs, test)


def _table(results: Results, measure: str, pairs: dict[Pair, list[Comparison]], test: Procedure) -> Table:
    names = system_names(results)
    columns = (
        Column("language"),
        *map(Column, ("topics", "difference", "lower", "upper", "d_z", "wins", "ties", "losses")),
        *map(Column, ("p", "corrected p")),
    )
    parts = []
    notes = [Note(procedure(test))]
    if len(results.evaluation.topics.languages) > 1:
        notes.append(Note(macro_procedure(test, results.evaluation.topics)))
    notes.append(
        Note(
            f"lower, upper: {100 * test.confidence:g} % interval of the difference. d_z: mean difference "
            f"over the standard deviation of differences. wins, ties, losses: topics. {DAGGER} significant. "
            "<: an upper bound."
        )
    )
    for (baseline, run), comparisons in pairs.items():
        pair = f"{names[run]} − {names[baseline]}"
        parts.append(Part([_row(one) for one in comparisons], pair))
        notes += [
            Note(f"{pair}, {_language(one)}: {one.note}")
            for one in comparisons
            if one.note and one.note != UPPER_BOUND
        ]
    title = f"{measure_name(measure)}: differences between runs"
    name = f"differences-{measure.replace('@', '-')}"
    return Table(name, title, columns, parts, [note for note in notes if note.text], labels(results))


def _row(one: Comparison) -> Sequence[Cell]:
    bound = one.note == UPPER_BOUND
    corrected = probability(one.p_corrected, bound)
    return [
        words(_language(one)),
        count(one.queries),
        number(one.difference, "+.4f"),
        number(one.ci_low, "+.4f"),
        number(one.ci_high, "+.4f"),
        number(one.effect_size, "+.2f"),
        count(one.wins),
        count(one.ties),
        count(one.losses),
        probability(one.p, bound),
        corrected._replace(marked=one.significant),
    ]


def _language(one: Comparison) -> str:
    return "macro" if one.language == ALL_LANGUAGES else one.language


def in_words(one: Comparison) -> str:
    """For who cannot see the figure."""
    interval = (
        f", interval {one.ci_low:+.4f} to {one.ci_high:+.4f}"
        if one.ci_low is not None and one.ci_high is not None
        else f", interval {MISSING}"
    )
    return f"{one.difference:+.4f}{interval}, {'' if one.significant else 'not '}significant"
