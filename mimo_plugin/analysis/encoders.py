"""Which encoders are looked at: checkpoints and training runs, with the names that tables give them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mimo_plugin import packaged
from mimo_plugin.errors import ArtifactError, DataError, Findings
from mimo_plugin.training.run_directory import MODEL, RECIPE, RunDirectory


class Encoder(NamedTuple):
    """Attributes:
    label: in tables and pictures.
    checkpoint: as `Student.load` takes it.
    run: the training run that it is of; None where none was named.
    """

    label: str
    checkpoint: str
    run: Path | None = None


def file_name(label: str) -> str:
    """A label as a part of file names."""
    return re.sub(r"[^\w.-]+", "-", label)


def parse_encoders(specs: Sequence[str]) -> list[Encoder]:
    """Reads several encoders, see `parse_encoder`.

    Raises:
        ArtifactError: as there.
        DataError: two of one name. All problems are in the one error.
    """
    findings = Findings()
    read = [findings.attempt(parse_encoder, spec) for spec in specs]
    encoders = [encoder for encoder in read if encoder is not None]
    findings.add(DataError, same_labels(encoders))
    findings.raise_any()
    return encoders


def parse_encoder(spec: str) -> Encoder:
    """Reads `NAME=CHECKPOINT`, or a checkpoint, which is called by the last part of its name.

    A checkpoint is a directory, a hub id or a packaged one, or the directory of a training run: then it is
    the run's model, and the newest checkpoint of a run that is not finished.

    Raises:
        ArtifactError: a run without a model and without a checkpoint, or a damaged one.
    """
    label, _, checkpoint = spec.partition("=")
    # A directory may have "=" in its own name.
    if not checkpoint or not label or Path(spec).exists():
        label, checkpoint = _label(spec), spec
    return _encoder(label, checkpoint)


def same_labels(encoders: Sequence[Encoder]) -> list[str]:
    """A problem for every encoder that has an earlier one's name."""
    first: dict[str, Encoder] = {}
    problems = []
    for encoder in encoders:
        # Names that differ in a slash only would share their files.
        other = first.setdefault(file_name(encoder.label).casefold(), encoder)
        if other is not encoder:
            label, checkpoint = encoder.label, encoder.checkpoint
            problems.append(
                f"two encoders are named {label!r} ({other.checkpoint} and {checkpoint}), expected different "
                f"names: give one as NAME=CHECKPOINT, for example {label}-2={checkpoint}"
            )
    return problems


def _encoder(label: str, checkpoint: str) -> Encoder:
    run = Path(checkpoint)
    if not (run / RECIPE).is_file():
        return Encoder(label, checkpoint)
    directory = RunDirectory(run)
    if directory.finished() is not None:
        return Encoder(label, str(directory.model), run)
    from mimo_plugin.training.trainer import last_checkpoint

    newest = last_checkpoint(directory.checkpoints)
    if newest is None:
        raise ArtifactError(
            f"{run} is a training run that is not finished and has no checkpoint yet, expected a model: run "
            "the `mimo train` command again that was to write it"
        )
    return Encoder(label, str(newest), run)


def _label(checkpoint: str) -> str:
    """The last part of a name; of a run's model directory, the run's."""
    path = Path(checkpoint.removeprefix(packaged.PREFIX))
    name = path.name or path.resolve().name
    parent = path.parent.name
    return parent if name == MODEL and parent else name or checkpoint
