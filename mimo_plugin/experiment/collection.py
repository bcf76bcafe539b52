"""A collection that every trained student is scored on, read once."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mimo_plugin.evaluation.topics import Topics


@dataclass(frozen=True)
class ScoredCollection:
    """Attributes:
    name: in the recipe.
    specs: the collections of the pool.
    topics: their judged topics.
    doc_languages: docid -> language, of every document.
    queries: query id -> text, of the judged topics.
    fingerprint: SHA-256 over documents, queries and judgments.
    """

    name: str
    specs: tuple[str, ...]
    topics: "Topics"
    doc_languages: Mapping[str, str]
    queries: Mapping[str, str]
    fingerprint: str

    @classmethod
    def load(cls, name: str, specs: Sequence[str], *, progress: bool | None = None) -> "ScoredCollection":
        """Reads a pool; what is held of a document are its id and language.

        Raises:
            DataError: the collections are not as they must be.
        """
        from mimo_plugin.collections import load_pool
        from mimo_plugin.collections.survey import survey
        from mimo_plugin.evaluation.topics import load_topics

        pool = load_pool(specs)
        topics = load_topics(pool)
        found = survey(pool, progress=progress)
        digest = hashlib.sha256(found.fingerprint.encode())
        texts = {query.query_id: query.text for query in pool.queries_iter()}
        for query_id, text in sorted(texts.items()):
            digest.update(f"{len(query_id)} {len(text)} {query_id}{text}\n".encode("utf-8", "surrogatepass"))
        for query_id, judged in zip(topics.query_ids, topics.judged, strict=True):
            digest.update(f"{query_id} {len(judged.docids)}\n".encode())
            digest.update(b"\n".join(judged.docids.tolist()))
            digest.update(judged.relevance.tobytes())
        digest.update("\n".join(topics.languages).encode())
        digest.update(topics.language_of.astype("<i8").tobytes())
        return cls(
            name,
            tuple(specs),
            topics,
            {doc.doc_id: doc.lang for doc in pool.docs_iter()},
            {query_id: texts.get(query_id, "") for query_id in topics.query_ids},
            digest.hexdigest(),
        )
