"""A multilingual teacher that takes the anchor's place for a share of the texts, on the real trainer."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_training
from helpers.tiny_training import PASSAGE, QUERY, World, same_weights, text, train_both, weights
from safetensors.numpy import load_file

from mimo_plugin.cli import main
from mimo_plugin.core.errors import ArtifactError, ModelError, UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.training import losses
from mimo_plugin.training.recipe import Recipe, Stage1Options
from mimo_plugin.training.run import ANCHOR_PROJECTION, PROJECTION, RunDirectory
from mimo_plugin.training.stages import train_stage1, train_stage2
from mimo_plugin.training.teacher_store import ANCHOR, Role, TeacherStore
from mimo_plugin.training.trainer import MetricsFile

DIMENSION = 24


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    found = World.make(tmp_path_factory.mktemp("world"))
    tiny_training.student(found.root / "multilingual", seed=8, hidden=DIMENSION)
    return found


def recipe_of(world: World, share: str | None, **changes: Any) -> Recipe:
    """Both stages with a share, a checkpoint every three steps."""
    stage = {"anchor_share": share, "save_steps": 3, "log_steps": 1}
    stages = {name: {**stage, **changes.pop(name, {})} for name in ("stage1", "stage2")}
    anchor = {"anchor_teacher": {"checkpoint": str(world.root / "multilingual")}} if share else {}
    return world.recipe(**{**anchor, **stages, **changes})


@pytest.mark.slow
def test_a_share_of_nothing_is_no_anchor_teacher(world: World, tmp_path: Path) -> None:
    """Bit for bit, with dropout, although the second projection is there."""
    for name, share in (("without", None), ("nothing", "0:0")):
        train_both(recipe_of(world, share), world.job(tmp_path / name, teacher_store=tmp_path / "store"))
    for stage in ("stage1", "stage2"):
        plain, same = (weights(tmp_path / name / stage) for name in ("without", "nothing"))
        extra = {name for name in same if name.startswith(ANCHOR_PROJECTION)}
        assert len(extra) == 2
        assert same.keys() - extra == plain.keys()
        assert all(plain[name].tobytes() == same[name].tobytes() for name in plain)
    assert len(TeacherStore.open(tmp_path / "store" / ANCHOR)) == 0


@pytest.mark.slow
def test_a_share_of_all_needs_no_vector_of_the_teacher(world: World, tmp_path: Path) -> None:
    store = tmp_path / "store"
    one, two = train_both(recipe_of(world, "1:1"), world.job(tmp_path / "run", teacher_store=store))
    assert len(TeacherStore.open(store)) == 0
    there = TeacherStore.open(store / ANCHOR)
    # Stage 1's texts have no prompt, stage 2's queries neither: 6 steps of 8 texts, and of 8 passages.
    languages = (one.manifest.languages, two.manifest.languages)
    assert [sum(counts.values()) for counts in languages] == [48, 48]
    assert 48 < len(there) <= 3 * 48
    # Another teacher changes nothing but its own projection, which is not trained.
    teacher = {"checkpoint": str(tiny_training.student(tmp_path / "another", seed=5, hidden=16))}
    job = world.job(tmp_path / "other", teacher_store=tmp_path / "other store")
    other = train_stage1(recipe_of(world, "1:1", teacher=teacher), job)
    assert same_weights(one.directory, other.directory)
    own = [text(template[lang], n) for template in (QUERY, PASSAGE) for lang in template for n in range(60)]
    found = sum(_has(there, one_text) for one_text in own)
    assert found == len(there)


def _has(store: TeacherStore, one_text: str) -> bool:
    from mimo_plugin.core.errors import DataError

    try:
        store.vectors([one_text], Role.TEXT)
    except DataError:
        return False
    return True


@pytest.mark.slow
def test_both_projections_are_carried_and_recorded(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[dict[str, bytes]] = []
    build = losses.build_loss

    def seen(*args: Any) -> Any:
        loss, projections = build(*args)
        began.append({name: layer.weight.detach().numpy().tobytes() for name, layer in projections.items()})
        return loss, projections

    monkeypatch.setattr(losses, "build_loss", seen)
    one, two = train_both(recipe_of(world, "0:1"), world.job(tmp_path / "run"))
    for name, dimension in ((PROJECTION, 16), (ANCHOR_PROJECTION, DIMENSION)):
        trained = load_file(one.directory / name)["weight"]
        assert trained.shape == (dimension, 32)
        assert began[1][name] == trained.tobytes() != began[0][name]
        assert load_file(two.directory / name)["weight"].tobytes() != trained.tobytes()
        assert {name} <= one.manifest.files.keys() & two.manifest.files.keys()
    teacher = Encoder(str(world.root / "multilingual"))
    for trained_run in (one, two):
        identity = trained_run.manifest.identity
        assert identity["options"]["anchor_share"] == [0.0, 1.0]
        assert identity["anchor_teacher"]["vectors"]["fingerprint"] == teacher.fingerprint
        lines = [json.loads(line) for line in (trained_run.directory / "metrics.jsonl").open()]
        shares = [line["anchor_share"] for line in lines]
        assert shares[0] == 0
        assert shares[-1] == 1
        card = (trained_run.model / "README.md").read_text()
        assert "A share of the texts had the vectors of `multilingual`" in card
    assert two.manifest.identity["anchor_projection"] != two.manifest.identity["projection"]

    # A stage 2 that begins with the anchor teacher has no projection of it to carry.
    plain = train_stage1(recipe_of(world, None, stage1={"steps": 1}), world.job(tmp_path / "plain"))
    student = {"checkpoint": str(plain.directory)}
    recipe = recipe_of(world, "0:1", stage2={"steps": 1}, student=student)
    fresh = train_stage2(recipe, world.job(tmp_path / "fresh"))
    assert "anchor_projection" not in fresh.manifest.identity
    assert (fresh.directory / ANCHOR_PROJECTION).is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "parts"), [(train_stage1, 1), (train_stage2, 2)])
def test_resumed_to_the_byte(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Any, parts: int
) -> None:
    changes = {"gradient_accumulation_steps": parts, "save_steps": 2}
    recipe = recipe_of(world, "0.2:0.9", stage1=changes, stage2={**changes, "carry_projection": False})
    stage(recipe, world.job(tmp_path / "whole"))

    def log(self: MetricsFile, args: object, state: Any, *rest: object, **named: object) -> None:
        if state.global_step >= 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MetricsFile, "on_log", log)
        with pytest.raises(KeyboardInterrupt):
            stage(recipe, world.job(tmp_path / "run"))
    kept = RunDirectory(tmp_path / "run").last_checkpoint()
    assert kept is not None
    assert kept.name == "checkpoint-4"
    assert (kept / ANCHOR_PROJECTION).is_file()
    stage(recipe, world.job(tmp_path / "run"))
    assert same_weights(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_on_the_command_line(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The option wins over a recipe that was written with every value, also over those that are null."""
    world.recipe(stage1={"steps": 2}).write(tmp_path / "recipe.yaml")
    arguments = [
        *("train", "stage1", "--recipe", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "run")),
        *("--teacher-store", str(world.root / "store"), "--device", "cpu", "--no-progress"),
        *("--anchor-teacher", str(world.root / "multilingual")),
    ]
    assert main([*arguments, "--anchor-share", "0:half"]) == 2
    assert "stage1.anchor_share: found '0:half', expected FROM:TO, two shares" in capsys.readouterr().err
    assert main(arguments) == 2
    assert "needs a share of the texts: --anchor-share FROM:TO" in capsys.readouterr().err
    assert main([*arguments, "--anchor-share", "0.5:1"]) == 0
    identity = RunDirectory(tmp_path / "run").read().identity
    assert identity["options"]["anchor_share"] == [0.5, 1.0]
    assert identity["anchor_teacher"]["checkpoint"] == str(world.root / "multilingual")
    capsys.readouterr()
    assert main([*arguments, "--anchor-share", "0:1"]) == 1
    assert "options.anchor_share is [0.0, 1.0], there it is [0.5, 1.0]" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["0.5", "0:1:1", "-0.1:1", "0:1.1", "nan:1", ":", 0.5, [0], [0, "x"]])
def test_shares_that_are_none(given: Any) -> None:
    with pytest.raises(ValueError, match=r"expected FROM:TO, two shares from 0 to 1 such as 0:0\.5"):
        Stage1Options(anchor_share=given)


def test_shares(world: World, tmp_path: Path) -> None:
    assert Stage1Options(anchor_share="0:0.5").anchor_share == (0, 0.5)
    assert Stage1Options(anchor_share=(1, 0)).anchor_share == (1, 0)
    # Runs of earlier versions keep their identity.
    assert "anchor_share" not in Stage1Options().identity()
    recipe = recipe_of(world, "0.25:1")
    recipe.write(tmp_path / "recipe.yaml")
    assert Recipe.read(tmp_path / "recipe.yaml") == recipe
    (tmp_path / "short.yaml").write_text("stage1: {anchor_share: 0:0.5}\n")
    assert Recipe.read(tmp_path / "short.yaml").stage1.anchor_share == (0, 0.5)


@pytest.mark.slow
def test_contradictions(world: World, tmp_path: Path) -> None:
    job = world.job(tmp_path / "run", teacher_store=tmp_path / "empty store")

    def refused(recipe: Recipe, train: Any = train_both, error: type[Exception] = UsageError) -> str:
        with pytest.raises(error) as caught:
            train(recipe, job)
        assert not (tmp_path / "run").exists()
        return str(caught.value)

    shared = {"anchor_share": "0:1"}
    recipe = world.recipe(stage1=shared, stage2={**shared, "objective": "xlco"})
    lines = refused(recipe).splitlines()
    assert lines[0].startswith("--anchor-share: --objective xlco has no teacher")
    assert lines[1].startswith("--anchor-share of stage1 and stage2 needs a multilingual encoder")
    missing = recipe_of(world, "0:1", anchor_teacher={"checkpoint": str(tmp_path / "none")})
    assert refused(missing, train_stage1, ModelError).startswith(f"{tmp_path / 'none'}: no such directory")

    tiny_training.student(tmp_path / "third", seed=2, hidden=8)
    train_stage1(recipe_of(world, "0:1"), world.job(tmp_path / "warm-up", teacher_store=tmp_path / "store"))
    third = {"checkpoint": str(tmp_path / "third")}
    changed = recipe_of(world, "0:1", anchor_teacher=third, student={"checkpoint": str(tmp_path / "warm-up")})
    job = world.job(tmp_path / "run", teacher_store=tmp_path / "store")
    assert f"{tmp_path / 'store' / ANCHOR} holds a teacher store" in refused(
        changed, train_stage2, ArtifactError
    )
    job = world.job(tmp_path / "run", teacher_store=tmp_path / "new store")
    message = refused(changed, train_stage2, ArtifactError)
    assert f"{ANCHOR_PROJECTION} maps 32 to 24 dimensions" in message
