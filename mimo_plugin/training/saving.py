"""A trained student on disk: sentence-transformers layout that plain transformers and Pyserini read, too."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.errors import ArtifactError, ModelError
from mimo_plugin.quiet import without_model_bars
from mimo_plugin.training.model_card import ModelCard, render_card
from mimo_plugin.training.writing import writing_tensors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["ModelCard", "save_student"]

_CARD = "README.md"
# Either is in every checkpoint.
_SIGNS = ("modules.json", "config.json")


def save_student(
    model: "SentenceTransformer",
    directory: Path,
    *,
    card: ModelCard | None = None,
    add: Callable[[Path], object] = lambda _: None,
) -> None:
    """Writes a checkpoint with its model card; what lies in its place is whole at any moment.

    Where an earlier checkpoint is replaced there is none for the time between two renames.

    Weights are safetensors and nothing is pickled.

    Args:
        directory: new, empty, or an earlier checkpoint, which is replaced.
        card: what is known of how the model came to be.
        add: writes further files into the directory that it is given.

    Raises:
        ArtifactError: something else lies there.
        EnvironmentProblem: the file system refuses.
        ModelError: a weight is NaN or infinite.
    """
    _require_finite(model)
    _refuse_foreign(directory)
    _forget_last_call(model)
    directory = directory.resolve()
    beside = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    replaced = directory.with_name(f".{directory.name}.{os.getpid()}.old")
    try:
        with writing_tensors(directory):
            directory.parent.mkdir(parents=True, exist_ok=True)
            with without_model_bars():
                model.save_pretrained(str(beside), create_model_card=False, safe_serialization=True)
            (beside / _CARD).write_text(
                render_card(model, directory.name, card or ModelCard()), encoding="utf-8"
            )
            add(beside)
            _settle(beside)
            if directory.exists():
                directory.rename(replaced)
            beside.rename(directory)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _require_finite(model: "SentenceTransformer") -> None:
    import torch

    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"the student is not saved: its weights {name} hold NaN or infinity")


def _forget_last_call(model: "SentenceTransformer") -> None:
    """A tokenizer keeps the length and padding of its last call, which would differ after a resume."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()


def _refuse_foreign(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise ArtifactError(f"{directory} is a file: a checkpoint is a directory, new, empty or a checkpoint")
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    if names and not any(sign in names for sign in _SIGNS):
        raise ArtifactError(
            f"{directory} holds something else ({', '.join(names[:5])}): a checkpoint needs a new or empty "
            "directory, or replaces an earlier checkpoint"
        )


def _settle(directory: Path) -> None:
    """Has all files on the disk, and the weights readable by whom the others are."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    mode = (directory / _CARD).stat().st_mode
    for path in files:
        path.chmod(mode)
        with path.open("rb") as file:
            os.fsync(file.fileno())
