"""A benchmark from its config to a report; what is done is not done again."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.benchmark.bias import (
    BiasOptions,
    Languages,
    encoder_geometry,
    look_at_runs,
    provenance,
    results_object,
)
from mimo_plugin.benchmark.loading import shown_collection
from mimo_plugin.benchmark.parts import COLLECTIONS, REPORT, RESULTS, check_output, held, open_benchmark
from mimo_plugin.benchmark.runs import DenseSystem, LexicalSystem, free_bytes, fuse, require_space
from mimo_plugin.benchmark.systems import (
    Facts,
    Kind,
    MadeRun,
    Models,
    RunPlace,
    System,
    all_systems,
    chosen_baseline,
    chosen_test,
    similarity_in,
)
from mimo_plugin.benchmark.texts import parse_encoders
from mimo_plugin.core.artifact import Held, sealed_text, unseal
from mimo_plugin.core.errors import ArtifactError, DataError, Findings
from mimo_plugin.core.files import make_parent, sha256, size_text, write_text
from mimo_plugin.data.sources import identity_key
from mimo_plugin.encoder.encoder import EncoderOptions
from mimo_plugin.evaluation.results import (
    BenchmarkResults,
    BiasResult,
    GeometryResult,
    TrainedOnResult,
    read_results,
)
from mimo_plugin.evaluation.trained_on import open_seen, trained_on, trained_on_warnings
from mimo_plugin.indexing.faiss import new_index
from mimo_plugin.indexing.options import IndexOptions

if TYPE_CHECKING:
    from mimo_plugin.benchmark.config import BenchmarkConfig
    from mimo_plugin.benchmark.parts import Benchmark
    from mimo_plugin.evaluation.evaluate import Evaluation
    from mimo_plugin.evaluation.fairness import Similarity


@dataclass(frozen=True)
class ReproduceOptions:
    """Attributes:
    output: directory, new or begun before.
    encoders: `NAME=CHECKPOINT` or a checkpoint, each a system.
    runs: `NAME=FILE` or a file, runs that were made elsewhere.
    bm25: whether BM25 is a system; None is what the config says.
    baseline: system that others are compared with; None is the config's.
    distractors: look at a subset: the judged documents and so many others a language; None is all.
    seed: of the subset.
    index, encoder: how documents are encoded and indexed.
    threads: of Lucene.
    command: for the record.
    progress: see `progress.bar`.
    """

    output: Path
    encoders: Sequence[str] = ()
    runs: Sequence[str] = ()
    bm25: bool | None = None
    baseline: str | None = None
    distractors: int | None = None
    seed: int = 42
    index: IndexOptions = field(default_factory=IndexOptions)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    threads: int = 2
    command: str = ""
    progress: bool | None = None


Say = Callable[[str], Any]


@dataclass(frozen=True)
class Reproduced:
    """Attributes:
    results: as in `results.json`.
    evaluation: scores and comparisons.
    report: the page.
    """

    results: BenchmarkResults
    evaluation: "Evaluation"
    report: Path


@dataclass(frozen=True)
class Runs:
    """What there is to score.

    Attributes:
        systems: in the order of the tables.
        baseline: name of the system that others are compared with; None compares none.
        dense: name -> system, of those that are encoders.
        made: name -> run, of those that were made here.
        models: the encoders of `dense`.
    """

    benchmark: "Benchmark"
    systems: Sequence[System]
    baseline: str | None
    dense: Mapping[str, DenseSystem]
    made: Mapping[str, MadeRun]
    models: Models


def conclude(runs: Runs, options: ReproduceOptions, say: Say, there: Held) -> Reproduced:
    """Scores all runs, looks at languages and geometry, writes results and report.

    Raises:
        EnvironmentProblem: somebody has removed the output directory, or the file system refuses.
    """
    return _Conclusion(runs, options, say).reach(there)


class _Conclusion:
    def __init__(self, runs: Runs, options: ReproduceOptions, say: Say) -> None:
        self._runs = runs
        self._benchmark = runs.benchmark
        self._config = runs.benchmark.config
        self._options = options
        self._say = say
        self._warnings: list[str] = []

    def reach(self, there: Held) -> Reproduced:
        from mimo_plugin.report.page import PAGE, write_report

        evaluation = self._evaluate()
        language_bias = self._look(evaluation)
        geometry = self._geometry()
        devices = sorted({dense.facts.device for dense in self._runs.dense.values()})
        warnings = (
            *self._benchmark.warnings,
            *(warning for made in self._runs.made.values() for warning in made.warnings),
            *evaluation.warnings,
            *self._depths(evaluation),
            *self._warnings,
        )
        results = results_object(
            self._benchmark,
            self._runs.systems,
            self._runs.made,
            evaluation,
            language_bias,
            geometry,
            warnings,
            provenance(self._options.command, next(iter(devices), None), self._fingerprints()),
        )
        file, page = self._options.output / RESULTS, self._options.output / REPORT / PAGE
        if _same(file, results) and page.is_file():
            self._say(f"{file}, {page}: as before")
            return Reproduced(results, evaluation, page)
        there.require()
        write_report(results, page.parent)
        # Last: where a report was cut short, it is made again. Without the rest they would look complete.
        there.require()
        write_text(file, results.to_json())
        self._say(f"{file}, {page}")
        return Reproduced(results, evaluation, page)

    def _geometry(self) -> GeometryResult | None:
        options = self._options
        # It loads them by itself.
        self._runs.models.release()
        dense = self._runs.dense
        found, warnings = encoder_geometry(
            self._benchmark,
            {
                system.name: (system, dense[system.name].facts)
                for system in self._runs.systems
                if system.name in dense
            },
            options.output,
            options.encoder,
            self._say,
            options.progress,
        )
        self._warnings += warnings
        return found

    def _run_file(self, system: System) -> Path:
        return system.run or RunPlace(self._options.output, system.name).file

    def _evaluate(self) -> "Evaluation":
        from mimo_plugin.evaluation.evaluate import evaluate

        config = self._config
        return evaluate(
            [f"{system.name}={self._run_file(system)}" for system in self._runs.systems],
            self._benchmark.pool,
            measures=config.measures,
            baseline=self._runs.baseline,
            test=chosen_test(config, self._runs.systems),
            correction=config.correction,
            alpha=config.alpha,
            progress=self._options.progress,
            seen=self._trained_on(),
        )

    def _trained_on(self) -> dict[str, TrainedOnResult]:
        """Of the encoders that say what they were trained on; the documents are read once an encoder."""
        encoders = {system.name: system.encoder for system in self._runs.systems if system.encoder}
        seen, warnings = open_seen(encoders)
        self._warnings += warnings
        found: dict[str, TrainedOnResult] = {}
        for name, one in seen.items():
            identity = {
                "encoder": self._runs.dense[name].facts.fingerprint,
                "training_data": one.training_data,
                "documents": self._benchmark.documents_identity,
            }
            note = self._options.output / COLLECTIONS / f"trained-on-{identity_key(identity)}.json"
            known = _read_note(note)
            if known is None:
                self._say(f"{name}: looking for its training texts among the documents")
                known = trained_on((doc.text for doc in self._benchmark.pool.docs_iter()), {name: one})[name]
                make_parent(note)
                write_text(note, sealed_text(known.model_dump()))
            found[name] = known
        self._warnings += trained_on_warnings(found)
        return found

    def _depths(self, evaluation: "Evaluation") -> Iterator[str]:
        """Runs made elsewhere that look deeper or less deep, which measures without a cutoff see."""
        uncut = ", ".join(str(measure) for measure in evaluation.measures if measure.cutoff is None)
        given = {system.name for system in self._runs.systems if system.run is not None}
        expected = min(self._config.depth, self._benchmark.documents)
        for score in evaluation.scores:
            if uncut and score.name in given and score.depth != expected:
                yield (
                    f"run {score.name!r} has up to {score.depth} hits a query, the depth here is {expected}: "
                    f"without a cutoff {uncut} does not compare it with runs of that depth"
                )

    def _look(self, evaluation: "Evaluation") -> dict[str, BiasResult]:
        from mimo_plugin.evaluation.language import CUTOFF, Cutoffs

        fairness = self._config.fairness
        files = {
            system.name: self._run_file(system)
            for system in self._runs.systems
            if fairness is not None or system.run is not None
        }
        if not files:
            return {}
        self._say("looking at the languages of the documents found")
        indexes = next(filter(None, (dense.whole_indexes() for dense in self._runs.dense.values())), [])
        options = BiasOptions(
            cutoff=fairness.cutoff if fairness else CUTOFF,
            target=fairness.target if fairness else None,
            further=Cutoffs(fairness.peer, fairness.mrc) if fairness else Cutoffs(),
            similarity=self._similarity,
        )
        found, warnings = look_at_runs(files, evaluation.topics, Languages(self._benchmark, indexes), options)
        self._warnings += warnings
        return found

    def _similarity(self, name: str, docids: Set[str]) -> "Similarity | None":
        parts = self._benchmark.parts
        # In an index a language no two versions of a query rank the same documents.
        if name not in self._runs.dense or len(parts) > 1:
            return None
        dense = self._runs.dense[name]
        try:
            return similarity_in(dense.index_of(parts[0]), parts[0], dense.load, docids)
        except ArtifactError as error:
            self._warnings.append(
                f"{name}: its index is gone or damaged, so MRC does not know the scores of documents beyond "
                f"the run's hits; remove {dense.place.note} to have it built again ({error})"
            )
            return None

    def _fingerprints(self) -> dict[str, str]:
        found = {
            f"documents of {part.name}": part.looked.survey.fingerprint for part in self._benchmark.parts
        }
        found["queries"] = self._benchmark.queries_fingerprint
        found |= {f"encoder {name}": dense.facts.fingerprint for name, dense in self._runs.dense.items()}
        found |= {f"run {name}": made.run.sha256 for name, made in self._runs.made.items()}
        found |= {f"run {system.name}": sha256(system.run) for system in self._runs.systems if system.run}
        found["config"] = identity_key(self._config.model_dump(mode="json"))
        return found


def _read_note(note: Path) -> TrainedOnResult | None:
    """What was counted before; None where there is nothing, or something damaged."""
    try:
        found, whole = unseal(note.read_bytes())
        return TrainedOnResult.model_validate(found) if whole else None
    except (OSError, ValueError, RecursionError):
        return None


def _same(file: Path, results: BenchmarkResults) -> bool:
    """Whether a file holds these results, whatever command found them and when."""
    try:
        there = read_results(file)
    except ArtifactError:
        return False
    made = results.provenance
    provenance = there.provenance.model_copy(update={"command": made.command, "date": made.date})
    return there.model_copy(update={"provenance": provenance}) == results


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
        from mimo_plugin.evaluation.runs import read_run
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
