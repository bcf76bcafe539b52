"""Searches topics in one index or several, and makes a run of the hits."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mimo_plugin.collections.dataset import collection
from mimo_plugin.collections.folder import FOLDER_PREFIX
from mimo_plugin.collections.loading import HUB_PREFIX, require
from mimo_plugin.collections.pool import is_file
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, MimoError, Problems, UsageError
from mimo_plugin.core.files import check_place
from mimo_plugin.encoder.encoder import Encoder, NotFinite
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.encoder.prompts import former_query_prompt
from mimo_plugin.evaluation.ir_metadata import run_header
from mimo_plugin.evaluation.runs import Run, ranking, trec_order, write_run
from mimo_plugin.evaluation.topics import own_warning
from mimo_plugin.evaluation.trained_on import write_run_record
from mimo_plugin.indexing.encode import check_checkpoint, load_encoder
from mimo_plugin.indexing.nearest import Found, Nearest, searching_thread
from mimo_plugin.indexing.open import AnyIndex, Index, check_encoder, find_indexes, shared_prefixes
from mimo_plugin.indexing.settings import SearchOptions, TopicOptions

logger = logging.getLogger(__name__)

# FAISS multiplies matrices, several times as fast as pair by pair, only for batches of enough queries.
QUERIES_AT_ONCE = 1024


def search(
    index: AnyIndex | Path | str | Sequence[AnyIndex | Path | str],
    topics: Any,
    options: SearchOptions | None = None,
    encoder_options: EncoderOptions | None = None,
    **changes: Any,
) -> Run:
    """Searches queries in an index, or in several as if they were one. Warnings are logged.

    Args:
        index: an open index, its directory, or the address of a collection of Milvus such as
            "milvus:http://head:19530#news"; several need the same encoder.
        topics: ids of collections, or the result of `load` or `collection`, or what `collection` takes: one
            text or several, with the ids "0", "1", ..., or query id -> text. The query ids of collections
            become `lang:id` where the index has pooled ids.
        encoder_options: how the query encoder is loaded; by default as for the index's documents.
        changes: fields of `SearchOptions`, such as hits=1000, in place of those of `options`.

    Raises:
        ArtifactError: an index is corrupted, has another encoder, or does not fit the others.
        DataError: the topics have faults, such as repeated ids.
    """
    from ir_datasets import Dataset

    options = replace(options or SearchOptions(), **changes)
    specs = _specs(topics)
    if not specs and not isinstance(topics, Dataset):
        topics = collection(queries=[topics] if isinstance(topics, str) else topics)
    asked = _Search(index, specs, options, encoder_options, pool=None if specs else topics)
    run = Run(options.tag, {query: ranking(docids, scores) for query, docids, scores in asked.hits()})
    for warning in asked.warnings():
        logger.warning(warning)
    return run


@dataclass(frozen=True)
class Searched:
    """The number of queries, the number of lines in the run, and warnings for the user."""

    queries: int
    lines: int
    warnings: tuple[str, ...]


def search_to_run(
    index: AnyIndex | Path | str | Sequence[Path | str],
    topics: Sequence[str],
    output: Path,
    options: SearchOptions | None = None,
    encoder_options: EncoderOptions | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Searched:
    """Searches as `search` does and writes a TREC run, in memory that does not grow with the queries.

    Args:
        topics: ids of collections.
        metadata: of an ir_metadata header, see `run_header`; None writes none.
    """
    options = options or SearchOptions()
    asked = _Search(index, topics, options, encoder_options, output)
    header = ""
    if metadata is not None:
        header = run_header(options.tag, [asked.described()], metadata, topics)
    lines = write_run(output, asked.hits(), options.tag, header)
    record = write_run_record(output, asked.encoder.name, asked.encoder.fingerprint)
    return Searched(len(asked.queries), lines, (*asked.warnings(), *record))


def _specs(topics: Any) -> tuple[str, ...]:
    """The ids of collections in `topics`; () where these are something else."""
    names = (topics,) if isinstance(topics, str) else topics
    named = isinstance(names, Sequence) and all(map(_is_collection, names))
    return tuple(names) if named else ()


def _is_collection(name: str) -> bool:
    import ir_datasets

    prefixes = (FOLDER_PREFIX, HUB_PREFIX)
    known = "/" in name or name in ir_datasets.registry or is_file(name)
    return name.startswith(prefixes) or (name.split() == [name] and known)


class _Search:
    """One search. Everything else is checked before the encoder is loaded.

    Args:
        specs: ids of collections, where there is no `pool`.
        output: the run's file, if one is written.
    """

    def __init__(
        self,
        index: AnyIndex | Path | str | Sequence[AnyIndex | Path | str],
        specs: Sequence[str],
        options: SearchOptions,
        encoder_options: EncoderOptions | None,
        output: Path | None = None,
        pool: Any = None,
    ) -> None:
        self._options = options
        problems = Problems()
        with problems.collect():
            self._indexes = find_searched(index, options)
        check_topics(specs, options, output, problems)
        prefixes = shared_prefixes(self._indexes)
        self._pool = options.load(specs, prefixes) if pool is None else pool
        self._read = read_topics(self._pool)
        self.queries = self._read.queries
        if prefixes and options.lang and not options.topic_lang and any(map(is_file, specs)):
            _check_prefixed(self.queries)
        self.encoder = open_searched(self._indexes, options, encoder_options)
        langs = options.languages
        self._documents = sum(
            sum(one.languages.get(lang, 0) for lang in langs) if langs else len(one) for one in self._indexes
        )
        self._depth = min(options.hits, self._documents)
        # One more, as the query itself may be among the hits.
        self._reach = min(self._depth + options.remove_query, self._documents)
        self._short = self._own_first = 0
        self._cut: list[str] = []

    def described(self) -> dict[str, Any]:
        """The step of the search in an ir_metadata header."""
        encoder, options, index = self.encoder, self._options, self._indexes[0]
        return {
            "name": "dense",
            "method": f"faiss.{type(index.faiss).__name__}" if isinstance(index, Index) else index.name,
            "encoder": encoder.name,
            "encoder fingerprint": encoder.fingerprint,
            "query prompt": encoder.query_prompt,
            "hits": options.hits,
            "search parameters": options.search_parameters or "",
            "document languages": options.languages or "all",
        }

    def hits(self) -> Iterator["Hits"]:
        total, count, cut = len(self.queries), self._reach, self._cut.append
        with bar(total=total, what="searching", unit="queries", enabled=self._options.progress) as counter:
            for hits in find_hits(
                self._indexes,
                self.encoder,
                self.queries,
                hits=count,
                languages=self._options.languages,
                advance=counter.update,
                cut=cut,
            ):
                self._own_first += hits.query_id in hits.docids[:1]
                self._short += len(hits.docids) < self._reach
                yield without_query(hits, self._depth) if self._options.remove_query else hits

    def warnings(self) -> list[str]:
        """Complete once all hits have been taken."""
        options, warnings = self._options, self._read.warnings()
        if not options.remove_query:
            warnings += own_first_warning(self._own_first, len(self.queries), self._pool)
        if options.hits > self._depth:
            count = len(self._indexes)
            holds = "the index holds" if count == 1 else f"the {count} indexes hold"
            within = f" in {', '.join(options.languages)}" if options.lang else ""
            warnings.append(f"--hits {options.hits}: {holds} {self._depth} documents{within}")
        if self._short:
            warnings.append(
                f"{self._short} queries got fewer than {self._reach} hits from this approximate index: "
                "search more of it with --search-parameters, e.g. nprobe=64"
            )
        return warnings + cut_warning(self._cut)


def find_searched(
    index: AnyIndex | Path | str | Sequence[AnyIndex | Path | str], options: SearchOptions
) -> list[AnyIndex]:
    """The indexes of a search; their vectors and the encoder are not read yet.

    Raises: as `find_indexes`, and
        ModelError: there is no such query encoder.
        UsageError: the indexes have no documents in a language.
    """
    places = index if isinstance(index, Sequence) and not isinstance(index, str) else [index]
    indexes = find_indexes(places, options.search_parameters)
    with Problems(UsageError) as problems:
        with problems.collect():
            check_checkpoint(options.encoder or indexes[0].plan.encoder)
        there = {lang for one in indexes for lang in one.languages}
        problems.extend(options.unknown_languages(there, "the index"))
    return indexes


def open_searched(
    indexes: Sequence[AnyIndex], options: SearchOptions, encoder_options: EncoderOptions | None
) -> Encoder:
    """Reads and checks the indexes, and returns the query encoder."""
    for opened in indexes:
        opened.open()
    return load_query_encoder(indexes, options, encoder_options)


def check_topics(
    specs: Sequence[str], options: TopicOptions, output: Path | None, problems: Problems
) -> None:
    """Checks the topics and the run's file, and raises with the problems so far."""
    with problems.collect():
        require(specs, queries=True)
    if output is not None:
        with problems.collect():
            check_place(output)
    if options.topic_lang and not options.shared_topics and not any(map(is_file, specs)):
        problems.add("--topic-lang is the language of a file of topics, and none was given", UsageError)
    problems.raise_any()


def _check_prefixed(queries: Sequence[tuple[str, str]]) -> None:
    """Raises a UsageError where `--lang` may have been meant for the topics."""
    if not any(":" in query_id for query_id, _ in queries):
        raise UsageError(
            f"ids such as {queries[0][0]} do not begin with a language, as those of the index do: say with "
            "--topic-lang which one the queries are in; --lang chooses documents"
        )


def cut_warning(cut: Sequence[str]) -> list[str]:
    """The warning about queries whose last hits are an arbitrary choice among documents of equal score."""
    if not cut:
        return []
    return [
        f"{len(cut):,} queries ({cut[0]}{', ...' if len(cut) > 1 else ''}) have more documents of equal "
        "score at the last hit than this index gives: which of them are in the run is not in trec_eval's "
        "order; a Flat index of FAISS decides by docid"
    ]


def without_query(hits: "Hits", depth: int) -> "Hits":
    """At most `depth` best hits that are not the query itself."""
    docids = np.array([docid.encode() for docid in hits.docids], dtype=np.bytes_)
    order = [at for at in trec_order(docids, hits.scores).tolist() if hits.docids[at] != hits.query_id][
        :depth
    ]
    return Hits(hits.query_id, [hits.docids[at] for at in order], hits.scores[order])


def own_first_warning(count: int, total: int, pool: Any) -> list[str]:
    """The warning about queries that are their own first hits, unless such hits are judged relevant.

    Args:
        count: of `total` queries.
    """
    own = own_warning(count, total)
    return own if own and not _judged_own(pool) else []


def _judged_own(pool: Any) -> bool:
    try:
        return (
            pool is not None
            and pool.has_qrels()
            and any(qrel.query_id == qrel.doc_id and qrel.relevance > 0 for qrel in pool.qrels_iter())
        )
    except MimoError:
        return False


def load_query_encoder(
    indexes: Sequence[AnyIndex], options: SearchOptions, given: EncoderOptions | None
) -> Encoder:
    index, plan = indexes[0], indexes[0].plan
    own = given is None and options.encoder is None
    given = given or EncoderOptions()
    # Another encoder uses its own prompts.
    same = options.encoder is None or not options.allow_other_encoder
    query_prompt = given.query_prompt
    if same and query_prompt is None:
        query_prompt = _query_prompt(indexes)
    as_indexed = replace(
        given,
        pooling=given.pooling or plan.pooling,
        normalize=plan.normalize if given.normalize is None else given.normalize,
        dimension=given.dimension or plan.truncate,
        query_prompt=query_prompt,
        document_prompt=plan.prompt if same and given.document_prompt is None else given.document_prompt,
        # Indexes without a query prompt in their manifest are older than the known prompts.
        known_prompts=given.known_prompts and not (same and plan.encoder and query_prompt is None),
    )
    checkpoint = options.encoder or (index.encoder if own else None) or plan.encoder
    if not checkpoint:
        raise UsageError(
            f"{index.name} does not say which encoder made its vectors: name the one for the queries "
            "with --encoder"
        )
    encoder = load_encoder(checkpoint, as_indexed, plan)
    check_encoder(index, encoder, allow_other=options.allow_other_encoder)
    if same and plan.encoder and query_prompt is None and encoder is not checkpoint:
        encoder.prompts = encoder.prompts._replace(query=former_query_prompt(encoder.model))
    if own:
        index.encoder = encoder
    return encoder


def _query_prompt(indexes: Sequence[AnyIndex]) -> str | None:
    """The query prompt in the indexes' manifests; None where none has it."""
    found = {index.plan.query_prompt for index in indexes} - {None}
    if len(found) > 1:
        raise UsageError(
            f"the indexes were made for different prompts before queries, {' and '.join(map(repr, found))}: "
            "say with --query-prompt which one is to be used"
        )
    return next(iter(found), None)


class ReadTopics(NamedTuple):
    """Attributes:
    queries: (query id, text) pairs.
    empty: ids of queries without text, which are searched like the others.
    copies: number of repeated queries that were left out.
    """

    queries: list[tuple[str, str]]
    empty: list[str]
    copies: int

    def warnings(self) -> list[str]:
        found = []
        if self.empty:
            shown = ", ".join(self.empty[:5])
            found.append(f"{len(self.empty)} queries have no text and were searched like the others: {shown}")
        if self.copies:
            found.append(f"{self.copies} queries were repeated, and searched once")
        return found


def read_topics(collection: Any) -> ReadTopics:
    """The queries of an ir_datasets dataset of `Query`s."""
    queries = [(query.query_id, query.text) for query in collection.queries_iter()]
    if not queries:
        raise DataError("the topics hold no queries: at least one was expected")
    empty = [query_id for query_id, text in queries if not text.strip()]
    return ReadTopics(queries, empty, len(getattr(collection.queries_handler(), "copies", ())))


class Hits(NamedTuple):
    """The hits of one query: docids and their scores, float32, best first."""

    query_id: str
    docids: list[str]
    scores: np.ndarray


def find_hits(
    indexes: Sequence[AnyIndex],
    encoder: Encoder,
    queries: list[tuple[str, str]],
    *,
    hits: int,
    languages: Sequence[str] = (),
    batch_size: int = QUERIES_AT_ONCE,
    advance: Callable[[int], object] | None = None,
    cut: Callable[[str], object] | None = None,
) -> Iterator[Hits]:
    """Yields the hits of one query at a time, in the queries' order.

    Args:
        indexes: searched as one.
        hits: maximum number of documents per query.
        languages: of the documents; () is all. At least one document is in them.
        batch_size: maximum number of queries that are encoded and searched together.
        advance: called with the number of queries done since the last call.
        cut: called with the id of each query for which `nearest.Found.cut` is true.

    Raises:
        ArtifactError: two indexes hold the same docid.
        NotFinite: a query's vector holds NaN or infinity.
        UsageError: FAISS refuses the search parameters.
    """
    nearest = Nearest(
        [
            index.searchable(languages)
            for index in indexes
            if not languages or any(map(index.languages.get, languages))
        ]
    )

    def hits_of(batch: list[tuple[str, str]], found: Found) -> Iterator[Hits]:
        for (query_id, _), (docids, scores) in zip(batch, nearest.named(found), strict=True):
            yield Hits(query_id, docids, scores)
        if cut is not None:
            for (query_id, _), one in zip(batch, found.cut.tolist(), strict=True):
                if one:
                    cut(query_id)
        if advance is not None:
            advance(len(batch))

    # While FAISS searches, the hits of the previous batch are looked up and written.
    before: tuple[list[tuple[str, str]], Found] | None = None
    with searching_thread() as thread:
        for batch in _even(queries, batch_size):
            try:
                vectors = encoder.encode_queries([text for _, text in batch])
            except NotFinite as error:
                raise NotFinite(error.position, error.name, f"query {batch[error.position][0]}") from None
            found = thread.submit(nearest.search, vectors, hits)
            if before is not None:
                yield from hits_of(*before)
            before = batch, found.result()
    if before is not None:
        yield from hits_of(*before)


def _even(queries: list[tuple[str, str]], most: int) -> Iterator[list[tuple[str, str]]]:
    """Batches of about the same size, as FAISS would search a small last one pair by pair."""
    count = -(-len(queries) // most)
    for batch in range(count):
        yield queries[len(queries) * batch // count : len(queries) * (batch + 1) // count]
