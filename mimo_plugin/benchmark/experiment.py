"""A grid of training runs that share what can be shared, scored on the same collections."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from mimo_plugin.benchmark.grid import Experiment
from mimo_plugin.benchmark.scoring import ScoringOptions, score_student
from mimo_plugin.benchmark.seeds import Results, gather, make_tables
from mimo_plugin.benchmark.steps import Checked, Done, Kind, Step, all_steps, check_experiment
from mimo_plugin.core.artifact import one_writer
from mimo_plugin.core.errors import Findings
from mimo_plugin.core.files import write_text
from mimo_plugin.encoder.encoder import EncoderOptions
from mimo_plugin.evaluation.options import TableFormat
from mimo_plugin.evaluation.tables import render
from mimo_plugin.training.data import open_pairs, open_table
from mimo_plugin.training.recipe import RunSettings
from mimo_plugin.training.stages import train_stage1, train_stage2


def make_student(experiment: Experiment, seed: int, directory: Path) -> None:
    """Makes and saves the student of a seed; the directory is there when it is whole.

    Its tokenizer is of that seed as well, so that the deviation over seeds holds for the whole of training.

    Raises: as `load_or_create` and `save_student`.
    """
    from mimo_plugin.training.record import save_student
    from mimo_plugin.training.student import load_or_create

    pairs, table = experiment.tokenizer_texts
    student = load_or_create(
        experiment.student.checkpoint,
        (open_table(table) if pairs is None else open_pairs(pairs)).labelled(),
        seed=seed,
        max_length=experiment.max_length,
        vocab_size=experiment.student.vocabulary,
        device="cpu",
        **experiment.student.encoding(),
    )
    save_student(student, directory)


_TEACHER_STORE = "teacher-store"


@dataclass(frozen=True)
class ExperimentOptions:
    """Where and how an experiment runs; nothing of it decides a figure.

    Attributes:
        output: directory, new or begun before.
        only: systems to run; none are all.
        seeds: run the first so many of the recipe's; None is all.
        keep_indexes: keep the index of every student that was scored.
        teacher_store: directory of the teacher's embeddings; None is inside the output.
        device: torch device; None is the fastest that is there.
        encoder_batch_size: texts a batch when a student or the teacher encodes.
        progress: see `progress.bar`.
    """

    output: Path
    only: Sequence[str] = ()
    seeds: int | None = None
    keep_indexes: bool = False
    teacher_store: Path | None = None
    device: str | None = None
    encoder_batch_size: int = 64
    progress: bool | None = None


def plan_experiment(experiment: Experiment, options: ExperimentOptions) -> str:
    """What there is to do, a line each; nothing is written.

    Raises: as `check_experiment`.
    """
    checked = _checked(experiment, options)
    steps, done = _steps(experiment, checked)
    marks = _done(steps, done)
    lines = [f"{'done ' if mark else 'to do'}  {step.text}" for step, mark in zip(steps, marks, strict=True)]
    lines.append(f"{options.output}: {sum(marks)} of {len(steps)} steps are done")
    return "\n".join(lines)


def run_experiment(experiment: Experiment, options: ExperimentOptions, say: Callable[[str], Any]) -> Results:
    """Trains and scores what is missing, then writes `results.json` and `results.md`.

    That a system cannot be trained, because it collapses or its numbers overflow, is a result like others: it
    is named there, and the rest goes on.

    Args:
        say: called with a line a step, and with the tables at the end.

    Raises:
        MimoError: with all that is wrong before anything starts; or as the steps.
    """
    checked = _checked(experiment, options)
    with one_writer(options.output):
        write_text(checked.layout.recipe, experiment.source.path.read_text(encoding="utf-8"))
        running = _Running(experiment, checked, options, say)
        running.run()
        results = gather(experiment, checked, running.done, running.failed)
        tables = make_tables(results)
        write_text(checked.layout.results, results.to_json())
        write_text(
            checked.layout.tables, f"# {results.recipe.name}\n\n{render(tables, TableFormat.MARKDOWN)}"
        )
    say(render(tables, TableFormat.TEXT).rstrip())
    say(f"{checked.layout.results}, {checked.layout.tables}")
    return results


def _checked(experiment: Experiment, options: ExperimentOptions) -> Checked:
    return check_experiment(
        experiment,
        options.output,
        only=options.only,
        seeds=options.seeds,
        device=options.device,
        progress=options.progress,
    )


def _steps(experiment: Experiment, checked: Checked) -> tuple[list[Step], Done]:
    measures = tuple(map(str, checked.measures))
    steps = all_steps(experiment, checked.layout, checked.systems, checked.seeds)
    return steps, Done(checked.layout, checked.collections, measures, experiment.recipe.encoder)


def _done(steps: Sequence[Step], done: Done) -> list[bool]:
    """Whether each step is done.

    Raises:
        ArtifactError: with everything that is damaged.
    """
    findings = Findings()
    marks = [findings.attempt(done, step) for step in steps]
    findings.raise_any()
    return [bool(mark) for mark in marks]


class _Running:
    """Carries out the steps that are not done.

    Attributes:
        failed: "SYSTEM, seed N" -> why it could not be trained.
    """

    def __init__(
        self,
        experiment: Experiment,
        checked: Checked,
        options: ExperimentOptions,
        say: Callable[[str], Any],
    ) -> None:
        self._experiment = experiment
        self._checked = checked
        self._options = options
        self._say = say
        self._steps, self.done = _steps(experiment, checked)
        self.failed: dict[str, str] = {}
        # Directories of runs that failed, and why.
        self._broken: dict[Path, str] = {}

    def run(self) -> None:
        from mimo_plugin.training.trainer import TrainingFailed

        began = time.monotonic()
        marks = _done(self._steps, self.done)
        missing = [step for step, mark in zip(self._steps, marks, strict=True) if not mark]
        self._say(f"{self._options.output}: {sum(marks)} of {len(marks)} steps are done")
        self._meet_teacher(missing)
        for place, step in enumerate(missing):
            if (reason := self._in_the_way(step)) is not None:
                self._say(f"{step.text}: left out, {reason}")
                self._note(step, reason)
                continue
            elapsed = timedelta(seconds=round(time.monotonic() - began))
            following = missing[place + 1].text if place + 1 < len(missing) else "the tables"
            self._say(f"[{place + 1}/{len(missing)}] {elapsed}  {step.text}  (then: {following})")
            try:
                self._carry_out(step)
            except TrainingFailed as error:
                self._say(f"{step.text}: failed, {error}")
                self._broken[step.directory] = str(error)
                self._note(step, str(error))
            if step.kind in (Kind.WARM_UP, Kind.TRAINING):
                # A trainer refers to itself: its optimiser would stay until Python looks for such rings.
                gc.collect()

    def _meet_teacher(self, missing: Sequence[Step]) -> None:
        """Begins or opens the teacher store: a teacher that cannot be had shows before hours of training."""
        from mimo_plugin.training.teacher import fill

        if any(step.taught for step in missing):
            teacher = self._experiment.teacher
            fill(
                self._teacher_store,
                teacher.on(self._options.device, self._options.encoder_batch_size),
                {},
            )

    def _in_the_way(self, step: Step) -> str | None:
        """Why a step cannot be done, where a step before it has failed."""
        layout, system, seed = self._checked.layout, step.system, step.seed
        if system is None or step.kind is Kind.WARM_UP:
            return None
        needed = [layout.training(system, seed)] if step.kind is Kind.SCORES else []
        if system.stage1 is not None:
            needed.append(layout.warm_up(system, seed))
        return next((self._broken[place] for place in needed if place in self._broken), None)

    def _note(self, step: Step, reason: str) -> None:
        if step.kind is Kind.TRAINING and step.system is not None:
            self.failed[f"{step.system.name}, seed {step.seed}"] = reason

    def _carry_out(self, step: Step) -> None:
        layout, experiment, options = self._checked.layout, self._experiment, self._options
        start = layout.student(step.seed)
        student = experiment.student.checkpoint if start is None else str(start)
        if step.kind is Kind.STUDENT:
            make_student(experiment, step.seed, step.directory)
        elif step.system is None:
            raise ValueError(f"{step.text} has no system")
        elif step.kind is Kind.WARM_UP:
            train_stage1(experiment.training(step.system, step.seed, student), self._settings(step.directory))
        elif step.kind is Kind.TRAINING:
            if step.system.stage1 is not None:
                student = str(layout.warm_up(step.system, step.seed))
            train_stage2(experiment.training(step.system, step.seed, student), self._settings(step.directory))
        elif step.collection is not None:
            score_student(
                layout.training(step.system, step.seed),
                step.system.name,
                step.seed,
                self._checked.collections[step.collection],
                step.directory,
                ScoringOptions(
                    self._checked.measures,
                    EncoderOptions(
                        device=options.device,
                        batch_size=options.encoder_batch_size,
                        **experiment.recipe.encoder.model_dump(),
                    ),
                    options.keep_indexes,
                    options.progress,
                ),
            )

    @property
    def _teacher_store(self) -> Path:
        return self._options.teacher_store or self._options.output / _TEACHER_STORE

    def _settings(self, output: Path) -> RunSettings:
        options = self._options
        return RunSettings(
            output=output,
            teacher_store=self._teacher_store,
            device=options.device,
            encoder_batch_size=options.encoder_batch_size,
            progress=options.progress,
        )
