"""Training steps per second with the teacher's stored embeddings, and with the teacher inside the loop.

    python performance/training_speed.py --table performance/data/debian/table --batch-size 256

One loop, one student, one plan of batches; only where the labels come from differs: read from the store, or
computed by the teacher when the batch is due, as the published recipe does. Blocks of steps alternate between
the two: whatever else the machine does hits both. Writes all blocks as JSON.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from mimo_plugin.encoder.packaged import TEACHER

if TYPE_CHECKING:
    import numpy as np

    from mimo_plugin.encoder.encoder import Encoder
    from mimo_plugin.training.teacher_store import Role

STORE, TEACHER_INSIDE = "store", "teacher inside"


@click.command()
@click.option("--table", type=click.Path(path_type=Path), default=Path("performance/data/debian/table"))
@click.option("--student", default="new:mini", show_default=True)
@click.option("--vocabulary", default=24_000, show_default=True, help="Tokens of a new student.")
@click.option("--teacher", default=TEACHER, show_default=True)
@click.option("--batch-size", default=256, show_default=True)
@click.option("--mini-batch-size", default=64, show_default=True)
@click.option("--max-length", default=128, show_default=True)
@click.option("--blocks", default=6, show_default=True, help="Of each kind.")
@click.option("--steps", default=5, show_default=True, help="A block.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("performance/training_speed.json"))
def main(output: Path, **options: Any) -> None:
    """Time blocks of training steps of both kinds in turn."""
    with tempfile.TemporaryDirectory() as directory:
        loops, fill = _loops(Path(directory), **options)
    from mimo_plugin.core.environment import environment

    for step in loops.values():
        step(0)
    blocks: dict[str, list[float]] = {name: [] for name in loops}
    place = 1
    for _ in range(options["blocks"]):
        for name, step in loops.items():
            began = time.perf_counter()
            for offset in range(options["steps"]):
                step(place + offset)
            blocks[name].append(options["steps"] / (time.perf_counter() - began))
            click.echo(f"{name:>15}: {blocks[name][-1]:.3f} steps/s")
        # Both kinds see the same batches.
        place += options["steps"]
    rates = {name: median(values) for name, values in blocks.items()}
    saved = 1 / rates[TEACHER_INSIDE] - 1 / rates[STORE]
    record = {
        "command": " ".join(["python", *sys.argv]),
        "options": {
            name: str(value) if isinstance(value, Path) else value for name, value in options.items()
        },
        "steps_per_second": rates,
        "blocks": blocks,
        "times_faster": rates[STORE] / rates[TEACHER_INSIDE],
        "store": {**fill, "steps_until_paid": fill["seconds"] / saved if saved > 0 else None},
        "environment": environment(options["device"], 1),
    }
    output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    click.echo(f"{record['times_faster']:.2f} times as fast with the store")


def _loops(
    directory: Path,
    *,
    table: Path,
    student: str,
    vocabulary: int,
    teacher: str,
    batch_size: int,
    mini_batch_size: int,
    max_length: int,
    blocks: int,
    steps: int,
    device: str,
) -> tuple[dict[str, Callable[[int], None]], dict[str, float]]:
    """One step of each kind by the number of its batch, and what filling the store took."""
    import torch

    from mimo_plugin.training.data import open_table
    from mimo_plugin.training.examples import plan_stage2
    from mimo_plugin.training.losses import build_loss
    from mimo_plugin.training.recipe import Stage2Options, TeacherOptions
    from mimo_plugin.training.student import load_or_create
    from mimo_plugin.training.teacher import fill, teacher_texts
    from mimo_plugin.training.teacher_store import TeacherStore, load_teacher

    data = open_table(table)
    options = Stage2Options(
        batch_size=batch_size,
        mini_batch_size=mini_batch_size,
        max_length=max_length,
        learning_rate=5e-4,
        steps=1 + blocks * steps,
    )
    plan = plan_stage2(data, options, seed=1)
    teacher_options = TeacherOptions(checkpoint=teacher).on(device)
    began = time.perf_counter()
    computed = fill(directory / "store", teacher_options, teacher_texts(data))
    cost = {"texts": computed, "seconds": time.perf_counter() - began}
    # Opened, it stays readable when the directory has gone.
    store = TeacherStore.open(directory / "store")
    inside = _TeacherInside(load_teacher(teacher_options))
    # A new student's size is what matters, not its tokenizer: the first texts will do.
    rows = (text for text, _ in zip(data.labelled(), range(50_000), strict=False))
    model = load_or_create(student, rows, seed=1, max_length=max_length, vocab_size=vocabulary, device=device)
    torch.manual_seed(1)
    loss, _ = build_loss(model, options, [store.dimension], {})
    loss.to(device).train()
    optimizer = torch.optim.AdamW([p for p in loss.parameters() if p.requires_grad], lr=options.learning_rate)

    def loop(source: Any) -> Callable[[int], None]:
        examples = plan(source)

        def step(number: int) -> None:
            batch = examples.dataset[number * batch_size : (number + 1) * batch_size]
            columns = [
                {
                    name: value.to(device)
                    for name, value in model.preprocess(batch[column]).items()
                    if isinstance(value, torch.Tensor)
                }
                for column in examples.text_columns
            ]
            optimizer.zero_grad()
            value = loss(columns, torch.stack(batch["label"]).to(device))
            value.backward()
            torch.nn.utils.clip_grad_norm_(loss.parameters(), options.max_grad_norm)
            optimizer.step()
            value.item()

        return step

    return {STORE: loop(store), TEACHER_INSIDE: loop(inside)}, cost


class _TeacherInside:
    """Computes what a `TeacherStore` reads."""

    def __init__(self, teacher: "Encoder") -> None:
        self._teacher = teacher

    def vectors(self, texts: Sequence[str], role: "Role") -> "np.ndarray":
        if role == "query":
            return self._teacher.encode_queries(texts)
        return self._teacher.encode_documents(texts)


if __name__ == "__main__":
    main()
