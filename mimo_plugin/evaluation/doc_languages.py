"""The languages of documents in a run or in qrels."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.errors import DataError
from mimo_plugin.evaluation.runs import Run
from mimo_plugin.evaluation.topics import Topics


def languages_of(docids: NDArray[np.bytes_], doc_langs: Mapping[str, str]) -> list[str]:
    """The language of each document. docids: (n,) UTF-8. doc_langs: docid -> language.

    Raises `DataError` with the first document that has none.
    """
    try:
        return [doc_langs[docid.decode()] for docid in docids.tolist()]
    except KeyError as error:
        raise DataError(
            f"document {error.args[0]!r} is none of the {len(doc_langs):,} whose language is known, expected "
            "every document of run and qrels: take the languages from the collection that was searched"
        ) from error


def documents_of(run: Run, topics: Topics, k: int) -> set[str]:
    """The docids whose language `language_bias` needs: relevant documents and first k hits of judged topics.

    So few that they fit into memory however large the collection is.
    """
    docids: set[bytes] = set()
    for query_id, judged in zip(topics.query_ids, topics.judged, strict=True):
        docids.update(judged.docids[judged.relevance > 0].tolist())
        ranking = run.queries.get(query_id)
        if ranking is not None:
            docids.update(ranking.docids[:k].tolist())
    return {docid.decode() for docid in docids}


def pool_doc_languages(pool: Any, wanted: Iterable[str]) -> dict[str, str]:
    """Docid -> language, of those wanted documents that a collection has and whose language it tells.

    pool: what `load_pool` returns. Its documents are streamed until all that are wanted have been met; memory
    grows with these only. Raises `DataError` where a record before is not as it must be.
    """
    missing = set(wanted)
    found: dict[str, str] = {}
    for doc in pool.docs_iter() if missing else ():
        if doc.doc_id in missing:
            missing.discard(doc.doc_id)
            if doc.lang:
                found[doc.doc_id] = doc.lang
            if not missing:
                break
    return found
