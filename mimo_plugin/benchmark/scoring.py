"""A student scored on the collections of an experiment."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field

from mimo_plugin.benchmark.config import BenchmarkConfig
from mimo_plugin.benchmark.grid import EncoderSettings
from mimo_plugin.benchmark.parts import Benchmark, open_benchmark, query_bytes
from mimo_plugin.benchmark.runs import build_part, inner_products
from mimo_plugin.core.artifact import FileRecord, SealedRecord
from mimo_plugin.core.environment import bar, environment
from mimo_plugin.core.errors import ArtifactError, DataError
from mimo_plugin.core.files import remove_tree, write_text
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.encoder.packaged import MODEL
from mimo_plugin.evaluation.options import Setting
from mimo_plugin.training.run import RunDirectory, TrainingManifest

if TYPE_CHECKING:
    import numpy as np

    from mimo_plugin.evaluation.measures import Measure
    from mimo_plugin.evaluation.runs import Run
    from mimo_plugin.evaluation.topics import Topics
    from mimo_plugin.indexing.open import Index

SCORES, RUN, INDEX = "scores.json", "run.trec.gz", "index"
FORMAT: Final = "mimo-experiment-scores"


class Scores(SealedRecord):
    """Scores of a student; written last.

    Attributes:
        model: hashes of the scored weights, from the manifest of the training run.
        encoder, collection: fingerprints.
        measures: measure -> mean over topics.
        macro: measure -> mean over languages of their means over topics.
        diagnostics: name -> value; None if it is undefined.
        remarks: name -> why the diagnostic is undefined, or a caveat.
        query_ids: the judged topics.
        per_query: measure -> score of each topic.
        seconds: duration of indexing, searching and scoring.
        encoding: prompts and dimension set by the recipe.
    """

    format: Literal["mimo-experiment-scores"] = FORMAT
    format_version: Literal[1] = 1
    system: str
    seed: int
    model: dict[str, str]
    encoder: str
    collection: str
    measures: dict[str, float]
    macro: dict[str, float]
    diagnostics: dict[str, float | None]
    remarks: dict[str, str]
    query_ids: tuple[str, ...]
    per_query: dict[str, tuple[float, ...]]
    run: FileRecord
    environment: dict[str, Any]
    seconds: float
    encoding: Annotated[dict[str, Any], Field(default_factory=dict)]


def weights(manifest: TrainingManifest) -> dict[str, str]:
    """File -> SHA-256 of the files of a training run."""
    return {name: record.sha256 for name, record in manifest.files.items()}


CUTOFF = 20
_HITS = 100

SAME_LANGUAGE = f"same-language ndcg@{CUTOFF}"
OWN_SHARE = f"own language@{CUTOFF}"
ALIGNMENT, UNIFORMITY = "alignment", "uniformity"
MRC, PEER = f"mrc@{CUTOFF}", f"peer@{CUTOFF}"
PEER_SENSITIVE = f"peer@{CUTOFF} sensitive topics"
DIAGNOSTICS = (SAME_LANGUAGE, OWN_SHARE, ALIGNMENT, UNIFORMITY, MRC, PEER)


@dataclass(frozen=True)
class ScoredCollection:
    """Attributes:
    benchmark: the pool, indexed and searched as one part.
    topics: its judged topics.
    doc_languages: docid -> language.
    queries: query id -> text of the judged topics.
    fingerprint: SHA-256 over documents, queries and judgments.
    """

    benchmark: Benchmark
    topics: "Topics"
    doc_languages: Mapping[str, str]
    queries: Mapping[str, str]
    fingerprint: str

    @classmethod
    def load(
        cls, name: str, specs: Sequence[str], measures: Sequence["Measure"], progress: bool | None = None
    ) -> "ScoredCollection":
        """Reads a pool; of documents, memory holds ids and languages.

        Raises:
            DataError: with every problem of the collections.
        """
        from mimo_plugin.evaluation.topics import load_topics

        config = BenchmarkConfig(
            name=name,
            title=name,
            setting=Setting.MLIR,
            collections=tuple(specs),
            measures=tuple(map(str, measures)),
            depth=max(_HITS, CUTOFF, *(measure.cutoff or 0 for measure in measures)),
        )
        benchmark = open_benchmark(config, None, progress=progress)
        pool = benchmark.pool
        topics = load_topics(pool)
        digest = hashlib.sha256(benchmark.parts[0].note.fingerprint.encode())
        texts = {query.query_id: query.text for query in pool.queries_iter()}
        for query_id, text in sorted(texts.items()):
            digest.update(query_bytes(query_id, text))
        for query_id, judged in zip(topics.query_ids, topics.judged, strict=True):
            digest.update(f"{query_id} {len(judged.docids)}\n".encode())
            digest.update(b"\n".join(judged.docids.tolist()))
            digest.update(judged.relevance.tobytes())
        digest.update("\n".join(topics.languages).encode())
        digest.update(topics.language_of.astype("<i8").tobytes())
        return cls(
            benchmark,
            topics,
            {doc.doc_id: doc.lang for doc in pool.docs_iter()},
            {query_id: texts.get(query_id, "") for query_id in topics.query_ids},
            digest.hexdigest(),
        )


def score_student(
    training: Path,
    system: str,
    seed: int,
    collection: ScoredCollection,
    directory: Path,
    measures: Sequence["Measure"],
    encoding: EncoderOptions,
    *,
    keep_index: bool = False,
    progress: bool | None = None,
) -> Scores:
    """Indexes a collection with the student of a finished training run, searches it, scores the run.

    After a kill, the same call resumes the index; the scores are written last.

    Args:
        training: directory of the training run.
        directory: directory for index, run and scores.
        keep_index: False removes the index after scoring.

    Raises: as `index` and `find_hits`.
    """
    from mimo_plugin.evaluation.measures import average, score_run
    from mimo_plugin.evaluation.runs import read_run, write_run
    from mimo_plugin.evaluation.trained_on import write_run_record
    from mimo_plugin.indexing.search import find_hits
    from mimo_plugin.indexing.settings import IndexOptions

    began = time.perf_counter()
    manifest = RunDirectory(training).read()
    index, run_file = directory / INDEX, directory / RUN
    benchmark, (part,) = collection.benchmark, collection.benchmark.parts
    encoder = Encoder(str(training / MODEL), encoding)
    try:
        built = build_part(part, encoder, index, IndexOptions(progress=progress))
    except ArtifactError:
        # An index of other documents or with another batch size is useless here.
        built = build_part(part, encoder, index, IndexOptions(resume=False, progress=progress))
    depth = min(benchmark.config.depth, len(built))
    with bar(total=benchmark.queries, what="searching", unit="queries", enabled=progress) as counter:
        hits = find_hits([built], encoder, part.queries, hits=depth, advance=counter.update)
        write_run(run_file, hits, system)
    write_run_record(run_file, encoder.name, encoder.fingerprint)
    run = read_run(run_file, system)
    scored = score_run(run, collection.topics, measures)
    averages = {str(measure): average(scored.per_topic[measure], collection.topics) for measure in measures}
    diagnostics, remarks = _diagnostics(run, collection, built, encoder)
    ran_on = environment(built.manifest.plan.device, 1)
    ran_on["versions"] |= {name: version(name) for name in ("faiss-cpu", "ranx", "scipy", "pyserini")}
    said = {name: getattr(encoding, name) for name in EncoderSettings.model_fields}
    scores = Scores(
        system=system,
        seed=seed,
        model=weights(manifest),
        encoder=built.manifest.plan.encoder_fingerprint,
        collection=collection.fingerprint,
        measures={name: found.mean for name, found in averages.items()},
        macro={name: found.macro for name, found in averages.items()},
        diagnostics=diagnostics,
        remarks=remarks,
        query_ids=collection.topics.query_ids,
        per_query={str(measure): tuple(scored.per_topic[measure].tolist()) for measure in measures},
        run=FileRecord.of(run_file),
        environment=ran_on,
        seconds=round(time.perf_counter() - began, 3),
        encoding={name: value for name, value in said.items() if value is not None},
    )
    write_text(directory / SCORES, scores.sealed())
    if not keep_index:
        remove_tree(index)
    return scores


def _diagnostics(
    run: "Run", collection: ScoredCollection, index: "Index", encoder: Encoder
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Language bias and geometry: values, None where undefined, and remarks."""
    from mimo_plugin.evaluation.fairness import mrc, peer
    from mimo_plugin.evaluation.geometry import alignment, uniformity
    from mimo_plugin.evaluation.language import language_mix
    from mimo_plugin.evaluation.topics import version_groups

    topics, of_document = collection.topics, collection.doc_languages
    documents: np.ndarray = index.faiss.reconstruct_n(0, index.faiss.ntotal)
    docids = [index.docids[row] for row in range(len(index.docids))]
    languages = [of_document[docid] for docid in docids]
    queries = encoder.encode_queries(list(collection.queries.values()))
    similarity = inner_products((docid.encode() for docid in docids), documents, topics.query_ids, queries)
    measured: Mapping[str, Callable[[], float | None]] = {
        SAME_LANGUAGE: lambda: _same_language(collection, docids, documents, queries),
        OWN_SHARE: lambda: language_mix(run, topics.query_languages, of_document, CUTOFF).own,
        ALIGNMENT: lambda: alignment(documents, version_groups(docids, languages, topics), languages),
        UNIFORMITY: lambda: uniformity(documents),
        MRC: lambda: mrc(run, topics, CUTOFF, similarity).mean,
    }
    values: dict[str, float | None] = {}
    remarks: dict[str, str] = {}
    for name, measure in measured.items():
        try:
            values[name] = measure()
        except DataError as error:
            values[name] = None
            remarks[name] = str(error)
    found = peer(run, topics, of_document, CUTOFF)
    values[PEER] = found.mean
    values[PEER_SENSITIVE] = found.sensitive
    if found.sensitive < found.topics:
        remarks[PEER] = (
            f"{found.sensitive} of {found.topics} topics have relevant documents in several languages and "
            f"two or more in one of them; in the others {PEER} does not depend on the order of what was "
            "found and cannot tell systems apart"
        )
    return values, remarks


def _same_language(
    collection: ScoredCollection, docids: list[str], documents: "np.ndarray", queries: "np.ndarray"
) -> float:
    """Mean nDCG of queries that are searched in the documents of their own language only."""
    import numpy as np

    from mimo_plugin.evaluation.language import same_language
    from mimo_plugin.evaluation.measures import Measure, MeasureKind, score_run
    from mimo_plugin.evaluation.runs import Ranking, Run
    from mimo_plugin.indexing.nearest import nearest

    topics = collection.topics
    of_document = np.array([collection.doc_languages[docid] for docid in docids])
    found: dict[str, Ranking] = {}
    for code, language in enumerate(topics.languages):
        rows = np.flatnonzero(of_document == language)
        asked = np.flatnonzero(topics.language_of == code)
        if len(rows):
            found |= nearest(
                [topics.query_ids[query] for query in asked],
                queries[asked],
                [docids[row] for row in rows],
                documents[rows],
                CUTOFF,
            )
    run, topics = same_language(Run("same language", found), topics, collection.doc_languages)
    measure = Measure(MeasureKind.NDCG, CUTOFF)
    return float(np.mean(score_run(run, topics, [measure]).per_topic[measure]))
