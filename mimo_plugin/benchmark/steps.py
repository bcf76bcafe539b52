"""The steps of an experiment, and where their results lie."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from mimo_plugin.benchmark.grid import STUDENT, Experiment, OtherSystem, ResolvedSystem
from mimo_plugin.data.sources import collection_identity, files_identity, identity_key
from mimo_plugin.pyserini.bm25 import K1, B
from mimo_plugin.training.data import DataManifest
from mimo_plugin.training.recipe import StageOptions
from mimo_plugin.training.run import checkpoint_of


class StepKind(StrEnum):
    STUDENT = "new student"
    WARM_UP = "warm-up"
    TRAINING = "training"
    SCORES = "scores"


@dataclass(frozen=True)
class Step:
    """Attributes:
    text: description for the user.
    directory: holds the result of the step.
    system: for a shared student or warm-up, the first of the systems that share it.
    collection: name of the scored collection; empty in other steps.
    """

    kind: StepKind
    text: str
    directory: Path
    seed: int
    system: ResolvedSystem
    collection: str = ""

    @property
    def taught(self) -> bool:
        """Whether the step needs the teacher."""
        return self.kind is StepKind.WARM_UP or (self.kind is StepKind.TRAINING and self.system.taught)

    @property
    def anchored(self) -> bool:
        """Whether it also needs the anchor teacher."""
        stage = self.system.stage1 if self.kind is StepKind.WARM_UP else self.system.stage2
        return self.taught and stage is not None and stage.anchor_share is not None


@dataclass(frozen=True)
class OtherStep:
    """Scores of a system that is not trained; attributes as those of `Step`."""

    text: str
    directory: Path
    seed: int | None
    name: str
    system: OtherSystem
    collection: str


def all_steps(
    experiment: Experiment, layout: "Layout", names: Sequence[str], seeds: Sequence[int]
) -> Iterator[Step | OtherStep]:
    """All steps of these systems in order of seeds and dependencies; shared steps repeat.

    What needs no training comes first, so that what cannot be had shows before hours of training.
    """
    recipe = experiment.recipe
    systems = [experiment.systems[name] for name in names if name in experiment.systems]
    # Fusions come after their parts.
    others = {
        name: recipe.others[name]
        for name in sorted(recipe.others, key=lambda name: recipe.others[name].fusion is not None)
        if name in names
    }
    start = layout.student(seeds[0])
    if start is not None and any(other.encoder == STUDENT for other in others.values()):
        any_system = next(iter(experiment.systems.values()))
        yield Step(StepKind.STUDENT, "smaller student", start, seeds[0], any_system)

    def of_others(seed: int | None) -> Iterator[OtherStep]:
        for name, other in others.items():
            for collection in recipe.collections if seed in recipe.fused_seeds(name) else ():
                directory = layout.other(name, seed, collection)
                text = f"scores of {name}{'' if seed is None else f', seed {seed}'} on {collection}"
                yield OtherStep(text, directory, seed, name, other, collection)

    yield from of_others(None)
    for seed in seeds:
        student = layout.student(seed)
        if student is not None and systems:
            text = f"new student, seed {seed}" if experiment.new_student else "smaller student"
            yield Step(StepKind.STUDENT, text, student, seed, systems[0])
        for system in systems:
            if system.stage1 is not None:
                directory = layout.warm_up(system, seed)
                sharing = [
                    other.name
                    for other in systems
                    if other.stage1 is not None and layout.warm_up(other, seed) == directory
                ]
                text = f"warm-up of {', '.join(sharing)}, seed {seed}"
                yield Step(StepKind.WARM_UP, text, directory, seed, system)
            name = f"{system.name}, seed {seed}"
            yield Step(StepKind.TRAINING, f"training of {name}", layout.training(system, seed), seed, system)
            for collection in recipe.collections:
                directory = layout.scores(system, seed, collection)
                text = f"scores of {name} on {collection}"
                yield Step(StepKind.SCORES, text, directory, seed, system, collection)
        yield from of_others(seed)


class Layout:
    """Where the parts of an experiment lie; names contain a key of everything that determines a part.

    Args:
        data: directory -> manifest of the experiment's data.
    """

    def __init__(self, experiment: Experiment, output: Path, data: Mapping[Path, DataManifest]) -> None:
        self.results, self.tables = output / "results.json", output / "results.md"
        self._output = output
        self._experiment = experiment
        self._data = data
        self._content = cache(_content)

    def student(self, seed: int) -> Path | None:
        """The new or smaller student; None if an existing checkpoint is the student."""
        students = self._output / "students" / identity_key(self._student)
        if self._experiment.new_student:
            return students / f"seed-{seed}"
        return students / "cut" if self._experiment.smaller_student else None

    def warm_up(self, system: ResolvedSystem, seed: int) -> Path:
        return self._output / "warm-ups" / identity_key(self._warm_up(system)) / f"seed-{seed}"

    def training(self, system: ResolvedSystem, seed: int) -> Path:
        return self._system(system, seed) / "training"

    def scores(self, system: ResolvedSystem, seed: int, collection: str) -> Path:
        return self._system(system, seed) / "scores" / collection

    def other(self, name: str, seed: int | None, collection: str) -> Path:
        """Scores of a system that is not trained."""
        system = self._experiment.recipe.others[name]
        identity: dict[str, Any]
        if system.encoder is not None:
            checkpoint = self._experiment.checkpoint(system.encoder)
            own = {"checkpoint": checkpoint, **self._content(checkpoint)}
            identity = {"encoder": self._student if system.encoder == STUDENT else own}
        elif system.bm25 is not None:
            identity = {"bm25": system.bm25, "k1": K1, "b": B}
        else:
            identity = system.model_dump(mode="json")
        place = self._output / "systems" / f"{name}-{identity_key(identity)}"
        return (place if seed is None else place / f"seed-{seed}") / "scores" / collection

    def _system(self, system: ResolvedSystem, seed: int) -> Path:
        start = self._student if system.stage1 is None else self._warm_up(system)
        identity = {
            "start": start,
            "options": system.stage2.identity(),
            "data": self._data[system.table].fingerprint,
            "dev": self._dev,
            **(self._teachers(system, system.stage2) if system.taught else {"teacher": None}),
        }
        return self._output / "systems" / f"{system.name}-{identity_key(identity)}" / f"seed-{seed}"

    @cached_property
    def _student(self) -> dict[str, Any]:
        student = self._experiment.recipe.student.identity()
        pairs, table = self._experiment.tokenizer_texts
        if not self._experiment.new_student:
            content = _content(self._experiment.student.checkpoint)
            if self._experiment.smaller_student:
                content["texts"] = [self._data[place].fingerprint for place in (pairs, table) if place]
            return {**student, **content}
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
            **self._teachers(system, system.stage1),
        }

    @cached_property
    def _dev(self) -> Any:
        return None if self._experiment.dev is None else collection_identity(self._experiment.dev)

    def _teachers(self, system: ResolvedSystem, stage: StageOptions) -> dict[str, Any]:
        taught = {"teacher": system.teacher}
        if stage.anchor_share is not None and system.anchor_teacher is not None:
            taught["anchor_teacher"] = system.anchor_teacher
        return {
            name: {**teacher.identity(), **self._content(self._experiment.located(teacher).checkpoint)}
            for name, teacher in taught.items()
        }


def _content(checkpoint: str) -> dict[str, Any]:
    """Hashes of the files in a checkpoint directory; empty for other checkpoints, which cannot change."""
    directory = Path(checkpoint)
    return {"files": files_identity(Path(checkpoint_of(checkpoint)))} if directory.is_dir() else {}
