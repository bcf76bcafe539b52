"""A training run's directory and its manifest."""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml

from mimo_plugin.core.artifact import (
    FileRecord,
    Held,
    SealedRecord,
    parse_manifest,
    require_content,
    require_files,
)
from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem, UsageError
from mimo_plugin.core.files import cannot_write, check_place, remove_tree, replacing, write_text, writing
from mimo_plugin.training.recipe import (
    PROJECTION_INPUT,
    ProjectionInput,
    Stage2Options,
    StageOptions,
    read_yaml,
)
from mimo_plugin.training.schedule import Objective

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from mimo_plugin.training.teacher_store import TeacherStore

FORMAT: Final = "mimo-training"
MANIFEST, RECIPE, METRICS, CURVES = "manifest.json", "recipe.yaml", "metrics.jsonl", "curves.png"
MODEL, INITIAL, CHECKPOINTS, TENSORBOARD = "model", "initial", "checkpoints", "tensorboard"
PROJECTION = "projection.safetensors"
_DAMAGED = "the run is damaged; train again with --no-resume"
# Parts of an identity that are looked into.
_SECTIONS = ("data", "student", "teacher")
_OURS = (MANIFEST, RECIPE, METRICS, CURVES, MODEL, INITIAL, CHECKPOINTS, TENSORBOARD, PROJECTION)
_LEFTOVER = re.compile(rf"\.({'|'.join(map(re.escape, _OURS))})\.\d+\.(tmp|old)")


class TrainingManifest(SealedRecord):
    """What a finished run did.

    Attributes:
        stage: "stage1" or "stage2".
        identity: all that decides the weights: options, seed, data, teacher and student.
        environment: what it ran on: versions, device, git commit of the project.
        steps: optimiser steps.
        languages: how often each language or combination of languages was drawn.
        best_step: the step whose weights were kept; None is the last.
        scores: on the dev collection, of the kept weights.
        seconds: of training in this process, evaluations included.
        training_texts: file of the `SeenTexts` of this run's data and of its student's before it; None of an
            earlier version.
        files: the checkpoint, but for its card, and the projection.
    """

    format: Literal["mimo-training"] = FORMAT
    format_version: Literal[1] = 1
    stage: str
    identity: dict[str, Any]
    environment: dict[str, Any]
    steps: int
    languages: dict[str, int]
    best_step: int | None
    scores: dict[str, float]
    seconds: float
    training_texts: str | None = None
    files: dict[str, FileRecord]


class RunDirectory:
    """An output directory of `mimo train`.

    Args:
        path: new, empty, or one that the command began.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / MODEL
        self.checkpoints = path / CHECKPOINTS
        self.metrics = path / METRICS
        self.curves = path / CURVES
        self.initial = path / INITIAL
        self._held: Held | None = None

    def refuse_foreign(self) -> None:
        """Raises an ArtifactError when the directory holds anything that is not this command's, and a
        UsageError where it cannot be written."""
        if self.path.is_file():
            raise ArtifactError(f"{self.path} is a file: --output must name a new or empty directory")
        check_place(self.path / MANIFEST)
        if not self.path.is_dir():
            return
        present = {entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")}
        foreign = present - set(_OURS) if RECIPE in present else present
        if foreign:
            names = ", ".join(sorted(foreign)[:5])
            raise ArtifactError(
                f"{self.path} holds something else ({names}): --output must name a new or empty directory, "
                "or a run that this command began"
            )

    def finished(self) -> TrainingManifest | None:
        """The manifest of a finished run; None where there is none."""
        path = self.path / MANIFEST
        return read_training_manifest(self.path) if path.is_file() else None

    def begun(self) -> dict[str, Any] | None:
        """The identity of the run that was begun here; None where there is none.

        Raises:
            ArtifactError: the file that says so is damaged.
        """
        path = self.path / RECIPE
        if not path.is_file():
            return None
        try:
            found = read_yaml(path)
        except UsageError as error:
            raise ArtifactError(f"{error}; start over with --no-resume") from error
        if not all(isinstance(found.get(section, {}), dict) for section in _SECTIONS):
            raise ArtifactError(f"{path} is damaged ({', '.join(_SECTIONS)}): start over with --no-resume")
        return found

    def start_over(self) -> None:
        """Removes what an earlier run left; the manifest first, the recipe that says whose it is last."""
        for name in (MANIFEST, *(name for name in _OURS if name not in (MANIFEST, RECIPE)), RECIPE):
            path = self.path / name
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink(missing_ok=True)

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Makes the directory, says whose it is, and removes what a kill left half-written."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for path in self.path.iterdir():
                if _LEFTOVER.fullmatch(path.name):
                    if path.is_dir():
                        remove_tree(path)
                    else:
                        path.unlink()
            write_text(
                self.path / RECIPE, yaml.safe_dump(dict(identity), sort_keys=False, allow_unicode=True)
            )
        self._held = Held(self.path)

    def require_there(self) -> None:
        """Raises an EnvironmentProblem where the directory is no longer the one in which the run began."""
        if self._held is not None:
            self._held.require()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Where somebody removes the directory, what libraries wrote to its place after that is removed too:
        nobody could go on with it, and the next run would take it for something else.

        Raises:
            EnvironmentProblem: in place of any error that came of it.
        """
        try:
            yield
        except BaseException as error:
            if self._held is not None and not self._held.lies_there():
                self._remove_rest()
                if isinstance(error, Exception):
                    self.require_there()
            raise

    def _remove_rest(self) -> None:
        if self.path.is_dir() and not (self.path / RECIPE).exists():
            with suppress(OSError, EnvironmentProblem):
                self.start_over()
                self.path.rmdir()

    def finish(self, manifest: TrainingManifest) -> None:
        """Seals the run with its manifest, and removes what was needed only to go on with it."""
        self.require_there()
        write_text(self.path / MANIFEST, manifest.sealed(indent=2))
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def differences(mine: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What two identities do not have in common, a line each."""

    def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from flat(inner, f"{name}.{key}" if name else str(key))
        else:
            yield name, value

    own, others = dict(flat(mine)), dict(flat(other))
    return [
        f"{name} is {own.get(name)!r}, there it is {others.get(name)!r}"
        for name in dict.fromkeys([*own, *others])
        if own.get(name) != others.get(name)
    ]


def read_training_manifest(directory: Path) -> TrainingManifest:
    """Reads the manifest of a finished run and checks it against the files beside it.

    Raises:
        ArtifactError: no finished training run, or a damaged one.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{directory} has no {MANIFEST}: it is not a finished training run; run the `mimo train` command "
            "again that was to write it"
        )
    manifest = parse_manifest(path, TrainingManifest, "a training run")
    require_files(directory, manifest.files, _DAMAGED)
    return manifest


def require_weights(directory: Path) -> None:
    """Checks what a finished run made against its SHA-256; raises as `read_training_manifest`."""
    require_content(directory, read_training_manifest(directory).files, _DAMAGED)


# torch says that its archive came out shorter than what it wrote, or that there is no directory for it.
_TORCH = ("unexpected pos", "iostream error", "PytorchStreamWriter", "Parent directory")


@contextmanager
def writing_tensors(path: Path) -> Iterator[None]:
    """As `files.writing`, also where safetensors or torch write.

    Raises:
        EnvironmentProblem: the file system refuses.
    """
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


# What a projection reads, in its file's metadata.
_INPUT = "input"


def find_projection(student: str, given: Path | None) -> Path:
    """The file that holds the projection of a student that went through stage 1.

    Args:
        student: the checkpoint, or the output directory of the run that made it.
        given: where the user says that it is.

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
    """What the projection reads: what was asked for, what a carried one was trained on, or the default.

    Raises:
        ArtifactError: the carried one cannot be read.
        UsageError: it was trained on the other.
    """
    if carried is None:
        return asked or PROJECTION_INPUT
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(carried, framework="np") as file:
            # Earlier versions had the normalised vectors only, and did not say so.
            said = (file.metadata() or {}).get(_INPUT, ProjectionInput.NORMALIZED)
        trained = ProjectionInput(said)
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtifactError(f"{carried} is no projection that stage 1 wrote: {error}") from error
    if asked not in (None, trained):
        raise UsageError(
            f"--projection-input {asked}: stage 1 trained {carried} on {trained} vectors; leave the option "
            "out, or start with a fresh projection: --fresh-projection"
        )
    return trained


def check_inputs(stage1: StageOptions, stage2: Stage2Options) -> None:
    """Raises a UsageError where stage 2 would carry a projection that stage 1 trains on something else."""
    carried = stage2.objective is Objective.MIMO and stage2.carry_projection
    trained = stage1.projection_input or PROJECTION_INPUT
    if carried and stage2.projection_input not in (None, trained):
        raise UsageError(
            f"stage2.projection_input is {stage2.projection_input}, stage 1 trains the projection on "
            f"{trained} vectors: leave it out in stage 2, say the same in both, or carry none"
        )


def save_projection(projection: "nn.Module", path: Path, reads: ProjectionInput) -> None:
    """Writes a projection, `weight` (t, d) and `bias` (t,), as sentence-transformers' losses read it."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in projection.state_dict().items()}
    with writing_tensors(path), replacing(path) as beside:
        save_file(tensors, beside, metadata={_INPUT: reads.value})


def check_projection(path: Path | None, model: "SentenceTransformer", store: "TeacherStore | None") -> None:
    """Checks that a projection leads from the student's vectors to the teacher's.

    Raises:
        ArtifactError: it has another shape, or is no projection.
    """
    if path is None or store is None:
        return
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            found = tuple(file.get_slice("weight").get_shape())
            file.get_slice("bias")
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} is no projection that stage 1 wrote: {error}") from error
    expected = (store.dimension, int(model.get_embedding_dimension()))
    if found != expected:
        raise ArtifactError(
            f"{path} leads from {found[1]} to {found[0]} dimensions, expected from the student's "
            f"{expected[1]} to the teacher's {expected[0]}: it belongs to another student or teacher; "
            "--fresh-projection starts with a new one"
        )
