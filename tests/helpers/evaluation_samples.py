"""Judgments, runs and scores made up for the tests of evaluation."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.evaluation.measures import RunScores, parse_measures
from mimo_plugin.evaluation.results import CountsResult
from mimo_plugin.evaluation.topics import Topics, make_topics

Qrels = dict[str, dict[str, int]]
Hits = dict[str, dict[str, float]]

NDCG = parse_measures("ndcg@10")[0]


def monolingual(sizes: Mapping[str, int]) -> Topics:
    """So many topics a language, each with its own relevant document."""
    ids = {f"{language}:{number:04}": language for language, size in sizes.items() for number in range(size)}
    return make_topics({topic: {f"d-{topic}": 1} for topic in ids}, ids)


def parallel(languages: Sequence[str], size: int) -> Topics:
    """Topics that exist in every language and share their relevant documents."""
    ids = {f"{language}:{number:04}": language for language in languages for number in range(size)}
    return make_topics({topic: {f"d-{topic[-4:]}-{x}": 1 for x in languages} for topic in ids}, ids)


def as_scores(topics: Topics, **runs: Sequence[float] | NDArray[np.float64]) -> list[RunScores]:
    """nDCG@10 values in the order of the topics, as if runs had been scored."""
    counts = CountsResult(judged=len(topics.query_ids), retrieved=len(topics.query_ids), missing=0)
    return [
        RunScores(name, {NDCG: np.asarray(values, dtype=np.float64)}, counts, 100)
        for name, values in runs.items()
    ]


def differences(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Symmetric, half of them 0, like differences of nDCG under the null hypothesis."""
    return np.where(rng.random(size) < 0.5, 0.0, rng.beta(0.5, 1.5, size) * rng.choice([-1.0, 1.0], size))


def random_trial(rng: np.random.Generator) -> tuple[Qrels, Hits]:
    """Graded and negative judgments; ties, also in float32 only; missing, extra, empty queries."""
    size = int(rng.integers(2, 60))
    ids = [f"{'é' * (i % 3 == 0)}{'x' * int(rng.integers(0, 3))}{i}" for i in range(size)]
    qrels: Qrels = {}
    hits: Hits = {"extra": {ids[0]: 1.0}}
    for query in (f"q{number}" for number in range(3)):
        chosen = rng.choice(size, int(rng.integers(1, size)), replace=False)
        qrels[query] = {ids[i]: int(rng.integers(-2, 4)) for i in chosen}
        if max(qrels[query].values()) < 0:
            # trec_eval itself breaks on a topic with negative judgments only.
            qrels[query][ids[0]] = 0
        if rng.random() < 0.9:
            retrieved = rng.choice(size, int(rng.integers(0, size)), replace=False)
            hits[query] = {ids[i]: _score(rng) for i in retrieved}
    return qrels, hits


def _score(rng: np.random.Generator) -> float:
    kind = rng.integers(0, 3)
    if kind == 0:
        return float(rng.integers(0, 3))
    return float(rng.random()) if kind == 1 else 1 + 1e-9 * float(rng.integers(0, 3))
