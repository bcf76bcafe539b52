"""sentence-transformers' trainer with a projection in its checkpoints, and its callbacks."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from torch import Tensor
from transformers import TrainerCallback

from mimo_plugin.core.environment import bar, without_model_bars
from mimo_plugin.core.errors import MimoError
from mimo_plugin.core.files import remove_tree, write_text
from mimo_plugin.training.recipe import PROJECTION_INPUT, StageOptions
from mimo_plugin.training.run import PROJECTION, save_projection

if TYPE_CHECKING:
    from mimo_plugin.training.run import RunDirectory


class SortedByLength(SentenceTransformerDataCollator):
    """Puts the rows of a batch in order of their tokens, so that mini-batches hold little padding.

    The losses do not depend on the order of rows.
    """

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().__call__(features)
        masks = [value for name, value in batch.items() if name.endswith("attention_mask")]
        order = torch.stack([mask.sum(dim=1) for mask in masks]).sum(dim=0).argsort(stable=True)
        return {
            name: value[order] if isinstance(value, torch.Tensor) and len(value) == len(order) else value
            for name, value in batch.items()
        }


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


_PARTS = ("loss", "contrastive", "distillation", "divergence", "similarity")


class ProgressBar(TrainerCallback):
    """A bar over the optimiser steps with the parts of the loss, the rate and the remaining time."""

    def __init__(self, what: str, enabled: bool | None) -> None:
        self._what = what
        self._enabled = enabled
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self._bar = bar(
                total=state.max_steps,
                initial=state.global_step,
                what=self._what,
                unit="steps",
                enabled=self._enabled,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if self._bar is not None and logs and "loss" in logs:
            shown = {part: f"{logs[part]:.4f}" for part in _PARTS if part in logs}
            self._bar.set_postfix(shown, refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class MetricsFile(TrainerCallback):
    """Metrics as JSON lines: `step`, `stage`, the parts of the loss, `texts_per_second`; `dev` where scored.

    A resumed run repeats the steps after its checkpoint; the later line of a step counts.
    """

    def __init__(self, path: Path, stage: str, texts_a_step: int) -> None:
        self._path = path
        self._stage = stage
        self._texts_a_step = texts_a_step
        self._since = (0, 0.0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._since = (state.global_step, time.perf_counter())
        if state.is_world_process_zero and self._path.is_file():
            content = self._path.read_bytes()
            # A kill may have cut the last line short.
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(self._path, whole)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        line: dict[str, Any] = {"step": state.global_step, "stage": self._stage}
        if "loss" in logs:
            line.update({name: value for name, value in logs.items() if isinstance(value, (int, float))})
            step, moment = self._since
            now = time.perf_counter()
            if state.global_step > step:
                texts = (state.global_step - step) * self._texts_a_step
                line["texts_per_second"] = round(texts / (now - moment), 2)
            self._since = (state.global_step, now)
        else:
            dev = {
                name.removeprefix("eval_dev_"): value
                for name, value in logs.items()
                if name.startswith("eval_dev_")
            }
            if not dev:
                return
            line["dev"] = dev
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class StillThere(TrainerCallback):
    """Ends a training whose directory was removed; checkpoints would make it again, without the rest."""

    def __init__(self, directory: "RunDirectory") -> None:
        self._directory = directory

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._directory.require_there()


class LastStep(TrainerCallback):
    """Logs the last step, and scores it where there is a dev collection, wherever the intervals end.

    Args:
        scored: whether there is a dev collection.
    """

    def __init__(self, scored: bool) -> None:
        self._scored = scored

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = self._scored


class GradientGuard(TrainerCallback):
    """Looks at the gradients before each step of the optimiser."""

    def __init__(self) -> None:
        self.check: Callable[[], None] = lambda: None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.check()
