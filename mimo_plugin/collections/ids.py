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
        given: the prefix that it has elsewhere and keeps; None where there is none.
        file: it is a file of topics or qrels; these may be of one collection and have its prefix.
    """

    specs: tuple[str, ...]
    lang: str
    collection_id: str
    given: str | None = None
    file: bool = False


def pooled_id(prefix: str, identifier: str) -> str:
    """The id that a document or query has in a pool. An empty prefix leaves it as it is.

    Prefixes hold no colon, so ids of two collections with different prefixes are never the same.
    """
    return f"{prefix}:{identifier}" if prefix else identifier


def choose_prefixes(collections: Sequence[Named]) -> list[str]:
    """A prefix for each collection: its language, or its id where another has the same or it has none.

    One that was given stays as it is.

    Raises:
        DataError: two prefixes are the same even so.
    """
    shared = Counter(collection.lang for collection in collections if not collection.file)
    prefixes = []
    for collection in collections:
        if collection.given is not None:
            prefixes.append(collection.given)
        elif collection.lang and shared[collection.lang] == 1:
            prefixes.append(collection.lang)
        else:
            prefixes.append(collection.collection_id)
    problems = Problems(DataError)
    named = [(one, own) for one, own in zip(collections, prefixes, strict=True) if not one.file]
    for prefix, count in Counter(own for _, own in named).items():
        if count > 1:
            same = [collection.specs[0] for collection, own in named if own == prefix]
            start = f"that start with '{prefix}:'" if prefix else "without a prefix"
            problems.add(
                f"{' and '.join(same)} would both have ids {start}, expected a prefix of "
                "its own for each collection of a pool: rename a folder, or leave one out"
            )
    problems.raise_any()
    return prefixes
