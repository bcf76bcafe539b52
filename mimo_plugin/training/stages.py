"""The two stages of MIMO's training, and the baselines in place of the second."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.artifact import FileRecord
from mimo_plugin.core.config import yaml_text
from mimo_plugin.core.environment import environment
from mimo_plugin.core.errors import Problems, UsageError
from mimo_plugin.encoder import packaged
from mimo_plugin.encoder.checkpoint import check_files
from mimo_plugin.encoder.packaged import E5, MODEL, TEACHER
from mimo_plugin.evaluation import trained_on as seen
from mimo_plugin.training.cut import cut_record
from mimo_plugin.training.data import (
    Format,
    Pairs,
    Table,
    data_of,
    open_pairs,
    open_table,
    read_manifest,
)
from mimo_plugin.training.examples import Examples, Plan, negatives_per_row, plan_stage1, plan_stage2
from mimo_plugin.training.models import TeacherOptions
from mimo_plugin.training.recipe import Recipe, RunSettings, Stage2Options, StageOptions
from mimo_plugin.training.run import (
    ANCHOR_PROJECTION,
    PROJECTION,
    RunDirectory,
    Trained,
    TrainingManifest,
    check_anchor_teacher,
    check_inputs,
    check_projection,
    differences,
    draw_curves,
    find_projection,
    projection_input,
    save_projection,
)
from mimo_plugin.training.schedule import Objective
from mimo_plugin.training.start import (
    DevCollection,
    Devices,
    Start,
    check_packages,
    check_student,
    check_trackers,
)
from mimo_plugin.training.teacher_store import ANCHOR, StoreDirectory, TeacherStore

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from mimo_plugin.training.trainer import Fit

_log = logging.getLogger(__name__)
STAGE1, STAGE2 = "stage1", "stage2"
# Stage -> the recipe's field that names its data.
_FIELDS = {STAGE1: "pairs", STAGE2: "table"}


def train(
    recipe: Recipe,
    output: str | Path,
    *,
    pairs: "str | Path | Dataset | None" = None,
    table: "str | Path | Dataset | None" = None,
    anchor: str = "en",
    projection: Path | None = None,
    teacher_store: Path | None = None,
    device: str | None = None,
    encoder_batch_size: int = 64,
    resume: bool = True,
    progress: bool | None = None,
) -> Trained:
    """Trains a student: stage 1 on pairs, stage 2 on a table, or both in turn.

    An interrupted run resumes from its last checkpoint and ends with the same weights. If both stages run,
    they write to `stage1` and `stage2` below the output.

    >>> trained = train(Recipe.read("recipe.yaml"), "student")  # doctest: +SKIP
    >>> trained.encoder().encode_queries(["a query"]).shape  # doctest: +SKIP
    (1, 256)

    Args:
        output: directory of a new or interrupted run.
        pairs, table: data that replaces the recipe's: a directory that `mimo data` wrote, or a dataset with
            the columns of its Parquet files (`text`, `lang`, `anchor`; `query_id`, `passage_id`, `langs`,
            `queries`, `passages`).
        anchor: language of the teacher's texts in a dataset.
        projection: file from stage 1, if only stage 2 runs; None looks for it beside the student.
        teacher_store: directory of the teacher's embeddings; None is `teacher-store` beside the output.
        device, encoder_batch_size, resume, progress: see `RunSettings`.

    Returns:
        The run of the last stage.

    Raises:
        UsageError, DataError, ModelError, ArtifactError: invalid options, data or files. Problems found
            before torch is loaded are reported together.
        TrainingFailed: NaN or infinity occurs, or the encoder collapses.
    """
    data: dict[str, Pairs | Table] = {}
    for name, held, given in ((STAGE1, Format.PAIRS, pairs), (STAGE2, Format.TABLE, table)):
        if isinstance(given, str | Path):
            recipe = recipe.model_copy(update={_FIELDS[name]: str(given)})
        elif given is not None:
            data[name] = data_of(given, held, anchor)
    names = [name for name in _FIELDS if name in data or getattr(recipe, _FIELDS[name]) is not None]
    if not names:
        raise UsageError("no training data was given: stage 1 needs pairs, stage 2 a table")
    settings = RunSettings(
        Path(output),
        teacher_store,
        device=device,
        encoder_batch_size=encoder_batch_size,
        resume=resume,
        progress=progress,
    )
    *_, last = run_stages(recipe, settings, names, projection=projection, data=data)
    return last


def train_stage1(recipe: Recipe, settings: RunSettings) -> Trained:
    """Distillation warm-up on parallel pairs: the student's text against the teacher's anchor text."""
    return next(run_stages(recipe, settings, [STAGE1]))


def train_stage2(recipe: Recipe, settings: RunSettings, projection: Path | None = None) -> Trained:
    """Distillation together with cross-lingual contrastive learning, or a baseline in its place."""
    return next(run_stages(recipe, settings, [STAGE2], projection=projection))


def run_stages(
    recipe: Recipe,
    settings: RunSettings,
    names: Sequence[str],
    *,
    projection: Path | None = None,
    data: Mapping[str, Pairs | Table] | None = None,
) -> Iterator[Trained]:
    """Runs stages in turn and yields each finished run.

    Of two stages, the second starts from the first one's student, and both write below the output. Problems
    of both are raised before the first one starts.

    Args:
        projection: see `train`.
        data: stage -> data that replaces the directory in the recipe.

    Raises: as `train`.
    """
    both = len(names) > 1
    settings = replace(settings, teacher_store=settings.store)
    stages = []
    for name in names:
        own = replace(settings, output=settings.output / name) if both else settings
        stages.append(Stage(name, recipe, own, data or {}))
    problems, dev = Problems(), None
    with problems.collect():
        check_packages()
    for stage in stages:
        with problems.collect():
            stage.check_data()
    if both:
        with problems.collect():
            check_inputs(recipe.stage1, recipe.stage2)
    with problems.collect():
        stages[0].carry(projection)
    with problems.collect():
        dev = None if recipe.dev is None else DevCollection.load(recipe.dev)
    for stage in stages:
        with problems.collect():
            stage.check_output()
    with problems.collect():
        check_student(recipe.student.checkpoint)
    with problems.collect():
        check_anchor_teacher(recipe, names)
    teachers = {name: found for stage in stages for name, found in stage.teachers.items()}
    for name, (teacher, store) in teachers.items():
        with problems.collect():
            check_files(packaged.resolve(teacher.checkpoint), f"{_option(name)} {teacher.checkpoint}")
        with problems.collect():
            StoreDirectory(store).check_output()
    problems.raise_any()
    # The following checks need torch.
    devices = Devices.find(settings.device)
    for stage in stages:
        with problems.collect():
            stage.options.slice_of(devices.processes)
    with problems.collect():
        check_trackers(recipe.report_to)
    problems.raise_any()
    longest = max(stage.options.max_length for stage in stages)
    trained = stages[0].run(Start.load(recipe, longest, devices), devices, dev)
    yield trained
    for stage in stages[1:]:
        stage.go_on_from(trained)
        yield stage.run(Start.load(stage.recipe, longest, devices), devices, dev)


class Stage:
    """One stage, from its recipe to its finished directory.

    Args:
        name: "stage1" or "stage2".
        data: stage -> data that replaces the directory in the recipe.
    """

    def __init__(
        self, name: str, recipe: Recipe, settings: RunSettings, data: Mapping[str, Pairs | Table]
    ) -> None:
        self.name = name
        self.recipe = recipe
        self.settings = settings
        self.options: StageOptions = recipe.stage1 if name == STAGE1 else recipe.stage2
        self.directory = RunDirectory(settings.output)
        self._given = data
        # File name -> projection of stage 1 to continue with.
        self.projections: dict[str, Path] = {}

    @property
    def taught(self) -> bool:
        """Whether there is a teacher; baselines have none."""
        return not isinstance(self.options, Stage2Options) or self.options.objective is Objective.MIMO

    @property
    def teachers(self) -> dict[str, tuple[TeacherOptions, Path]]:
        """The recipe's field -> teacher and directory of its embeddings; first the one of anchor texts."""
        recipe, store = self.recipe, self.settings.store
        found = {"teacher": (recipe.teacher, store)} if self.taught else {}
        if self.taught and self.options.anchor_share is not None and recipe.anchor_teacher is not None:
            found["anchor_teacher"] = (recipe.anchor_teacher, store / ANCHOR)
        return found

    def check_data(self) -> None:
        """Raises a UsageError or ArtifactError if data is missing, too small, or does not fit the options."""
        if (given := self._given.get(self.name)) is not None:
            manifest = given.manifest
        else:
            manifest = read_manifest(self._place(), Format.PAIRS if self.name == STAGE1 else Format.TABLE)
        if isinstance(self.options, Stage2Options):
            used = negatives_per_row(self.options, manifest)
            if manifest.negatives and self.options.negatives is None and not used:
                _log.warning("the table's mined negatives are not used: LaKDA has none")
        if self.taught and manifest.anchor != "en" and self.recipe.teacher.checkpoint == TEACHER:
            _log.warning(
                f"{self.name}: the teacher's texts are in the anchor language {manifest.anchor}, and "
                f"{TEACHER} reads English only: name one that reads them, such as --teacher {E5}"
            )
        steps = self.options.steps_on(manifest.rows)
        self.options.steps_between_checkpoints(steps, scored=self.recipe.dev is not None)

    def _place(self) -> Path:
        field = _FIELDS[self.name]
        place = getattr(self.recipe, field)
        if place is None:
            source = "parallel" if self.name == STAGE1 else "aligned"
            raise UsageError(
                f"{self.name} needs --{field}, a directory that `mimo data {source}` or `debian` wrote"
            )
        return Path(place)

    @cached_property
    def data(self) -> Pairs | Table:
        """The training data."""
        if (given := self._given.get(self.name)) is not None:
            return given
        return open_pairs(self._place()) if self.name == STAGE1 else open_table(self._place())

    @cached_property
    def all_data(self) -> Sequence[Pairs | Table]:
        """The training data, and that of the other stage if the recipe names some."""
        others = [
            Stage(name, self.recipe, self.settings, self._given)
            for name, field in _FIELDS.items()
            if name != self.name and (name in self._given or getattr(self.recipe, field) is not None)
        ]
        return [self.data, *(other.data for other in others)]

    def carry(self, given: Path | None) -> None:
        """Finds the projections that stage 2 continues with, and resolves their input."""
        options = self.options
        if isinstance(options, Stage2Options) and self.taught and options.carry_projection:
            found = find_projection(self.recipe.student.checkpoint, given)
            # Stage 1 may have had no anchor teacher.
            beside = found.with_name(ANCHOR_PROJECTION)
            more = len(self.teachers) > 1 and beside.is_file()
            self.projections = {PROJECTION: found, **({ANCHOR_PROJECTION: beside} if more else {})}
        elif given is not None:
            raise UsageError("--projection: only `--objective mimo` with a carried projection reads one")
        if self.taught:
            reads = projection_input(options.projection_input, self.projections.get(PROJECTION))
            self.options = options.model_copy(update={"projection_input": reads})

    def check_output(self) -> None:
        """Raises an ArtifactError or UsageError if the run cannot be written."""
        self.directory.check_output()
        output = self.settings.output
        if Path(self.recipe.student.checkpoint).resolve().is_relative_to(output.resolve()):
            raise UsageError(
                f"--output {output} contains --student, which would be overwritten: choose another directory"
            )

    def go_on_from(self, trained: Trained) -> None:
        """Uses stage 1's result as the student."""
        student = self.recipe.student.model_copy(update={"checkpoint": str(trained.directory)})
        self.recipe = self.recipe.model_copy(update={"student": student})
        self.carry(None)

    def run(self, start: Start, devices: Devices, dev: DevCollection | None) -> Trained:
        """Trains, unless the run is finished already."""
        from mimo_plugin.training.trainer import fit

        identity = self._identity(start)
        with self.directory.held() if devices.main else nullcontext() as held:
            self._refuse_other(identity)
            if self.settings.resume and (done := self.directory.finished()) is not None:
                return Trained(self.settings.output, done, already=True)
            # All checks come before anything is written and before an earlier run is discarded.
            plan = self._plan()
            stores = self._stores(plan, start, devices)
            for name, store in stores.items():
                identity[name]["vectors"] = store.manifest.identity.resolved()
            if stores:
                self._refuse_other(identity)
            self._begin(identity, devices)
            model = start.student(
                self.directory.initial,
                lambda: self.all_data if start.cut else [self.data],
                self.recipe,
                self.options.max_length,
                devices,
                self.settings.progress,
            )
            for projection, store in zip(self.projections.values(), stores.values(), strict=False):
                check_projection(projection, model, store)
            if self.name == STAGE1 and devices.main:
                for store in stores.values():
                    store.warn_if_narrow()
            examples = plan(*stores.values())
            began = time.perf_counter()
            dimensions = [store.dimension for store in stores.values()]
            fitted = fit(self, model, examples, dimensions, self._aligned(start, stores), devices, dev, held)
            seconds = time.perf_counter() - began
            devices.wait()
            if held is not None:
                held.require()
                self._finish(model, identity, examples, fitted, seconds, start, devices)
            devices.wait()
        return Trained(self.settings.output, self.directory.read(), already=False)

    def _identity(self, start: Start) -> dict[str, Any]:
        """Everything that determines the weights, as plain data."""
        recipe, data = self.recipe, self.data
        identity: dict[str, Any] = {
            "stage": self.name,
            "seed": recipe.seed,
            "student": {**recipe.student.identity(), "fingerprint": start.fingerprint},
            "data": {
                "path": None if data.directory is None else str(data.directory),
                "fingerprint": data.fingerprint,
                "anchor": data.manifest.anchor,
                "rows": data.manifest.rows,
            },
            "dev": recipe.dev,
            "options": self.options.identity(),
        }
        if start.cut is not None and start.cut.vocabulary is not None:
            identity["student"]["texts"] = [one.fingerprint for one in self.all_data]
        for name, (teacher, _) in self.teachers.items():
            identity[name] = teacher.identity()
        for name, file in self.projections.items():
            identity[Path(name).stem] = FileRecord.of(file).sha256
        return identity

    def _plan(self) -> Plan:
        if isinstance(self.data, Pairs):
            return plan_stage1(self.data, self.recipe.stage1, seed=self.recipe.seed)
        return plan_stage2(self.data, self.recipe.stage2, seed=self.recipe.seed)

    def _refuse_other(self, identity: Mapping[str, Any]) -> None:
        """Raises an ArtifactError if a finished or resumable run here has another identity."""
        if not self.settings.resume:
            return
        done = self.directory.finished()
        begun = self.directory.begun() if done is None else done.identity
        if begun is not None and (done is not None or self.directory.last_checkpoint() is not None):
            self.directory.refuse(differences(identity, begun))

    def _begin(self, identity: Mapping[str, Any], devices: Devices) -> None:
        devices.wait()
        if devices.main:
            started = self.directory.last_checkpoint() is not None
            if not self.settings.resume or (not started and self.directory.begun() != identity):
                self.directory.start_over()
            self.directory.begin(yaml_text(identity))
        devices.wait()

    def _stores(self, plan: Plan, start: Start, devices: Devices) -> dict[str, TeacherStore]:
        """The store of each teacher in `teachers`, with all vectors that the plan needs."""
        from mimo_plugin.training.teacher import fill

        settings = self.settings
        teachers = {
            name: (place, teacher.on(settings.device, settings.encoder_batch_size))
            for name, (teacher, place) in self.teachers.items()
        }
        if devices.main:
            carried = iter(self.projections.values())
            for place, options in teachers.values():
                # Without texts this only records the teacher's identity: mismatches show before one runs.
                fill(place, options, {})
                store = TeacherStore.open(place)
                projection = next(carried, None)
                if projection is not None and start.model is not None:
                    check_projection(projection, start.model, store)
            needed = (plan.anchor_texts, plan.own_texts)
            for (place, options), texts in zip(teachers.values(), needed, strict=False):
                fill(place, options, texts, progress=settings.progress)
        devices.wait()
        return {name: TeacherStore.open(place, expect=options) for name, (place, options) in teachers.items()}

    def _aligned(self, start: Start, stores: Mapping[str, TeacherStore]) -> list[str]:
        """The projections of teachers that the student is a copy of: both are in one space from the start."""
        whole = start.cut is None or start.cut.layers is None
        named = zip((PROJECTION, ANCHOR_PROJECTION), stores.values(), strict=False)
        return [
            name
            for name, store in named
            if name not in self.projections and whole and store.fingerprint == start.fingerprint
        ]

    def _finish(
        self,
        model: "SentenceTransformer",
        identity: dict[str, Any],
        examples: Examples,
        fitted: "Fit",
        seconds: float,
        start: Start,
        devices: Devices,
    ) -> None:
        """Writes checkpoint, card, projection, curves and the manifest."""
        from mimo_plugin.training.record import ModelCard, save_student

        directory, data = self.directory, self.data
        ran_on = environment(devices.kind, devices.processes)
        facts = {
            "name": data.name,
            "rows": data.manifest.rows,
            "languages": data.manifest.languages,
            "fingerprint": data.fingerprint,
            "source": data.manifest.source,
            "hashes of the texts": seen.FILE,
        }

        def write_seen(beside: Path) -> None:
            name = f"{data.name} ({data.fingerprint[:12]})"
            languages = data.manifest.languages
            seen.write_seen(beside, data.texts(), training_data=name, languages=languages, before=start.seen)

        card = ModelCard(identity, facts, fitted.scores, ran_on)
        save_student(model, directory.model, card=card, add=write_seen)
        # Users may edit the card.
        files = [path for path in directory.model.rglob("*") if path.is_file() and path.suffix != ".md"]
        for name, layer in fitted.projections.items():
            files.append(directory.path / name)
            save_projection(layer, files[-1], self.options.reads)
        draw_curves(directory.metrics, directory.curves)
        directory.seal(
            TrainingManifest(
                stage=self.name,
                identity=identity,
                environment=ran_on,
                steps=fitted.steps,
                languages=dict(examples.counts),
                best_step=fitted.best_step,
                scores=fitted.scores,
                seconds=round(seconds, 3),
                cut=cut_record(model) or None,
                training_texts=f"{MODEL}/{seen.FILE}",
                files={str(path.relative_to(directory.path)): FileRecord.of(path) for path in sorted(files)},
            )
        )


def _option(name: str) -> str:
    """The option of a field of the recipe."""
    return f"--{name.replace('_', '-')}"
