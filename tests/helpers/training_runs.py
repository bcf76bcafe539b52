"""Directories of training runs, finished and not, with models that were never trained."""

import json
from pathlib import Path

from helpers.checkpoints import plain_xlmr, sentence_transformer

from mimo_plugin.core.artifact import FileRecord
from mimo_plugin.core.config import yaml_text
from mimo_plugin.training.run import RunDirectory, TrainingManifest

IDENTITY = {"stage": "stage2", "dev": "mimo-sample"}


def _begin(run: RunDirectory) -> None:
    run.path.mkdir(parents=True, exist_ok=True)
    run.begin(yaml_text(IDENTITY))


def unfinished(path: Path, steps: dict[int, bool]) -> Path:
    """A run with checkpoints; False is one that a kill cut short."""
    run = RunDirectory(path)
    _begin(run)
    for step, complete in steps.items():
        directory = run.checkpoints / f"checkpoint-{step}"
        sentence_transformer(directory, plain_xlmr(path.parent / f"base-{step}", seed=step))
        if complete:
            (directory / "complete").write_text(f"{step}\n")
    return path


def finished(path: Path) -> Path:
    run = RunDirectory(path)
    _begin(run)
    sentence_transformer(run.model, plain_xlmr(path.parent / "base"))
    lines = [
        {"step": 5, "stage": "stage2", "loss": 0.5},
        {"step": 5, "stage": "stage2", "dev": {"ndcg@20": 0.1, "alignment": 0.5, "uniformity": -2.0}},
        {"step": 10, "stage": "stage2", "dev": {"ndcg@20": 0.2, "uniformity": -3.0}},
    ]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    weights = run.model / "model.safetensors"
    run.seal(
        TrainingManifest(
            stage="stage2",
            identity=IDENTITY,
            environment={},
            steps=10,
            languages={},
            best_step=None,
            scores={},
            seconds=1.0,
            files={"model/model.safetensors": FileRecord.of(weights)},
        )
    )
    return path
