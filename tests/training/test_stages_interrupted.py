"""A training that is told to end says so, and ends with 130."""

import os
import signal
import time
from pathlib import Path

import pytest
from helpers import processes
from helpers.tiny_training import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


@pytest.mark.slow
@pytest.mark.parametrize(
    # What is there once a moment has come, and how many seconds later the signal is sent.
    ("number", "sign", "later"),
    [
        (signal.SIGINT, "recipe.yaml", 0.0),
        (signal.SIGTERM, "metrics.jsonl", 0.0),
        (signal.SIGINT, "checkpoints/checkpoint-3", 0.0),
        (signal.SIGTERM, "checkpoints/checkpoint-3/complete", 0.5),
    ],
)
def test_an_interrupted_training_ends_with_130(
    world: World, tmp_path: Path, number: signal.Signals, sign: str, later: float
) -> None:
    options = {"carry_projection": False, "steps": 100_000, "save_steps": 3, "log_steps": 1}
    world.recipe(dev=True, stage2=options).write(tmp_path / "recipe.yaml")
    arguments = ["train", "stage2", "--recipe", str(tmp_path / "recipe.yaml"), "--device", "cpu"]
    said = tmp_path / "said"
    process = processes.command(*arguments, "--output", str(tmp_path / "run"), said=said, threads=2)
    while process.is_alive() and not (tmp_path / "run" / sign).exists():
        time.sleep(0.01)
    time.sleep(later)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(180)
    assert said.read_text().splitlines()[-1] == "mimo: interrupted"
    assert process.exitcode == 130
