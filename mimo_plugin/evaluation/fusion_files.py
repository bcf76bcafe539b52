"""Run files fused into a run file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.errors import DataError, Findings, UsageError
from mimo_plugin.evaluation.fusion import FusionOptions, fused_queries, fusion_warnings
from mimo_plugin.evaluation.request import check_outputs
from mimo_plugin.evaluation.run_reader import file_problem, read_run, run_files, same_names
from mimo_plugin.evaluation.runs import Run, write_run
from mimo_plugin.progress import bar

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Fused:
    """Attributes:
    queries: number of queries.
    lines: lines of the run.
    warnings: what a user should know, a line each.
    """

    queries: int
    lines: int
    warnings: tuple[str, ...]


def fuse_files(
    specs: Sequence[str],
    output: Path,
    options: FusionOptions | None = None,
    *,
    hits: int | None = None,
    tag: str = "fusion",
    progress: bool | None = None,
) -> Fused:
    """Reads runs, FILE or NAME=FILE, and writes their fusion query by query.

    Memory holds the runs that are read, and one query of the result.

    Raises:
        DataError, UsageError: in two steps, each with all its problems: first what can be seen of options and
            files without reading them, a `UsageError` when all of it is about options; then what is wrong in
            the runs.
        EnvironmentProblem: the run cannot be written.
    """
    options = options or FusionOptions()
    findings = Findings()
    files = run_files(specs)
    findings.add(DataError, same_names(files))
    findings.add(UsageError, options.problems(len(files)))
    if hits is not None and hits < 1:
        findings.add(UsageError, [f"hits is {hits}, expected 1 or more"])
    findings.attempt(check_outputs, [output], files)
    if tag.split() != [tag]:
        findings.add(UsageError, [f"tag is {tag!r}, expected one word: a TREC run is split at white space"])
    missing = [problem for problem in (file_problem(file.path) for file in files) if problem]
    if findings:
        findings.add(DataError, dict.fromkeys(missing))
    findings.raise_any()
    runs: list[Run] = []
    for file in bar(files, what="reading", unit="runs", enabled=progress):
        run = findings.attempt(read_run, file.path, file.name)
        if run is not None:
            runs.append(run)
    findings.raise_any()
    warnings = fusion_warnings(runs)
    total = len(set().union(*(run.queries for run in runs)))

    def hits_of_queries() -> Iterator[tuple[str, list[str], "np.ndarray"]]:
        for query_id, ranking in bar(
            fused_queries(runs, options, hits=hits),
            total=total,
            what="fusing",
            unit="queries",
            enabled=progress,
        ):
            yield query_id, [docid.decode() for docid in ranking.docids.tolist()], ranking.scores

    return Fused(total, write_run(output, hits_of_queries(), tag), tuple(warnings))
