"""The recipe of an experiment, and its systems."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from operator import not_
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field

from mimo_plugin.benchmark.config import ConsistentRecord, Count, Name, Weight
from mimo_plugin.collections.folder import FOLDER_PREFIX
from mimo_plugin.core.artifact import Record
from mimo_plugin.core.config import Place, YamlFile, read_yaml, validate
from mimo_plugin.core.errors import Problems, UsageError
from mimo_plugin.evaluation.options import (
    Correction,
    FusionMethod,
    FusionOptions,
    Normalization,
    SignificanceTest,
)
from mimo_plugin.evaluation.significance import Plan
from mimo_plugin.training.models import StudentOptions, TeacherOptions
from mimo_plugin.training.recipe import (
    PROJECTION_INPUT,
    Metric,
    Recipe,
    Share,
    Stage1Options,
    Stage2Options,
    StageOptions,
)
from mimo_plugin.training.run import check_anchor_teacher, check_inputs
from mimo_plugin.training.schedule import Objective

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Specs = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(lambda found: (found,) if isinstance(found, str) else found),
    Field(min_length=1),
]

# Options of a stage that a system has as its own fields.
_OWN_FIELDS = {
    "objective": "objective",
    "contrastive_weight": "lambda",
    "carry_projection": "carry_projection",
    "metric": "metric",
}


class Data(Record):
    """Directories of `mimo data`: pairs for stage 1, if a system has a warm-up, and a table for stage 2."""

    pairs: str | None = None
    table: str


class GridSystem(ConsistentRecord):
    """Options of one system that replace the shared ones.

    Attributes:
        objective: objective of stage 2.
        warm_up: whether stage 1 comes before; None is yes for MIMO and no for other objectives.
        contrastive_weight: lambda; MIMO only.
        carry_projection: see `Stage2Options`; MIMO with a warm-up only.
        metric: metric of the distillation in both stages.
        anchor: data with another anchor language.
        teacher: in place of the shared one, for example one that reads that language.
        stage1, stage2: further options.
    """

    objective: Objective
    warm_up: bool | None = None
    contrastive_weight: Share | None = Field(None, alias="lambda")
    carry_projection: bool | None = None
    metric: Metric | None = None
    anchor: Data | None = None
    teacher: TeacherOptions | None = None
    stage1: Annotated[dict[str, Any], Field(default_factory=dict)]
    stage2: Annotated[dict[str, Any], Field(default_factory=dict)]

    @property
    def warmed_up(self) -> bool:
        return self.objective is Objective.MIMO if self.warm_up is None else self.warm_up

    def contradictions(self) -> Iterator[str]:
        mimo = self.objective is Objective.MIMO
        if not mimo and self.contrastive_weight is not None:
            yield f"lambda is MIMO's, {self.objective} has none: leave it out"
        if self.carry_projection is not None and not mimo:
            yield f"carry_projection is MIMO's, {self.objective} has no projection: leave it out"
        if self.carry_projection and mimo and not self.warmed_up:
            yield "carry_projection needs a warm-up, and warm_up is false: leave one of them out"
        for field in ("metric", "teacher"):
            if getattr(self, field) is not None and not mimo and not self.warmed_up:
                none = f"{self.objective} without a warm-up has none"
                yield f"{field} needs a distillation, {none}: leave it out"
        if self.stage1 and not self.warmed_up:
            yield "stage1 has options, and there is no warm-up: leave them out or set `warm_up: true`"
        for section in ("stage1", "stage2"):
            for field in sorted(_OWN_FIELDS.keys() & getattr(self, section)):
                yield f"{section}.{field} is set for the whole system: `{_OWN_FIELDS[field]}: ...`"


# As `encoder` of a system that is not trained: the shared student before training, and the shared teacher.
STUDENT, TEACHER = "student", "teacher"


class OtherSystem(ConsistentRecord):
    """A system that is not trained: an encoder, BM25, or a fusion of systems.

    Attributes:
        encoder: checkpoint; `student` is the shared one as training starts, `teacher` the shared teacher.
        bm25: how texts become terms; plain treats all languages alike.
        fusion: names of the fused systems; with a trained one among them there is a fusion per seed.
        method, norm, weights, k: see `FusionOptions`.
    """

    encoder: Annotated[str, Field(min_length=1)] | None = None
    bm25: Literal["plain"] | None = None
    fusion: Annotated[tuple[Name, ...], Field(min_length=2)] | None = None
    method: FusionMethod = FusionMethod.RRF
    norm: Normalization | None = None
    weights: tuple[Weight, ...] | None = None
    k: Count | None = None

    @property
    def options(self) -> FusionOptions:
        return FusionOptions(self.method, self.k, self.norm, self.weights)

    def contradictions(self) -> Iterator[str]:
        kinds = ("encoder", "bm25", "fusion")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            yield f"found {' and '.join(given) or 'none'} of {', '.join(kinds)}, expected exactly one"
        if self.fusion is not None:
            yield from self.options.problems(len(self.fusion))
            if len(set(self.fusion)) < len(self.fusion):
                yield "fusion lists a system twice, expected each once"
        elif further := sorted(self.model_fields_set.difference(kinds)):
            yield f"{', '.join(further)}: only a fusion has it: leave it out"


class EncoderSettings(Record):
    """How trained students encode when they are scored, see `EncoderOptions`; None is the student's own."""

    query_prompt: str | None = None
    document_prompt: str | None = None
    dimension: Annotated[int, Field(ge=1)] | None = None


class ExperimentRecipe(Record):
    """A grid of systems and seeds; paths are relative to the recipe's own directory.

    Attributes:
        data, student, teacher, stage1, stage2: shared by all systems.
        anchor_teacher: of the systems that have an `anchor_share` in stage 1 or 2.
        dev: collection that selects the best checkpoint; None keeps the last one.
        collections: name -> collections of a pool; every trained student is scored on each pool.
        others: systems that are not trained, scored and tested like the trained ones.
        seeds: every system is trained with each seed.
        baseline: system that the others are compared with; None tests nothing.
        measures: the first one is tested.
        test, correction, alpha, permutations: as in `mimo evaluate`.
    """

    name: Name
    data: Data
    dev: str | None = None
    collections: Annotated[dict[Name, Specs], Field(min_length=1)]
    student: StudentOptions = StudentOptions()
    teacher: TeacherOptions = TeacherOptions()
    anchor_teacher: TeacherOptions | None = None
    stage1: Stage1Options = Stage1Options()
    stage2: Stage2Options = Stage2Options()
    encoder: EncoderSettings = EncoderSettings()
    systems: Annotated[dict[Name, GridSystem], Field(min_length=1)]
    others: Annotated[dict[Name, OtherSystem], Field(default_factory=dict, exclude_if=not_)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (1, 2, 3)
    baseline: str | None = None
    measures: Annotated[tuple[str, ...], Field(min_length=1)] = ("ndcg@20", "recall@100")
    test: Literal[SignificanceTest.STUDENT, SignificanceTest.PERMUTATION] = SignificanceTest.STUDENT
    correction: Correction = Correction.HOLM
    alpha: Annotated[float, Field(gt=0, lt=1)] = Plan.alpha
    permutations: Annotated[int, Field(ge=1000)] = Plan.permutations

    @property
    def names(self) -> list[str]:
        """All systems, in the order of the tables."""
        return [*self.systems, *self.others]

    def fused_seeds(self, other: str) -> tuple[int | None, ...]:
        """The seeds of a system that is not trained: those of a fusion's trained parts, else just None."""
        parts = self.others[other].fusion or ()
        return self.seeds if any(part in self.systems for part in parts) else (None,)


Options = TypeVar("Options", bound=StageOptions)


@dataclass(frozen=True)
class ResolvedSystem:
    """A system with all its options; `stage1` and `pairs` are None without a warm-up.

    Attributes:
        anchor_teacher: None if no stage has an `anchor_share`.
    """

    name: str
    stage1: Stage1Options | None
    stage2: Stage2Options
    pairs: Path | None
    table: Path
    teacher: TeacherOptions
    anchor_teacher: TeacherOptions | None

    @property
    def taught(self) -> bool:
        """Whether stage 2 needs the teacher."""
        return self.stage2.objective is Objective.MIMO


@dataclass(frozen=True)
class Experiment:
    """A recipe and its file; paths in the recipe are relative to the file's directory."""

    recipe: ExperimentRecipe
    source: YamlFile

    @classmethod
    def read(cls, path: Path) -> "Experiment":
        """Reads a recipe file.

        Raises:
            UsageError: every problem of the file and of its systems.
        """
        source = read_yaml(path)
        experiment = cls(validate(ExperimentRecipe, source.values, source.where), source)
        problems = Problems(UsageError)
        for place, message in experiment._contradictions():
            problems.add(f"{source.where(place)}: {message}")
        systems: dict[str, ResolvedSystem] = {}
        for name in experiment.recipe.systems:
            with problems.collect():
                system = experiment._resolve(name)
                twins = [other for other, known in systems.items() if replace(known, name=name) == system]
                systems[name] = system
                experiment._check(system)
                if twins:
                    raise UsageError(
                        f"{source.where(('systems', name))}: systems {twins[0]} and {name} ask for the same "
                        "training: leave one out"
                    )
        problems.raise_any()
        return experiment

    @cached_property
    def systems(self) -> Mapping[str, ResolvedSystem]:
        return {name: self._resolve(name) for name in self.recipe.systems}

    @property
    def dev(self) -> str | None:
        return None if self.recipe.dev is None else self._spec(self.recipe.dev)

    @property
    def student(self) -> StudentOptions:
        checkpoint = self._checkpoint(self.recipe.student.checkpoint)
        return self.recipe.student.model_copy(update={"checkpoint": checkpoint})

    @property
    def new_student(self) -> bool:
        """Whether students are new models, not existing checkpoints."""
        return self.recipe.student.new

    @property
    def smaller_student(self) -> bool:
        """Whether students are cut from a checkpoint."""
        asked = self.recipe.student
        return not asked.new and (asked.layers, asked.vocabulary) != (None, None)

    def located(self, teacher: TeacherOptions) -> TeacherOptions:
        """A teacher with the path of its checkpoint."""
        return teacher.model_copy(update={"checkpoint": self._checkpoint(teacher.checkpoint)})

    @property
    def max_length(self) -> int:
        """Longest input of a new student, in tokens."""
        return max(self.recipe.stage1.max_length, self.recipe.stage2.max_length)

    @property
    def tokenizer_texts(self) -> tuple[Path | None, Path]:
        """Pairs and table. A new student's tokenizer is trained on the pairs, if there are any; a vocabulary
        is cut to both.
        """
        pairs, table = self.recipe.data.pairs, self.recipe.data.table
        return None if pairs is None else self._place(pairs), self._place(table)

    def specs(self, collection: str) -> tuple[str, ...]:
        """The collections of a pool."""
        return tuple(self._spec(spec) for spec in self.recipe.collections[collection])

    def encoding(self, encoder: str) -> dict[str, Any]:
        """`EncoderOptions` of an encoder of `others`, without those that are its own."""
        found: dict[str, Any] = {}
        if encoder == TEACHER:
            teacher = self.recipe.teacher
            found = teacher.model_dump(include={"max_length", "query_prompt"})
            found["document_prompt"] = teacher.passage_prompt
        elif encoder == STUDENT:
            found = self.student.encoding() | self.recipe.encoder.model_dump(exclude_none=True)
        return {name: value for name, value in found.items() if value is not None}

    def checkpoint(self, encoder: str) -> str:
        """The checkpoint of an encoder of `others`; for the student, the one that it is cut from."""
        if encoder == TEACHER:
            return self.located(self.recipe.teacher).checkpoint
        return self.student.checkpoint if encoder == STUDENT else self._checkpoint(encoder)

    def training(self, system: ResolvedSystem, seed: int, student: str) -> Recipe:
        """The recipe of a system's stages; the next stage starts from this student."""
        return Recipe(
            student=StudentOptions(checkpoint=student, **self.student.encoding()),
            teacher=self.located(system.teacher),
            anchor_teacher=None if system.anchor_teacher is None else self.located(system.anchor_teacher),
            pairs=None if system.pairs is None else str(system.pairs),
            table=str(system.table),
            dev=self.dev,
            seed=seed,
            stage1=system.stage1 or self.recipe.stage1,
            stage2=system.stage2,
        )

    def _contradictions(self) -> Iterator[tuple[Place, str]]:
        recipe = self.recipe
        if recipe.baseline is not None and recipe.baseline not in recipe.names:
            expected = f"expected one of the systems {', '.join(recipe.names)}"
            yield ("baseline",), f"baseline is {recipe.baseline!r}, {expected}"
        elif recipe.baseline is not None and len(recipe.names) < 2:
            yield (
                ("baseline",),
                f"baseline {recipe.baseline} is the only system: name another one to compare with it",
            )
        twice = sorted({seed for seed in recipe.seeds if recipe.seeds.count(seed) > 1})
        if twice:
            yield ("seeds",), f"seeds: {', '.join(map(str, twice))} is listed twice: name each seed once"
        if "objective" in recipe.stage2.model_fields_set:
            yield ("stage2", "objective"), "stage2.objective: each system sets its own: leave it out here"
        sections = [recipe.stage1.model_dump(), recipe.stage2.model_dump()]
        sections += [
            section for system in recipe.systems.values() for section in (system.stage1, system.stage2)
        ]
        if recipe.anchor_teacher and not any(section.get("anchor_share") for section in sections):
            said = (
                "no system has an anchor_share in stage1 or stage2: add one, such as 0:0.5, or leave it out"
            )
            yield ("anchor_teacher",), f"anchor_teacher: {said}"
        for name, other in recipe.others.items():
            for said in self._contradicted(name, other):
                yield ("others", name), f"others.{name}: {said}"

    def _contradicted(self, name: str, other: OtherSystem) -> Iterator[str]:
        recipe = self.recipe
        if name in recipe.systems:
            yield "a trained system has this name: choose another"
        if other.encoder == STUDENT and self.new_student:
            new = recipe.student.checkpoint
            yield f"{new} has random weights before training: start from a checkpoint, or leave this out"
        known = [one for one in recipe.names if one not in recipe.others or not recipe.others[one].fusion]
        for part in other.fusion or ():
            if part not in known:
                yield f"it fuses {part!r}, expected some of {', '.join(known)}"

    def _resolve(self, name: str) -> ResolvedSystem:
        """A system with all its options; raises a UsageError for invalid ones."""
        recipe, system = self.recipe, self.recipe.systems[name]

        def changed(section: str, shared: Options, changes: Mapping[str, Any]) -> Options:
            return validate(
                type(shared),
                {**shared.model_dump(), **changes},
                lambda place: f"{self.source.where(('systems', name, section, *place))}: systems.{name}",
            )

        data = system.anchor or recipe.data
        metric = {} if system.metric is None else {"metric": system.metric}
        stage1 = None
        if system.warmed_up:
            stage1 = _with_input(changed("stage1", recipe.stage1, {**system.stage1, **metric}))
        own = {
            "objective": system.objective,
            "contrastive_weight": system.contrastive_weight,
            # Without stage 1 there is no projection to carry.
            "carry_projection": system.carry_projection if system.warmed_up else False,
            **metric,
        }
        given = {name: value for name, value in own.items() if value is not None}
        stage2 = changed("stage2", recipe.stage2, {**system.stage2, **given})
        if stage2.objective is Objective.MIMO and not stage2.carry_projection:
            stage2 = _with_input(stage2)
        return ResolvedSystem(
            name,
            stage1,
            stage2,
            self._place(data.pairs) if system.warmed_up and data.pairs is not None else None,
            self._place(data.table),
            system.teacher or recipe.teacher,
            recipe.anchor_teacher
            if any(stage and stage.anchor_share for stage in (stage1, stage2))
            else None,
        )

    def _check(self, system: ResolvedSystem) -> None:
        """Raises a UsageError if a system does not fit its data or the shared student."""
        where = f"{self.source.where(('systems', system.name))}: systems.{system.name}"
        problems = Problems(UsageError)
        if system.stage1 is not None and system.pairs is None:
            section = "anchor" if self.recipe.systems[system.name].anchor else "data"
            problems.add(f"{where} has a warm-up and {section} has no pairs: name them")
        stages = ["stage1", "stage2"] if system.stage1 is not None else ["stage2"]
        try:
            check_anchor_teacher(self.training(system, 0, "student"), stages)
            if system.stage1 is not None:
                check_inputs(system.stage1, system.stage2)
        except UsageError as error:
            problems.add(f"{where}: {error}")
        longest = max(stage.max_length for stage in (system.stage1, system.stage2) if stage is not None)
        if longest > self.max_length:
            problems.add(
                f"{where} reads {longest} tokens, the shared student {self.max_length}: the shared stage1 or "
                "stage2 must have the largest max_length"
            )
        problems.raise_any()

    def _place(self, path: str) -> Path:
        """A path of the recipe, relative to the recipe's directory."""
        return self.source.path.absolute().parent / Path(path).expanduser()

    def _spec(self, spec: str) -> str:
        if not spec.startswith(FOLDER_PREFIX):
            return spec
        return f"{FOLDER_PREFIX}{self._place(spec.removeprefix(FOLDER_PREFIX))}"

    def _checkpoint(self, checkpoint: str) -> str:
        """A directory beside the recipe; every other name as it is."""
        directory = self._place(checkpoint)
        return str(directory) if directory.is_dir() else checkpoint


def _with_input(options: Options) -> Options:
    """The options with an explicit projection input, which is a part of directory names."""
    return options.model_copy(update={"projection_input": options.projection_input or PROJECTION_INPUT})
