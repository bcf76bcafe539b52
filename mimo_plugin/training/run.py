"""A training run's directory: its manifest, identity, projection and metrics."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mimo_plugin.core.artifact import Artifact, Kind, Manifest
from mimo_plugin.core.config import read_yaml
from mimo_plugin.core.errors import ArtifactError, DataError, EnvironmentProblem, Problems, UsageError
from mimo_plugin.core.files import cannot_write, make_parent, remove_tree, replacing, writing
from mimo_plugin.encoder.packaged import MODEL, RUN_FORMAT
from mimo_plugin.training.recipe import (
    PROJECTION_INPUT,
    ProjectionInput,
    Recipe,
    Stage2Options,
    StageOptions,
)
from mimo_plugin.training.schedule import Objective

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from mimo_plugin.encoder.encoder import Encoder
    from mimo_plugin.training.teacher_store import TeacherStore


RECIPE, METRICS, CURVES = "recipe.yaml", "metrics.jsonl", "curves.png"
INITIAL, CHECKPOINTS, TENSORBOARD = "initial", "checkpoints", "tensorboard"
# To the spaces of the teacher and of the anchor teacher.
PROJECTION, ANCHOR_PROJECTION = "projection.safetensors", "anchor_projection.safetensors"
# Written last into a checkpoint, which is incomplete without it.
COMPLETE = "complete"


class TrainingManifest(Manifest):
    """Manifest of a finished run.

    Attributes:
        stage: "stage1" or "stage2".
        identity: everything that determines the weights: options, seed, data, teacher and student.
        environment: versions, device, git commit of the project.
        steps: optimiser steps.
        languages: language or combination of languages -> number of rows.
        best_step: the step whose weights were kept; None means the last.
        scores: of the kept weights on the dev collection.
        seconds: of training in this process, evaluations included.
        cut: what the student was cut from, see `cut_record`; None for a whole one.
        training_texts: file with the `SeenTexts` of this run and its student's earlier ones; None for a run
            of an earlier version.
        files: the checkpoint without its card, and the projections.
    """

    format: Literal["mimo-training"] = RUN_FORMAT
    format_version: Literal[1] = 1
    stage: str
    identity: dict[str, Any]
    environment: dict[str, Any]
    steps: int
    languages: dict[str, int]
    best_step: int | None
    scores: dict[str, float]
    seconds: float
    cut: dict[str, Any] | None = Field(default=None, exclude_if=lambda cut: cut is None)
    training_texts: str | None = None


RUN = Kind(
    TrainingManifest,
    frozenset({RUN_FORMAT}),
    noun="a training run",
    command="mimo train",
    names=re.compile(
        "|".join([METRICS, CURVES, MODEL, INITIAL, CHECKPOINTS, TENSORBOARD, PROJECTION, ANCHOR_PROJECTION])
    ),
    mark=RECIPE,
    mark_stays=True,
)


@dataclass(frozen=True)
class Trained:
    """A finished run; `str` gives its summary.

    Attributes:
        directory: output directory; `model/` in it is the checkpoint.
        already: whether the run had been finished before.
    """

    directory: Path
    manifest: TrainingManifest
    already: bool

    @property
    def model(self) -> Path:
        """The checkpoint's directory."""
        return self.directory / MODEL

    def encoder(self, device: str | None = None) -> "Encoder":
        """The trained student, ready to encode."""
        from mimo_plugin.encoder.encoder import Encoder

        return Encoder(str(self.model), device=device)

    def __str__(self) -> str:
        manifest = self.manifest
        done = "was trained before" if self.already else f"trained in {manifest.seconds:.0f} s"
        lines = [f"{self.directory}: {manifest.stage}, {manifest.steps} steps, {done}"]
        if manifest.scores:
            scores = ", ".join(f"{name} {value:.4f}" for name, value in manifest.scores.items())
            lines.append(f"  dev, step {manifest.best_step} (kept): {scores}")
        return "\n".join([*lines, f"  checkpoint: {self.model}"])


# Parts of a run's identity that are mappings.
_TEACHERS = ("teacher", "anchor_teacher")
_SECTIONS = ("data", "options", "student", *_TEACHERS)


class RunDirectory(Artifact[TrainingManifest]):
    """An output directory of `mimo train`; `recipe.yaml` in it holds the run's identity."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, RUN)
        self.model = path / MODEL
        self.checkpoints = path / CHECKPOINTS
        self.metrics = path / METRICS
        self.curves = path / CURVES
        self.initial = path / INITIAL

    def begun(self) -> dict[str, Any] | None:
        """The identity of the run that was started here; None if there is none."""
        path = self.path / RECIPE
        if not path.is_file():
            return None
        try:
            found = read_yaml(path).values
        except UsageError as error:
            raise ArtifactError(f"{error}; start over with --no-resume") from error
        sections = [found.get(name, {}) for name in _SECTIONS]
        if all(isinstance(section, dict) for section in sections) and all(
            isinstance(found.get(name, {}).get("vectors") or {}, dict) for name in _TEACHERS
        ):
            return found
        raise ArtifactError(f"{path} is damaged ({', '.join(_SECTIONS)}): start over with --no-resume")

    def last_checkpoint(self, *, before: int | None = None) -> Path | None:
        """The newest complete checkpoint, or the newest before a step."""
        steps = [step for step, path in self._checkpoints() if (path / COMPLETE).is_file()]
        steps = [step for step in steps if before is None or step < before]
        return self.checkpoints / f"checkpoint-{max(steps)}" if steps else None

    def discard_incomplete(self) -> None:
        """Removes checkpoints that a kill left half-written."""
        for _, path in self._checkpoints():
            if not (path / COMPLETE).is_file():
                remove_tree(path)

    def _checkpoints(self) -> list[tuple[int, Path]]:
        named = [(path.name.rpartition("-")[2], path) for path in self.checkpoints.glob("checkpoint-*")]
        return [(int(step), path) for step, path in named if step.isdigit()]

    def seal(self, manifest: TrainingManifest) -> None:
        """Writes the manifest and removes the checkpoints, which only a resume needs."""
        super().seal(manifest)
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def checkpoint_of(student: str) -> str:
    """The verified checkpoint in a training run's output directory; any other name unchanged."""
    run = RunDirectory(Path(student))
    if (run.path / RECIPE).is_file() or (run.model.is_dir() and run.manifest.is_file()):
        run.verify()
        return str(run.model)
    return student


def differences(mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """A line for each difference between two identities.

    Paths of data and student are ignored. Values from the teachers' files are compared if `mine` has them.
    """
    own, others = _comparable(mine), _comparable(other)
    known = any(_VECTORS in name for name in own)
    return [
        f"{name} is {own.get(name)!r}, there it is {others.get(name)!r}"
        for name in dict.fromkeys([*own, *others])
        if own.get(name) != others.get(name) and (known or _VECTORS not in name)
    ]


# Also a part of "anchor_teacher.vectors.".
_VECTORS = "teacher.vectors."


def _comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity by dotted names, without paths, and with values that earlier versions did not record."""
    flat = dict(_flat(identity))
    flat.pop("data.path", None)
    if not str(flat.get("student.checkpoint")).startswith("new:"):
        flat.pop("student.checkpoint", None)
    if "teacher.checkpoint" in flat:
        flat.setdefault("options.projection_input", ProjectionInput.NORMALIZED.value)
    if any(name.startswith(_VECTORS) for name in flat):
        flat = {f"{_VECTORS}compute_dtype": "float32", f"{_VECTORS}attention": None, **flat}
    return flat


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


# In torch's errors about an archive that is shorter than what was written, or has no directory.
_TORCH = ("unexpected pos", "iostream error", "PytorchStreamWriter", "Parent directory")


@contextmanager
def writing_tensors(path: Path) -> Iterator[None]:
    """As `files.writing`, also for errors of safetensors and torch."""
    from safetensors import SafetensorError

    try:
        with writing(path):
            yield
    except SafetensorError as error:
        if "I/O error" not in str(error):
            raise
        raise cannot_write(path, str(error).rpartition("I/O error: ")[2]) from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _TORCH):
            raise
        raise cannot_write(path, "the disk is full, or the directory is gone") from error


# Key of the projection's input in its file's metadata.
_INPUT = "input"


def find_projection(student: str, given: Path | None) -> Path:
    """The file with the projection that stage 1 trained for a student.

    Args:
        student: the checkpoint, or the output directory of the run that made it.
        given: file that the user named.

    Raises:
        UsageError: there is none.
    """
    if given is not None:
        if not given.is_file():
            raise UsageError(
                f"--projection {given}: no such file; stage 1 writes {PROJECTION} beside its model"
            )
        return given
    directory = Path(student)
    places = [directory / PROJECTION]
    if directory.name == MODEL:
        places.append(directory.parent / PROJECTION)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UsageError(
            f"--student {student}: no {PROJECTION} of stage 1 lies beside it; train it with "
            "`mimo train stage1` first, name the file with --projection, or start with a fresh one: "
            "--fresh-projection"
        )
    return found


def projection_input(asked: ProjectionInput | None, carried: Path | None) -> ProjectionInput:
    """The projection's input: as asked, as a carried projection was trained, or the default.

    Raises:
        ArtifactError: the carried projection cannot be read.
        UsageError: the carried projection was trained on another input.
    """
    if carried is None:
        return asked or PROJECTION_INPUT
    with _opened(carried) as file:
        # Earlier versions used normalised vectors only, and wrote no metadata.
        trained = ProjectionInput((file.metadata() or {}).get(_INPUT, ProjectionInput.NORMALIZED))
    if asked not in (None, trained):
        raise UsageError(
            f"--projection-input {asked}: stage 1 trained {carried} on {trained} vectors; leave the option "
            "out, or start with a fresh projection: --fresh-projection"
        )
    return trained


def check_inputs(stage1: StageOptions, stage2: Stage2Options) -> None:
    """Raises a UsageError if stage 2 would carry a projection that stage 1 trains on another input."""
    carried = stage2.objective is Objective.MIMO and stage2.carry_projection
    trained = stage1.reads
    if carried and stage2.projection_input not in (None, trained):
        raise UsageError(
            f"stage2.projection_input is {stage2.projection_input}, stage 1 trains the projection on "
            f"{trained} vectors: leave it out in stage 2, say the same in both, or carry none"
        )


def check_anchor_teacher(recipe: Recipe, names: Sequence[str]) -> None:
    """Raises a UsageError with every contradiction between anchor teacher, shares and objective.

    Args:
        names: of the stages that run.
    """
    shared = [name for name in names if getattr(recipe, name).anchor_share is not None]
    with Problems(UsageError) as problems:
        if "stage2" in shared and recipe.stage2.objective is not Objective.MIMO:
            problems.add(
                f"--anchor-share: --objective {recipe.stage2.objective} has no teacher, whose targets the "
                "anchor teacher would replace: leave it out, or train --objective mimo"
            )
        if shared and recipe.anchor_teacher is None:
            problems.add(
                f"--anchor-share of {' and '.join(shared)} needs a multilingual encoder that reads the "
                "student's texts: name it with --anchor-teacher"
            )
        if recipe.anchor_teacher and not recipe.stage1.anchor_share and not recipe.stage2.anchor_share:
            problems.add(
                f"--anchor-teacher {recipe.anchor_teacher.checkpoint} needs a share of the texts: "
                "--anchor-share FROM:TO, such as 0:0.5, or anchor_share in stage1 or stage2 of the recipe"
            )


def save_projection(projection: "nn.Module", path: Path, reads: ProjectionInput) -> None:
    """Writes a projection, `weight` (t, d) and `bias` (t,), as sentence-transformers' losses read it."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in projection.state_dict().items()}
    with writing_tensors(path), replacing(path) as beside:
        save_file(tensors, beside, metadata={_INPUT: reads.value})


def check_projection(path: Path, model: "SentenceTransformer", store: "TeacherStore") -> None:
    """Raises an ArtifactError unless a projection maps the student's vectors to the teacher's."""
    with _opened(path) as file:
        found = tuple(file.get_slice("weight").get_shape())
        file.get_slice("bias")
    expected = (store.dimension, int(model.get_embedding_dimension()))
    if found != expected:
        raise ArtifactError(
            f"{path} maps {found[1]} to {found[0]} dimensions, expected the student's {expected[1]} to the "
            f"teacher's {expected[0]}: it belongs to another student or teacher; "
            "--fresh-projection starts with a new one"
        )


@contextmanager
def _opened(projection: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(projection, framework="np") as file:
            yield file
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtifactError(f"{projection} is not a projection of stage 1: {error}") from error


Records = dict[int, dict[str, float]]  # step -> metric -> value, in order of the steps


@dataclass(frozen=True)
class Metrics:
    """Metrics of a run: of its training, and of its evaluations on the dev collection."""

    training: Records
    dev: Records

    def series(self, metric: str, *, dev: bool) -> tuple[list[int], list[float]]:
        """Steps and values of a metric."""
        records = self.dev if dev else self.training
        found = {step: record[metric] for step, record in records.items() if metric in record}
        return list(found), list(found.values())


def read_metrics(path: Path) -> Metrics:
    """Reads `{"step": 10, "stage": "stage1", "loss": 0.7, ...}` and `{"step": 10, "dev": {"ndcg@20": 0.5}}`.

    The last line of a step counts, as a resume repeats steps. Lines that a kill cut short are skipped.

    Raises:
        DataError: the file cannot be read, or has no metrics.
    """
    training: Records = {}
    dev: Records = {}
    for record in _records(path):
        scores = record.get("dev")
        if isinstance(scores, dict):
            dev[record["step"]] = _numbers(scores)
        else:
            training[record["step"]] = _numbers(record)
    if not training and not dev:
        raise DataError(f"{path}: no line with a step and metrics, expected a training run's metrics file")
    return Metrics(dict(sorted(training.items())), dict(sorted(dev.items())))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read as metrics: {error.strerror or error}") from error
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and _is_number(record.get("step"), int):
            yield record


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in record.items() if _is_number(value, int, float)}


def _is_number(value: object, *kinds: type) -> bool:
    """Whether a value is of one of these types, and fits 64 bits."""
    return type(value) in kinds and (not isinstance(value, int) or abs(value) < 2**63)


# Title, unit, whether of the dev collection, metrics.
_PANELS = (
    ("Training", "loss", False, ("loss", "contrastive", "distillation", "divergence")),
    ("Dev: retrieval", "0 to 1, higher is better", True, ("ndcg@20", "same_language@20")),
    ("Dev: vectors", "lower is better", True, ("alignment", "uniformity")),
)


def draw_curves(path: Path, output: Path) -> None:
    """Draws a training run's metrics, see `read_metrics`, as a PNG; panels without data are left out.

    Raises:
        DataError: the file has no metrics that can be drawn.
        EnvironmentProblem: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentProblem(
            "training curves need matplotlib, which is not installed: pip install matplotlib"
        ) from error
    metrics = read_metrics(path)
    drawn = []
    for title, unit, dev, names in _PANELS:
        series = {name: metrics.series(name, dev=dev) for name in names}
        if any(steps for steps, _ in series.values()):
            drawn.append((title, unit, series))
    if not drawn:
        known = ", ".join(name for panel in _PANELS for name in panel[3])
        raise DataError(f"{path}: no metrics that can be drawn, expected some of {known}")
    # Without pyplot, which keeps figures and chooses a back end for the whole process.
    figure = Figure(figsize=(5 * len(drawn), 3))
    # Finding margins takes as long as drawing.
    margins = {"left": 0.18 / len(drawn), "right": 1 - 0.03 / len(drawn), "bottom": 0.17, "top": 0.9}
    places = figure.subplots(1, len(drawn), squeeze=False, gridspec_kw={**margins, "wspace": 0.25})[0]
    for axes, (title, unit, series) in zip(places, drawn, strict=True):
        for name, (steps, values) in series.items():
            if steps:
                axes.plot(steps, values, label=name, marker="." if title != "Training" else None)
        # The parts of the loss differ by an order of magnitude.
        if title == "Training" and all(value > 0 for _, values in series.values() for value in values):
            axes.set_yscale("log")
        # Where it is anyway: looking for a place takes as long as drawing.
        axes.set_title(title, y=1.0)
        axes.set(xlabel="optimiser step", ylabel=unit)
        axes.legend(frameon=False, fontsize="small")
        axes.grid(alpha=0.25)
    make_parent(output)
    with replacing(output) as beside:
        figure.savefig(beside, format="png", dpi=130, metadata={"Software": None})
