"""Language bias of a run, as `results.json` has it. What is None is in `skipped`, with the reason."""

from collections.abc import Mapping

from pydantic import model_validator

from mimo_plugin.report.shapes import Shape


class Peer(Shape):
    """sensitive: topics whose PEER depends on the order of what was found, out of `topics`."""

    mean: float | None
    sensitive: int
    topics: int
    per_language: Mapping[str, float | None] = {}


class RankCorrelation(Shape):
    """MRC@k, times 100. missing: topics without a hit. unscored: share of compared documents without a
    score."""

    mean: float | None
    per_language: Mapping[str, float | None]
    per_pair: tuple[tuple[str, str, float | None], ...]
    topics: int
    missing: int
    unscored: float | None


class Attention(Shape):
    """AWRF. target: what the attention should be distributed like."""

    mean: float | None
    per_language: Mapping[str, float | None]
    target: str
    attention: str
    queries: int


class LanguageMix(Shape):
    """shares: (query languages, document languages), rows add up to 1."""

    query_languages: tuple[str, ...]
    doc_languages: tuple[str, ...]
    shares: tuple[tuple[float | None, ...], ...]
    own: float | None
    entropy: float | None
    queries: int
    without_hits: int

    @model_validator(mode="after")
    def _is_a_matrix(self) -> "LanguageMix":
        rows, columns = len(self.query_languages), len(self.doc_languages)
        found = [len(row) for row in self.shares]
        if found != [columns] * rows:
            raise ValueError(f"shares have rows of {found} values, expected {rows} rows of {columns}")
        return self


class Preference(Shape):
    mean: float | None
    per_language: Mapping[str, float | None]
    queries: int
    left_out: int


class LanguageGap(Shape):
    same: float | None
    other: float | None
    gap: float | None
    queries: int


class Gap(Shape):
    """Quality for the relevant documents in the query's language, for the others, and the difference."""

    measure: str
    same: float | None
    other: float | None
    gap: float | None
    per_language: Mapping[str, LanguageGap]
    queries: int
    left_out: int


class LanguageBias(Shape):
    cutoff: int
    peer: Peer | None
    peer_raw: Peer | None
    mrc: RankCorrelation | None
    awrf: Attention | None
    language_mix: LanguageMix | None
    same_language_preference: Preference | None
    cross_lingual_gap: Gap | None
    skipped: Mapping[str, str]
    peer_at: Mapping[int, Peer] = {}
    mrc_at: Mapping[int, RankCorrelation] = {}
