"""The projection of stage 1: where stage 2 finds it, and whether it fits."""

from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.errors import ArtifactError, UsageError
from mimo_plugin.files import replacing
from mimo_plugin.training.options import PROJECTION_INPUT, ProjectionInput, Stage2Options, StageOptions
from mimo_plugin.training.run_directory import MODEL, PROJECTION
from mimo_plugin.training.schedule import Objective
from mimo_plugin.training.writing import writing_tensors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from mimo_plugin.training.teacher_store import TeacherStore

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
