"""Which documents are language versions of one text, and which topics are versions of one topic."""

from collections.abc import Sequence

from mimo_plugin.evaluation.topics import Topics


def version_groups(docids: Sequence[str], languages: Sequence[str], topics: Topics) -> list[str]:
    """A name for each document, the same for the language versions of one text.

    Versions have the same id after their language: `de:7`, `fi:7`. In a pool of collections that have nothing
    to do with each other such ids agree by chance. So the judgments must show it, too: where no topic has two
    versions of a text among its relevant documents, no document is taken for a version of another.

    Args:
        docids, languages: (n,) all documents of the collection.
    """
    groups = [_without_language(*document) for document in zip(docids, languages, strict=True)]
    group_of = dict(zip(docids, groups, strict=True))
    for judged in topics.judged:
        relevant = [docid.decode() for docid in judged.docids[judged.relevance > 0].tolist()]
        if len({group_of.get(docid, docid) for docid in relevant}) < len(relevant):
            return groups
    return list(docids)


def _without_language(docid: str, language: str) -> str:
    prefix, colon, rest = docid.partition(":")
    return rest if colon and prefix == language else docid


def topic_versions(topics: Topics) -> list[list[int]]:
    """The positions of each topic's versions, where there are two or more.

    They have the same relevant documents and the same id after the language: neither alone would do, as there
    are pools whose ids agree by chance, and passages with several questions.
    """
    together: dict[tuple[int, str], list[int]] = {}
    for position, query_id in enumerate(topics.query_ids):
        language = topics.language(position)
        if language and query_id.startswith(language):
            key = int(topics.block_of[position]), query_id.removeprefix(language)
            together.setdefault(key, []).append(position)
    return [positions for positions in together.values() if len(positions) > 1]
