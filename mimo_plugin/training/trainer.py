"""sentence-transformers' trainer with what a training run needs here: loss parts in the log, checkpoints that
are whole or not there and hold the projection, and a stop where training has collapsed."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformerTrainer
from torch import Tensor

from mimo_plugin.errors import MimoError
from mimo_plugin.files import remove_tree, write_text
from mimo_plugin.quiet import without_model_bars
from mimo_plugin.training.collator import SortedByLength
from mimo_plugin.training.options import PROJECTION_INPUT, StageOptions
from mimo_plugin.training.projection import save_projection
from mimo_plugin.training.run_directory import PROJECTION

# Written last into a checkpoint: one without it was cut short.
_COMPLETE = "complete"


class TrainingFailed(MimoError):
    """Training cannot go on: the loss or the gradients are no numbers, or the encoder has collapsed."""


class Trainer(SentenceTransformerTrainer):
    """Args, beyond those of sentence-transformers:
    projection: the loss's layer that is not part of the model; None where there is none.
    options: of the stage.
    """

    data_collator_class = SortedByLength
    # Our losses are means over a batch: the trainer divides them by the number of accumulated batches.
    loss_is_scaled_for_ga = False

    def __init__(
        self, *args: Any, projection: torch.nn.Module | None, options: StageOptions, **kwargs: Any
    ) -> None:
        self._projection = projection
        self._options = options
        self._similar_batches = 0
        super().__init__(*args, **kwargs)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: the card is written once, from the run's own record."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        parts = self.loss.parts
        self.track_loss_components(parts)
        self._refuse_collapse(loss[0] if return_outputs else loss, parts["similarity"])
        return loss

    def _refuse_collapse(self, loss: Tensor, similarity: Tensor) -> None:
        step = self.state.global_step + 1
        if not torch.isfinite(loss):
            raise TrainingFailed(
                f"step {step}: the loss is {float(loss.detach())}: use a lower --learning-rate or "
                f"--precision float32. {self._what_is_kept()}"
            )
        limit, patience = self._options.collapse_similarity, self._options.collapse_steps
        warm = step > self.args.get_warmup_steps(self.state.max_steps)
        self._similar_batches = self._similar_batches + 1 if warm and float(similarity) > limit else 0
        if self._similar_batches >= patience * self.args.gradient_accumulation_steps:
            raise TrainingFailed(
                f"step {step}: the encoder has collapsed, different texts have had a mean cosine above "
                f"{limit} for {patience} steps: use a lower --learning-rate or a longer --warmup. "
                f"{self._what_is_kept(before=step - patience + 1)}"
            )

    def refuse_overflow(self) -> None:
        """Raises a TrainingFailed where a gradient is no number; called before the optimiser's step."""
        gradients = [p.grad for p in self.loss.parameters() if p.grad is not None]
        norms = torch._foreach_norm(gradients)
        if not torch.isfinite(torch.stack([norm.float() for norm in norms])).all():
            raise TrainingFailed(
                f"step {self.state.global_step + 1}: a gradient has overflowed: use a lower --learning-rate "
                f"or --precision float32. {self._what_is_kept()}"
            )

    def _what_is_kept(self, before: int | None = None) -> str:
        kept = last_checkpoint(Path(self.args.output_dir), before=before)
        return f"The last good checkpoint is {kept}" if kept else "No checkpoint had been written before"

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        directory = Path(output_dir or self.args.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        with without_model_bars():
            self.model.save_pretrained(str(directory), create_model_card=False)
        if self._projection is not None:
            reads = self._options.projection_input or PROJECTION_INPUT
            save_projection(self._projection, directory / PROJECTION, reads)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        directory = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if not all(torch.isfinite(parameter).all() for parameter in self.loss.parameters()):
            raise TrainingFailed(
                f"step {self.state.global_step}: a weight is no number: use a lower --learning-rate. "
                f"{self._what_is_kept()}"
            )
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            write_text(directory / _COMPLETE, f"{self.state.global_step}\n")

    def _load_from_checkpoint(self, checkpoint_path: str, *args: Any, **kwargs: Any) -> None:
        with without_model_bars():
            super()._load_from_checkpoint(checkpoint_path, *args, **kwargs)
        self._load_projection(Path(checkpoint_path))

    def _load_best_model(self) -> None:
        # Its own method only logs an error, and the path is as it was named when the run began.
        best = Path(self.args.output_dir) / f"checkpoint-{self.state.best_global_step}"
        self._load_from_checkpoint(str(best))

    def _load_projection(self, checkpoint: Path) -> None:
        if self._projection is not None:
            self._projection.load_state_dict(load_file(checkpoint / PROJECTION))


def last_checkpoint(directory: Path, *, before: int | None = None) -> Path | None:
    """The newest complete checkpoint below a directory, of a step before the given one."""
    steps = [int(path.name.rpartition("-")[2]) for path in _checkpoints(directory) if _is_complete(path)]
    steps = [step for step in steps if before is None or step < before]
    return directory / f"checkpoint-{max(steps)}" if steps else None


def discard_incomplete(directory: Path) -> None:
    """Removes checkpoints that a kill left half-written."""
    for path in _checkpoints(directory):
        if not _is_complete(path):
            remove_tree(path)


def _checkpoints(directory: Path) -> list[Path]:
    return [path for path in directory.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]


def _is_complete(checkpoint: Path) -> bool:
    return (checkpoint / _COMPLETE).is_file()
