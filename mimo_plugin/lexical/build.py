"""A Lucene index of a collection's documents."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mimo_plugin.collections.survey import Survey, survey
from mimo_plugin.errors import ArtifactError
from mimo_plugin.jvm import import_pyserini
from mimo_plugin.lexical.analysis import Analysis, analysis_of, versions
from mimo_plugin.lexical.directory import (
    Bm25Manifest,
    Bm25Plan,
    begin,
    clear,
    finish,
    finished,
    lucene_files,
    refuse_foreign,
)
from mimo_plugin.locking import one_writer
from mimo_plugin.progress import bar

_BATCH = 1000
# Anserini leaves out a text of nothing else.
_BLANK = "".join(map(chr, range(33)))


@dataclass(frozen=True)
class BuiltBm25:
    """Attributes:
    already: the index was there, complete, and made the same way.
    """

    manifest: Bm25Manifest
    already: bool


def index_bm25(
    collection: Any,
    directory: Path,
    *,
    language: str | None = None,
    resume: bool = True,
    surveyed: Survey | None = None,
    threads: int = 2,
    progress: bool | None = None,
) -> BuiltBm25:
    """Writes a Lucene index, which stock Pyserini can search, and last its `manifest.json`.

    A finished index of the same documents and analysis is kept as it is; a build that was cut short is begun
    again.

    Args:
        collection: an ir_datasets dataset of `Doc`s.
        language: of the documents, for the analyzer that Pyserini takes for it on MIRACL and Mr. TyDi; None,
            or one without an analyzer, gets Unicode word boundaries and lower case, which suit a mixed pool.
        resume: False builds again what is there, also where it was made otherwise.
        surveyed: what `survey` says of the collection; None reads the documents once more for it.

    Raises:
        ArtifactError: the directory holds something else, or an index made otherwise; another process writes
            there; Lucene did not take every document.
        DataError: there are no documents, or docids occur more than once.
        EnvironmentProblem: no usable Java or Pyserini; the file system refuses.
    """
    refuse_foreign(directory)
    analysis = analysis_of(language)
    found = surveyed or survey(collection, progress=progress)
    collection = found.distinct(collection)
    plan = Bm25Plan(
        collection_fingerprint=found.fingerprint,
        documents=found.documents,
        language=analysis.language,
        analyzer=analysis.analyzer,
    )
    with one_writer(directory):
        manifest = finished(directory, plan) if resume else None
        if manifest is not None:
            return BuiltBm25(manifest, already=True)
        begin(directory, plan)
        indexed = _index(collection, directory, analysis, found.documents, threads, progress)
        manifest = Bm25Manifest(
            plan=plan,
            indexed=indexed,
            languages=found.languages,
            note=analysis.note,
            versions=versions(),
            files=lucene_files(directory),
        )
        finish(directory, manifest)
    return BuiltBm25(manifest, already=False)


def _index(
    collection: Any, directory: Path, analysis: Analysis, documents: int, threads: int, progress: bool | None
) -> int:
    """The number of documents that Lucene holds then."""
    import_pyserini()
    from jnius import autoclass
    from pyserini.index.lucene import LuceneIndexer
    from pyserini.search.lucene import LuceneSearcher

    # The indexer logs its settings as it starts, between the lines of whoever called.
    level = autoclass("org.apache.logging.log4j.Level").WARN
    autoclass("org.apache.logging.log4j.core.config.Configurator").setLevel("io.anserini.index", level)
    indexer = LuceneIndexer(args=["-index", str(directory), *analysis.index_arguments], threads=threads)
    docs = iter(
        bar(collection.docs_iter(), total=documents, what="BM25 indexing", unit="docs", enabled=progress)
    )
    count = blank = 0
    try:
        while batch := [{"id": doc.doc_id, "contents": doc.text} for doc in islice(docs, _BATCH)]:
            indexer.add_batch_dict(batch)
            count += len(batch)
            blank += sum(not document["contents"].strip(_BLANK) for document in batch)
    except BaseException:
        # Only closing frees Lucene's lock, and it commits: what is there then must not look like an index.
        indexer.close()
        clear(directory)
        raise
    indexer.close()
    if count != documents:
        raise ArtifactError("the collection has changed since it was surveyed: run the command again")
    searcher = LuceneSearcher(str(directory))
    indexed = int(searcher.num_docs)
    searcher.close()
    if indexed != documents - blank:
        raise ArtifactError(
            f"Lucene took {indexed} of {documents - blank} documents with text: see its messages above"
        )
    return indexed
