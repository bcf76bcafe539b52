"""The dev collection, scored while training: an exact search of all its queries in all its documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sentence_transformers.base.evaluation import BaseEvaluator

from mimo_plugin.core.errors import DataError
from mimo_plugin.encoder.encoder import Encoder, EncoderOptions

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from mimo_plugin.evaluation.topics import Topics

CUTOFF = 20
# What is compared to tell the best checkpoint.
MAIN_MEASURE = f"ndcg@{CUTOFF}"


@dataclass(frozen=True)
class DevCollection:
    """A collection small enough to be encoded again and again.

    Attributes:
        name: as given.
        docids, texts, languages: of each document.
        queries: (query id, text) pairs; only judged ones.
        topics: their judgments.
    """

    name: str
    docids: Sequence[str]
    texts: Sequence[str]
    languages: Sequence[str]
    queries: Sequence[tuple[str, str]]
    topics: "Topics"

    @classmethod
    def load(cls, collection: str) -> "DevCollection":
        """Reads a collection with documents, queries and judgments into memory.

        Raises:
            DataError: it is not there, or lacks one of them.
        """
        from mimo_plugin.collections.loading import require
        from mimo_plugin.collections.pool import load
        from mimo_plugin.evaluation.topics import load_topics

        require([collection], docs=True, queries=True, qrels=True)
        pool = load(collection)
        topics = load_topics(pool)
        docs = list(dict.fromkeys(pool.docs_iter()))
        if not docs:
            raise DataError(f"{collection} has no documents: a dev collection with some was expected")
        judged = set(topics.query_ids)
        queries = [(query.query_id, query.text) for query in pool.queries_iter() if query.query_id in judged]
        return cls(
            collection,
            [doc.doc_id for doc in docs],
            [doc.text for doc in docs],
            [doc.lang for doc in docs],
            queries,
            topics,
        )

    def score(self, student: Encoder) -> dict[str, float]:
        """nDCG@20 over all languages, share of the top 20 in the query's language, alignment (where there are
        language versions) and uniformity of the documents."""
        import numpy as np

        from mimo_plugin.evaluation.geometry import alignment, uniformity
        from mimo_plugin.evaluation.language import language_mix
        from mimo_plugin.evaluation.measures import parse_measures, score_run
        from mimo_plugin.evaluation.runs import Run
        from mimo_plugin.evaluation.topics import version_groups
        from mimo_plugin.indexing.nearest import nearest

        documents = student.encode_documents(self.texts)
        vectors = student.encode_queries([text for _, text in self.queries])
        query_ids = [query_id for query_id, _ in self.queries]
        run = Run("dev", nearest(query_ids, vectors, self.docids, documents, CUTOFF))
        (measure,) = parse_measures([MAIN_MEASURE])
        scores = {MAIN_MEASURE: float(np.mean(score_run(run, self.topics, [measure]).per_topic[measure]))}
        doc_languages = dict(zip(self.docids, self.languages, strict=True))
        mix = language_mix(run, self.topics.query_languages, doc_languages, CUTOFF)
        scores[f"same_language@{CUTOFF}"] = mix.own
        unit = documents / np.linalg.norm(documents, axis=1, keepdims=True).clip(1e-12)
        groups = version_groups(self.docids, self.languages, self.topics)
        if len(set(groups)) < len(groups):
            scores["alignment"] = alignment(unit, groups, self.languages)
        scores["uniformity"] = uniformity(unit)
        return scores


class DevScores(BaseEvaluator):
    """The dev collection as an evaluator of sentence-transformers' trainer."""

    def __init__(self, collection: DevCollection, options: EncoderOptions) -> None:
        super().__init__()
        self._collection = collection
        self._options = options
        self.primary_metric = f"dev_{MAIN_MEASURE}"

    def __call__(
        self,
        model: "SentenceTransformer",
        output_path: str | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> Mapping[str, float]:
        scores = self._collection.score(Encoder.of(model, "the student in training", self._options))
        return {f"dev_{name}": value for name, value in scores.items()}
