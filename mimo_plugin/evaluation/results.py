"""`results.json`: its records, and how it is read."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from mimo_plugin.core.artifact import field_problems
from mimo_plugin.core.errors import ArtifactError, Problems

FORMAT = "mimo-reproduction"
FORMAT_VERSION = 1


class Shape(BaseModel):
    """A part of the results. Later versions of a writer may add fields; a number is finite or null."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Config(Shape):
    """Attributes:
    setting: multi-monolingual, mlir, clir or mixed-monolingual.
    depth: hits a query.
    fairness_cutoff: k of the measures of language bias.
    """

    name: str
    title: str
    setting: str
    note: str | None
    collections: tuple[str, ...]
    languages: tuple[str, ...]
    measures: tuple[str, ...]
    depth: int
    fairness_cutoff: int


class Subset(Shape):
    """text: what has to stand beside every number."""

    documents: int
    judged: int
    distractors_per_language: int
    seed: int
    text: str


class System(Shape):
    """parts: the systems that a fusion is made of. seconds: step -> time it took. details: what else there is
    to know, such as the analyzer of each language."""

    kind: str
    label: str
    encoder: str | None
    fingerprint: str | None
    documents: int | None
    index_bytes: int | None
    seconds: Mapping[str, float]
    parts: tuple[str, ...]
    details: Mapping[str, Any] = {}


class Counts(Shape):
    judged: int
    retrieved: int
    missing: int
    unjudged: int = 0
    unknown: int = 0


class TrainedOn(Shape):
    """Documents of the collection that a run's encoder was trained on."""

    documents: int
    of: int
    share: float
    training_data: str


class Run(Shape):
    """per_language: language -> measure -> value; `queries` among the measures is their number."""

    mean: Mapping[str, float | None]
    macro: Mapping[str, float | None]
    per_language: Mapping[str, Mapping[str, float | None]]
    queries: Counts
    trained_on: TrainedOn | None = None


class Comparison(Shape):
    """Run minus baseline; `language` is "all" for the macro average."""

    baseline: str
    run: str
    measure: str
    language: str
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


class Procedure(Shape):
    """baseline: None where all pairs were compared. macro: how its p and its interval were made."""

    name: str
    macro: Mapping[str, str]
    baseline: str | None
    correction: str
    alpha: float
    confidence: float
    permutations: int
    seed: int


class Topics(Shape):
    """languages: language -> judged topics. units: topics, with their language versions taken as one."""

    judged: int
    languages: Mapping[str, int]
    parallel: bool
    units: int


class Evaluation(Shape):
    """What `mimo evaluate --json` writes."""

    measures: tuple[str, ...]
    runs: Mapping[str, Run]
    comparisons: tuple[Comparison, ...]
    test: Procedure | None
    topics: Topics

    @property
    def quality(self) -> tuple[str, ...]:
        """The measures of quality: those that are not Judged@k."""
        return tuple(measure for measure in self.measures if not is_judged(measure))

    @model_validator(mode="after")
    def _agrees(self) -> "Evaluation":
        problems = "; ".join(self._problems())
        if problems:
            raise ValueError(problems)
        return self

    def _problems(self) -> Iterator[str]:
        wanted = set(self.measures)
        for name, run in self.runs.items():
            for average, values in (("mean", run.mean), ("macro", run.macro)):
                yield from _lacks(f"{average} of run {name!r}", wanted, values)
            yield from _lacks(f"per_language of run {name!r}", set(self.topics.languages), run.per_language)
            for language, values in run.per_language.items():
                yield from _lacks(f"{language!r} of run {name!r}", {*wanted, "queries"}, values)
        named = {name for one in self.comparisons for name in (one.baseline, one.run)}
        for name in sorted(named - set(self.runs)):
            yield f"comparisons name {name!r}, expected one of the runs"


class Reference(Shape):
    """Scores that a publication gives for a system on the same benchmark."""

    system: str
    measure: str
    macro: float | None
    per_language: Mapping[str, float | None]
    source: str
    url: str | None
    note: str | None


class Hardware(Shape):
    machine: str | None
    processor: str | None
    cores: int | None
    memory_bytes: int | None
    device: str | None


class Provenance(Shape):
    """fingerprints: of what -> SHA-256. date: ISO 8601."""

    command: str
    date: str
    versions: Mapping[str, str | None]
    hardware: Hardware
    git_commit: str | None
    fingerprints: Mapping[str, str | None]


def is_judged(measure: str) -> bool:
    return measure.startswith("judged@")


def _lacks(what: str, wanted: set[str], values: Mapping[str, object]) -> Iterator[str]:
    missing = sorted(wanted - set(values))
    if missing:
        yield f"{what} lacks {', '.join(missing)}"


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


class Texts(Shape):
    """groups: texts, each in several languages. role: documents or queries."""

    collections: tuple[str, ...]
    role: str
    groups: int
    vectors: int
    languages: Mapping[str, int]
    seed: int


class Separability(Shape):
    """Cross-validated accuracy of telling the language from the vector. chance: of guessing."""

    centroid: float | None
    knn: float | None
    neighbours: int
    folds: int
    chance: float | None


class CentroidDistances(Shape):
    languages: tuple[str, ...]
    distances: tuple[tuple[float | None, ...], ...]

    @model_validator(mode="after")
    def _is_square(self) -> "CentroidDistances":
        size = len(self.languages)
        found = [len(row) for row in self.distances]
        if found != [size] * size:
            raise ValueError(f"distances have rows of {found} values, expected {size} rows of {size}")
        return self


class Projection(Shape):
    """points: x, y, number of the language, number of the text. explained: share of variance of each axis."""

    method: str
    explained: tuple[float, ...]
    languages: tuple[str, ...]
    points: tuple[tuple[float, float, int, int], ...]

    @model_validator(mode="after")
    def _names_its_languages(self) -> "Projection":
        unknown = sorted({point[2] for point in self.points} - set(range(len(self.languages))))
        if unknown:
            raise ValueError(f"points name language {unknown[0]}, expected less than {len(self.languages)}")
        return self


class Checkpoint(Shape):
    step: int
    alignment: float | None
    uniformity: float | None


class EncoderResult(Shape):
    name: str
    fingerprint: str | None
    dimension: int
    alignment: float | None
    pair_alignment: tuple[tuple[str, str, float | None], ...] | None
    uniformity: float | None
    uniformity_per_language: Mapping[str, float | None] | None
    separability: Separability | None
    centroid_distances: CentroidDistances | None
    projection: Projection | None
    trail: tuple[Checkpoint, ...]


class Geometry(Shape):
    texts: Texts
    encoders: Mapping[str, EncoderResult]
    skipped: Mapping[str, str]


FILE_NAME = "results.json"
_AGAIN = "make it again with `mimo reproduce`"
# Neither XML nor a terminal can show them: control characters, halves of a pair, non-characters.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_SPACE = "\t\n\r"


class Results(Shape):
    """All of it. raw: the object that it was read from, for those who take plain JSON."""

    config: Config
    subset: Subset | None
    systems: Mapping[str, System]
    evaluation: Evaluation
    language_bias: Mapping[str, LanguageBias]
    geometry: Geometry | None
    reference: tuple[Reference, ...]
    warnings: tuple[str, ...]
    provenance: Provenance
    raw: Mapping[str, Any]


def read_results(path: Path) -> dict[str, Any]:
    """The object in a results file, or in the one of that name in a directory.

    Raises:
        ArtifactError: it is not there, cannot be read, or is no JSON object.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise ArtifactError(
            f"{file} cannot be read: {error.strerror}; expected what `mimo reproduce` writes"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{file} is not JSON: {error}; {_AGAIN}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{file} holds no JSON object, expected a reproduction's results; {_AGAIN}")
    return content


def parse_results(content: Mapping[str, Any]) -> Results:
    """Checks the shape of a results object.

    Names may hold anything: characters that cannot be shown become escapes such as `\\x00`.

    Raises:
        ArtifactError: with everything that is not as it has to be.
    """
    found = content.get("format"), content.get("format_version")
    if found != (FORMAT, FORMAT_VERSION):
        raise ArtifactError(
            f"the results have format {found[0]!r}, version {found[1]!r}; expected {FORMAT!r}, version "
            f"{FORMAT_VERSION}: {_AGAIN}"
        )
    clean = _printable(content)
    try:
        return Results.model_validate(clean | {"raw": clean})
    except ValidationError as error:
        problems = Problems(ArtifactError)
        problems.extend(
            f"the results are not as they have to be: {problem}; {_AGAIN}"
            for problem in field_problems(error)
        )
        problems.raise_any()
        raise


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return _UNPRINTABLE.sub(_escaped, value)
    if isinstance(value, Mapping):
        clean = {_printable(str(key)): _printable(part) for key, part in value.items()}
        if len(clean) < len(value):
            raise ArtifactError(
                f"the results have names that differ in characters that cannot be shown: {_AGAIN}"
            )
        return clean
    if isinstance(value, list | tuple):
        return [_printable(part) for part in value]
    return value


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    return " " if character in _SPACE else character.encode("unicode_escape").decode("ascii")
