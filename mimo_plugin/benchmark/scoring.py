"""Systems scored on the collections of an experiment."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field

from mimo_plugin.benchmark.config import BenchmarkConfig
from mimo_plugin.benchmark.parts import Benchmark, open_benchmark, query_bytes
from mimo_plugin.benchmark.runs import RunLines, build_part, inner_products
from mimo_plugin.core.artifact import FileRecord, SealedRecord
from mimo_plugin.core.environment import bar, environment
from mimo_plugin.core.errors import ArtifactError, DataError
from mimo_plugin.core.files import remove_tree, write_text
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.evaluation.options import FusionOptions, Setting
from mimo_plugin.pyserini.bm25 import index_bm25, search_bm25
from mimo_plugin.training.run import TrainingManifest

if TYPE_CHECKING:
    import numpy as np

    from mimo_plugin.evaluation.measures import Measure
    from mimo_plugin.evaluation.runs import Run
    from mimo_plugin.evaluation.topics import Topics
    from mimo_plugin.indexing.open import Index, IndexPlan

SCORES, RUN, INDEX = "scores.json", "run.trec.gz", "index"
FORMAT: Final = "mimo-experiment-scores"


class Scores(SealedRecord):
    """Scores of a system; written last.

    Attributes:
        seed, model: see `Scoring`.
        encoder, collection: fingerprints; BM25 and fusions have no encoder.
        measures: measure -> mean over topics.
        macro: measure -> mean over languages of their means over topics.
        diagnostics: name -> value; None if it is undefined.
        remarks: name -> why the diagnostic is undefined, or a caveat.
        query_ids: the judged topics.
        per_query: measure -> score of each topic.
        seconds: duration of indexing, searching and scoring.
        encoding: prompts and dimension set by the recipe, of the teacher and the start whatever it sets.
    """

    format: Literal["mimo-experiment-scores"] = FORMAT
    format_version: Literal[1] = 1
    system: str
    seed: int | None
    model: dict[str, str]
    encoder: str | None
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


@dataclass(frozen=True)
class Scoring:
    """A system to be scored on a collection.

    Attributes:
        seed: None for a system that does not depend on it.
        model: of a trained system, hashes of its weights; of a fusion, part -> hash of its run.
        directory: holds run and scores, and until they are there the index.
        keep_index: False removes the index after scoring.
    """

    system: str
    seed: int | None
    model: dict[str, str]
    collection: ScoredCollection
    directory: Path
    measures: Sequence["Measure"]
    keep_index: bool = False
    progress: bool | None = None

    def encoder(self, checkpoint: str, options: EncoderOptions, encoding: dict[str, Any]) -> Scores:
        """Indexes the collection with an encoder, searches it, scores the run.

        After a kill, the same call resumes the index; the scores are written last.

        Args:
            encoding: those of the options that the recipe sets.

        Raises: as `index` and `find_hits`.
        """
        from mimo_plugin.evaluation.trained_on import write_run_record
        from mimo_plugin.indexing.search import find_hits
        from mimo_plugin.indexing.settings import IndexOptions

        began = time.perf_counter()
        index, collection, progress = self.directory / INDEX, self.collection, self.progress
        benchmark, (part,) = collection.benchmark, collection.benchmark.parts
        encoder = Encoder(checkpoint, options)
        try:
            built = build_part(part, encoder, index, IndexOptions(progress=progress))
        except ArtifactError:
            # An index of other documents or with another batch size is useless here.
            built = build_part(part, encoder, index, IndexOptions(resume=False, progress=progress))
        # In the number format of the index.
        encoder = built.encoder or encoder
        depth = min(benchmark.config.depth, len(built))
        with self._counting() as counter:
            run = self._write(find_hits([built], encoder, part.queries, hits=depth, advance=counter.update))
        write_run_record(self.directory / RUN, encoder.name, encoder.fingerprint)
        plan = built.manifest.plan
        return self._conclude(
            began, run, _diagnostics(run, collection, built, encoder), plan, encoding=encoding
        )

    def bm25(self) -> Scores:
        """Indexes the collection with Lucene, all languages alike, searches it, scores the run.

        Raises: as `index_bm25` and `search_bm25`.
        """
        began = time.perf_counter()
        benchmark, (part,) = self.collection.benchmark, self.collection.benchmark.parts
        index = self.directory / INDEX
        found = part.note.survey
        try:
            index_bm25(part.pool, index, surveyed=found, progress=self.progress)
        except ArtifactError:
            # Of other documents.
            index_bm25(part.pool, index, resume=False, surveyed=found, progress=self.progress)
        with self._counting() as counter:
            depth = benchmark.config.depth
            run = self._write(search_bm25(index, part.queries, hits=depth, advance=counter.update))
        return self._conclude(began, run, _diagnostics(run, self.collection))

    def fusion(self, options: FusionOptions, runs: Mapping[str, Path]) -> Scores:
        """Fuses the runs of its parts, in the order of the weights, and scores the fusion.

        Raises: as `fused_queries`.
        """
        from mimo_plugin.evaluation.fusion import fused_queries
        from mimo_plugin.evaluation.runs import decoded, read_run

        began = time.perf_counter()
        options = replace(options, hits=self.collection.benchmark.config.depth)
        parts = [read_run(file, name) for name, file in runs.items()]
        run = self._write(decoded(fused_queries(parts, options)))
        return self._conclude(began, run, _diagnostics(run, self.collection))

    def _counting(self) -> Any:
        total = self.collection.benchmark.queries
        return bar(total=total, what="searching", unit="queries", enabled=self.progress)

    def _write(self, lines: RunLines) -> "Run":
        """Writes the run, and reads what others will read."""
        from mimo_plugin.evaluation.runs import read_run, write_run

        write_run(self.directory / RUN, lines, self.system)
        return read_run(self.directory / RUN, self.system)

    def _conclude(
        self,
        began: float,
        run: "Run",
        diagnosed: tuple[dict[str, float | None], dict[str, str]],
        plan: "IndexPlan | None" = None,
        encoding: dict[str, Any] | None = None,
    ) -> Scores:
        """Scores the run, writes the scores, removes the index."""
        from mimo_plugin.evaluation.measures import average, score_run

        topics = self.collection.topics
        per_topic = score_run(run, topics, self.measures).per_topic
        averages = {str(measure): average(per_topic[measure], topics) for measure in self.measures}
        ran_on = environment(plan.device if plan else "cpu", 1)
        ran_on["versions"] |= {name: version(name) for name in ("faiss-cpu", "ranx", "scipy", "pyserini")}
        scores = Scores(
            system=self.system,
            seed=self.seed,
            model=self.model,
            encoder=plan.encoder_fingerprint if plan else None,
            collection=self.collection.fingerprint,
            measures={name: found.mean for name, found in averages.items()},
            macro={name: found.macro for name, found in averages.items()},
            diagnostics=diagnosed[0],
            remarks=diagnosed[1],
            query_ids=topics.query_ids,
            per_query={str(measure): tuple(per_topic[measure].tolist()) for measure in self.measures},
            run=FileRecord.of(self.directory / RUN),
            environment=ran_on,
            seconds=round(time.perf_counter() - began, 3),
            encoding=encoding or {},
        )
        write_text(self.directory / SCORES, scores.sealed())
        if not self.keep_index and (self.directory / INDEX).is_dir():
            remove_tree(self.directory / INDEX)
        return scores


def _diagnostics(
    run: "Run", collection: ScoredCollection, index: "Index | None" = None, encoder: Encoder | None = None
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Language bias and geometry: values, None where undefined, and remarks. Without an encoder there are no
    vectors, and MRC compares what is in the run.
    """
    from mimo_plugin.evaluation.fairness import mrc, peer
    from mimo_plugin.evaluation.geometry import alignment, uniformity
    from mimo_plugin.evaluation.language import language_mix
    from mimo_plugin.evaluation.topics import version_groups

    topics, of_document = collection.topics, collection.doc_languages
    measured: dict[str, Callable[[], float | None]] = dict.fromkeys(DIAGNOSTICS[:-1], lambda: None)
    similarity = None
    if index is not None and encoder is not None:
        documents: np.ndarray = index.faiss.reconstruct_n(0, index.faiss.ntotal)
        docids = [index.docids[row] for row in range(len(index.docids))]
        languages = [of_document[docid] for docid in docids]
        queries = encoder.encode_queries(list(collection.queries.values()))
        similarity = inner_products(
            (docid.encode() for docid in docids), documents, topics.query_ids, queries
        )
        measured |= {
            SAME_LANGUAGE: lambda: _same_language(collection, docids, documents, queries),
            ALIGNMENT: lambda: alignment(documents, version_groups(docids, languages, topics), languages),
            UNIFORMITY: lambda: uniformity(documents),
        }
    measured |= {
        OWN_SHARE: lambda: language_mix(run, topics.query_languages, of_document, CUTOFF).own,
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
