"""An experiment: recipe, systems, and the layout of its directory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field

from mimo_plugin.benchmark.config import ConsistentRecord, Name
from mimo_plugin.collections.folder import FOLDER_PREFIX
from mimo_plugin.core.artifact import Record
from mimo_plugin.core.config import Place, YamlFile, read_yaml, validate
from mimo_plugin.core.errors import Problems, UsageError
from mimo_plugin.data.sources import collection_identity, files_identity, identity_key
from mimo_plugin.evaluation.options import Correction, SignificanceTest
from mimo_plugin.evaluation.significance import Plan
from mimo_plugin.training.data import DataManifest
from mimo_plugin.training.recipe import (
    PROJECTION_INPUT,
    Metric,
    Recipe,
    Share,
    Stage1Options,
    Stage2Options,
    StageOptions,
    StudentOptions,
    TeacherOptions,
)
from mimo_plugin.training.run import check_inputs, checkpoint_of
from mimo_plugin.training.schedule import Objective
from mimo_plugin.training.student import PREFIX

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Specs = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(lambda found: (found,) if isinstance(found, str) else found),
    Field(min_length=1),
]

# What a system says by fields of its own.
_OWN_FIELDS = {
    "objective": "objective",
    "contrastive_weight": "lambda",
    "carry_projection": "carry_projection",
    "metric": "metric",
}


class Data(Record):
    """Directories that `mimo data` wrote.

    Attributes:
        pairs: of stage 1; None where no system has a warm-up.
        table: of stage 2.
    """

    pairs: str | None = None
    table: str


class GridSystem(ConsistentRecord):
    """Options of one system in place of the shared ones.

    Attributes:
        objective: of stage 2.
        warm_up: whether stage 1 comes before; None is yes for MIMO and no for a baseline.
        contrastive_weight: lambda; None is that of the shared stage-2 options. MIMO only.
        carry_projection: see `Stage2Options`. MIMO with a warm-up only.
        metric: of the distillation in both stages.
        anchor: data made for another anchor language, in place of the shared.
        stage1, stage2: further options in place of the shared ones.
    """

    objective: Objective
    warm_up: bool | None = None
    contrastive_weight: Share | None = Field(None, alias="lambda")
    carry_projection: bool | None = None
    metric: Metric | None = None
    anchor: Data | None = None
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
        if self.metric is not None and not mimo and not self.warmed_up:
            yield f"metric is of the distillation, {self.objective} without a warm-up has none: leave it out"
        if self.stage1 and not self.warmed_up:
            yield "stage1 has options, and there is no warm-up: leave them out or say `warm_up: true`"
        for section in ("stage1", "stage2"):
            for field in sorted(_OWN_FIELDS.keys() & getattr(self, section)):
                yield f"{section}.{field} is said for the whole system: `{_OWN_FIELDS[field]}: ...`"


class EncoderSettings(Record):
    """How trained students encode when they are scored; None is the student's own setting.

    Attributes:
        query_prompt, document_prompt, dimension: see `EncoderOptions`.
    """

    query_prompt: str | None = None
    document_prompt: str | None = None
    dimension: Annotated[int, Field(ge=1)] | None = None


class ExperimentRecipe(Record):
    """A grid of systems and seeds; paths are relative to the recipe's own directory.

    Attributes:
        name: of the experiment.
        data: that all systems are trained on.
        dev: collection that is scored during training, so that the best checkpoint is kept; None keeps the
            last.
        collections: name -> the collections of the pool that every trained student is scored on.
        student, teacher, stage1, stage2: shared by all systems.
        encoder: how the trained students are scored.
        systems: name -> what is its own.
        seeds: every system is trained under each.
        baseline: system that the others are compared with; None compares nothing.
        measures: the first is the one that is tested.
        test, correction, alpha, permutations: as `mimo evaluate` has them.
    """

    name: Name
    data: Data
    dev: str | None = None
    collections: Annotated[dict[Name, Specs], Field(min_length=1)]
    student: StudentOptions = StudentOptions()
    teacher: TeacherOptions = TeacherOptions()
    stage1: Stage1Options = Stage1Options()
    stage2: Stage2Options = Stage2Options()
    encoder: EncoderSettings = EncoderSettings()
    systems: Annotated[dict[Name, GridSystem], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (1, 2, 3)
    baseline: str | None = None
    measures: Annotated[tuple[str, ...], Field(min_length=1)] = ("ndcg@20", "recall@100")
    test: Literal[SignificanceTest.STUDENT, SignificanceTest.PERMUTATION] = SignificanceTest.STUDENT
    correction: Correction = Correction.HOLM
    alpha: Annotated[float, Field(gt=0, lt=1)] = Plan.alpha
    permutations: Annotated[int, Field(ge=1000)] = Plan.permutations


Options = TypeVar("Options", bound=StageOptions)


@dataclass(frozen=True)
class ResolvedSystem:
    """Attributes:
    stage1: None where there is no warm-up.
    pairs: None likewise.
    """

    name: str
    stage1: Stage1Options | None
    stage2: Stage2Options
    pairs: Path | None
    table: Path

    @property
    def taught(self) -> bool:
        """Whether stage 2 needs the teacher."""
        return self.stage2.objective is Objective.MIMO


@dataclass(frozen=True)
class Experiment:
    """A recipe and its file, whose directory its paths are relative to."""

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
                system = systems[name] = experiment._resolve(name)
                experiment._check(system)
                twin = next(
                    (other for other in systems.values() if replace(other, name=name) == system), system
                )
                if twin is not system:
                    raise UsageError(
                        f"{source.where(('systems', name))}: systems {twin.name} and {name} ask for the same "
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
        return self.recipe.student.checkpoint.startswith(PREFIX)

    @property
    def teacher(self) -> TeacherOptions:
        checkpoint = self._checkpoint(self.recipe.teacher.checkpoint)
        return self.recipe.teacher.model_copy(update={"checkpoint": checkpoint})

    @property
    def max_length(self) -> int:
        """Longest input of a new student, in tokens."""
        return max(self.recipe.stage1.max_length, self.recipe.stage2.max_length)

    @property
    def tokenizer_texts(self) -> tuple[Path | None, Path]:
        """Pairs, else the table, that the tokenizer of a new student is trained on."""
        pairs, table = self.recipe.data.pairs, self.recipe.data.table
        return None if pairs is None else self._place(pairs), self._place(table)

    def specs(self, collection: str) -> tuple[str, ...]:
        """The collections of a pool to score on."""
        return tuple(self._spec(spec) for spec in self.recipe.collections[collection])

    def training(self, system: ResolvedSystem, seed: int, student: str) -> Recipe:
        """The recipe of a system's stages; the student is the one that its next stage starts from."""
        return Recipe(
            student=StudentOptions(checkpoint=student, **self.student.encoding()),
            teacher=self.teacher,
            pairs=None if system.pairs is None else str(system.pairs),
            table=str(system.table),
            dev=self.dev,
            seed=seed,
            stage1=system.stage1 or self.recipe.stage1,
            stage2=system.stage2,
        )

    def _contradictions(self) -> Iterator[tuple[Place, str]]:
        recipe = self.recipe
        if recipe.baseline is not None and recipe.baseline not in recipe.systems:
            expected = f"expected one of the systems {', '.join(recipe.systems)}"
            yield ("baseline",), f"baseline is {recipe.baseline!r}, {expected}"
        elif recipe.baseline is not None and len(recipe.systems) < 2:
            yield (
                ("baseline",),
                f"baseline {recipe.baseline} is the only system: name another one to compare with it",
            )
        twice = sorted({seed for seed in recipe.seeds if recipe.seeds.count(seed) > 1})
        if twice:
            yield ("seeds",), f"seeds: {', '.join(map(str, twice))} is there twice: name each seed once"
        if "objective" in recipe.stage2.model_fields_set:
            yield ("stage2", "objective"), "stage2.objective: each system says its own: leave it out here"

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
        stage2 = changed("stage2", recipe.stage2, {**system.stage2, **metric, **_objective(system)})
        if stage2.objective is Objective.MIMO and not stage2.carry_projection:
            stage2 = _with_input(stage2)
        return ResolvedSystem(
            name,
            stage1,
            stage2,
            self._place(data.pairs) if system.warmed_up and data.pairs is not None else None,
            self._place(data.table),
        )

    def _check(self, system: ResolvedSystem) -> None:
        """Raises a UsageError if a system does not fit its data or the shared student."""
        where = f"{self.source.where(('systems', system.name))}: systems.{system.name}"
        problems = Problems(UsageError)
        if system.stage1 is not None and system.pairs is None:
            section = "anchor" if self.recipe.systems[system.name].anchor else "data"
            problems.add(f"{where} has a warm-up and {section} has no pairs: name them")
        if system.stage1 is not None:
            try:
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


def _objective(system: GridSystem) -> dict[str, Any]:
    """Stage-2 options that a system sets with fields of its own."""
    fields: dict[str, Any] = {"objective": system.objective}
    if system.contrastive_weight is not None:
        fields["contrastive_weight"] = system.contrastive_weight
    if system.carry_projection is not None:
        fields["carry_projection"] = system.carry_projection
    elif not system.warmed_up:
        # There is no stage 1 whose projection could be carried.
        fields["carry_projection"] = False
    return fields


def _with_input(options: Options) -> Options:
    """The options with an explicit projection input, which is part of directory names."""
    return options.model_copy(update={"projection_input": options.projection_input or PROJECTION_INPUT})


RECIPE = "recipe.yaml"


class Layout:
    """Args:
    data: manifests of the data that the experiment uses, by directory.
    """

    def __init__(self, experiment: Experiment, output: Path, data: Mapping[Path, DataManifest]) -> None:
        self.output = output
        self._experiment = experiment
        self._data = data

    @property
    def recipe(self) -> Path:
        """A copy of the recipe, which marks the directory as an experiment's."""
        return self.output / RECIPE

    @property
    def results(self) -> Path:
        return self.output / "results.json"

    @property
    def tables(self) -> Path:
        return self.output / "results.md"

    def student(self, seed: int) -> Path | None:
        """The new student; None where an existing checkpoint is the student."""
        if not self._experiment.new_student:
            return None
        return self.output / "students" / identity_key(self._student) / f"seed-{seed}"

    def warm_up(self, system: ResolvedSystem, seed: int) -> Path:
        return self.output / "warm-ups" / identity_key(self._warm_up(system)) / f"seed-{seed}"

    def training(self, system: ResolvedSystem, seed: int) -> Path:
        return self._system(system, seed) / "training"

    def scores(self, system: ResolvedSystem, seed: int, collection: str) -> Path:
        return self._system(system, seed) / "scores" / collection

    def _system(self, system: ResolvedSystem, seed: int) -> Path:
        start = self._student if system.stage1 is None else self._warm_up(system)
        identity = {
            "start": start,
            "options": system.stage2.identity(),
            "data": self._data[system.table].fingerprint,
            "dev": self._dev,
            "teacher": self._teacher if system.taught else None,
        }
        return self.output / "systems" / f"{system.name}-{identity_key(identity)}" / f"seed-{seed}"

    @cached_property
    def _student(self) -> dict[str, Any]:
        student = self._experiment.recipe.student.identity()
        if not self._experiment.new_student:
            return {**student, **_content(self._experiment.student.checkpoint)}
        pairs, table = self._experiment.tokenizer_texts
        return {
            **student,
            "max_length": self._experiment.max_length,
            "texts": self._data[pairs or table].fingerprint,
        }

    def _warm_up(self, system: ResolvedSystem) -> dict[str, Any]:
        if system.stage1 is None or system.pairs is None:
            raise ValueError(f"system {system.name} has no warm-up")
        return {
            "start": self._student,
            "options": system.stage1.identity(),
            "data": self._data[system.pairs].fingerprint,
            "dev": self._dev,
            "teacher": self._teacher,
        }

    @cached_property
    def _dev(self) -> Any:
        return None if self._experiment.dev is None else collection_identity(self._experiment.dev)

    @cached_property
    def _teacher(self) -> dict[str, Any]:
        teacher = self._experiment.recipe.teacher.identity()
        return {**teacher, **_content(self._experiment.teacher.checkpoint)}


def _content(checkpoint: str) -> dict[str, Any]:
    """Hashes of a checkpoint directory's files, which may change; empty for other checkpoints."""
    directory = Path(checkpoint)
    return {"files": files_identity(Path(checkpoint_of(checkpoint)))} if directory.is_dir() else {}
