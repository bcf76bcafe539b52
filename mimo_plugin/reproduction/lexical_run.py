"""BM25's run: a Lucene index of each part, with the analyzer of its language."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.data.identity import identity_key
from mimo_plugin.errors import ArtifactError
from mimo_plugin.evaluation.runs import write_run
from mimo_plugin.lexical import K1, B, BuiltBm25, index_bm25, read_bm25_manifest, search_bm25
from mimo_plugin.lexical.directory import MANIFEST, PLAN
from mimo_plugin.manifests import FileRecord
from mimo_plugin.progress import bar
from mimo_plugin.reproduction.directory import INDEXES
from mimo_plugin.reproduction.made import MadeRun, RunPlace, directory_bytes, discard
from mimo_plugin.reproduction.parts import Benchmark, Part
from mimo_plugin.reproduction.systems import BM25

if TYPE_CHECKING:
    import numpy as np


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
            read_bm25_manifest(self._indexes / part.name)
        except ArtifactError:
            return False
        return True

    def _language(self, part: Part) -> str | None:
        """The language whose analyzer is used; None is one analysis for all."""
        from mimo_plugin.benchmarks.choices import Analyzers

        bm25 = self._benchmark.config.bm25
        return part.language if bm25 is not None and bm25.analyzers is Analyzers.LANGUAGE else None
