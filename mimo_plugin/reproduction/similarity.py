"""Scores of an encoder's queries for documents that their ranking does not hold."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.indexing.manifest import DOCID
from mimo_plugin.indexing.reader import open_index
from mimo_plugin.reproduction.parts import Part
from mimo_plugin.student import Student

if TYPE_CHECKING:
    import numpy as np

    from mimo_plugin.evaluation.fairness import Similarity


def similarity_in(
    index_dir: Path, part: Part, load: Callable[[], Student], docids: Iterable[str]
) -> "Similarity | None":
    """Inner products of the part's queries with these documents, on the scale of the run's scores.

    Memory holds the vectors of the queries and of these documents.

    Args:
        load: the encoder of the index.

    Returns:
        None where the index does not give its vectors back.

    Raises:
        ArtifactError: there is no index, or a damaged one.
    """
    import numpy as np

    index = open_index(index_dir)
    wanted = {docid.encode() for docid in docids}
    rows: dict[bytes, int] = {}
    with (index_dir / DOCID).open("rb") as lines:
        for row, line in enumerate(lines):
            if (docid := line.rstrip(b"\n")) in wanted:
                rows[docid] = row
    place = {docid: number for number, docid in enumerate(rows)}
    try:
        documents: np.ndarray = index.faiss.reconstruct_batch(np.fromiter(rows.values(), dtype=np.int64))
    except RuntimeError:
        return None
    queries = load().encode_queries([text for _, text in part.queries])
    query_of = {query_id: number for number, (query_id, _) in enumerate(part.queries)}

    def similarity(query_id: str, some: "np.ndarray") -> "np.ndarray":
        found: np.ndarray = documents[[place[docid] for docid in some.tolist()]] @ queries[query_of[query_id]]
        return found

    return similarity
