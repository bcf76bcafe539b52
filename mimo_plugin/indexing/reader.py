"""Opening an index that `mimo index` wrote, or Pyserini."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimo_plugin.errors import ArtifactError, Problems
from mimo_plugin.indexing.faiss_index import read_index, set_parameters
from mimo_plugin.indexing.lines import Lines, StrippedLines
from mimo_plugin.indexing.manifest import (
    DOCID,
    INDEX,
    IndexManifest,
    Plan,
    made_by_pyserini,
    read_manifest,
    require_unchanged,
)
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


def check_encoder(index: OpenIndex, student: Student, *, allow_other: bool = False) -> None:
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
