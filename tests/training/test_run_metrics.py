"""Training curves: what is read from a metrics file, and that a picture comes of it."""

import json
import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_training import World
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import DataError, EnvironmentProblem
from mimo_plugin.training.run import draw_curves, read_metrics
from mimo_plugin.training.stages import STAGE1, run_stages

# matplotlib keeps a list of fonts: it stays with the environment, and the home as it is.
os.environ.setdefault("MPLCONFIGDIR", str(Path(sys.prefix) / "matplotlib-cache"))

DEV = {"ndcg@20": 0.4, "alignment": 0.5, "uniformity": -2.5, "same_language@20": 0.3}


def write(path: Path, *records: Mapping[str, Any], end: str = "") -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + end, encoding="utf-8")
    return path


def size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def line(step: int, stage: str = "stage1", loss: float = 0.5, **more: float) -> dict[str, Any]:
    return {"step": step, "stage": stage, "loss": loss, "learning_rate": 1e-4, **more}


def test_training_and_dev(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.jsonl",
        line(10, "stage2", loss=3.0, contrastive=5.0),
        line(5, "stage2", loss=4.0),
        {"step": 15, "stage": "stage2", "dev": DEV},
    )
    metrics = read_metrics(path)
    assert metrics.series("loss", dev=False) == ([5, 10], [4.0, 3.0])
    assert metrics.series("contrastive", dev=False) == ([10], [5.0])
    assert metrics.series("ndcg@20", dev=True) == ([15], [0.4])
    assert metrics.series("ndcg@20", dev=False) == ([], [])


def test_a_killed_and_resumed_run(tmp_path: Path) -> None:
    """The kill cut a line, the resumed run went on in it and repeats steps 20 and 30."""
    before = write(
        tmp_path / "m.jsonl", line(10, loss=0.9), line(20, loss=7.0), line(30, loss=7.0), end='{"step": 4'
    )
    with before.open("a", encoding="utf-8") as file:
        file.writelines(
            json.dumps(record) + "\n" for record in (line(15), line(20, loss=0.8), line(30, loss=0.7))
        )
        file.write('{"step": 50, "loss": 0.1')
    assert read_metrics(before).series("loss", dev=False) == ([10, 20, 30], [0.9, 0.8, 0.7])


@settings(max_examples=60)
@given(steps=st.lists(st.integers(0, 50), min_size=2, max_size=20), cut=st.integers(0, 2000))
def test_a_file_cut_anywhere_gives_its_whole_lines(
    steps: list[int], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "m.jsonl"
    records = [line(step, loss=float(number)) for number, step in enumerate(steps)]
    data = write(path, *records).read_bytes()
    end = max(len(json.dumps(records[0])) + 1, min(cut, len(data)))
    path.write_bytes(data[:end])
    # Whole also where only the line's end is missing.
    whole = len((data[:end] + b"\n").replace(b"}\n\n", b"}\n").split(b"}\n")) - 1
    expected = {step: float(number) for number, step in enumerate(steps[:whole])}
    training = read_metrics(path).training
    assert {step: record["loss"] for step, record in training.items()} == expected
    assert list(training) == sorted(expected)


def test_panels_for_the_metrics_that_are_there(tmp_path: Path) -> None:
    training = [line(step, loss=1 / step, distillation=1 / step) for step in range(1, 250)]
    draw_curves(write(tmp_path / "m.jsonl", *training), tmp_path / "training.png")
    width, height = size(tmp_path / "training.png")
    dev = [{"step": step, "dev": DEV} for step in (100, 200)]
    draw_curves(write(tmp_path / "m.jsonl", *training, *dev), tmp_path / "new" / "both.png")
    assert size(tmp_path / "new" / "both.png") == (3 * width, height)
    draw_curves(tmp_path / "m.jsonl", tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "new" / "both.png").read_bytes()
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("loss", [float("nan"), 0.0, float("inf"), -1.0])
@pytest.mark.filterwarnings("error")
def test_values_that_no_logarithm_takes(tmp_path: Path, loss: float) -> None:
    path = write(
        tmp_path / "m.jsonl",
        line(1),
        line(2, loss=loss),
        {"step": 2, "dev": {"ndcg@20": loss, "alignment": loss}},
    )
    draw_curves(path, tmp_path / "m.png")
    assert size(tmp_path / "m.png")[0] > 0


@pytest.mark.parametrize("text", ["", "\n", "{", "[1]\n", '{"step": "1", "loss": 1}\n', '{"loss": 1}\n'])
def test_no_metrics(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=r"m\.jsonl: no line with a step and metrics, expected"):
        draw_curves(path, tmp_path / "m.png")


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no metrics that can be drawn, expected some of loss, contrastive"):
        draw_curves(write(tmp_path / "m.jsonl", {"step": 1, "other": 2}), tmp_path / "m.png")
    with pytest.raises(DataError, match="cannot be read as metrics: No such file"):
        draw_curves(tmp_path / "none.jsonl", tmp_path / "m.png")
    assert not (tmp_path / "m.png").exists()


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        EnvironmentProblem, match="training curves need matplotlib, which is not installed: pip"
    ):
        draw_curves(write(tmp_path / "m.jsonl", line(1)), tmp_path / "m.png")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match=r"cannot write .*m\.png"):
        draw_curves(write(tmp_path / "m.jsonl", line(1)), tmp_path / "file" / "m.png")


@pytest.mark.slow
def test_wandb_has_the_metrics_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub of wandb does not answer: what would go to it lies in a file."""
    wandb: Any = pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    # Set first, so that it is taken back.
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_MODE")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    world = World.make(tmp_path / "world")
    (trained,) = run_stages(world.recipe(report_to=["wandb"]), world.job(tmp_path / "run"), [STAGE1])
    assert os.environ["WANDB_MODE"] == "offline"
    wandb.teardown()
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    found: dict[int, float] = {}
    # Records, each after its checksum, length and type, in blocks larger than this file.
    data = file.read_bytes()[7:]
    while data:
        (length,) = struct.unpack("<H", data[4:6])
        record = Record.FromString(data[7 : 7 + length])
        items = {item.key or item.nested_key[-1]: json.loads(item.value_json) for item in record.history.item}
        if "train/loss" in items:
            found[items["train/global_step"]] = items["train/loss"]
        data = data[7 + length :]
    written = read_metrics(trained.directory / "metrics.jsonl").training
    assert found.keys() == written.keys() == {2, 4, 6}
    for step, loss in found.items():
        assert loss == pytest.approx(written[step]["loss"], abs=1e-3)
