"""The ids of a pool: what goes before the colon, and the one function that puts it there."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mimo_plugin.errors import DataError, Problems


@dataclass(frozen=True)
class Named:
    """What the ids of one collection may be prefixed with.

    Attributes:
        specs: the names under which the collection was given: splits of one collection share its documents.
        lang: the language of its documents; "" where it has none, or more than one.
        collection_id: an id for the documents, without colon or white space.
    """

    specs: tuple[str, ...]
    lang: str
    collection_id: str


def pooled_id(prefix: str, identifier: str) -> str:
    """The id that a document or query has in a pool. An empty prefix leaves it as it is.

    Prefixes hold no colon, so ids of two collections with different prefixes are never the same.
    """
    return f"{prefix}:{identifier}" if prefix else identifier


def choose_prefixes(collections: Sequence[Named]) -> list[str]:
    """A prefix for each collection: its language, or its id where another has the same or it has none.

    Raises:
        DataError: two prefixes are the same even so.
    """
    shared = Counter(collection.lang for collection in collections)
    prefixes = [
        collection.lang if collection.lang and shared[collection.lang] == 1 else collection.collection_id
        for collection in collections
    ]
    problems = Problems(DataError)
    for prefix, count in Counter(prefixes).items():
        if count > 1:
            same = [
                collection.specs[0]
                for collection, own in zip(collections, prefixes, strict=True)
                if own == prefix
            ]
            problems.add(
                f"{' and '.join(same)} would both have ids that start with '{prefix}:', expected a prefix of "
                "its own for each collection of a pool: rename a folder"
            )
    problems.raise_any()
    return prefixes
