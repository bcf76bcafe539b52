"""A training that is told to end says so, and ends with 130."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
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
    process = subprocess.Popen(
        [sys.executable, "-m", "mimo_plugin", *arguments, "--output", str(tmp_path / "run")],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background hand down that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not (tmp_path / "run" / sign).exists():
        time.sleep(0.01)
    time.sleep(later)
    process.send_signal(number)
    _, said = process.communicate(timeout=180)
    assert said.splitlines()[-1] == "mimo: interrupted"
    assert process.returncode == 130
