"""A run that was killed goes on and ends with the same bits; a finished one is left alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.tiny_training import World, same_weights

from mimo_plugin.cli import main
from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem
from mimo_plugin.training import record as saving
from mimo_plugin.training import stages as stage
from mimo_plugin.training import trainer
from mimo_plugin.training.recipe import Recipe
from mimo_plugin.training.run import PROJECTION, RunDirectory, Trained
from mimo_plugin.training.stages import train_stage1, train_stage2
from mimo_plugin.training.teacher_store import Role, TeacherStore
from mimo_plugin.training.trainer import MetricsFile

STEPS = 12


class Killed(BaseException):
    """Ends a run where a signal would."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def recipe(world: World) -> Recipe:
    """With dropout, a scored step every three, a checkpoint each."""
    changes = {"steps": STEPS, "log_steps": 1, "eval_steps": 3}
    return world.recipe(dev=True, stage1=changes, stage2={**changes, "carry_projection": False})


@pytest.fixture(scope="module")
def whole(world: World, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_stage2(recipe, world.job(tmp_path_factory.mktemp("whole") / "run"))


def killed_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    def log(self: MetricsFile, args: object, state: object, *rest: object, **named: object) -> None:
        if state.global_step >= step:
            raise Killed

    monkeypatch.setattr(MetricsFile, "on_log", log)


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 8, STEPS])
def test_cut_short_at_a_step(
    world: World, recipe: Recipe, whole: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    job = world.job(tmp_path / "run")
    with monkeypatch.context() as patched:
        killed_at(patched, step)
        with pytest.raises(Killed):
            train_stage2(recipe, job)
    assert not (tmp_path / "run" / "manifest.json").exists()
    done = train_stage2(recipe, job)
    assert not done.already
    assert same_weights(whole.directory, tmp_path / "run")
    assert done.manifest.best_step == whole.manifest.best_step
    assert done.manifest.scores == whole.manifest.scores
    assert done.manifest.languages == whole.manifest.languages


def test_cut_short_between_training_and_the_manifest(
    world: World, recipe: Recipe, whole: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    job = world.job(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(stage.Stage, "_finish", killed)
        with pytest.raises(Killed):
            train_stage2(recipe, job)
    # What it was writing when it was killed.
    (tmp_path / "run" / ".curves.png.99.tmp").touch()
    for suffix in ("tmp", "old"):
        (tmp_path / "run" / f".model.99.{suffix}" / "inner").mkdir(parents=True)
    train_stage2(recipe, job)
    assert same_weights(whole.directory, tmp_path / "run")
    names = {path.name for path in whole.directory.iterdir()}
    assert {path.name for path in (tmp_path / "run").iterdir()} == names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (trainer.Trainer, "_save_checkpoint"),
        (MetricsFile, "on_log"),
        (saving, "save_student"),
        (stage, "draw_curves"),
    ],
)
def test_a_directory_that_is_removed_meanwhile(
    world: World,
    recipe: Recipe,
    whole: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
) -> None:
    job, wrapped, removed = world.job(tmp_path / "run"), getattr(owner, name), False

    def removing(*arguments: object, **named: object) -> object:
        nonlocal removed
        if not removed:
            (tmp_path / "run").rename(tmp_path / "removed")
            removed = True
        return wrapped(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, removing)
        with pytest.raises(EnvironmentProblem):
            train_stage2(recipe, job)
    assert removed
    assert not (tmp_path / "run").exists()
    train_stage2(recipe, job)
    assert same_weights(whole.directory, tmp_path / "run")


@pytest.mark.slow
def test_stage1_without_a_dev_collection(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = world.recipe(stage1={"steps": STEPS, "log_steps": 1, "save_steps": 5})
    train_stage1(recipe, world.job(tmp_path / "whole"))
    with monkeypatch.context() as patched:
        killed_at(patched, 8)
        with pytest.raises(Killed):
            train_stage1(recipe, world.job(tmp_path / "run"))
    reads: list[int] = []
    vectors = TeacherStore.vectors

    def counted(self: TeacherStore, texts: list[str], role: Role) -> object:
        reads.append(len(texts))
        return vectors(self, texts, role)

    monkeypatch.setattr(TeacherStore, "vectors", counted)
    train_stage1(recipe, world.job(tmp_path / "run"))
    assert same_weights(tmp_path / "whole", tmp_path / "run")
    # What was trained on before is passed over unread.
    assert sum(reads) == 8 * (STEPS - 5)


@pytest.mark.slow
def test_a_half_written_checkpoint_and_a_torn_line(
    world: World, recipe: Recipe, whole: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = world.job(tmp_path / "run")
    with monkeypatch.context() as patched:
        killed_at(patched, 8)
        with pytest.raises(Killed):
            train_stage2(recipe, job)
    checkpoints = tmp_path / "run" / "checkpoints"
    torn = checkpoints / "checkpoint-9"
    shutil.copytree(checkpoints / "checkpoint-6", torn)
    (torn / "complete").unlink()
    (torn / PROJECTION).unlink()
    (torn / "model.safetensors").write_bytes(b"cut short")
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text('{"step": 1, "stage": "stage2", "loss": 1.0}\n{"step": 2, "sta')
    train_stage2(recipe, job)
    assert same_weights(whole.directory, tmp_path / "run")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, *range(7, STEPS + 1)]


def command(world: World, recipe: Recipe, output: Path) -> list[str]:
    file = output.with_suffix(".yaml")
    file.write_text(recipe.model_dump_json())
    return [
        *("train", "stage2", "--recipe", str(file), "--teacher-store", str(world.root / "store")),
        *("--device", "cpu", "--no-progress", "--output", str(output)),
    ]


@pytest.mark.slow
def test_kill_nine_of_a_real_process(
    world: World, recipe: Recipe, whole: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed somewhere after its first checkpoint began, seen from outside only."""
    arguments = command(world, recipe, tmp_path / "run")
    checkpoints, home = tmp_path / "run" / "checkpoints", tmp_path / "home"
    home.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "mimo_plugin", *arguments],
        env={**os.environ, "HOME": str(home), "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while process.poll() is None and not (checkpoints / "checkpoint-6").is_dir():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    assert not (tmp_path / "run" / "manifest.json").exists()
    assert main(arguments) == 0
    assert same_weights(whole.directory, tmp_path / "run")
    # Nothing but the run's directory, the store and what fonts and compilers keep in a home.
    assert {path.name for path in tmp_path.iterdir()} == {"home", "run", "run.yaml"}
    assert {path.name for path in home.iterdir()} <= {".cache", ".config"}
    capsys.readouterr()

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert main(arguments) == 0
    assert "was trained before" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path: moment for path, moment in before.items() if path.name != ".writer"} == {
        path: moment for path, moment in after.items() if path.name != ".writer"
    }

    assert main([*arguments, "--learning-rate", "0.5", "--seed", "4"]) == 1
    said = capsys.readouterr().err
    assert "seed is 4, there it is 3; options.learning_rate is 0.5, there it is 0.001" in said
    assert "--no-resume" in said
    assert same_weights(whole.directory, tmp_path / "run")

    assert main([*arguments, "--steps", "2", "--eval-steps", "2", "--no-resume"]) == 0
    assert RunDirectory(tmp_path / "run").read().steps == 2
    assert not same_weights(whole.directory, tmp_path / "run")


def test_what_is_wrong_is_said_before_an_earlier_run_is_given_up(world: World, tmp_path: Path) -> None:
    done = train_stage1(world.recipe(), world.job(tmp_path / "run"))
    changed = world.recipe(teacher={"query_prompt": "other"})
    with pytest.raises(ArtifactError, match="holds a teacher store made otherwise"):
        train_stage1(changed, world.job(tmp_path / "run", resume=False))
    assert train_stage1(world.recipe(), world.job(tmp_path / "run")).manifest == done.manifest


def test_another_teacher_under_the_same_name(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from helpers import tiny_training

    shutil.copytree(world.root / "teacher", tmp_path / "teacher")
    recipe = world.recipe(teacher={"checkpoint": str(tmp_path / "teacher")})
    job = world.job(tmp_path / "run", teacher_store=tmp_path / "store")
    with monkeypatch.context() as patched:
        killed_at(patched, 4)
        with pytest.raises(Killed):
            train_stage1(recipe, job)
    shutil.rmtree(tmp_path / "teacher")
    shutil.rmtree(tmp_path / "store")
    tiny_training.student(tmp_path / "teacher", seed=10, hidden=16)
    with pytest.raises(ArtifactError, match=r"teacher.vectors.fingerprint is .*, there it is "):
        train_stage1(recipe, job)


def test_a_run_whose_files_are_gone(world: World, tmp_path: Path) -> None:
    train_stage1(world.recipe(), world.job(tmp_path / "run"))
    (tmp_path / "run" / PROJECTION).unlink()
    with pytest.raises(ArtifactError, match=r"projection.safetensors is missing, .*--no-resume"):
        train_stage1(world.recipe(), world.job(tmp_path / "run"))
    assert not train_stage1(world.recipe(), world.job(tmp_path / "run", resume=False)).already
