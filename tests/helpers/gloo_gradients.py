"""Gradients of every loss, of a whole batch or over several processes."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformerTrainer
from torch.nn.parallel import DistributedDataParallel

from mimo_plugin.training.losses import build_loss
from mimo_plugin.training.recipe import Stage1Options, Stage2Options
from mimo_plugin.training.schedule import Objective
from mimo_plugin.training.start import Devices
from mimo_plugin.training.student import load_or_create

TEACHER, ANCHOR = 20, 12
CASES: dict[str, Any] = {
    "distillation": Stage1Options(),
    "distillation-anchored": Stage1Options(),
    "mimo-3-anchored": Stage2Options(mini_batch_size=3),
    **{
        f"{objective.value}-{size}": Stage2Options(objective=objective, mini_batch_size=size)
        for objective in (Objective.MIMO, Objective.XLCO, Objective.LAKDA)
        for size in (2, 3, 64)
    },
    # With a column of mined negatives.
    "mimo+negatives-3": Stage2Options(mini_batch_size=3),
    "xlco+negatives-3": Stage2Options(objective=Objective.XLCO, mini_batch_size=3),
}


def gradients(student: Path, batch: dict[str, Any], rank: int, processes: int) -> dict[str, Any]:
    """Gradients and losses of this process's share of the batch, named case:parameter."""
    found: dict[str, Any] = {}
    model = load_or_create(str(student), (), seed=0, device="cpu").train()
    for case, options in CASES.items():
        model.zero_grad()
        # A process draws its own projection; the first one's counts.
        torch.manual_seed(rank + 5)
        anchored = case.endswith("anchored")
        dimensions = [TEACHER, ANCHOR][: 1 + anchored] if case[0] in "dm" else []
        loss, _ = build_loss(model, options, dimensions, {})
        if processes > 1:
            wrapped = DistributedDataParallel(model)
            trainer = SentenceTransformerTrainer.__new__(SentenceTransformerTrainer)
            loss = trainer.override_model_in_loss(loss, wrapped)
        columns = 3 if "lakda" in case or "negatives" in case else 1 if case.startswith("distillation") else 2
        rows = len(batch["labels"]) // processes
        own = slice(rank * rows, (rank + 1) * rows)
        features = [
            {name: batch[f"{column}.{name}"][own] for name in ("input_ids", "attention_mask")}
            for column in range(columns)
        ]
        labels = batch["labels"][own]
        if anchored:
            # The second process has no text of the anchor teacher.
            labels = torch.cat([labels, batch["by_anchor"][own]], dim=2)
        value = loss(features, labels[:, 0] if columns == 1 else labels)
        value.backward()
        found[f"{case}:loss"] = value.detach()
        for name, parameter in loss.named_parameters():
            if parameter.grad is not None:
                plain = name.removeprefix("distillation.").replace("model.module.", "model.")
                found[f"{case}:{plain}"] = parameter.grad.clone()
    return found


def write_shared(student: Path, batch: Path, output: Path) -> None:
    """Called in every process, with the variables that torchrun sets; the first one writes."""
    devices = Devices.find("cpu")
    rank = torch.distributed.get_rank()
    found = gradients(student, load_file(batch), rank, devices.processes)
    for name, tensor in found.items():
        if name.endswith(":loss"):
            torch.distributed.all_reduce(tensor)
            found[name] = tensor / devices.processes
        else:
            first = tensor.clone()
            torch.distributed.broadcast(first, 0)
            if not torch.equal(first, tensor):
                raise ValueError(f"{name} differs between processes")
    if devices.main:
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, output)
    torch.distributed.destroy_process_group()
