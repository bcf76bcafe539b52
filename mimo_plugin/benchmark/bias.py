"""Language bias, geometry, provenance and the results object of a reproduction."""

import json
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.benchmark.geometry import checkpoints, measure_geometry
from mimo_plugin.benchmark.parts import read_note, write_note
from mimo_plugin.benchmark.systems import GEOMETRY, EncoderFacts, MadeRun, System, shortened
from mimo_plugin.benchmark.texts import NamedEncoder, sample_texts
from mimo_plugin.core.environment import (
    cores,
    git_commit,
    installed_versions,
    memory_bytes,
    processor,
)
from mimo_plugin.core.errors import DataError, ModelError
from mimo_plugin.data.sources import identity_key
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.evaluation.fairness import Similarity
from mimo_plugin.evaluation.language import CUTOFF, Cutoffs, language_bias
from mimo_plugin.evaluation.options import Gain
from mimo_plugin.evaluation.results import (
    BenchmarkResults,
    BiasResult,
    ConfigResult,
    GeometryResult,
    HardwareResult,
    ProvenanceResult,
    ReferenceResult,
    SystemResult,
)
from mimo_plugin.evaluation.runs import Run, read_run
from mimo_plugin.evaluation.topics import Topics, documents_of, pool_doc_languages
from mimo_plugin.indexing.open import read_doc_languages

if TYPE_CHECKING:
    from mimo_plugin.benchmark.config import BenchmarkConfig
    from mimo_plugin.benchmark.parts import Benchmark
    from mimo_plugin.evaluation.evaluate import Evaluation

_NAMED = 3


@dataclass(frozen=True)
class Languages:
    """Looks up the languages of documents.

    Attributes:
        indexes: directories of finished indexes that together hold all documents. If empty, the collection
            is read.
    """

    benchmark: "Benchmark"
    indexes: Sequence[Path]

    def __call__(self, docids: Iterable[str]) -> dict[str, str]:
        """Docid -> language, of documents in the collection with a known language."""
        wanted = frozenset(docids)
        found: dict[str, str] = {}
        if self.indexes:
            for directory in self.indexes:
                found |= read_doc_languages(directory, wanted)
        else:
            for part in self.benchmark.parts:
                found |= pool_doc_languages(part.pool, wanted)
        return found

    @property
    def sizes(self) -> dict[str, int]:
        """Language -> number of documents."""
        found: Counter[str] = Counter()
        for part in self.benchmark.parts:
            found.update(part.note.languages)
        return dict(found)

    @property
    def all_known(self) -> bool:
        """Whether every document of the collection has a language."""
        return all("" not in part.note.languages for part in self.benchmark.parts)


@dataclass(frozen=True)
class BiasOptions:
    """Options of the language bias of runs.

    Attributes:
        cutoff: hits per query.
        target: of AWRF, see `language_bias`. None only checks that runs are of this collection.
        further: further cutoffs of PEER and MRC.
        similarity: makes the `similarity` of `language_bias` from a run and docids; None if it cannot.
    """

    cutoff: int
    target: str | None
    further: Cutoffs
    similarity: Callable[[str, Set[str]], Similarity | None] = lambda _name, _docids: None

    @property
    def deepest(self) -> int:
        return self.further.deepest(self.cutoff)


def look_at_runs(
    files: Mapping[str, Path], topics: Topics, languages: Languages, options: BiasOptions
) -> tuple[dict[str, BiasResult], list[str]]:
    """The language bias of runs by name, and warnings.

    A run is left out if it is of another collection, or if a document has no known language. Runs are read
    twice: the languages of all documents are looked up at once, and memory holds one run at a time.

    Args:
        files: name -> run.
    """
    needed: set[str] = set()
    for name, file in files.items():
        needed |= documents_of(read_run(file, name), topics, options.deepest)
    known = languages(needed) if needed else {}
    warnings: list[str] = []
    if languages.all_known:
        topics, missing = _in_collection(topics, known)
        if missing and options.target is not None:
            warnings.append(
                f"{len(missing):,} relevant documents are not in the collection ({_shown(missing)}): they "
                "count in the scores, though no run of it can find them, and not in the language bias"
            )
    found = {}
    for name, file in files.items():
        run = read_run(file, name)
        strangers = _strangers(run, topics, known, options.cutoff) if languages.all_known else []
        if strangers:
            warnings.append(
                f"run {name!r} was made from another index than this one: {len(strangers):,} of the "
                f"documents among its first {options.cutoff} are not in the collection ({_shown(strangers)})"
            )
        elif options.target is not None:
            warnings += shallow(run, topics, min(options.deepest, languages.benchmark.documents))
            try:
                found[name] = language_bias(
                    run,
                    topics,
                    known,
                    k=options.cutoff,
                    target=options.target,
                    collection=languages.sizes,
                    similarity=options.similarity(name, documents_of(run, topics, options.deepest)),
                    further=options.further,
                )
            except DataError as error:
                warnings.append(f"run {name!r}: language bias left out: {error}")
    return found, warnings


def _in_collection(topics: Topics, known: Mapping[str, str]) -> tuple[Topics, list[str]]:
    """The topics without relevant documents that the collection lacks, and the docids of these."""
    missing: set[str] = set()
    judged = []
    for one in topics.judged:
        gone = [
            relevance > 0 and docid.decode() not in known
            for docid, relevance in zip(one.docids.tolist(), one.relevance.tolist(), strict=True)
        ]
        if any(gone):
            missing.update(docid.decode() for docid in one.docids[gone].tolist())
            kept = [not there for there in gone]
            one = one._replace(docids=one.docids[kept], relevance=one.relevance[kept])
        judged.append(one)
    return replace(topics, judged=tuple(judged)), sorted(missing)


def _strangers(run: Run, topics: Topics, known: Mapping[str, str], cutoff: int) -> list[str]:
    """Documents among the first hits of judged topics that the collection lacks."""
    rankings = (run.queries.get(query_id) for query_id in topics.query_ids)
    hits = {docid.decode() for ranking in rankings if ranking for docid in ranking.docids[:cutoff].tolist()}
    return sorted(hits - known.keys())


def shallow(run: Run, topics: Topics, cutoff: int) -> list[str]:
    """A warning about a run with fewer hits per query than its language bias needs."""
    lengths = [len(run.queries[name].docids) for name in topics.query_ids if name in run.queries]
    depth = max(lengths, default=0)
    if not 0 < depth < cutoff:
        return []
    return [
        f"run {run.name!r} has {depth} hits a query at most, fewer than the {cutoff} of the language bias: "
        f"search deeper, or read it as that of the first {depth}"
    ]


def _shown(docids: Sequence[str]) -> str:
    return ", ".join(docids[:_NAMED]) + (", ..." if len(docids) > _NAMED else "")


def encoder_geometry(
    benchmark: "Benchmark",
    encoders: Mapping[str, tuple[NamedEncoder, EncoderFacts]],
    output: Path,
    options: EncoderOptions,
    say: Callable[[str], Any],
    progress: bool | None,
) -> tuple[GeometryResult | None, list[str]]:
    """The geometry of all encoders, and warnings.

    The geometry is None if there are no encoders, if the config wants none, or if it is undefined.

    Args:
        encoders: name -> encoder, and its facts.
    """
    asked = benchmark.config.geometry
    if asked is None or not encoders:
        return None, []
    files = {
        name: output / GEOMETRY / f"{name}-{identity_key(_identity(benchmark, encoder, facts))}.json"
        for name, (encoder, facts) in encoders.items()
    }
    known = {name: read_note(file, GeometryResult) for name, file in files.items()}
    found: dict[str, GeometryResult] = {}
    warnings = []
    texts = None
    for name, there in known.items():
        if there is None:
            try:
                texts = texts or sample_texts(
                    benchmark.pool,
                    benchmark.specs,
                    role=asked.role,
                    count=asked.texts,
                    seed=asked.seed,
                    progress=progress,
                )
            except DataError as error:
                return None, [f"geometry left out: {error}"]
            say(f"{name}: geometry of {len(texts.texts):,} {texts.role.value}")
            try:
                encoder, facts = encoders[name]
                own = replace(options, dtype=facts.dtype)
                there = measure_geometry([encoder], texts, own, progress=progress)
            except (DataError, ModelError) as error:
                # The scores exist by now and must not be lost.
                warnings.append(f"{name}: geometry left out: {error}")
                continue
            write_note(files[name], there)
        found[name] = there
    if not found:
        return None, warnings
    together = GeometryResult(
        texts=next(iter(found.values())).texts,
        encoders={name: each.encoders[name] for name, each in found.items()},
        skipped={what: reason for each in found.values() for what, reason in each.skipped.items()},
    )
    return together, warnings


def _identity(benchmark: "Benchmark", encoder: NamedEncoder, facts: EncoderFacts) -> dict[str, Any]:
    asked = benchmark.config.geometry
    return {
        "encoder": facts.fingerprint,
        "prompts": (facts.document_prompt, facts.query_prompt),
        "max_length": facts.max_length,
        "dtype": facts.dtype,
        "trail": None if encoder.run is None else [path.name for _, path in checkpoints(encoder.run)],
        "setting": benchmark.config.setting.value,
        "collections": [part.key for part in benchmark.parts],
        "documents": benchmark.documents_identity,
        "queries": benchmark.queries_fingerprint,
        "options": None if asked is None else asked.model_dump(mode="json"),
        **shortened(facts),
    }


def results_object(
    benchmark: "Benchmark",
    systems: Sequence[System],
    made: Mapping[str, MadeRun],
    evaluation: "Evaluation",
    language_bias: Mapping[str, BiasResult],
    geometry: GeometryResult | None,
    warnings: Sequence[str],
    provenance: ProvenanceResult,
) -> BenchmarkResults:
    """The object of `results.json`. made: notes of the systems whose runs were made here."""
    config = benchmark.config
    return BenchmarkResults(
        config=ConfigResult(
            name=config.name,
            title=config.title,
            setting=config.setting,
            note=_note(config),
            gain=config.gain,
            collections=tuple(benchmark.specs),
            languages=tuple(evaluation.topics.counts),
            measures=tuple(str(measure) for measure in evaluation.measures),
            depth=config.depth,
            fairness_cutoff=config.fairness.cutoff if config.fairness else CUTOFF,
        ),
        subset=benchmark.subset(),
        systems={system.name: _system(system, made.get(system.name)) for system in systems},
        evaluation=evaluation.result,
        language_bias=language_bias,
        geometry=geometry,
        reference=tuple(ReferenceResult.model_validate(reference) for reference in config.reference),
        warnings=tuple(warnings),
        provenance=provenance,
    )


def _note(config: "BenchmarkConfig") -> str | None:
    binary = "Judgments count 0 or 1, whatever their grade." if config.gain is Gain.BINARY else None
    return " ".join(filter(None, [config.note, binary])) or None


def _system(system: System, made: MadeRun | None) -> SystemResult:
    known = made.model_dump() if made else {}
    return SystemResult.model_validate(
        known | {"kind": system.kind.value, "label": system.name, "parts": system.parts}
    )


_PACKAGES = (
    "mimo-plugin",
    "pyserini",
    "torch",
    "transformers",
    "sentence-transformers",
    "faiss-cpu",
    "ir_datasets",
    "ranx",
    "scipy",
    "statsmodels",
    "numpy",
)


def provenance(command: str, device: str | None, fingerprints: dict[str, str]) -> ProvenanceResult:
    """Where and how results were made.

    Args:
        device: type of the encoders' device; None if no encoder ran.
        fingerprints: of documents, encoders and so on, by name.
    """
    return ProvenanceResult(
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version()} | installed_versions(_PACKAGES),
        hardware=HardwareResult(
            machine=platform.platform(),
            processor=processor(),
            cores=cores(),
            memory_bytes=memory_bytes(),
            device=_device(device),
        ),
        git_commit=git_commit(Path(__file__).parent),
        fingerprints=fingerprints,
    )


def _device(device: str | None) -> str | None:
    if device != "cuda":
        return device
    import torch

    return str(torch.cuda.get_device_name())


def same_results(file: Path, results: BenchmarkResults) -> bool:
    """Whether a file holds these results, apart from command and date."""
    try:
        there, found = json.loads(file.read_text(encoding="utf-8")), json.loads(results.to_json())
        there["provenance"] |= {name: found["provenance"][name] for name in ("command", "date")}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(there == found)
