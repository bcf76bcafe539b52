"""The two stages of MIMO's training, and the baselines in place of the second."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mimo_plugin.core.artifact import FileRecord, one_writer
from mimo_plugin.core.environment import environment
from mimo_plugin.core.errors import ArtifactError, Findings, UsageError
from mimo_plugin.evaluation import trained_on as seen
from mimo_plugin.training.data import Pairs, Table, open_pairs, open_table
from mimo_plugin.training.examples import Examples, Plan, plan_stage1, plan_stage2, steps_of
from mimo_plugin.training.fitting import Devices, Fit, fit, steps_between_checkpoints
from mimo_plugin.training.recipe import PROJECTION_INPUT, ProjectionInput, Recipe, StageOptions
from mimo_plugin.training.record import identity_of, only_vectors, teacher_vectors, without_places
from mimo_plugin.training.run import (
    MODEL,
    PROJECTION,
    RunDirectory,
    TrainingManifest,
    check_inputs,
    check_projection,
    differences,
    find_projection,
    projection_input,
    save_projection,
)
from mimo_plugin.training.schedule import Objective
from mimo_plugin.training.start import Ground, Job, Start, Trained
from mimo_plugin.training.teacher_store import Role

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
        from mimo_plugin.training.teacher import fill
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

        from mimo_plugin.training.losses import build_loss

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
        from mimo_plugin.training.record import save_student

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
        from mimo_plugin.training.record import ModelCard

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
    from mimo_plugin.encoder.encoder import Encoder, EncoderOptions

    student = Encoder.of(model, "student", EncoderOptions())
    prompt = {
        "passage": student.document_prompt,
        "query": student.query_prompt,
        "other_query": student.query_prompt,
    }
    return {column: prompt[column] for column in columns if prompt.get(column)}


class PairAnchors:
    """The texts of pairs in the anchor language, as often as asked, from disk."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def __iter__(self) -> Iterator[str]:
        for batch in self._pairs.dataset.select_columns("anchor").iter(batch_size=4096):
            yield from batch["anchor"]


class AnchorTexts:
    """The queries or passages of a table in the anchor language, as often as asked, from disk."""

    def __init__(self, table: Table, column: str) -> None:
        self._table = table
        self._column = column

    def __iter__(self) -> Iterator[str]:
        anchor = self._table.manifest.anchor
        for batch in self._table.dataset.select_columns(["langs", self._column]).iter(batch_size=1024):
            for langs, texts in zip(batch["langs"], batch[self._column], strict=True):
                yield texts[langs.index(anchor)]


def labelled_texts(pairs: Pairs) -> Iterator[tuple[str, str]]:
    """(language, text) of all pairs."""
    for batch in pairs.dataset.iter(batch_size=4096):
        yield from zip(batch["lang"], batch["text"], strict=True)


def labelled_rows(table: Table) -> Iterator[tuple[str, str]]:
    """(language, text) of all queries and passages."""
    for batch in table.dataset.iter(batch_size=1024):
        for langs, *columns in zip(batch["langs"], batch["queries"], batch["passages"], strict=True):
            for texts in columns:
                yield from zip(langs, texts, strict=True)


STAGE1, STAGE2 = "stage1", "stage2"

AnyStage = TypeVar("AnyStage", bound=StageOptions)


def train_stage1(recipe: Recipe, job: Job) -> Trained:
    """Distillation warm-up: parallel pairs, the student's text against the teacher's anchor text.

    Raises:
        UsageError, DataError, ModelError, ArtifactError: something is not as it must be; all that is found
            before training is reported together.
        TrainingFailed: training cannot go on.
    """
    findings = Findings()
    pairs = findings.attempt(_required_pairs, recipe)
    _check_steps(findings, recipe.stage1, pairs, recipe.dev)
    dev = findings.attempt(_load_dev, recipe.dev)
    ground = Ground.find(findings, recipe, recipe.stage1, job)
    data = findings.complete(pairs)
    options = _with_input(recipe.stage1, projection_input(recipe.stage1.projection_input, None))
    stage = Stage(STAGE1, recipe, options, job, findings.complete(ground), data, dev)

    def plan() -> Plan:
        return plan_stage1(data, options, seed=recipe.seed)

    return stage.run(plan, {Role.TEXT: PairAnchors(data)}, lambda: labelled_texts(data))


def train_stage2(recipe: Recipe, job: Job, projection: Path | None = None) -> Trained:
    """The joint stage of distillation and cross-lingual contrastive learning, or a baseline in its place.

    Args:
        projection: what stage 1 wrote; None looks for it beside the student. MIMO only.

    Raises: as `train_stage1`.
    """
    options = recipe.stage2
    findings = Findings()
    table = findings.attempt(_required_table, recipe)
    _check_steps(findings, options, table, recipe.dev)
    carried = None
    if options.objective is Objective.MIMO and options.carry_projection:
        carried = findings.attempt(find_projection, recipe.student.checkpoint, projection)
    elif projection is not None:
        findings.add(
            UsageError, ["--projection: only `--objective mimo` with a carried projection reads one"]
        )
    if options.objective is Objective.MIMO:
        reads = findings.attempt(projection_input, options.projection_input, carried)
        options = _with_input(options, reads)
    dev = findings.attempt(_load_dev, recipe.dev)
    ground = Ground.find(findings, recipe, options, job)
    data = findings.complete(table)
    stage = Stage(STAGE2, recipe, options, job, findings.complete(ground), data, dev, carried)

    def plan() -> Plan:
        return plan_stage2(data, options, seed=recipe.seed)

    texts: dict[Role, Iterable[str]] = {}
    if options.objective is Objective.MIMO:
        texts = {Role.QUERY: AnchorTexts(data, "queries"), Role.PASSAGE: AnchorTexts(data, "passages")}
    return stage.run(plan, texts, lambda: labelled_rows(data))


def train_both(recipe: Recipe, job: Job) -> Iterator[Trained]:
    """Stage 1, then stage 2 from what it made, in `stage1` and `stage2` below the output.

    Raises: as `train_stage1`; what is wrong with either stage's data is said before the first one starts.
    """
    findings = Findings()
    _check_steps(findings, recipe.stage1, findings.attempt(_required_pairs, recipe), recipe.dev)
    _check_steps(findings, recipe.stage2, findings.attempt(_required_table, recipe), recipe.dev)
    findings.attempt(check_inputs, recipe.stage1, recipe.stage2)
    findings.attempt(_load_dev, recipe.dev)
    for stage, options in ((STAGE1, recipe.stage1), (STAGE2, recipe.stage2)):
        Ground.find(findings, recipe, options, replace(job, output=job.output / stage))
    findings.raise_any()
    first = train_stage1(recipe, replace(job, output=job.output / STAGE1))
    yield first
    student = recipe.student.model_copy(update={"checkpoint": str(first.directory)})
    yield train_stage2(
        recipe.model_copy(update={"student": student}), replace(job, output=job.output / STAGE2)
    )


def describe(trained: Trained) -> str:
    """What a run did, for a reader."""
    manifest = trained.manifest
    done = "was trained before" if trained.already else f"trained in {manifest.seconds:.0f} s"
    lines = [f"{trained.directory}: {manifest.stage}, {manifest.steps} steps, {done}"]
    if manifest.scores:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in manifest.scores.items())
        lines.append(f"  dev, step {manifest.best_step} (kept): {scores}")
    lines.append(f"  checkpoint: {trained.directory / MODEL}")
    return "\n".join(lines)


def _required_pairs(recipe: Recipe) -> Pairs:
    if recipe.pairs is None:
        raise UsageError("stage 1 needs --pairs, a directory that `mimo data parallel` or `debian` wrote")
    return open_pairs(Path(recipe.pairs))


def _required_table(recipe: Recipe) -> Table:
    if recipe.table is None:
        raise UsageError("stage 2 needs --table, a directory that `mimo data aligned` or `debian` wrote")
    return open_table(Path(recipe.table))


def _with_input(options: AnyStage, reads: ProjectionInput | None) -> AnyStage:
    return options.model_copy(update={"projection_input": reads})


def _load_dev(dev: str | None) -> "DevCollection | None":
    from mimo_plugin.training.dev import DevCollection

    return None if dev is None else DevCollection.load(dev)


def _check_steps(
    findings: Findings, options: StageOptions, data: Pairs | Table | None, dev: str | None
) -> None:
    """Notes a batch that the data cannot fill, and checkpoints that would not be scored."""
    if data is None:
        return
    steps = findings.attempt(steps_of, data.manifest.rows, options.batch_size, options.epochs, options.steps)
    if steps is not None:
        findings.attempt(steps_between_checkpoints, options, steps, scored=dev is not None)
