"""All that decides the vectors of a collection, as data."""

import shlex
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mimo_plugin.manifests import Record
from mimo_plugin.vectors.part import WHOLE, Part

if TYPE_CHECKING:
    from mimo_plugin.collections.survey import Survey
    from mimo_plugin.student import Student

_LIBRARIES = ("faiss-cpu", "sentence-transformers", "torch", "transformers")
_OF_BACKEND = {"onnx": ("onnxruntime",), "openvino": ("openvino",)}
# Vectors that differ in these only differ by rounding at most.
OF_THE_MACHINE = frozenset({"device", "backend", "versions"})
# What older manifests do not say is no difference.
_SAID_LATER = frozenset({"query_prompt", "normalized"})


class EncodingPlan(Record):
    """What vectors are of, and what made them; work that was cut short goes on only under the same plan.

    Attributes:
        collections: the pool's collections as given; of imported vectors, their files.
        prefixes: collection -> what its ids begin with, see `pool_prefixes`; None where ids are the source's.
        fields: document fields that are joined; None is the collection's own choice.
        collection_fingerprint: see `Survey.fingerprint`; of imported vectors, of their files.
        collection_documents: number of documents of the collections.
        documents: number of those whose vectors are here: all, but for a part.
        shard: "2/4" is the second of four parts; None is the whole.
        encoder: the checkpoint as given; "" of imported vectors that nobody named one for.
        encoder_fingerprint: see `Student.fingerprint`; "" where there is no encoder.
        dimension: of the vectors.
        prompt: put before each document.
        query_prompt: to be put before each query; None where nobody said it.
        max_length: in tokens; None where there is no encoder.
        device, dtype, backend: what ran the model, see `Student`; "" of imported vectors.
        pooling, normalize, truncate: what the user put in place of the checkpoint's own, `truncate` for
            its dimension; None is the checkpoint's.
        normalized: whether every vector has length 1; None where that is not known.
        shard_size: documents a file of vectors.
        versions: the libraries whose release can change a vector or a file.
        copies: records of the collections that were left out, see `Survey`.
    """

    collections: tuple[str, ...]
    prefixes: dict[str, str] | None
    fields: tuple[str, ...] | None
    collection_fingerprint: str
    collection_documents: int
    documents: int
    shard: str | None
    encoder: str
    encoder_fingerprint: str
    dimension: int
    prompt: str
    max_length: int | None
    device: str
    dtype: str
    backend: str
    pooling: str | None
    normalize: bool | None
    batch_size: int | None
    shard_size: int
    versions: dict[str, str]
    query_prompt: str | None = None
    truncate: int | None = None
    normalized: bool | None = None
    copies: int = 0

    @property
    def part(self) -> Part:
        return Part.parse(self.shard)

    def differences(self, other: "EncodingPlan", ignoring: frozenset[str] = frozenset()) -> list[str]:
        """What is not the same in `other`, a line each; the encoder's name and path do not count, nor
        do records that were left out."""

        def hint(name: str, there: Any) -> str:
            option = {"prompt": "--document-prompt", "query_prompt": "--query-prompt"}.get(name)
            return f" ({option} {shlex.quote(there)} keeps that)" if option else ""

        mine, others = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [
            f"{name} is {mine[name]!r}, there it is {others[name]!r}{hint(name, others[name])}"
            for name in mine
            if name not in {"encoder", "copies", *ignoring}
            and mine[name] != others[name]
            and not (name in _SAID_LATER and None in (mine[name], others[name]))
        ]


def plan_encoding(
    collections: tuple[str, ...],
    found: "Survey",
    student: "Student",
    *,
    prefixes: Mapping[str, str] | None = None,
    fields: tuple[str, ...] | None = None,
    part: Part = WHOLE,
    shard_size: int = 4096,
) -> EncodingPlan:
    """The plan of encoding a collection, or a part of it.

    Raises:
        UsageError: the collection has fewer shards than it is to be cut into parts.
    """
    return EncodingPlan(
        collections=collections,
        prefixes=None if prefixes is None else dict(prefixes),
        fields=fields,
        collection_fingerprint=found.fingerprint,
        collection_documents=found.documents,
        documents=part.documents(found.documents, shard_size),
        shard=part.name,
        encoder=student.name,
        encoder_fingerprint=student.fingerprint,
        dimension=student.dimension,
        prompt=student.document_prompt,
        max_length=student.max_length,
        device=student.device_type,
        dtype=student.options.dtype,
        backend=student.backend,
        pooling=student.options.pooling,
        normalize=student.options.normalize,
        batch_size=student.options.batch_size,
        shard_size=shard_size,
        query_prompt=student.query_prompt,
        truncate=student.options.dimension,
        normalized=student.normalizes,
        versions={name: version(name) for name in (*_LIBRARIES, *_OF_BACKEND.get(student.backend, ()))},
        copies=found.copies,
    )
