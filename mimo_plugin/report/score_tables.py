"""Scores: runs x measures, and language x run for each measure."""

from collections.abc import Iterator, Sequence

from mimo_plugin.evaluation.comparison import ALL_LANGUAGES
from mimo_plugin.evaluation.tables import MISSING
from mimo_plugin.report.names import measure_name, system_names
from mimo_plugin.report.results import Results
from mimo_plugin.report.shapes import Reference, is_judged
from mimo_plugin.report.table import Cell, Column, Note, Part, Table, count, in_bold, number, words
from mimo_plugin.report.wording import dagger, labels, macro_procedure

SCORES = "scores"
_PUBLISHED = "From publications"
_BOLD = "Bold: the best of the runs, published scores aside."


def score_tables(results: Results) -> Iterator[Table]:
    """The overall table, and with several languages one for each measure, Judged@k too."""
    yield _overall(results)
    if len(results.evaluation.topics.languages) > 1:
        for measure in results.evaluation.measures:
            yield _by_language(results, measure)


def counts_table(results: Results) -> Table:
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


def _overall(results: Results) -> Table:
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


def _trained_on(results: Results) -> Iterator[Note]:
    names = system_names(results)
    for name, run in results.evaluation.runs.items():
        found = run.trained_on
        if found is not None and found.documents:
            yield Note(
                f"{names[name]} was trained on {found.documents:,} of the {found.of:,} documents "
                f"({100 * found.share:.1f} %)."
            )


def _column(results: Results, measure: str, average: str) -> list[Cell]:
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


def _differs(results: Results, run: str, measure: str, language: str) -> bool:
    """From the baseline; without one, differences between pairs have a table of their own."""
    test = results.evaluation.test
    return test is not None and any(
        one.significant
        for one in results.evaluation.comparisons
        if one.baseline == test.baseline and (one.run, one.measure, one.language) == (run, measure, language)
    )


def _by_language(results: Results, measure: str) -> Table:
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


def _published_rows(results: Results, averages: Sequence[str]) -> tuple[list[list[Cell]], list[Note]]:
    """A row for each published system and source; never the best, and never tested."""
    sources = _sources(results)
    found: dict[tuple[str, tuple[str, str]], dict[str, Reference]] = {}
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


def _alone(results: Results, one: Reference | None) -> float | None:
    """A published score in the one language that there is."""
    if one is None:
        return None
    (language,) = results.evaluation.topics.languages
    return one.per_language.get(language) if one.per_language else one.macro


def _source(one: Reference) -> tuple[str, str]:
    return one.source, one.url or ""


def _sources(results: Results) -> list[tuple[str, str]]:
    return list(dict.fromkeys(_source(one) for one in results.reference))


def _source_notes(results: Results, shown: Sequence[tuple[str, str]]) -> list[Note]:
    notes = []
    for place, source in enumerate(_sources(results), start=1):
        if source in shown:
            scores = [one for one in results.reference if _source(one) == source]
            remarks = [one.note for one in scores if one.note] + [_over(results, one) for one in scores]
            sentences = (part.strip().rstrip(".") for part in dict.fromkeys([source[0], *remarks]) if part)
            notes.append(Note(f"[{place}] {'; '.join(sentences)}.", source[1]))
    return notes


def _over(results: Results, one: Reference) -> str:
    """Whether a published average is one over the same languages."""
    here, there = set(results.evaluation.topics.languages), set(one.per_language)
    if one.macro is None or not there or there == here:
        return ""
    return f"its macro average is over {len(there)} languages, {len(here & there)} of the {len(here)} here"


def _test_notes(results: Results) -> list[Note]:
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


def _languages(results: Results) -> str:
    languages = list(results.evaluation.topics.languages)
    return f"{len(languages)} languages" if len(languages) != 1 else f"one language ({languages[0]})"
