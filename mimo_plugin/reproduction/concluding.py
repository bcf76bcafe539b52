"""From runs to results and report: scores, what runs do with languages, where encoders put texts."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.data.identity import identity_key
from mimo_plugin.errors import ArtifactError
from mimo_plugin.evaluation.trained_on import TrainedOn, open_seen, trained_on
from mimo_plugin.files import make_parent, sha256, write_text
from mimo_plugin.locking import Held
from mimo_plugin.manifests import sealed_text, unseal
from mimo_plugin.reproduction.bias import BiasOptions, Languages, look_at_runs
from mimo_plugin.reproduction.dense import DenseSystem
from mimo_plugin.reproduction.directory import COLLECTIONS, REPORT, RESULTS
from mimo_plugin.reproduction.geometry import encoder_geometry
from mimo_plugin.reproduction.made import MadeRun, RunPlace
from mimo_plugin.reproduction.models import Models
from mimo_plugin.reproduction.options import ReproduceOptions
from mimo_plugin.reproduction.provenance import provenance
from mimo_plugin.reproduction.results import results_object
from mimo_plugin.reproduction.similarity import similarity_in
from mimo_plugin.reproduction.systems import System, chosen_test

if TYPE_CHECKING:
    from mimo_plugin.evaluation.evaluation import Evaluation
    from mimo_plugin.evaluation.fairness import Similarity
    from mimo_plugin.reproduction.parts import Benchmark

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
        from mimo_plugin.report.writing import PAGE, write_report

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
        write_text(file, json.dumps(results, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
        self._say(f"{file}, {page}")
        return Reproduced(results, evaluation, page)

    def _geometry(self) -> dict[str, Any] | None:
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
        from mimo_plugin.evaluation.evaluation import evaluate
        from mimo_plugin.evaluation.request import EvaluationOptions

        config = self._config
        return evaluate(
            [f"{system.name}={self._run_file(system)}" for system in self._runs.systems],
            self._benchmark.specs,
            EvaluationOptions(
                measures=config.measures,
                baseline=self._runs.baseline,
                test=chosen_test(config, self._runs.systems),
                correction=config.correction,
                alpha=config.alpha,
                progress=self._options.progress,
            ),
            pool=self._benchmark.pool,
            seen=self._trained_on(),
        )

    def _trained_on(self) -> "dict[str, TrainedOn]":
        """Of the encoders that say what they were trained on; the documents are read once an encoder."""
        encoders = {system.name: system.encoder for system in self._runs.systems if system.encoder}
        seen, warnings = open_seen(encoders)
        self._warnings += warnings
        found: dict[str, TrainedOn] = {}
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
                write_text(note, sealed_text(known.as_json()))
            found[name] = known
            self._warnings += known.warnings(name)
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

    def _look(self, evaluation: "Evaluation") -> dict[str, Any]:
        from mimo_plugin.evaluation.language_bias import CUTOFF, Cutoffs

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


def _read_note(note: Path) -> TrainedOn | None:
    """What was counted before; None where there is nothing, or something damaged."""
    try:
        found, whole = unseal(note.read_bytes())
        return TrainedOn(found["documents"], found["of"], found["training_data"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _same(file: Path, results: Mapping[str, Any]) -> bool:
    """Whether a file holds these results, whatever command found them and when."""
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
        there["provenance"] |= {name: results["provenance"][name] for name in ("command", "date")}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(there == json.loads(json.dumps(results)))
