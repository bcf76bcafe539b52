"""Opening an index directory: its FAISS index, docids and languages; several searched as one."""

import mmap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.errors import ArtifactError, Findings, Problems, UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.indexing.faiss import read_index, set_parameters
from mimo_plugin.indexing.plan import (
    DOCID,
    INDEX,
    LANG,
    IndexManifest,
    Plan,
    made_by_pyserini,
    read_manifest,
    require_unchanged,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Lines:
    """The lines of a text file by number, mapped from disk: 8 bytes of memory a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> str:
        start, stop = int(self._starts[number]), int(self._starts[number + 1])
        return self._bytes[start : stop - 1].decode("utf-8")

    def between(self, start: int, stop: int) -> list[str]:
        """The lines from `start` up to, not including, `stop`."""
        return _split(self._bytes[int(self._starts[start]) : int(self._starts[stop])])

    def take(self, numbers: "np.ndarray") -> list[str]:
        """The lines of these numbers, int64 (n,), in their order: a tenth of the time of one by one."""
        import pyarrow as pa

        taken = self._table.take(pa.array(numbers))
        content = taken.buffers()[2]
        return [] if content is None else _split(content.to_pybytes())

    @cached_property
    def _bytes(self) -> mmap.mmap:
        with self._path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def _starts(self) -> "np.ndarray":
        """Where each line starts, and where the last one ends, int64 (lines + 1,)."""
        import numpy as np

        piece = 1 << 24
        ends = [
            np.flatnonzero(np.frombuffer(self._bytes[at : at + piece], dtype=np.uint8) == ord("\n")) + at
            for at in range(0, len(self._bytes), piece)
        ]
        return np.concatenate([np.zeros(1, dtype=np.int64), *(part + 1 for part in ends)])

    @cached_property
    def _table(self) -> "pa.LargeBinaryArray":
        """The lines with their line ends, over the mapped file."""
        import pyarrow as pa

        buffers = [None, pa.py_buffer(self._starts), pa.py_buffer(self._bytes)]
        return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), buffers)


class StrippedLines:
    """The lines of a text file in memory, without white space at their ends: so Pyserini reads docids."""

    def __init__(self, path: Path) -> None:
        with path.open(encoding="utf-8") as file:
            self._lines = [line.rstrip() for line in file]

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int) -> str:
        return self._lines[number]

    def between(self, start: int, stop: int) -> list[str]:
        """The lines from `start` up to, not including, `stop`."""
        return self._lines[start:stop]

    def take(self, numbers: "np.ndarray") -> list[str]:
        """The lines of these numbers, int64 (n,), in their order."""
        return [self._lines[number] for number in numbers.tolist()]


def _split(lines: bytes) -> list[str]:
    """Lines that all end with a line end, without it."""
    return lines.decode("utf-8").split("\n")[:-1]


@dataclass(frozen=True)
class OpenIndex:
    """An index ready to search.

    Attributes:
        faiss: the FAISS index.
        docids: docid by position.
    """

    directory: Path
    manifest: IndexManifest
    faiss: Any
    docids: Lines | StrippedLines

    @property
    def name(self) -> str:
        return str(self.directory)


def open_index(directory: Path, parameters: str | None = None, *, pyserini: bool = False) -> OpenIndex:
    """Opens an index that `mimo index` wrote.

    Args:
        parameters: FAISS search parameters such as "nprobe=16" or "efSearch=128".
        pyserini: one that Pyserini made will do as well. Its manifest says nothing of an encoder.

    Raises:
        ArtifactError: it is incomplete or damaged.
        UsageError: the index does not have such parameters.
    """
    if pyserini and made_by_pyserini(directory):
        return _open_pyserini(directory, parameters)
    manifest = read_manifest(directory)
    require_unchanged(directory, manifest, (INDEX, DOCID))
    index = read_index(directory / INDEX)
    docids = Lines(directory / DOCID)
    if not index.ntotal == len(docids) == manifest.plan.documents:
        raise ArtifactError(
            f"{directory} holds {index.ntotal} vectors and {len(docids)} docids, its manifest says "
            f"{manifest.plan.documents}: build it again with --no-resume"
        )
    if parameters:
        set_parameters(index, parameters, directory)
    return OpenIndex(directory, manifest, index, docids)


def _open_pyserini(directory: Path, parameters: str | None) -> OpenIndex:
    import faiss

    index = read_index(directory / INDEX)
    try:
        docids = StrippedLines(directory / DOCID)
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{directory / DOCID} cannot be read ({error}), expected a docid a line"
        ) from error
    if not index.ntotal == len(docids) > 0:
        raise ArtifactError(
            f"{directory} holds {index.ntotal} vectors and {len(docids)} docids, expected as many of both, "
            "and some: build it again"
        )
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ArtifactError(
            f"{directory} was built for distances, expected inner products: its best hits would come last; "
            "build it again, with inner product"
        )
    problems = Problems(ArtifactError)
    for docid, count in Counter(docids.between(0, len(docids))).items():
        if count > 1:
            problems.add(f"{directory / DOCID}: docid {docid!r} is there {count} times, expected once")
        elif docid.split() != [docid]:
            problems.add(f"{directory / DOCID}: docid {docid!r}, expected one without white space")
    problems.raise_any()
    if parameters:
        set_parameters(index, parameters, directory)
    plan = Plan(
        collections=(),
        prefixes=None,
        fields=None,
        collection_fingerprint="",
        collection_documents=len(docids),
        documents=len(docids),
        shard=None,
        encoder="",
        encoder_fingerprint="",
        dimension=index.d,
        prompt="",
        max_length=None,
        device="",
        dtype="",
        backend="",
        pooling=None,
        normalize=None,
        batch_size=None,
        shard_size=len(docids),
        versions={},
        factory="",
        parameters=None,
        seed=0,
    )
    manifest = IndexManifest(plan=plan, languages={"": len(docids)}, empty_documents=None, files={})
    return OpenIndex(directory, manifest, index, docids)


def check_encoder(index: OpenIndex, student: Encoder, *, allow_other: bool = False) -> None:
    """Refuses a query encoder that is not the one whose vectors are in the index.

    Raises:
        ArtifactError: another model (unless `allow_other`), or another dimension.
    """
    plan = index.manifest.plan
    if student.dimension != plan.dimension:
        raise ArtifactError(
            f"{student.name} gives {student.dimension} dimensions, the vectors in {index.directory} have "
            f"{plan.dimension}: search with the encoder that made the index"
            f"{f' ({plan.encoder})' if plan.encoder else ''}"
        )
    if not plan.encoder_fingerprint:
        # Vectors from elsewhere, and nobody said whose.
        return
    if student.fingerprint != plan.encoder_fingerprint and not allow_other:
        raise ArtifactError(
            f"{student.name} (fingerprint {student.fingerprint[:12]}) is not the encoder of "
            f"{index.directory} ({plan.encoder}, fingerprint {plan.encoder_fingerprint[:12]}): search with "
            "that one, or say --allow-other-encoder"
        )


# What says that vectors were made alike, whatever texts they are of.
_OF_THE_VECTORS = ("encoder_fingerprint", "dimension", "pooling", "normalize")


def open_indexes(directories: Sequence[Path], parameters: str | None = None) -> list[OpenIndex]:
    """Opens indexes, also of Pyserini, whose hits are to be merged; see `open_index`.

    Raises:
        ArtifactError: one is damaged or there twice, or their scores or ids do not go together.
        UsageError: there are none, or one does not have such parameters.
    """
    if not directories:
        raise UsageError("no index was given, expected at least one")
    findings = Findings()
    for directory, count in Counter(path.resolve() for path in directories).items():
        if count > 1:
            findings.add(ArtifactError, [f"{directory}: given {count} times, expected each index once"])
    opened = [findings.attempt(open_index, directory, parameters, pyserini=True) for directory in directories]
    indexes = [index for index in opened if index is not None]
    findings.attempt(_check_alike, indexes)
    findings.attempt(shared_prefixes, indexes)
    findings.raise_any()
    return indexes


def shared_prefixes(indexes: Sequence[OpenIndex]) -> dict[str, str] | None:
    """The prefixes that ids have in all of these indexes; None where ids are the sources' own.

    Raises:
        ArtifactError: the indexes say different things.
    """
    problems = Problems(ArtifactError)
    shared: dict[str, str] = {}
    pooled = {index.directory: index.manifest.plan.prefixes is not None for index in indexes}
    if len(set(pooled.values())) > 1:
        one, other = (next(path for path in pooled if pooled[path] is kind) for kind in (True, False))
        problems.add(
            f"{one} and {other} cannot be searched as one: the first has ids as lang:id, the second has not; "
            "make both with --pooled, or both without"
        )
    for index in indexes:
        for collection, prefix in (index.manifest.plan.prefixes or {}).items():
            if shared.setdefault(collection, prefix) != prefix:
                problems.add(
                    f"{index.directory}: ids of {collection} begin with '{prefix}:', in another index with "
                    f"'{shared[collection]}:'; make one of them again"
                )
    problems.raise_any()
    return shared if any(pooled.values()) else None


def _check_alike(indexes: Sequence[OpenIndex]) -> None:
    problems = Problems(ArtifactError)
    for other in indexes[1:]:
        for name in _OF_THE_VECTORS:
            mine, its = (getattr(index.manifest.plan, name) for index in (indexes[0], other))
            if mine != its:
                problems.add(
                    f"{other.directory} and {indexes[0].directory} cannot be searched as one: {name} is "
                    f"{its!r} and {mine!r}; make one of them again with the other's options"
                )
    problems.raise_any()


def read_doc_languages(directory: Path, wanted: Iterable[str]) -> dict[str, str]:
    """Docid -> language, of those wanted documents that an index holds and whose language it knows.

    `docid` and `lang` are streamed side by side until all that are wanted have been met: memory grows with
    these, not with the index. How many documents each language has stands in the manifest.

    Raises:
        ArtifactError: the directory is no index, or a damaged one.
    """
    require_unchanged(directory, read_manifest(directory), (DOCID, LANG))
    missing = {docid.encode() for docid in wanted}
    found: dict[str, str] = {}
    with (directory / DOCID).open("rb") as docids, (directory / LANG).open("rb") as languages:
        for line, language in zip(docids, languages, strict=True):
            if not missing:
                break
            docid = line.rstrip(b"\n")
            if docid in missing:
                missing.discard(docid)
                name = language.decode().rstrip("\n")
                if name:
                    found[docid.decode()] = name
    return found
