"""BM25 with Pyserini's Lucene: one index of a collection or a mixed pool, plain or for one language."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mimo_plugin.collections.survey import Survey, survey
from mimo_plugin.core.artifact import Artifact, FileRecord, Kind, Manifest, Record, differences
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.pyserini.java import import_pyserini

if TYPE_CHECKING:
    import numpy as np

# Unicode word boundaries and lower case, without a language's stemming and stop words.
_PLAIN = ("-stemmer", "none", "-keepStopwords")
_ENGLISH = "io.anserini.analysis.DefaultEnglishAnalyzer"

# Languages that Pyserini's searcher splits at white space. Anserini's indexer does so for Swahili only. It
# stems the others as English without -pretokenized, which its CIRAL and MIRACL (Yoruba) indexes use.
_WHITESPACE = "org.apache.lucene.analysis.core.WhitespaceAnalyzer"
_AT_WHITESPACE = ("ha", "so", "sw", "yo")
_PRETOKENIZED = ("ha", "so", "yo")


@dataclass(frozen=True)
class Analysis:
    """How texts become terms.

    Attributes:
        language: Pyserini's language code, as for MIRACL and Mr. TyDi; None is the plain analysis.
        analyzer: name of the Java class.
        note: tells the user where the plain analysis takes a language's place.
    """

    language: str | None
    analyzer: str
    note: str = ""

    @property
    def index_arguments(self) -> list[str]:
        """Arguments of Anserini's indexer."""
        if self.language is None:
            return list(_PLAIN)
        split = ["-pretokenized"] if self.language in _PRETOKENIZED else []
        return ["-language", self.language, *split]

    def apply(self, searcher: Any) -> str:
        """Sets the analysis of a `LuceneSearcher`; returns the name of its analyzer class."""
        if self.language is None:
            from pyserini.analysis import get_lucene_analyzer

            searcher.set_analyzer(get_lucene_analyzer(stemming=False, stopwords=False))
        elif self.language != "en":
            searcher.set_language(self.language)
        return str(searcher.object.get_analyzer().getClass().getName())


def analysis_of(language: str | None) -> Analysis:
    """The analysis of a language; `pt_BR` is `pt`. A language without an analyzer gets the plain analysis.

    Anserini's table of analyzers differs between releases (Korean: bigrams, later words).
    """
    if language is None:
        return Analysis(None, _ENGLISH)
    code = re.split(r"[-_]", language.lower())[0]
    if code == "en":
        return Analysis(code, _ENGLISH)
    if code in _AT_WHITESPACE:
        return Analysis(code, _WHITESPACE)
    import_pyserini()
    from jnius import autoclass

    analyzer = autoclass("io.anserini.analysis.AnalyzerMap").analyzerMap.get(code)
    if analyzer is None:
        note = (
            f"Anserini has no analyzer for {language!r}: words in lower case, without stemming, were indexed"
        )
        return Analysis(None, _ENGLISH, note)
    return Analysis(code, str(analyzer))


def versions() -> dict[str, str]:
    """The releases of Pyserini, Anserini and Lucene in use."""
    from importlib.metadata import version

    import_pyserini()
    from jnius import autoclass

    properties = autoclass("java.util.Properties")()
    stream = autoclass("java.lang.ClassLoader").getSystemResourceAsStream(
        "META-INF/maven/io.anserini/anserini/pom.properties"
    )
    if stream is not None:
        properties.load(stream)
        stream.close()
    return {
        "pyserini": version("pyserini"),
        "anserini": str(properties.getProperty("version", "unknown")),
        "lucene": str(autoclass("org.apache.lucene.util.Version").LATEST.toString()),
    }


PLAN = "plan.json"
LUCENE_FILES = re.compile(r"_[\w-]+\.\w+|(pending_)?segments_\w+|write\.lock")


def lucene_files(directory: Path) -> dict[str, FileRecord]:
    """The records of a Lucene index's files, by name."""
    names = sorted(path.name for path in directory.iterdir())
    return {
        name: FileRecord.of(directory / name)
        for name in names
        if LUCENE_FILES.fullmatch(name) and name != "write.lock"
    }


class Bm25Plan(Record):
    """Everything that decides the index; see `Survey` and `Analysis`. texts: whether it keeps the texts."""

    collection_fingerprint: str
    documents: int
    language: str | None
    analyzer: str
    texts: bool = False


class Bm25Manifest(Manifest):
    """Attributes:
    indexed: number of documents in Lucene, which leaves out those without text.
    languages: language -> number of documents.
    note: see `Analysis`.
    versions: of Pyserini, Anserini and Lucene.
    """

    format: Literal["mimo-bm25-index"] = "mimo-bm25-index"
    format_version: Literal[1] = 1
    plan: Bm25Plan
    indexed: int
    languages: dict[str, int]
    note: str
    versions: dict[str, str]


BM25_INDEXES = Kind(
    Bm25Manifest,
    formats=frozenset({"mimo-bm25-index"}),
    noun="a BM25 index",
    command="mimo bm25",
    names=LUCENE_FILES,
    mark=PLAN,
    option="--index",
    again="remove the directory and build it again",
)


_DOCUMENTS = 1000
# Anserini leaves out texts of these characters alone.
BLANK = "".join(map(chr, range(33)))


@dataclass(frozen=True)
class BuiltBm25:
    """A finished index. already: it was complete before the call."""

    manifest: Bm25Manifest
    already: bool


def index_bm25(
    collection: Any,
    directory: Path,
    *,
    language: str | None = None,
    texts: bool = False,
    resume: bool = True,
    surveyed: Survey | None = None,
    threads: int = 2,
    progress: bool | None = None,
) -> BuiltBm25:
    """Writes a Lucene index, which Pyserini can search, and last its `manifest.json`.

    A finished index of the same documents and analysis stays as it is; an interrupted build starts over.

    Args:
        collection: an ir_datasets dataset of `Doc`s.
        language: of the documents, for Pyserini's analyzer on MIRACL and Mr. TyDi. None, or a language
            without an analyzer, gets Unicode word boundaries and lower case, which suit a mixed pool.
        texts: keep the texts, as Pyserini's `LuceneSearcher.doc` and its server need them; an index that has
            them also serves where they are not wanted.
        resume: False builds again, even where another index lies.
        surveyed: the survey of the collection; None makes one.

    Raises:
        ArtifactError: the directory holds something else, or an index made otherwise; another process writes
            to it; Lucene did not take every document.
        DataError: there are no documents, or docids are repeated.
        EnvironmentProblem: no usable Java or Pyserini; the file system refuses.
    """
    place = Artifact(directory, BM25_INDEXES)
    place.check_output()
    analysis = analysis_of(language)
    found = surveyed or survey(collection, progress=progress)
    plan = Bm25Plan(
        collection_fingerprint=found.fingerprint,
        documents=found.documents,
        language=analysis.language,
        analyzer=analysis.analyzer,
        texts=texts,
    )
    with place.held():
        manifest = place.finished() if resume else None
        if manifest is not None:
            more = {"texts"} if manifest.plan.texts else ()
            place.refuse(list(differences(plan, manifest.plan, ignoring=more).values()))
            return BuiltBm25(manifest, already=True)
        place.start_over()
        place.begin(plan.model_dump_json(indent=2))
        try:
            arguments = [*analysis.index_arguments, *(["-storeRaw"] if texts else [])]
            indexed = _index(
                found.distinct(collection), directory, arguments, found.documents, threads, progress
            )
        except BaseException:
            # Lucene commits when it closes: the partial index must not stay.
            place.start_over()
            raise
        manifest = Bm25Manifest(
            plan=plan,
            indexed=indexed,
            languages=found.languages,
            note=analysis.note,
            versions=versions(),
            files=lucene_files(directory),
        )
        place.seal(manifest)
    return BuiltBm25(manifest, already=False)


def _index(
    collection: Any,
    directory: Path,
    arguments: Sequence[str],
    documents: int,
    threads: int,
    progress: bool | None,
) -> int:
    """Returns the number of documents in Lucene. arguments: of Anserini's indexer."""
    import_pyserini()
    from jnius import autoclass
    from pyserini.index.lucene import LuceneIndexer
    from pyserini.search.lucene import LuceneSearcher

    # Silences the indexer's log of its settings.
    level = autoclass("org.apache.logging.log4j.Level").WARN
    autoclass("org.apache.logging.log4j.core.config.Configurator").setLevel("io.anserini.index", level)
    # The JVM's working directory is that of its start.
    place = str(directory.absolute())
    indexer = LuceneIndexer(args=["-index", place, *arguments], threads=threads)
    docs = iter(
        bar(collection.docs_iter(), total=documents, what="BM25 indexing", unit="docs", enabled=progress)
    )
    count = blank = 0
    try:
        while batch := [{"id": doc.doc_id, "contents": doc.text} for doc in islice(docs, _DOCUMENTS)]:
            indexer.add_batch_dict(batch)
            count += len(batch)
            blank += sum(not document["contents"].strip(BLANK) for document in batch)
    finally:
        # Only closing frees Lucene's lock.
        indexer.close()
    if count != documents:
        raise ArtifactError("the collection has changed since it was surveyed: run the command again")
    searcher = LuceneSearcher(place)
    indexed = int(searcher.num_docs)
    searcher.close()
    if indexed != documents - blank:
        raise ArtifactError(
            f"Lucene took {indexed} of {documents - blank} documents with text: see its messages above"
        )
    return indexed


# Anserini's defaults for passages, which Pyserini uses for MIRACL and Mr. TyDi.
K1, B = 0.9, 0.4

_QUERIES = 1000


def search_bm25(
    directory: Path,
    queries: list[tuple[str, str]],
    *,
    hits: int,
    k1: float = K1,
    b: float = B,
    threads: int = 2,
    advance: Callable[[int], object] | None = None,
) -> Iterator[tuple[str, list[str], "np.ndarray"]]:
    """Yields (query id, docids, BM25 scores float32) of one query at a time, in the queries' order.

    Args:
        directory: an index that `index_bm25` wrote, whose analysis the queries get.
        queries: (query id, text) pairs.
        hits: maximum number of documents per query.
        advance: called with the number of queries done since the last call.

    Raises:
        ArtifactError: the directory is no finished index, or this Pyserini analyses queries in another way.
    """
    manifest = Artifact(directory, BM25_INDEXES).verify()
    import_pyserini()
    import numpy as np
    from pyserini.search.lucene import LuceneSearcher

    searcher = LuceneSearcher(str(directory.absolute()))
    try:
        plan = manifest.plan
        analyzer = Analysis(plan.language, plan.analyzer).apply(searcher)
        if analyzer != plan.analyzer:
            raise ArtifactError(
                f"{directory} was made with {plan.analyzer} (Pyserini {manifest.versions['pyserini']}), "
                f"Pyserini {versions()['pyserini']} analyses queries with {analyzer}: build the index again"
            )
        searcher.set_bm25(k1, b)
        pending = iter(queries)
        while batch := list(islice(pending, _QUERIES)):
            ids = [query_id for query_id, _ in batch]
            found = searcher.batch_search([text for _, text in batch], ids, k=hits, threads=threads)
            for query_id in ids:
                results = found.get(query_id, [])
                scores = np.array([hit.score for hit in results], dtype=np.float32)
                yield query_id, [str(hit.docid) for hit in results], scores
            if advance is not None:
                advance(len(batch))
    finally:
        searcher.close()
