"""Tables of scores and differences."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from mimo_plugin.core.table import (
    DAGGER,
    MISSING,
    UP,
    Cell,
    Column,
    Note,
    Rows,
    Table,
    count,
    in_bold,
    number,
    probability,
    words,
)
from mimo_plugin.evaluation.compare import ALL_LANGUAGES
from mimo_plugin.evaluation.options import CORRECTION_NAMES, TEST_NAMES, Setting
from mimo_plugin.evaluation.results import (
    BenchmarkResults,
    ComparisonResult,
    ProcedureResult,
    ReferenceResult,
)
from mimo_plugin.evaluation.significance import UPPER_BOUND
from mimo_plugin.evaluation.tables import APART, apart_averages, result_marks

MONOLINGUAL = (Setting.MULTI_MONOLINGUAL, Setting.MIXED_MONOLINGUAL)

_SETTINGS: Mapping[str, tuple[str, str]] = {
    Setting.MULTI_MONOLINGUAL: (
        "Multi-monolingual retrieval",
        "There is one collection per language, and a query searches the documents in its own language.",
    ),
    Setting.MLIR: (
        "Multilingual retrieval (MLIR)",
        "One index holds documents in many languages, and a query in any of them should find the relevant "
        "documents in all languages.",
    ),
    Setting.CLIR: (
        "Cross-lingual retrieval (CLIR)",
        "Queries are in another language than the documents that they should find.",
    ),
    Setting.MIXED_MONOLINGUAL: (
        "Mixed-corpus monolingual retrieval",
        "One index holds documents in many languages, but documents were judged in the query's own language "
        "only: relevant documents in other languages count as not relevant. This is not a test of "
        "multilingual retrieval; Judged@k is the share of hits with a judgment.",
    ),
}
_MIXED_LABEL = "Mixed-corpus monolingual: judged in the query's own language only."


def setting(results: BenchmarkResults) -> tuple[str, str]:
    """Name and description of the setting."""
    return _SETTINGS.get(results.config.setting, (results.config.setting, ""))


def labels(results: BenchmarkResults) -> tuple[str, ...]:
    """Texts that must accompany every number, in every output."""
    subset = () if results.subset is None else (results.subset.text,)
    mixed = results.config.setting == Setting.MIXED_MONOLINGUAL
    return (*subset, _MIXED_LABEL) if mixed else subset


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
    """The usual spelling: ndcg@10 -> nDCG@10."""
    kind, at, cutoff = measure.partition("@")
    return f"{_MEASURES.get(kind, kind)}{at}{cutoff}"


def is_judged(measure: str) -> bool:
    """Whether a measure is Judged@k, which does not measure quality."""
    return measure.startswith("judged@")


def system_names(results: BenchmarkResults) -> dict[str, str]:
    """System or run -> its name in tables: the label, with the name if the label is not unique."""
    names = dict.fromkeys([*results.evaluation.runs, *results.systems, *results.language_bias])
    called = {
        name: (results.systems[name].label.strip() if name in results.systems else "") or name
        for name in names
    }
    often = Counter(called.values())
    return {name: label if often[label] == 1 else f"{label} [{name}]" for name, label in called.items()}


class FileNames:
    """Makes unique names of files.

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


_PUBLISHED = "From publications"
_BOLD = "Bold: the best run, without published scores."


def score_tables(results: BenchmarkResults) -> Iterator[Table]:
    """The overall table and, for several languages, one table per measure, also for Judged@k."""
    yield _overall(results)
    if _several(results):
        for measure in results.evaluation.measures:
            yield _by_language(results, measure)


def counts_table(results: BenchmarkResults) -> Table:
    """Numbers of topics with and without hits, per run."""
    names = system_names(results)
    fields = ("judged", "retrieved", "missing", "unjudged", "unknown")
    rows = [
        [words(names[name], name), *(count(getattr(run.queries, field)) for field in fields)]
        for name, run in results.evaluation.runs.items()
    ]
    note = (
        "judged: topics with judgments; scores are averaged over them. retrieved: judged topics with a hit. "
        "missing: judged topics without a hit; they score 0. unjudged: queries of the run without "
        "judgments. unknown: queries of the run that are not in the collection."
    )
    return Table.of(
        "Topics of each run", ["run", *fields], rows, [note], name="topics", labels=labels(results)
    )


def _better(measure: str) -> str:
    return "" if is_judged(measure) else UP


def _several(results: BenchmarkResults) -> bool:
    return len(results.evaluation.topics.languages) > 1


def _overall(results: BenchmarkResults) -> Table:
    names, evaluation = system_names(results), results.evaluation
    averages = ("macro", *apart_averages(evaluation), "mean") if _several(results) else ("mean",)
    columns = [Column("run")]
    cells: list[list[Cell]] = []
    for measure in evaluation.measures:
        for average in averages:
            columns.append(
                Column(average, measure_name(measure), apart=average == averages[0], better=_better(measure))
            )
            cells.append(_scores(results, measure, average))
    rows = zip(evaluation.runs, zip(*cells, strict=True), strict=True)
    parts = [Rows([[words(names[name], name), *row] for name, row in rows])]
    published, sources = _published_rows(results)
    if published:
        parts.append(Rows(published, _PUBLISHED))
    languages = list(evaluation.topics.languages)
    where = f"{len(languages)} languages" if len(languages) != 1 else f"one language ({languages[0]})"
    title = f"Scores over {evaluation.topics.judged:,} topics in {where}"
    note = "macro: mean over languages. mean: over topics. " if len(averages) > 1 else ""
    notes = [
        Note(note + _BOLD),
        *_unseen_notes(results),
        *_trained_on(results),
        *_test_notes(results),
        *sources,
    ]
    return Table(title, columns, parts, notes, "scores", labels(results))


def _unseen_notes(results: BenchmarkResults) -> list[Note]:
    """Which languages encoders were not trained on, and the averages of these."""
    notes = result_marks(results.evaluation, system_names(results))[1]
    return [Note(note) for note in (*notes, *([APART] if notes and _several(results) else ()))]


def _trained_on(results: BenchmarkResults) -> Iterator[Note]:
    names = system_names(results)
    for name, run in results.evaluation.runs.items():
        found = run.trained_on
        if found is not None and found.documents:
            yield Note(
                f"{names[name]} was trained on {found.documents:,} of the {found.of:,} documents "
                f"({100 * found.share:.1f} %)."
            )


def _scores(results: BenchmarkResults, measure: str, average: str) -> list[Cell]:
    """The scores of all runs. average: "macro", "mean", or a language."""
    evaluation = results.evaluation
    languages = list(evaluation.topics.languages)
    tested = {"macro": ALL_LANGUAGES, "mean": None if _several(results) else languages[0]}
    language = tested.get(average, average)
    cells = []
    for name, run in evaluation.runs.items():
        averages = {"macro": run.macro, "seen": {}, "unseen": {}, **run.apart, "mean": run.mean}
        values = averages[average] if average in averages else run.per_language[average]
        cells.append(number(values.get(measure))._replace(marked=evaluation.differs(name, measure, language)))
    return cells if is_judged(measure) else in_bold(cells)


def _by_language(results: BenchmarkResults, measure: str) -> Table:
    evaluation, names = results.evaluation, system_names(results)
    published = [one for one in results.reference if one.measure == measure]
    columns = [Column("language"), Column("topics")]
    better = _better(measure)
    columns += [
        Column(names[name], "This evaluation" if published else "", better=better) for name in evaluation.runs
    ]
    columns += [
        Column(_cited(results, one), _PUBLISHED, apart=one is published[0], better=better)
        for one in published
    ]
    languages: list[list[Cell]] = []
    marks = result_marks(evaluation)[0]
    for language, topics in evaluation.topics.languages.items():
        row = _scores(results, measure, language)
        elsewhere = [number(one.per_language.get(language)) for one in published]
        shown = words(f"{language}{marks.get(language, '')}", language)
        languages.append([shown, count(topics), *row, *elsewhere])
    macro, mean = _scores(results, measure, "macro"), _scores(results, measure, "mean")
    missing = [Cell(MISSING)] * len(published)
    averages = [
        [words("macro"), Cell(""), *macro, *(number(one.macro) for one in published)],
        *(
            [words(name), Cell(""), *_scores(results, measure, name), *missing]
            for name in apart_averages(evaluation)
        ),
        [words("mean"), count(evaluation.topics.judged), *mean, *missing],
    ]
    if is_judged(measure):
        notes = [Note("Share of the hits with a judgment; hits without one count as not relevant.")]
    else:
        notes = [Note(_BOLD), *_test_notes(results), *_source_notes(results, set(map(_source, published)))]
        notes = [note._replace(repeated=True) for note in notes]
    notes += [note._replace(repeated=True) for note in _unseen_notes(results)]
    return Table(
        f"{measure_name(measure)} by language",
        columns,
        [Rows(languages), Rows(averages)],
        notes,
        f"scores-{measure.replace('@', '-')}",
        labels(results),
    )


def _published_rows(results: BenchmarkResults) -> tuple[list[list[Cell]], list[Note]]:
    """A row per published system and source; never in bold, and never tested."""
    found: dict[str, dict[str, ReferenceResult]] = {}
    for one in results.reference:
        found.setdefault(_cited(results, one), {})[one.measure] = one
    rows = []
    shown: set[tuple[str, str]] = set()
    for system, by_measure in found.items():
        row = [words(system)]
        for measure in results.evaluation.measures:
            score = by_measure.get(measure)
            if _several(results):
                row += [number(score.macro if score else None), Cell(MISSING)]
            else:
                row.append(number(_alone(results, score)))
        if any(cell.is_number for cell in row):
            rows.append(row)
            shown.update(map(_source, by_measure.values()))
    return rows, _source_notes(results, shown)


def _alone(results: BenchmarkResults, one: ReferenceResult | None) -> float | None:
    """A published score in the only language."""
    if one is None:
        return None
    (language,) = results.evaluation.topics.languages
    return one.per_language.get(language) if one.per_language else one.macro


def _source(one: ReferenceResult) -> tuple[str, str]:
    return one.source, one.url or ""


def _sources(results: BenchmarkResults) -> list[tuple[str, str]]:
    return list(dict.fromkeys(map(_source, results.reference)))


def _cited(results: BenchmarkResults, one: ReferenceResult) -> str:
    """A published system with the number of its source."""
    return f"{one.system} [{_sources(results).index(_source(one)) + 1}]"


def _source_notes(results: BenchmarkResults, shown: set[tuple[str, str]]) -> list[Note]:
    notes = []
    for place, source in enumerate(_sources(results), start=1):
        if source in shown:
            scores = [one for one in results.reference if _source(one) == source]
            remarks = [one.note for one in scores if one.note] + [_over(results, one) for one in scores]
            sentences = (part.strip().rstrip(".") for part in dict.fromkeys([source[0], *remarks]) if part)
            notes.append(Note(f"[{place}] {'; '.join(sentences)}.", source[1]))
    return notes


def _over(results: BenchmarkResults, one: ReferenceResult) -> str:
    """A remark if a published macro average is over other languages."""
    here, there = set(results.evaluation.topics.languages), set(one.per_language)
    if one.macro is None or not there or there == here:
        return ""
    return f"its macro average is over {len(there)} languages, {len(here & there)} of the {len(here)} here"


def _test_notes(results: BenchmarkResults) -> list[Note]:
    """Explains the dagger, if there is any."""
    test = results.evaluation.test
    if test is None or not any(
        one.significant and one.baseline == test.baseline for one in results.evaluation.comparisons
    ):
        return []
    against = system_names(results).get(test.baseline or "", test.baseline)
    first, *more = _procedure(results, test)
    return [Note(f"{DAGGER} differs significantly from {against}, up or down. {first}"), *map(Note, more)]


def _procedure(results: BenchmarkResults, test: ProcedureResult) -> Iterator[str]:
    """How differences were tested: per language, and of the macro average of several languages."""
    corrected = (
        "p not corrected"
        if test.correction == "none"
        else f"p corrected by {CORRECTION_NAMES.get(test.correction, test.correction)} within a measure"
    )
    yield f"Two-sided {TEST_NAMES.get(test.name, test.name)} a language; {corrected}; level {test.alpha:g}."
    topics = results.evaluation.topics
    said = {key: text for key, text in test.macro.items() if text}
    parts = [f"{what} by {said[key]}" for key, what in (("p", "p"), ("interval", "interval")) if key in said]
    if parts and _several(results):
        units = f", {topics.units:,} units" if topics.parallel else ""
        note = f"; {said['note']}" if "note" in said else ""
        yield f"Macro average: {'; '.join(parts)}{units}{note}."


def ranking(results: BenchmarkResults, measure: str) -> list[tuple[str, float]]:
    """Runs and their scores, the best first: macro averages where there are several languages."""
    runs = results.evaluation.runs
    scores = {name: (run.macro if _several(results) else run.mean)[measure] for name, run in runs.items()}
    known = [(name, score) for name, score in scores.items() if score is not None]
    return sorted(known, key=lambda pair: -pair[1])


def overall_differences(results: BenchmarkResults, measure: str) -> dict["Pair", ComparisonResult]:
    """Baseline and run -> their comparison over all languages, or in the only one."""
    return {pair: comparisons[-1] for pair, comparisons in compared(results, measure).items()}


def verdict(results: BenchmarkResults) -> Iterator[str]:
    """A sentence per measure: which run is first, and whether the test tells it from the baseline.

    The baseline, if it is the first, is set against the second.
    """
    names, test = system_names(results), results.evaluation.test
    for measure in results.evaluation.measures:
        ranked = ranking(results, measure)
        if is_judged(measure) or not ranked:
            continue
        average = f"{measure_name(measure)}{' (macro average)' if _several(results) else ''}"
        (first, score), others = ranked[0], [name for name, _ in ranked[1:]]
        baseline = test.baseline if test else None
        said = f"{names[first]} {'has the best' if others else 'has'} {average}, {score:.4f}"
        against = baseline if baseline in others else next(iter(others), None)
        differences = overall_differences(results, measure).items()
        one = next((one for pair, one in differences if set(pair) == {first, against}), None)
        if test and one:
            sign = 1 if one.run == first else -1
            ends = sorted(sign * end for end in (one.ci_low, one.ci_high) if end is not None)
            interval = (
                f"{100 * test.confidence:g} % interval {ends[0]:+.4f} to {ends[1]:+.4f}" if ends[1:] else ""
            )
            said += f", {sign * one.difference:+.4f} over {names[against or '']}"
            said += f" ({interval}): " if interval else ": "
            said += "significant" if one.significant else "not significant"
        yield f"{said}."


# Baseline and run.
Pair = tuple[str, str]


def compared(results: BenchmarkResults, measure: str) -> dict[Pair, list[ComparisonResult]]:
    """Pair -> its comparisons; the macro average is last, and is left out with one language."""
    found: dict[Pair, list[ComparisonResult]] = {}
    for one in results.evaluation.comparisons:
        if one.measure == measure and (_several(results) or one.language != ALL_LANGUAGES):
            found.setdefault((one.baseline, one.run), []).append(one)
    return {
        pair: sorted(comparisons, key=lambda one: one.language == ALL_LANGUAGES)
        for pair, comparisons in found.items()
    }


def comparison_table(results: BenchmarkResults, measure: str, test: ProcedureResult) -> Table:
    """All comparisons by a measure."""
    names = system_names(results)
    columns = ["language", "topics", "difference", "lower", "upper", "d_z", "wins", "ties", "losses"]
    parts = []
    marks, unseen = result_marks(results.evaluation, names)
    notes = [
        *_procedure(results, test),
        f"lower, upper: {100 * test.confidence:g} % interval of the difference. d_z: mean difference "
        f"over the standard deviation of differences. wins, ties, losses: topics. {DAGGER} significant. "
        "<: an upper bound.",
    ]
    for (baseline, run), comparisons in compared(results, measure).items():
        pair = f"{names[run]} − {names[baseline]}"
        parts.append(Rows([_row(one, marks.get(one.language, "")) for one in comparisons], pair))
        notes += [
            f"{pair}, {language_name(one)}: {one.note}"
            for one in comparisons
            if one.note and one.note != UPPER_BOUND
        ]
    return Table(
        f"{measure_name(measure)}: differences between runs",
        [Column(name, better=UP if name == "difference" else "") for name in (*columns, "p", "corrected p")],
        parts,
        list(map(Note, (*notes, *unseen))),
        f"differences-{measure.replace('@', '-')}",
        labels(results),
    )


def _row(one: ComparisonResult, mark: str) -> list[Cell]:
    bound = one.note == UPPER_BOUND
    return [
        words(language_name(one) + mark, language_name(one)),
        count(one.queries),
        *(number(value, "+.4f") for value in (one.difference, one.ci_low, one.ci_high)),
        number(one.effect_size, "+.2f"),
        *map(count, (one.wins, one.ties, one.losses)),
        probability(one.p, bound),
        probability(one.p_corrected, bound)._replace(marked=one.significant),
    ]


def language_name(one: ComparisonResult) -> str:
    """The language of a comparison, for tables."""
    return "macro" if one.language == ALL_LANGUAGES else one.language
