"""What a recipe may say; what is wrong with it is said at once, before anything starts."""

from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_experiment import recipe_values, write_recipe, write_world

from mimo_plugin.benchmark.grid import Experiment, Layout
from mimo_plugin.cli import main
from mimo_plugin.training.data import Format, read_manifest
from mimo_plugin.training.run import RunDirectory


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world")).parent


def problems(world: Path, capsys: pytest.CaptureFixture[str], *options: str, **changes: Any) -> list[str]:
    """The lines of the error; nothing must have been written."""
    recipe = write_recipe(world, "bad.yaml", **changes)
    output = world / "never"
    assert main(["experiment", str(recipe), "--output", str(output), "--device", "cpu", *options]) in (1, 2)
    assert not output.exists()
    return capsys.readouterr().err.splitlines()


def test_fields_are_reported_together(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = problems(
        world,
        capsys,
        colour="red",
        alpha=2,
        stage2={"bach_size": 8},
        seeds=[],
        test="tukey-hsd",
        systems={
            "one": {"objective": "xlco", "lambda": 0.3},
            "two": {"objective": "mimo", "warm_up": False, "carry_projection": True},
            "th/ree": {"objective": "mimo"},
            "four": {"objective": "dpr"},
            "five": {"objective": "infonce", "metric": "l2", "stage1": {"steps": 3}},
            "six": {"objective": "mimo", "stage2": {"contrastive_weight": 0.3}},
            "seven": {"objective": "xlco", "teacher": {"checkpoint": "teacher"}},
        },
    )
    text = "\n".join(lines)
    assert all(line.startswith("mimo: ") for line in lines)
    for said in (
        "colour: unknown key, expected one of name, data, dev",
        "alpha: found 2, expected less than 1",
        "stage2.bach_size: unknown key",
        "seeds: found a list of 0: Tuple should have at least 1 item",
        "test: found 'tukey-hsd', expected 'student' or 'permutation'",
        "systems.one: lambda is MIMO's, xlco has none",
        "systems.two: carry_projection needs a warm-up",
        "systems.th/ree: found 'th/ree', expected a name",
        "systems.four.objective: found 'dpr', expected 'mimo', 'xlco', 'infonce' or 'lakda'",
        "infonce without a warm-up has none: leave it out; stage1 has options, and there is no warm-up",
        "systems.six: stage2.contrastive_weight is set for the whole system: `lambda: ...`",
        "systems.seven: teacher needs a distillation, xlco without a warm-up has none: leave it out",
    ):
        assert said in text


def test_the_grid_is_checked_as_a_whole(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = recipe_values()
    lines = problems(
        world,
        capsys,
        data={"table": "table"},
        baseline="bm25",
        seeds=[1, 2, 1],
        stage2={**values["stage2"], "objective": "mimo"},
        systems={
            **values["systems"],
            "again": {"objective": "xlco"},
            "long": {"objective": "xlco", "stage2": {"max_length": 100}},
            "odd": {"objective": "xlco", "stage2": {"learning_rate": -1}},
        },
    )
    text = "\n".join(lines)
    for said in (
        "systems.mimo has a warm-up and data has no pairs",
        "baseline is 'bm25', expected one of the systems xlco, mimo, again, long, odd",
        "seeds: 1 is listed twice",
        "stage2.objective: each system sets its own",
        "systems xlco and again ask for the same training",
        "systems.long reads 100 tokens, the shared student 24",
        "systems.odd: learning_rate: found -1, expected greater than 0",
    ):
        assert said in text


def test_an_anchor_teacher_and_its_shares(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only systems with a share have it, and only what it teaches is trained anew."""
    anchor = {"checkpoint": "another"}
    (line,) = problems(world, capsys, anchor_teacher=anchor)
    assert "anchor_teacher: no system has an anchor_share in stage1 or stage2: add one" in line
    shared = {"anchor_share": "0:0.5"}
    systems = {
        "warm": {"objective": "xlco", "warm_up": True, "stage1": {**shared}},
        "cold": {"objective": "xlco", "stage2": {**shared}},
        "bad": {"objective": "mimo", "stage1": {"anchor_share": "half"}},
    }
    text = "\n".join(problems(world, capsys, systems=systems, baseline=None))
    for said in (
        "systems.warm: --anchor-share of stage1 needs a multilingual encoder",
        "systems.cold: --anchor-share: --objective xlco has no teacher",
        "systems.bad: anchor_share: found 'half', expected FROM:TO",
    ):
        assert said in text
    systems = {
        "plain": {"objective": "mimo"},
        "late": {"objective": "mimo", "stage2": {**shared}},
        "both": {"objective": "mimo", "stage1": {**shared}, "stage2": {**shared}},
        "other": {"objective": "mimo", "teacher": {"checkpoint": "another"}},
    }
    recipe = write_recipe(world, "anchor.yaml", anchor_teacher={**anchor}, systems=systems, baseline=None)
    experiment = Experiment.read(recipe)
    found = experiment.systems
    assert {name: system.anchor_teacher is not None for name, system in found.items()} == {
        "plain": False,
        "late": True,
        "both": True,
        "other": False,
    }
    trained = experiment.training(found["both"], 1, "student")
    assert trained.anchor_teacher is not None
    assert (trained.anchor_teacher.checkpoint, trained.stage1.anchor_share) == ("another", (0, 0.5))
    assert experiment.training(found["other"], 1, "student").teacher.checkpoint == "another"
    assert experiment.training(found["plain"], 1, "student").anchor_teacher is None
    held = {world / "pairs": Format.PAIRS, world / "table": Format.TABLE}
    data = {path: read_manifest(path, kind) for path, kind in held.items()}
    layout = Layout(experiment, world / "out", data)
    warm_ups = {name: layout.warm_up(system, 1) for name, system in found.items()}
    assert warm_ups["plain"] == warm_ups["late"]
    assert len(set(warm_ups.values())) == 3
    assert len({layout.training(system, 1).parents[1] for system in found.values()}) == 4


def test_what_is_not_there_is_said_at_once(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = recipe_values()
    lines = problems(
        world,
        capsys,
        "--only",
        "mmio",
        "--seeds",
        "3",
        data={"pairs": "table", "table": "nowhere"},
        collections={"test": "path:gone"},
        student={"checkpoint": "new:huge"},
        teacher={"checkpoint": "packaged:other"},
        stage2={**values["stage2"], "batch_size": 8},
        measures=["ndgc@20"],
        dev="path:neither",
    )
    text = "\n".join(lines)
    for said in (
        f"{world}/table holds a stage-2 table, expected stage-1 pairs",
        f"{world}/nowhere: no such directory",
        f"{world}/gone",
        f"{world}/neither",
        "new:huge: unknown size of a new student",
        "packaged:other is not packaged",
        "unknown measure 'ndgc@20'; near: ndcg",
        "--only mmio: no such system; near: mimo",
        "--seeds 3: the recipe has 2 seeds",
    ):
        assert said in text, said


def test_batches_that_cannot_be_filled(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = recipe_values()
    lines = problems(world, capsys, stage2={**values["stage2"], "batch_size": 64}, measures=["judged@10"])
    assert lines == [
        f"mimo: {world}/table: --batch-size 64 is larger than the data, which has 16 usable rows: choose a "
        "smaller batch or get more data",
        "mimo: measures begin with judged@10, which is no measure of quality: the first is the one that is "
        "tested, for example ndcg@20",
    ]


def test_the_place_is_not_anothers(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").touch()
    recipe = str(write_recipe(world, "good.yaml"))
    assert main(["experiment", recipe, "--output", str(tmp_path)]) == 1
    assert "holds something else (thesis.tex)" in capsys.readouterr().err
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.begin("stage: stage1\n")
    assert main(["experiment", recipe, "--output", str(run.path)]) == 1
    assert "holds something else (recipe.yaml of another command)" in capsys.readouterr().err
    assert run.begun() == {"stage": "stage1"}


def test_what_a_system_comes_to(world: Path) -> None:
    anchor = {"pairs": "pairs-de", "table": "table-de"}
    systems = {
        "mimo": {"objective": "mimo", "lambda": 0.5, "metric": "mse"},
        "cold": {"objective": "mimo", "warm_up": False},
        "warm": {"objective": "xlco", "warm_up": True, "stage1": {"steps": 9}},
        "german": {"objective": "mimo", "anchor": anchor, "carry_projection": False},
    }
    recipe = write_recipe(world, "systems.yaml", systems=systems, baseline=None)
    found = Experiment.read(recipe).systems
    mimo, cold, warm, german = found["mimo"], found["cold"], found["warm"], found["german"]
    assert mimo.stage1 is not None
    assert (mimo.stage1.metric, mimo.stage2.metric, mimo.stage2.contrastive_weight) == ("mse", "mse", 0.5)
    assert (cold.stage1, cold.pairs, cold.stage2.carry_projection) == (None, None, False)
    assert cold.stage2.contrastive_weight == 0.2
    assert warm.stage1 is not None
    assert (warm.stage1.steps, warm.stage2.steps, warm.taught) == (9, 4, False)
    assert (german.pairs, german.table) == (world / "pairs-de", world / "table-de")
    assert not german.stage2.carry_projection


def test_a_system_that_is_there_twice(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(world, "twice.yaml")
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(
        text.replace("  mimo:\n", "  xlco:\n    objective: infonce\n  mimo:\n"), encoding="utf-8"
    )
    assert main(["experiment", str(recipe), "--output", str(world / "never")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'found duplicate key "xlco"' in line


def test_checkpoints_that_would_not_be_scored(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage2 = {**recipe_values()["stage2"], "eval_steps": 2, "save_steps": 3}
    (line,) = problems(world, capsys, stage2=stage2, dev="path:test")
    assert "--save-steps 3 and --eval-steps 2 differ" in line


def test_paths_of_a_home_directory(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(world))
    data = {"pairs": "~/pairs", "table": "~/table"}
    recipe = write_recipe(world, "home.yaml", data=data, collections={"test": "path:~/test"})
    experiment = Experiment.read(recipe)
    assert experiment.systems["mimo"].table == world / "table"
    assert experiment.specs("test") == (f"path:{world}/test",)
