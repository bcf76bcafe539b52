"""Scores and differences as tables."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mimo_plugin.evaluation.compare import ALL_LANGUAGES
from mimo_plugin.evaluation.options import CORRECTION_NAMES, TEST_NAMES, Setting
from mimo_plugin.evaluation.results import (
    BenchmarkResults,
    ComparisonResult,
    ProcedureResult,
    ReferenceResult,
    TopicsResult,
    is_judged,
)
from mimo_plugin.evaluation.significance import UPPER_BOUND
from mimo_plugin.evaluation.tables import DAGGER, MISSING
from mimo_plugin.report.table import (
    Cell,
    Column,
    Note,
    Part,
    Table,
    count,
    in_bold,
    number,
    probability,
    words,
)

MONOLINGUAL = (Setting.MULTI_MONOLINGUAL, Setting.MIXED_MONOLINGUAL)

SETTINGS: Mapping[str, tuple[str, str]] = {
    Setting.MULTI_MONOLINGUAL: (
        "Multi-monolingual retrieval",
        "There is one collection a language, and a query searches the documents in its own language.",
    ),
    Setting.MLIR: (
        "Multilingual retrieval (MLIR)",
        "One index holds documents in many languages, and a query in any of them should bring back what is "
        "relevant whatever its language.",
    ),
    Setting.CLIR: (
        "Cross-lingual retrieval (CLIR)",
        "Queries are in another language than the documents that they should bring back.",
    ),
    Setting.MIXED_MONOLINGUAL: (
        "Mixed-corpus monolingual retrieval",
        "One index holds documents in many languages, but documents were judged in the query's own language "
        "only: what is relevant in another language counts as not relevant. This is no test of multilingual "
        "retrieval; Judged@k shows how much of what was found had been judged at all.",
    ),
}
_MIXED_LABEL = "Mixed-corpus monolingual: judged in the query's own language only."


def labels(results: BenchmarkResults) -> tuple[str, ...]:
    """What has to stand beside every number, in every output."""
    found = []
    if results.subset is not None:
        found.append(results.subset.text)
    if results.config.setting == Setting.MIXED_MONOLINGUAL:
        found.append(_MIXED_LABEL)
    return tuple(found)


def setting(results: BenchmarkResults) -> tuple[str, str]:
    """The setting's name, and what it is."""
    return SETTINGS.get(results.config.setting, (results.config.setting, ""))


def dagger(test: ProcedureResult, names: dict[str, str]) -> str:
    against = names.get(test.baseline or "", test.baseline)
    return f"{DAGGER} differs significantly from {against}, up or down. " + procedure(test)


def procedure(test: ProcedureResult) -> str:
    """How differences were tested."""
    name = TEST_NAMES.get(test.name, test.name)
    corrected = (
        "p not corrected"
        if test.correction == "none"
        else f"p corrected by {CORRECTION_NAMES.get(test.correction, test.correction)} within a measure"
    )
    return f"Two-sided {name} a language; {corrected}; level {test.alpha:g}."


def macro_procedure(test: ProcedureResult, topics: TopicsResult) -> str:
    """How the difference in macro averages was tested."""
    units = f", {topics.units:,} units" if topics.parallel else ""
    said = {key: text for key, text in test.macro.items() if text}
    parts = [f"p by {said['p']}"] if "p" in said else []
    parts += [f"interval by {said['interval']}"] if "interval" in said else []
    note = f"; {said['note']}" if "note" in said else ""
    return f"Macro average: {'; '.join(parts)}{units}{note}." if parts else ""


_MEASURES = {
    "ndcg": "nDCG",
    "map": "MAP",
    "mrr": "MRR",
    "recall": "Recall",
    "p": "P",
    "success": "Success",
    "rprec": "R-Precision",
    "judged": "Judged",
}


def measure_name(measure: str) -> str:
    """As papers write it: ndcg@10 -> nDCG@10."""
    kind, at, cutoff = measure.partition("@")
    return f"{_MEASURES.get(kind, kind)}{at}{cutoff}"


def system_names(results: BenchmarkResults) -> dict[str, str]:
    """System or run -> how it is called: by its label, unless another one has the same."""
    names = dict.fromkeys([*results.evaluation.runs, *results.systems, *results.language_bias])
    labels = {
        name: (results.systems[name].label.strip() if name in results.systems else "") or name
        for name in names
    }
    often = Counter(labels.values())
    return {name: label if often[label] == 1 else f"{label} [{name}]" for name, label in labels.items()}


class FileNames:
    """Makes names of files, each once.

    >>> names = FileNames()
    >>> names.of("language mix", "MIMO/XLM-R"), names.of("language mix", "mimo xlm r")
    ('language-mix-mimo-xlm-r', 'language-mix-mimo-xlm-r-2')
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, *parts: str) -> str:
        stem = re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")[:60] or "unnamed"
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name)
        return name


SCORES = "scores"
_PUBLISHED = "From publications"
_BOLD = "Bold: the best of the runs, published scores aside."


def score_tables(results: BenchmarkResults) -> Iterator[Table]:
    """The overall table, and with several languages one for each measure, Judged@k too."""
    yield _overall(results)
    if len(results.evaluation.topics.languages) > 1:
        for measure in results.evaluation.measures:
            yield _by_language(results, measure)


def counts_table(results: BenchmarkResults) -> Table:
    """How many topics each run answered."""
    names = system_names(results)
    fields = ("judged", "retrieved", "missing", "unjudged", "unknown")
    rows = [
        [words(names[name], name), *(count(getattr(run.queries, field)) for field in fields)]
        for name, run in results.evaluation.runs.items()
    ]
    note = (
        "judged: topics with judgments, over which scores are averaged. retrieved: of these, with a hit. "
        "missing: without one, they score 0. unjudged, unknown: queries of the run that have no judgments, "
        "or that the collection does not have."
    )
    columns = (Column("run"), *(Column(field) for field in fields))
    return Table("topics", "Topics of each run", columns, [Part(rows)], [Note(note)], labels(results))


def _overall(results: BenchmarkResults) -> Table:
    names, evaluation = system_names(results), results.evaluation
    averages = ("macro", "mean") if len(evaluation.topics.languages) > 1 else ("mean",)
    columns = [Column("run")]
    cells: list[list[Cell]] = []
    for measure in evaluation.measures:
        for average in averages:
            columns.append(Column(average, measure_name(measure), apart=average == averages[0]))
            cells.append(_column(results, measure, average))
    rows = [
        [words(names[name], name), *row]
        for name, row in zip(evaluation.runs, zip(*cells, strict=True), strict=True)
    ]
    parts = [Part(rows)]
    published, sources = _published_rows(results, averages)
    if published:
        parts.append(Part(published, _PUBLISHED))
    title = f"Scores over {evaluation.topics.judged:,} topics in {_languages(results)}"
    note = "macro: mean over languages. mean: over topics. " if len(averages) > 1 else ""
    notes = [Note(note + _BOLD), *_trained_on(results), *_test_notes(results), *sources]
    return Table(SCORES, title, columns, parts, notes, labels(results))


def _trained_on(results: BenchmarkResults) -> Iterator[Note]:
    names = system_names(results)
    for name, run in results.evaluation.runs.items():
        found = run.trained_on
        if found is not None and found.documents:
            yield Note(
                f"{names[name]} was trained on {found.documents:,} of the {found.of:,} documents "
                f"({100 * found.share:.1f} %)."
            )


def _column(results: BenchmarkResults, measure: str, average: str) -> list[Cell]:
    """Of every run: an average, or the score in a language."""
    cells = []
    for name, run in results.evaluation.runs.items():
        if average == "mean":
            cell = number(run.mean[measure])
        elif average == "macro":
            cell = number(run.macro[measure])._replace(marked=_differs(results, name, measure, ALL_LANGUAGES))
        else:
            cell = number(run.per_language[average][measure])
            cell = cell._replace(marked=_differs(results, name, measure, average))
        cells.append(cell)
    if average == "mean" and len(results.evaluation.topics.languages) == 1:
        (language,) = results.evaluation.topics.languages
        cells = [
            cell._replace(marked=_differs(results, name, measure, language))
            for name, cell in zip(results.evaluation.runs, cells, strict=True)
        ]
    return cells if is_judged(measure) else in_bold(cells)


def _differs(results: BenchmarkResults, run: str, measure: str, language: str) -> bool:
    """From the baseline; without one, differences between pairs have a table of their own."""
    test = results.evaluation.test
    return test is not None and any(
        one.significant
        for one in results.evaluation.comparisons
        if one.baseline == test.baseline and (one.run, one.measure, one.language) == (run, measure, language)
    )


def _by_language(results: BenchmarkResults, measure: str) -> Table:
    evaluation, names = results.evaluation, system_names(results)
    published = [one for one in results.reference if one.measure == measure]
    several = bool(published)
    columns = [Column("language", ""), Column("topics", "")]
    columns += [Column(names[name], "This evaluation" if several else "") for name in evaluation.runs]
    columns += [
        Column(f"{one.system} [{_sources(results).index(_source(one)) + 1}]", _PUBLISHED, apart=place == 0)
        for place, one in enumerate(published)
    ]
    languages: list[list[Cell]] = []
    for language, topics in evaluation.topics.languages.items():
        row = _column(results, measure, language)
        elsewhere = [number(one.per_language.get(language)) for one in published]
        languages.append([words(language), count(topics), *row, *elsewhere])
    macro, mean = _column(results, measure, "macro"), _column(results, measure, "mean")
    averages = [
        [words("macro"), Cell(""), *macro, *(number(one.macro) for one in published)],
        [words("mean"), count(evaluation.topics.judged), *mean, *([Cell(MISSING)] * len(published))],
    ]
    if is_judged(measure):
        notes = [Note("Share of the hits that have a judgment: what has none counts as not relevant.")]
    else:
        notes = [Note(_BOLD), *_test_notes(results)]
        notes += _source_notes(results, [_source(one) for one in published])
        notes = [note._replace(repeated=True) for note in notes]
    return Table(
        f"{SCORES}-{measure.replace('@', '-')}",
        f"{measure_name(measure)} by language",
        columns,
        [Part(languages), Part(averages)],
        notes,
        labels(results),
    )


def _published_rows(
    results: BenchmarkResults, averages: Sequence[str]
) -> tuple[list[list[Cell]], list[Note]]:
    """A row for each published system and source; never the best, and never tested."""
    sources = _sources(results)
    found: dict[tuple[str, tuple[str, str]], dict[str, ReferenceResult]] = {}
    for one in results.reference:
        found.setdefault((one.system, _source(one)), {})[one.measure] = one
    rows = []
    shown = []
    for (system, source), by_measure in found.items():
        row = [words(f"{system} [{sources.index(source) + 1}]")]
        for measure in results.evaluation.measures:
            score = by_measure.get(measure)
            if len(averages) == 1:
                row.append(number(_alone(results, score)))
            else:
                row += [number(score.macro if score else None), Cell(MISSING)]
        if any(cell.is_number for cell in row):
            rows.append(row)
            shown.append(source)
    return rows, _source_notes(results, shown)


def _alone(results: BenchmarkResults, one: ReferenceResult | None) -> float | None:
    """A published score in the one language that there is."""
    if one is None:
        return None
    (language,) = results.evaluation.topics.languages
    return one.per_language.get(language) if one.per_language else one.macro


def _source(one: ReferenceResult) -> tuple[str, str]:
    return one.source, one.url or ""


def _sources(results: BenchmarkResults) -> list[tuple[str, str]]:
    return list(dict.fromkeys(_source(one) for one in results.reference))


def _source_notes(results: BenchmarkResults, shown: Sequence[tuple[str, str]]) -> list[Note]:
    notes = []
    for place, source in enumerate(_sources(results), start=1):
        if source in shown:
            scores = [one for one in results.reference if _source(one) == source]
            remarks = [one.note for one in scores if one.note] + [_over(results, one) for one in scores]
            sentences = (part.strip().rstrip(".") for part in dict.fromkeys([source[0], *remarks]) if part)
            notes.append(Note(f"[{place}] {'; '.join(sentences)}.", source[1]))
    return notes


def _over(results: BenchmarkResults, one: ReferenceResult) -> str:
    """Whether a published average is one over the same languages."""
    here, there = set(results.evaluation.topics.languages), set(one.per_language)
    if one.macro is None or not there or there == here:
        return ""
    return f"its macro average is over {len(there)} languages, {len(here & there)} of the {len(here)} here"


def _test_notes(results: BenchmarkResults) -> list[Note]:
    """What a dagger means, where any is in the tables."""
    test = results.evaluation.test
    if test is None or not any(
        one.significant and one.baseline == test.baseline for one in results.evaluation.comparisons
    ):
        return []
    notes = [Note(dagger(test, system_names(results)))]
    if len(results.evaluation.topics.languages) > 1:
        notes.append(Note(macro_procedure(test, results.evaluation.topics)))
    return [note for note in notes if note.text]


def _languages(results: BenchmarkResults) -> str:
    languages = list(results.evaluation.topics.languages)
    return f"{len(languages)} languages" if len(languages) != 1 else f"one language ({languages[0]})"


# Pair of runs: baseline, run.
Pair = tuple[str, str]


def compared(results: BenchmarkResults, measure: str) -> dict[Pair, list[ComparisonResult]]:
    """Pair -> its comparisons; the macro average comes last, and is left out where there is one language."""
    several = len(results.evaluation.topics.languages) > 1
    found: dict[Pair, list[ComparisonResult]] = {}
    for one in results.evaluation.comparisons:
        if one.measure == measure and (several or one.language != ALL_LANGUAGES):
            found.setdefault((one.baseline, one.run), []).append(one)
    return {
        pair: sorted(comparisons, key=lambda one: one.language == ALL_LANGUAGES)
        for pair, comparisons in found.items()
    }


def comparison_tables(results: BenchmarkResults) -> Iterator[Table]:
    """One for each measure that was compared."""
    test = results.evaluation.test
    for measure in results.evaluation.quality:
        pairs = compared(results, measure)
        if pairs and test is not None:
            yield _table(results, measure, pairs, test)


def _table(
    results: BenchmarkResults, measure: str, pairs: dict[Pair, list[ComparisonResult]], test: ProcedureResult
) -> Table:
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


def _row(one: ComparisonResult) -> Sequence[Cell]:
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


def _language(one: ComparisonResult) -> str:
    return "macro" if one.language == ALL_LANGUAGES else one.language


def in_words(one: ComparisonResult) -> str:
    """For who cannot see the figure."""
    interval = (
        f", interval {one.ci_low:+.4f} to {one.ci_high:+.4f}"
        if one.ci_low is not None and one.ci_high is not None
        else f", interval {MISSING}"
    )
    return f"{one.difference:+.4f}{interval}, {'' if one.significant else 'not '}significant"
