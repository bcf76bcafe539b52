"""Both stages and the baselines on the real trainer: what is carried, kept, written and refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_training
from helpers.tiny_training import World, same_weights, train_both, weights

import mimo_plugin
from mimo_plugin.cli import main
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.training import losses as building
from mimo_plugin.training.recipe import Precision, Recipe
from mimo_plugin.training.run import PROJECTION, Trained
from mimo_plugin.training.stages import train_stage1, train_stage2
from mimo_plugin.training.start import DevCollection
from mimo_plugin.training.trainer import Trainer, TrainingFailed, native_bfloat16, use_bfloat16

pytestmark = pytest.mark.threads

TEXTS = ["Ein kurzer Satz", "many short words about engines", "поисковых системах", "x" * 300]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def both(world: World) -> tuple[Trained, Trained]:
    changes = {"steps": 8, "eval_steps": 2, "learning_rate": 3e-3}
    recipe = world.recipe(dev=True, stage1=changes, stage2=changes)
    one, two = train_both(recipe, world.job(world.root / "both"))
    return one, two


def continued(world: World, trained: Trained, **changes: Any) -> Recipe:
    return world.recipe(student={"checkpoint": str(trained.directory)}, **changes)


@pytest.mark.slow
def test_what_a_run_leaves(world: World, both: tuple[Trained, Trained]) -> None:
    names = {
        "curves.png",
        "manifest.json",
        "metrics.jsonl",
        "model",
        PROJECTION,
        "recipe.yaml",
        "tensorboard",
    }
    for trained in both:
        assert {path.name for path in trained.directory.iterdir()} == names
        assert (trained.directory / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert list((trained.directory / "tensorboard").glob("events.out.tfevents.*"))
        assert not list(trained.directory.rglob("*.bin"))
        assert not list(trained.directory.rglob("*.pt"))
        assert not list(trained.directory.rglob("*.csv"))
        model = trained.directory / "model"
        assert not (model / PROJECTION).exists()
        assert not any("projection" in name for name in weights_of(model))
    assert {path.name for path in (world.root / "both").iterdir()} == {"stage1", "stage2"}


def weights_of(model: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return {name: tensor for path in model.rglob("*.safetensors") for name, tensor in load_file(path).items()}


def test_the_record(world: World, both: tuple[Trained, Trained]) -> None:
    import yaml

    for trained, data in zip(both, ("pairs", "table"), strict=True):
        manifest = trained.manifest
        identity = manifest.identity
        recipe = yaml.safe_load((trained.directory / "recipe.yaml").read_text())
        assert recipe == identity
        assert identity["seed"] == 3
        assert identity["options"]["learning_rate"] == 3e-3
        assert identity["options"]["warmup"] == 0.1
        record = json.loads((world.root / data / "manifest.json").read_text())
        assert identity["data"]["rows"] == record["rows"]
        assert len(identity["data"]["fingerprint"]) == 64
        teacher = Encoder(str(world.root / "teacher"))
        assert identity["teacher"]["vectors"]["fingerprint"] == teacher.fingerprint
        assert {"torch", "transformers", "sentence-transformers", "mimo-plugin"} <= set(
            manifest.environment["versions"]
        )
        assert "git_commit" in manifest.environment
        assert sum(manifest.languages.values()) == 64
    assert both[0].manifest.identity["student"]["fingerprint"] == fingerprint(world.root / "student")
    assert both[1].manifest.identity["student"]["fingerprint"] == fingerprint(both[0].directory / "model")
    assert "stage2, 8 steps" in str(both[1])


def fingerprint(checkpoint: Path) -> str:
    return Encoder(str(checkpoint)).fingerprint


def test_metrics(both: tuple[Trained, Trained]) -> None:
    for trained, parts in zip(both, ({"distillation"}, {"distillation", "contrastive"}), strict=True):
        lines = [json.loads(line) for line in (trained.directory / "metrics.jsonl").read_text().splitlines()]
        losses = [line for line in lines if "loss" in line]
        scores = [line["dev"] for line in lines if "dev" in line]
        assert [line["step"] for line in losses] == [2, 4, 6, 8]
        assert all(
            parts | {"similarity", "learning_rate", "texts_per_second"} <= set(line) for line in losses
        )
        assert len(scores) == 4
        assert set(scores[0]) == {"ndcg@20", "same_language@20", "alignment", "uniformity"}
        best = max(score["ndcg@20"] for score in scores)
        assert trained.manifest.scores["ndcg@20"] == best
        assert losses[-1]["loss"] < losses[0]["loss"]
        if len(parts) == 2:
            for line in losses:
                expected = 0.2 * line["contrastive"] + 0.8 * line["distillation"]
                assert line["loss"] == pytest.approx(expected, abs=2e-4)


def test_the_trained_checkpoint_loads_everywhere(both: tuple[Trained, Trained]) -> None:
    import torch

    mimo_plugin.register()
    from pyserini.encode import AutoDocumentEncoder, AutoQueryEncoder
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    directory = str(both[1].directory / "model")
    expected = SentenceTransformer(directory, device="cpu").encode(TEXTS)
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()
    inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states, mask = model(**inputs).last_hidden_state, inputs["attention_mask"].unsqueeze(-1)
    pooled = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1)).numpy()
    assert np.abs(pooled - expected).max() <= 1e-5
    settings = {"device": "cpu", "pooling": "mean", "l2_norm": True}
    documents = AutoDocumentEncoder(directory, **settings).encode(TEXTS, max_length=24)
    assert np.abs(documents - expected).max() <= 1e-5
    queries = AutoQueryEncoder(directory, **settings)
    assert np.abs(np.stack([queries.encode(text) for text in TEXTS[:3]]) - expected[:3]).max() <= 1e-5


def test_the_best_steps_weights_are_kept_with_their_projection(
    world: World, both: tuple[Trained, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores are made so that the second of four is the best; its checkpoint is what is kept."""
    saved: dict[int, dict[str, Any]] = {}
    save = Trainer._save_checkpoint

    def keep(self: Any, model: Any, trial: Any) -> None:
        save(self, model, trial)
        directory = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        saved[self.state.global_step] = {
            path.name: path.read_bytes() for path in directory.glob("*.safetensors")
        }

    scores = iter([0.2, 0.9, 0.4, 0.5])
    monkeypatch.setattr(Trainer, "_save_checkpoint", keep)
    monkeypatch.setattr(DevCollection, "score", lambda *_: {"ndcg@20": next(scores)})
    recipe = continued(world, both[0], dev=True, stage2={"steps": 8, "eval_steps": 2})
    done = train_stage2(recipe, world.job(tmp_path / "run"))
    assert done.manifest.best_step == 4
    assert done.manifest.scores == {"ndcg@20": 0.9}
    assert set(saved[4]) == {"model.safetensors", PROJECTION}
    assert (tmp_path / "run" / PROJECTION).read_bytes() == saved[4][PROJECTION] != saved[8][PROJECTION]
    kept = weights_of(tmp_path / "run" / "model")
    from safetensors.numpy import load

    best = load(saved[4]["model.safetensors"])
    assert best.keys() == kept.keys()
    assert all(np.array_equal(best[name], kept[name]) for name in best)


@pytest.mark.slow
def test_the_projection_is_carried_bit_for_bit(
    world: World, both: tuple[Trained, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.numpy import load_file

    began: list[dict[str, Any]] = []
    build = building.build_loss

    def seen(*args: Any) -> Any:
        loss, projections = build(*args)
        state = projections[PROJECTION].state_dict()
        began.append({name: tensor.detach().numpy().copy() for name, tensor in state.items()})
        return loss, projections

    monkeypatch.setattr(building, "build_loss", seen)
    train_stage2(continued(world, both[0]), world.job(tmp_path / "carried"))
    fresh = continued(world, both[0], stage2={"carry_projection": False})
    train_stage2(fresh, world.job(tmp_path / "fresh"))
    train_stage2(fresh.model_copy(update={"seed": 8}), world.job(tmp_path / "other seed"))
    stage1 = load_file(both[0].directory / PROJECTION)
    assert began[0].keys() == stage1.keys() == {"weight", "bias"}
    for name, tensor in stage1.items():
        assert began[0][name].tobytes() == tensor.tobytes()
        assert began[1][name].shape == tensor.shape
        assert not np.array_equal(began[1][name], tensor)
        assert not np.array_equal(began[1][name], began[2][name])
    assert not np.array_equal(load_file(tmp_path / "carried" / PROJECTION)["weight"], stage1["weight"])


def test_dev_scores_are_those_of_mimo_evaluate(
    world: World, both: tuple[Trained, Trained], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, index, run = str(both[1].directory / "model"), tmp_path / "index", tmp_path / "run.trec"
    quiet = ["--no-progress"]
    assert (
        main(["index", world.dev, "--encoder", model, "--output", str(index), "--device", "cpu", *quiet]) == 0
    )
    assert (
        main(["search", str(index), "--topics", world.dev, "--output", str(run), "--hits", "20", *quiet]) == 0
    )
    report = tmp_path / "report.json"
    judged = ["evaluate", str(run), "--qrels", world.dev, "--measures", "ndcg@20", "--json", str(report)]
    assert main(judged) == 0
    capsys.readouterr()
    (found,) = json.loads(report.read_text())["runs"].values()
    student = Encoder(model, EncoderOptions(device="cpu"))
    scores = DevCollection.load(world.dev).score(student)
    assert found["mean"]["ndcg@20"] == pytest.approx(scores["ndcg@20"], abs=1e-12)
    assert scores == pytest.approx(both[1].manifest.scores, abs=1e-4)


@pytest.mark.parametrize("objective", ["xlco", "infonce", "lakda"])
def test_a_baseline_needs_no_teacher(world: World, tmp_path: Path, objective: str) -> None:
    recipe = world.recipe(
        stage2={"objective": objective}, teacher={"checkpoint": str(tmp_path / "no teacher")}
    )
    done = train_stage2(recipe, world.job(tmp_path / "run", teacher_store=tmp_path / "store"))
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "run" / PROJECTION).exists()
    assert "teacher" not in done.manifest.identity
    assert sum(done.manifest.languages.values()) == 48
    assert weights_of(tmp_path / "run" / "model").keys() == weights_of(world.root / "student").keys()


@pytest.mark.slow
def test_a_seed_decides_the_weights(world: World, tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        train_stage1(world.recipe(seed=seed), world.job(tmp_path / name))
    assert same_weights(tmp_path / "one", tmp_path / "same")
    assert not same_weights(tmp_path / "one", tmp_path / "other")


def test_another_anchor_language(world: World, tmp_path: Path) -> None:
    tiny_training.write_table(tmp_path / "table", anchor="de", langs=("de", "ru"), count=60)
    recipe = world.recipe(table=str(tmp_path / "table"), stage2={"carry_projection": False})
    done = train_stage2(recipe, world.job(tmp_path / "run", teacher_store=tmp_path / "store"))
    assert done.manifest.identity["data"]["anchor"] == "de"
    assert set(done.manifest.languages) == {"de-ru", "ru-de"}


def test_collapse_stops_the_run_and_names_a_checkpoint_before_it(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(
        stage1={"steps": 20, "save_steps": 5, "warmup": 0.3, "collapse_similarity": 0.0, "collapse_steps": 4}
    )
    with pytest.raises(TrainingFailed) as caught:
        train_stage1(recipe, world.job(tmp_path / "run"))
    kept = tmp_path / "run" / "checkpoints" / "checkpoint-5"
    assert str(caught.value).startswith("step 10: the encoder has collapsed")
    assert str(caught.value).endswith(f"The last good checkpoint is {kept}")
    assert len(str(caught.value).splitlines()) == 1
    assert (kept / "model.safetensors").is_file()
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_loss_that_is_no_number(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, lambda loss, step: loss * (math.nan if step == 4 else 1.0))
    with pytest.raises(TrainingFailed, match=r"^step 4: the loss is nan: use a lower.*checkpoint-3$"):
        train_stage1(world.recipe(stage1={"save_steps": 3}), world.job(tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-3" / "complete").is_file()


def test_a_gradient_that_overflows(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss itself stays finite."""
    build, step = building.build_loss, iter(range(1, 1000))

    def built(*args: Any) -> Any:
        loss, projections = build(*args)
        bias = projections[PROJECTION].bias
        bias.register_hook(lambda grad: grad * (math.inf if next(step) == 2 else 1.0))
        return loss, projections

    monkeypatch.setattr(building, "build_loss", built)
    with pytest.raises(TrainingFailed, match=r"^step 2: a gradient has overflowed.*No checkpoint had been"):
        train_stage1(world.recipe(stage1={"save_steps": 3}), world.job(tmp_path / "run"))
    assert not list((tmp_path / "run" / "checkpoints").glob("checkpoint-*"))
    monkeypatch.undo()
    # Nothing was trained, so nothing has to be given up for other options.
    done = train_stage1(world.recipe(stage1={"learning_rate": 1e-4}), world.job(tmp_path / "run"))
    assert done.manifest.identity["options"]["learning_rate"] == 1e-4


def test_a_learning_rate_that_ruins_the_weights(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(stage1={"learning_rate": 1e39, "warmup": 0.0, "save_steps": 1})
    with pytest.raises(TrainingFailed, match=r"^step 1: a weight is NaN or infinite.*--learning-rate"):
        train_stage1(recipe, world.job(tmp_path / "run"))
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def poison(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Has the loss of each step changed, before the trainer looks at it."""
    build = building.build_loss

    def built(*args: Any) -> Any:
        loss, projections = build(*args)
        forward, step = loss.forward, iter(range(1, 1000))
        loss.forward = lambda *inputs: change(forward(*inputs), next(step))
        return loss, projections

    monkeypatch.setattr(building, "build_loss", built)


def test_bfloat16(world: World, tmp_path: Path) -> None:
    train_stage1(world.recipe(), world.job(tmp_path / "float32"))
    recipe = world.recipe(stage1={"precision": "bfloat16"})
    done = train_stage1(recipe, world.job(tmp_path / "bfloat16"))
    assert done.manifest.steps == 6
    exact, rough = weights(tmp_path / "float32"), weights(tmp_path / "bfloat16")
    assert all(tensor.dtype == np.float32 for tensor in rough.values())
    assert not same_weights(tmp_path / "float32", tmp_path / "bfloat16")
    assert max(np.abs(exact[name] - rough[name]).max() for name in exact) < 0.02


def test_auto_precision_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for has in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has: has)
        assert native_bfloat16("cpu") is has
        assert use_bfloat16(Precision.AUTO, "cpu") is has
    assert not use_bfloat16(Precision.AUTO, "mps")
    assert use_bfloat16(Precision.BFLOAT16, "mps")
    assert not use_bfloat16(Precision.FLOAT32, "cuda")


def test_no_progress_is_silent(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train_stage1(world.recipe(dev=True), world.job(tmp_path / "run"))
    found = capfd.readouterr()
    assert found.out == ""
    assert "it/s" not in found.err
    assert "Writing" not in found.err


def test_the_bar_shows_the_parts(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = world.recipe(stage2={"carry_projection": False})
    train_stage2(recipe, world.job(tmp_path / "run", progress=True))
    said = capfd.readouterr().err
    assert "stage2: 100%" in said
    assert "contrastive=" in said
    assert "distillation=" in said
    assert "Writing" not in said
