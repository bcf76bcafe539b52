"""Names of encoders, and what stands for a training run: its model, or the newest checkpoint."""

from pathlib import Path

import pytest
from helpers.training_runs import finished, unfinished

from mimo_plugin.benchmark.geometry import checkpoints, written_trail
from mimo_plugin.benchmark.texts import NamedEncoder, file_name, parse_encoders
from mimo_plugin.core.errors import ArtifactError, DataError, MimoError
from mimo_plugin.evaluation.results import CheckpointResult


@pytest.mark.parametrize(
    ("spec", "label", "checkpoint"),
    [
        ("intfloat/multilingual-e5-small", "multilingual-e5-small", "intfloat/multilingual-e5-small"),
        ("e5=intfloat/multilingual-e5-small", "e5", "intfloat/multilingual-e5-small"),
        ("packaged:all-MiniLM-L6-v2", "all-MiniLM-L6-v2", "packaged:all-MiniLM-L6-v2"),
        ("runs/mimo/model", "mimo", "runs/mimo/model"),
        ("a=b=c", "a", "b=c"),
        ("=b", "=b", "=b"),
    ],
)
def test_names(spec: str, label: str, checkpoint: str) -> None:
    assert parse_encoders([spec]) == [NamedEncoder(label, checkpoint)]


def test_a_directory_with_an_equals_sign(tmp_path: Path) -> None:
    path = tmp_path / "lr=1e-4"
    path.mkdir()
    assert parse_encoders([str(path)]) == [NamedEncoder("lr=1e-4", str(path))]


def test_names_that_share_files_are_refused_together_with_all_else(tmp_path: Path) -> None:
    empty = tmp_path / "run"
    unfinished(empty, {})
    with pytest.raises(MimoError) as caught:
        parse_encoders(["x/e5", "E5=y/e5", "a/b=c", "a-b=d", str(empty)])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "is not finished and has no checkpoint yet" in lines[0]
    assert lines[1].startswith("two encoders are named 'E5' (x/e5 and y/e5), expected different names")
    assert lines[1].endswith("for example E5-2=y/e5")
    assert "two encoders are named 'a-b'" in lines[2]
    assert file_name("a/b c") == "a-b-c"
    with pytest.raises(DataError):
        parse_encoders(["x/e5", "y/e5"])


def test_a_finished_run_is_its_model(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    assert parse_encoders([f"m={run}"]) == [NamedEncoder("m", str(run / "model"), run)]
    assert list(checkpoints(run)) == []
    assert written_trail(run) == (
        CheckpointResult(step=5, alignment=0.5, uniformity=-2.0),
        CheckpointResult(step=10, alignment=None, uniformity=-3.0),
    )


def test_a_run_that_trains_is_its_newest_whole_checkpoint(tmp_path: Path) -> None:
    run = unfinished(tmp_path / "run", {2: True, 10: True, 12: False})
    assert parse_encoders([str(run)]) == [NamedEncoder("run", str(run / "checkpoints/checkpoint-10"), run)]
    assert [step for step, _ in checkpoints(run)] == [10, 2]
    assert written_trail(run) == ()


def test_a_damaged_run(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    (run / "model" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactError, match="that is corrupted"):
        parse_encoders([str(run)])
