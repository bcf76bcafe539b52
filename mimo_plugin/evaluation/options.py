"""The choices of an evaluation that options and configs name."""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum


class SignificanceTest(StrEnum):
    """The test behind the p-values of one language."""

    STUDENT = "student"
    PERMUTATION = "permutation"
    TUKEY_HSD = "tukey-hsd"


class Correction(StrEnum):
    """How p-values are corrected for the number of tests in their family."""

    HOLM = "holm"
    BONFERRONI = "bonferroni"
    BH = "bh"
    NONE = "none"


TEST_NAMES: Mapping[str, str] = {
    SignificanceTest.STUDENT: "paired t test",
    SignificanceTest.PERMUTATION: "paired randomisation test",
    SignificanceTest.TUKEY_HSD: "Tukey's HSD with topics as blocks",
}
CORRECTION_NAMES: Mapping[str, str] = {
    Correction.HOLM: "Holm",
    Correction.BONFERRONI: "Bonferroni",
    Correction.BH: "Benjamini-Hochberg",
    Correction.NONE: "none",
}


class TableFormat(StrEnum):
    """How tables are written."""

    TEXT = "text"
    MARKDOWN = "markdown"
    LATEX = "latex"


def split_names(names: str | Iterable[str]) -> list[str]:
    """The names in `"a,b c"` or in several such; never none: an empty text holds one empty name."""
    text = names if isinstance(names, str) else ",".join(names)
    return re.split(r"[,\s]+", text.strip(", \n\t"))


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
