"""The records of `results.json` and of other JSON with scores: commands write them, the report reads them."""

import json
from collections.abc import Collection, Mapping
from operator import not_
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from mimo_plugin.core.config import ResultRecord, field_faults, printable
from mimo_plugin.core.errors import ArtifactError, Problems

FORMAT: Final = "mimo-reproduction"
FORMAT_VERSION: Final = 1
FILE_NAME = "results.json"
AGAIN = "make it again with `mimo reproduce`"

ByLanguage = Mapping[str, float | None]
Matrix = tuple[tuple[float | None, ...], ...]
ByPair = tuple[tuple[str, str, float | None], ...]


class ConfigResult(ResultRecord):
    """depth: hits per query. fairness_cutoff: k of the language bias. gain: None in older files."""

    name: str
    title: str
    setting: str
    note: str | None
    gain: str | None = None
    collections: tuple[str, ...]
    languages: tuple[str, ...]
    measures: tuple[str, ...]
    depth: int
    fairness_cutoff: int


class SubsetResult(ResultRecord):
    """text: a label that must accompany every number."""

    documents: int
    judged: int
    distractors_per_language: int
    seed: int
    text: str


class SystemResult(ResultRecord):
    """parts: the systems of a fusion. seconds: of each step. details: such as analyzers per language."""

    kind: str
    label: str
    encoder: str | None = None
    fingerprint: str | None = None
    documents: int | None = None
    index_bytes: int | None = None
    seconds: Mapping[str, float] = {}
    parts: tuple[str, ...] = ()
    details: Mapping[str, Any] = {}


class CountsResult(ResultRecord):
    """Topics with judgments, with a hit, without a hit; queries without judgments, not in the collection."""

    judged: int
    retrieved: int
    missing: int
    unjudged: int = 0
    unknown: int = 0


class TrainedOnResult(ResultRecord):
    """Texts of the collection in an encoder's training data."""

    documents: int
    of: int
    share: float
    training_data: str


class RunResult(ResultRecord):
    """Attributes:
    per_language: language -> measure -> value, and `queries` -> their number.
    trained_on: if known.
    unseen_languages: that the encoder was not trained on, if known.
    apart: "seen", "unseen" -> measure -> average over the languages that are; over the same ones as for the
        other runs where this encoder's training is not known and the others agree.
    """

    mean: Mapping[str, float | None]
    macro: Mapping[str, float | None]
    per_language: Mapping[str, Mapping[str, int | float | None]]
    queries: CountsResult
    trained_on: TrainedOnResult | None = Field(default=None, exclude_if=not_)
    unseen_languages: tuple[str, ...] = Field(default=(), exclude_if=not_)
    apart: Mapping[str, Mapping[str, float | None]] = Field(default={}, exclude_if=not_)


class DifferenceResult(ResultRecord):
    """A system minus the baseline.

    Attributes:
        queries, wins, ties, losses: numbers of topics.
        effect_size: d_z, the mean difference over the standard deviation of the differences; for a macro
            average, over the root of the languages' mean variance.
        p, p_corrected: never 0; upper bounds if `note` says so.
        note: why a value is None.
    """

    baseline: str
    queries: int
    difference: float
    ci_low: float | None
    ci_high: float | None
    effect_size: float | None
    wins: int
    ties: int
    losses: int
    p: float | None
    p_corrected: float | None
    significant: bool
    note: str | None


class ComparisonResult(DifferenceResult):
    """A run minus the baseline, for one measure; `language` is "all" for the macro average."""

    run: str
    measure: str
    language: str


class ContrastResult(DifferenceResult):
    """A system of an experiment minus the baseline, over shared seeds. units: independent in the test."""

    system: str
    seeds: tuple[int, ...]
    units: int


class ProcedureResult(ResultRecord):
    """How runs were compared. baseline: None with all pairs. macro: methods of its p and interval."""

    name: str
    macro: Mapping[str, str]
    baseline: str | None
    correction: str
    alpha: float
    confidence: float
    permutations: int
    seed: int


class TopicsResult(ResultRecord):
    """languages: language -> judged topics. units: topics, all language versions counted as one."""

    judged: int
    languages: Mapping[str, int]
    parallel: bool
    units: int


class SliceResult(ResultRecord):
    """A part of the topics. macro: run -> measure -> average over languages. comparisons: of these."""

    topics: int
    units: int
    macro: Mapping[str, Mapping[str, float]]
    comparisons: tuple[ComparisonResult, ...]


class EvaluationResult(ResultRecord):
    """Scores and comparisons of runs, as `mimo evaluate --json` writes them.

    slices: name -> its results, if asked for. unsliced: number of topics in none of them.
    """

    measures: tuple[str, ...]
    runs: Mapping[str, RunResult]
    comparisons: tuple[ComparisonResult, ...]
    test: ProcedureResult | None
    topics: TopicsResult
    slices: Mapping[str, SliceResult] = Field(default={}, exclude_if=not_)
    unsliced: int = Field(default=0, exclude_if=not_)

    @property
    def tested(self) -> tuple[str, ...]:
        """The measures without Judged@k, which does not measure quality."""
        return tuple(measure for measure in self.measures if not measure.startswith("judged@"))

    def differs(self, run: str, measure: str, language: str | None) -> bool:
        """Whether a run differs significantly from the baseline; never without a baseline."""
        return self.test is not None and any(
            one.significant
            for one in self.comparisons
            if (one.baseline, one.run, one.measure, one.language)
            == (self.test.baseline, run, measure, language)
        )

    @model_validator(mode="after")
    def _agrees(self) -> "EvaluationResult":
        measures = set(self.measures)
        checks: list[tuple[str, set[str], Collection[str]]] = []
        for name, run in self.runs.items():
            checks += [
                (f"mean of run {name!r}", measures, run.mean),
                (f"macro of run {name!r}", measures, run.macro),
                (f"per_language of run {name!r}", set(self.topics.languages), run.per_language),
            ]
            for language, values in run.per_language.items():
                checks.append((f"{language!r} of run {name!r}", {*measures, "queries"}, values))
            for part, one in self.slices.items():
                checks.append((f"slice {part!r} of run {name!r}", set(self.tested), one.macro.get(name, ())))
        problems = [
            f"{what} lacks {', '.join(sorted(missing))}"
            for what, wanted, found in checks
            if (missing := wanted - set(found))
        ]
        compared = [*self.comparisons, *(one for part in self.slices.values() for one in part.comparisons)]
        named = {name for one in compared for name in (one.baseline, one.run)} - set(self.runs)
        problems += [f"comparisons name {name!r}, expected one of the runs" for name in sorted(named)]
        if problems:
            raise ValueError("; ".join(problems))
        return self


class ReferenceResult(ResultRecord):
    """Published scores of a system on the same benchmark."""

    system: str
    measure: str
    macro: float | None
    per_language: ByLanguage
    source: str
    url: str | None
    note: str | None


class HardwareResult(ResultRecord):
    machine: str | None
    processor: str | None
    cores: int | None
    memory_bytes: int | None
    device: str | None


class ProvenanceResult(ResultRecord):
    """fingerprints: name -> SHA-256. date: ISO 8601."""

    command: str
    date: str
    versions: Mapping[str, str | None]
    hardware: HardwareResult
    git_commit: str | None
    fingerprints: Mapping[str, str | None]


class PeerResult(ResultRecord):
    """PEER. sensitive: topics, out of `topics`, whose PEER depends on the order of documents."""

    mean: float | None
    per_language: ByLanguage = Field(default={}, exclude_if=not_)
    sensitive: int
    topics: int


class MrcResult(ResultRecord):
    """MRC, times 100. missing: topics without a hit. unscored: share of documents without a score."""

    mean: float | None
    per_language: ByLanguage
    per_pair: ByPair
    topics: int
    missing: int
    unscored: float | None


class AwrfResult(ResultRecord):
    """AWRF. target: the intended distribution of attention."""

    mean: float | None
    per_language: ByLanguage
    target: str
    attention: str = "log"
    queries: int


class LanguageMixResult(ResultRecord):
    """shares: (query languages, document languages), rows add up to 1."""

    query_languages: tuple[str, ...]
    doc_languages: tuple[str, ...]
    shares: Matrix
    own: float
    entropy: float
    queries: int
    without_hits: int

    @model_validator(mode="after")
    def _is_a_matrix(self) -> "LanguageMixResult":
        _check_matrix("shares", self.shares, len(self.query_languages), len(self.doc_languages))
        return self


def _check_matrix(name: str, values: Matrix, rows: int, columns: int) -> None:
    found = [len(row) for row in values]
    if found != [columns] * rows:
        raise ValueError(f"{name} have rows of {found} values, expected {rows} rows of {columns}")


class PreferenceResult(ResultRecord):
    """Same-language preference. left_out: topics with nothing relevant in their own language."""

    mean: float | None
    per_language: ByLanguage
    queries: int
    left_out: int


class LanguageGapResult(ResultRecord):
    """Quality for relevant documents in the query's language, in other languages, and the difference."""

    same: float | None
    other: float | None
    gap: float | None
    queries: int


class GapResult(LanguageGapResult):
    """The cross-lingual gap of all topics, and of each query language."""

    measure: str
    per_language: Mapping[str, LanguageGapResult]
    left_out: int


class BiasResult(ResultRecord):
    """Language bias of the first `cutoff` hits. skipped: part -> reason. peer_at, mrc_at: by cutoff."""

    cutoff: int
    peer: PeerResult
    peer_raw: PeerResult
    mrc: MrcResult | None
    awrf: AwrfResult | None
    language_mix: LanguageMixResult
    same_language_preference: PreferenceResult | None
    cross_lingual_gap: GapResult | None
    skipped: Mapping[str, str]
    peer_at: Mapping[int, PeerResult] = Field(default={}, exclude_if=not_)
    mrc_at: Mapping[int, MrcResult] = Field(default={}, exclude_if=not_)


class TextsResult(ResultRecord):
    """groups: texts, each in several languages. role: documents or queries."""

    collections: tuple[str, ...]
    role: str
    groups: int
    vectors: int
    languages: Mapping[str, int]
    seed: int


class SeparabilityResult(ResultRecord):
    """Cross-validated accuracy of predicting the language from the vector. chance: of a random guess."""

    centroid: float | None
    knn: float | None
    neighbours: int
    folds: int
    chance: float | None


class CentroidsResult(ResultRecord):
    """distances: (languages, languages), None if no text is in both."""

    languages: tuple[str, ...]
    distances: Matrix

    @model_validator(mode="after")
    def _is_square(self) -> "CentroidsResult":
        _check_matrix("distances", self.distances, len(self.languages), len(self.languages))
        return self


class ProjectionResult(ResultRecord):
    """points: x, y, number of the language, number of the text. explained: share of variance per axis."""

    method: str = "pca"
    explained: tuple[float, ...]
    languages: tuple[str, ...]
    points: tuple[tuple[float, float, int, int], ...]

    @model_validator(mode="after")
    def _names_its_languages(self) -> "ProjectionResult":
        unknown = sorted({point[2] for point in self.points} - set(range(len(self.languages))))
        if unknown:
            raise ValueError(f"points name language {unknown[0]}, expected less than {len(self.languages)}")
        return self


class CheckpointResult(ResultRecord):
    """step: of the optimiser. alignment: None if undefined."""

    step: int
    alignment: float | None
    uniformity: float | None


class EncoderResult(ResultRecord):
    """Geometry of one encoder, see `evaluation.geometry`; no alignment without parallel texts."""

    name: str
    fingerprint: str | None
    dimension: int
    alignment: float | None
    pair_alignment: ByPair
    uniformity: float | None
    uniformity_per_language: ByLanguage
    separability: SeparabilityResult | None
    centroid_distances: CentroidsResult
    projection: ProjectionResult
    trail: tuple[CheckpointResult, ...]


class GeometryResult(ResultRecord):
    """skipped: missing or limited part -> reason."""

    texts: TextsResult
    encoders: Mapping[str, EncoderResult]
    skipped: Mapping[str, str]


class BenchmarkResults(ResultRecord):
    """All results of a reproduction: the object of `results.json`.

    Unprintable characters in names become escapes such as `\\x00`.
    """

    format: Literal["mimo-reproduction"] = FORMAT
    format_version: Literal[1] = FORMAT_VERSION
    config: ConfigResult
    subset: SubsetResult | None
    systems: Mapping[str, SystemResult]
    evaluation: EvaluationResult
    language_bias: Mapping[str, BiasResult]
    geometry: GeometryResult | None
    reference: tuple[ReferenceResult, ...]
    warnings: tuple[str, ...]
    provenance: ProvenanceResult

    @model_validator(mode="before")
    @classmethod
    def _can_be_shown(cls, content: Any) -> Any:
        return printable(content)


def read_results(path: Path) -> BenchmarkResults:
    """Reads a results file, or `results.json` in a directory.

    Raises:
        ArtifactError: it is missing, cannot be read, or holds no results; with all problems.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        content = json.loads(file.read_bytes())
        if not isinstance(content, dict):
            raise ArtifactError(f"{file} holds no JSON object, expected results; {AGAIN}")
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error.strerror}, expected results; {AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{file} is not JSON: {error}; {AGAIN}") from error
    return parse_results(content)


def parse_results(content: Mapping[str, Any]) -> BenchmarkResults:
    """The results in the parsed JSON of a results file.

    Raises:
        ArtifactError: with all problems.
    """
    kind, version = content.get("format"), content.get("format_version")
    if (kind, version) != (FORMAT, FORMAT_VERSION):
        raise ArtifactError(
            f"the results have format {kind!r}, version {version!r}; expected {FORMAT!r}, version "
            f"{FORMAT_VERSION}: {AGAIN}"
        )
    try:
        return BenchmarkResults.model_validate(content)
    except ValidationError as error:
        problems = Problems(ArtifactError)
        faults = field_faults(error, BenchmarkResults, content)
        problems.extend(f"invalid results: {fault}; {AGAIN}" for _, fault in faults)
        problems.raise_any()
        raise
