"""What is wrong is said before the teacher runs and before anything is trained, in one line each."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_training import World, train_both

from mimo_plugin.core.errors import (
    ArtifactError,
    DataError,
    EnvironmentProblem,
    MimoError,
    ModelError,
    UsageError,
)
from mimo_plugin.training import teacher as teacher_fill
from mimo_plugin.training.recipe import ProjectionInput, Recipe, RunSettings
from mimo_plugin.training.stages import train_stage1, train_stage2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def no_teacher_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def ran(*_: Any) -> None:
        pytest.fail("the teacher was run")

    monkeypatch.setattr(teacher_fill, "_encode", ran)


def refused(
    train: Callable[..., Any],
    recipe: Recipe,
    job: RunSettings,
    error: type[MimoError] = UsageError,
    **named: Any,
) -> list[str]:
    """The messages; nothing has been begun."""
    before = sorted(job.output.rglob("*")) if job.output.is_dir() else []
    with pytest.raises(MimoError) as caught:
        train(recipe, job, **named)
    assert type(caught.value) is error, caught.value
    after = sorted(job.output.rglob("*")) if job.output.is_dir() else []
    assert [path for path in after if path.name != ".writer"] == before
    return str(caught.value).splitlines()


def test_no_data(world: World, tmp_path: Path) -> None:
    assert "--pairs" in refused(train_stage1, world.recipe(pairs=None), world.job(tmp_path / "run"))[0]
    recipe = world.recipe(pairs=None, table=None)
    lines = refused(train_both, recipe, world.job(tmp_path / "run"))
    assert ["--pairs" in lines[0], "--table" in lines[1]] == [True, True]


def test_pairs_given_as_a_table(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(table=str(world.root / "pairs"), stage2={"carry_projection": False})
    (line,) = refused(train_stage2, recipe, world.job(tmp_path / "run"), ArtifactError)
    assert "pairs" in line
    recipe = world.recipe(pairs=str(world.root / "table"))
    (line,) = refused(train_stage1, recipe, world.job(tmp_path / "run"), ArtifactError)
    assert "table" in line


def test_a_batch_larger_than_the_data(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(stage1={"batch_size": 181}, stage2={"batch_size": 61, "carry_projection": False})
    job = world.job(tmp_path / "run")
    expected = "--batch-size 61 is larger than the data, which has 60 usable rows"
    assert refused(train_stage2, recipe, job)[0].startswith(expected)
    lines = refused(train_both, recipe, job)
    assert len(lines) == 2
    assert lines[0].startswith("--batch-size 181 is larger than the data, which has 180 usable rows")


def test_a_batch_without_false_negatives_cannot_be_filled(world: World, tmp_path: Path) -> None:
    from mimo_plugin.data.writers import TableWriter

    with TableWriter(tmp_path / "table", anchor="en", parameters={}, source={}) as writer:
        for number in range(20):
            writer.add(
                f"q{number % 4}", f"p{number}", {"en": (f"a {number % 4}", f"b {number}"), "de": ("c", "d")}
            )
    recipe = world.recipe(table=str(tmp_path / "table"), stage2={"carry_projection": False})
    (line,) = refused(train_stage2, recipe, world.job(tmp_path / "run"))
    assert line.startswith("--batch-size 8: only 4 rows can be put into one batch")


def test_everything_together(world: World, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    recipe = world.recipe(
        student={"checkpoint": str(tmp_path / "nothing")},
        stage2={"batch_size": 61},
    ).model_copy(update={"dev": f"path:{tmp_path / 'no dev'}"})
    lines = refused(train_stage2, recipe, world.job(tmp_path / "run"), DataError)
    expected = ("--batch-size 61", "projection", "no dev", "thesis.tex", "no such directory")
    assert len(lines) == len(expected)
    for part in expected:
        assert any(part in line for line in lines), part


def test_no_projection(world: World, tmp_path: Path) -> None:
    (line,) = refused(train_stage2, world.recipe(), world.job(tmp_path / "run"))
    assert "no projection.safetensors of stage 1 lies beside it" in line
    assert "--fresh-projection" in line
    missing = tmp_path / "missing"
    (line,) = refused(train_stage2, world.recipe(), world.job(tmp_path / "run"), projection=missing)
    assert line.startswith(f"--projection {missing}: no such file")


def write_projection(path: Path, teacher: int, student: int) -> Path:
    import torch

    from mimo_plugin.training.run import save_projection

    save_projection(torch.nn.Linear(student, teacher), path, ProjectionInput.NORMALIZED)
    return path


@pytest.mark.parametrize(("teacher", "student"), [(16, 48), (24, 32), (32, 16)])
def test_a_projection_of_another_shape(world: World, tmp_path: Path, teacher: int, student: int) -> None:
    given = write_projection(tmp_path / "projection.safetensors", teacher, student)
    (line,) = refused(
        train_stage2, world.recipe(), world.job(tmp_path / "run"), ArtifactError, projection=given
    )
    assert f"maps {student} to {teacher} dimensions, expected the student's 32 to the teacher's 16" in line


def test_a_file_that_is_no_projection(world: World, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tensors")
    (line,) = refused(
        train_stage2, world.recipe(), world.job(tmp_path / "run"), ArtifactError, projection=tmp_path / "text"
    )
    assert "is not a projection of stage 1" in line


def test_a_projection_for_a_baseline(world: World, tmp_path: Path) -> None:
    given = write_projection(tmp_path / "projection.safetensors", 16, 32)
    recipe = world.recipe(stage2={"objective": "xlco"})
    (line,) = refused(train_stage2, recipe, world.job(tmp_path / "run"), projection=given)
    assert line.startswith("--projection: only `--objective mimo`")


def test_a_student_that_is_no_encoder(world: World, tmp_path: Path) -> None:
    directory = tmp_path / "classifier"
    shutil.copytree(world.root / "student", directory)
    config = json.loads((directory / "config.json").read_text())
    config["architectures"] = ["XLMRobertaForSequenceClassification"]
    (directory / "config.json").write_text(json.dumps(config))
    recipe = world.recipe(student={"checkpoint": str(directory)})
    (line,) = refused(train_stage1, recipe, world.job(tmp_path / "run"), ModelError)
    assert "classifier" in line
    assert "not an encoder" in line


def test_nothing_is_fetched_for_a_run_that_cannot_start(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(pairs=None, student={"checkpoint": "someone/a-large-model"})
    lines = refused(train_stage1, recipe, world.job(tmp_path / "run"), ModelError)
    assert "--pairs" in lines[0]
    assert lines[1].startswith("someone/a-large-model is not on this machine")


def test_no_such_teacher(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(teacher={"checkpoint": str(tmp_path / "nothing")})
    job = world.job(tmp_path / "run", teacher_store=tmp_path / "store")
    (line,) = refused(train_stage1, recipe, job, ModelError)
    assert "no such directory" in line


def test_texts_longer_than_the_student_reads(world: World, tmp_path: Path) -> None:
    """In the second stage, and said before the first one begins."""
    recipe = world.recipe(stage2={"max_length": 65})
    (line,) = refused(train_both, recipe, world.job(tmp_path / "run"))
    assert line == "--max-length 65: the checkpoint reads at most 64 tokens"


def test_an_unknown_size_of_a_new_student(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(student={"checkpoint": "new:huge"})
    (line,) = refused(train_stage1, recipe, world.job(tmp_path / "run"))
    assert "tiny, mini, small" in line


def test_scores_without_checkpoints(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(dev=True, stage1={"eval_steps": 2, "save_steps": 4})
    (line,) = refused(train_stage1, recipe, world.job(tmp_path / "run"))
    assert line.startswith("--save-steps 4 and --eval-steps 2 differ")


def test_an_unfinished_run_as_student(world: World, tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "recipe.yaml").write_text("stage: stage1\n")
    recipe = world.recipe(student={"checkpoint": str(tmp_path / "student")})
    (line,) = refused(train_stage1, recipe, world.job(tmp_path / "run"), ArtifactError)
    assert "has no manifest.json, expected a training run" in line


def test_a_device_that_is_not_there(world: World, tmp_path: Path) -> None:
    job = world.job(tmp_path / "run", device="cuda:77")
    (line,) = refused(train_stage1, world.recipe(), job, EnvironmentProblem)
    assert "cuda:77" in line


def test_an_output_that_is_a_file(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (line,) = refused(train_stage1, world.recipe(), world.job(tmp_path / "file"), ArtifactError)
    assert "is a file" in line
    (line,) = refused(train_stage1, world.recipe(), world.job(tmp_path / "file" / "run"))
    assert "not a directory where you may write" in line


def test_an_output_that_holds_the_student(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(world.root / "student", run / "model")
    (run / "recipe.yaml").write_text("stage: stage1\n")
    recipe = world.recipe(student={"checkpoint": str(run / "model")}, stage2={"objective": "xlco"})
    (line,) = refused(train_stage2, recipe, world.job(run, resume=False))
    assert line == f"--output {run} contains --student, which would be overwritten: choose another directory"


def test_an_output_that_cannot_be_written(world: World, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    (line,) = refused(train_stage1, world.recipe(), world.job(tmp_path / "run"))
    assert "not a directory where you may write" in line
