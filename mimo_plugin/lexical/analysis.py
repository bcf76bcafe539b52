"""How Lucene turns texts into terms: one plain way for all languages, or the way of one language."""

import re
from dataclasses import dataclass
from typing import Any

from mimo_plugin.jvm import import_pyserini

# Unicode word boundaries and lower case, without stemming and stop words, which belong to one language each.
_PLAIN = ("-stemmer", "none", "-keepStopwords")
_ENGLISH = "io.anserini.analysis.DefaultEnglishAnalyzer"

# Languages that Pyserini's searcher splits at white space. Anserini's indexer knows that of Swahili alone and
# stems the others as English, unless it is told that the texts are split already, as in its CIRAL and MIRACL
# (Yoruba) indexes.
_WHITESPACE = "org.apache.lucene.analysis.core.WhitespaceAnalyzer"
_AT_WHITESPACE = ("ha", "so", "sw", "yo")
_TOLD_TO = ("ha", "so", "yo")


@dataclass(frozen=True)
class Analysis:
    """Attributes:
    language: the code that Pyserini is given, as for MIRACL and Mr. TyDi; None is the plain analysis.
    analyzer: name of the Java class that turns texts into terms.
    note: what a user should know of the choice; empty where it is the one asked for.
    """

    language: str | None
    analyzer: str
    note: str = ""

    @property
    def index_arguments(self) -> list[str]:
        """What Anserini's indexer is told."""
        if self.language is None:
            return list(_PLAIN)
        split = ["-pretokenized"] if self.language in _TOLD_TO else []
        return ["-language", self.language, *split]

    def apply(self, searcher: Any) -> str:
        """Makes a `LuceneSearcher` analyse queries this way; returns the name of the class that it takes."""
        if self.language is None:
            from pyserini.analysis import get_lucene_analyzer

            searcher.set_analyzer(get_lucene_analyzer(stemming=False, stopwords=False))
        elif self.language != "en":
            searcher.set_language(self.language)
        return str(searcher.object.get_analyzer().getClass().getName())


def analysis_of(language: str | None) -> Analysis:
    """The analysis of a language; `pt_BR` is `pt`. One that Anserini has no analyzer for gets the plain one,
    which its note says.

    What there is, Anserini's own table says: it differs between releases (Korean: bigrams, then words).
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
