"""What a config chooses by name."""

from enum import StrEnum


class Setting(StrEnum):
    """What is searched with what.

    MULTI_MONOLINGUAL: each language's queries in an index of its own. MLIR: queries in one or several
    languages in one mixed index; a document is judged whatever its language. CLIR: queries in one language
    in an index of others. MIXED_MONOLINGUAL: a mixed index, but documents are judged in the query's own
    language only.
    """

    MULTI_MONOLINGUAL = "multi-monolingual"
    MLIR = "mlir"
    CLIR = "clir"
    MIXED_MONOLINGUAL = "mixed-monolingual"


class Gain(StrEnum):
    """What a judgment counts: its grade, or 1 for every document that is relevant at all."""

    GRADED = "graded"
    BINARY = "binary"


class Analyzers(StrEnum):
    """BM25's analysis of text: that of each language, as Pyserini has it, or one for all of them."""

    LANGUAGE = "language"
    PLAIN = "plain"
