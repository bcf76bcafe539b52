"""What looks on while a run trains: a bar, lines of metrics, a guard over the gradients."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from mimo_plugin.progress import bar

if TYPE_CHECKING:
    from mimo_plugin.training.run_directory import RunDirectory

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
