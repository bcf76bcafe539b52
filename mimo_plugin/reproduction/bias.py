"""How each run treats languages, and whether it is a run of this collection at all."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mimo_plugin.evaluation.fairness import Similarity
    from mimo_plugin.evaluation.topics import Topics
    from mimo_plugin.reproduction.parts import Benchmark

_NAMED = 3


@dataclass(frozen=True)
class Languages:
    """Looks up the languages of documents.

    Attributes:
        benchmark: whose documents.
        indexes: directories of finished indexes that together hold all of them; none: the collection is read.
    """

    benchmark: "Benchmark"
    indexes: Sequence[Path]

    def __call__(self, docids: Iterable[str]) -> dict[str, str]:
        """Docid -> language, of those that the collection has and whose language it tells."""
        from mimo_plugin.evaluation.doc_languages import pool_doc_languages
        from mimo_plugin.indexing.doc_languages import read_doc_languages

        wanted = frozenset(docids)
        found: dict[str, str] = {}
        if self.indexes:
            for directory in self.indexes:
                found |= read_doc_languages(directory, wanted)
        else:
            for part in self.benchmark.parts:
                found |= pool_doc_languages(part.pool, wanted)
        return found

    @property
    def sizes(self) -> dict[str, int]:
        """Language -> number of documents."""
        found: Counter[str] = Counter()
        for part in self.benchmark.parts:
            found.update(part.looked.survey.languages)
        return dict(found)

    @property
    def all_known(self) -> bool:
        """Whether every document of the collection has a language."""
        return all("" not in part.looked.survey.languages for part in self.benchmark.parts)


class Look(NamedTuple):
    """Attributes:
    bias: JSON object; None where it was not asked for.
    foreign: a warning, where the run is of other documents.
    """

    bias: dict[str, Any] | None
    foreign: str | None


def look_at_run(
    name: str,
    file: Path,
    topics: "Topics",
    languages: Languages,
    *,
    cutoff: int,
    target: str | None,
    similarity: "Callable[[set[str]], Similarity | None]" = lambda _: None,
) -> Look:
    """How a run treats languages.

    Args:
        cutoff: hits a query that are looked at.
        target: see `language_bias`; None looks only whether it is a run of this collection.
        similarity: makes what `language_bias` takes as such, for these docids; None where it cannot.
    """
    from mimo_plugin.evaluation.doc_languages import documents_of
    from mimo_plugin.evaluation.language_bias import language_bias
    from mimo_plugin.evaluation.language_bias_json import as_json
    from mimo_plugin.evaluation.run_reader import read_run

    run = read_run(file, name)
    needed = documents_of(run, topics, cutoff)
    known = languages(needed)
    relevant = {
        docid.decode() for judged in topics.judged for docid in judged.docids[judged.relevance > 0].tolist()
    }
    unknown = sorted(needed - known.keys() - relevant)
    foreign = None
    if unknown and languages.all_known:
        shown = ", ".join(unknown[:_NAMED]) + (", ..." if len(unknown) > _NAMED else "")
        foreign = (
            f"run {name!r} was made from another index than this one: {len(unknown):,} of the documents "
            f"among its first {cutoff} are not in the collection ({shown})"
        )
    if target is None or foreign:
        return Look(None, foreign)
    bias = language_bias(
        run,
        topics,
        known,
        k=cutoff,
        target=target,
        collection=languages.sizes,
        similarity=similarity(needed),
    )
    return Look(as_json(bias), None)
