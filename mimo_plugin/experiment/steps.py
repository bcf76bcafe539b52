"""What an experiment has to do, in order, and what of it is done."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mimo_plugin.errors import ArtifactError
from mimo_plugin.experiment.collection import ScoredCollection
from mimo_plugin.experiment.layout import Layout
from mimo_plugin.experiment.recipe import EncoderSettings
from mimo_plugin.experiment.scores import Scores, read_scores
from mimo_plugin.experiment.systems import Experiment, ResolvedSystem
from mimo_plugin.training.run_directory import RunDirectory, TrainingManifest


class Kind(StrEnum):
    STUDENT = "new student"
    WARM_UP = "warm-up"
    TRAINING = "training"
    SCORES = "scores"


@dataclass(frozen=True)
class Step:
    """Attributes:
    text: for a reader.
    directory: that holds what the step makes.
    system: None for a student; for a warm-up the first of those that share it.
    collection: of scores only.
    """

    kind: Kind
    text: str
    directory: Path
    seed: int
    system: ResolvedSystem | None = None
    collection: str | None = None

    @property
    def taught(self) -> bool:
        """Whether it needs the teacher."""
        if self.kind is Kind.TRAINING and self.system is not None:
            return self.system.taught
        return self.kind is Kind.WARM_UP


def all_steps(
    experiment: Experiment, layout: Layout, systems: Sequence[str], seeds: Sequence[int]
) -> list[Step]:
    """Every step of these systems and seeds, seed after seed, each after what it needs."""
    steps: dict[Path, Step] = {}
    for seed in seeds:
        for step in _steps_of(experiment, layout, [experiment.systems[name] for name in systems], seed):
            steps.setdefault(step.directory, step)
    return list(steps.values())


def _steps_of(
    experiment: Experiment, layout: Layout, systems: Sequence[ResolvedSystem], seed: int
) -> Iterator[Step]:
    student = layout.student(seed)
    if student is not None:
        yield Step(Kind.STUDENT, f"new student, seed {seed}", student, seed)
    for system in systems:
        if system.stage1 is not None:
            directory = layout.warm_up(system, seed)
            sharing = [
                other.name
                for other in systems
                if other.stage1 is not None and layout.warm_up(other, seed) == directory
            ]
            text = f"warm-up of {', '.join(sharing)}, seed {seed}"
            yield Step(Kind.WARM_UP, text, directory, seed, system)
        name = f"{system.name}, seed {seed}"
        yield Step(Kind.TRAINING, f"training of {name}", layout.training(system, seed), seed, system)
        for collection in experiment.recipe.collections:
            directory = layout.scores(system, seed, collection)
            text = f"scores of {name} on {collection}"
            yield Step(Kind.SCORES, text, directory, seed, system, collection)


class Done:
    """What lies there finished; reads manifests, and opens no model.

    Args:
        collections: by name, as they are now.
        measures: the measures asked for.
        encoder: how students are scored.
    """

    def __init__(
        self,
        layout: Layout,
        collections: Mapping[str, ScoredCollection],
        measures: tuple[str, ...],
        encoder: EncoderSettings,
    ) -> None:
        self._layout = layout
        self._collections = collections
        self._measures = measures
        self._encoding = encoder.model_dump(exclude_none=True)

    def __call__(self, step: Step) -> bool:
        """Raises:
        ArtifactError: what lies there is damaged.
        """
        if step.kind is Kind.STUDENT:
            return step.directory.is_dir()
        if step.kind is Kind.SCORES and step.system is not None and step.collection is not None:
            return self.scores(step.system, step.seed, step.collection) is not None
        return _finished(step.directory) is not None

    def training(self, system: ResolvedSystem, seed: int) -> TrainingManifest | None:
        return _finished(self._layout.training(system, seed))

    def warm_up(self, system: ResolvedSystem, seed: int) -> TrainingManifest | None:
        return None if system.stage1 is None else _finished(self._layout.warm_up(system, seed))

    def scores(self, system: ResolvedSystem, seed: int, collection: str) -> Scores | None:
        manifest = self.training(system, seed)
        if manifest is None:
            return None
        directory = self._layout.scores(system, seed, collection)
        fingerprint = self._collections[collection].fingerprint
        return read_scores(directory, manifest, fingerprint, self._measures, self._encoding)


def _finished(directory: Path) -> TrainingManifest | None:
    try:
        return RunDirectory(directory).finished()
    except ArtifactError as error:
        raise ArtifactError(
            f"{error}; in an experiment: delete {directory}, it will be made again"
        ) from error
