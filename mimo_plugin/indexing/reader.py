"""Opening an index that `mimo index` wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimo_plugin.errors import ArtifactError
from mimo_plugin.indexing.faiss_index import read_index, set_parameters
from mimo_plugin.indexing.lines import Lines
from mimo_plugin.indexing.manifest import DOCID, INDEX, IndexManifest, read_manifest, require_unchanged
from mimo_plugin.student import Student


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

    @property
    def name(self) -> str:
        return str(self.directory)


def open_index(directory: Path, parameters: str | None = None) -> OpenIndex:
    """Opens an index that `mimo index` wrote.

    Args:
        parameters: FAISS search parameters such as "nprobe=16" or "efSearch=128".

    Raises:
        ArtifactError: it is incomplete or damaged.
        UsageError: the index does not have such parameters.
    """
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
