"""What is asked of an evaluation, checked as a whole before anything long is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mimo_plugin.collections.records import ERROR
from mimo_plugin.errors import DataError, Findings, Problems, UsageError
from mimo_plugin.evaluation.choices import Correction, SignificanceTest
from mimo_plugin.evaluation.comparison import compared_pairs, tested_measures
from mimo_plugin.evaluation.measures import Measure, parse_measures
from mimo_plugin.evaluation.run_reader import RunFile, file_problem, run_files, same_names
from mimo_plugin.evaluation.significance import Pair, Plan
from mimo_plugin.evaluation.topics import open_pool
from mimo_plugin.files import check_place

DEFAULT_MEASURES = "ndcg@10,recall@100"


@dataclass(frozen=True)
class EvaluationOptions:
    """How runs are evaluated.

    measures: names as `parse_measures` reads them. baseline: the run that others are compared with. test:
    None is student where there is a baseline, and no comparison where there is none. alpha, permutations,
    seed: see `Plan`. pooled: topics get their pool's prefix also for a single collection; None gives it
    to several only. shared_topics, topic_field, topic_lang: see `load_pool`. languages: of the topics to
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
