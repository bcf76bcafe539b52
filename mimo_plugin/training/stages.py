"""The two stages of MIMO's training, and the baselines in place of the second."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mimo_plugin.data.stored import Pairs, Table, open_pairs, open_table
from mimo_plugin.errors import Findings, UsageError
from mimo_plugin.training.examples import Plan, plan_stage1, plan_stage2
from mimo_plugin.training.fitting import steps_between_checkpoints
from mimo_plugin.training.job import Ground, Job, Trained
from mimo_plugin.training.options import ProjectionInput, Recipe, StageOptions
from mimo_plugin.training.plan import steps_of
from mimo_plugin.training.projection import check_inputs, find_projection, projection_input
from mimo_plugin.training.run_directory import MODEL
from mimo_plugin.training.schedule import Objective
from mimo_plugin.training.stage import Stage
from mimo_plugin.training.stage_texts import AnchorTexts, PairAnchors, labelled_rows, labelled_texts
from mimo_plugin.training.teacher_manifest import Role

if TYPE_CHECKING:
    from mimo_plugin.training.dev import DevCollection

__all__ = ["Job", "Trained", "describe", "train_both", "train_stage1", "train_stage2"]

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
