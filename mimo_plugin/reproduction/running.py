"""A whole table from one command: what is there already is not made again."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mimo_plugin.analysis.encoders import parse_encoders
from mimo_plugin.errors import ArtifactError, DataError, Findings
from mimo_plugin.evaluation.choices import SignificanceTest
from mimo_plugin.files import check_place, size_text, write_text
from mimo_plugin.locking import one_writer
from mimo_plugin.reproduction.bias import Languages, look_at_run
from mimo_plugin.reproduction.dense import DenseSystem, free_bytes, require_space
from mimo_plugin.reproduction.fused import fuse
from mimo_plugin.reproduction.geometry import encoder_geometry
from mimo_plugin.reproduction.lexical_run import LexicalSystem
from mimo_plugin.reproduction.made import MadeRun, RunPlace, identity_key
from mimo_plugin.reproduction.options import ReproduceOptions
from mimo_plugin.reproduction.parts import open_benchmark
from mimo_plugin.reproduction.provenance import provenance
from mimo_plugin.reproduction.results import results_object
from mimo_plugin.reproduction.similarity import similarity_in
from mimo_plugin.reproduction.systems import Kind, System, all_systems, chosen_baseline
from mimo_plugin.student import Student

if TYPE_CHECKING:
    from mimo_plugin.benchmarks.schema import BenchmarkConfig
    from mimo_plugin.evaluation.evaluation import Evaluation
    from mimo_plugin.evaluation.fairness import Similarity

CONFIG, RESULTS, REPORT = "config.yaml", "results.json", "report"
_WRITER = ".writer"

Say = Callable[[str], Any]


@dataclass(frozen=True)
class Reproduced:
    """Attributes:
    results: the JSON object, also in `results.json`.
    evaluation: scores and comparisons.
    report: the page.
    """

    results: Mapping[str, Any]
    evaluation: "Evaluation"
    report: Path


def reproduce(config: "BenchmarkConfig", options: ReproduceOptions, say: Say) -> Reproduced:
    """Indexes, searches and evaluates a benchmark with all systems asked for, and writes the report.

    Killed at any moment and started again, it goes on: at most one shard of vectors is encoded twice.

    Args:
        say: called with what there is to do, a line a step, and what was written.

    Raises:
        MimoError: with all that is wrong before anything is encoded; or as the steps.
    """
    running = _Running(config, options, say)
    with one_writer(options.output, options.output / _WRITER):
        write_text(options.output / CONFIG, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        running.open()
        running.announce()
        running.make()
        return running.conclude()


def plan(config: "BenchmarkConfig", options: ReproduceOptions, say: Say) -> None:
    """Says what there is to do and what it takes; nothing but notes on the collections is written.

    Raises: as `reproduce`, before anything is encoded.
    """
    running = _Running(config, options, say)
    with one_writer(options.output, options.output / _WRITER):
        write_text(options.output / CONFIG, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        running.open()
        running.announce()


class _Running:
    def __init__(self, config: "BenchmarkConfig", options: ReproduceOptions, say: Say) -> None:
        self._config = config
        self._options = options
        self._say = say
        findings = Findings()
        bm25 = config.bm25 is not None if options.bm25 is None else options.bm25
        encoders = findings.attempt(parse_encoders, options.encoders) or []
        systems = findings.attempt(all_systems, config, encoders, options.runs, bm25)
        findings.attempt(_check_output, options.output, config.name)
        if systems is not None:
            self._baseline = findings.attempt(chosen_baseline, config, systems, options.baseline)
        self._students = {
            encoder.label: findings.attempt(Student.load, encoder.checkpoint, options.encoder)
            for encoder in encoders
        }
        self._systems = findings.complete(systems)
        self._made: dict[str, MadeRun] = {}

    def open(self) -> None:
        """Reads the collections, and the runs that were made elsewhere."""
        options = self._options
        self._benchmark = open_benchmark(
            self._config,
            options.output / "collections",
            distractors=options.distractors,
            seed=options.seed,
            progress=options.progress,
        )
        self._check_runs()
        self._dense = {
            name: DenseSystem(name, student, self._benchmark, options.output, options.index)
            for name, student in self._students.items()
            if student is not None
        }
        self._lexical = (
            LexicalSystem(self._benchmark, options.output, options.threads, options.progress)
            if any(system.kind is Kind.BM25 for system in self._systems)
            else None
        )

    def _check_runs(self) -> None:
        """A run that does not fit shows before hours of encoding."""
        from mimo_plugin.evaluation.run_reader import read_run
        from mimo_plugin.evaluation.topics import check_queries, load_topics

        given = {system.name: system.run for system in self._systems if system.run is not None}
        if not given:
            return
        findings = Findings()
        topics = findings.complete(findings.attempt(load_topics, self._benchmark.pool))
        for name, file in given.items():
            run = findings.attempt(read_run, file, name)
            if run is not None:
                findings.add(DataError, check_queries(run, topics))
        findings.raise_any()

    def announce(self) -> None:
        """Says how much there is to do.

        Raises:
            EnvironmentProblem: the disk cannot hold it.
        """
        benchmark, options = self._benchmark, self._options
        queries = sum(len(part.queries) for part in benchmark.parts)
        self._say(
            f"{self._config.title}: {benchmark.documents:,} documents, {queries:,} judged queries, "
            f"{len(benchmark.parts)} {'index' if len(benchmark.parts) == 1 else 'indexes'} a system"
        )
        subset = benchmark.subset()
        if subset is not None:
            self._say(subset["text"])
        needed = 0
        for system in self._systems:
            text, more = self._outlook(system)
            self._say(f"  {system.name}: {text}")
            needed += more
        free = size_text(free_bytes(options.output))
        self._say(f"{options.output}: {size_text(needed)} needed at most, {free} free")
        require_space(options.output, needed)

    def _outlook(self, system: System) -> tuple[str, int]:
        """What a system still takes, and the bytes that it needs."""
        if system.name in self._dense:
            dense = self._dense[system.name]
            if dense.finished() is not None:
                return "done", 0
            estimate = dense.estimate()
            if not estimate.documents:
                return "indexed, to be searched", 0
            return (
                f"{estimate.documents:,} documents to encode, about "
                f"{timedelta(seconds=round(estimate.seconds))} by a short measurement on this "
                f"{dense.student.device_type}, index {size_text(estimate.index_bytes)} as a flat one",
                estimate.disk_bytes,
            )
        if system.kind is Kind.BM25 and self._lexical is not None:
            if self._lexical.finished() is not None:
                return "done", 0
            needed = self._lexical.disk_bytes
            return f"to be indexed by Lucene, less than {size_text(needed)}", needed
        if system.kind is Kind.FUSION:
            return f"fusion of {' and '.join(system.parts)}", 0
        return f"{system.run}", 0

    def make(self) -> None:
        """Makes the runs that are missing."""
        for system in self._systems:
            if system.kind is Kind.DENSE:
                dense = self._dense[system.name]
                self._made[system.name] = dense.finished() or self._said(system, dense)
            elif system.kind is Kind.BM25 and self._lexical is not None:
                self._made[system.name] = self._lexical.finished() or self._said(system, self._lexical)
            elif system.fusion is not None:
                parts = {part: self._made[part] for part in system.parts}
                self._made[system.name] = fuse(
                    system.name, system.fusion, parts, self._options.output, self._config.depth
                )

    def _said(self, system: System, maker: DenseSystem | LexicalSystem) -> MadeRun:
        self._say(f"{system.name}: indexing and searching")
        made = maker.make()
        self._say(f"{system.name}: {made.queries:,} queries, {made.lines:,} hits, {maker.place.file}")
        return made

    def conclude(self) -> Reproduced:
        """Scores all runs, looks at languages and geometry, writes results and report."""
        from mimo_plugin.report.writing import PAGE, write_report

        evaluation = self._evaluate()
        language_bias, foreign = self._look(evaluation)
        devices = {dense.student.device_type for dense in self._dense.values()}
        results = results_object(
            self._benchmark,
            self._systems,
            self._made,
            evaluation,
            language_bias,
            self._geometry(),
            [*evaluation.warnings, *foreign],
            provenance(self._options.command, next(iter(sorted(devices)), None), self._fingerprints()),
        )
        file, page = self._options.output / RESULTS, self._options.output / REPORT / PAGE
        if _same(file, results) and page.is_file():
            self._say(f"{file}, {page}: as before")
            return Reproduced(results, evaluation, page)
        write_report(results, page.parent)
        # Last: where a report was cut short, it is made again.
        write_text(file, json.dumps(results, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
        self._say(f"{file}, {page}")
        return Reproduced(results, evaluation, page)

    def _geometry(self) -> dict[str, Any] | None:
        options = self._options
        return encoder_geometry(
            self._benchmark,
            {
                system.name: (system, self._dense[system.name].student.fingerprint)
                for system in self._systems
                if system.name in self._dense
            },
            options.output,
            options.encoder,
            self._say,
            options.progress,
        )

    def _run_file(self, system: System) -> Path:
        return system.run or RunPlace(self._options.output, system.name).file

    def _evaluate(self) -> "Evaluation":
        from mimo_plugin.evaluation.evaluation import evaluate
        from mimo_plugin.evaluation.request import EvaluationOptions

        config = self._config
        # Tukey's test is one of all pairs of three or more.
        test = config.test
        if test is SignificanceTest.TUKEY_HSD and len(self._systems) < 3:
            test = SignificanceTest.STUDENT
        return evaluate(
            [f"{system.name}={self._run_file(system)}" for system in self._systems],
            self._benchmark.specs,
            EvaluationOptions(
                measures=config.measures,
                baseline=self._baseline,
                test=test if len(self._systems) > 1 else None,
                correction=config.correction,
                alpha=config.alpha,
                progress=self._options.progress,
            ),
            pool=self._benchmark.pool,
        )

    def _look(self, evaluation: "Evaluation") -> tuple[dict[str, Any], list[str]]:
        from mimo_plugin.evaluation.language_bias import CUTOFF

        fairness = self._config.fairness
        indexes: Sequence[Path] = ()
        for dense in self._dense.values():
            indexes = [dense.index_of(part) for part in self._benchmark.parts]
        languages = Languages(self._benchmark, indexes)
        found: dict[str, Any] = {}
        foreign = []
        for system in self._systems:
            if fairness is None and system.run is None:
                continue
            self._say(f"{system.name}: looking at languages")
            look = look_at_run(
                system.name,
                self._run_file(system),
                evaluation.topics,
                languages,
                cutoff=fairness.cutoff if fairness else CUTOFF,
                target=fairness.target if fairness else None,
                similarity=partial(self._similarity, system),
            )
            if look.bias is not None:
                found[system.name] = look.bias
            if look.foreign is not None:
                foreign.append(look.foreign)
        return found, foreign

    def _similarity(self, system: System, docids: set[str]) -> "Similarity | None":
        parts = self._benchmark.parts
        # In an index a language no two versions of a query rank the same documents.
        if system.kind is not Kind.DENSE or len(parts) > 1:
            return None
        dense = self._dense[system.name]
        return similarity_in(dense.index_of(parts[0]), parts[0], dense.student, docids)

    def _fingerprints(self) -> dict[str, str]:
        found = {
            f"documents of {part.name}": part.looked.survey.fingerprint for part in self._benchmark.parts
        }
        found["queries"] = self._benchmark.queries_fingerprint
        found |= {f"encoder {name}": dense.student.fingerprint for name, dense in self._dense.items()}
        found |= {f"run {name}": made.run.sha256 for name, made in self._made.items()}
        found["config"] = identity_key(self._config.model_dump(mode="json"))
        return found


def _same(file: Path, results: Mapping[str, Any]) -> bool:
    """Whether a file holds these results, whatever command found them and when."""
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
        there["provenance"] |= {name: results["provenance"][name] for name in ("command", "date")}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(there == json.loads(json.dumps(results)))


def _check_output(output: Path, name: str) -> None:
    if output.exists() and not output.is_dir():
        raise ArtifactError(f"{output} is a file: --output must name a new or empty directory")
    check_place(output / CONFIG)
    names = sorted(path.name for path in output.iterdir() if path.name[0] != ".") if output.exists() else []
    if not names:
        return
    try:
        there = yaml.safe_load((output / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        there = None
    if not isinstance(there, dict) or "setting" not in there:
        raise ArtifactError(
            f"{output} holds something else ({', '.join(names[:5])}): --output must name a new or empty "
            "directory, or one that this command began"
        )
    if there.get("name") != name:
        raise ArtifactError(
            f"{output} holds {there.get('name')!r}, expected a directory of its own for {name!r}: choose "
            "another --output"
        )
