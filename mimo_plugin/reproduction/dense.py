"""An encoder's run: an index of each part, every query of the part against it."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mimo_plugin.data.identity import identity_key
from mimo_plugin.errors import ArtifactError, EnvironmentProblem
from mimo_plugin.evaluation.runs import write_run
from mimo_plugin.files import size_text
from mimo_plugin.indexing.build import IndexOptions, build_index
from mimo_plugin.indexing.faiss_index import new_index
from mimo_plugin.indexing.manifest import MANIFEST, WORK, read_manifest
from mimo_plugin.indexing.presets import resolve
from mimo_plugin.indexing.reader import open_index
from mimo_plugin.manifests import FileRecord
from mimo_plugin.progress import bar
from mimo_plugin.reproduction.directory import INDEXES
from mimo_plugin.reproduction.made import MadeRun, RunPlace, directory_bytes, discard
from mimo_plugin.reproduction.models import Facts, shortened
from mimo_plugin.reproduction.parts import Benchmark, Part
from mimo_plugin.reproduction.speed import seconds_a_document
from mimo_plugin.searching import Hits, cut_warning, search
from mimo_plugin.student import Student
from mimo_plugin.vectors.shards import Shards


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
        load: Callable[[], Student],
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

        Raises: as `build_index`, `search` and `write_run`.
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
                for hits in search(
                    index, student, part.queries, hits=most, advance=counter.update, cut=cut.append
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

    def _index(self, part: Part, student: Student) -> float | None:
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
        built = build_index(
            part.pool,
            part.specs,
            student,
            directory,
            self._options,
            prefixes=part.prefixes,
            fields=self._benchmark.config.fields,
            found=part.looked.survey,
        )
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
