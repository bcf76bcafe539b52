"""Reproduces a benchmark, from its config to a report; finished steps are skipped."""

import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.benchmark.bias import (
    BiasOptions,
    Languages,
    encoder_geometry,
    look_at_runs,
    provenance,
    results_object,
    same_results,
)
from mimo_plugin.benchmark.config import BenchmarkConfig
from mimo_plugin.benchmark.loading import load_config, shown_collection
from mimo_plugin.benchmark.parts import check_collections, open_benchmark, read_note, write_note
from mimo_plugin.benchmark.runs import DenseSystem, IndexedSystem, LexicalSystem, fuse, similarity_in
from mimo_plugin.benchmark.settings import ReproduceOptions
from mimo_plugin.benchmark.systems import (
    COLLECTIONS,
    GEOMETRY,
    RUNS,
    EncoderFacts,
    MadeRun,
    Models,
    RunPlace,
    System,
    SystemKind,
    all_systems,
    chosen_baseline,
    chosen_test,
)
from mimo_plugin.benchmark.texts import NamedEncoder, parse_encoders
from mimo_plugin.core.artifact import Artifact, Kind, Manifest
from mimo_plugin.core.config import yaml_text
from mimo_plugin.core.errors import ArtifactError, DataError, EnvironmentProblem, Problems, UsageError
from mimo_plugin.core.files import Held, sha256, size_text, write_text
from mimo_plugin.data.sources import identity_key
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.evaluation.results import FILE_NAME, BenchmarkResults, TrainedOnResult
from mimo_plugin.evaluation.trained_on import (
    open_seen,
    parse_seen_languages,
    trained_on,
    trained_on_warnings,
)
from mimo_plugin.indexing.faiss import new_index
from mimo_plugin.indexing.settings import IndexOptions

if TYPE_CHECKING:
    from mimo_plugin.evaluation.evaluate import Evaluation
    from mimo_plugin.evaluation.fairness import Similarity
    from mimo_plugin.evaluation.per_topic import PerTopicResults

CONFIG, REPORT, TOPICS = "config.yaml", "report", "topics.json"
Say = Callable[[str], Any]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reproduced:
    """Attributes:
    results: the content of `results.json`.
    report: the page.
    """

    results: BenchmarkResults
    evaluation: "Evaluation"
    report: Path


def reproduce(
    config: str | Path | BenchmarkConfig,
    output: str | Path | None = None,
    encoders: Sequence[str | Encoder] = (),
    *,
    encoding: EncoderOptions | None = None,
    command: str = "",
    say: Say = _LOG.info,
    **options: Any,
) -> Reproduced:
    """Indexes, searches and evaluates a benchmark with the requested systems, and writes the report.

    After a kill, the same call resumes: at most two shards of vectors are encoded twice.

    Args:
        config: name of a packaged config, a YAML file, or the result of `load_config`.
        output: new directory, or one of an earlier call; None is `indexes/NAME`.
        encoders: `NAME=CHECKPOINT`, a checkpoint, or a loaded encoder; each is a system.
        encoding: options of the encoders that are not loaded yet.
        command: recorded in the results.
        say: called with progress messages, one line each.
        options: see `ReproduceOptions`.

    Raises:
        MimoError: every problem of the input, before anything is encoded; or a problem of a step.
    """
    running = _Reproduction(config, output, encoders, encoding, say, ReproduceOptions(**options))
    with running.held() as there:
        running.open()
        running.announce()
        running.make_runs()
        return running.conclude(command, there)


def plan(
    config: str | Path | BenchmarkConfig,
    output: str | Path | None = None,
    encoders: Sequence[str | Encoder] = (),
    *,
    encoding: EncoderOptions | None = None,
    say: Say = _LOG.info,
    **options: Any,
) -> None:
    """Reports what `reproduce` would do; writes only the config and surveys of collections.

    Raises: as `reproduce`, before anything is encoded.
    """
    running = _Reproduction(config, output, encoders, encoding, say, ReproduceOptions(**options))
    with running.held(keep_config=True):
        running.open()
        running.announce()


# The config marks a directory, which may hold other files of the user.
_KIND = Kind(
    Manifest, frozenset(), "a reproduction", "mimo reproduce", re.compile(".*"), mark=CONFIG, mark_stays=True
)


def check_output(output: Path, name: str) -> None:
    """Raises an ArtifactError if the directory holds anything but a reproduction of this benchmark."""
    there = Artifact(output, _KIND).begun_with("setting")
    if there is not None and there.get("name") != name:
        raise ArtifactError(
            f"{output} holds {there.get('name')!r}, expected a directory of its own for {name!r}: choose "
            "another --output"
        )


class _Reproduction:
    """The steps of a reproduction, in order: `open`, `announce`, `make_runs`, `conclude`.

    Raises:
        MimoError: every problem of the input. Encoders are loaded after options, paths and collections have
            been checked.
    """

    def __init__(
        self,
        config: str | Path | BenchmarkConfig,
        output: str | Path | None,
        encoders: Sequence[str | Encoder],
        encoding: EncoderOptions | None,
        say: Say,
        options: ReproduceOptions,
    ) -> None:
        from mimo_plugin.collections.survey import parse_docs

        if not isinstance(config, BenchmarkConfig):
            config = load_config(str(config), **options.loading)
        self._config = config
        self._output = Path(output or Path("indexes", config.name))
        self._options = options
        self._encoding = encoding or EncoderOptions()
        self._models = Models(self._encoding)
        self._say = say
        self._warnings: list[str] = []
        problems = Problems(UsageError)
        bm25 = config.bm25 is not None if options.bm25 is None else options.bm25
        parsed: list[NamedEncoder] = []
        with problems.collect():
            self._distractors = None if options.docs is None else parse_docs(options.docs)
        with problems.collect():
            parsed = parse_encoders(encoders)
            parse_encoders(encoders, check=True)
        with problems.collect():
            check_output(self._output, config.name)
        if parsed or not encoders or options.runs or bm25:
            with problems.collect():
                self._systems = all_systems(config, parsed, options.runs, bm25)
                self._baseline = chosen_baseline(config, self._systems, options.baseline)
        with problems.collect():
            check_collections(config)
        problems.raise_any()
        with problems.collect():
            names = [system.name for system in self._systems]
            self._seen_languages = parse_seen_languages(options.seen_languages, names)
        self._index = IndexOptions(
            factory=options.factory,
            shard_size=options.shard_size,
            seed=options.seed,
            resume=options.resume,
            progress=options.progress,
        )
        self._facts: dict[str, EncoderFacts] = {}
        for encoder in parsed:
            with problems.collect():
                facts = self._facts[encoder.label] = self._models.facts(encoder)
                new_index(options.factory, facts.dimension)
        problems.raise_any()

    @contextmanager
    def held(self, *, keep_config: bool = False) -> Iterator[Held]:
        """Locks the directory for one writer, writes the config, removes leftovers of a kill."""
        artifact = Artifact(self._output, _KIND)
        with artifact.held() as there:
            for name in (COLLECTIONS, RUNS, GEOMETRY):
                for leftover in (self._output / name).glob(".*.tmp"):
                    leftover.unlink(missing_ok=True)
            if not (keep_config and (self._output / CONFIG).exists()):
                artifact.begin(yaml_text(self._config.model_dump(mode="json")))
            yield there

    def open(self) -> None:
        """Opens the collections and checks runs from elsewhere."""
        options = self._options
        benchmark = self._benchmark = open_benchmark(
            self._config,
            self._output / COLLECTIONS,
            distractors=self._distractors,
            seed=options.seed,
            progress=options.progress,
        )
        self._check_runs()
        self._dense: dict[str, DenseSystem] = {}
        self._indexed: dict[str, IndexedSystem] = {}
        for system in self._systems:
            if system.encoder is not None:
                shared = (self._models, benchmark, self._output, self._index)
                dense = DenseSystem.of(system.encoder, self._facts[system.name], *shared)
                self._dense[system.name] = self._indexed[system.name] = dense
            elif system.kind is SystemKind.BM25:
                self._indexed[system.name] = LexicalSystem(
                    benchmark, self._output, options.threads, options.progress
                )

    def _check_runs(self) -> None:
        """Checks runs from elsewhere and slices, before hours of encoding."""
        from mimo_plugin.evaluation.runs import read_run
        from mimo_plugin.evaluation.slices import Slices
        from mimo_plugin.evaluation.topics import check_queries, load_topics

        given = {system.name: system.run for system in self._systems if system.run is not None}
        slices = self._options.slices
        if not given and slices is None:
            return
        topics = load_topics(self._benchmark.pool)
        with Problems(DataError) as problems:
            if slices is not None:
                with problems.collect():
                    Slices.of(slices, topics)
            for name, file in given.items():
                with problems.collect():
                    problems.extend(check_queries(read_run(file, name), topics))

    def announce(self) -> None:
        """Reports the remaining work.

        Raises:
            EnvironmentProblem: the disk is too small for it.
        """
        benchmark, output = self._benchmark, self._output
        self._say(
            f"{self._config.title}: {benchmark.documents:,} documents, {benchmark.queries:,} judged queries, "
            f"{len(benchmark.parts)} {'index' if len(benchmark.parts) == 1 else 'indexes'} per system"
        )
        if self._config.obtain is not None:
            self._say(f"  collections: {', '.join(map(shown_collection, benchmark.specs))}")
        subset = benchmark.subset()
        if subset is not None:
            self._say(subset.text)
        needed = 0
        for system in self._systems:
            if system.name in self._indexed:
                text, more = self._indexed[system.name].outlook()
                needed += more
            else:
                text = f"fusion of {' and '.join(system.parts)}" if system.fusion else str(system.run)
            self._say(f"  {system.name}: {text}")
        free = shutil.disk_usage(output).free
        self._say(f"{output}: {size_text(needed)} needed at most, {size_text(free)} free")
        if free < needed:
            raise EnvironmentProblem(
                f"{output} has {size_text(free)} free and the indexes need about {size_text(needed)}: make "
                "room, choose another --output, fewer systems or --languages, or a subset with --docs "
                "judged+1000"
            )

    def make_runs(self) -> None:
        """Makes the missing runs."""
        made: dict[str, MadeRun] = {}
        for system in self._systems:
            if system.name in self._indexed:
                indexed = self._indexed[system.name]
                found = indexed.finished()
                if found is None:
                    self._say(f"{system.name}: indexing and searching")
                    found = indexed.make()
                    made_of = f"{found.queries:,} queries, {found.lines:,} hits"
                    self._say(f"{system.name}: {made_of}, {indexed.place.file}")
                made[system.name] = found
            elif system.fusion is not None:
                parts = {part: made[part] for part in system.parts}
                made[system.name] = fuse(system.name, system.fusion, parts, self._output, self._config.depth)
        self._made = made

    def conclude(self, command: str, there: Held) -> Reproduced:
        """Scores all runs, measures language bias and geometry, writes report and results.

        Raises:
            EnvironmentProblem: the output directory was removed, or the file system refuses.
        """
        from mimo_plugin.report.page import PAGE, write_report

        evaluation = self._evaluate()
        bias = self._language_bias(evaluation)
        # `encoder_geometry` loads the encoders itself.
        self._models.release()
        geometry, warnings = encoder_geometry(
            self._benchmark,
            {name: (dense.encoder, dense.facts) for name, dense in self._dense.items()},
            self._output,
            self._encoding,
            self._say,
            self._options.progress,
        )
        self._warnings += warnings
        devices = sorted({dense.facts.device for dense in self._dense.values()})
        results = results_object(
            self._benchmark,
            self._systems,
            self._made,
            evaluation,
            bias,
            geometry,
            (
                *self._benchmark.warnings,
                *(warning for made in self._made.values() for warning in made.warnings),
                *evaluation.warnings,
                *self._depths(evaluation),
                *self._warnings,
            ),
            provenance(command, next(iter(devices), None), self._fingerprints()),
        )
        file, page = self._output / FILE_NAME, self._output / REPORT / PAGE
        topics, there_before = self._per_topic(evaluation, results.provenance.fingerprints)
        if there_before and same_results(file, results) and page.is_file():
            self._say(f"{file}, {page}: as before")
        else:
            there.require()
            write_text(self._output / TOPICS, topics.to_json())
            write_report(results, page.parent, topics)
            # The results come last, so that an interrupted report is written again.
            there.require()
            write_text(file, results.to_json())
            self._say(f"{file}, {page}")
        return Reproduced(results, evaluation, page)

    def _run_file(self, system: System) -> Path:
        return system.run or RunPlace(self._output, system.name).file

    def _evaluate(self) -> "Evaluation":
        from mimo_plugin.evaluation.evaluate import evaluate

        config = self._config
        seen, languages = self._trained_on()
        return evaluate(
            [f"{system.name}={self._run_file(system)}" for system in self._systems],
            self._benchmark.pool,
            measures=config.measures,
            baseline=self._baseline,
            test=chosen_test(config, self._systems),
            correction=config.correction,
            alpha=config.alpha,
            progress=self._options.progress,
            seen=seen,
            seen_languages=languages,
            slices=self._options.slices,
        )

    def _per_topic(
        self, evaluation: "Evaluation", fingerprints: Mapping[str, str | None]
    ) -> tuple["PerTopicResults", bool]:
        """The record of topics, and whether an earlier call wrote it."""
        from mimo_plugin.evaluation.per_topic import Wanted, per_topic_results

        wanted = Wanted(
            fingerprints=fingerprints,
            asked=self._options.report_topics,
            seed=self._options.seed,
            files={system.name: self._run_file(system) for system in self._systems},
            queries=dict(query for part in self._benchmark.parts for query in part.queries),
            pools=[part.pool for part in self._benchmark.parts],
        )
        return per_topic_results(evaluation, wanted, self._output, self._options.progress)

    def _trained_on(self) -> tuple[dict[str, TrainedOnResult], dict[str, Iterable[str]]]:
        """Overlap of the documents with the training texts of encoders that recorded them; languages."""
        seen, warnings = open_seen({name: dense.encoder.checkpoint for name, dense in self._dense.items()})
        self._warnings += warnings
        found: dict[str, TrainedOnResult] = {}
        for name, one in seen.items():
            identity = {
                "encoder": self._dense[name].facts.fingerprint,
                "training_data": one.training_data,
                "documents": self._benchmark.documents_identity,
            }
            note = self._output / COLLECTIONS / f"trained-on-{identity_key(identity)}.json"
            known = read_note(note, TrainedOnResult)
            if known is None:
                self._say(f"{name}: looking for its training texts among the documents")
                known = trained_on((doc.text for doc in self._benchmark.pool.docs_iter()), {name: one})[name]
                write_note(note, known)
            found[name] = known
        self._warnings += trained_on_warnings(found)
        languages: dict[str, Iterable[str]] = {
            name: one.languages for name, one in seen.items() if one.languages
        }
        return found, languages | self._seen_languages

    def _depths(self, evaluation: "Evaluation") -> Iterator[str]:
        """Warnings about the depth of runs from elsewhere, if measures have no cutoff."""
        uncut = ", ".join(str(measure) for measure in evaluation.measures if measure.cutoff is None)
        given = {system.name for system in self._systems if system.run is not None}
        expected = min(self._config.depth, self._benchmark.documents)
        for score in evaluation.scores:
            if uncut and score.name in given and score.depth != expected:
                yield (
                    f"run {score.name!r} has up to {score.depth} hits per query, the depth here is "
                    f"{expected}: without a cutoff {uncut} does not compare it with runs of that depth"
                )

    def _language_bias(self, evaluation: "Evaluation") -> dict[str, Any]:
        from mimo_plugin.evaluation.language import CUTOFF, Cutoffs

        fairness = self._config.fairness
        files = {
            system.name: self._run_file(system)
            for system in self._systems
            if fairness is not None or system.run is not None
        }
        if not files:
            return {}
        self._say("measuring language bias")
        whole = (dense.indexes for dense in self._dense.values() if all(map(dense.whole, dense.indexes)))
        options = BiasOptions(
            cutoff=fairness.cutoff if fairness else CUTOFF,
            target=fairness.target if fairness else None,
            further=Cutoffs(fairness.peer, fairness.mrc) if fairness else Cutoffs(),
            similarity=self._similarity,
        )
        languages = Languages(self._benchmark, next(whole, []))
        found, warnings = look_at_runs(files, evaluation.topics, languages, options)
        self._warnings += warnings
        return found

    def _similarity(self, name: str, docids: Set[str]) -> "Similarity | None":
        parts = self._benchmark.parts
        # With one index per language, no two versions of a query rank the same documents.
        if name not in self._dense or len(parts) > 1:
            return None
        dense = self._dense[name]
        try:
            return similarity_in(dense.indexes[0], parts[0], dense.load, docids)
        except ArtifactError as error:
            self._warnings.append(
                f"{name}: its index is missing or damaged, so MRC lacks the scores of documents beyond the "
                f"run's hits; remove {dense.place.note} to build it again ({error})"
            )
            return None

    def _fingerprints(self) -> dict[str, str]:
        found = {f"documents of {name}": sha for name, sha in self._benchmark.documents_identity}
        found["queries"] = self._benchmark.queries_fingerprint
        found |= {f"encoder {name}": dense.facts.fingerprint for name, dense in self._dense.items()}
        found |= {f"run {name}": made.run.sha256 for name, made in self._made.items()}
        found |= {f"run {system.name}": sha256(system.run) for system in self._systems if system.run}
        if self._options.slices is not None:
            found["slices"] = sha256(self._options.slices)
        found["config"] = identity_key(self._config.model_dump(mode="json"))
        return found
