"""`mimo train`: recipes, options that win over them, exit status."""

import json
from pathlib import Path

import pytest
import yaml
from helpers import tiny_training
from helpers.tiny_training import World

from mimo_plugin.cli import main
from mimo_plugin.encoder.packaged import TEACHER
from mimo_plugin.training.run import PROJECTION, RunDirectory


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


def write(path: Path, values: object) -> str:
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.mark.slow
def test_all_from_a_recipe(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"batch_size": 8, "steps": 3, "max_length": 20, "precision": "float32"}
    recipe = {
        "student": {"checkpoint": "new:tiny", "vocabulary": 400},
        "teacher": {"checkpoint": TEACHER},
        "pairs": str(world.root / "pairs"),
        "table": str(world.root / "nothing"),
        "seed": 5,
        "stage1": options,
        "stage2": {**options, "mini_batch_size": 4, "max_length": 30, "contrastive_weight": 0.4},
    }
    arguments = ["train", "all", "--recipe", write(tmp_path / "recipe.yaml", recipe)]
    arguments += ["--table", str(world.root / "table"), "--seed", "6", "--output", str(tmp_path / "run")]
    arguments += ["--device", "cpu", "--no-progress", "--dev", world.dev]
    assert main(arguments) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert "stage1, 3 steps" in said.out
    assert "stage2, 3 steps" in said.out
    first, second = (RunDirectory(tmp_path / "run" / name).read() for name in ("stage1", "stage2"))
    assert first.identity["seed"] == second.identity["seed"] == 6
    assert first.identity["student"]["vocabulary"] == 400
    assert second.identity["options"]["contrastive_weight"] == 0.4
    assert second.identity["data"]["path"] == str(world.root / "table")
    config = json.loads((tmp_path / "run" / "stage2" / "model" / "config.json").read_text())
    # Room for the longer texts of the second stage.
    assert config["max_position_embeddings"] == 32
    assert (tmp_path / "run" / "stage1" / "initial" / "model.safetensors").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml", "run", "teacher-store"}

    assert main(arguments) == 0
    assert capsys.readouterr().out.count("was trained before") == 2


def test_options_win_over_the_recipe(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(stage2={"objective": "xlco", "steps": 9, "log_steps": 1}).model_dump(mode="json")
    arguments = ["train", "stage2", "--recipe", write(tmp_path / "recipe.yaml", recipe), "--no-progress"]
    arguments += [
        "--objective",
        "infonce",
        "--steps",
        "2",
        "--output",
        str(tmp_path / "run"),
        "--device",
        "cpu",
    ]
    assert main(arguments) == 0
    found = RunDirectory(tmp_path / "run").read().identity["options"]
    assert (found["objective"], found["steps"], found["log_steps"]) == ("infonce", 2, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["stage2", "--objective", "triplet", "--output", "run"],
        ["stage2", "--lambda", "1.5", "--output", "run"],
        ["stage1", "--batch-size", "0", "--output", "run"],
        ["stage1", "--precision", "float8", "--output", "run"],
        ["stage1"],
        ["stage3", "--output", "run"],
    ],
)
def test_wrong_usage(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_recipe_with_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = {"stage1": {"batchsize": 8, "warmup": 2}, "stage2": {"objective": "triplet"}, "studnet": "x"}
    arguments = ["train", "stage1", "--recipe", write(tmp_path / "recipe.yaml", recipe)]
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    for part in ("stage1.batchsize", "stage1.warmup", "stage2.objective", "studnet"):
        assert part in said
    assert len(said.splitlines()) == 4
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["- a list\n", "just words\n", "a: [b\n"])
def test_a_file_that_is_no_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (tmp_path / "recipe.yaml").write_text(content)
    arguments = [
        "train",
        "stage1",
        "--recipe",
        str(tmp_path / "recipe.yaml"),
        "--output",
        str(tmp_path / "run"),
    ]
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_section_that_is_no_mapping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "stage1", "--recipe", write(tmp_path / "recipe.yaml", {"stage1": "fast"})]
    assert main([*arguments, "--steps", "3", "--output", str(tmp_path / "run")]) == 2
    assert "stage1: found 'fast', expected" in capsys.readouterr().err


@pytest.mark.slow
def test_a_projection_named_on_the_command_line(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--device", "cpu", "--no-progress", "--batch-size", "8", "--steps", "2", "--max-length", "24"]
    common += ["--precision", "float32", "--teacher", str(world.root / "teacher")]
    common += ["--student", str(world.root / "student")]
    pairs, table = str(world.root / "pairs"), str(world.root / "table")
    assert main(["train", "stage1", "--pairs", pairs, *common, "--output", str(tmp_path / "one")]) == 0
    arguments = ["train", "stage2", "--table", table, *common, "--output", str(tmp_path / "two")]
    capsys.readouterr()
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "--fresh-projection" in said
    assert len(said.splitlines()) == 1
    assert main([*arguments, "--projection", str(tmp_path / "one" / PROJECTION)]) == 0
    arguments[-1] = str(tmp_path / "three")
    assert main([*arguments, "--fresh-projection"]) == 0
    assert not tiny_training.same_weights(tmp_path / "two", tmp_path / "three")


def test_options_of_student_and_teacher(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(stage2={"carry_projection": False, "steps": 1}).model_dump(mode="json")
    arguments = ["train", "stage2", "--recipe", write(tmp_path / "recipe.yaml", recipe), "--no-progress"]
    arguments += ["--pooling", "cls", "--query-prompt", "q: ", "--document-prompt", "", "--device", "cpu"]
    arguments += ["--teacher-dtype", "bfloat16", "--teacher-batch-size", "3", "--teacher-attention", "eager"]
    arguments += ["--teacher-store", str(tmp_path / "store"), "--projection-input", "raw"]
    arguments += ["--gradient-accumulation-steps", "2", "--gradient-checkpointing"]
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 0
    identity = RunDirectory(tmp_path / "run").read().identity
    student, teacher, options = (identity[section] for section in ("student", "teacher", "options"))
    assert (student["pooling"], student["query_prompt"], student["document_prompt"]) == ("cls", "q: ", "")
    assert (teacher["compute_dtype"], teacher["attention"]) == ("bfloat16", "eager")
    assert teacher["vectors"]["compute_dtype"] == "bfloat16"
    assert "batch_size" not in teacher
    assert options["projection_input"] == "raw"
    assert (options["gradient_accumulation_steps"], options["gradient_checkpointing"]) == (2, True)


def test_the_projection_goes_on_as_it_was_trained(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = world.recipe(stage1={"steps": 1, "projection_input": "raw"}, stage2={"steps": 1})
    file = write(tmp_path / "recipe.yaml", recipe.model_dump(mode="json"))
    common = [
        "--recipe",
        file,
        "--no-progress",
        "--device",
        "cpu",
        "--teacher-store",
        str(tmp_path / "store"),
    ]
    assert main(["train", "stage1", *common, "--output", str(tmp_path / "first")]) == 0
    second = ["train", "stage2", *common, "--student", str(tmp_path / "first")]
    assert main([*second, "--output", str(tmp_path / "second")]) == 0
    assert RunDirectory(tmp_path / "second").read().identity["options"]["projection_input"] == "raw"
    capsys.readouterr()
    other = [*second, "--projection-input", "normalized", "--output", str(tmp_path / "other")]
    assert main(other) == 2
    assert "stage 1 trained" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_trackers(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    recipe = write(tmp_path / "recipe.yaml", world.recipe(stage1={"steps": 1}).model_dump(mode="json"))
    run = ["train", "stage1", "--recipe", recipe, "--output", str(tmp_path / "run"), "--device", "cpu"]
    missing = sorted(set(INTEGRATION_TO_CALLBACK) - set(get_available_reporting_integrations()))[0]
    assert main([*run, "--report-to", missing]) == 1
    assert f"--report-to {missing}: is not installed: pip install {missing}" in capsys.readouterr().err
    assert main([*run, "--report-to", "abacus"]) == 2
    assert "--report-to abacus: unknown, expected one of" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*run, "--report-to", "tensorboard", "--no-progress"]) == 0
    # No part of what a run is.
    assert main([*run, "--no-progress"]) == 0
    assert "was trained before" in capsys.readouterr().out
