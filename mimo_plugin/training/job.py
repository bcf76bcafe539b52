"""Where a stage runs, on what it stands, and what comes of it."""

from dataclasses import dataclass
from pathlib import Path

from mimo_plugin.errors import Findings, UsageError
from mimo_plugin.training.fitting import Devices, check_trackers
from mimo_plugin.training.options import Recipe, StageOptions
from mimo_plugin.training.run_directory import RunDirectory, TrainingManifest
from mimo_plugin.training.starting import Start, may_be_fetched


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
