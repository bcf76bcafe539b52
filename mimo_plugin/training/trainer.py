"""sentence-transformers' trainer with projections in its checkpoints, its callbacks, and `fit`."""

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from torch import Tensor, nn
from transformers import TrainerCallback

from mimo_plugin.core.environment import bar, native_bfloat16, without_model_bars
from mimo_plugin.core.errors import MimoError
from mimo_plugin.core.files import Held, write_text
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.training import losses
from mimo_plugin.training.examples import Examples
from mimo_plugin.training.recipe import Precision
from mimo_plugin.training.run import (
    COMPLETE,
    TENSORBOARD,
    save_projection,
    writing_tensors,
)
from mimo_plugin.training.start import MAIN_MEASURE, DevCollection, Devices

if TYPE_CHECKING:
    from mimo_plugin.training.stages import Stage

_SAVED_CHECKPOINTS = 2


class SortedByLength(SentenceTransformerDataCollator):
    """Sorts a batch's rows by length, so that mini-batches hold little padding.

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


class TrainingFailed(MimoError):
    """Training cannot continue: NaN or infinity in loss, gradients or weights, or a collapsed encoder."""


class Trainer(SentenceTransformerTrainer):
    """The trainer of a stage.

    Args:
        projections: file name -> layer of the loss outside the model.
        kwargs: as for sentence-transformers' trainer.
    """

    data_collator_class = SortedByLength
    # Our losses are means over a batch: the trainer divides them by the number of accumulated batches.
    loss_is_scaled_for_ga = False

    def __init__(self, stage: "Stage", projections: Mapping[str, nn.Module], **kwargs: Any) -> None:
        self._stage = stage
        self._projections = projections
        self._similar_batches = 0
        super().__init__(**kwargs)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Adds none: the card is written once, by `save_student`."""

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
            raise self._failure(step, f"the loss is {float(loss.detach())}", " or --precision float32")
        options = self._stage.options
        limit, patience = options.collapse_similarity, options.collapse_steps
        warm = step > self.args.get_warmup_steps(self.state.max_steps)
        self._similar_batches = self._similar_batches + 1 if warm and float(similarity) > limit else 0
        if self._similar_batches >= patience * self.args.gradient_accumulation_steps:
            raise self._failure(
                step,
                "the encoder has collapsed, different texts have had a mean cosine above "
                f"{limit} for {patience} steps",
                " or a longer --warmup",
                before=step - patience + 1,
            )

    def refuse_overflow(self) -> None:
        """Raises a TrainingFailed if a gradient is NaN or infinite; called before the optimiser's step."""
        gradients = [p.grad for p in self.loss.parameters() if p.grad is not None]
        norms = torch._foreach_norm(gradients)
        if not torch.isfinite(torch.stack([norm.float() for norm in norms])).all():
            step = self.state.global_step + 1
            raise self._failure(step, "a gradient has overflowed", " or --precision float32")

    def _failure(self, step: int, found: str, remedy: str, before: int | None = None) -> TrainingFailed:
        kept = self._stage.directory.last_checkpoint(before=before)
        left = f"The last good checkpoint is {kept}" if kept else "No checkpoint had been written before"
        return TrainingFailed(f"step {step}: {found}: use a lower --learning-rate{remedy}. {left}")

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        directory = Path(output_dir or self.args.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        with without_model_bars():
            self.model.save_pretrained(str(directory), create_model_card=False)
        for name, layer in self._projections.items():
            save_projection(layer, directory / name, self._stage.options.reads)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        if not all(torch.isfinite(parameter).all() for parameter in self.loss.parameters()):
            raise self._failure(step, "a weight is NaN or infinite", "")
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            write_text(Path(self.args.output_dir) / f"checkpoint-{step}" / COMPLETE, f"{step}\n")

    def _load_from_checkpoint(self, checkpoint_path: str, *args: Any, **kwargs: Any) -> None:
        with without_model_bars():
            super()._load_from_checkpoint(checkpoint_path, *args, **kwargs)
        for name, layer in self._projections.items():
            layer.load_state_dict(load_file(Path(checkpoint_path) / name))

    def _load_best_model(self) -> None:
        # The inherited method only logs an error, and its path is that of the run's first start.
        best = Path(self.args.output_dir) / f"checkpoint-{self.state.best_global_step}"
        self._load_from_checkpoint(str(best))


_PARTS = ("loss", "contrastive", "distillation", "divergence", "similarity")


class ProgressBar(TrainerCallback):
    """A bar over the optimiser steps with the parts of the loss, the rate and the remaining time."""

    def __init__(self, what: str, enabled: bool | None) -> None:
        self._what = what
        self._enabled = enabled
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            total, done = state.max_steps, state.global_step
            self._bar = bar(total=total, initial=done, what=self._what, unit="steps", enabled=self._enabled)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if self._bar is not None and logs and "loss" in logs:
            shown = {part: f"{logs[part]:.4f}" for part in _PARTS if part in logs}
            self._bar.set_postfix(shown, refresh=False)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class MetricsFile(TrainerCallback):
    """Metrics as JSON lines: `step`, `stage`, the parts of the loss, `texts_per_second`; `dev` if evaluated.

    A resumed run repeats the steps after its checkpoint; the last line of a step counts.
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
            dev = _dev_scores(logs)
            if not dev:
                return
            line["dev"] = dev
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class StepGuard(TrainerCallback):
    """Checks gradients and directory at each step, and has the last step logged and evaluated.

    Args:
        held: the run's directory, which checkpoints would recreate if it was removed; None in a process that
            does not write.
        scored: whether there is a dev collection.
    """

    def __init__(self, trainer: Trainer, held: Held | None, scored: bool) -> None:
        self._trainer = trainer
        self._held = held
        self._scored = scored

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.refuse_overflow()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._held is not None:
            self._held.require()
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = self._scored


class DevScores(BaseEvaluator):
    """Evaluates on the dev collection, in sentence-transformers' trainer."""

    def __init__(self, collection: DevCollection, options: EncoderOptions) -> None:
        super().__init__()
        self._collection = collection
        self._options = options
        self.primary_metric = f"dev_{MAIN_MEASURE}"

    def __call__(
        self,
        model: SentenceTransformer,
        output_path: str | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> Mapping[str, float]:
        scores = self._collection.score(Encoder.of(model, "the student in training", self._options))
        return {f"dev_{name}": value for name, value in scores.items()}


_DEV = "eval_dev_"


def _dev_scores(logs: Mapping[str, Any]) -> dict[str, float]:
    return {name.removeprefix(_DEV): float(value) for name, value in logs.items() if name.startswith(_DEV)}


class InOrder:
    """Batches in the plan's order: rows 0 .. batch_size - 1 first."""

    def __init__(self, dataset: Any, batch_size: int, **_: Any) -> None:
        self._rows = len(dataset)
        self.batch_size = batch_size
        self.drop_last = True

    def __len__(self) -> int:
        return self._rows // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield list(range(start, start + self.batch_size))

    def set_epoch(self, epoch: int) -> None:
        """There is one epoch: the plan holds every pass over the data."""


@dataclass(frozen=True)
class Fit:
    """Result of training.

    Attributes:
        steps: optimiser steps done.
        best_step: the step whose weights were kept; None without a dev collection.
        scores: on the dev collection at that step.
        projections: file name -> layer of the loss outside the model.
    """

    steps: int
    best_step: int | None
    scores: dict[str, float]
    projections: Mapping[str, nn.Module]


def fit(
    stage: "Stage",
    model: SentenceTransformer,
    examples: Examples,
    dimensions: Sequence[int],
    aligned: Sequence[str],
    devices: Devices,
    dev: DevCollection | None,
    held: Held | None,
) -> Fit:
    """Trains the model in place; resumes from the last checkpoint if there is one.

    Args:
        dimensions: of the teachers' embeddings, see `losses.build_loss`.
        aligned: projections that start as the identity, since the student is a copy of the teacher.
        held: the run's directory; None in a process that does not write.

    Raises:
        EnvironmentProblem: the file system refuses.
        TrainingFailed: NaN or infinity occurs, or the encoder collapses.
    """
    from transformers import PrinterCallback
    from transformers.integrations import TensorBoardCallback

    options, run = stage.options, stage.directory
    # A fresh projection is drawn from the seed, whatever random numbers were used before.
    torch.manual_seed(stage.recipe.seed)
    loss, projections = losses.build_loss(model, options, dimensions, stage.projections)
    for name in aligned:
        torch.nn.init.eye_(projections[name].weight)
        torch.nn.init.zeros_(projections[name].bias)
    progress_bar = ProgressBar(stage.name, stage.settings.progress)
    texts_a_step = options.batch_size * len(examples.text_columns)
    callbacks: list[Any] = [MetricsFile(run.metrics, stage.name, texts_a_step), progress_bar]
    if held is not None:
        from torch.utils.tensorboard import SummaryWriter

        callbacks.append(TensorBoardCallback(SummaryWriter(str(run.path / TENSORBOARD))))
        run.discard_incomplete()
    devices.wait()
    if devices.kind == "cpu" and use_bfloat16(options.precision, devices.kind):
        # Measured: the backward pass of fused attention takes twice as long in bfloat16 on a CPU.
        model.transformers_model.set_attn_implementation("eager")
    encoding = EncoderOptions(batch_size=stage.settings.encoder_batch_size)
    with _quiet():
        trainer = Trainer(
            stage,
            projections,
            model=model,
            args=_arguments(stage, examples.steps, devices, _prompts(model, examples.text_columns)),
            train_dataset=examples.dataset,
            loss=loss,
            evaluator=None if dev is None else DevScores(dev, encoding),
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(StepGuard(trainer, held, dev is not None))
        checkpoint = run.last_checkpoint()
        try:
            with writing_tensors(run.path):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            progress_bar.close()
    state = trainer.state
    if dev is None:
        return Fit(state.global_step, None, {}, projections)
    best = int(state.best_global_step)
    lines = [line for line in state.log_history if line["step"] == best and f"{_DEV}{MAIN_MEASURE}" in line]
    return Fit(state.global_step, best, _dev_scores(lines[-1]), projections)


def _prompts(model: SentenceTransformer, columns: tuple[str, ...]) -> dict[str, str]:
    """The student's own prompts for the columns of stage 2; texts of stage 1 have none."""
    student = Encoder.of(model, "student")
    query = student.query_prompt
    prompts = {"text": "", "query": query, "other_query": query}
    found = {column: prompts.get(column, student.document_prompt) for column in columns}
    return {column: prompt for column, prompt in found.items() if prompt}


def use_bfloat16(precision: Precision, kind: str) -> bool:
    """Whether the forward pass is in bfloat16 on a kind of device."""
    return native_bfloat16(kind) if precision is Precision.AUTO else precision is Precision.BFLOAT16


def _arguments(stage: "Stage", steps: int, devices: Devices, prompts: dict[str, str]) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments

    options, recipe, output = stage.options, stage.recipe, stage.directory.checkpoints
    scored = recipe.dev is not None
    save_steps = options.steps_between_checkpoints(steps, scored=scored)
    # Newer versions of transformers renamed it.
    renamed = "activation_checkpointing" in SentenceTransformerTrainingArguments.__dataclass_fields__
    checkpointing = "activation_checkpointing" if renamed else "gradient_checkpointing"
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=options.slice_of(devices.processes),
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        batch_sampler=InOrder,
        dataloader_drop_last=True,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(steps * options.warmup),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        bf16=use_bfloat16(options.precision, devices.kind),
        use_cpu=devices.kind == "cpu",
        seed=recipe.seed,
        data_seed=recipe.seed,
        eval_strategy="steps" if scored else "no",
        eval_steps=save_steps if scored else None,
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=_SAVED_CHECKPOINTS,
        load_best_model_at_end=scored,
        metric_for_best_model=f"{_DEV}{MAIN_MEASURE}" if scored else None,
        greater_is_better=True if scored else None,
        logging_steps=options.log_steps,
        logging_nan_inf_filter=False,
        # `fit` writes TensorBoard's files in any case.
        report_to=[name for name in recipe.report_to if name != "tensorboard"] or "none",
        run_name=output.parent.name,
        disable_tqdm=True,
        prompts=prompts or None,
        **{checkpointing: options.gradient_checkpointing},
        accelerator_config={"split_batches": False, "even_batches": False, "use_seedable_sampler": False},
    )
    # One process trains on one GPU; a launcher starts more of them, which gather each other's negatives.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the libraries' log messages below errors, and FutureWarnings."""
    names = ("transformers", "sentence_transformers", "accelerate", "datasets")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # transformers warns of old names that sentence-transformers uses.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
