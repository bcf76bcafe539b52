"""Opening an index that `mimo index` wrote."""

import mmap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.errors import ArtifactError, UsageError
from mimo_plugin.indexing.faiss_index import read_index, reason
from mimo_plugin.indexing.manifest import DOCID, INDEX, IndexManifest, read_manifest, require_unchanged
from mimo_plugin.student import Student

if TYPE_CHECKING:
    import numpy as np


class Lines:
    """The lines of a text file by number, mapped from disk: 8 bytes of memory a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> str:
        start = int(self._ends[number - 1]) + 1 if number else 0
        return self._bytes[start : int(self._ends[number])].decode("utf-8")

    @cached_property
    def _bytes(self) -> mmap.mmap:
        with self._path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def _ends(self) -> "np.ndarray":
        import numpy as np

        piece = 1 << 24
        found = [
            np.flatnonzero(np.frombuffer(self._bytes[at : at + piece], dtype=np.uint8) == ord("\n")) + at
            for at in range(0, len(self._bytes), piece)
        ]
        return np.concatenate(found)


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
    docids: Lines


def open_index(directory: Path, parameters: str | None = None) -> OpenIndex:
    """Opens an index that `mimo index` wrote.

    Args:
        parameters: FAISS search parameters such as "nprobe=16" or "efSearch=128".

    Raises:
        ArtifactError: it is incomplete or damaged.
        UsageError: the index does not have such parameters.
    """
    import faiss

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
        try:
            faiss.ParameterSpace().set_index_parameters(index, parameters)
        except RuntimeError as error:
            raise UsageError(
                f"--search-parameters {parameters!r} do not fit {directory}: {reason(error)}"
            ) from error
    return OpenIndex(directory, manifest, index, docids)


def check_encoder(index: OpenIndex, student: Student, *, allow_other: bool = False) -> None:
    """Refuses a query encoder that is not the one whose vectors are in the index.

    Raises:
        ArtifactError: another model (unless `allow_other`), or another dimension.
    """
    plan = index.manifest.plan
    if student.dimension != plan.dimension:
        raise ArtifactError(
            f"{student.name} gives {student.dimension} dimensions, the vectors in {index.directory} have "
            f"{plan.dimension}: search with the encoder that made the index ({plan.encoder})"
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
