"""A benchmark's config: collections, measures, tests, published scores."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    shared: the collections have topics in common, under the same ids, as NeuCLIR's; see `load`.
    field: of shared topics, such as `title`; None is the source's default text.
    lang: of shared topics whose source does not say.
    source: collection whose queries are searched in place of the collections' own.
    """

    shared: bool = False
    field: Text | None = None
    lang: Language | None = None
    source: Spec | None = None

    def contradictions(self) -> Iterator[str]:
        for name in ("field", "lang", "source"):
            if getattr(self, name) is not None and not self.shared:
                yield f"{name} is of shared topics, expected `shared: true` with it"


class Fairness(Record):
    """Attributes:
    cutoff: ranks that count.
    target: of AWRF.
    peer, mrc: further cutoffs of PEER and MRC.
    """

    cutoff: Count = 20
    target: Target = Target.RELEVANT
    peer: tuple[Count, ...] = ()
    mrc: tuple[Count, ...] = ()


class GeometryOptions(Record):
    """Attributes:
    texts: how many parallel texts are drawn at most, each in all its languages.
    role: which.
    seed: of the drawing.
    """

    texts: Annotated[int, Field(strict=True, ge=2)] = 1000
    role: Role = Role.DOCUMENTS
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0


class Bm25(Record):
    """Attributes:
    analyzers: of documents and queries.
    """

    analyzers: Analyzers = Analyzers.PLAIN


class Fusion(ConsistentRecord):
    """Attributes:
    name: of the system that comes out.
    systems: names of those that go in; `encoder` is each dense one in turn.
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
            yield "a system goes in twice, expected each once"
        if self.name in self.systems:
            yield f"{self.name!r} goes into itself, expected other systems"


class Reference(ConsistentRecord):
    """A system's published scores.

    Attributes:
        measure: canonical name.
        macro: average over the languages that are chosen, as published or of `per_language`; None where it is
            not known for them.
        per_language: language -> score, as a fraction of 1.
        source: where it was published.
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
    """A benchmark: what is searched, how it is scored, and what others have published on it.

    Attributes:
        extends: config whose keys hold where this one has none.
        name: the file's own where it says none.
        collections: language -> its collection, or collections that hold several languages.
        languages: those that are chosen: of the mapping's, in its order; of a list's, none are all there are.
        topics: what is special about the queries.
        fields: of documents that make their text; None is the source's default text.
        measures: canonical names; the first is the one that stands for all.
        depth: documents a query that systems return.
        gain: what judgments count.
        test, correction, alpha: see `mimo_plugin.evaluation`.
        baseline: system that others are compared with.
        fairness, geometry, bm25: None leaves them out.
        fusion: systems made of others' runs.
        reference: published scores on the languages that are chosen.
        note: what a reader of the numbers must know.
        obtain: where the files below `{data}` come from.
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
        """Language -> collection. Collections with several languages stand under their own names."""
        if isinstance(self.collections, tuple):
            return {spec: spec for spec in self.collections}
        return dict(self.collections)

    @property
    def chosen_collections(self) -> dict[str, str]:
        """The collections that are searched, as `all_collections`."""
        if isinstance(self.collections, tuple) or not self.languages:
            return self.all_collections
        return {language: self.collections[language] for language in self.languages}

    @property
    def known_languages(self) -> list[str]:
        """Languages of the mapping; empty for collections with several languages."""
        return [] if isinstance(self.collections, tuple) else list(self.collections)

    @property
    def languages_within(self) -> frozenset[str] | None:
        """Languages to select inside collections with several languages; None selects nothing."""
        if isinstance(self.collections, tuple) and self.languages:
            return frozenset(self.languages)
        return None

    @property
    def pooled(self) -> bool:
        """Whether ids get a collection's prefix, whatever languages are selected."""
        return len(self.collections) > 1


Fault = tuple[Place, str]


def contradictions(config: BenchmarkConfig) -> Iterator[Fault]:
    """Places of fields that contradict each other, and a message for each."""
    yield from _collections(config)
    yield from _languages(config)
    yield from _depths(config)
    yield from _systems(config)
    yield from _reference(config)


def _twice(values: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Position and value of every repetition."""
    seen: Counter[str] = Counter()
    for number, value in enumerate(values):
        if seen[value]:
            yield number, value
        seen[value] += 1


def _collections(config: BenchmarkConfig) -> Iterator[Fault]:
    if isinstance(config.collections, tuple) and config.setting is Setting.MULTI_MONOLINGUAL:
        yield (
            ("collections",),
            "found a list, expected a mapping language: collection, since "
            f"{config.setting} has an index of each language",
        )
    listed = isinstance(config.collections, tuple)
    keys: list[str | int] = list(range(len(config.collections)) if listed else config.known_languages)
    specs = list(config.collections if listed else config.all_collections.values())
    for number, spec in _twice(specs):
        yield ("collections", keys[number]), f"{spec!r} is there twice, expected each collection once"
    if config.obtain is None and any(DATA in spec for spec in (*specs, config.topics.source or "")):
        yield (
            ("collections",),
            f"found {DATA}, expected a key 'obtain' that says where its files come from",
        )


def _languages(config: BenchmarkConfig) -> Iterator[Fault]:
    known = config.known_languages
    for number, name in enumerate(config.languages):
        if known and name not in known:
            yield ("languages", number), _not_there(name, known)
    for number, name in _twice(config.languages):
        yield ("languages", number), f"{name!r} is there twice, expected each language once"


def _not_there(name: str, known: Sequence[str]) -> str:
    return f"{name!r} is not in the collections, expected one of {', '.join(known)}{near(name, known)}"


def _depths(config: BenchmarkConfig) -> Iterator[Fault]:
    """Measures, and cutoffs deeper than the runs."""
    measures = parse_measures(config.measures)
    if measures[0].kind is MeasureKind.JUDGED:
        yield (
            ("measures", 0),
            f"{measures[0]} is no measure of quality, expected one such as ndcg@20 as the first",
        )
    for number, name in _twice(config.measures):
        yield ("measures", number), f"{name} is there twice, expected each measure once"
    cutoffs: list[tuple[Place, int]] = [
        (("measures", number), measure.cutoff or 0) for number, measure in enumerate(measures)
    ]
    if config.fairness is not None:
        cutoffs.append((("fairness", "cutoff"), config.fairness.cutoff))
        for name in ("peer", "mrc"):
            found = enumerate(getattr(config.fairness, name))
            cutoffs += [(("fairness", name, number), cutoff) for number, cutoff in found]
    for place, cutoff in cutoffs:
        if cutoff > config.depth:
            yield (
                place,
                f"a cutoff of {cutoff} is deeper than depth, which is {config.depth}, expected a depth of "
                f"{cutoff} or more",
            )


def _systems(config: BenchmarkConfig) -> Iterator[Fault]:
    if config.baseline is not None and config.test is SignificanceTest.TUKEY_HSD:
        yield (
            ("baseline",),
            f"found {config.baseline!r}, expected none: {config.test} compares all systems with each other",
        )
    if (
        config.bm25 is not None
        and config.bm25.analyzers is Analyzers.LANGUAGE
        and config.setting is not Setting.MULTI_MONOLINGUAL
    ):
        yield (
            ("bm25", "analyzers"),
            f"found 'language', expected 'plain': in {config.setting} one index holds several languages",
        )
    # Names of systems that a fusion may take, but not have.
    reserved = ("bm25", "encoder")
    for number, name in _twice((*reserved, *(fusion.name for fusion in config.fusion))):
        place = ("fusion", number - len(reserved), "name")
        yield place, f"{name!r} is another system's, expected a name of its own"


def _reference(config: BenchmarkConfig) -> Iterator[Fault]:
    known = config.known_languages
    known += [config.topics.lang] if known and config.topics.lang else []
    for number, reference in enumerate(config.reference):
        if reference.measure not in config.measures:
            yield (
                ("reference", number, "measure"),
                f"{reference.measure} is not measured here, expected one of {', '.join(config.measures)}"
                f"{near(reference.measure, config.measures)}",
            )
        for name in reference.per_language:
            if known and name not in known:
                yield ("reference", number, "per_language", name), _not_there(name, known)


# As published scores are.
_DIGITS = 4


def chosen_references(
    references: Sequence[Reference], languages: Sequence[str], same: bool
) -> tuple[Reference, ...]:
    """The references, limited to scores in the selected languages; those without a score are left out.

    Args:
        languages: selected languages; empty means all.
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
            macro = round(fmean(scores.values()), _DIGITS)
        if scores or macro is not None:
            chosen.append(reference.model_copy(update={"per_language": scores, "macro": macro}))
    return tuple(chosen)
