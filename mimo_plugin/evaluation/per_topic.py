"""The scores of every topic, and the first hits of some topics with their texts: the record `topics.json`."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from mimo_plugin.core.config import ResultRecord, printable
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.evaluation.measures import MeasureKind
from mimo_plugin.evaluation.results import AGAIN
from mimo_plugin.evaluation.runs import Ranking, read_run

if TYPE_CHECKING:
    from mimo_plugin.evaluation.evaluate import Evaluation
    from mimo_plugin.evaluation.topics import Judged

FILE_NAME = "topics.json"
FORMAT: Final = "mimo-reproduction-topics"
FORMAT_VERSION: Final = 1
HITS = 10
# Up to this many gains, and as many losses.
_LARGEST = 10
_RELEVANT = 3
_CHARACTERS = 300
# Of all topics and runs together: beyond, there are fewer topics.
_MOST_HITS = 10_000


class TextResult(ResultRecord):
    """A document. text: its beginning."""

    language: str
    text: str


class TopicResult(ResultRecord):
    """A topic with its first hits.

    Attributes:
        relevant: number of its relevant documents.
        some_relevant: docids of the first few.
        hits: run -> docid and relevance (None without a judgment), best first.
    """

    language: str
    text: str
    relevant: int
    some_relevant: tuple[str, ...]
    hits: Mapping[str, tuple[tuple[str, float | None], ...]]


class PerTopicResults(ResultRecord):
    """The object of `topics.json`.

    Attributes:
        fingerprints: those in the provenance of the results that it belongs to.
        asked, seed: how many topics were to be shown, and what drew them.
        scores: run -> measure -> score of each topic, in the order of `query_ids`.
        languages: of each topic.
        measure, compared: the measure of the largest differences, and the compared runs: the baseline and the
            best of the others; None with one run.
        largest: the topics with the largest differences, gains first, then losses, the largest first.
        topics: those of `largest`, and a sample in which all languages have a share.
        documents: docid -> document, of all hits.
    """

    format: Literal["mimo-reproduction-topics"] = FORMAT
    format_version: Literal[1] = FORMAT_VERSION
    fingerprints: Mapping[str, str | None]
    asked: int
    seed: int
    query_ids: tuple[str, ...]
    languages: tuple[str, ...]
    scores: Mapping[str, Mapping[str, tuple[float, ...]]]
    measure: str | None
    compared: tuple[str, str] | None
    largest: tuple[str, ...]
    topics: Mapping[str, TopicResult]
    documents: Mapping[str, TextResult]

    @model_validator(mode="before")
    @classmethod
    def _can_be_shown(cls, content: Any) -> Any:
        return printable(content)

    def to_json(self) -> str:
        """The JSON object in one line: it holds long lists of numbers."""
        content = self.model_dump(mode="json")
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def read_per_topic(directory: Path) -> PerTopicResults | None:
    """Reads the record of a reproduction; None if its directory has none.

    Raises:
        ArtifactError: it cannot be read, or is damaged.
    """
    file = directory / FILE_NAME
    try:
        return PerTopicResults.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error.strerror}; {AGAIN}") from error
    except ValueError as error:
        raise ArtifactError(f"{file} is damaged, expected the topics of a reproduction; {AGAIN}") from error


@dataclass(frozen=True)
class Wanted:
    """What a record is made of, beside the scores.

    Attributes:
        fingerprints: of the results. A name that begins with "documents of " has that of a collection.
        asked: topics of the sample; there are fewer if all runs would have more than 10,000 hits together.
        files: run -> its file.
        queries: query id -> text.
        pools: the collections.
    """

    fingerprints: Mapping[str, str | None]
    asked: int
    seed: int
    files: Mapping[str, Path]
    queries: Mapping[str, str]
    pools: Sequence[Any]


def per_topic_results(
    evaluation: "Evaluation", wanted: Wanted, directory: Path, progress: bool | None = None
) -> tuple[PerTopicResults, bool]:
    """The record of an evaluation, and whether the directory holds it already.

    The collections are read only for texts that an earlier record of the same documents lacks. Memory holds
    one run at a time.
    """
    earlier = None
    with suppress(ArtifactError):
        earlier = read_per_topic(directory)
    own = (dict(wanted.fingerprints), wanted.asked, wanted.seed)
    if earlier is not None and (dict(earlier.fingerprints), earlier.asked, earlier.seed) == own:
        return earlier, True
    found = _record(evaluation, wanted)
    docids = {docid for topic in found.topics.values() for docid in topic.some_relevant}
    docids |= {docid for topic in found.topics.values() for hits in topic.hits.values() for docid, _ in hits}
    known: dict[str, TextResult] = {}
    collections = {name: value for name, value in own[0].items() if name.startswith("documents of ")}
    if earlier is not None and collections.items() <= earlier.fingerprints.items():
        known = {docid: text for docid, text in earlier.documents.items() if docid in docids}
    documents = known | document_texts(wanted.pools, docids - known.keys(), progress)
    return found.model_copy(update={"documents": dict(sorted(documents.items()))}), False


def _record(evaluation: "Evaluation", wanted: Wanted) -> PerTopicResults:
    """The record without documents."""
    topics = evaluation.topics
    languages = [topics.language(position) for position in range(len(topics.query_ids))]
    measure, compared, largest = None, None, list[int]()
    tested = [one for one in evaluation.measures if one.kind is not MeasureKind.JUDGED]
    if len(evaluation.scores) > 1 and tested:
        of_run = {scores.name: scores.per_topic[tested[0]] for scores in evaluation.scores}
        macro = {scores.name: evaluation.averages(scores, tested[0]).macro for scores in evaluation.scores}
        ranked = sorted(macro, key=lambda name: -(macro[name] or 0.0))
        # Without a baseline, the best run is compared with the second.
        baseline = evaluation.baseline or ranked[1]
        best = next(name for name in ranked if name != baseline)
        measure, compared = str(tested[0]), (baseline, best)
        largest = _largest(of_run[best] - of_run[baseline], topics.block_of, wanted.seed)
    number = min(wanted.asked, _MOST_HITS // (HITS * max(1, len(wanted.files))))
    if not wanted.asked:
        largest = []
    shown = dict.fromkeys([*largest, *_sample(languages, number, wanted.seed)])
    hits: dict[int, dict[str, tuple[tuple[str, float | None], ...]]] = {place: {} for place in shown}
    for name, file in wanted.files.items():
        run = read_run(file, name)
        for place in shown:
            found = run.queries.get(topics.query_ids[place])
            hits[place][name] = () if found is None else _judged_hits(found, topics.judged[place])
    examples = {}
    for place in shown:
        judged = topics.judged[place]
        relevant = [docid.decode() for docid in judged.docids[judged.relevance > 0].tolist()]
        query_id = topics.query_ids[place]
        examples[query_id] = TopicResult(
            language=languages[place],
            text=wanted.queries.get(query_id, ""),
            relevant=len(relevant),
            some_relevant=tuple(relevant[:_RELEVANT]),
            hits=hits[place],
        )
    return PerTopicResults(
        fingerprints=wanted.fingerprints,
        asked=wanted.asked,
        seed=wanted.seed,
        query_ids=topics.query_ids,
        languages=tuple(languages),
        scores={
            scores.name: {
                str(one): tuple(values.tolist())
                for one, values in scores.per_topic.items()
                if one in (*evaluation.measures, evaluation.judged)
            }
            for scores in evaluation.scores
        },
        measure=measure,
        compared=compared,
        largest=tuple(topics.query_ids[place] for place in largest),
        topics=examples,
        documents={},
    )


def _largest(differences: NDArray[np.float64], blocks: NDArray[np.intp], seed: int) -> list[int]:
    """Positions of the largest gains, then of the largest losses; of versions of one topic, one.

    Equal differences, such as many of 1, are in random order, so that not all are in the first language.
    """
    chosen: list[int] = []
    order = np.random.default_rng(seed).permutation(len(differences))
    for sign in (-1, 1):
        seen: set[int] = set()
        for place in order[np.argsort(sign * differences[order], kind="stable")].tolist():
            if sign * differences[place] < 0 and blocks[place] not in seen and len(seen) < _LARGEST:
                seen.add(int(blocks[place]))
                chosen.append(place)
    return chosen


def _sample(languages: list[str], number: int, seed: int) -> list[int]:
    """Random positions, as many of each language as there are, as far as possible; in ascending order."""
    seen: Counter[str] = Counter()
    turns = []
    for place in np.random.default_rng(seed).permutation(len(languages)).tolist():
        turns.append((seen[languages[place]], place))
        seen[languages[place]] += 1
    return sorted(place for _, place in sorted(turns, key=lambda turn: turn[0])[:number])


def _judged_hits(found: Ranking, judged: "Judged") -> tuple[tuple[str, float | None], ...]:
    known = dict(zip(judged.docids.tolist(), judged.relevance.tolist(), strict=True))
    return tuple((docid.decode(), known.get(docid)) for docid in found.docids[:HITS].tolist())


def document_texts(
    pools: Iterable[Any], wanted: Set[str], progress: bool | None = None
) -> dict[str, TextResult]:
    """The beginnings of some documents. Reads the pools until all are found."""
    missing = set(wanted)
    found: dict[str, TextResult] = {}
    for pool in pools:
        if not missing:
            break
        for doc in bar(pool.docs_iter(), what="texts of hits", unit="documents", enabled=progress):
            if doc.doc_id in missing:
                missing.remove(doc.doc_id)
                # Twice the characters before white space is removed: texts may be whole books.
                text = " ".join(doc.text[: 2 * _CHARACTERS].split())
                cut = text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1].rstrip()}…"
                found[doc.doc_id] = TextResult.model_validate(printable({"language": doc.lang, "text": cut}))
                if not missing:
                    break
    return found
