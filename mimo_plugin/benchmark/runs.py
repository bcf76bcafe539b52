"""A system's run: dense, BM25, fused."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.benchmark.parts import INDEXES, Benchmark, Part
from mimo_plugin.benchmark.systems import (
    BM25,
    Facts,
    MadeRun,
    RunPlace,
    directory_bytes,
    discard,
    seconds_a_document,
    shortened,
)
from mimo_plugin.collections.dataset import Pool
from mimo_plugin.core.artifact import MANIFEST, Artifact, FileRecord
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem
from mimo_plugin.core.files import size_text
from mimo_plugin.data.sources import identity_key
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.evaluation.runs import write_run
from mimo_plugin.indexing.build import index
from mimo_plugin.indexing.faiss import new_index, resolve
from mimo_plugin.indexing.open import WORK, open_index, read_manifest
from mimo_plugin.indexing.options import IndexOptions
from mimo_plugin.indexing.search import Hits, cut_warning, find_hits
from mimo_plugin.indexing.vectors import Shards
from mimo_plugin.pyserini.bm25 import (
    BM25_INDEXES,
    K1,
    PLAN,
    B,
    BuiltBm25,
    index_bm25,
    search_bm25,
)

if TYPE_CHECKING:
    import numpy as np

    from mimo_plugin.benchmark.config import Fusion


@dataclass(frozen=True)
class Estimate:
    """Attributes:
    documents: still to encode.
    seconds: to encode them, from a short measurement.
    index_bytes: of all indexes, as flat ones.
    disk_bytes: needed now: indexes that are missing, and for a while the vectors of the largest of them.
    """

    documents: int
    seconds: float
    index_bytes: int
    disk_bytes: int


class DenseSystem:
    """Args:
    facts: of the encoder.
    load: the encoder itself; see `Models.load`.
    """

    def __init__(
        self,
        name: str,
        facts: Facts,
        load: Callable[[], Encoder],
        benchmark: Benchmark,
        output: Path,
        options: IndexOptions,
    ) -> None:
        self.name = name
        self.facts = facts
        self.load = load
        self._benchmark = benchmark
        self._options = options
        factory = resolve(options.factory, facts.dimension, benchmark.documents).factory
        trained = not new_index(factory, facts.dimension).is_trained
        self._index_identity = {
            "encoder": facts.fingerprint,
            "prompt": facts.document_prompt,
            "max_length": facts.max_length,
            "dtype": facts.dtype,
            "factory": options.factory,
            "seed": options.seed if trained else None,
            "documents": benchmark.documents_identity,
            **shortened(facts),
        }
        self._indexes = output / INDEXES / f"{name}-{identity_key(self._index_identity)}"
        self.place = RunPlace(output, name)

    @property
    def key(self) -> str:
        return identity_key(
            {
                "index": self._index_identity,
                "query_prompt": self.facts.query_prompt,
                "queries": self._benchmark.queries_fingerprint,
                "depth": self._benchmark.config.depth,
                "name": self.name,
            }
        )

    def finished(self) -> MadeRun | None:
        return self.place.finished(self.key)

    def index_of(self, part: Part) -> Path:
        return self._indexes / part.name

    def whole_indexes(self) -> list[Path]:
        """The indexes of all parts; none where one of them is missing or damaged."""
        parts = self._benchmark.parts
        return [self.index_of(part) for part in parts] if all(map(self._indexed, parts)) else []

    def missing_parts(self) -> list[Part]:
        """Those whose index is to be built."""
        return [part for part in self._benchmark.parts if not (self._options.resume and self._indexed(part))]

    def estimate(self) -> Estimate:
        """What is still to do; the encoder runs on some texts of the collection to tell."""
        missing = self.missing_parts()
        left = [self._left(part) for part in missing]
        vector = 4 * self.facts.dimension
        return Estimate(
            documents=sum(left),
            seconds=sum(left) * seconds_a_document(self.load(), missing, self.facts.batch_size)
            if sum(left)
            else 0.0,
            index_bytes=vector * self._benchmark.documents,
            disk_bytes=vector * (sum(part.documents for part in missing) + max(left, default=0)),
        )

    def _left(self, part: Part) -> int:
        """Documents of a part whose vectors are not there yet."""
        if not self._options.resume:
            return part.documents
        shards = Shards(
            self.index_of(part) / WORK, part.documents, self._options.shard_size, self.facts.dimension
        )
        try:
            return shards.documents_in(shards.missing())
        except ArtifactError:
            # Other shards, which `make` reports.
            return part.documents

    def make(self) -> MadeRun:
        """Indexes what is missing, searches, writes run and note.

        Raises: as `index`, `search` and `write_run`.
        """
        student = self.load()
        parts = self._benchmark.parts
        built = [self._index(part, student) for part in parts]
        seconds = {}
        # Of what an earlier command did nothing is known.
        if None not in built:
            seconds["index"] = round(sum(took for took in built if took is not None), 3)
        began = time.perf_counter()
        depth = self._benchmark.config.depth
        total = sum(len(part.queries) for part in parts)
        short = 0
        cut: list[str] = []

        def found() -> Iterator[Hits]:
            nonlocal short
            for part in parts:
                index = open_index(self.index_of(part))
                most = min(depth, index.faiss.ntotal)
                for hits in find_hits(
                    [index], student, part.queries, hits=most, advance=counter.update, cut=cut.append
                ):
                    short += len(hits.docids) < most
                    yield hits

        with bar(
            total=total, what=f"searching {self.name}", unit="queries", enabled=self._options.progress
        ) as counter:
            lines = write_run(self.place.file, found(), self.name)
        seconds["search"] = round(time.perf_counter() - began, 3)
        return self.place.finish(
            MadeRun(
                system=self.name,
                key=self.key,
                encoder=self.facts.name,
                fingerprint=self.facts.fingerprint,
                documents=self._benchmark.documents,
                index_bytes=directory_bytes(self._indexes),
                seconds=seconds,
                queries=total,
                lines=lines,
                run=FileRecord.of(self.place.file),
                details={
                    "dimension": self.facts.dimension,
                    "pooling": self.facts.pooling,
                    "max_length": self.facts.max_length,
                    "document_prompt": self.facts.document_prompt,
                    "query_prompt": self.facts.query_prompt,
                    "factory": self._options.factory,
                    "dtype": self.facts.dtype,
                    "device": self.facts.device,
                    "backend": self.facts.backend,
                },
                warnings=(
                    *(
                        [
                            f"{self.name}: {short:,} queries got fewer hits than asked for from an "
                            f"approximate index ({self._options.factory}): choose another --factory, such as "
                            "Flat"
                        ]
                        if short
                        else []
                    ),
                    *(f"{self.name}: {warning}" for warning in cut_warning(cut)),
                ),
            )
        )

    def _index(self, part: Part, student: Encoder) -> float | None:
        """Builds a part's index where it is missing.

        Returns:
            Seconds; None where an earlier command did some of it.
        """
        directory = self.index_of(part)
        indexed = self._indexed(part)
        if self._options.resume and indexed:
            # Also where another batch size or device made it: its vectors differ by rounding only.
            return None
        begun = (directory / WORK).is_dir() and not (directory / MANIFEST).exists()
        if directory.exists() and not begun and not indexed:
            discard(directory)
        began = time.perf_counter()
        documents = Pool(
            part.pool,
            specs=part.specs,
            prefixes=dict(part.prefixes) if part.prefixes is not None else None,
            fields=self._benchmark.config.fields,
        )
        built = index(documents, student, directory, self._options, found=part.looked.survey)
        return None if built.resumed else time.perf_counter() - began

    def _indexed(self, part: Part) -> bool:
        try:
            read_manifest(self.index_of(part))
        except ArtifactError:
            return False
        return True


def require_space(output: Path, needed: int) -> None:
    """Raises an EnvironmentProblem where the disk cannot hold what is to be made."""
    free = free_bytes(output)
    if free < needed:
        raise EnvironmentProblem(
            f"{output} has {size_text(free)} free and the indexes need about {size_text(needed)}: make room, "
            "choose another --output, fewer systems or --languages, or look at a part with --docs judged+1000"
        )


def free_bytes(output: Path) -> int:
    place = output.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


class LexicalSystem:
    """BM25 through Pyserini."""

    name = BM25

    def __init__(self, benchmark: Benchmark, output: Path, threads: int, progress: bool | None) -> None:
        self._benchmark = benchmark
        self._threads = threads
        self._progress = progress
        self._identity = {
            "documents": benchmark.documents_identity,
            "languages": [self._language(part) for part in benchmark.parts],
            "k1": K1,
            "b": B,
        }
        self._indexes = output / INDEXES / f"{BM25}-{identity_key(self._identity)}"
        self.place = RunPlace(output, BM25)

    @property
    def key(self) -> str:
        return identity_key(
            {
                "index": self._identity,
                "queries": self._benchmark.queries_fingerprint,
                "depth": self._benchmark.config.depth,
            }
        )

    def finished(self) -> MadeRun | None:
        return self.place.finished(self.key)

    def missing_parts(self) -> list[Part]:
        """Those without a finished index."""
        return [part for part in self._benchmark.parts if not self._indexed(part)]

    @property
    def disk_bytes(self) -> int:
        """What missing indexes need at most: an inverted index is smaller than its texts."""
        return sum(part.looked.text_bytes for part in self.missing_parts())

    def make(self) -> MadeRun:
        """Indexes what is missing, searches, writes run and note."""
        began = time.perf_counter()
        built = [self._index(part) for part in self._benchmark.parts]
        manifests = [one.manifest for one in built]
        seconds = {}
        if not any(one.already for one in built):
            seconds["index"] = round(time.perf_counter() - began, 3)
        began = time.perf_counter()
        total = sum(len(part.queries) for part in self._benchmark.parts)

        def found() -> Iterator[tuple[str, list[str], "np.ndarray"]]:
            for part in self._benchmark.parts:
                yield from search_bm25(
                    self._indexes / part.name,
                    part.queries,
                    hits=self._benchmark.config.depth,
                    threads=self._threads,
                    advance=counter.update,
                )

        with bar(total=total, what="searching bm25", unit="queries", enabled=self._progress) as counter:
            lines = write_run(self.place.file, found(), BM25)
        seconds["search"] = round(time.perf_counter() - began, 3)
        return self.place.finish(
            MadeRun(
                system=BM25,
                key=self.key,
                documents=self._benchmark.documents,
                index_bytes=directory_bytes(self._indexes),
                seconds=seconds,
                queries=total,
                lines=lines,
                run=FileRecord.of(self.place.file),
                details={
                    "k1": K1,
                    "b": B,
                    "analyzers": {
                        part.name: manifest.plan.analyzer.rpartition(".")[2]
                        for part, manifest in zip(self._benchmark.parts, manifests, strict=True)
                    },
                },
                warnings=tuple(
                    f"bm25, {part.name}: {manifest.note}"
                    for part, manifest in zip(self._benchmark.parts, manifests, strict=True)
                    if manifest.note
                ),
            )
        )

    def _index(self, part: Part) -> BuiltBm25:
        directory = self._indexes / part.name
        begun = (directory / PLAN).exists() and not (directory / MANIFEST).exists()
        if directory.exists() and not begun and not self._indexed(part):
            discard(directory)
        return index_bm25(
            part.pool,
            directory,
            language=self._language(part),
            surveyed=part.looked.survey,
            threads=self._threads,
            progress=self._progress,
        )

    def _indexed(self, part: Part) -> bool:
        try:
            Artifact(self._indexes / part.name, BM25_INDEXES).read()
        except ArtifactError:
            return False
        return True

    def _language(self, part: Part) -> str | None:
        """The language whose analyzer is used; None is one analysis for all."""
        from mimo_plugin.evaluation.options import Analyzers

        bm25 = self._benchmark.config.bm25
        return part.language if bm25 is not None and bm25.analyzers is Analyzers.LANGUAGE else None


def fuse(name: str, fusion: "Fusion", parts: Mapping[str, MadeRun], output: Path, depth: int) -> MadeRun:
    """Fuses runs, or returns the fusion that is there already.

    Args:
        parts: the runs by name, in the order of the weights.
        depth: hits a query.
    """
    from mimo_plugin.evaluation.fusion import FusionOptions, fused_queries, fusion_warnings
    from mimo_plugin.evaluation.runs import read_run

    place = RunPlace(output, name)
    key = identity_key(
        {
            "parts": {part: made.run.sha256 for part, made in parts.items()},
            "fusion": fusion.model_dump(mode="json"),
            "depth": depth,
            "name": name,
        }
    )
    if (made := place.finished(key)) is not None:
        return made
    began = time.perf_counter()
    runs = [read_run(RunPlace(output, part).file, part) for part in parts]
    options = FusionOptions(fusion.method, fusion.k, fusion.norm, fusion.weights)
    queries = 0

    def fused() -> Iterator[tuple[str, list[str], "np.ndarray"]]:
        nonlocal queries
        for query_id, found in fused_queries(runs, options, hits=depth):
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
            details=fusion.model_dump(mode="json"),
            warnings=tuple(f"fusion {name!r}: {warning}" for warning in fusion_warnings(runs)),
        )
    )
