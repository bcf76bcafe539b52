"""Topics against an index, or several, to a run."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mimo_plugin.collections.dataset import collection
from mimo_plugin.collections.folder import FOLDER_PREFIX
from mimo_plugin.collections.loading import HUB_PREFIX, require
from mimo_plugin.collections.pool import is_file, load
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, MimoError, Problems, UsageError
from mimo_plugin.core.files import check_place
from mimo_plugin.encoder.encoder import Encoder, EncoderOptions, NotFinite
from mimo_plugin.encoder.prompts import former_query_prompt
from mimo_plugin.evaluation.runs import Run, ranking, trec_order, write_run
from mimo_plugin.evaluation.topics import own_warning
from mimo_plugin.evaluation.trained_on import write_run_record
from mimo_plugin.indexing.encode import check_checkpoint, load_encoder
from mimo_plugin.indexing.nearest import Found, Nearest, Searchable, searching_thread
from mimo_plugin.indexing.open import Index, check_encoder, find_indexes, shared_prefixes
from mimo_plugin.indexing.settings import SearchOptions

logger = logging.getLogger(__name__)

# Queries searched together. FAISS multiplies matrices, several times as fast as query by query, only where
# there are enough of them: from 1.15 on 128,000 / dimension.
QUERIES_AT_ONCE = 1024


def search(
    index: Index | Path | str | Sequence[Index | Path | str],
    topics: Any,
    options: SearchOptions | None = None,
    encoder_options: EncoderOptions | None = None,
    **changes: Any,
) -> Run:
    """Searches queries in an index, or in several as if they were one.

    Where the encoder options say nothing, pooling, normalisation, dimension and prompts are the index's own.
    Warnings are logged.

    Args:
        index: opened, or the directory of one; several must be of the same encoder.
        topics: what `load` and `collection` give, or what `collection` takes: a text or several, whose ids
            become "0", "1", ..., or query id -> text. Of ids of collections the query ids become `lang:id`
            exactly when the index has pooled ids.
        encoder_options: how the query encoder is loaded.
        changes: fields of `SearchOptions`, such as hits=1000, in place of those of `options`.

    Raises:
        ArtifactError: an index is damaged, another encoder's, or does not go with the others.
        DataError: the topics are not as they must be.
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
    """Attributes:
    queries: number of queries.
    lines: lines of the run.
    warnings: what a user should know.
    """

    queries: int
    lines: int
    warnings: tuple[str, ...]


def search_to_run(
    index: Index | Path | Sequence[Path],
    topics: Sequence[str],
    output: Path,
    options: SearchOptions | None = None,
    encoder_options: EncoderOptions | None = None,
) -> Searched:
    """As `search`, and writes a TREC run query by query: memory does not grow with the number of queries.

    Args:
        topics: ids of collections.
    """
    options = options or SearchOptions()
    asked = _Search(index, topics, options, encoder_options, output)
    lines = write_run(output, asked.hits(), options.tag)
    record = write_run_record(output, asked.encoder.name, asked.encoder.fingerprint)
    return Searched(len(asked.queries), lines, (*asked.warnings(), *record))


def _specs(topics: Any) -> tuple[str, ...]:
    """The collections that topics name; nothing where they are something else."""
    names = (topics,) if isinstance(topics, str) else topics
    named = isinstance(names, Sequence) and all(map(_is_collection, names))
    return tuple(names) if named else ()


def _is_collection(name: str) -> bool:
    import ir_datasets

    prefixes = (FOLDER_PREFIX, HUB_PREFIX)
    known = "/" in name or name in ir_datasets.registry or is_file(name)
    return name.startswith(prefixes) or (name.split() == [name] and known)


class _Search:
    """One search. Everything that can be checked without the encoder is checked before it is loaded.

    Args:
        specs: ids of collections, where there is no `pool`.
        output: the file to write, if any.
    """

    def __init__(
        self,
        index: Index | Path | str | Sequence[Index | Path | str],
        specs: Sequence[str],
        options: SearchOptions,
        encoder_options: EncoderOptions | None,
        output: Path | None = None,
        pool: Any = None,
    ) -> None:
        self._options = options
        problems = Problems()
        with problems.collect():
            places = [index] if isinstance(index, Index | Path | str) else index
            self._indexes = find_indexes(places, options.search_parameters)
            check_checkpoint(options.encoder or self._indexes[0].manifest.plan.encoder)
        with problems.collect():
            require(specs, queries=True)
        if output is not None:
            with problems.collect():
                check_place(output)
        if options.lang and not any(map(is_file, specs)):
            problems.add("--lang is the language of a file of topics, and none was given", UsageError)
        problems.raise_any()
        self._pool = self._load(specs) if pool is None else pool
        self._read = read_topics(self._pool)
        for opened in self._indexes:
            # A damaged index shows before an encoder is loaded.
            _ = opened.faiss
        self.encoder = _load_encoder(self._indexes, options, encoder_options)
        self._documents = sum(len(one) for one in self._indexes)
        self._depth = min(options.hits, self._documents)
        # One more where the query itself may be among them.
        self._reach = min(self._depth + options.remove_query, self._documents)
        self._short = self._own_first = 0
        self._cut: list[str] = []

    def hits(self) -> Iterator["Hits"]:
        """The hits of one query after the other."""
        total = len(self.queries)
        with bar(total=total, what="searching", unit="queries", enabled=self._options.progress) as counter:
            for hits in find_hits(
                self._indexes,
                self.encoder,
                self.queries,
                hits=self._reach,
                advance=counter.update,
                cut=self._cut.append,
            ):
                self._own_first += hits.query_id in hits.docids[:1]
                self._short += len(hits.docids) < self._reach
                yield _without_query(hits, self._depth) if self._options.remove_query else hits

    def warnings(self) -> list[str]:
        """What a user should know, once all hits have been taken."""
        options, warnings, total = self._options, [], len(self.queries)
        if empty := self._read.empty:
            shown = ", ".join(empty[:5])
            warnings.append(f"{len(empty)} queries have no text and were searched all the same: {shown}")
        if self._read.copies:
            warnings.append(f"{self._read.copies} queries were there once more, and were searched once")
        own = [] if options.remove_query else own_warning(self._own_first, total)
        if own and not _judged_own(self._pool):
            warnings += own
        if options.hits > self._depth:
            count = len(self._indexes)
            holds = "the index holds" if count == 1 else f"the {count} indexes hold"
            warnings.append(f"--hits {options.hits}: {holds} {self._depth} documents")
        if self._short:
            warnings.append(
                f"{self._short} queries got fewer than {self._reach} hits from this approximate index: "
                "search more of it with --search-parameters, e.g. nprobe=64"
            )
        return warnings + cut_warning(self._cut)

    @property
    def queries(self) -> list[tuple[str, str]]:
        """(query id, text) pairs."""
        return self._read.queries

    def _load(self, specs: Sequence[str]) -> Any:
        options, prefixes = self._options, shared_prefixes(self._indexes)
        return load(
            *specs,
            pooled=prefixes is not None,
            prefixes=prefixes,
            shared_topics=options.shared_topics,
            topic_field=options.topic_field,
            topic_lang=options.topic_lang,
            lang=options.lang,
            duplicates=options.duplicates,
        )


def cut_warning(cut: Sequence[str]) -> list[str]:
    """What to say of queries whose last hits are an arbitrary choice among documents of equal score."""
    if not cut:
        return []
    return [
        f"{len(cut):,} queries ({cut[0]}{', ...' if len(cut) > 1 else ''}) have more documents of equal "
        "score at the last hit than this approximate index gives: which of them are in the run is not in "
        "trec_eval's order; a Flat index decides by docid"
    ]


def _without_query(hits: "Hits", depth: int) -> "Hits":
    """The best hits, `depth` at most, that are not the query itself."""
    docids = np.array([docid.encode() for docid in hits.docids], dtype=np.bytes_)
    order = [at for at in trec_order(docids, hits.scores).tolist() if hits.docids[at] != hits.query_id][
        :depth
    ]
    return Hits(hits.query_id, [hits.docids[at] for at in order], hits.scores[order])


def _judged_own(pool: Any) -> bool:
    """Whether the judgments know documents with the ids of their queries as relevant: then they are meant."""
    try:
        return (
            pool is not None
            and pool.has_qrels()
            and any(qrel.query_id == qrel.doc_id and qrel.relevance > 0 for qrel in pool.qrels_iter())
        )
    except MimoError:
        return False


def _load_encoder(indexes: Sequence[Index], options: SearchOptions, given: EncoderOptions | None) -> Encoder:
    index, plan = indexes[0], indexes[0].manifest.plan
    own = given is None and options.encoder is None
    given = given or EncoderOptions()
    # Another encoder than the index's has prompts of its own.
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
        # An index of the time before its manifest said the prompts was made without the known ones.
        known_prompts=given.known_prompts and not (same and plan.encoder and query_prompt is None),
    )
    checkpoint = options.encoder or (index.encoder if own else None) or plan.encoder
    if not checkpoint:
        raise UsageError(
            f"{index.directory} does not say which encoder made its vectors: name the one for the queries "
            "with --encoder"
        )
    encoder = load_encoder(checkpoint, as_indexed)
    check_encoder(index, encoder, allow_other=options.allow_other_encoder)
    if same and plan.encoder and query_prompt is None and encoder is not checkpoint:
        encoder.prompts = encoder.prompts._replace(query=former_query_prompt(encoder.model))
    if own:
        index.encoder = encoder
    return encoder


def _query_prompt(indexes: Sequence[Index]) -> str | None:
    """What the indexes' manifests say is put before queries; None where they do not say it."""
    prompts = (index.manifest.plan.query_prompt for index in indexes)
    found = {prompt for prompt in prompts if prompt is not None}
    if len(found) > 1:
        raise UsageError(
            f"the indexes were made for different prompts before queries, {' and '.join(map(repr, found))}: "
            "say with --query-prompt which one is to be used"
        )
    return next(iter(found), None)


class ReadTopics(NamedTuple):
    """Attributes:
    queries: (query id, text) pairs.
    empty: ids of queries without text; they are searched like any other.
    copies: queries that were there once more.
    """

    queries: list[tuple[str, str]]
    empty: list[str]
    copies: int


def read_topics(collection: Any) -> ReadTopics:
    """The queries of an ir_datasets dataset of `Query`s."""
    queries = [(query.query_id, query.text) for query in collection.queries_iter()]
    if not queries:
        raise DataError("the topics hold no queries: at least one was expected")
    empty = [query_id for query_id, text in queries if not text.strip()]
    return ReadTopics(queries, empty, len(getattr(collection.queries_handler(), "copies", ())))


class Hits(NamedTuple):
    """What one query found: docids and their scores, float32, best first."""

    query_id: str
    docids: list[str]
    scores: np.ndarray


def find_hits(
    indexes: Sequence[Index],
    encoder: Encoder,
    queries: list[tuple[str, str]],
    *,
    hits: int,
    batch_size: int = QUERIES_AT_ONCE,
    advance: Callable[[int], object] | None = None,
    cut: Callable[[str], object] | None = None,
) -> Iterator[Hits]:
    """Yields the hits of one query at a time, in the queries' order.

    Args:
        indexes: are searched as one.
        hits: documents a query at most.
        batch_size: queries encoded and searched together at most.
        advance: called with the number of queries done since the last call.
        cut: called with the id of a query whose last hits are an arbitrary choice among documents of equal
            score, see `nearest.Found`.

    Raises:
        ArtifactError: two indexes hold the same docid.
        NotFinite: a query's vector holds NaN or infinity.
        UsageError: FAISS refuses the search parameters.
    """
    nearest = Nearest([Searchable(str(index.directory), index.faiss, index.docids) for index in indexes])

    def hits_of(batch: list[tuple[str, str]], found: Found) -> Iterator[Hits]:
        for (query_id, _), (docids, scores) in zip(batch, nearest.named(found), strict=True):
            yield Hits(query_id, docids, scores)
        if cut is not None:
            for (query_id, _), one in zip(batch, found.cut.tolist(), strict=True):
                if one:
                    cut(query_id)
        if advance is not None:
            advance(len(batch))

    # While FAISS searches, the hits of the batch before are looked up and written.
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
    """Batches of about the same size: a small one at the end would be searched query by query."""
    count = -(-len(queries) // most)
    for batch in range(count):
        yield queries[len(queries) * batch // count : len(queries) * (batch + 1) // count]
