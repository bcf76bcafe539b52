"""The steps of an experiment, and what is checked before the first one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.benchmark.grid import RECIPE, EncoderSettings, Experiment, Layout, ResolvedSystem
from mimo_plugin.benchmark.scoring import ScoredCollection, Scores, read_scores
from mimo_plugin.core.config import read_yaml
from mimo_plugin.core.errors import ArtifactError, Findings, UsageError, near
from mimo_plugin.core.files import check_place
from mimo_plugin.encoder import packaged
from mimo_plugin.training.data import DataManifest, Format, read_manifest
from mimo_plugin.training.run import RunDirectory, TrainingManifest, checkpoint_of
from mimo_plugin.training.student import PREFIX, parse_size

if TYPE_CHECKING:
    from mimo_plugin.evaluation.measures import Measure


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


@dataclass(frozen=True)
class Checked:
    """Attributes:
    systems, seeds: those to run.
    measures: the measures asked for.
    """

    layout: Layout
    collections: dict[str, ScoredCollection]
    systems: tuple[str, ...]
    seeds: tuple[int, ...]
    measures: tuple["Measure", ...]


def check_experiment(
    experiment: Experiment,
    output: Path,
    *,
    only: Sequence[str] = (),
    seeds: int | None = None,
    device: str | None = None,
    progress: bool | None = None,
) -> Checked:
    """Checks data, collections, models and place of an experiment.

    Args:
        only: systems to run; none are all.
        seeds: run the first so many of the recipe's.

    Raises:
        MimoError: with every problem.
    """
    from mimo_plugin.encoder.checkpoint import check_device

    recipe = experiment.recipe
    findings = Findings()
    data: dict[Path, DataManifest] = {}
    for directory, kind in _data(experiment).items():
        manifest = findings.attempt(read_manifest, directory, kind)
        if manifest is not None:
            data[directory] = manifest
    _check_batches(experiment, data, findings)
    findings.attempt(_check_models, experiment)
    findings.attempt(check_device, device)
    measures = findings.attempt(_measures, recipe.measures)
    findings.attempt(_check_output, output)
    findings.add(UsageError, _selection_problems(experiment, only, seeds))
    _check_collections(experiment, findings)
    findings.raise_any()
    collections = {
        name: findings.attempt(ScoredCollection.load, name, experiment.specs(name), progress=progress)
        for name in recipe.collections
    }
    return Checked(
        Layout(experiment, output, data),
        {name: findings.complete(found) for name, found in collections.items()},
        tuple(name for name in recipe.systems if not only or name in only),
        recipe.seeds if seeds is None else recipe.seeds[:seeds],
        findings.complete(measures),
    )


def _data(experiment: Experiment) -> dict[Path, Format]:
    found: dict[Path, Format] = {}
    pairs, table = experiment.tokenizer_texts
    for directory, kind in (
        (pairs, Format.PAIRS),
        (table, Format.TABLE),
        *((system.pairs, Format.PAIRS) for system in experiment.systems.values()),
        *((system.table, Format.TABLE) for system in experiment.systems.values()),
    ):
        if directory is not None:
            found.setdefault(directory, kind)
    return found


def _check_batches(experiment: Experiment, data: dict[Path, DataManifest], findings: Findings) -> None:
    problems: dict[str, None] = {}
    for system in experiment.systems.values():
        for directory, options in ((system.pairs, system.stage1), (system.table, system.stage2)):
            manifest = None if directory is None else data.get(directory)
            if manifest is None or options is None:
                continue
            try:
                steps = options.steps_on(manifest.rows)
                options.steps_between_checkpoints(steps, scored=experiment.dev is not None)
            except UsageError as error:
                problems[f"{directory}: {error}"] = None
    findings.add(UsageError, problems)


def _check_models(experiment: Experiment) -> None:
    student, teacher = experiment.student.checkpoint, experiment.teacher.checkpoint
    findings = Findings()
    dimension = experiment.recipe.encoder.dimension
    if student.startswith(PREFIX):
        size = findings.attempt(parse_size, student)
        if size is not None and dimension is not None and dimension > size.hidden:
            findings.add(
                UsageError,
                [
                    f"encoder.dimension: {student} gives {size.hidden} dimensions, expected a number "
                    f"up to that (found {dimension})"
                ],
            )
    else:
        findings.attempt(packaged.resolve, student)
        findings.attempt(checkpoint_of, student)
    if any(system.taught or system.stage1 is not None for system in experiment.systems.values()):
        findings.attempt(packaged.resolve, teacher)
        if student == teacher:
            findings.add(
                UsageError,
                [
                    f"student and teacher are both {student}: the teacher is a frozen English encoder, the "
                    "student the multilingual one that is trained"
                ],
            )
    findings.raise_any()


def _measures(names: Sequence[str]) -> tuple["Measure", ...]:
    from mimo_plugin.evaluation.measures import MeasureKind, parse_measures

    measures = parse_measures(names)
    if measures[0].kind is MeasureKind.JUDGED:
        raise UsageError(
            f"measures begin with {measures[0]}, which is no measure of quality: the first is the one that "
            "is tested, for example ndcg@20"
        )
    return measures


def _check_output(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise ArtifactError(f"{output} is a file: --output must name a new or empty directory")
    names = (
        {path.name for path in output.iterdir() if not path.name.startswith(".")}
        if output.exists()
        else set()
    )
    if names and not _is_experiments(output / RECIPE):
        raise ArtifactError(
            f"{output} holds something else ({', '.join(sorted(names)[:5])}): --output must name a new or "
            "empty directory, or that of an experiment"
        )
    check_place(output / RECIPE)


def _is_experiments(recipe: Path) -> bool:
    """Whether a file is an experiment's copy of its recipe; a training run has one of that name, too."""
    try:
        return "systems" in read_yaml(recipe).values
    except UsageError:
        return False


def _selection_problems(experiment: Experiment, only: Sequence[str], seeds: int | None) -> list[str]:
    known = experiment.recipe.systems
    problems = [
        f"--only {name}: no such system{near(name, known)}; expected one of {', '.join(known)}"
        for name in only
        if name not in known
    ]
    there = len(experiment.recipe.seeds)
    if seeds is not None and not 1 <= seeds <= there:
        problems.append(f"--seeds {seeds}: the recipe has {there} seeds, expected a number from 1 to {there}")
    return problems


def _check_collections(experiment: Experiment, findings: Findings) -> None:
    from mimo_plugin.collections.loading import require

    for name in experiment.recipe.collections:
        findings.attempt(require, experiment.specs(name), docs=True, queries=True, qrels=True)
    if experiment.dev is not None:
        findings.attempt(require, [experiment.dev], docs=True, queries=True, qrels=True)
