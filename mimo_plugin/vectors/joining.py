"""The plan of vectors or indexes that were made apart and are put together."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mimo_plugin.errors import ArtifactError, Problems
from mimo_plugin.vectors.plan import EncodingPlan

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


@dataclass(frozen=True)
class Joined:
    """Attributes:
    plan: of all of it.
    order: the positions of what was given, in the order in which it belongs together.
    """

    plan: EncodingPlan
    order: tuple[int, ...]


def join_plans(plans: Sequence[EncodingPlan], names: Sequence[str]) -> Joined:
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
    for plan, name in zip(plans[1:], names[1:], strict=True):
        for field in _ENCODER:
            mine, other = getattr(first, field), getattr(plan, field)
            if mine != other and not (field == "query_prompt" and None in (mine, other)):
                problems.add(
                    f"{name} and {names[0]} do not belong together: {field} is {other!r} and {mine!r}; "
                    "encode one of them again with the other's options"
                )
        if (plan.prefixes is None) != (first.prefixes is None):
            problems.add(
                f"{name} and {names[0]} do not belong together: one has ids as lang:id, the other has not; "
                "make both with --pooled, or both without"
            )
    problems.raise_any()
    if len(plans) == 1:
        return Joined(first, (0,))
    one = len({plan.collection_fingerprint for plan in plans}) == 1
    joined = _parts(plans, names) if one else _collections(plans, names)
    # Older ones do not say these.
    prompts = (plan.query_prompt for plan in plans if plan.query_prompt is not None)
    normalized = {plan.normalized for plan in plans}
    said = {
        "query_prompt": next(prompts, None),
        "normalized": first.normalized if len(normalized) == 1 else None,
    }
    return Joined(joined.plan.model_copy(update=said), joined.order)


def _parts(plans: Sequence[EncodingPlan], names: Sequence[str]) -> Joined:
    first = plans[0]
    problems = Problems(ArtifactError)
    for plan, name in zip(plans[1:], names[1:], strict=True):
        for field in ("shard_size", "collections", "prefixes", "fields"):
            mine, other = getattr(first, field), getattr(plan, field)
            if mine != other:
                problems.add(
                    f"{name} and {names[0]} are of the same documents and cannot be put together: {field} is "
                    f"{other!r} and {mine!r}"
                )
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
    twice = [number for number, count in numbers.items() if count > 1]
    missing = [number for number in whole if number not in numbers]
    if twice:
        raise ArtifactError(
            f"part {', '.join(map(str, sorted(twice)))} of {len(whole)} is there more than once among "
            f"{', '.join(names)}: give every part once"
        )
    if missing:
        raise ArtifactError(
            f"part {', '.join(map(str, missing))} of {len(whole)} is missing among {', '.join(names)}: make "
            "it with --shard, and give all of them"
        )
    order = sorted(range(len(plans)), key=lambda at: plans[at].part.number)
    whole_plan = first.model_copy(update={"shard": None, "documents": first.collection_documents})
    return Joined(whole_plan, tuple(order))


def _collections(plans: Sequence[EncodingPlan], names: Sequence[str]) -> Joined:
    problems = Problems(ArtifactError)
    for plan, name in zip(plans, names, strict=True):
        if plan.shard is not None:
            problems.add(
                f"{name} is part {plan.shard} of a collection, the others are of other collections: put its "
                "parts together first"
            )
    prefixes: dict[str, str] | None = None
    if plans[0].prefixes is not None:
        prefixes, of = {}, dict[str, str]()
        for plan, name in zip(plans, names, strict=True):
            for collection, prefix in (plan.prefixes or {}).items():
                if prefix in of and collection not in prefixes:
                    problems.add(
                        f"{name} and {of[prefix]} both have ids that begin with {prefix}: they would "
                        "run into each other"
                    )
                of[prefix] = name
                prefixes[collection] = prefix
    problems.raise_any()
    digest = hashlib.sha256("\n".join(plan.collection_fingerprint for plan in plans).encode())
    fields = {plan.fields for plan in plans}
    joined = plans[0].model_copy(
        update={
            "collections": tuple(collection for plan in plans for collection in plan.collections),
            "prefixes": prefixes,
            "fields": fields.pop() if len(fields) == 1 else None,
            "collection_fingerprint": digest.hexdigest(),
            "collection_documents": sum(plan.documents for plan in plans),
            "documents": sum(plan.documents for plan in plans),
        }
    )
    return Joined(joined, tuple(range(len(plans))))
