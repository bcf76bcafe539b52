"""Students and teachers in the layouts that real checkpoints have: trained rightly, or refused early."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.checkpoints import plain_xlmr
from helpers.tiny_training import World, train_both

from mimo_plugin.core.errors import ArtifactError, ModelError, UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.evaluation.trained_on import FILE, SeenTexts
from mimo_plugin.training import teacher as teacher_fill
from mimo_plugin.training.models import StudentOptions
from mimo_plugin.training.recipe import Recipe
from mimo_plugin.training.run import PROJECTION
from mimo_plugin.training.stages import train_stage1, train_stage2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"), dropout=0.0)


def checkpoint(directory: Path, *more: Any, pooling: str | None = "mean", **options: Any) -> str:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    modules: list[Any] = [Transformer(str(plain_xlmr(directory / "plain")), max_seq_length=48)]
    if pooling is not None:
        modules.append(Pooling(32, pooling_mode=pooling))
    model = SentenceTransformer(modules=[*modules, *more], device="cpu", **options)
    model.save_pretrained(str(directory / "model"))
    return str(directory / "model")


def recipe_of(world: World, student: str, **stage2: Any) -> Recipe:
    options = {"carry_projection": False, "steps": 2, **stage2}
    return world.recipe(student={"checkpoint": student}, stage2=options)


def dense(activation: bool = True) -> Any:
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    torch.manual_seed(2)
    return Dense(32, 24, activation_function=torch.nn.Tanh() if activation else torch.nn.Identity())


@pytest.mark.parametrize("reads", ["raw", "normalized"])
def test_a_truncated_student_learns_by_what_is_left_of_its_vectors(
    world: World, tmp_path: Path, reads: str
) -> None:
    import torch
    from safetensors.numpy import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize

    from mimo_plugin.training.losses import build_loss
    from mimo_plugin.training.recipe import Stage1Options
    from mimo_plugin.training.student import load_or_create

    student = checkpoint(tmp_path, Normalize(), truncate_dim=12)
    model = load_or_create(student, (), seed=1, device="cpu")
    loss, projections = build_loss(model, Stage1Options(projection_input=reads), [16], {})
    texts, teacher = ["ein kurzer satz", "many engine"], torch.randn(2, 16)
    value = loss([model.preprocess(texts)], teacher).detach()
    with torch.no_grad():
        features = model.preprocess(texts)
        for module in list(model)[:-1]:
            features = module(features)
        vectors = features["sentence_embedding"][:, :12]
        if reads == "normalized":
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        expected = 1 - torch.nn.functional.cosine_similarity(projections[PROJECTION](vectors), teacher).mean()
    assert float(value) == pytest.approx(float(expected), abs=1e-6)

    done = train_stage2(recipe_of(world, student, projection_input=reads), world.job(tmp_path / "run"))
    assert load_file(done.directory / PROJECTION)["weight"].shape == (16, 12)
    trained = SentenceTransformer(str(done.directory / "model"), device="cpu")
    assert trained.truncate_dim == 12
    assert trained.encode(["ein satz"]).shape == (1, 12)
    card = (done.directory / "model" / "README.md").read_text()
    assert "encoder-class auto" not in card
    assert "vectors cut to 12 dimensions" in card


@pytest.mark.parametrize("normalize", [True, False])
def test_a_dense_layer_is_trained_and_its_card_promises_nothing(
    world: World, tmp_path: Path, normalize: bool
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize

    student = checkpoint(tmp_path, dense(), *([Normalize()] if normalize else []))
    done = train_stage2(recipe_of(world, student), world.job(tmp_path / "run"))
    before, after = (
        SentenceTransformer(name, device="cpu") for name in (student, str(done.directory / "model"))
    )
    assert [type(module).__name__ for module in after] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert not np.array_equal(before[2].linear.weight.detach(), after[2].linear.weight.detach())
    card = (done.directory / "model" / "README.md").read_text()
    assert "encoder-class auto" not in card
    assert "its Dense module" in card


@pytest.mark.parametrize(("pooling", "normalize"), [("cls", True), ("mean", True), ("lasttoken", True)])
def test_what_a_card_says_of_stock_pyserini_holds(
    world: World, tmp_path: Path, pooling: str, normalize: bool
) -> None:
    import mimo_plugin

    options = {"student": {"checkpoint": str(world.root / "student"), "pooling": pooling}}
    recipe = world.recipe(**options, stage2={"carry_projection": False, "steps": 2})
    done = train_stage2(recipe, world.job(tmp_path / "run"))
    model = done.directory / "model"
    student = Encoder(str(model), EncoderOptions(device="cpu"))
    assert student.pooling == pooling
    card = (model / "README.md").read_text()
    assert (f"--encoder-class auto --pooling {pooling} --l2-norm" in card) == (pooling != "lasttoken")
    mimo_plugin.register()
    from pyserini.encode import AutoDocumentEncoder, AutoQueryEncoder

    if pooling != "lasttoken":
        texts = ["ein kurzer satz", "many short engine viele hak"]
        settings = {"device": "cpu", "pooling": pooling, "l2_norm": True}
        documents = AutoDocumentEncoder(str(model), **settings).encode(texts, max_length=48)
        assert np.abs(documents - student.encode_documents(texts)).max() < 1e-5
        query = AutoQueryEncoder(str(model), **settings).encode(texts[1])
        assert np.abs(query - student.encode_queries(texts[1:])[0]).max() < 1e-5


def test_prompts_of_the_student_are_trained_with_and_saved(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mimo_plugin.training import trainer

    trained_with: list[Any] = []
    arguments = trainer._arguments

    def seen(*args: Any) -> Any:
        made = arguments(*args)
        trained_with.append(made.prompts)
        return made

    monkeypatch.setattr(trainer, "_arguments", seen)
    asked = {"checkpoint": str(world.root / "student"), "query_prompt": "frage: ", "document_prompt": ""}
    first = train_stage1(world.recipe(student=asked), world.job(tmp_path / "first"))
    changes = {"student": {"checkpoint": str(first.directory)}, "stage2": {"steps": 1}}
    second = train_stage2(world.recipe(**changes), world.job(tmp_path / "second"))
    # Texts of stage 1 are neither queries nor documents.
    assert trained_with == [None, {"query": "frage: "}]
    for done in (first, second):
        config = (done.directory / "model" / "config_sentence_transformers.json").read_text()
        assert json.loads(config)["prompts"] == {"query": "frage: ", "document": ""}
        student = Encoder(str(done.directory / "model"), EncoderOptions(device="cpu"))
        assert (student.query_prompt, student.document_prompt) == ("frage: ", "")
        assert "encoder-class auto" not in (done.directory / "model" / "README.md").read_text()


def router(directory: Path) -> str:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    sides = {
        name: [Transformer(str(plain_xlmr(directory / name, seed=seed))), Pooling(32, "mean")]
        for seed, name in enumerate(("query", "document"))
    }
    routed = Router.for_query_document(query_modules=sides["query"], document_modules=sides["document"])
    SentenceTransformer(modules=[routed], device="cpu").save_pretrained(str(directory / "model"))
    return str(directory / "model")


@pytest.mark.parametrize("kind", ["router", "no pooling", "adapter"])
def test_a_student_that_cannot_be_trained_is_refused_before_the_teacher_runs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(teacher_fill, "fill", lambda *_, **__: pytest.fail("the teacher was met"))
    if kind == "router":
        student, reason = router(tmp_path), "two encoders, one of queries and one of documents"
    elif kind == "no pooling":
        student, reason = checkpoint(tmp_path, pooling=None), "without pooling"
    else:
        student, reason = str(tmp_path / "adapter"), "adapter"
        Path(student).mkdir()
        config = {"peft_type": "LORA", "base_model_name_or_path": "nobody/base"}
        (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
        (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError) as caught:
        train_stage2(recipe_of(world, student), world.job(tmp_path / "run"))
    assert student in str(caught.value)
    assert reason in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_router_is_no_teacher(world: World, tmp_path: Path) -> None:
    teacher = router(tmp_path)
    recipe = world.recipe(teacher={"checkpoint": teacher}, stage2={"carry_projection": False})
    with pytest.raises(ModelError, match=r"different modules \(Router\): a teacher must be one encoder"):
        train_stage2(recipe, world.job(tmp_path / "run", teacher_store=tmp_path / "store"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_student_knows_what_it_was_trained_on(world: World, tmp_path: Path) -> None:
    first = train_stage1(world.recipe(), world.job(tmp_path / "first"))
    changes = {"student": {"checkpoint": str(first.directory)}, "stage2": {"steps": 1}}
    second = train_stage2(world.recipe(**changes), world.job(tmp_path / "second"))
    again = train_stage2(world.recipe(stage2={"carry_projection": False}), world.job(tmp_path / "alone"))
    from mimo_plugin.training.start import DevCollection

    dev = DevCollection.load(world.dev)
    queries = [text for _, text in dev.queries]
    found = [SeenTexts.open(str(done.directory / "model")) for done in (first, second, again)]
    # Pairs hold the queries of this dev collection, the table all of it but every third Russian row.
    assert [seen and seen.count(queries) for seen in found] == [72, 72, 64]
    assert [seen and seen.count(dev.texts) for seen in found] == [0, 64, 64]
    assert [seen.training_data.count("(") if seen else 0 for seen in found] == [1, 2, 1]
    assert second.manifest.training_texts == f"model/{FILE}"
    assert f"model/{FILE}" in second.manifest.files
    assert FILE in (second.directory / "model" / "README.md").read_text()


def test_options_at_what_held_before_are_left_out_of_identities() -> None:
    """So that runs and experiments of earlier versions are found again."""
    recipe = Recipe.model_validate({"stage1": {"projection_input": "normalized"}})
    new = {"projection_input", "gradient_accumulation_steps", "gradient_checkpointing", "pooling"}
    new |= {"document_prompt", "compute_dtype", "attention"}
    assert not new & recipe.stage1.identity().keys()
    assert recipe.student.identity().keys() == {"checkpoint", "vocabulary"}
    old = {"checkpoint", "query_prompt", "passage_prompt", "max_length", "dtype"}
    assert recipe.teacher.identity().keys() == old
    assert StudentOptions(query_prompt="").identity()["query_prompt"] == ""
    changed = Recipe.model_validate({"stage1": {"projection_input": "raw"}, "teacher": {"batch_size": 4}})
    assert changed.stage1.identity()["projection_input"] == "raw"
    assert changed.teacher.identity().keys() == old
    assert changed.teacher.on("cpu", 64).batch_size == 4


def test_a_recipe_that_is_written_is_the_same_when_read(tmp_path: Path) -> None:
    changes = {"projection_input": "normalized", "gradient_accumulation_steps": 2}
    recipe = Recipe.model_validate({"stage1": changes, "report_to": "wandb", "student": {"pooling": "cls"}})
    recipe.write(tmp_path / "recipe.yaml")
    assert Recipe.read(tmp_path / "recipe.yaml") == recipe


def test_a_run_of_an_earlier_version_is_told_from_one_with_other_vectors(
    world: World, tmp_path: Path
) -> None:
    """It had no choice of what the projection reads, and did not say so."""
    asked = world.recipe(stage1={"steps": 1, "projection_input": "normalized"})
    train_stage1(asked, world.job(tmp_path / "run"))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert "projection_input" not in manifest["identity"]["options"]
    assert train_stage1(asked, world.job(tmp_path / "run")).already
    with pytest.raises(ArtifactError, match="projection_input is 'raw', there it is 'normalized'"):
        train_stage1(world.recipe(stage1={"steps": 1}), world.job(tmp_path / "run"))


def test_both_stages_must_read_the_same(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(stage1={"projection_input": "raw"}, stage2={"projection_input": "normalized"})
    with pytest.raises(UsageError, match="stage2.projection_input is normalized, stage 1 trains"):
        train_both(recipe, world.job(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
