"""Two processes train as one does on the joint batch."""

from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from helpers import processes, tiny_training
from helpers.serving import free_port
from helpers.tiny_training import World, weights

from mimo_plugin.core.errors import UsageError
from mimo_plugin.training.recipe import Precision, Stage1Options
from mimo_plugin.training.stages import train_stage1, train_stage2

ROWS = 8


def together(
    start: Callable[[Path], BaseProcess], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """What two processes with the variables of torchrun have said, each into the file that it began with."""
    begun, port = [], free_port()
    for rank in range(2):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
        with monkeypatch.context() as patched:
            for name, value in {**variables, "MASTER_ADDR": "127.0.0.1"}.items():
                patched.setenv(name, str(value))
            said = directory / f"said-{rank}"
            begun.append((start(said), said))
    for process, said in begun:
        process.join(300)
        assert process.exitcode == 0, said.read_text()
    return [said.read_text() for _, said in begun]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"), dropout=0.0)


@pytest.mark.slow
def test_gradients_are_those_of_the_joint_batch(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, socket_enabled: None
) -> None:
    import torch
    from helpers import gloo_gradients
    from safetensors.torch import load_file, save_file

    from mimo_plugin.training.student import load_or_create

    student = world.root / "student"
    model = load_or_create(str(student), (), seed=0, device="cpu")
    batch = {
        "labels": torch.randn(ROWS, 2, gloo_gradients.TEACHER, generator=torch.Generator().manual_seed(1)),
        "by_anchor": torch.zeros(ROWS, 2, 1),
    }
    batch["by_anchor"][:3] = 1
    for column, lang in enumerate(tiny_training.LANGUAGES):
        texts = [tiny_training.text(tiny_training.PASSAGE[lang], number) for number in range(ROWS)]
        features = model.preprocess(texts)
        batch |= {f"{column}.{name}": features[name].contiguous() for name in ("input_ids", "attention_mask")}
    save_file(batch, tmp_path / "batch")
    arguments = student, tmp_path / "batch", tmp_path / "two"
    together(
        lambda said: processes.started(gloo_gradients.write_shared, *arguments, said=said),
        tmp_path,
        monkeypatch,
    )
    two, one = load_file(tmp_path / "two"), gloo_gradients.gradients(student, batch, 0, 1)
    assert two.keys() == one.keys()
    for case in gloo_gradients.CASES:
        names = [name for name in one if name.startswith(f"{case}:")]
        projections = sum(name.endswith("projection.weight") for name in names)
        assert projections == (case[0] in "dm") + case.endswith("anchored")
        for name in names:
            largest = max(float(one[name].abs().max()), 1e-3)
            assert float((one[name] - two[name]).abs().max()) <= 1e-5 * largest + 5e-7, name


@pytest.mark.slow
def test_mimo_train_over_two_processes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, socket_enabled: None
) -> None:
    changes = {"steps": 5, "learning_rate": 1e-4, "anchor_share": "0:1"}
    anchor = {"checkpoint": str(tiny_training.student(tmp_path / "anchor teacher", seed=8))}
    recipe = world.recipe(dev=True, stage1=changes, stage2=changes, anchor_teacher=anchor)
    train_stage1(recipe, world.job(tmp_path / "warm-up"))
    recipe = recipe.model_copy(
        update={"student": recipe.student.model_copy(update={"checkpoint": str(tmp_path / "warm-up")})}
    )
    train_stage2(recipe, world.job(tmp_path / "one"))
    options = recipe.stage2
    command = (
        *("train", "stage2", "--device", "cpu", "--no-progress", "--seed", "3"),
        *("--student", str(tmp_path / "warm-up"), "--teacher", recipe.teacher.checkpoint),
        *("--anchor-teacher", anchor["checkpoint"], "--anchor-share", "0:1"),
        *("--table", str(recipe.table), "--dev", world.dev, "--teacher-store", str(world.root / "store")),
        *("--batch-size", str(options.batch_size), "--mini-batch-size", "3", "--max-length", "24"),
        *("--steps", "5", "--learning-rate", "1e-4", "--precision", Precision.FLOAT32.value),
        *("--log-steps", "2", "--output", str(tmp_path / "two")),
    )
    first, second = together(lambda said: processes.command(*command, said=said), tmp_path, monkeypatch)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    start = weights(tmp_path / "warm-up")
    assert one.keys() == two.keys() == start.keys()
    for name in one:
        assert np.abs(one[name] - two[name]).max() <= 1e-5, name
    assert any(np.abs(one[name] - start[name]).max() > 1e-4 for name in one)
    # Said and written once.
    assert first.count("stage2, 5 steps") == 1
    assert "stage2, 5 steps" not in second
    assert len((tmp_path / "two" / "metrics.jsonl").read_text().splitlines()) == len(
        (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()
    )


def test_a_batch_that_processes_cannot_share() -> None:
    assert Stage1Options(batch_size=12).slice_of(3) == 4
    assert Stage1Options(batch_size=12, gradient_accumulation_steps=2).slice_of(3) == 2
    with pytest.raises(UsageError, match="--batch-size 8 cannot be shared by 3 processes: a multiple"):
        Stage1Options(batch_size=8).slice_of(3)
