"""`train`, as Python calls it: data from directories or datasets, one stage or both, cheap checks first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from helpers.tiny_training import World, same_weights

from mimo_plugin.core.errors import ArtifactError, DataError, UsageError
from mimo_plugin.training.data import open_pairs, open_table
from mimo_plugin.training.recipe import Recipe
from mimo_plugin.training.stages import train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"), dropout=0.0)


@pytest.fixture(scope="module")
def recipe(world: World) -> Recipe:
    return world.recipe(pairs=None, table=None, stage1={"steps": 2}, stage2={"steps": 2})


@pytest.mark.slow
def test_datasets_train_as_the_directories_that_hold_the_same_rows(
    world: World, recipe: Recipe, tmp_path: Path
) -> None:
    places = {"teacher_store": world.root / "store", "device": "cpu", "progress": False}
    pairs, table = open_pairs(world.root / "pairs"), open_table(world.root / "table")
    # A selection of rows, as many datasets are.
    rows = Dataset.from_list([*pairs.dataset, *pairs.dataset]).select(range(len(pairs.dataset)))
    given = {"pairs": rows, "table": Dataset.from_list(list(table.dataset))}
    last = train(recipe, tmp_path / "datasets", **given, **places)
    assert last.directory == tmp_path / "datasets" / "stage2"
    assert last.encoder("cpu").encode_queries(["ein satz"]).shape == (1, 32)
    paths = {"pairs": world.root / "pairs", "table": str(world.root / "table")}
    train(recipe, tmp_path / "paths", **paths, **places)
    for stage in ("stage1", "stage2"):
        assert same_weights(tmp_path / "datasets" / stage, tmp_path / "paths" / stage)
    assert last.manifest.identity["data"] == {
        "path": None,
        "fingerprint": last.manifest.identity["data"]["fingerprint"],
        "anchor": "en",
        "rows": 60,
    }
    assert train(recipe, tmp_path / "datasets", **given, **places).already
    other = {**given, "table": given["table"].select(range(50))}
    with pytest.raises(ArtifactError, match=r"otherwise: data.fingerprint is .*; data.rows is 50, there"):
        train(recipe, tmp_path / "datasets", **other, **places)


def test_one_stage_where_there_is_data_for_one(world: World, recipe: Recipe, tmp_path: Path) -> None:
    only = recipe.model_copy(update={"pairs": str(world.root / "pairs")})
    done = train(only, tmp_path / "run", device="cpu", progress=False)
    assert (done.directory, done.manifest.stage) == (tmp_path / "run", "stage1")
    assert str(done).startswith(f"{tmp_path / 'run'}: stage1, 2 steps, trained in ")
    with pytest.raises(UsageError, match="no training data was given: stage 1 needs pairs, stage 2 a table"):
        train(recipe, tmp_path / "none")


def test_a_dataset_that_is_none_of_ours(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"columns text: stage-1 pairs need rows with text, lang, anchor"):
        train(recipe, tmp_path, pairs=Dataset.from_dict({"text": ["a"]}))
    row = {"query_id": "1", "passage_id": "1", "queries": ["a", "b"], "passages": ["c", "d"]}
    table = Dataset.from_list([{**row, "langs": ["de", "fr"]}])
    with pytest.raises(DataError, match="a row of the dataset is in de, fr: .* needs en and another"):
        train(recipe, tmp_path, table=table)


def test_what_is_cheap_to_check_is_checked_before_torch_is_imported(world: World, tmp_path: Path) -> None:
    wrong = world.recipe(stage1={"batch_size": 500}, stage2={"batch_size": 400})
    wrong.write(tmp_path / "recipe.yaml")
    program = (
        "import sys\n"
        "from mimo_plugin.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print(sorted({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)))\n"
        "sys.exit(code)\n"
    )
    arguments = ["train", "all", "--recipe", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "run")]
    arguments += ["--teacher", str(tmp_path / "none"), "--teacher-store", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--dev", world.dev, "--device", "cuda:99"],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == "[]\n"
    expected = (
        "--batch-size 500 is larger",
        "--batch-size 400 is larger",
        f"{tmp_path / 'none'}: no such directory",
        f"{tmp_path} holds something else (recipe.yaml): --teacher-store must name",
    )
    lines = done.stderr.splitlines()
    assert len(lines) == len(expected)
    for line, part in zip(lines, expected, strict=True):
        assert line.startswith(f"mimo: {part}"), line
