"""The whole of it: run files and collections in, scores and comparisons out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimo_plugin.errors import DataError, Findings
from mimo_plugin.evaluation.averages import Averages, average
from mimo_plugin.evaluation.comparison import Comparison, compare_runs, count_tests
from mimo_plugin.evaluation.measures import Measure, MeasureKind
from mimo_plugin.evaluation.request import EvaluationOptions, Request, check_request
from mimo_plugin.evaluation.run_reader import read_run
from mimo_plugin.evaluation.scoring import RunScores, score_run
from mimo_plugin.evaluation.significance import Plan
from mimo_plugin.evaluation.topics import (
    Topics,
    check_docids,
    check_own,
    check_queries,
    load_topics,
    without_queries,
)
from mimo_plugin.evaluation.trained_on import TrainedOn, of_runs
from mimo_plugin.progress import bar

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
