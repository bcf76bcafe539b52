"""The student that a stage starts from: a checkpoint, what another run made, or a new one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.seen import SeenTexts
from mimo_plugin.training.fitting import Devices
from mimo_plugin.training.fresh_student import PREFIX, parse_size
from mimo_plugin.training.initial_student import load_or_create
from mimo_plugin.training.options import Recipe
from mimo_plugin.training.run_directory import MANIFEST, MODEL, RECIPE, require_weights

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
        from mimo_plugin.checkpoint import fingerprint

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
            from mimo_plugin.training.saving import save_student

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
