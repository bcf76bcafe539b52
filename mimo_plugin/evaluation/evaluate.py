"""Scores runs on the judgments of collections, and compares them with significance tests."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mimo_plugin.collections.records import usual_language
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.core.files import check_outputs, make_parent, write_text
from mimo_plugin.evaluation.compare import compare_runs, compared_pairs, tested_measures
from mimo_plugin.evaluation.measures import (
    Averages,
    Measure,
    MeasureKind,
    RunScores,
    average,
    parse_measures,
    score_run,
)
from mimo_plugin.evaluation.options import Correction, EvaluationOptions, SignificanceTest, TableFormat
from mimo_plugin.evaluation.results import (
    ComparisonResult,
    EvaluationResult,
    ProcedureResult,
    RunResult,
    SliceResult,
    TopicsResult,
    TrainedOnResult,
)
from mimo_plugin.evaluation.runs import Run, RunFile, read_run, run_files, run_problems
from mimo_plugin.evaluation.significance import Plan
from mimo_plugin.evaluation.slices import Slices, compare_slices
from mimo_plugin.evaluation.topics import (
    UNKNOWN_LANGUAGE,
    Topics,
    check_docids,
    check_own,
    check_queries,
    load_topics,
    open_qrels,
    without_queries,
)
from mimo_plugin.evaluation.trained_on import apart, of_runs, parse_seen_languages

if TYPE_CHECKING:
    import pandas

_DEFAULT_DEPTH = 10


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Runs scored and compared; it prints as the tables of `mimo evaluate`.

    Attributes:
        judged: the Judged@k shown beside the measures.
        compared: empty if nothing was compared; `plan` is None then.
        warnings: one line each.
        trained_on: run -> documents its encoder was trained on, where known.
        seen_languages: run -> languages its encoder was trained on, where known.
        slices: name -> its results; `unsliced` topics are in none.
        collections: names of topics and judgments; () where they were in memory.
    """

    topics: Topics
    measures: tuple[Measure, ...]
    judged: Measure
    scores: tuple[RunScores, ...]
    compared: tuple[ComparisonResult, ...] = ()
    plan: Plan | None = None
    baseline: str | None = None
    warnings: tuple[str, ...] = ()
    trained_on: Mapping[str, TrainedOnResult] = field(default_factory=dict)
    seen_languages: Mapping[str, Set[str]] = field(default_factory=dict)
    slices: Mapping[str, SliceResult] = field(default_factory=dict)
    unsliced: int = 0
    collections: Sequence[str] = ()

    def averages(self, scores: RunScores, measure: Measure) -> Averages:
        """Averages of one measure of one run."""
        return average(scores.per_topic[measure], self.topics)

    @cached_property
    def unseen(self) -> dict[str, tuple[str, ...]]:
        """Run -> languages that its encoder was not trained on, where it is known what it was trained on."""
        return {
            name: tuple(
                language
                for language in self.topics.languages
                if language != UNKNOWN_LANGUAGE and usual_language(language) not in seen
            )
            for name, seen in self.seen_languages.items()
        }

    @cached_property
    def result(self) -> EvaluationResult:
        """All numbers, as they are written to JSON.

        Undefined values are None, never NaN. A p too small to be computed is an upper bound, never 0; the
        comparison's note says so.
        """
        measures = tuple(dict.fromkeys((*self.measures, self.judged)))
        topics = self.topics
        return EvaluationResult(
            collections=tuple(self.collections),
            measures=tuple(map(str, measures)),
            runs={scores.name: self._run(scores, measures) for scores in self.scores},
            comparisons=self.compared,
            test=self._test(),
            topics=TopicsResult(
                judged=len(topics.query_ids),
                languages=topics.counts,
                parallel=topics.parallel,
                units=topics.blocks,
            ),
            slices=self.slices,
            unsliced=self.unsliced,
        )

    def _run(self, scores: RunScores, measures: Sequence[Measure]) -> RunResult:
        averages = {str(measure): self.averages(scores, measure) for measure in measures}
        return RunResult(
            mean={name: found.mean for name, found in averages.items()},
            macro={name: found.macro for name, found in averages.items()},
            per_language={
                language: {name: found.per_language[language] for name, found in averages.items()}
                | {"queries": queries}
                for language, queries in self.topics.counts.items()
            },
            queries=scores.counts,
            trained_on=self.trained_on.get(scores.name),
            unseen_languages=self.unseen.get(scores.name, ()),
            apart={
                part: {name: found.over(languages) for name, found in averages.items()}
                for part, languages in apart(scores.name, self.topics.languages, self.unseen).items()
            },
        )

    def _test(self) -> ProcedureResult | None:
        plan = self.plan
        if plan is None:
            return None
        units, within = "topics", "within their language"
        if self.topics.parallel:
            units, within = "units (a topic in all its languages)", "from one stratum of all units"
        return ProcedureResult(
            name=plan.test,
            macro={
                "p": f"randomisation of run labels within {units}",
                "interval": f"percentile bootstrap of {units}, drawn {within}",
                "note": "p and interval come from different methods and can disagree at the level",
            },
            baseline=self.baseline,
            correction=plan.correction,
            alpha=plan.alpha,
            confidence=1 - plan.alpha,
            permutations=plan.permutations,
            seed=plan.seed,
        )

    def to_frame(self) -> "pandas.DataFrame":
        """A row per run and language, then its averages, such as "macro"; a column per measure, and
        `queries`."""
        import pandas

        rows = []
        for name, run in self.result.runs.items():
            parts = {**run.per_language, "macro": run.macro, **run.apart, "mean": run.mean}
            rows += [{"run": name, "language": language, **values} for language, values in parts.items()]
        return pandas.DataFrame(rows).set_index(["run", "language"])

    def comparisons(self) -> "pandas.DataFrame":
        """A row per comparison, with the fields of `ComparisonResult`."""
        import pandas

        fields = ComparisonResult.model_fields
        columns = list(dict.fromkeys(("baseline", "run", "measure", "language", *fields)))
        return pandas.DataFrame([one.model_dump() for one in self.compared], columns=columns)

    def render(self, form: TableFormat = TableFormat.TEXT, *, bold: bool = False) -> str:
        """The tables of `mimo evaluate` as text, Markdown or LaTeX; see `core.table.render`."""
        from mimo_plugin.core.table import render
        from mimo_plugin.evaluation.tables import make_tables

        return render(make_tables(self), form, bold=bold)

    def summary(self, *, bold: bool = False) -> str:
        """One table as text: a row per run, with the macro average or the score of the only language."""
        from mimo_plugin.core.table import render
        from mimo_plugin.evaluation.tables import make_summary

        return render([make_summary(self)], TableFormat.TEXT, bold=bold)

    def save(self, path: str | Path) -> None:
        """Writes all numbers as JSON, as `mimo evaluate --json` does."""
        make_parent(Path(path))
        write_text(Path(path), self.result.to_json())

    def __repr__(self) -> str:
        return self.render().rstrip()

    def _repr_html_(self) -> str:
        from mimo_plugin.core.table import to_html
        from mimo_plugin.evaluation.tables import make_tables

        return "\n".join(map(to_html, make_tables(self)))


def evaluate(
    runs: Any,
    qrels: Any,
    options: EvaluationOptions | None = None,
    *,
    outputs: Sequence[Path] = (),
    seen: Mapping[str, TrainedOnResult] | None = None,
    **changes: Any,
) -> Evaluation:
    """Evaluates runs against judgments; scores equal `trec_eval -c`.

    ::

        evaluate({"e5": run, "bm25": "bm25.trec"}, "miracl/sw/dev", measures=["nDCG@10"], baseline="bm25")

    Args:
        runs: name -> run, or several runs; each a `Run`, a file, `NAME=FILE`, or anything `Run.of` takes.
        qrels: collections or files of judgments, or their names; an ir_datasets dataset; or query id ->
            docid -> relevance, as a mapping or a DataFrame.
        outputs: files that the caller will write afterwards; they are checked with the options.
        seen: value of `Evaluation.trained_on`. None looks up the encoders of the runs, and reads the
            documents if an encoder has a record of its training texts.
        changes: fields of `EvaluationOptions`.

    Raises:
        UsageError, DataError: with all problems of options and files, before anything is read; then with all
            problems in the contents of collections and runs. A `UsageError` if all are about options.
    """
    options = replace(options or EvaluationOptions(), **changes)
    request = _check(runs, qrels, options, outputs)
    measures, plan = request.measures, request.plan
    depth = next((measure.cutoff for measure in measures if measure.cutoff), _DEFAULT_DEPTH)
    judged = next(
        (measure for measure in measures if measure.kind is MeasureKind.JUDGED),
        Measure(MeasureKind.JUDGED, depth),
    )
    topics, slices, scores, warnings = _score(request, tuple(dict.fromkeys((*measures, judged))), options)
    languages: Mapping[str, Set[str] | Sequence[str]] = {}
    if seen is None:
        files = {source.name: source.path for source in request.runs if isinstance(source, RunFile)}
        seen, languages, more = of_runs(files, request.pool, request.collections, options.progress)
        warnings += more
    compared: list[ComparisonResult] = []
    if plan is not None:
        compared = compare_runs(scores, topics, measures, request.pairs, plan, options.progress)
    parts: Mapping[str, SliceResult] = {}
    if slices is not None:
        parts = compare_slices(slices, scores, topics, measures, request.pairs, plan, options.progress)
    return Evaluation(
        topics=topics,
        measures=measures,
        judged=judged,
        scores=tuple(scores),
        compared=tuple(compared),
        plan=plan,
        baseline=options.baseline,
        warnings=(*warnings, *_warnings(topics, scores, measures, plan)),
        trained_on=seen,
        seen_languages={name: frozenset(map(usual_language, found)) for name, found in languages.items()}
        | request.seen_languages,
        slices=parts,
        unsliced=slices.unsliced if slices else 0,
        collections=request.collections,
    )


class _Request(NamedTuple):
    """A checked evaluation. pool: the opened judgments. plan: None without pairs."""

    runs: Sequence[RunFile | Run]
    pool: Any
    collections: Sequence[str]
    measures: tuple[Measure, ...]
    pairs: Sequence[tuple[int, int]]
    plan: Plan | None
    seen_languages: dict[str, frozenset[str]]


def _check(runs: Any, qrels: Any, options: EvaluationOptions, outputs: Sequence[Path]) -> _Request:
    """Checks all that needs no reading of runs, topics and judgments."""
    problems = Problems()
    sources: list[RunFile | Run] = []
    measures: tuple[Measure, ...] = ()
    with problems.collect():
        sources = _named_runs(runs)
    with problems.collect():
        measures = parse_measures(options.measures)
    with problems.collect():
        plan = _plan(options)
    with problems.collect():
        pairs = compared_pairs([source.name for source in sources], options.baseline, options.test)
    if measures and not tested_measures(measures) and (options.test or options.baseline is not None):
        problems.add(
            f"{', '.join(map(str, measures))}: judged@k is no measure of quality and is not tested, "
            "expected another measure, such as ndcg@10, to compare runs with",
            UsageError,
        )
    files = [source for source in sources if isinstance(source, RunFile)]
    with problems.collect():
        check_outputs(outputs, {f"the run {name!r}": path for name, path in files})
    with problems.collect():
        pool, collections = open_qrels(qrels, options)
    problems.extend(run_problems(files))
    with problems.collect():
        seen_languages = parse_seen_languages(options.seen_languages, [source.name for source in sources])
    problems.raise_any()
    return _Request(sources, pool, collections, measures, pairs, plan if pairs else None, seen_languages)


def _named_runs(runs: Any) -> list[RunFile | Run]:
    if isinstance(runs, Mapping) and not isinstance(runs, Run):
        return [
            RunFile(name, Path(run)) if isinstance(run, str | Path) else Run.of(run, name)
            for name, run in runs.items()
        ]
    several = runs if isinstance(runs, Sequence) and not isinstance(runs, str) else [runs]
    found = [run_files([run])[0] if isinstance(run, str | Path) else Run.of(run) for run in several]
    names = [run.name for run in found]
    for run in found:
        if isinstance(run, Run) and names.count(run.name) > 1:
            raise DataError(f"two runs are named {run.name!r}, expected different names: give {{name: run}}")
    return found


def _plan(options: EvaluationOptions) -> Plan:
    problems = Problems(UsageError)
    kinds = {"test": SignificanceTest, "correction": Correction}
    for name, kind in kinds.items():
        given = getattr(options, name)
        if given is not None and given not in list(kind):
            problems.add(f"{name} is {given!r}, expected one of {', '.join(kind)}")
    if not 0 < options.alpha < 1:
        problems.add(f"alpha is {options.alpha}, expected a level between 0 and 1, such as 0.05")
    if options.permutations < 1000:
        problems.add(f"{options.permutations} permutations, expected 1000 or more for a stable p-value")
    problems.raise_any()
    return Plan(
        SignificanceTest(options.test or SignificanceTest.STUDENT),
        Correction(options.correction),
        options.alpha,
        options.permutations,
        options.seed,
    )


def _score(
    request: _Request, measures: Sequence[Measure], options: EvaluationOptions
) -> tuple[Topics, Slices | None, list[RunScores], list[str]]:
    """The topics and their slices, each run's scores, and warnings. Memory holds one run at a time."""
    problems = Problems()
    with problems.collect():
        topics = load_topics(request.pool, options.languages)
    known = not problems
    slices = None
    if known and options.slices is not None:
        with problems.collect():
            slices = Slices.of(options.slices, topics)
    scores = []
    warnings = []
    for source in bar(request.runs, what="scoring", unit="runs", enabled=options.progress):
        with problems.collect():
            run = read_run(source.path, source.name) if isinstance(source, RunFile) else source
            if not known:
                continue
            if options.remove_query:
                run = without_queries(run)
            problems.extend(check_queries(run, topics, options.ignore_unknown_queries))
            if not problems:
                warnings += [*check_docids(run, topics), *check_own(run, topics)]
                scores.append(score_run(run, topics, measures))
    problems.raise_any()
    return topics, slices, scores, warnings


def _warnings(
    topics: Topics, scores: Sequence[RunScores], measures: Sequence[Measure], plan: Plan | None
) -> Iterator[str]:
    if plan is None and len(scores) > 1:
        yield "runs were not compared: name one as --baseline, or use --test tukey-hsd for all pairs of three"
    if topics.unlisted:
        yield (
            f"{len(topics.unlisted)} judged topics are not among the collection's queries, for example "
            f"{topics.unlisted[0]!r}; as in trec_eval they count in the mean, and score 0 where a run lacks "
            "them, but they are in no language and not in the macro average"
        )
    if topics.copies:
        yield f"{topics.copies} queries and judgments are repeated and are counted once"
    irrelevant = sum(not (judged.relevance > 0).any() for judged in topics.judged)
    if irrelevant == len(topics.judged):
        yield f"none of the {irrelevant} judged topics has a relevant document: every score is 0"
    elif irrelevant:
        yield (
            f"{irrelevant} of {len(topics.judged)} judged topics have no relevant document and score 0, as "
            "in trec_eval, whatever a run finds"
        )
    for score in scores:
        shallow = [str(measure) for measure in measures if measure.cutoff and measure.cutoff > score.depth]
        if shallow:
            yield (
                f"run {score.name!r} has {score.depth} hits a query at most, fewer than the cutoff of "
                f"{', '.join(shallow)}: search deeper, or read the measures as cut at {score.depth}"
            )
