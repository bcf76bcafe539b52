"""Makes the runs of systems: dense search, BM25, fusion."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.benchmark.parts import Benchmark, BenchmarkPart
from mimo_plugin.benchmark.systems import (
    BM25,
    INDEXES,
    EncoderFacts,
    MadeRun,
    Models,
    RunPlace,
    seconds_a_document,
    shortened,
)
from mimo_plugin.benchmark.texts import NamedEncoder
from mimo_plugin.collections.dataset import Pool
from mimo_plugin.core.artifact import Artifact, FileRecord, Kind
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.core.files import size_text
from mimo_plugin.data.sources import identity_key
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import BFLOAT16, FLOAT32
from mimo_plugin.evaluation.options import Analyzers
from mimo_plugin.evaluation.runs import write_run
from mimo_plugin.indexing.build import index
from mimo_plugin.indexing.encode import load_encoder
from mimo_plugin.indexing.faiss import new_index, resolve
from mimo_plugin.indexing.open import DOCID, WORK, Index, open_index
from mimo_plugin.indexing.open import INDEXES as DENSE_INDEXES
from mimo_plugin.indexing.search import cut_warning, find_hits
from mimo_plugin.indexing.settings import IndexOptions
from mimo_plugin.indexing.vectors import Shards
from mimo_plugin.pyserini.bm25 import BM25_INDEXES, K1, B, index_bm25, search_bm25

if TYPE_CHECKING:
    import numpy as np

    from mimo_plugin.benchmark.config import Fusion
    from mimo_plugin.evaluation.fairness import Similarity

RunLines = Iterable[tuple[str, list[str], "np.ndarray"]]


def build_part(
    part: BenchmarkPart,
    encoder: Encoder,
    directory: Path,
    options: IndexOptions,
    fields: tuple[str, ...] | None = None,
) -> Index:
    """Builds or resumes the index of a part; see `indexing.build.index`."""
    prefixes = None if part.prefixes is None else dict(part.prefixes)
    pool = Pool(part.pool, specs=part.specs, prefixes=prefixes, fields=fields)
    return index(pool, encoder, directory, options, found=part.note.survey)


class IndexedSystem(ABC):
    """A system with one index per part; finished indexes and runs are not made again.

    Args:
        kind: kind of its indexes.
        index_identity: everything that determines its indexes.
        query_identity: everything else that determines its run.
        output: directory of the reproduction.
        resume: False builds existing indexes again.
    """

    def __init__(
        self,
        name: str,
        kind: Kind[Any],
        benchmark: Benchmark,
        output: Path,
        index_identity: dict[str, Any],
        query_identity: dict[str, Any],
        resume: bool,
        progress: bool | None,
    ) -> None:
        self.name = name
        self.place = RunPlace(output, name)
        self._kind = kind
        self._benchmark = benchmark
        self._identity = {"index": index_identity, **query_identity}
        self._directory = output / INDEXES / f"{name}-{identity_key(index_identity)}"
        self._resume = resume
        self._progress = progress

    @property
    def key(self) -> str:
        queries, depth = self._benchmark.queries_fingerprint, self._benchmark.config.depth
        return identity_key({**self._identity, "queries": queries, "depth": depth})

    def finished(self) -> MadeRun | None:
        """The note of the run; None if the run is incomplete."""
        return self.place.finished(self.key)

    @property
    def begun(self) -> bool:
        """Whether there are indexes, finished or not."""
        return self._directory.exists()

    def index_of(self, part: BenchmarkPart) -> Path:
        return self._directory / part.name

    @property
    def indexes(self) -> list[Path]:
        return [self.index_of(part) for part in self._benchmark.parts]

    def whole(self, directory: Path) -> bool:
        """Whether the directory holds a complete index."""
        try:
            Artifact(directory, self._kind).read()
        except ArtifactError:
            return False
        return True

    def outlook(self) -> tuple[str, int]:
        """Remaining work as text, and the disk space for it in bytes."""
        if self.finished() is not None:
            return "done", 0
        missing = [
            part for part in self._benchmark.parts if not (self._resume and self.whole(self.index_of(part)))
        ]
        return self._estimate(missing) if missing else ("indexed, to be searched", 0)

    def make(self) -> MadeRun:
        """Builds missing indexes, searches, writes run and note.

        Raises: as `index`, `index_bm25`, `find_hits` and `write_run`.
        """
        benchmark = self._benchmark
        began = time.perf_counter()
        built = [self._index(part) for part in benchmark.parts]
        # The time that earlier commands took is unknown.
        seconds = {"index": round(time.perf_counter() - began, 3)} if all(built) else {}
        began = time.perf_counter()
        with bar(
            total=benchmark.queries, what=f"searching {self.name}", unit="queries", enabled=self._progress
        ) as counter:
            lines = write_run(self.place.file, self._search(counter.update), self.name)
        seconds["search"] = round(time.perf_counter() - began, 3)
        return self.place.finish(
            MadeRun(
                system=self.name,
                key=self.key,
                documents=benchmark.documents,
                index_bytes=sum(file.stat().st_size for file in self._directory.rglob("*") if file.is_file()),
                seconds=seconds,
                queries=benchmark.queries,
                lines=lines,
                run=FileRecord.of(self.place.file),
                **self._described(),
            )
        )

    def _index(self, part: BenchmarkPart) -> bool:
        """Builds a part's index if it is missing or damaged; returns whether this call built all of it."""
        directory = self.index_of(part)
        artifact = Artifact(directory, self._kind)
        begun = artifact.mark is not None and artifact.mark.exists() and not artifact.manifest.exists()
        if directory.exists() and not begun and not self.whole(directory):
            artifact.start_over()
        return self._build(part, directory)

    @abstractmethod
    def _estimate(self, missing: Sequence[BenchmarkPart]) -> tuple[str, int]:
        """Cost of the missing indexes: as text, and in bytes on disk."""

    @abstractmethod
    def _build(self, part: BenchmarkPart, directory: Path) -> bool:
        """As `_index`; the directory holds no damaged index."""

    @abstractmethod
    def _search(self, advance: Callable[[int], object]) -> RunLines: ...

    @abstractmethod
    def _described(self) -> dict[str, Any]:
        """Further fields of the note of a run that was just made."""


# Facts of an encoder in the results.
_PROMPTS = ("document_prompt", "query_prompt")
_DETAILS = ("dimension", "pooling", "max_length", *_PROMPTS, "dtype", "device", "backend")


class DenseSystem(IndexedSystem):
    """A system that searches the vectors of an encoder."""

    def __init__(
        self,
        encoder: NamedEncoder,
        facts: EncoderFacts,
        models: Models,
        benchmark: Benchmark,
        output: Path,
        options: IndexOptions,
    ) -> None:
        self.encoder = encoder
        self.facts = facts
        self._models = models
        self._options = options
        # Of the last search: number of queries with fewer hits than requested, and ids of queries whose last
        # hits are an arbitrary choice.
        self._short = 0
        self._cut: list[str] = []
        self._dtypes: set[str] = set()
        factory = resolve(options.factory, facts.dimension, benchmark.documents).factory
        trained = not new_index(factory, facts.dimension).is_trained
        index_identity = {
            "encoder": facts.fingerprint,
            "prompt": facts.document_prompt,
            "max_length": facts.max_length,
            "dtype": facts.dtype,
            "factory": options.factory,
            "seed": options.seed if trained else None,
            "documents": benchmark.documents_identity,
            **shortened(facts),
        }
        query_identity = {"query_prompt": facts.query_prompt, "name": encoder.label}
        super().__init__(
            encoder.label,
            DENSE_INDEXES,
            benchmark,
            output,
            index_identity,
            query_identity,
            options.resume,
            options.progress,
        )

    @classmethod
    def of(
        cls,
        encoder: NamedEncoder,
        facts: EncoderFacts,
        models: Models,
        benchmark: Benchmark,
        output: Path,
        options: IndexOptions,
    ) -> "DenseSystem":
        """A system; where its number format is "auto", in that of indexes that were begun before."""
        free = facts.dtype_reason is not None and options.resume
        systems = [
            cls(encoder, replace(facts, dtype=dtype), models, benchmark, output, options)
            for dtype in (facts.dtype, *((BFLOAT16, FLOAT32) if free else ()))
        ]
        return next((system for system in systems if system.begun), systems[0])

    def load(self) -> Encoder:
        """The encoder; see `Models.load`."""
        return self._models.load(self.encoder, self.facts)

    def _estimate(self, missing: Sequence[BenchmarkPart]) -> tuple[str, int]:
        left = [self._left(part) for part in missing]
        vector, seconds = 4 * self.facts.dimension, 0.0
        if sum(left):
            seconds = sum(left) * seconds_a_document(self.load(), missing, self.facts.batch_size)
        text = (
            f"{sum(left):,} documents to encode, about {timedelta(seconds=round(seconds))} by a short "
            f"measurement on this {self.facts.device}, a flat index takes "
            f"{size_text(vector * self._benchmark.documents)}"
        )
        # While the largest index is built, its vectors are on disk as well.
        return text, vector * (sum(part.documents for part in missing) + max(left, default=0))

    def _left(self, part: BenchmarkPart) -> int:
        """Number of a part's documents without vectors."""
        if not self._options.resume:
            return part.documents
        work = self.index_of(part) / WORK
        shards = Shards(work, part.documents, self._options.shard_size, self.facts.dimension)
        try:
            return shards.documents_in(shards.missing())
        except ArtifactError:
            # Shards of another plan; `make` reports them.
            return part.documents

    def _build(self, part: BenchmarkPart, directory: Path) -> bool:
        # An index made with another batch size or device is as good: its vectors differ by rounding.
        if self._options.resume and self.whole(directory):
            return False
        fields = self._benchmark.config.fields
        return not build_part(part, self.load(), directory, self._options, fields).resumed

    def _search(self, advance: Callable[[int], object]) -> RunLines:
        self._short, self._cut = 0, []
        encoder = self.load()
        for part, directory in zip(self._benchmark.parts, self.indexes, strict=True):
            opened = open_index(directory)
            self._dtypes.add(opened.manifest.plan.dtype)
            # The documents may have called for another number format.
            encoder = load_encoder(encoder, there=opened.manifest.plan)
            most = min(self._benchmark.config.depth, len(opened))
            for hits in find_hits(
                [opened], encoder, part.queries, hits=most, advance=advance, cut=self._cut.append
            ):
                self._short += len(hits.docids) < most
                yield hits

    def _described(self) -> dict[str, Any]:
        facts = self.facts
        details = {name: getattr(facts, name) for name in _DETAILS}
        details |= {"dtype": " and ".join(sorted(self._dtypes)), "factory": self._options.factory}
        warnings = cut_warning(self._cut)
        if self._short:
            warnings.insert(
                0,
                f"{self._short:,} queries got fewer hits than requested from an approximate index "
                f"({self._options.factory}): choose another --factory, such as Flat",
            )
        return {
            "encoder": facts.name,
            "fingerprint": facts.fingerprint,
            "details": details,
            "warnings": tuple(f"{self.name}: {warning}" for warning in warnings),
        }


class LexicalSystem(IndexedSystem):
    """BM25 through Pyserini."""

    def __init__(self, benchmark: Benchmark, output: Path, threads: int, progress: bool | None) -> None:
        bm25 = benchmark.config.bm25
        by_language = bm25 is not None and bm25.analyzers is Analyzers.LANGUAGE
        # None analyzes all languages alike.
        self._languages = {part.name: part.language if by_language else None for part in benchmark.parts}
        self._threads = threads
        identity = {
            "documents": benchmark.documents_identity,
            "languages": list(self._languages.values()),
            "k1": K1,
            "b": B,
        }
        super().__init__(BM25, BM25_INDEXES, benchmark, output, identity, {}, True, progress)

    def _estimate(self, missing: Sequence[BenchmarkPart]) -> tuple[str, int]:
        # An inverted index is smaller than its texts.
        needed = sum(part.note.text_bytes for part in missing)
        return f"to be indexed by Lucene, less than {size_text(needed)}", needed

    def _build(self, part: BenchmarkPart, directory: Path) -> bool:
        return not index_bm25(
            part.pool,
            directory,
            language=self._languages[part.name],
            surveyed=part.note.survey,
            threads=self._threads,
            progress=self._progress,
        ).already

    def _search(self, advance: Callable[[int], object]) -> RunLines:
        depth = self._benchmark.config.depth
        for part in self._benchmark.parts:
            yield from search_bm25(
                self.index_of(part), part.queries, hits=depth, threads=self._threads, advance=advance
            )

    def _described(self) -> dict[str, Any]:
        manifests = {directory.name: Artifact(directory, BM25_INDEXES).read() for directory in self.indexes}
        analyzers = {name: found.plan.analyzer.rpartition(".")[2] for name, found in manifests.items()}
        return {
            "details": {"k1": K1, "b": B, "analyzers": analyzers},
            "warnings": tuple(
                f"bm25, {name}: {found.note}" for name, found in manifests.items() if found.note
            ),
        }


def fuse(name: str, fusion: "Fusion", parts: Mapping[str, MadeRun], output: Path, depth: int) -> MadeRun:
    """Fuses runs, or returns an existing fusion.

    Args:
        parts: the runs by name, in the order of the weights.
        depth: hits per query.
    """
    from mimo_plugin.evaluation.fusion import fused_queries, fusion_warnings
    from mimo_plugin.evaluation.runs import read_run

    place = RunPlace(output, name)
    described = fusion.model_dump(mode="json")
    key = identity_key(
        {
            "parts": {part: made.run.sha256 for part, made in parts.items()},
            "fusion": described,
            "depth": depth,
            "name": name,
        }
    )
    if (made := place.finished(key)) is not None:
        return made
    began = time.perf_counter()
    runs = [read_run(RunPlace(output, part).file, part) for part in parts]
    queries = 0

    def fused() -> RunLines:
        nonlocal queries
        for query_id, found in fused_queries(runs, replace(fusion.options, hits=depth)):
            queries += 1
            yield query_id, [docid.decode() for docid in found.docids.tolist()], found.scores

    lines = write_run(place.file, fused(), name)
    return place.finish(
        MadeRun(
            system=name,
            key=key,
            seconds={"fusion": round(time.perf_counter() - began, 3)},
            queries=queries,
            lines=lines,
            run=FileRecord.of(place.file),
            details=described,
            warnings=tuple(f"fusion {name!r}: {warning}" for warning in fusion_warnings(runs)),
        )
    )


def similarity_in(
    index_dir: Path, part: BenchmarkPart, load: Callable[[], Encoder], docids: Iterable[str]
) -> "Similarity | None":
    """Inner products of the part's queries with these documents; None if FAISS cannot reconstruct vectors.

    Args:
        load: loads the encoder of the index.

    Raises:
        ArtifactError: the index is missing or damaged.
    """
    import numpy as np

    index = open_index(index_dir)
    wanted = {docid.encode() for docid in docids}
    rows: dict[bytes, int] = {}
    with (index_dir / DOCID).open("rb") as lines:
        for row, line in enumerate(lines):
            if (docid := line.rstrip(b"\n")) in wanted:
                rows[docid] = row
    try:
        documents: np.ndarray = index.faiss.reconstruct_batch(np.fromiter(rows.values(), dtype=np.int64))
    except RuntimeError:
        return None
    ids, texts = zip(*part.queries, strict=True)
    return inner_products(rows, documents, ids, load().encode_queries(list(texts)))


def inner_products(
    docids: Iterable[bytes], documents: "np.ndarray", query_ids: Iterable[str], queries: "np.ndarray"
) -> "Similarity":
    """A function that returns inner products of a query with some documents.

    Args:
        docids, documents: of n documents, (n, dimension).
        query_ids, queries: of m queries, (m, dimension).
    """
    document_of = {docid: row for row, docid in enumerate(docids)}
    query_of = {query_id: row for row, query_id in enumerate(query_ids)}

    def similarity(query_id: str, some: "np.ndarray") -> "np.ndarray":
        rows = [document_of[docid] for docid in some.tolist()]
        found: np.ndarray = documents[rows] @ queries[query_of[query_id]]
        return found

    return similarity
