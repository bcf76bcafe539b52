"""The texts of exported documents, from the collections that their vectors were made of."""

from collections.abc import Callable, Sequence

from mimo_plugin.collections import load_pool
from mimo_plugin.errors import DataError, UsageError
from mimo_plugin.vectors import EncodingPlan


def texts_of(plan: EncodingPlan) -> Callable[[Sequence[str]], list[str]]:
    """A function that gives the texts of documents: asked for in the vectors' order, it reads the
    collections once.

    Raises:
        DataError: a collection is not known here; later on, it lacks a document.
        UsageError: the vectors were imported, and nobody knows of what.
    """
    if not plan.backend:
        raise UsageError(f"the vectors were imported from {plan.collections[0]}: their texts are not known")
    pool = load_pool(
        plan.collections, fields=plan.fields, pooled=plan.prefixes is not None, prefixes=plan.prefixes
    )
    docs = iter(pool.docs_iter())

    def texts(docids: Sequence[str]) -> list[str]:
        found = []
        for docid in docids:
            # A part of a collection begins further back.
            text = next((doc.text for doc in docs if doc.doc_id == docid), None)
            if text is None:
                raise DataError(
                    f"{', '.join(plan.collections)} has no document {docid} where the vectors have it: the "
                    "collection has changed since it was encoded"
                )
            found.append(text)
        return found

    return texts
