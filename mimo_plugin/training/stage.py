"""One stage from a checked recipe to a finished directory: what both stages do around their own examples."""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin import seen
from mimo_plugin.data.stored import Pairs, Table
from mimo_plugin.errors import ArtifactError, Findings, UsageError
from mimo_plugin.locking import one_writer
from mimo_plugin.manifests import FileRecord
from mimo_plugin.training.environment import environment
from mimo_plugin.training.examples import Examples, Plan
from mimo_plugin.training.fitting import Devices, Fit, fit
from mimo_plugin.training.identity import identity_of, only_vectors, teacher_vectors, without_places
from mimo_plugin.training.job import Ground, Job, Trained
from mimo_plugin.training.options import PROJECTION_INPUT, Recipe, StageOptions
from mimo_plugin.training.projection import check_projection, save_projection
from mimo_plugin.training.run_directory import MODEL, PROJECTION, RunDirectory, TrainingManifest, differences
from mimo_plugin.training.starting import Start
from mimo_plugin.training.teacher_manifest import Role

if TYPE_CHECKING:
    from mimo_plugin.training.dev import DevCollection
    from mimo_plugin.training.teacher_store import TeacherStore


class Stage:
    """What both stages do around their own examples and loss."""

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        options: StageOptions,
        job: Job,
        ground: Ground,
        data: Pairs | Table,
        dev: "DevCollection | None",
        projection: Path | None = None,
    ) -> None:
        self.name = name
        self.recipe = recipe
        self.options = options
        self.job = job
        self.ground = ground
        self.data = data
        self.dev = dev
        self.projection = projection
        self.directory = RunDirectory(job.output)

    def run(
        self,
        make_plan: Callable[[], Plan],
        teacher_texts: Mapping[Role, Iterable[str]],
        student_texts: Callable[[], Iterable[tuple[str, str]]],
    ) -> Trained:
        devices, start = self.ground.devices, self.ground.start
        identity = identity_of(
            self.name,
            self.recipe,
            self.options,
            self.data,
            start.fingerprint,
            taught=bool(teacher_texts),
            projection=self.projection,
        )
        with self._alone(devices), self.directory.watched():
            if (done := self._taken_up(identity)) is not None:
                return Trained(self.job.output, done, already=True)
            # Nothing is written, and no earlier run given up, before all that can be wrong is known.
            plan = make_plan()
            store = self._teacher(teacher_texts, devices, start)
            if store is not None:
                identity["teacher"]["vectors"] = teacher_vectors(store)
                self._refuse_other(identity, only_vectors)
            self._begin(identity, devices)
            model = start.student(
                self.directory.initial, student_texts, self.recipe, self.options.max_length, devices
            )
            if start.model is None:
                check_projection(self.projection, model, store)
            examples = plan(store)
            began = time.perf_counter()
            fitted, projection = self._fit(model, store, examples, devices)
            seconds = time.perf_counter() - began
            devices.wait()
            if devices.main:
                self._finish(model, projection, identity, examples, fitted, seconds, devices)
            devices.wait()
        finished = self.directory.finished()
        if finished is None:
            raise ArtifactError(f"{self.job.output} has lost its manifest: train again with --no-resume")
        return Trained(self.job.output, finished, already=False)

    def _alone(self, devices: Devices) -> AbstractContextManager[object]:
        return one_writer(self.job.output) if devices.main else nullcontext()

    def _taken_up(self, identity: dict[str, Any]) -> TrainingManifest | None:
        """The manifest of the same run where it is finished; None where there is something to do."""
        if not self.job.resume:
            return None
        self._refuse_other(identity, without_places)
        return self.directory.finished()

    def _refuse_other(
        self, identity: dict[str, Any], view: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    ) -> None:
        """Raises an ArtifactError where a run that can go on, or is finished, was made otherwise.

        Args:
            view: of an identity, what is compared.
        """
        if not self.job.resume:
            return
        done = self.directory.finished()
        begun = self.directory.begun() if done is None else done.identity
        if done is None and not self._can_go_on():
            return
        if begun is not None and (other := differences(view(identity), view(begun))):
            raise ArtifactError(
                f"{self.job.output} holds a run made otherwise: {'; '.join(other)}. Choose another --output, "
                "give the same options, or start over with --no-resume"
            )

    def _can_go_on(self) -> bool:
        """Whether an earlier run left anything that was trained."""
        from mimo_plugin.training.trainer import last_checkpoint

        return last_checkpoint(self.directory.checkpoints) is not None

    def _begin(self, identity: dict[str, Any], devices: Devices) -> None:
        devices.wait()
        if devices.main:
            if not self.job.resume or (not self._can_go_on() and self.directory.begun() != identity):
                self.directory.start_over()
            self.directory.begin(identity)
        devices.wait()

    def _teacher(
        self, texts: Mapping[Role, Iterable[str]], devices: Devices, start: Start
    ) -> "TeacherStore | None":
        if not texts:
            return None
        from mimo_plugin.training.teacher_fill import fill
        from mimo_plugin.training.teacher_store import TeacherStore

        options = self.recipe.teacher.options(self.job.device, self.job.encoder_batch_size)
        directory = self.job.teacher_store
        if devices.main:
            # Begun without a text, it says which teacher it is: what does not fit shows before that one runs.
            fill(directory, options, {})
            self._check_teacher(TeacherStore.open(directory), start)
            fill(directory, options, texts, progress=self.job.progress)
        devices.wait()
        return TeacherStore.open(directory, expect=options)

    def _check_teacher(self, store: "TeacherStore", start: Start) -> None:
        """Raises a UsageError or ArtifactError where teacher, student and projection do not go together."""
        findings = Findings()
        if store.fingerprint == start.fingerprint:
            findings.add(
                UsageError,
                [
                    f"--teacher {self.recipe.teacher.checkpoint} and --student {start.checkpoint} are the "
                    "same model: the teacher is a frozen English encoder, the student the multilingual one "
                    "that is trained"
                ],
            )
        if start.model is not None:
            findings.attempt(check_projection, self.projection, start.model, store)
        findings.raise_any()

    def _fit(
        self, model: Any, store: "TeacherStore | None", examples: Examples, devices: Devices
    ) -> tuple[Fit, Any]:
        import torch

        from mimo_plugin.training.building import build_loss

        # A fresh projection is drawn from the seed, whatever random numbers were used before.
        torch.manual_seed(self.recipe.seed)
        dimension = None if store is None else store.dimension
        loss, projection = build_loss(model, self.options, dimension, self.projection)
        fitted = fit(
            model,
            examples,
            loss,
            projection,
            self.options,
            stage=self.name,
            seed=self.recipe.seed,
            devices=devices,
            directory=self.directory,
            dev=self.dev,
            prompts=_prompts(model, examples.text_columns),
            encoder_batch_size=self.job.encoder_batch_size,
            report_to=self.recipe.report_to,
            progress=self.job.progress,
        )
        return fitted, projection

    def _finish(
        self,
        model: Any,
        projection: Any,
        identity: dict[str, Any],
        examples: Examples,
        fitted: Fit,
        seconds: float,
        devices: Devices,
    ) -> None:
        from mimo_plugin.training.curves import draw_curves
        from mimo_plugin.training.saving import save_student

        directory = self.directory
        directory.require_there()
        ran_on = environment(devices.kind, devices.processes)
        card = self._card(identity, fitted, ran_on)
        save_student(model, directory.model, card=card, add=self._write_seen)
        # The card is for readers, who may edit it.
        files = [path for path in directory.model.rglob("*") if path.is_file() and path.suffix != ".md"]
        if projection is not None:
            reads = self.options.projection_input or PROJECTION_INPUT
            save_projection(projection, self.job.output / PROJECTION, reads)
            files.append(self.job.output / PROJECTION)
        draw_curves(directory.metrics, directory.curves)
        manifest = TrainingManifest(
            stage=self.name,
            identity=identity,
            environment=ran_on,
            steps=fitted.steps,
            languages=dict(examples.counts),
            best_step=fitted.best_step,
            scores=fitted.scores,
            seconds=round(seconds, 3),
            training_texts=f"{MODEL}/{seen.FILE}",
            files={str(path.relative_to(self.job.output)): FileRecord.of(path) for path in sorted(files)},
        )
        directory.finish(manifest)

    def _write_seen(self, directory: Path) -> None:
        name = f"{self.data.directory.name} ({self.data.fingerprint[:12]})"
        before = self.ground.start.seen
        seen.write_seen(directory, self.data.texts(), training_data=name, before=before)

    def _card(self, identity: dict[str, Any], fitted: Fit, ran_on: Mapping[str, Any]) -> Any:
        from mimo_plugin.training.saving import ModelCard

        return ModelCard(
            recipe=identity,
            data={
                "name": self.data.directory.name,
                "rows": self.data.manifest.rows,
                "languages": self.data.manifest.languages,
                "fingerprint": self.data.fingerprint,
                "source": self.data.manifest.source,
                "hashes of the texts": seen.FILE,
            },
            scores=fitted.scores,
            environment=dict(ran_on),
        )


def _prompts(model: Any, columns: Iterable[str]) -> dict[str, str]:
    """The student's own prompts for the columns of stage 2; texts of stage 1 are neither kind."""
    from mimo_plugin.student import EncoderOptions, Student

    student = Student(model, "student", EncoderOptions())
    prompt = {
        "passage": student.document_prompt,
        "query": student.query_prompt,
        "other_query": student.query_prompt,
    }
    return {column: prompt[column] for column in columns if prompt.get(column)}
