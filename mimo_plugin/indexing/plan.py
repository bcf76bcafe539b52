"""What decides the bytes of vectors: plans, parts of a collection, what belongs together."""

import hashlib
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from mimo_plugin.core.artifact import Record, differences
from mimo_plugin.core.errors import ArtifactError, Problems
from mimo_plugin.indexing.settings import WHOLE, Part

if TYPE_CHECKING:
    from mimo_plugin.collections.dataset import Pool
    from mimo_plugin.collections.survey import Survey
    from mimo_plugin.encoder.encoder import Encoder

_LIBRARIES = ("faiss-cpu", "sentence-transformers", "torch", "transformers")
_OF_BACKEND = {"onnx": ("onnxruntime",), "openvino": ("openvino",)}
# Vectors that differ in these only differ by rounding at most.
OF_THE_MACHINE = frozenset({"device", "backend", "versions"})
# What older manifests do not say is no difference.
_SAID_LATER = frozenset({"query_prompt", "normalized"})
# What keeps the other plan's value.
_KEEPING = {"prompt": "--document-prompt", "query_prompt": "--query-prompt"}


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
        encoder_fingerprint: see `Encoder.fingerprint`; "" where there is no encoder.
        dimension: of the vectors.
        prompt: put before each document.
        query_prompt: to be put before each query; None where nobody said it.
        max_length: in tokens; None where there is no encoder.
        device, dtype, backend: what ran the model, see `Encoder`; "" of imported vectors.
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
        """What is not the same in `other`, a line each.

        The encoder's name and path do not count, nor do records that were left out.
        """
        unsaid = {name for name in _SAID_LATER if None in (getattr(self, name), getattr(other, name))}
        return [
            f"{line} ({_KEEPING[name]} {shlex.quote(getattr(other, name))} keeps that)"
            if name in _KEEPING
            else line
            for name, line in differences(self, other, {"encoder", "copies", *unsaid, *ignoring}).items()
        ]


def plan_encoding(
    pool: "Pool", found: "Survey", encoder: "Encoder", part: Part = WHOLE, shard_size: int = 4096
) -> EncodingPlan:
    """The plan of encoding a pool, or a part of it.

    Raises:
        UsageError: the pool has fewer shards than it is to be cut into parts.
    """
    return EncodingPlan(
        collections=pool.specs,
        prefixes=pool.prefixes,
        fields=pool.fields,
        collection_fingerprint=found.fingerprint,
        collection_documents=found.documents,
        documents=part.documents(found.documents, shard_size),
        shard=part.name,
        dimension=encoder.dimension,
        device=encoder.device_type,
        dtype=encoder.options.dtype,
        backend=encoder.backend,
        batch_size=encoder.options.batch_size,
        shard_size=shard_size,
        normalized=encoder.normalizes,
        versions={name: version(name) for name in (*_LIBRARIES, *_OF_BACKEND.get(encoder.backend, ()))},
        copies=found.copies,
        **_said_of(encoder),
    )


def foreign_plan(
    collections: tuple[str, ...],
    fingerprint: str,
    documents: int,
    dimension: int,
    shard_size: int,
    encoder: "Encoder | None" = None,
) -> EncodingPlan:
    """The plan of vectors that others made, perhaps with an encoder that is known."""
    return EncodingPlan(
        collections=collections,
        prefixes=None,
        fields=None,
        collection_fingerprint=fingerprint,
        collection_documents=documents,
        documents=documents,
        shard=None,
        dimension=dimension,
        device="",
        dtype="",
        backend="",
        batch_size=None,
        shard_size=shard_size,
        versions={},
        **_said_of(encoder),
    )


def _said_of(encoder: "Encoder | None") -> dict[str, Any]:
    """What a plan says of an encoder, whether it ran here or elsewhere."""
    options = encoder.options if encoder else None
    return {
        "encoder": encoder.name if encoder else "",
        "encoder_fingerprint": encoder.fingerprint if encoder else "",
        "prompt": encoder.document_prompt if encoder else "",
        "query_prompt": encoder.query_prompt if encoder else None,
        "max_length": encoder.max_length if encoder else None,
        "pooling": options.pooling if options else None,
        "normalize": options.normalize if options else None,
        "truncate": options.dimension if options else None,
    }


# What decides where a text lands in the vector space. Batches, backend and device move it by rounding only.
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
    """A line for each field that is another one than in the first plan, and where only one has pooled ids.

    Args:
        names: what to call them in messages, one each.
        verdict: what they do not do, or cannot be.
    """
    for plan, name in zip(plans[1:], names[1:], strict=True):
        both = f"{name} and {names[0]} {verdict}"
        for field in fields:
            mine, other = getattr(plans[0], field), getattr(plan, field)
            if mine != other and not (field in _SAID_LATER and None in (mine, other)):
                yield (
                    f"{both}: {field} is {other!r} and {mine!r}; make one of them again with the other's "
                    "options"
                )
        if (plan.prefixes is None) != (plans[0].prefixes is None):
            yield (
                f"{both}: one has ids as lang:id, the other has not; make both with --pooled, or both without"
            )


class JoinedPlan(NamedTuple):
    """Attributes:
    plan: of all of it.
    order: the positions of what was given, in the order in which it belongs together.
    """

    plan: EncodingPlan
    order: tuple[int, ...]


def join_plans(plans: Sequence[EncodingPlan], names: Sequence[str]) -> JoinedPlan:
    """What comes of vectors or indexes put together: the parts of one collection, or several collections.

    The parts of a collection make the plan that an encoding of the whole would have had.

    Args:
        names: what to call them in messages, one each.

    Raises:
        ArtifactError: encoders, prompts or the like differ, parts are missing or there twice, or the ids of
            collections would run into each other; every difference is named.
    """
    first = plans[0]
    problems = Problems(ArtifactError)
    problems.extend(unlike(plans, names, _ENCODER, "do not belong together"))
    problems.raise_any()
    if len(plans) == 1:
        return JoinedPlan(first, (0,))
    one = len({plan.collection_fingerprint for plan in plans}) == 1
    joined = _join_parts(plans, names) if one else _join_collections(plans, names)
    said = {
        "query_prompt": next((plan.query_prompt for plan in plans if plan.query_prompt is not None), None),
        "normalized": first.normalized if len({plan.normalized for plan in plans}) == 1 else None,
    }
    return JoinedPlan(joined.plan.model_copy(update=said), joined.order)


def _join_parts(plans: Sequence[EncodingPlan], names: Sequence[str]) -> JoinedPlan:
    problems = Problems(ArtifactError)
    fields = ("shard_size", "collections", "prefixes", "fields")
    problems.extend(unlike(plans, names, fields, "are of the same documents and cannot be put together"))
    problems.raise_any()
    cut = {plan.part.of for plan in plans}
    if len(cut) > 1:
        raise ArtifactError(
            f"{', '.join(names)} are parts of one collection that was cut differently: "
            f"{', '.join(plan.shard or 'the whole' for plan in plans)}; make them again with the same n in "
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
    order = sorted(range(len(plans)), key=lambda at: plans[at].part.number)
    whole_plan = plans[0].model_copy(update={"shard": None, "documents": plans[0].collection_documents})
    return JoinedPlan(whole_plan, tuple(order))


def _join_collections(plans: Sequence[EncodingPlan], names: Sequence[str]) -> JoinedPlan:
    problems = Problems(ArtifactError)
    prefixes: dict[str, str] = {}
    of: dict[str, str] = {}
    for plan, name in zip(plans, names, strict=True):
        if plan.shard is not None:
            problems.add(
                f"{name} is part {plan.shard} of a collection, the others are of other collections: put its "
                "parts together first"
            )
        for collection, prefix in (plan.prefixes or {}).items():
            if prefix in of and collection not in prefixes:
                problems.add(
                    f"{name} and {of[prefix]} both have ids that begin with {prefix}: they would run into "
                    "each other"
                )
            of[prefix] = name
            prefixes[collection] = prefix
    problems.raise_any()
    digest = hashlib.sha256("\n".join(plan.collection_fingerprint for plan in plans).encode())
    fields = {plan.fields for plan in plans}
    documents = sum(plan.documents for plan in plans)
    joined = plans[0].model_copy(
        update={
            "collections": tuple(collection for plan in plans for collection in plan.collections),
            "prefixes": None if plans[0].prefixes is None else prefixes,
            "fields": fields.pop() if len(fields) == 1 else None,
            "collection_fingerprint": digest.hexdigest(),
            "collection_documents": documents,
            "documents": documents,
        }
    )
    return JoinedPlan(joined, tuple(range(len(plans))))
