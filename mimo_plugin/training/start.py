"""What a stage starts from: recipe, device, student, projection."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.core.errors import Findings, UsageError
from mimo_plugin.evaluation.trained_on import SeenTexts
from mimo_plugin.training.fitting import Devices, check_trackers
from mimo_plugin.training.recipe import Recipe, StageOptions
from mimo_plugin.training.run import MANIFEST, MODEL, RECIPE, RunDirectory, TrainingManifest, require_weights
from mimo_plugin.training.student import PREFIX, load_or_create, parse_size

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Start:
    """Attributes:
    checkpoint: as given.
    model: the loaded student; None for a new one, which is made when it is needed.
    fingerprint: of the loaded weights; None for a new one.
    seen: the texts that it was trained on before; None where nobody knows.
    """

    checkpoint: str
    model: "SentenceTransformer | None"
    fingerprint: str | None
    seen: SeenTexts | None = None

    @classmethod
    def find(cls, recipe: Recipe, max_length: int, device: str) -> "Start":
        """Loads a checkpoint, or checks the size of a new student.

        Raises:
            ArtifactError: the student is an unfinished training run.
            ModelError: there is no such checkpoint, or it is no encoder.
            UsageError: an unknown size, or a longer text than the checkpoint reads.
        """
        from mimo_plugin.encoder.fingerprint import fingerprint

        given = recipe.student.checkpoint
        if given.startswith(PREFIX):
            parse_size(given)
            return cls(given, None, None)
        model = load_or_create(
            checkpoint_of(given),
            (),
            seed=recipe.seed,
            max_length=max_length,
            device=device,
            **recipe.student.encoding(),
        )
        return cls(given, model, fingerprint(model), SeenTexts.open(checkpoint_of(given)))

    def student(
        self,
        kept: Path,
        texts: Callable[[], Iterable[tuple[str, str]]],
        recipe: Recipe,
        max_length: int,
        devices: Devices,
    ) -> "SentenceTransformer":
        """The student, ready to be trained.

        Args:
            kept: where a new student is written before it is trained, for a run that goes on.
            texts: (language, text) pairs that a new student's tokenizer is trained on.
        """
        if self.model is not None:
            return self.model
        if devices.main and not kept.is_dir():
            from mimo_plugin.training.record import save_student

            new = load_or_create(
                self.checkpoint,
                texts(),
                seed=recipe.seed,
                # Room for both stages' texts, so that what stage 1 made fits stage 2.
                max_length=max(recipe.stage1.max_length, recipe.stage2.max_length),
                vocab_size=recipe.student.vocabulary,
                device=devices.kind,
                **recipe.student.encoding(),
            )
            save_student(new, kept)
        devices.wait()
        return load_or_create(str(kept), (), seed=recipe.seed, max_length=max_length, device=devices.kind)


def may_be_fetched(student: str) -> bool:
    """Whether a name may be a hub's: no place on this machine, nothing new or packaged."""
    path = Path(student)
    return ":" not in student and not path.is_absolute() and not path.exists()


def checkpoint_of(student: str) -> str:
    """The checkpoint in a training run's output directory; anything else as it is.

    Raises:
        ArtifactError: the run is not finished, or damaged.
    """
    directory = Path(student)
    if (directory / RECIPE).is_file() or ((directory / MODEL).is_dir() and (directory / MANIFEST).is_file()):
        require_weights(directory)
        return str(directory / MODEL)
    return student


@dataclass(frozen=True)
class Job:
    """Where and how a stage runs; nothing of it decides the weights.

    Attributes:
        output: directory of the run.
        teacher_store: directory of the teacher's embeddings, shared between runs.
        device: torch device; None is the fastest that is there.
        encoder_batch_size: texts a batch when the teacher or the dev collection is encoded.
        resume: go on with a run that was cut short; False starts over.
        progress: see `progress.bar`.
    """

    output: Path
    teacher_store: Path
    device: str | None = None
    encoder_batch_size: int = 64
    resume: bool = True
    progress: bool | None = None


@dataclass(frozen=True)
class Trained:
    """Attributes:
    directory: of the run; `model/` in it is the checkpoint.
    manifest: what the run did.
    already: whether it was there, finished, before.
    """

    directory: Path
    manifest: TrainingManifest
    already: bool


@dataclass(frozen=True)
class Ground:
    """What a stage stands on besides its data.

    Attributes:
        devices: that train.
        start: the student.
    """

    devices: Devices
    start: Start

    @classmethod
    def find(cls, findings: Findings, recipe: Recipe, options: StageOptions, job: Job) -> "Ground | None":
        """Notes every problem; None where there are some. A student that would be fetched, for a run that
        cannot start, is not looked at."""
        findings.attempt(RunDirectory(job.output).refuse_foreign)
        if Path(recipe.student.checkpoint).resolve().is_relative_to(job.output.resolve()):
            findings.add(
                UsageError,
                [f"--output {job.output} is where --student lies: it would be overwritten, choose another"],
            )
        devices = findings.attempt(Devices.find, job.device)
        if devices is None:
            return None
        shared = findings.attempt(devices.slice_of, options)
        findings.attempt(check_trackers, recipe.report_to)
        if findings and may_be_fetched(recipe.student.checkpoint):
            return None
        start = findings.attempt(Start.find, recipe, options.max_length, devices.kind)
        return None if shared is None or start is None else cls(devices, start)
