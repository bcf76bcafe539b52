"""Runs an experiment: trains a grid of systems and seeds, and scores all of them on the same collections."""

import gc
import re
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.benchmark.grid import STUDENT, Experiment, ResolvedSystem
from mimo_plugin.benchmark.parts import read_note
from mimo_plugin.benchmark.reproduce import Say
from mimo_plugin.benchmark.scoring import RUN, SCORES, ScoredCollection, Scores, Scoring, weights
from mimo_plugin.benchmark.settings import ExperimentOptions
from mimo_plugin.benchmark.steps import Layout, OtherStep, Step, StepKind, all_steps
from mimo_plugin.collections.records import usual_language
from mimo_plugin.core.artifact import Artifact, Kind, Manifest
from mimo_plugin.core.errors import ArtifactError, Problems, UsageError, near
from mimo_plugin.core.files import sha256
from mimo_plugin.data.sources import identity_key
from mimo_plugin.encoder import packaged
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.evaluation.trained_on import SeenTexts
from mimo_plugin.training.data import DataManifest, Format, open_pairs, open_table, read_manifest
from mimo_plugin.training.recipe import RunSettings
from mimo_plugin.training.run import RunDirectory, TrainingManifest, checkpoint_of
from mimo_plugin.training.stages import train_stage1, train_stage2
from mimo_plugin.training.start import check_packages
from mimo_plugin.training.student import parse_size
from mimo_plugin.training.teacher_store import ANCHOR

if TYPE_CHECKING:
    from mimo_plugin.benchmark.seeds import ExperimentResults
    from mimo_plugin.evaluation.measures import Measure

# The copy of the recipe marks a directory, which may hold other files of the user.
_KIND = Kind(
    Manifest,
    frozenset(),
    "an experiment",
    "mimo experiment",
    re.compile(".*"),
    mark="recipe.yaml",
    mark_stays=True,
)


def plan_experiment(experiment: Experiment, output: Path, options: ExperimentOptions) -> str:
    """Lists all steps as done or to do, one per line; nothing is written.

    Raises: as `run_experiment`, before anything starts.
    """
    running = ExperimentRun(experiment, output, options)
    marks = running.marks()
    lines = [
        f"{'done ' if mark else 'to do'}  {step.text}"
        for step, mark in zip(running.steps, marks, strict=True)
    ]
    return "\n".join([*lines, f"{output}: {sum(marks)} of {len(marks)} steps are done"])


def run_experiment(
    experiment: Experiment, output: Path, options: ExperimentOptions, say: Say
) -> "ExperimentResults":
    """Carries out the missing steps, then writes `results.json`, `results.md` and a picture.

    A system that collapses or overflows in training is recorded as failed; the other systems continue.

    Args:
        output: new directory, or one of an earlier call.
        say: called with a line per step, and with the tables at the end.

    Raises:
        MimoError: every problem of the input, before anything starts; or a problem of a step.
    """
    from mimo_plugin.benchmark.seeds import gather, write_results

    running = ExperimentRun(experiment, output, options)
    artifact = Artifact(output, _KIND)
    with artifact.held():
        artifact.begin(experiment.source.path.read_text(encoding="utf-8"))
        running.run(say)
        results = gather(running)
        text = write_results(results, running.layout)
    say(text)
    say(f"{running.layout.results}, {running.layout.tables}")
    return results


class ExperimentRun:
    """An experiment in its directory, with the state of its steps.

    Attributes:
        measures: the requested measures.
        collections: the collections by name.
        failed: "SYSTEM, seed N" -> why it could not be trained.

    Raises:
        MimoError: every problem of data, collections, models and the directory.
    """

    def __init__(self, experiment: Experiment, output: Path, options: ExperimentOptions) -> None:
        recipe = experiment.recipe
        self.experiment = experiment
        self.failed: dict[str, str] = {}
        self._output = output
        self._options = options
        self._teacher_store = options.teacher_store or output / "teacher-store"
        # Directory of a failed training run -> why it failed.
        self._broken: dict[Path, str] = {}
        self._data, self.measures = _check(experiment, output, options)
        self.collections: dict[str, ScoredCollection] = {}
        with Problems() as problems:
            for name in recipe.collections:
                with problems.collect():
                    self.collections[name] = ScoredCollection.load(
                        name, experiment.specs(name), self.measures, options.progress
                    )
        self.layout = Layout(experiment, output, self._data)
        names = [name for name in recipe.names if not options.only or name in options.only]
        steps: dict[Path, Step | OtherStep] = {}
        for step in all_steps(experiment, self.layout, names, recipe.seeds[: options.seeds]):
            steps.setdefault(step.directory, step)
        self.steps = list(steps.values())

    def marks(self) -> list[bool]:
        """Whether each step is done.

        Raises:
            ArtifactError: with every damaged directory.
        """
        marks = []
        with Problems() as problems:
            for step in self.steps:
                with problems.collect():
                    marks.append(self._is_done(step))
        return marks

    def training(self, system: ResolvedSystem, seed: int) -> TrainingManifest | None:
        """The manifest of a finished training."""
        return _finished(self.layout.training(system, seed))

    def warm_up(self, system: ResolvedSystem, seed: int) -> TrainingManifest | None:
        """The manifest of a finished warm-up; None also for a system without one."""
        return None if system.stage1 is None else _finished(self.layout.warm_up(system, seed))

    def unseen(self, name: str, collection: str) -> tuple[str, ...] | None:
        """Languages of a collection's topics that a system was not trained on; None if that is not known.

        What a checkpoint that existed before was trained on counts if it has a record of it.
        """
        experiment, checkpoint = self.experiment, None
        found: set[str] = set()
        if (system := experiment.systems.get(name)) is not None:
            for place in (system.table, system.pairs):
                found.update(() if place is None else self._data[place].languages)
            checkpoint = None if experiment.new_student else experiment.student.checkpoint
        elif encoder := experiment.recipe.others[name].encoder:
            checkpoint = experiment.checkpoint(encoder)
        if checkpoint is not None and (own := SeenTexts.open(checkpoint)):
            found.update(own.languages)
        if not found:
            return None
        known = set(map(usual_language, found))
        return tuple(
            language
            for language in self.collections[collection].topics.languages
            if usual_language(language) not in known
        )

    def scores(self, name: str, seed: int | None, collection: str) -> Scores | None:
        """The scores of a system, if they fit its current model, collection and recipe; else None.

        A system that does not depend on the seed has the same for every seed.
        """
        experiment, encoding, model = self.experiment, {}, {}
        if name in experiment.systems and seed is not None:
            if (manifest := self.training(experiment.systems[name], seed)) is None:
                return None
            encoding = experiment.recipe.encoder.model_dump(exclude_none=True)
            model = weights(manifest)
        else:
            other = experiment.recipe.others[name]
            for part in other.fusion or ():
                if (scored := self.scores(part, seed, collection)) is None:
                    return None
                model[part] = scored.run.sha256
            encoding = experiment.encoding(other.encoder) if other.encoder else {}
        found = read_note(self._place(name, seed, collection) / SCORES, Scores)
        fits = (
            found is not None
            and found.model == model
            and found.collection == self.collections[collection].fingerprint
            and tuple(found.measures) == tuple(map(str, self.measures))
            and found.encoding == encoding
        )
        return found if fits else None

    def _place(self, name: str, seed: int | None, collection: str) -> Path:
        """Where the scores of a system lie."""
        recipe = self.experiment.recipe
        if name in recipe.systems and seed is not None:
            return self.layout.scores(self.experiment.systems[name], seed, collection)
        return self.layout.other(name, seed if seed in recipe.fused_seeds(name) else None, collection)

    def _is_done(self, step: Step | OtherStep) -> bool:
        if isinstance(step, OtherStep):
            return self.scores(step.name, step.seed, step.collection) is not None
        if step.kind is StepKind.STUDENT:
            return step.directory.is_dir()
        if step.kind is StepKind.SCORES:
            return self.scores(step.system.name, step.seed, step.collection) is not None
        return _finished(step.directory) is not None

    def run(self, say: Say) -> None:
        """Carries out the remaining steps."""
        from mimo_plugin.training.trainer import TrainingFailed

        began = time.monotonic()
        marks = self.marks()
        missing = [step for step, mark in zip(self.steps, marks, strict=True) if not mark]
        say(f"{self._output}: {sum(marks)} of {len(marks)} steps are done")
        self._open_teacher(missing)
        for place, step in enumerate(missing):
            reason = self._earlier_failure(step)
            if reason is not None:
                say(f"{step.text}: left out, {reason}")
            else:
                elapsed = timedelta(seconds=round(time.monotonic() - began))
                following = missing[place + 1].text if place + 1 < len(missing) else "the tables"
                say(f"[{place + 1}/{len(missing)}] {elapsed}  {step.text}  (then: {following})")
                try:
                    self._carry_out(step)
                except TrainingFailed as error:
                    reason = str(error)
                    say(f"{step.text}: failed, {reason}")
                    self._broken[step.directory] = reason
            if isinstance(step, OtherStep):
                continue
            if reason is not None and step.kind is StepKind.TRAINING:
                self.failed[f"{step.system.name}, seed {step.seed}"] = reason
            if step.kind in (StepKind.WARM_UP, StepKind.TRAINING):
                # A trainer refers to itself: without a collection, its optimiser would stay in memory.
                gc.collect()

    def _open_teacher(self, missing: Sequence[Step | OtherStep]) -> None:
        """Opens the teachers' stores, so that an unavailable teacher fails before hours of training."""
        from mimo_plugin.training.teacher import fill

        options, teachers = self._options, {}
        for step in missing:
            if isinstance(step, OtherStep):
                continue
            store = self._store(step.system)
            if step.taught:
                teachers[store] = step.system.teacher
            if step.anchored and step.system.anchor_teacher is not None:
                teachers[store / ANCHOR] = step.system.anchor_teacher
        for store, teacher in teachers.items():
            located = self.experiment.located(teacher)
            fill(store, located.on(options.device, options.encoder_batch_size), {})

    def _store(self, system: ResolvedSystem) -> Path:
        """The store of a system's teacher: one that is not shared by all systems has its own."""
        shared, own = self._teacher_store, system.teacher.identity()
        if own == self.experiment.recipe.teacher.identity():
            return shared
        return shared.with_name(f"{shared.name}-{identity_key(own)}")

    def _earlier_failure(self, step: Step | OtherStep) -> str | None:
        """The failure of an earlier step that this step depends on, or the lack of its result."""
        if isinstance(step, OtherStep):
            parts = step.system.fusion or ()
            lacking = [part for part in parts if self.scores(part, step.seed, step.collection) is None]
            return f"there are no scores of {', '.join(lacking)}" if lacking else None
        system, seed = step.system, step.seed
        if step.kind in (StepKind.STUDENT, StepKind.WARM_UP):
            return None
        needed = [self.layout.training(system, seed)] if step.kind is StepKind.SCORES else []
        if system.stage1 is not None:
            needed.append(self.layout.warm_up(system, seed))
        return next((self._broken[place] for place in needed if place in self._broken), None)

    def _scoring(self, step: Step | OtherStep, name: str, model: dict[str, str]) -> Scoring:
        keep, progress = self._options.keep_indexes, self._options.progress
        collection = self.collections[step.collection]
        return Scoring(name, step.seed, model, collection, step.directory, self.measures, keep, progress)

    def _encoder_options(self, encoding: dict[str, Any]) -> EncoderOptions:
        options = self._options
        return EncoderOptions(device=options.device, batch_size=options.encoder_batch_size, **encoding)

    def _score_other(self, step: OtherStep) -> None:
        experiment, other = self.experiment, step.system
        parts = {part: self._place(part, step.seed, step.collection) / RUN for part in other.fusion or ()}
        scoring = self._scoring(step, step.name, {part: sha256(file) for part, file in parts.items()})
        if other.fusion is not None:
            scoring.fusion(other.options, parts)
        elif other.encoder is None:
            scoring.bm25()
        else:
            checkpoint = checkpoint_of(experiment.checkpoint(other.encoder))
            cut = self.layout.student(experiment.recipe.seeds[0]) if other.encoder == STUDENT else None
            encoding = experiment.encoding(other.encoder)
            scoring.encoder(str(cut or checkpoint), self._encoder_options(encoding), encoding)

    def _carry_out(self, step: Step | OtherStep) -> None:
        if isinstance(step, OtherStep):
            self._score_other(step)
            return
        layout, experiment, options = self.layout, self.experiment, self._options
        start = layout.student(step.seed)
        student = experiment.student.checkpoint if start is None else str(start)
        settings = RunSettings(
            output=step.directory,
            teacher_store=self._store(step.system),
            device=options.device,
            encoder_batch_size=options.encoder_batch_size,
            progress=options.progress,
        )
        if step.kind is StepKind.STUDENT:
            _make_student(experiment, step.seed, step.directory, options.progress)
        elif step.kind is StepKind.WARM_UP:
            train_stage1(experiment.training(step.system, step.seed, student), settings)
        elif step.kind is StepKind.TRAINING:
            if step.system.stage1 is not None:
                student = str(layout.warm_up(step.system, step.seed))
            train_stage2(experiment.training(step.system, step.seed, student), settings)
        else:
            training, encoding = layout.training(step.system, step.seed), experiment.recipe.encoder
            scoring = self._scoring(step, step.system.name, weights(RunDirectory(training).read()))
            said = encoding.model_dump(exclude_none=True)
            scoring.encoder(str(training / packaged.MODEL), self._encoder_options(said), said)


def _make_student(experiment: Experiment, seed: int, directory: Path, progress: bool | None) -> None:
    """Makes and saves the student of a seed; the directory appears when it is complete.

    The seed also determines a new tokenizer, so that deviations over seeds cover all of the training.
    """
    from mimo_plugin.training.record import save_student
    from mimo_plugin.training.start import make_student

    pairs, table = experiment.tokenizer_texts
    student = make_student(
        experiment.student,
        [*([] if pairs is None else [open_pairs(pairs)]), open_table(table)],
        seed=seed,
        max_length=experiment.max_length,
        device="cpu",
        progress=progress,
    )
    save_student(student, directory)


def _finished(directory: Path) -> TrainingManifest | None:
    try:
        return RunDirectory(directory).finished()
    except ArtifactError as error:
        raise ArtifactError(f"{error}; in an experiment: delete {directory}, it is made again") from error


def _check(
    experiment: Experiment, output: Path, options: ExperimentOptions
) -> tuple[dict[Path, DataManifest], tuple["Measure", ...]]:
    """Checks everything but the contents of collections; returns manifests of the data, and the measures."""
    from mimo_plugin.collections.loading import require
    from mimo_plugin.encoder.checkpoint import check_device

    recipe = experiment.recipe
    problems = Problems(UsageError)
    data: dict[Path, DataManifest] = {}
    measures: tuple[Measure, ...] = ()
    for directory, kind in _data(experiment).items():
        with problems.collect():
            data[directory] = read_manifest(directory, kind)
    problems.extend(_batch_problems(experiment, data))
    _check_models(experiment, problems)
    with problems.collect():
        check_packages()
    with problems.collect():
        check_device(options.device)
    with problems.collect():
        measures = _measures(recipe.measures)
    with problems.collect():
        Artifact(output, _KIND).begun_with("systems")
    for name in options.only:
        if name not in recipe.names:
            expected = f"expected one of {', '.join(recipe.names)}"
            problems.add(f"--only {name}: no such system{near(name, recipe.names)}; {expected}")
    there = len(recipe.seeds)
    if options.seeds is not None and not 1 <= options.seeds <= there:
        expected = f"expected a number from 1 to {there}"
        problems.add(f"--seeds {options.seeds}: the recipe has {there} seeds, {expected}")
    for specs in (*map(experiment.specs, recipe.collections), (experiment.dev,)):
        with problems.collect():
            require([spec for spec in specs if spec is not None], docs=True, queries=True, qrels=True)
    problems.raise_any()
    return data, measures


def _data(experiment: Experiment) -> dict[Path, Format]:
    """Directory of training data -> its format."""
    pairs, table = experiment.tokenizer_texts
    systems = experiment.systems.values()
    tables = dict.fromkeys((table, *(system.table for system in systems)), Format.TABLE)
    pairs_of = (pairs, *(system.pairs for system in systems))
    return tables | {directory: Format.PAIRS for directory in pairs_of if directory is not None}


def _batch_problems(experiment: Experiment, data: dict[Path, DataManifest]) -> list[str]:
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
    return list(problems)


def _check_models(experiment: Experiment, problems: Problems) -> None:
    student = experiment.student.checkpoint
    dimension = experiment.recipe.encoder.dimension
    with problems.collect():
        if experiment.new_student:
            hidden = parse_size(student).hidden
            if dimension is not None and dimension > hidden:
                raise UsageError(
                    f"encoder.dimension: {student} gives {hidden} dimensions, expected a number up to that "
                    f"(found {dimension})"
                )
        else:
            packaged.resolve(student)
            checkpoint_of(student)
    for encoder in {other.encoder for other in experiment.recipe.others.values() if other.encoder}:
        with problems.collect():
            packaged.resolve(checkpoint := experiment.checkpoint(encoder))
            checkpoint_of(checkpoint)
    systems = [one for one in experiment.systems.values() if one.taught or one.stage1 is not None]
    teachers = {options for one in systems for options in (one.teacher, one.anchor_teacher) if options}
    for teacher in sorted({experiment.located(options).checkpoint for options in teachers}):
        with problems.collect():
            packaged.resolve(teacher)
        if student == teacher and not experiment.smaller_student:
            problems.add(
                f"student and teacher are both {student}: a teacher is frozen, the student is the "
                "multilingual encoder that is trained"
            )


def _measures(names: Sequence[str]) -> tuple["Measure", ...]:
    from mimo_plugin.evaluation.measures import MeasureKind, parse_measures

    measures = parse_measures(names)
    if measures[0].kind is MeasureKind.JUDGED:
        raise UsageError(
            f"measures begin with {measures[0]}, which is no measure of quality: the first is the one that "
            "is tested, for example ndcg@20"
        )
    return measures
