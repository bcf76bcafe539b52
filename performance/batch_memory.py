"""Peak memory of one optimiser step of stage 2 against the batch size, at a fixed mini-batch.

    python performance/batch_memory.py --batch-sizes 64 128 256 512 1024 2048

Every text fills the maximum length, which is the most that training can need. Each step runs in a process of
its own: with gradient caching, where memory should depend on the mini-batch only, and without, as far as it
fits. Prints peak resident memory of the whole process, and writes it as JSON beside what a process has before
the step.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from mimo_plugin.cli.generate import CommandWithLists, ListOption


@click.command(cls=CommandWithLists)
@click.option(
    "--batch-sizes", cls=ListOption, type=int, default=(64, 128, 256, 512, 1024, 2048), show_default=True
)
@click.option("--mini-batch-size", default=32, show_default=True)
@click.option("--max-length", default=128, show_default=True, help="Tokens of every text.")
@click.option("--student", default="new:mini", show_default=True)
@click.option("--limit", default=16.0, show_default=True, help="GiB of address space a step may take.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("performance/batch_memory.json"))
@click.option("--child", hidden=True, help="Do this, described as JSON, and stop.")
def main(
    batch_sizes: tuple[int, ...],
    mini_batch_size: int,
    max_length: int,
    student: str,
    limit: float,
    output: Path,
    child: str | None,
) -> None:
    """Run one step for each batch size, with and without gradient caching, each in a process of its own."""
    if child is not None:
        _child(**json.loads(child))
        return
    options = {
        "mini_batch_size": mini_batch_size,
        "max_length": max_length,
        "student": student,
        "limit_gib": limit,
    }
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = str(Path(directory, "student"))
        if _peak_memory({"make": student, "checkpoint": checkpoint, "max_length": max_length}) is None:
            raise SystemExit(f"{student} could not be made")
        step = {"checkpoint": checkpoint, "max_length": max_length, "limit": int(limit * 2**30)}
        before = _peak_memory({**step, "batch_size": 0, "mini_batch_size": mini_batch_size})
        for batch_size in batch_sizes:
            cached = _peak_memory({**step, "batch_size": batch_size, "mini_batch_size": mini_batch_size})
            whole = _peak_memory({**step, "batch_size": batch_size, "mini_batch_size": batch_size})
            rows.append({"batch_size": batch_size, "cached_peak_bytes": cached, "whole_peak_bytes": whole})
            click.echo(f"batch {batch_size:>5}: gradient caching {_text(cached)}, without {_text(whole)}")
    record = {
        "command": " ".join(["python", *sys.argv]),
        "options": options,
        "before_the_step_bytes": before,
        "rows": rows,
    }
    output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _text(size: int | None) -> str:
    return "does not fit" if size is None else f"{size / 2**20:7.0f} MiB"


def _peak_memory(work: dict[str, Any]) -> int | None:
    """Bytes; None where the process did not live to the end.

    A process starts with its parent's peak as its own: nothing large may be imported here.
    """
    command = [sys.executable, __file__, "--child", json.dumps(work)]
    process = os.posix_spawn(sys.executable, command, dict(os.environ))
    _, status, usage = os.wait4(process, 0)
    return None if status else usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _child(checkpoint: str, max_length: int, **work: Any) -> None:
    if "make" in work:
        _make(work["make"], checkpoint, max_length)
        return
    import resource

    import torch

    resource.setrlimit(resource.RLIMIT_AS, (work["limit"], work["limit"]))
    try:
        _step(checkpoint, max_length, work["batch_size"], work["mini_batch_size"])
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        # torch says "can't allocate memory" with a RuntimeError.
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise SystemExit(1) from None


def _make(student: str, checkpoint: str, max_length: int) -> None:
    from mimo_plugin.training.record import save_student
    from mimo_plugin.training.student import load_or_create

    made = load_or_create(student, _sample(), seed=1, max_length=max_length, device="cpu")
    save_student(made, Path(checkpoint))


def _step(checkpoint: str, max_length: int, batch_size: int, mini_batch_size: int) -> None:
    import torch

    from mimo_plugin.training.losses import build_loss
    from mimo_plugin.training.recipe import Stage2Options
    from mimo_plugin.training.student import load_or_create

    torch.manual_seed(1)
    model = load_or_create(checkpoint, (), seed=1, device="cpu")
    dimension = 384
    options = Stage2Options(batch_size=max(1, batch_size), mini_batch_size=mini_batch_size)
    loss, _ = build_loss(model, options, [dimension], {})
    loss.train()
    optimizer = torch.optim.AdamW([p for p in loss.parameters() if p.requires_grad], lr=1e-4)
    if not batch_size:
        return
    columns = []
    for _ in ("query", "passage"):
        ids = torch.randint(5, len(model.tokenizer) - 1, (batch_size, max_length))
        columns.append({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    loss(columns, torch.randn(batch_size, 2, dimension)).backward()
    optimizer.step()


def _sample() -> list[tuple[str, str]]:
    from mimo_plugin.collections.pool import load

    return [(doc.lang, doc.text) for doc in load("mimo-sample").docs_iter()]


if __name__ == "__main__":
    main()
