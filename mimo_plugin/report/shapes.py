"""What the report reads of `results.json`: the parts that have no file of their own here, and the whole."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

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
