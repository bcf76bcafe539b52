"""How each run treats languages, and whether it is a run of this collection at all."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.errors import DataError

if TYPE_CHECKING:
    from mimo_plugin.evaluation.fairness import Similarity
    from mimo_plugin.evaluation.language_bias import Cutoffs
    from mimo_plugin.evaluation.runs import Run
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


@dataclass(frozen=True)
class BiasOptions:
    """Attributes:
    cutoff: hits a query that are looked at.
    target: of AWRF, see `language_bias`; None looks only whether runs are of this collection.
    further: cutoffs of PEER and MRC besides.
    similarity: makes what `language_bias` takes as such, for a run and these docids; None where it cannot.
    """

    cutoff: int
    target: str | None
    further: "Cutoffs"
    similarity: "Callable[[str, Set[str]], Similarity | None]" = lambda _name, _docids: None

    @property
    def deepest(self) -> int:
        return self.further.deepest(self.cutoff)


def look_at_runs(
    files: Mapping[str, Path], topics: "Topics", languages: Languages, options: BiasOptions
) -> tuple[dict[str, Any], list[str]]:
    """How runs treat languages: name -> JSON object, and what a user should know, a line each.

    A run of another collection, or one whose documents do not all tell their language, has no object. Runs
    are read twice: the languages of all their documents are looked up in one go, and memory holds one run at
    a time.

    Args:
        files: name -> run.
    """
    from mimo_plugin.evaluation.doc_languages import documents_of
    from mimo_plugin.evaluation.run_reader import read_run

    needed: set[str] = set()
    for name, file in files.items():
        needed |= documents_of(read_run(file, name), topics, options.deepest)
    known = languages(needed) if needed else {}
    warnings: list[str] = []
    if languages.all_known:
        topics, missing = _in_collection(topics, known)
        if missing and options.target is not None:
            warnings.append(
                f"{len(missing):,} relevant documents are not in the collection ({_shown(missing)}): they "
                "count in the scores, though no run of it can find them, and not in the language bias"
            )
    found = {}
    for name, file in files.items():
        run = read_run(file, name)
        strangers = _strangers(run, topics, known, options.cutoff) if languages.all_known else []
        if strangers:
            warnings.append(
                f"run {name!r} was made from another index than this one: {len(strangers):,} of the "
                f"documents among its first {options.cutoff} are not in the collection ({_shown(strangers)})"
            )
        elif options.target is not None:
            warnings += _shallow(run, topics, min(options.deepest, languages.benchmark.documents))
            try:
                found[name] = _bias(run, topics, known, languages.sizes, options.target, options)
            except DataError as error:
                warnings.append(f"run {name!r}: language bias left out: {error}")
    return found, warnings


def _bias(
    run: "Run",
    topics: "Topics",
    known: Mapping[str, str],
    sizes: Mapping[str, int],
    target: str,
    options: BiasOptions,
) -> dict[str, Any]:
    from mimo_plugin.evaluation.doc_languages import documents_of
    from mimo_plugin.evaluation.language_bias import language_bias
    from mimo_plugin.evaluation.language_bias_json import as_json

    found = language_bias(
        run,
        topics,
        known,
        k=options.cutoff,
        target=target,
        collection=sizes,
        similarity=options.similarity(run.name, documents_of(run, topics, options.deepest)),
        further=options.further,
    )
    return as_json(found)


def _in_collection(topics: "Topics", known: Mapping[str, str]) -> tuple["Topics", list[str]]:
    """The topics without relevant documents that the collection does not have, and these."""
    missing: set[str] = set()
    judged = []
    for one in topics.judged:
        gone = [
            relevance > 0 and docid.decode() not in known
            for docid, relevance in zip(one.docids.tolist(), one.relevance.tolist(), strict=True)
        ]
        if any(gone):
            missing.update(docid.decode() for docid in one.docids[gone].tolist())
            kept = [not there for there in gone]
            one = one._replace(docids=one.docids[kept], relevance=one.relevance[kept])
        judged.append(one)
    return replace(topics, judged=tuple(judged)), sorted(missing)


def _strangers(run: "Run", topics: "Topics", known: Mapping[str, str], cutoff: int) -> list[str]:
    """Documents among the first hits of judged topics that the collection does not have."""
    rankings = (run.queries.get(query_id) for query_id in topics.query_ids)
    hits = {docid.decode() for ranking in rankings if ranking for docid in ranking.docids[:cutoff].tolist()}
    return sorted(hits - known.keys())


def _shallow(run: "Run", topics: "Topics", cutoff: int) -> Iterator[str]:
    lengths = [len(run.queries[name].docids) for name in topics.query_ids if name in run.queries]
    depth = max(lengths, default=0)
    if 0 < depth < cutoff:
        yield (
            f"run {run.name!r} has {depth} hits a query at most, fewer than the {cutoff} that the language "
            "bias looks at: search deeper, or read it as cut there"
        )


def _shown(docids: Sequence[str]) -> str:
    return ", ".join(docids[:_NAMED]) + (", ..." if len(docids) > _NAMED else "")
