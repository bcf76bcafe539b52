"""What a benchmark is searched in: one mixed index, or one of each language; and the topics of all of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.collections.survey import copies_text
from mimo_plugin.data.identity import collection_identity, identity_key
from mimo_plugin.errors import DataError, Findings
from mimo_plugin.reproduction.looking import Looked, look

if TYPE_CHECKING:
    from mimo_plugin.benchmarks.schema import BenchmarkConfig, TopicOptions


@dataclass(frozen=True)
class Part:
    """Documents that go into one index, and the queries that are searched there.

    Attributes:
        name: of its directories.
        specs: its collections.
        language: of all its documents; None where they have several.
        pool: an ir_datasets dataset of `Doc`, `Query` and qrels, under the ids of the whole benchmark.
        prefixes: see `pool_prefixes`; None where ids are the collection's own.
        looked: what a pass over its documents found.
        key: names the collections, and what was chosen of them.
    """

    name: str
    specs: tuple[str, ...]
    language: str | None
    pool: Any
    prefixes: Mapping[str, str] | None
    looked: Looked
    key: str

    @property
    def documents(self) -> int:
        return self.looked.survey.documents

    @cached_property
    def queries(self) -> list[tuple[str, str]]:
        """(query id, text) pairs; only those with a judgment: no measure sees the others.

        Raises:
            DataError: there are none.
        """
        from mimo_plugin.searching import read_topics

        judged = {qrel.query_id for qrel in self.pool.qrels_iter()}
        queries = [query for query in read_topics(self.pool).queries if query[0] in judged]
        if not queries:
            raise DataError(
                f"{', '.join(self.specs)}: none of the queries is judged, expected judgments of some"
            )
        return queries


@dataclass(frozen=True)
class Benchmark:
    """A config and its collections, read once.

    Attributes:
        parts: what is indexed and searched, each by itself.
        pool: topics and judgments of all parts, and their documents.
        specs: its collections.
        distractors: of a subset; None where there are all documents.
        seed: of the subset.
    """

    config: "BenchmarkConfig"
    parts: tuple[Part, ...]
    pool: Any
    specs: tuple[str, ...]
    distractors: int | None
    seed: int

    @property
    def documents(self) -> int:
        return sum(part.documents for part in self.parts)

    @cached_property
    def queries_fingerprint(self) -> str:
        """SHA-256 over ids and texts of the queries of all parts."""
        digest = hashlib.sha256()
        for part in self.parts:
            for query_id, text in part.queries:
                digest.update(
                    f"{len(query_id)} {len(text)} {query_id}{text}\n".encode("utf-8", "surrogatepass")
                )
        return digest.hexdigest()

    @property
    def documents_identity(self) -> list[tuple[str, str]]:
        """The name and the fingerprint of each part's documents."""
        return [(part.name, part.looked.survey.fingerprint) for part in self.parts]

    @property
    def warnings(self) -> list[str]:
        """What a user should know of the texts, a line each."""
        documents = sum(part.looked.survey.empty for part in self.parts)
        queries = [name for part in self.parts for name, text in part.queries if not text.strip()]
        found = []
        copies = sum(part.looked.survey.copies for part in self.parts)
        if copies:
            found.append(copies_text(copies))
        if documents:
            found.append(
                f"{documents:,} documents have no text; encoders take them all the same, BM25 does not"
            )
        if queries:
            found.append(
                f"{len(queries):,} queries have no text and are searched all the same, such as {queries[0]}"
            )
        return found

    def subset(self) -> dict[str, Any] | None:
        """What a quick look left out, with the sentence that goes with every number; None for all of it."""
        if self.distractors is None:
            return None
        judged = sum(part.looked.judged for part in self.parts)
        others = f"up to {self.distractors:,} others a language" if self.distractors else "no others"
        return {
            "documents": self.documents,
            "judged": judged,
            "distractors_per_language": self.distractors,
            "seed": self.seed,
            "text": (
                f"From a subset of the collection: {judged:,} judged documents and {others} "
                f"({self.documents:,} documents, seed {self.seed}). "
                "Scores are higher than on the whole collection and do not compare with published ones."
            ),
        }


def check_collections(config: "BenchmarkConfig") -> None:
    """Checks that the collections are there, or fetches them; nothing is read.

    Raises:
        DataError: with every problem of every collection.
    """
    from mimo_plugin.benchmarks.data import check_data
    from mimo_plugin.collections import require

    check_data(config)
    source = config.topics.source
    findings = Findings()
    specs = tuple(config.chosen_collections.values())
    findings.attempt(partial(require, docs=True, queries=source is None, qrels=True), specs)
    if source is not None:
        findings.attempt(partial(require, queries=True), [source])
    findings.raise_any()


def open_benchmark(
    config: "BenchmarkConfig",
    cache: Path,
    *,
    distractors: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Benchmark:
    """Opens a benchmark's collections and reads their documents once, or what an earlier call noted of them.

    Args:
        cache: directory for what a pass over documents found.
        distractors: for a subset: documents without a judgment a language; None takes all documents.

    Raises:
        DataError: the collections are not as they must be, with every problem of every collection.
        UsageError: a language that they do not have.
    """
    from mimo_plugin.benchmarks.choices import Setting
    from mimo_plugin.benchmarks.data import at_hand
    from mimo_plugin.benchmarks.languages import check_languages
    from mimo_plugin.collections import pool_prefixes

    check_collections(config)
    chosen = config.chosen_collections
    specs = tuple(chosen.values())
    # Ids do not depend on which languages are chosen. What is not at hand need not be fetched for that.
    every = [spec for spec in config.all_collections.values() if spec in specs or at_hand(spec)]
    prefixes = pool_prefixes(every) if config.pooled else None
    whole = _pool(config, specs, prefixes)
    groups: list[tuple[str, tuple[str, ...], str | None]]
    if config.setting is Setting.MULTI_MONOLINGUAL:
        groups = [(language, (spec,), language) for language, spec in chosen.items()]
    else:
        groups = [("all", specs, None)]
    languages = config.languages_within
    queried = None if config.setting is Setting.CLIR else languages
    parts = []
    for name, some, language in groups:
        pool = whole if len(groups) == 1 else _pool(config, some, prefixes)
        key = _key(config, some, prefixes, distractors, seed)
        looked = look(
            pool,
            cache / f"{name}-{key}",
            doc_languages=languages,
            query_languages=queried,
            distractors=distractors,
            seed=seed,
            progress=progress,
        )
        parts.append(Part(name, some, language, looked.pool, prefixes, looked, key))
    if not isinstance(config.collections, dict):
        check_languages(config, {language for part in parts for language in part.looked.survey.languages})
    pool = parts[0].pool if len(parts) == 1 else whole
    return Benchmark(config, tuple(parts), pool, specs, distractors, seed)


def _pool(config: "BenchmarkConfig", specs: Sequence[str], prefixes: Mapping[str, str] | None) -> Any:
    from mimo_plugin.benchmarks.choices import Gain
    from mimo_plugin.collections import load_pool
    from mimo_plugin.reproduction.selection import binary

    topics = config.topics
    pool = load_pool(
        specs,
        fields=config.fields,
        prefixes=prefixes,
        shared_topics=topics.shared,
        topic_field=topics.field,
        topic_lang=topics.lang,
        topic_source=topics.source,
    )
    return pool if config.gain is Gain.GRADED else binary(pool)


def _topics_identity(topics: "TopicOptions") -> dict[str, Any]:
    """Nothing of a source where there is none: what earlier versions noted stays valid."""
    found = topics.model_dump(mode="json", exclude={"source"})
    return found | ({"source": collection_identity(topics.source)} if topics.source else {})


def _key(
    config: "BenchmarkConfig",
    specs: Sequence[str],
    prefixes: Mapping[str, str] | None,
    distractors: int | None,
    seed: int,
) -> str:
    """Names all that decides what a pass over the documents finds."""
    return identity_key(
        {
            "collections": [collection_identity(spec) for spec in specs],
            "prefixes": prefixes and sorted(prefixes.values()),
            "fields": config.fields,
            "topics": _topics_identity(config.topics),
            "languages": sorted(config.languages_within or ()),
            "distractors": distractors,
            "seed": seed if distractors is not None else None,
        }
    )
