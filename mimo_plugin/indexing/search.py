"""Topics against an index, or several, to a TREC run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mimo_plugin.collections.loading import require
from mimo_plugin.collections.pool import load_pool
from mimo_plugin.collections.records import ERROR
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Findings, MimoError, UsageError
from mimo_plugin.core.files import check_place
from mimo_plugin.encoder.encoder import Encoder, EncoderOptions, NotFinite
from mimo_plugin.encoder.prompts import former_query_prompt
from mimo_plugin.evaluation.runs import trec_order, write_run
from mimo_plugin.evaluation.topics import often_own, own_text
from mimo_plugin.evaluation.trained_on import write_run_record
from mimo_plugin.indexing.nearest import Found, Nearest, searching_thread
from mimo_plugin.indexing.open import OpenIndex, check_encoder, open_indexes, shared_prefixes

if TYPE_CHECKING:
    import numpy as np

# Queries searched together. FAISS multiplies matrices, several times as fast as query by query, only where
# there are enough of them: from 1.15 on 128,000 / dimension.
QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)
class SearchOptions:
    """Attributes:
    hits: documents a query.
    encoder: query encoder; None is the one that made the index.
    allow_other_encoder: accept one that did not.
    tag: sixth column of the run.
    parameters: FAISS search parameters such as "nprobe=16".
    shared_topics, topic_field, topic_lang, lang, duplicates: see `load_pool`.
    remove_query: hits whose docid is the query's id are left out.
    progress: progress bars; None shows them on a terminal only.
    """

    hits: int = 100
    encoder: str | None = None
    allow_other_encoder: bool = False
    tag: str = "mimo"
    parameters: str | None = None
    shared_topics: bool = False
    topic_field: str | None = None
    topic_lang: str | None = None
    lang: Sequence[str] = ()
    duplicates: str = ERROR
    remove_query: bool = False
    progress: bool | None = None


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
    index_dirs: Path | Sequence[Path],
    topics: Sequence[str],
    output: Path,
    options: SearchOptions | None = None,
    encoder_options: EncoderOptions | None = None,
) -> Searched:
    """Searches the queries of collections in an index, or in several as if they were one; writes a TREC run.

    Where the encoder options say nothing, pooling, normalisation, dimension and prompts are the index's own.
    Query ids are `lang:id` exactly when the index has pooled ids.

    Raises:
        ArtifactError: an index is damaged, another encoder's, or does not go with the others.
        DataError: the topics are not as they must be.
    """
    from mimo_plugin.collections.pool import is_file

    options = options or SearchOptions()
    indexes = open_indexes([index_dirs] if isinstance(index_dirs, Path) else index_dirs, options.parameters)
    prefixes = shared_prefixes(indexes)
    findings = Findings()
    findings.attempt(require, topics, queries=True)
    findings.attempt(check_place, output)
    if options.lang and not any(map(is_file, topics)):
        findings.add(UsageError, ["--lang is the language of a file of topics, and none was given"])
    student = findings.complete(findings.attempt(_load_encoder, indexes, options, encoder_options))
    pool = load_pool(
        topics,
        pooled=prefixes is not None,
        prefixes=prefixes,
        shared_topics=options.shared_topics,
        topic_field=options.topic_field,
        topic_lang=options.topic_lang,
        lang=options.lang,
        duplicates=options.duplicates,
    )
    read = read_topics(pool)
    documents = sum(index.faiss.ntotal for index in indexes)
    depth = min(options.hits, documents)
    reach = min(depth + options.remove_query, documents)
    short = own_first = 0
    cut: list[str] = []

    def counted() -> Iterator[Hits]:
        nonlocal short, own_first
        for hits in search(
            indexes, student, read.queries, hits=reach, advance=counter.update, cut=cut.append
        ):
            own = hits.query_id in hits.docids
            own_first += own and hits.query_id == hits.docids[0]
            short += len(hits.docids) < reach
            yield _without_query(hits, depth) if options.remove_query else hits

    with bar(total=len(read.queries), what="searching", unit="queries", enabled=options.progress) as counter:
        lines = write_run(output, counted(), options.tag)
    warnings = []
    if read.empty:
        shown = ", ".join(read.empty[:5])
        warnings.append(f"{len(read.empty)} queries have no text and were searched all the same: {shown}")
    if read.copies:
        warnings.append(f"{read.copies} queries were there once more, and were searched once")
    if not options.remove_query and often_own(own_first, len(read.queries)) and not _judged_own(pool):
        warnings.append(own_text(own_first, len(read.queries)))
    if options.hits > depth:
        holds = "the index holds" if len(indexes) == 1 else f"the {len(indexes)} indexes hold"
        warnings.append(f"--hits {options.hits}: {holds} {depth} documents")
    if short:
        warnings.append(
            f"{short} queries got fewer than {reach} hits from this approximate index: search more of it "
            "with --search-parameters, e.g. nprobe=64"
        )
    warnings += cut_warning(cut)
    warnings += write_run_record(output, student.name, student.fingerprint)
    return Searched(len(read.queries), lines, tuple(warnings))


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
    import numpy as np

    docids = np.array([docid.encode() for docid in hits.docids], dtype=np.bytes_)
    order = [at for at in trec_order(docids, hits.scores).tolist() if hits.docids[at] != hits.query_id][
        :depth
    ]
    return Hits(hits.query_id, [hits.docids[at] for at in order], hits.scores[order])


def _judged_own(pool: Any) -> bool:
    """Whether the judgments know documents with the ids of their queries as relevant: then they are meant."""
    try:
        return pool.has_qrels() and any(
            qrel.query_id == qrel.doc_id and qrel.relevance > 0 for qrel in pool.qrels_iter()
        )
    except MimoError:
        return False


def _load_encoder(
    indexes: Sequence[OpenIndex], options: SearchOptions, given: EncoderOptions | None
) -> Encoder:
    index, plan = indexes[0], indexes[0].manifest.plan
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
    checkpoint = options.encoder or plan.encoder
    if not checkpoint:
        raise UsageError(
            f"{index.directory} does not say which encoder made its vectors: name the one for the queries "
            "with --encoder"
        )
    student = Encoder(checkpoint, as_indexed)
    check_encoder(index, student, allow_other=options.allow_other_encoder)
    if same and plan.encoder and query_prompt is None:
        student.prompts = student.prompts._replace(query=former_query_prompt(student.model))
    return student


def _query_prompt(indexes: Sequence[OpenIndex]) -> str | None:
    """What the indexes' manifests say is put before queries; None where they do not say it.

    Raises:
        UsageError: they say different things.
    """
    prompts = (index.manifest.plan.query_prompt for index in indexes)
    found = {prompt for prompt in prompts if prompt is not None}
    if len(found) > 1:
        raise UsageError(
            f"the indexes were made for different prompts before queries, {' and '.join(map(repr, found))}: "
            "say with --query-prompt which one is to be used"
        )
    return next(iter(found), None)


@dataclass(frozen=True)
class Topics:
    """Attributes:
    queries: (query id, text) pairs.
    empty: ids of queries without text; they are searched like any other.
    copies: queries that were there once more.
    """

    queries: list[tuple[str, str]]
    empty: list[str]
    copies: int = 0


def read_topics(collection: Any) -> Topics:
    """The queries of an ir_datasets dataset of `Query`s.

    Raises:
        DataError: there are none, or they are not as they must be.
    """
    queries = [(query.query_id, query.text) for query in collection.queries_iter()]
    if not queries:
        raise DataError("the topics hold no queries: at least one was expected")
    copies = len(getattr(collection.queries_handler(), "copies", ()))
    return Topics(queries, [query_id for query_id, text in queries if not text.strip()], copies)


class Hits(NamedTuple):
    """What one query found: docids and their scores, float32, best first."""

    query_id: str
    docids: list[str]
    scores: "np.ndarray"


def search(
    index: OpenIndex | Sequence[OpenIndex],
    student: Encoder,
    queries: list[tuple[str, str]],
    *,
    hits: int,
    batch_size: int = QUERIES_AT_ONCE,
    advance: Callable[[int], object] | None = None,
    cut: Callable[[str], object] | None = None,
) -> Iterator[Hits]:
    """Yields the hits of one query at a time, in the queries' order.

    Args:
        index: one, or several that are searched as one.
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
    nearest = Nearest([index] if isinstance(index, OpenIndex) else index)

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
                vectors = student.encode_queries([text for _, text in batch])
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
