"""The whole of it: run files and collections in, scores and comparisons out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mimo_plugin.errors import DataError, Problems, UsageError
from mimo_plugin.evaluation.averages import Averages, average
from mimo_plugin.evaluation.choices import Correction, SignificanceTest
from mimo_plugin.evaluation.comparison import Comparison, compare_runs, compared_pairs, count_tests
from mimo_plugin.evaluation.measures import Measure, MeasureKind, parse_measures
from mimo_plugin.evaluation.run_reader import RunFile, read_run, run_files
from mimo_plugin.evaluation.scoring import RunScores, score_run
from mimo_plugin.evaluation.significance import Plan
from mimo_plugin.evaluation.topics import Topics, check_queries, load_topics
from mimo_plugin.progress import bar

DEFAULT_MEASURES = "ndcg@10,recall@100"
_DEFAULT_DEPTH = 10


@dataclass(frozen=True)
class EvaluationOptions:
    """How runs are evaluated.

    measures: names as `parse_measures` reads them. baseline: the run that others are compared with. test:
    None is student where there is a baseline, and no comparison where there is none. alpha, permutations,
    seed: see `Plan`. pooled: topics get their pool's prefix also for a single collection; None gives it
    to several only. languages: of the topics to evaluate on, none for all. ignore_unknown_queries: leave
    out queries of a run that are no topics. progress: None shows bars on a terminal.
    """

    measures: str | Sequence[str] = DEFAULT_MEASURES
    baseline: str | None = None
    test: SignificanceTest | None = None
    correction: Correction = Correction.HOLM
    alpha: float = Plan.alpha
    permutations: int = Plan.permutations
    seed: int = Plan.seed
    pooled: bool | None = None
    languages: Sequence[str] = ()
    ignore_unknown_queries: bool = False
    progress: bool | None = None


@dataclass(frozen=True)
class Evaluation:
    """Runs scored and compared.

    measures: those asked for. judged: the Judged@k that goes with them. comparisons and plan: empty and
    None where nothing was compared. warnings: what a user should know, a line each.
    """

    topics: Topics
    measures: tuple[Measure, ...]
    judged: Measure
    scores: tuple[RunScores, ...]
    comparisons: tuple[Comparison, ...]
    plan: Plan | None
    baseline: str | None
    warnings: tuple[str, ...]

    def averages(self, scores: RunScores, measure: Measure) -> Averages:
        return average(scores.per_topic[measure], self.topics)


def evaluate(
    runs: Sequence[str], collections: Sequence[str], options: EvaluationOptions | None = None
) -> Evaluation:
    """Evaluates run files, FILE or NAME=FILE, against the judgments of one collection or a pool of
    several.

    Raises `UsageError` for options that do not fit and `DataError` with every problem of every run file.
    """
    options = options or EvaluationOptions()
    measures, judged = _measures(options)
    files = run_files(runs)
    names = [file.name for file in files]
    pairs = compared_pairs(names, options.baseline, options.test)
    plan = _plan(options) if pairs else None
    topics = load_topics(collections, options.pooled, options.languages)
    scores = _score_all(files, topics, list(dict.fromkeys((*measures, judged))), options)
    comparisons: list[Comparison] = []
    if plan is not None:
        total = count_tests(len(scores), topics, measures, pairs, plan)
        with bar(total=total, what="comparing", unit="tests", enabled=options.progress) as counter:
            comparisons = compare_runs(scores, topics, measures, pairs, plan, counter.update)
    return Evaluation(
        topics=topics,
        measures=measures,
        judged=judged,
        scores=tuple(scores),
        comparisons=tuple(comparisons),
        plan=plan,
        baseline=options.baseline,
        warnings=tuple(_warnings(topics, scores, measures, plan)),
    )


def _measures(options: EvaluationOptions) -> tuple[tuple[Measure, ...], Measure]:
    measures = parse_measures(options.measures)
    for measure in measures:
        if measure.kind is MeasureKind.JUDGED:
            return measures, measure
    depth = next((measure.cutoff for measure in measures if measure.cutoff), _DEFAULT_DEPTH)
    return measures, Measure(MeasureKind.JUDGED, depth)


def _plan(options: EvaluationOptions) -> Plan:
    if not 0 < options.alpha < 1:
        raise UsageError(f"alpha is {options.alpha}, expected a level between 0 and 1, such as 0.05")
    if options.permutations < 1000:
        raise UsageError(f"{options.permutations} permutations, expected 1000 or more for a stable p-value")
    return Plan(
        options.test or SignificanceTest.STUDENT,
        options.correction,
        options.alpha,
        options.permutations,
        options.seed,
    )


def _score_all(
    files: Sequence[RunFile], topics: Topics, measures: Sequence[Measure], options: EvaluationOptions
) -> list[RunScores]:
    """Reads and scores one run after the other, so that memory holds one; all files' problems come
    together."""
    problems = Problems(DataError)
    scores = []
    for file in bar(files, what="scoring", unit="runs", enabled=options.progress):
        try:
            run = read_run(file.path, file.name)
        except DataError as error:
            problems.extend(str(error).splitlines())
            continue
        found = check_queries(run, topics, options.ignore_unknown_queries)
        problems.extend(found)
        if not found and not problems:
            scores.append(score_run(run, topics, measures))
    problems.raise_any()
    return scores


def _warnings(
    topics: Topics, scores: Sequence[RunScores], measures: Sequence[Measure], plan: Plan | None
) -> Iterable[str]:
    if plan is None and len(scores) > 1:
        yield "runs were not compared: name one as --baseline, or use --test tukey-hsd for all pairs of three"
    if topics.unlisted:
        yield (
            f"{len(topics.unlisted)} judged topics are not among the collection's queries, for example "
            f"{topics.unlisted[0]!r}; as in trec_eval they count, and score 0 where a run lacks them"
        )
    for score in scores:
        shallow = [str(measure) for measure in measures if measure.cutoff and measure.cutoff > score.depth]
        if shallow:
            yield (
                f"run {score.name!r} has {score.depth} hits a query at most, fewer than the cutoff of "
                f"{', '.join(shallow)}: search deeper, or read them as cut at {score.depth}"
            )
