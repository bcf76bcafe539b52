"""Plans: everything that decides the bytes of vectors, and which vectors belong together."""

import hashlib
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.artifact import Record, differences
from mimo_plugin.core.errors import ArtifactError, Problems
from mimo_plugin.indexing.settings import WHOLE, Part

if TYPE_CHECKING:
    from mimo_plugin.collections.dataset import Pool
    from mimo_plugin.collections.survey import Survey
    from mimo_plugin.encoder.encoder import Encoder

_LIBRARIES = ("faiss-cpu", "sentence-transformers", "torch", "transformers")
_OF_BACKEND = {"onnx": ("onnxruntime",), "openvino": ("openvino",)}
# These change vectors by rounding only.
OF_THE_MACHINE = frozenset({"device", "backend", "versions"})
# These say more of vectors without deciding them.
REMARKS = frozenset({"encoder", "copies", "dtype_reason"})
# Older manifests lack these fields; a missing value is no difference.
_SAID_LATER = frozenset({"query_prompt", "normalized"})
# Field -> the option that keeps the other plan's value.
_KEEPING = {"prompt": "--document-prompt", "query_prompt": "--query-prompt"}


class EncodingPlan(Record):
    """The source and the making of vectors; interrupted work resumes only under the same plan.

    Attributes:
        collections: as given; for imported vectors, the names of their files.
        prefixes: collection -> prefix of its ids, see `pool_prefixes`; None where ids are the source's own.
        fields: document fields that are joined; None is the collection's default.
        collection_fingerprint: see `Survey.fingerprint`; for imported vectors, of their files.
        collection_documents: number of documents in all collections.
        documents: number of documents with vectors here; fewer for a part.
        shard: "2/4" is the second of four parts; None is the whole.
        encoder: the checkpoint as given; "" for imported vectors without a named encoder.
        encoder_fingerprint: see `Encoder.fingerprint`; "" without an encoder.
        prompt, query_prompt: put before each document and each query; None is unknown.
        max_length: in tokens; None without an encoder.
        device, dtype, backend: see `Encoder`; "" for imported vectors.
        pooling, normalize, truncate: the user's overrides of the checkpoint's pooling, normalization and
            dimension; None is the checkpoint's own.
        normalized: whether every vector has length 1; None is unknown.
        shard_size: documents per file of vectors.
        versions: the libraries whose release can change a vector or a file.
        copies: records that were left out as duplicates, see `Survey`.
        dtype_reason: see `Encoder`.
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
    dtype_reason: str | None = None

    @property
    def part(self) -> Part:
        return Part.parse(self.shard)

    def differences(self, other: "EncodingPlan", ignoring: frozenset[str] = frozenset()) -> list[str]:
        """One line per differing field that decides vectors."""
        unsaid = {name for name in _SAID_LATER if None in (getattr(self, name), getattr(other, name))}
        return [
            f"{line} ({_KEEPING[name]} {shlex.quote(getattr(other, name))} keeps that)"
            if name in _KEEPING
            else line
            for name, line in differences(self, other, REMARKS | unsaid | ignoring).items()
        ]


def plan_encoding(
    pool: "Pool", found: "Survey", encoder: "Encoder", part: Part = WHOLE, shard_size: int = 4096
) -> EncodingPlan:
    """The plan of encoding a pool, or a part of it; raises as `Part.shards`."""
    whole = foreign_plan(
        pool.specs, found.fingerprint, found.documents, encoder.dimension, shard_size, encoder
    )
    ours = {
        "prefixes": pool.prefixes,
        "fields": pool.fields,
        "documents": part.documents(found.documents, shard_size),
        "shard": part.name,
        "device": encoder.device_type,
        "dtype": encoder.options.dtype,
        "dtype_reason": encoder.dtype_reason,
        "backend": encoder.backend,
        "batch_size": encoder.options.batch_size,
        "normalized": encoder.normalizes,
        "versions": {name: version(name) for name in (*_LIBRARIES, *_OF_BACKEND.get(encoder.backend, ()))},
        "copies": found.copies,
    }
    return whole.model_copy(update=ours)


def foreign_plan(
    collections: tuple[str, ...],
    fingerprint: str,
    documents: int,
    dimension: int,
    shard_size: int,
    encoder: "Encoder | None" = None,
) -> EncodingPlan:
    """The plan of vectors that another tool made, with all documents in one part."""
    options = encoder.options if encoder else None
    return EncodingPlan(
        collections=collections,
        prefixes=None,
        fields=None,
        collection_fingerprint=fingerprint,
        collection_documents=documents,
        documents=documents,
        shard=None,
        encoder=encoder.name if encoder else "",
        encoder_fingerprint=encoder.fingerprint if encoder else "",
        dimension=dimension,
        prompt=encoder.document_prompt if encoder else "",
        query_prompt=encoder.query_prompt if encoder else None,
        max_length=encoder.max_length if encoder else None,
        device="",
        dtype="",
        backend="",
        pooling=options.pooling if options else None,
        normalize=options.normalize if options else None,
        truncate=options.dimension if options else None,
        batch_size=None,
        shard_size=shard_size,
        versions={},
    )


# These fields decide a text's vector. Batch size, backend and device change it by rounding only.
_ENCODER = (
    "encoder_fingerprint",
    "dimension",
    "prompt",
    "query_prompt",
    "max_length",
    "dtype",
    "pooling",
    "normalize",
)


def unlike(
    plans: Sequence[EncodingPlan], names: Sequence[str], fields: Sequence[str], verdict: str
) -> Iterator[str]:
    """One line per field that differs from the first plan, and where only one plan has pooled ids.

    Args:
        names: of the plans, for messages.
        verdict: the end of "A and B ...", such as "cannot be searched as one".
    """
    for plan, name in zip(plans[1:], names[1:], strict=True):
        both = f"{name} and {names[0]} {verdict}"
        for field in fields:
            mine, other = getattr(plans[0], field), getattr(plan, field)
            if mine != other and not (field in _SAID_LATER and None in (mine, other)):
                yield (
                    f"{both}: {field} is {other!r} and {mine!r}; build one of them again with the "
                    "options of the other"
                )
        if (plan.prefixes is None) != (plans[0].prefixes is None):
            yield (f"{both}: only one has ids as lang:id; build both with --pooled, or both without")


def join_plans(plans: Sequence[EncodingPlan], names: Sequence[str]) -> tuple[EncodingPlan, Sequence[int]]:
    """The plan of vectors or indexes put together: the parts of one collection, or several collections.

    The parts of a collection make the plan that encoding the whole collection would have had.

    Args:
        names: of the plans, for messages.

    Returns:
        The joined plan, and the positions of `plans` in their proper order.

    Raises:
        ArtifactError: with every difference: other encoders or prompts, missing or repeated parts, or
            collections with the same prefix of ids.
    """
    with Problems(ArtifactError) as problems:
        problems.extend(unlike(plans, names, _ENCODER, "do not belong together"))
    if len(plans) == 1:
        return plans[0], [0]
    joined: dict[str, Any]
    if len({plan.collection_fingerprint for plan in plans}) == 1:
        order = _order_parts(plans, names)
        joined = {"shard": None, "documents": plans[0].collection_documents}
    else:
        order = list(range(len(plans)))
        joined = _join_collections(plans, names)
    prompts = [plan.query_prompt for plan in plans if plan.query_prompt is not None]
    joined["query_prompt"] = prompts[0] if prompts else None
    joined["normalized"] = plans[0].normalized if len({plan.normalized for plan in plans}) == 1 else None
    return plans[0].model_copy(update=joined), order


def _order_parts(plans: Sequence[EncodingPlan], names: Sequence[str]) -> list[int]:
    """The positions of a collection's parts, by number; raises where they do not make up the whole."""
    fields = ("shard_size", "collections", "prefixes", "fields")
    with Problems(ArtifactError) as problems:
        problems.extend(unlike(plans, names, fields, "are of the same documents and cannot be put together"))
    cut = {plan.part.of for plan in plans}
    if len(cut) > 1:
        raise ArtifactError(
            f"{', '.join(names)} are parts of one collection with different cuts: "
            f"{', '.join(plan.shard or 'the whole' for plan in plans)}; build them again with the same n in "
            "--shard i/n"
        )
    numbers = Counter(plan.part.number for plan in plans)
    whole = range(1, cut.pop() + 1)
    twice = sorted(number for number, count in numbers.items() if count > 1)
    missing = [number for number in whole if number not in numbers]
    for wrong, what, advice in (
        (twice, "there more than once", "give every part once"),
        (missing, "missing", "make it with --shard, and give all of them"),
    ):
        if wrong:
            raise ArtifactError(
                f"part {', '.join(map(str, wrong))} of {len(whole)} is {what} among {', '.join(names)}: "
                f"{advice}"
            )
    return sorted(range(len(plans)), key=lambda at: plans[at].part.number)


def _join_collections(plans: Sequence[EncodingPlan], names: Sequence[str]) -> dict[str, Any]:
    """The fields that differ between the plan of several collections and that of the first."""
    problems = Problems(ArtifactError)
    prefixes: dict[str, str] = {}
    of: dict[str, str] = {}
    for plan, name in zip(plans, names, strict=True):
        if plan.shard is not None:
            problems.add(
                f"{name} is part {plan.shard} of a collection, the others are other collections: merge its "
                "parts first"
            )
        for collection, prefix in (plan.prefixes or {}).items():
            if prefix in of and collection not in prefixes:
                problems.add(
                    f"{name} and {of[prefix]} both have ids that begin with {prefix}: ids would clash"
                )
            of[prefix] = name
            prefixes[collection] = prefix
    problems.raise_any()
    digest = hashlib.sha256("\n".join(plan.collection_fingerprint for plan in plans).encode())
    fields = {plan.fields for plan in plans}
    documents = sum(plan.documents for plan in plans)
    return {
        "collections": tuple(collection for plan in plans for collection in plan.collections),
        "prefixes": None if plans[0].prefixes is None else prefixes,
        "fields": fields.pop() if len(fields) == 1 else None,
        "collection_fingerprint": digest.hexdigest(),
        "collection_documents": documents,
        "documents": documents,
    }
