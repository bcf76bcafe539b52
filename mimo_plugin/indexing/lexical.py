"""BM25 as a baseline: documents of collections, indexed by Lucene, and a run of topics against them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mimo_plugin.collections.dataset import StreamedDocs
from mimo_plugin.collections.records import Doc
from mimo_plugin.collections.survey import Survey, survey
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import Problems, UsageError
from mimo_plugin.evaluation.ir_metadata import run_header
from mimo_plugin.evaluation.options import Analyzers
from mimo_plugin.evaluation.runs import write_run
from mimo_plugin.indexing.encode import open_pool
from mimo_plugin.indexing.search import (
    Hits,
    Searched,
    check_topics,
    own_first_warning,
    read_topics,
    without_query,
)
from mimo_plugin.indexing.settings import Bm25Options, EncodeOptions
from mimo_plugin.pyserini.bm25 import BM25_INDEXES, K1, B, index_bm25, search_bm25


def bm25_to_run(
    collections: Sequence[str],
    output: Path,
    options: Bm25Options | None = None,
    topics: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> Searched:
    """Indexes collections with Lucene, searches queries with BM25, and writes a TREC run.

    Args:
        collections: whose documents are indexed, several as one pool.
        topics: collections or files with the queries; () is those of `collections`.
        metadata: of an ir_metadata header, see `run_header`; None writes none.

    Raises: as `index_bm25` and `load`, and
        UsageError: a language has no documents; or its analyzer is asked for and there are several.
    """
    options = options or Bm25Options()
    topics = topics or collections
    problems = Problems()
    with problems.collect():
        pool = open_pool(collections, EncodeOptions(fields=options.fields, pooled=options.pooled))
    if options.index is not None:
        with problems.collect():
            Artifact(options.index, BM25_INDEXES).check_output()
    check_topics(topics, options, output, problems)
    asking = options.load(topics, pool.prefixes)
    read = read_topics(asking)
    languages: dict[str, bool] = {}

    def chosen() -> Iterator[Doc]:
        for doc in pool.docs_iter():
            if languages.setdefault(doc.lang, doc.lang in options.languages or not options.lang):
                yield doc

    documents = StreamedDocs(chosen)
    with problems.collect():
        found = survey(documents, duplicates=options.duplicates, progress=options.progress)
    problems.extend(options.unknown_languages(languages, "the collection"), UsageError)
    problems.raise_any()
    language = _analyzed(found, options)
    own_first = without = 0
    with ExitStack() as stack:
        directory = options.index
        if directory is None:
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="mimo-bm25-"))) / "index"
        built = index_bm25(
            documents,
            directory,
            language=language,
            resume=options.resume,
            surveyed=found,
            threads=options.threads,
            progress=options.progress,
        )
        counter = stack.enter_context(
            bar(total=len(read.queries), what="searching", unit="queries", enabled=options.progress)
        )

        def hits() -> Iterator[Hits]:
            nonlocal own_first, without
            for one in search_bm25(
                directory,
                read.queries,
                # One more, as the query itself may be among the hits.
                hits=options.hits + options.remove_query,
                threads=options.threads,
                advance=counter.update,
            ):
                own_first += one[0] in one[1][:1]
                without += not one[1]
                yield without_query(Hits(*one), options.hits) if options.remove_query else Hits(*one)

        header = ""
        if metadata is not None:
            step = {"name": "bm25", "k1": K1, "b": B, "analyzer": built.manifest.plan.analyzer}
            header = run_header(options.tag, [{**step, "hits": options.hits}], metadata, topics)
        lines = write_run(output, hits(), options.tag, header)
    warnings = read.warnings()
    if not options.remove_query:
        warnings += own_first_warning(own_first, len(read.queries), asking)
    if without:
        warnings.append(f"{without} queries share no term with a document, and are not in the run")
    if built.manifest.note:
        warnings.append(built.manifest.note)
    return Searched(len(read.queries), lines, tuple(warnings))


def _analyzed(found: Survey, options: Bm25Options) -> str | None:
    """The language whose analyzer is used; None is the plain analysis."""
    if options.analyzers is Analyzers.PLAIN:
        return None
    if len(found.languages) > 1 or "" in found.languages:
        names = ", ".join(lang or "unknown" for lang in found.languages)
        raise UsageError(
            f"--analyzers language: the documents' languages are {names}, expected one: use plain, or choose "
            "one with --lang"
        )
    return next(iter(found.languages))
