"""An evaluation from its request to its numbers, and these as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mimo_plugin.collections.records import ERROR
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Findings, Problems, UsageError
from mimo_plugin.core.files import check_place
from mimo_plugin.evaluation.compare import (
    Comparison,
    compare_runs,
    compared_pairs,
    count_tests,
    tested_measures,
)
from mimo_plugin.evaluation.measures import (
    Averages,
    Measure,
    MeasureKind,
    RunScores,
    average,
    parse_measures,
    score_run,
)
from mimo_plugin.evaluation.options import Correction, SignificanceTest
from mimo_plugin.evaluation.runs import RunFile, file_problem, read_run, run_files, same_names
from mimo_plugin.evaluation.significance import Pair, Plan
from mimo_plugin.evaluation.topics import (
    Topics,
    check_docids,
    check_own,
    check_queries,
    load_topics,
    open_pool,
    without_queries,
)
from mimo_plugin.evaluation.trained_on import TrainedOn, of_runs

DEFAULT_MEASURES = "ndcg@10,recall@100"


@dataclass(frozen=True)
class EvaluationOptions:
    """How runs are evaluated.

    measures: names as `parse_measures` reads them. baseline: the run that others are compared with. test:
    None is student where there is a baseline, and no comparison where there is none. alpha, permutations,
    seed: see `Plan`. pooled: topics get their pool's prefix also for a single collection; None gives it
    to several only. shared_topics, topic_field, topic_lang: see `load`. languages: of the topics to
    evaluate on, `"de,en"` or several such, none for all. ignore_unknown_queries: leave out queries of a run
    that are no topics. topics, lang, duplicates: see `open_pool`. remove_query: hits whose docid is the
    query's id are left out. progress: None shows bars on a terminal.
    """

    measures: str | Sequence[str] = DEFAULT_MEASURES
    baseline: str | None = None
    test: SignificanceTest | None = None
    correction: Correction = Correction.HOLM
    alpha: float = Plan.alpha
    permutations: int = Plan.permutations
    seed: int = Plan.seed
    pooled: bool | None = None
    shared_topics: bool = False
    topic_field: str | None = None
    topic_lang: str | None = None
    languages: str | Sequence[str] = ()
    ignore_unknown_queries: bool = False
    topics: Sequence[str] = ()
    lang: Sequence[str] = ()
    duplicates: str = ERROR
    remove_query: bool = False
    progress: bool | None = None


class Request(NamedTuple):
    """What is to be read and computed. pool: the collections as one dataset. plan: None without pairs."""

    files: Sequence[RunFile]
    pool: Any
    measures: tuple[Measure, ...]
    pairs: Sequence[Pair]
    plan: Plan | None


def check_request(
    runs: Sequence[str],
    collections: Sequence[str],
    options: EvaluationOptions,
    outputs: Sequence[Path] = (),
    pool: Any = None,
) -> Request:
    """Checks everything that can be checked without reading runs, topics and judgments.

    A missing run file alone raises nothing yet, unless all are missing: `read_run` reports it together
    with what is wrong in the other runs.

    Raises one error with every problem: `UsageError` when all are about options, else `DataError`.
    """
    findings = Findings()
    files = run_files(runs)
    findings.add(DataError, same_names(files))
    measures = findings.attempt(parse_measures, options.measures) or ()
    findings.attempt(_check_numbers, options)
    pairs = findings.attempt(compared_pairs, [file.name for file in files], options.baseline, options.test)
    if measures and not tested_measures(measures) and (options.test or options.baseline is not None):
        findings.add(
            UsageError,
            [
                f"{', '.join(map(str, measures))}: judged@k is no measure of quality and is not tested, "
                "expected another measure, such as ndcg@10, to compare runs with"
            ],
        )
    findings.attempt(check_outputs, outputs, files)
    if pool is None:
        pool = findings.attempt(
            open_pool,
            collections,
            options.pooled,
            shared_topics=options.shared_topics,
            topic_field=options.topic_field,
            topic_lang=options.topic_lang,
            topics=options.topics,
            lang=options.lang,
            duplicates=options.duplicates,
        )
    missing = [problem for problem in (file_problem(file.path) for file in files) if problem]
    if findings or len(missing) == len(files):
        findings.add(DataError, dict.fromkeys(missing))
    findings.raise_any()
    plan = Plan(
        options.test or SignificanceTest.STUDENT,
        options.correction,
        options.alpha,
        options.permutations,
        options.seed,
    )
    return Request(files, pool, measures, pairs or [], plan if pairs else None)


def _check_numbers(options: EvaluationOptions) -> None:
    problems = Problems(UsageError)
    if not 0 < options.alpha < 1:
        problems.add(f"alpha is {options.alpha}, expected a level between 0 and 1, such as 0.05")
    if options.permutations < 1000:
        problems.add(f"{options.permutations} permutations, expected 1000 or more for a stable p-value")
    problems.raise_any()


def check_outputs(outputs: Sequence[Path], files: Sequence[RunFile] = ()) -> None:
    """Raises `UsageError` for files that cannot be written, or that would take the place of a run or of
    each other."""
    problems = Problems(UsageError)
    for position, path in enumerate(outputs):
        try:
            check_place(path)
        except UsageError as error:
            problems.add(str(error))
            continue
        for file in files:
            if _same_file(path, file.path):
                problems.add(
                    f"{path}: is the file of the run {file.name!r}, expected another one to write to"
                )
        if any(_same_file(path, other) for other in outputs[:position]):
            problems.add(f"{path}: named for two outputs, expected a file each for tables and JSON")
    problems.raise_any()


def _same_file(one: Path, other: Path) -> bool:
    """Whether two names lead to one file, also when it does not exist yet."""
    try:
        return one.samefile(other)
    except OSError:
        return one.resolve() == other.resolve()


_DEFAULT_DEPTH = 10


@dataclass(frozen=True)
class Evaluation:
    """Runs scored and compared.

    measures: those asked for. judged: the Judged@k that goes with them. comparisons and plan: empty and
    None where nothing was compared. trained_on: run -> what its encoder was trained on, where that is known.
    warnings: what a user should know, a line each.
    """

    topics: Topics
    measures: tuple[Measure, ...]
    judged: Measure
    scores: tuple[RunScores, ...]
    comparisons: tuple[Comparison, ...]
    plan: Plan | None
    baseline: str | None
    warnings: tuple[str, ...]
    trained_on: Mapping[str, TrainedOn] = field(default_factory=dict)

    def averages(self, scores: RunScores, measure: Measure) -> Averages:
        return average(scores.per_topic[measure], self.topics)


def evaluate(
    runs: Sequence[str],
    collections: Sequence[str],
    options: EvaluationOptions | None = None,
    outputs: Sequence[Path] = (),
    *,
    pool: Any = None,
    seen: Mapping[str, TrainedOn] | None = None,
) -> Evaluation:
    """Evaluates run files, FILE or NAME=FILE, against the judgments of one collection or a pool of
    several.

    outputs: files that the caller will write afterwards; they are checked with the options. pool: an
    ir_datasets dataset with the topics and judgments, in place of the one that is made of the collections.
    seen: what `Evaluation.trained_on` is to hold; None looks for the encoders of the runs, and where one has
    a record of its training reads the documents.

    Problems are reported in two steps: first everything about options, files and collections that can be
    seen without reading them (see `check_request`), then everything about the contents of the collections
    and of all runs. Each step raises one error, `UsageError` when all its problems are about options, else
    `DataError`.
    """
    options = options or EvaluationOptions()
    request = check_request(runs, collections, options, outputs, pool)
    measures, plan = request.measures, request.plan
    judged = _judged_measure(measures)
    topics, scores, warnings = _read(request, tuple(dict.fromkeys((*measures, judged))), options)
    if seen is None:
        runs_by_name = {file.name: file.path for file in request.files}
        seen, told = of_runs(runs_by_name, request.pool, collections, options.progress)
        warnings += told
    comparisons: list[Comparison] = []
    if plan is not None:
        total = count_tests(len(scores), topics, measures, request.pairs, plan)
        with bar(total=total, what="comparing", unit="tests", enabled=options.progress) as counter:
            comparisons = compare_runs(scores, topics, measures, request.pairs, plan, counter.update)
    return Evaluation(
        topics=topics,
        measures=measures,
        judged=judged,
        scores=tuple(scores),
        trained_on=seen,
        comparisons=tuple(comparisons),
        plan=plan,
        baseline=options.baseline,
        warnings=(*warnings, *_warnings(topics, scores, measures, plan)),
    )


def _judged_measure(measures: Sequence[Measure]) -> Measure:
    for measure in measures:
        if measure.kind is MeasureKind.JUDGED:
            return measure
    depth = next((measure.cutoff for measure in measures if measure.cutoff), _DEFAULT_DEPTH)
    return Measure(MeasureKind.JUDGED, depth)


def _read(
    request: Request, measures: Sequence[Measure], options: EvaluationOptions
) -> tuple[Topics, list[RunScores], list[str]]:
    """The topics, and each run's scores and warnings.

    Runs are read and scored one after the other, so that memory holds one; all problems come together.
    """
    findings = Findings()
    topics = findings.attempt(load_topics, request.pool, options.languages)
    scores = []
    warnings = []
    for file in bar(request.files, what="scoring", unit="runs", enabled=options.progress):
        run = findings.attempt(read_run, file.path, file.name)
        if run is None or topics is None:
            continue
        if options.remove_query:
            run = without_queries(run)
        findings.add(DataError, check_queries(run, topics, options.ignore_unknown_queries))
        if not findings:
            warnings += [*check_docids(run, topics), *check_own(run, topics)]
            scores.append(score_run(run, topics, measures))
    return findings.complete(topics), scores, warnings


def _warnings(
    topics: Topics, scores: Sequence[RunScores], measures: Sequence[Measure], plan: Plan | None
) -> Iterable[str]:
    if plan is None and len(scores) > 1:
        yield "runs were not compared: name one as --baseline, or use --test tukey-hsd for all pairs of three"
    if topics.unlisted:
        yield (
            f"{len(topics.unlisted)} judged topics are not among the collection's queries, for example "
            f"{topics.unlisted[0]!r}; as in trec_eval they count in the mean, and score 0 where a run lacks "
            "them, but they are in no language and not in the macro average"
        )
    if topics.copies:
        yield f"{topics.copies} queries and judgments were there once more, and are counted once"
    barren = sum(not (judged.relevance > 0).any() for judged in topics.judged)
    if barren == len(topics.judged):
        yield f"none of the {barren} judged topics has a relevant document: every score is 0"
    elif barren:
        yield (
            f"{barren} of {len(topics.judged)} judged topics have no relevant document and score 0, as in "
            "trec_eval, whatever a run finds"
        )
    for score in scores:
        shallow = [str(measure) for measure in measures if measure.cutoff and measure.cutoff > score.depth]
        if shallow:
            yield (
                f"run {score.name!r} has {score.depth} hits a query at most, fewer than the cutoff of "
                f"{', '.join(shallow)}: search deeper, or read them as cut at {score.depth}"
            )


def to_json(evaluation: Evaluation) -> str:
    """Text of a JSON object: measures, runs, comparisons, test, topics.

    Values that are not defined are null, never NaN. A p that is too small to be computed is an upper
    bound, never 0; the comparison's note says so.
    """
    measures = tuple(dict.fromkeys((*evaluation.measures, evaluation.judged)))
    content = {
        "measures": [str(measure) for measure in measures],
        "runs": {scores.name: _run(evaluation, scores, measures) for scores in evaluation.scores},
        "comparisons": [_comparison(comparison) for comparison in evaluation.comparisons],
        "test": _test(evaluation),
        "topics": {
            "judged": len(evaluation.topics.query_ids),
            "languages": evaluation.topics.counts,
            "parallel": evaluation.topics.parallel,
            "units": evaluation.topics.blocks,
        },
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def _run(evaluation: Evaluation, scores: RunScores, measures: tuple[Measure, ...]) -> dict[str, Any]:
    averages = {str(measure): evaluation.averages(scores, measure) for measure in measures}
    counts = scores.counts
    trained_on = evaluation.trained_on.get(scores.name)
    return {
        "mean": {name: average.mean for name, average in averages.items()},
        "macro": {name: average.macro for name, average in averages.items()},
        "per_language": {
            language: {name: average.per_language[language] for name, average in averages.items()}
            | {"queries": queries}
            for language, queries in evaluation.topics.counts.items()
        },
        "queries": {
            "judged": counts.judged,
            "retrieved": counts.retrieved,
            "missing": counts.missing,
            "unjudged": counts.unjudged,
            "unknown": counts.unknown,
        },
        **({"trained_on": trained_on.as_json()} if trained_on else {}),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return vars(comparison) | {"measure": str(comparison.measure), "note": comparison.note or None}


def _test(evaluation: Evaluation) -> dict[str, Any] | None:
    plan = evaluation.plan
    if plan is None:
        return None
    return {
        "name": plan.test.value,
        "macro": _macro(evaluation),
        "baseline": evaluation.baseline,
        "correction": plan.correction.value,
        "alpha": plan.alpha,
        "confidence": 1 - plan.alpha,
        "permutations": plan.permutations,
        "seed": plan.seed,
    }


def _macro(evaluation: Evaluation) -> dict[str, str]:
    if evaluation.topics.parallel:
        units, within = "units (a topic in all its languages)", "from one stratum of all units"
    else:
        units, within = "topics", "within their language"
    return {
        "p": f"randomisation of run labels within {units}",
        "interval": f"percentile bootstrap of {units}, drawn {within}",
        "note": "p and interval come from different methods and can disagree at the level",
    }
