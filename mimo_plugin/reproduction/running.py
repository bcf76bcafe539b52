"""A whole table from one command: what is there already is not made again."""

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from mimo_plugin.analysis.encoders import parse_encoders
from mimo_plugin.benchmarks.data import shown_collection
from mimo_plugin.errors import DataError, Findings
from mimo_plugin.files import size_text
from mimo_plugin.indexing.faiss_index import new_index
from mimo_plugin.reproduction.concluding import Reproduced, Runs, Say, conclude
from mimo_plugin.reproduction.dense import DenseSystem, free_bytes, require_space
from mimo_plugin.reproduction.directory import COLLECTIONS, check_output, held
from mimo_plugin.reproduction.fused import fuse
from mimo_plugin.reproduction.lexical_run import LexicalSystem
from mimo_plugin.reproduction.made import MadeRun
from mimo_plugin.reproduction.models import Facts, Models
from mimo_plugin.reproduction.options import ReproduceOptions
from mimo_plugin.reproduction.parts import open_benchmark
from mimo_plugin.reproduction.systems import Kind, System, all_systems, chosen_baseline

if TYPE_CHECKING:
    from mimo_plugin.benchmarks.schema import BenchmarkConfig


def reproduce(config: "BenchmarkConfig", options: ReproduceOptions, say: Say) -> Reproduced:
    """Indexes, searches and evaluates a benchmark with all systems asked for, and writes the report.

    Killed at any moment and started again, it goes on: at most two shards of vectors are encoded twice.

    Args:
        say: called with what there is to do, a line a step, and what was written.

    Raises:
        MimoError: with all that is wrong before anything is encoded; or as the steps.
    """
    running = _Running(config, options, say)
    with held(options.output, config) as there:
        running.open()
        running.announce()
        return conclude(running.make(), options, say, there)


def plan(config: "BenchmarkConfig", options: ReproduceOptions, say: Say) -> None:
    """Says what there is to do and what it takes; nothing but notes on config and collections is written.

    Raises: as `reproduce`, before anything is encoded.
    """
    running = _Running(config, options, say)
    with held(options.output, config, only_looking=True):
        running.open()
        running.announce()


class _Running:
    def __init__(self, config: "BenchmarkConfig", options: ReproduceOptions, say: Say) -> None:
        self._config = config
        self._options = options
        self._say = say
        self._models = Models(options.encoder)
        findings = Findings()
        bm25 = config.bm25 is not None if options.bm25 is None else options.bm25
        encoders = findings.attempt(parse_encoders, options.encoders)
        systems = None
        if encoders is not None or options.runs or bm25:
            systems = findings.attempt(all_systems, config, encoders or [], options.runs, bm25)
        findings.attempt(check_output, options.output, config.name)
        if systems is not None and encoders is not None:
            self._baseline = findings.attempt(chosen_baseline, config, systems, options.baseline)
        self._facts: dict[str, Facts] = {}
        for encoder in encoders or []:
            facts = findings.attempt(self._models.facts, encoder.checkpoint)
            if facts is not None:
                findings.attempt(new_index, options.index.factory, facts.dimension)
                self._facts[encoder.label] = facts
        self._systems = findings.complete(systems)

    def open(self) -> None:
        """Reads the collections, and the runs that were made elsewhere."""
        options = self._options
        self._benchmark = open_benchmark(
            self._config,
            options.output / COLLECTIONS,
            distractors=options.distractors,
            seed=options.seed,
            progress=options.progress,
        )
        self._check_runs()
        self._dense = {
            system.name: self._dense_system(system.name, system.encoder)
            for system in self._systems
            if system.encoder is not None
        }
        self._lexical = (
            LexicalSystem(self._benchmark, options.output, options.threads, options.progress)
            if any(system.kind is Kind.BM25 for system in self._systems)
            else None
        )

    def _dense_system(self, name: str, checkpoint: str) -> DenseSystem:
        facts = self._facts[name]
        load = partial(self._models.load, checkpoint, facts)
        return DenseSystem(name, facts, load, self._benchmark, self._options.output, self._options.index)

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
        if self._config.obtain is not None:
            self._say(f"  collections: {', '.join(map(shown_collection, benchmark.specs))}")
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
            if not dense.missing_parts():
                return "indexed, to be searched", 0
            estimate = dense.estimate()
            return (
                f"{estimate.documents:,} documents to encode, about "
                f"{timedelta(seconds=round(estimate.seconds))} by a short measurement on this "
                f"{dense.facts.device}, index {size_text(estimate.index_bytes)} as a flat one",
                estimate.disk_bytes,
            )
        if system.kind is Kind.BM25 and self._lexical is not None:
            if self._lexical.finished() is not None:
                return "done", 0
            if not self._lexical.missing_parts():
                return "indexed, to be searched", 0
            needed = self._lexical.disk_bytes
            return f"to be indexed by Lucene, less than {size_text(needed)}", needed
        if system.kind is Kind.FUSION:
            return f"fusion of {' and '.join(system.parts)}", 0
        return f"{system.run}", 0

    def make(self) -> Runs:
        """Makes the runs that are missing."""
        made: dict[str, MadeRun] = {}
        for system in self._systems:
            if system.kind is Kind.DENSE:
                dense = self._dense[system.name]
                made[system.name] = dense.finished() or self._said(system, dense)
            elif system.kind is Kind.BM25 and self._lexical is not None:
                made[system.name] = self._lexical.finished() or self._said(system, self._lexical)
            elif system.fusion is not None:
                parts = {part: made[part] for part in system.parts}
                made[system.name] = fuse(
                    system.name, system.fusion, parts, self._options.output, self._config.depth
                )
        return Runs(self._benchmark, self._systems, self._baseline, self._dense, made, self._models)

    def _said(self, system: System, maker: DenseSystem | LexicalSystem) -> MadeRun:
        self._say(f"{system.name}: indexing and searching")
        made = maker.make()
        self._say(f"{system.name}: {made.queries:,} queries, {made.lines:,} hits, {maker.place.file}")
        return made
