"""PyTerrier: an index of `mimo index` as a retriever, without a JVM."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.environment import require_extra
from mimo_plugin.core.errors import UsageError
from mimo_plugin.indexing.open import AnyIndex
from mimo_plugin.indexing.search import find_searched, search
from mimo_plugin.indexing.settings import SearchOptions

require_extra("mimo_plugin.terrier", ["pyterrier"], "terrier")

import pyterrier as pt  # noqa: E402

if TYPE_CHECKING:
    import pandas as pd


class MimoRetriever(pt.Transformer):
    """Retrieves from an index: from qid and query to qid, query, docno, score and rank, best first.

    Ranks begin at 0, as PyTerrier's do. Documents of equal score are in trec_eval's order. Other columns of
    the topics are kept. The encoder is loaded at the first query, and stays.

    Args:
        index: an open index or its directory, or several that are searched as one.
        num_results: documents per query.
        text: add the column `text`, see `Index.texts`.
        settings: further fields of `SearchOptions`, such as lang="de" or search_parameters="nprobe=16".

    Raises:
        ArtifactError: an index is incomplete or corrupted.
        UsageError: a setting is unknown, or the index has no documents in a language.
    """

    def __init__(
        self,
        index: AnyIndex | Path | str | Sequence[AnyIndex | Path | str],
        *,
        num_results: int = 1000,
        text: bool = False,
        **settings: Any,
    ) -> None:
        try:
            options = SearchOptions(progress=False, **settings)
        except TypeError as error:
            raise UsageError(f"MimoRetriever: {error}, expected a field of SearchOptions") from error
        self._indexes = find_searched(index, options)
        # PyTerrier asks for many results, of small indexes too.
        self._options = replace(options, hits=min(num_results, sum(map(len, self._indexes))))
        self._settings = settings
        self.num_results = num_results
        self.text = text

    def __repr__(self) -> str:
        return f"MimoRetriever({', '.join(index.name for index in self._indexes)})"

    def transform(self, inp: "pd.DataFrame") -> "pd.DataFrame":
        """Retrieves for topics with the columns qid and query; raises as `search` and `Index.texts`."""
        import pandas as pd

        pt.validate.query_frame(inp, extra_columns=["query"])
        queries = dict(zip(inp["qid"], inp["query"], strict=True))
        run = search(self._indexes, queries, self._options) if queries else {}
        rows = [
            (qid, docno, score, rank)
            for qid, hits in run.items()
            for rank, (docno, score) in enumerate(hits.items())
        ]
        found = pd.DataFrame(rows, columns=["qid", "docno", "score", "rank"])
        found = found.astype({"qid": inp["qid"].dtype, "score": float, "rank": int})
        if self.text:
            docnos = found["docno"].unique()
            texts: dict[str, str] = {}
            for index in self._indexes:
                texts |= index.texts(docnos)
            found["text"] = found["docno"].map(texts).astype(object)
        return inp.merge(found, on="qid")

    def fuse_rank_cutoff(self, k: int) -> "MimoRetriever | None":
        """The same retriever with fewer results; PyTerrier calls it to compile `retriever % k`."""
        if k >= self.num_results:
            return None
        return MimoRetriever(self._indexes, num_results=k, text=self.text, **self._settings)
