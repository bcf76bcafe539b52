"""One stage run by the trainer: from examples and a loss to weights."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.environment import reachable
from mimo_plugin.core.errors import EnvironmentProblem, UsageError
from mimo_plugin.encoder.checkpoint import check_device
from mimo_plugin.encoder.encoder import EncoderOptions
from mimo_plugin.training.recipe import Precision, StageOptions

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from mimo_plugin.training.dev import DevCollection
    from mimo_plugin.training.examples import Examples
    from mimo_plugin.training.run import RunDirectory

# Evaluations and checkpoints a run, unless asked otherwise.
_TIMES = 10
_SAVED_CHECKPOINTS = 2
_WANDB = "https://api.wandb.ai"
# How long processes wait for one another: the first one runs the teacher while the others have nothing to do.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Fit:
    """Attributes:
    steps: optimiser steps done.
    best_step: the step whose weights were kept; None without a dev collection.
    scores: on the dev collection at that step.
    """

    steps: int
    best_step: int | None
    scores: dict[str, float]


@dataclass(frozen=True)
class Devices:
    """Attributes:
    kind: cpu, cuda or mps.
    processes: that train together.
    main: whether this is the one that writes.
    """

    kind: str
    processes: int
    main: bool

    @classmethod
    def find(cls, device: str | None) -> "Devices":
        """Starts the process group where a launcher (torchrun, accelerate) asks for one.

        Raises:
            EnvironmentProblem: the device is not there.
            UsageError: one GPU of several was named.
        """
        import torch
        from accelerate import PartialState

        kind = torch.device(check_device(device))
        if kind.type == "cuda" and kind.index:
            raise UsageError(f"--device {device}: to train on that GPU set CUDA_VISIBLE_DEVICES={kind.index}")
        state = PartialState(cpu=kind.type == "cpu", timeout=_PATIENCE)
        return cls(kind.type, state.num_processes, state.is_main_process)

    def slice_of(self, options: StageOptions) -> int:
        """Texts of a batch that one process gets at a time.

        Raises:
            UsageError: the batch cannot be shared evenly.
        """
        parts = options.gradient_accumulation_steps
        if options.batch_size % (self.processes * parts):
            accumulated = f" in --gradient-accumulation-steps {parts}" if parts > 1 else ""
            raise UsageError(
                f"--batch-size {options.batch_size} cannot be shared by {self.processes} processes"
                f"{accumulated}: a multiple of {self.processes * parts} was expected"
            )
        return options.batch_size // (self.processes * parts)

    def wait(self) -> None:
        """Returns when every process has come here."""
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def native_bfloat16(kind: str) -> bool:
    """Whether a kind of device multiplies bfloat16 matrices in hardware."""
    import torch

    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "cpu":
        return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    return False


def use_bfloat16(precision: Precision, kind: str) -> bool:
    if precision is Precision.AUTO:
        return native_bfloat16(kind)
    return precision is Precision.BFLOAT16


def check_trackers(names: Sequence[str]) -> None:
    """Checks the trackers that a run reports to, and has them stay offline where nobody can be reached.

    Raises:
        EnvironmentProblem: one of them is not installed.
        UsageError: there is none of that name.
    """
    if not names:
        return
    from huggingface_hub import constants
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise UsageError(f"--report-to {name}: unknown, expected one of {known}")
        if name not in get_available_reporting_integrations():
            raise EnvironmentProblem(
                f"--report-to {name}: it is not installed: pip install {name}, or leave the option out "
                "(metrics are in the run's directory in any case, for TensorBoard too)"
            )
    if "wandb" in names and "WANDB_MODE" not in os.environ:
        online = not constants.HF_HUB_OFFLINE and reachable([os.environ.get("WANDB_BASE_URL", _WANDB)])
        os.environ["WANDB_MODE"] = "online" if online else "offline"


class InOrder:
    """The plan's batches as they are: row 0 .. batch_size - 1 first."""

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


def fit(
    model: "SentenceTransformer",
    examples: "Examples",
    loss: "nn.Module",
    projection: "nn.Module | None",
    options: StageOptions,
    *,
    stage: str,
    seed: int,
    devices: Devices,
    directory: "RunDirectory",
    dev: "DevCollection | None",
    prompts: dict[str, str],
    encoder_batch_size: int,
    report_to: Sequence[str],
    progress: bool | None,
) -> Fit:
    """Trains the model and the projection in place, and goes on from the last checkpoint where there is one.

    Args:
        examples: see `Examples`.
        loss: a loss of `losses`; its parameters are trained too.
        projection: the loss's own layer, which checkpoints must hold; None where there is none.
        prompts: put before the texts of a column.
        encoder_batch_size: texts a batch when the dev collection is encoded.
        report_to: see `check_trackers`.

    Raises:
        EnvironmentProblem: the file system refuses.
        TrainingFailed: the loss or a gradient is no number, or the encoder has collapsed.
    """
    from transformers import PrinterCallback
    from transformers.integrations import TensorBoardCallback

    from mimo_plugin.training.dev import DevScores
    from mimo_plugin.training.run import TENSORBOARD, writing_tensors
    from mimo_plugin.training.trainer import (
        GradientGuard,
        LastStep,
        MetricsFile,
        ProgressBar,
        StillThere,
        Trainer,
        discard_incomplete,
        last_checkpoint,
    )

    slice_size = devices.slice_of(options)
    texts_a_step = options.batch_size * (len(examples.text_columns))
    progress_bar = ProgressBar(stage, progress)
    guard = GradientGuard()
    callbacks: list[Any] = [guard, MetricsFile(directory.metrics, stage, texts_a_step), progress_bar]
    callbacks.append(LastStep(dev is not None))
    if devices.main:
        from torch.utils.tensorboard import SummaryWriter

        callbacks.append(StillThere(directory))
        callbacks.append(TensorBoardCallback(SummaryWriter(str(directory.path / TENSORBOARD))))
        discard_incomplete(directory.checkpoints)
    devices.wait()
    if devices.kind == "cpu" and use_bfloat16(options.precision, devices.kind):
        # Measured: the backward pass of fused attention takes twice as long in bfloat16 on a CPU.
        model.transformers_model.set_attn_implementation("eager")
    arguments = _arguments(
        options,
        examples.steps,
        slice_size,
        devices,
        directory.checkpoints,
        seed,
        dev is not None,
        prompts,
        report_to,
    )
    with _quiet():
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=examples.dataset,
            loss=loss,
            evaluator=None if dev is None else DevScores(dev, EncoderOptions(batch_size=encoder_batch_size)),
            callbacks=callbacks,
            projection=projection,
            options=options,
        )
        trainer.remove_callback(PrinterCallback)
        guard.check = trainer.refuse_overflow
        checkpoint = last_checkpoint(directory.checkpoints)
        try:
            with writing_tensors(directory.path):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            progress_bar.close()
    return _outcome(trainer, dev is not None)


def _outcome(trainer: Any, scored: bool) -> Fit:
    state = trainer.state
    if not scored:
        return Fit(state.global_step, None, {})
    best = int(state.best_global_step)
    lines = [line for line in state.log_history if line["step"] == best and "eval_dev_ndcg@20" in line]
    scores = {
        name.removeprefix("eval_dev_"): float(value)
        for name, value in lines[-1].items()
        if name.startswith("eval_dev_")
    }
    return Fit(state.global_step, best, scores)


def steps_between_checkpoints(options: StageOptions, steps: int, *, scored: bool) -> int:
    """Steps between two checkpoints, and between two scores on a dev collection.

    Args:
        steps: of the whole run.
        scored: whether there is a dev collection.

    Raises:
        UsageError: a step would be scored that has no checkpoint, or the other way round.
    """
    asked = options.save_steps, options.eval_steps if scored else None
    if all(asked) and asked[0] != asked[1]:
        raise UsageError(
            f"--save-steps {asked[0]} and --eval-steps {asked[1]} differ: what is scored is saved, so that "
            "the best checkpoint can be kept; give one of the two"
        )
    return asked[0] or asked[1] or max(1, -(-steps // _TIMES))


def _arguments(
    options: StageOptions,
    steps: int,
    slice_size: int,
    devices: Devices,
    output: Path,
    seed: int,
    scored: bool,
    prompts: dict[str, str],
    report_to: Sequence[str],
) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments

    save_steps = steps_between_checkpoints(options, steps, scored=scored)
    # transformers has renamed it.
    renamed = "activation_checkpointing" in SentenceTransformerTrainingArguments.__dataclass_fields__
    checkpointing = "activation_checkpointing" if renamed else "gradient_checkpointing"
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=slice_size,
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
        seed=seed,
        data_seed=seed,
        eval_strategy="steps" if scored else "no",
        eval_steps=save_steps if scored else None,
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=_SAVED_CHECKPOINTS,
        load_best_model_at_end=scored,
        metric_for_best_model="eval_dev_ndcg@20" if scored else None,
        greater_is_better=True if scored else None,
        logging_steps=options.log_steps,
        logging_nan_inf_filter=False,
        # What TensorBoard reads is written in any case.
        report_to=[name for name in report_to if name != "tensorboard"] or "none",
        run_name=output.parent.name,
        disable_tqdm=True,
        prompts=prompts or None,
        **{checkpointing: options.gradient_checkpointing},
        accelerator_config={"split_batches": False, "even_batches": False, "use_seedable_sampler": False},
    )
    # One process trains on one GPU: more are used through a launcher, with negatives gathered across them.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the libraries' remarks off the progress bar; their warnings stay."""
    names = ("transformers", "sentence_transformers", "accelerate", "datasets")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Of transformers, about what sentence-transformers is to call by other names.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
