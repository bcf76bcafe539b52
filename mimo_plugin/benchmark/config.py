"""A benchmark's config: collections, measures, tests, published scores."""

import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from mimo_plugin.benchmark.settings import Role
from mimo_plugin.core.artifact import Record
from mimo_plugin.core.config import Place
from mimo_plugin.core.errors import MimoError, near
from mimo_plugin.evaluation.fairness import Target
from mimo_plugin.evaluation.measures import MeasureKind, parse_measures
from mimo_plugin.evaluation.options import (
    Analyzers,
    Correction,
    FusionMethod,
    FusionOptions,
    Gain,
    Normalization,
    Setting,
    SignificanceTest,
)

DATA = "{data}"

_IN_DATA = f"path:{DATA}"


def _measure(name: str) -> str:
    try:
        found = parse_measures(name)
    except MimoError as error:
        raise ValueError("; ".join(str(error).splitlines())) from None
    if len(found) != 1:
        raise ValueError(f"{len(found)} measures in one text, expected a list with each by itself")
    return str(found[0])


def _spec(spec: str) -> str:
    if spec.split() != [spec] and not spec.startswith("path:"):
        raise ValueError(
            f"{spec!r} has white space in it, expected an ir_datasets id, path:DIR or hub:OWNER/NAME"
        )
    rest = spec.removeprefix(_IN_DATA)
    if DATA in spec and (rest == spec or DATA in rest or not rest.startswith("/")):
        raise ValueError(f"{spec!r}, expected {DATA} as the start of a path: {_IN_DATA}/FOLDER")
    return spec


def _matching(pattern: str, expected: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"found {text!r}, expected {expected}")
        return text

    return AfterValidator(check)


Text = Annotated[str, Field(min_length=1)]
# They become names of directories and columns.
Name = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9][A-Za-z0-9+._-]{0,99}", "a name of at most 100 letters, digits, '-', '_', '.' and '+'"
    ),
]
Language = Annotated[str, _matching(r"[A-Za-z]{2,8}([_-][A-Za-z0-9]{1,8})*", "a language code such as de")]
Spec = Annotated[str, Field(min_length=1), AfterValidator(_spec)]
MeasureName = Annotated[str, AfterValidator(_measure)]
Count = Annotated[int, Field(strict=True, ge=1)]
Score = Annotated[float, Field(strict=True, ge=0, le=1)]
Weight = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


def _shape(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return "mapping"
    return "list" if isinstance(value, list | tuple) else None


Collections = Annotated[
    Annotated[dict[Language, Spec], Field(min_length=1), Tag("mapping")]
    | Annotated[tuple[Spec, ...], Field(min_length=1), Tag("list")],
    Discriminator(
        _shape,
        custom_error_type="collections_shape",
        custom_error_message=(
            "Input should be a mapping language: collection, or a list of collections that hold several "
            "languages"
        ),
    ),
]


class ConsistentRecord(Record):
    """A record whose fields may contradict each other."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = list(self.contradictions())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def contradictions(self) -> Iterator[str]:
        """What is wrong, a message each."""
        raise NotImplementedError


class TopicOptions(ConsistentRecord):
    """Attributes:
    shared: the collections share topics, under the same ids, as in NeuCLIR; see `load`.
    field: field of shared topics that is searched, such as `title`; None is the source's default text.
    lang: language of shared topics whose source gives none.
    source: collection whose queries replace the collections' own.
    """

    shared: bool = False
    field: Text | None = None
    lang: Language | None = None
    source: Spec | None = None

    def contradictions(self) -> Iterator[str]:
        for name in ("field", "lang", "source"):
            if getattr(self, name) is not None and not self.shared:
                yield f"{name} applies to shared topics only, expected `shared: true` with it"


class Fairness(Record):
    """Attributes:
    cutoff: number of ranks that count.
    target: target distribution of AWRF.
    peer, mrc: further cutoffs of PEER and MRC.
    """

    cutoff: Count = 20
    target: Target = Target.RELEVANT
    peer: tuple[Count, ...] = ()
    mrc: tuple[Count, ...] = ()


class GeometryOptions(Record):
    """Attributes:
    texts: number of parallel texts to draw at most, each in all its languages.
    """

    texts: Annotated[int, Field(strict=True, ge=2)] = 1000
    role: Role = Role.DOCUMENTS
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0


class Bm25(Record):
    analyzers: Analyzers = Analyzers.PLAIN


class Fusion(ConsistentRecord):
    """A system made of the runs of other systems.

    Attributes:
        systems: names of the fused systems; `encoder` stands for each dense system in turn.
        method, norm, weights, k: see `FusionOptions`.
    """

    name: Name
    systems: Annotated[tuple[Name, ...], Field(min_length=2)]
    method: FusionMethod = FusionMethod.RRF
    norm: Normalization | None = None
    weights: tuple[Weight, ...] | None = None
    k: Count | None = None

    @property
    def options(self) -> FusionOptions:
        return FusionOptions(self.method, self.k, self.norm, self.weights)

    def contradictions(self) -> Iterator[str]:
        yield from self.options.problems(len(self.systems))
        if len(set(self.systems)) < len(self.systems):
            yield "a system is listed twice, expected each once"
        if self.name in self.systems:
            yield f"{self.name!r} is a part of itself, expected other systems"


class Reference(ConsistentRecord):
    """A system's published scores.

    Attributes:
        macro: published average over the selected languages, or the mean of `per_language`; None if neither
            is available.
        per_language: language -> score between 0 and 1.
        source: the publication.
    """

    system: Text
    measure: MeasureName
    macro: Score | None = None
    per_language: Annotated[dict[Language, Score], Field(default_factory=dict)]
    source: Text
    url: Text | None = None
    note: Text | None = None

    def contradictions(self) -> Iterator[str]:
        if self.macro is None and not self.per_language:
            yield "has no score, expected macro, per_language or both"


class BenchmarkConfig(Record):
    """A benchmark: its collections, how systems are scored, and published scores.

    Attributes:
        extends: config that supplies the keys missing here.
        name: by default the name of the file.
        collections: language -> collection, or a list of collections that hold several languages.
        languages: the selected languages; empty selects all.
        fields: document fields that form the text; None is the source's default text.
        measures: canonical names; the first is the main measure.
        depth: hits per query.
        test, correction, alpha: see `mimo_plugin.evaluation`.
        baseline: system that the others are compared with.
        fairness, geometry, bm25: None leaves them out.
        reference: published scores on the selected languages.
        note: caveats for readers of the scores.
        obtain: where to get the files below `{data}`.
    """

    extends: Annotated[Text | None, Field(exclude=True)] = None
    name: Name
    title: Text
    setting: Setting
    collections: Collections
    languages: tuple[Language, ...] = ()
    topics: TopicOptions = TopicOptions()
    fields: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    measures: Annotated[tuple[MeasureName, ...], Field(min_length=1)]
    depth: Count = 100
    gain: Gain = Gain.GRADED
    test: SignificanceTest = SignificanceTest.STUDENT
    correction: Correction = Correction.HOLM
    alpha: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.05
    baseline: Name | None = None
    fairness: Fairness | None = None
    geometry: GeometryOptions | None = None
    bm25: Bm25 | None = None
    fusion: tuple[Fusion, ...] = ()
    reference: tuple[Reference, ...] = ()
    note: Text | None = None
    obtain: Text | None = None

    @property
    def all_collections(self) -> dict[str, str]:
        """Language -> collection; the key of a collection with several languages is its own name."""
        if isinstance(self.collections, tuple):
            return {spec: spec for spec in self.collections}
        return dict(self.collections)

    @property
    def chosen_collections(self) -> dict[str, str]:
        """The part of `all_collections` that is searched."""
        if isinstance(self.collections, tuple) or not self.languages:
            return self.all_collections
        return {language: self.collections[language] for language in self.languages}

    @property
    def known_languages(self) -> list[str]:
        """Languages of the mapping; empty for a list of collections."""
        return [] if isinstance(self.collections, tuple) else list(self.collections)

    @property
    def languages_within(self) -> frozenset[str] | None:
        """Languages to select inside collections with several languages; None takes all documents."""
        if isinstance(self.collections, tuple) and self.languages:
            return frozenset(self.languages)
        return None

    @property
    def pooled(self) -> bool:
        """Whether ids get their collection as a prefix."""
        return len(self.collections) > 1


Fault = tuple[Place, str]


def contradictions(config: BenchmarkConfig) -> Iterator[Fault]:
    """Fields that contradict each other: the place of each, and a message."""
    yield from _collections(config)
    yield from _measures(config)
    yield from _systems(config)
    yield from _reference(config)


def _repeated(values: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Position and value of every repetition."""
    return ((number, value) for number, value in enumerate(values) if value in values[:number])


def _collections(config: BenchmarkConfig) -> Iterator[Fault]:
    known = config.known_languages
    if not known and config.setting is Setting.MULTI_MONOLINGUAL:
        reason = f"since {config.setting} has one index per language"
        yield ("collections",), f"found a list, expected a mapping language: collection, {reason}"
    specs = list(config.all_collections.values() if known else config.collections)
    for number, spec in _repeated(specs):
        key = known[number] if known else number
        yield ("collections", key), f"{spec!r} is listed twice, expected each collection once"
    if config.obtain is None and any(DATA in spec for spec in (*specs, config.topics.source or "")):
        expected = "expected a key 'obtain' that says where to get its files"
        yield ("collections",), f"found {DATA}, {expected}"
    for number, name in enumerate(config.languages):
        if known and name not in known:
            yield ("languages", number), _unknown_language(name, known)
    for number, name in _repeated(config.languages):
        yield ("languages", number), f"{name!r} is listed twice, expected each language once"


def _unknown_language(name: str, known: Sequence[str]) -> str:
    return f"{name!r} is not in the collections, expected one of {', '.join(known)}{near(name, known)}"


def _measures(config: BenchmarkConfig) -> Iterator[Fault]:
    measures = parse_measures(config.measures)
    if measures[0].kind is MeasureKind.JUDGED:
        expected = "expected one such as ndcg@20 as the first"
        yield ("measures", 0), f"{measures[0]} is no measure of quality, {expected}"
    for number, name in _repeated(config.measures):
        yield ("measures", number), f"{name} is listed twice, expected each measure once"
    cutoffs: dict[Place, int] = {
        ("measures", number): measure.cutoff or 0 for number, measure in enumerate(measures)
    }
    if (fairness := config.fairness) is not None:
        cutoffs["fairness", "cutoff"] = fairness.cutoff
        for name, further in (("peer", fairness.peer), ("mrc", fairness.mrc)):
            cutoffs |= {("fairness", name, number): cutoff for number, cutoff in enumerate(further)}
    for place, cutoff in cutoffs.items():
        if cutoff > config.depth:
            expected = f"expected a depth of {cutoff} or more"
            yield place, f"a cutoff of {cutoff} is deeper than depth, which is {config.depth}, {expected}"


def _systems(config: BenchmarkConfig) -> Iterator[Fault]:
    if config.baseline is not None and config.test is SignificanceTest.TUKEY_HSD:
        expected = f"expected none: {config.test} compares all systems with each other"
        yield ("baseline",), f"found {config.baseline!r}, {expected}"
    by_language = config.bm25 is not None and config.bm25.analyzers is Analyzers.LANGUAGE
    if by_language and config.setting is not Setting.MULTI_MONOLINGUAL:
        expected = f"expected 'plain': in {config.setting} one index holds several languages"
        yield ("bm25", "analyzers"), f"found 'language', {expected}"
    reserved = ("bm25", "encoder")
    for number, name in _repeated((*reserved, *(fusion.name for fusion in config.fusion))):
        place = ("fusion", number - len(reserved), "name")
        yield place, f"{name!r} is the name of another system, expected a different name"


def _reference(config: BenchmarkConfig) -> Iterator[Fault]:
    known = config.known_languages
    known += [config.topics.lang] if known and config.topics.lang else []
    for number, reference in enumerate(config.reference):
        measure = reference.measure
        if measure not in config.measures:
            expected = f"expected one of {', '.join(config.measures)}{near(measure, config.measures)}"
            yield ("reference", number, "measure"), f"{measure} is not measured here, {expected}"
        for name in reference.per_language:
            if known and name not in known:
                yield ("reference", number, "per_language", name), _unknown_language(name, known)


def chosen_references(
    references: Sequence[Reference], languages: Sequence[str], same: bool
) -> tuple[Reference, ...]:
    """The references limited to the selected languages; references without a score are left out.

    Args:
        languages: empty means all.
        same: whether the published averages are over exactly these languages. Otherwise the average is
            computed from the scores per language, if every language has one.
    """
    chosen = []
    for reference in references:
        scores = reference.per_language
        if languages:
            scores = {name: score for name, score in scores.items() if name in languages}
        macro = reference.macro if same else None
        if macro is None and languages and len(scores) == len(languages):
            # Published scores have four digits.
            macro = round(fmean(scores.values()), 4)
        if scores or macro is not None:
            chosen.append(reference.model_copy(update={"per_language": scores, "macro": macro}))
    return tuple(chosen)
