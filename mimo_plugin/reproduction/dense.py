"""An encoder's run: an index of each part, every query of the part against it."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mimo_plugin.errors import ArtifactError, EnvironmentProblem
from mimo_plugin.evaluation.runs import write_run
from mimo_plugin.files import size_text
from mimo_plugin.indexing.build import IndexOptions, build_index
from mimo_plugin.indexing.manifest import read_manifest
from mimo_plugin.indexing.reader import open_index
from mimo_plugin.manifests import FileRecord
from mimo_plugin.progress import bar
from mimo_plugin.reproduction.made import MadeRun, RunPlace, directory_bytes, identity_key
from mimo_plugin.reproduction.parts import Benchmark, Part
from mimo_plugin.searching import Hits, search
from mimo_plugin.student import Student

# Texts that the speed of an encoder is measured on, after as many to warm up.
_MEASURED = 64


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
    student: loaded.
    """

    def __init__(
        self, name: str, student: Student, benchmark: Benchmark, output: Path, options: IndexOptions
    ) -> None:
        self.name = name
        self.student = student
        self._benchmark = benchmark
        self._options = options
        self._index_identity = {
            "encoder": student.fingerprint,
            "prompt": student.document_prompt,
            "max_length": student.max_length,
            "dtype": student.options.dtype,
            "factory": options.factory,
            "seed": options.seed,
            "documents": benchmark.documents_identity,
        }
        self._indexes = output / "indexes" / f"{name}-{identity_key(self._index_identity)}"
        self.place = RunPlace(output, name)

    @property
    def key(self) -> str:
        return identity_key(
            {
                "index": self._index_identity,
                "query_prompt": self.student.query_prompt,
                "queries": self._benchmark.queries_fingerprint,
                "depth": self._benchmark.config.depth,
                "name": self.name,
            }
        )

    def finished(self) -> MadeRun | None:
        return self.place.finished(self.key)

    def index_of(self, part: Part) -> Path:
        return self._indexes / part.name

    def missing_parts(self) -> list[Part]:
        """Those without a finished index; none where the run is finished."""
        if self.finished() is not None:
            return []
        return [part for part in self._benchmark.parts if not self._indexed(part)]

    def estimate(self) -> Estimate:
        """What is still to do; the encoder runs on some texts of the collection to tell."""
        missing = self.missing_parts()
        documents = sum(part.documents for part in missing)
        vector = 4 * self.student.dimension
        texts = [text for part in missing for text in part.looked.sample]
        return Estimate(
            documents,
            documents * self._seconds_a_text(texts) if documents else 0.0,
            vector * self._benchmark.documents,
            vector * (documents + max((part.documents for part in missing), default=0)),
        )

    def _seconds_a_text(self, texts: list[str]) -> float:
        step = max(1, len(texts) // (2 * _MEASURED))
        chosen = texts[::step][: 2 * _MEASURED]
        half = max(1, len(chosen) // 2)
        self.student.encode_documents(chosen[:half])
        began = time.perf_counter()
        measured = chosen[half:] or chosen
        self.student.encode_documents(measured)
        return (time.perf_counter() - began) / len(measured)

    def make(self) -> MadeRun:
        """Indexes what is missing, searches, writes run and note.

        Raises: as `build_index`, `search` and `write_run`.
        """
        seconds: dict[str, float] = {}
        for part in self._benchmark.parts:
            self._index(part, seconds)
        began = time.perf_counter()
        config = self._benchmark.config
        total = sum(len(part.queries) for part in self._benchmark.parts)

        def found() -> Iterator[Hits]:
            for part in self._benchmark.parts:
                index = open_index(self.index_of(part))
                depth = min(config.depth, index.faiss.ntotal)
                yield from search(index, self.student, part.queries, hits=depth, advance=counter.update)

        with bar(
            total=total, what=f"searching {self.name}", unit="queries", enabled=self._options.progress
        ) as counter:
            lines = write_run(self.place.file, found(), self.name)
        seconds["search"] = round(time.perf_counter() - began, 3)
        return self.place.finish(
            MadeRun(
                system=self.name,
                key=self.key,
                encoder=self.student.name,
                fingerprint=self.student.fingerprint,
                documents=self._benchmark.documents,
                index_bytes=directory_bytes(self._indexes),
                seconds=seconds,
                queries=total,
                lines=lines,
                run=FileRecord.of(self.place.file),
                details={
                    "dimension": self.student.dimension,
                    "pooling": self.student.pooling,
                    "max_length": self.student.max_length,
                    "document_prompt": self.student.document_prompt,
                    "query_prompt": self.student.query_prompt,
                    "factory": self._options.factory,
                    "dtype": self.student.options.dtype,
                    "device": self.student.device_type,
                },
            )
        )

    def _index(self, part: Part, seconds: dict[str, float]) -> None:
        if self._options.resume and self._indexed(part):
            # Also where another batch size or device made it: its vectors differ by rounding only.
            return
        began = time.perf_counter()
        built = build_index(
            part.pool,
            part.specs,
            self.student,
            self.index_of(part),
            self._options,
            prefixes=part.prefixes,
            fields=self._benchmark.config.fields,
            found=part.looked.survey,
        )
        if not built.resumed:
            seconds["index"] = round(seconds.get("index", 0.0) + time.perf_counter() - began, 3)

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
