"""The systems of a recipe with all their options, paths resolved."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mimo_plugin.collections.folder import PREFIX
from mimo_plugin.errors import Problems, UsageError
from mimo_plugin.experiment.recipe import ExperimentRecipe, System, read_recipe
from mimo_plugin.manifests import field_problems
from mimo_plugin.training.options import (
    PROJECTION_INPUT,
    Recipe,
    Stage1Options,
    Stage2Options,
    StageOptions,
    StudentOptions,
    TeacherSettings,
)
from mimo_plugin.training.projection import check_inputs
from mimo_plugin.training.schedule import Objective

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
    file: Path

    @classmethod
    def read(cls, path: Path) -> "Experiment":
        """Reads a recipe file.

        Raises:
            UsageError: it is no recipe, or a system asks for what cannot be; all of it together.
        """
        experiment = cls(read_recipe(path), path)
        problems = Problems(UsageError)
        _check_grid(experiment.recipe, problems)
        systems: dict[str, ResolvedSystem] = {}
        for name in experiment.recipe.systems:
            try:
                system = experiment._resolve(name)
            except ValidationError as error:
                problems.extend(f"{path}: systems.{name}: {problem}" for problem in field_problems(error))
                continue
            problems.extend(experiment._problems(system))
            twin = next((other for other in systems.values() if replace(other, name=name) == system), None)
            if twin is not None:
                problems.add(f"systems {twin.name} and {name} ask for the same training: leave one out")
            systems[name] = system
        problems.raise_any()
        return experiment

    @property
    def base(self) -> Path:
        return self.file.absolute().parent

    @cached_property
    def systems(self) -> Mapping[str, ResolvedSystem]:
        return {name: self._resolve(name) for name in self.recipe.systems}

    @property
    def dev(self) -> str | None:
        return None if self.recipe.dev is None else self._spec(self.recipe.dev)

    @property
    def student(self) -> StudentOptions:
        return self.recipe.student.model_copy(
            update={"checkpoint": self._checkpoint(self.recipe.student.checkpoint)}
        )

    @property
    def teacher(self) -> TeacherSettings:
        return self.recipe.teacher.model_copy(
            update={"checkpoint": self._checkpoint(self.recipe.teacher.checkpoint)}
        )

    @property
    def max_length(self) -> int:
        """What a new student must be able to read, in tokens."""
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

    def _resolve(self, name: str) -> ResolvedSystem:
        recipe, system = self.recipe, self.recipe.systems[name]
        data = system.anchor or recipe.data
        metric = {} if system.metric is None else {"metric": system.metric}
        stage1 = None
        if system.warmed_up:
            stage1 = _with_input(_changed(recipe.stage1, {**system.stage1, **metric}))
        stage2 = _changed(recipe.stage2, {**system.stage2, **metric, **_objective(system)})
        if stage2.objective is Objective.MIMO and not stage2.carry_projection:
            stage2 = _with_input(stage2)
        return ResolvedSystem(
            name,
            stage1,
            stage2,
            self._place(data.pairs) if system.warmed_up and data.pairs is not None else None,
            self._place(data.table),
        )

    def _problems(self, system: ResolvedSystem) -> list[str]:
        problems = []
        if system.stage1 is not None and system.pairs is None:
            section = "anchor" if self.recipe.systems[system.name].anchor else "data"
            problems.append(f"systems.{system.name} has a warm-up and {section} has no pairs: name them")
        if system.stage1 is not None:
            try:
                check_inputs(system.stage1, system.stage2)
            except UsageError as error:
                problems.append(f"systems.{system.name}: {error}")
        longest = max(stage.max_length for stage in (system.stage1, system.stage2) if stage is not None)
        if longest > self.max_length:
            problems.append(
                f"systems.{system.name} reads {longest} tokens, the shared student {self.max_length}: the "
                "shared stage1 or stage2 must have the largest max_length"
            )
        return problems

    def _place(self, path: str) -> Path:
        """A path of the recipe; what is neither absolute nor of a home directory is beside it."""
        return self.base / Path(path).expanduser()

    def _spec(self, spec: str) -> str:
        return f"{PREFIX}{self._place(spec.removeprefix(PREFIX))}" if spec.startswith(PREFIX) else spec

    def _checkpoint(self, checkpoint: str) -> str:
        """A directory beside the recipe; every other name as it is."""
        directory = self._place(checkpoint)
        return str(directory) if directory.is_dir() else checkpoint


def _check_grid(recipe: ExperimentRecipe, problems: Problems) -> None:
    if recipe.baseline is not None and recipe.baseline not in recipe.systems:
        problems.add(
            f"baseline is {recipe.baseline!r}, expected one of the systems {', '.join(recipe.systems)}"
        )
    elif recipe.baseline is not None and len(recipe.systems) < 2:
        problems.add(f"baseline {recipe.baseline} is the only system: name another one to compare with it")
    twice = sorted({seed for seed in recipe.seeds if recipe.seeds.count(seed) > 1})
    if twice:
        problems.add(f"seeds: {', '.join(map(str, twice))} is there twice: name each seed once")
    if "objective" in recipe.stage2.model_fields_set:
        problems.add("stage2.objective: each system says its own: leave it out here")


def _objective(system: System) -> dict[str, Any]:
    """Fields of the stage-2 options that a system says itself."""
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
    """With what its new projection reads said, since directories are named by it."""
    return options.model_copy(update={"projection_input": options.projection_input or PROJECTION_INPUT})


def _changed(options: Options, changes: Mapping[str, Any]) -> Options:
    """Options with some fields in place of the shared ones, all validated."""
    return type(options).model_validate({**options.model_dump(), **changes})
