"""What is saved loads everywhere with the same vectors, and says what it is."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.checkpoints import TEXTS, plain_xlmr, sentence_transformer

import mimo_plugin
from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem, ModelError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.fingerprint import fingerprint
from mimo_plugin.training.record import ModelCard, save_student
from mimo_plugin.training.student import create_student, load_or_create

LONG = "Ein langer Satz über Suchmaschinen " * 20
TEXTS_AND_LONG = [*TEXTS, LONG, "😀 <0x41>"]

CARD = ModelCard(
    recipe={
        "stage": "stage2",
        "seed": 7,
        "student": {"checkpoint": "FacebookAI/xlm-roberta-base", "vocabulary": None, "fingerprint": "ab12"},
        "teacher": {"checkpoint": "packaged:all-MiniLM-L6-v2", "query_prompt": None},
        "data": {"path": "/home/someone/table", "anchor": "en", "fingerprint": "cd34"},
        "dev": "path:/home/someone/dev",
        "options": {"objective": "mimo", "contrastive_weight": 0.2, "learning_rate": 2e-05},
    },
    data={"name": "table", "rows": 120, "languages": {"en": 120, "de": 90}, "source": {"a|b": "c"}},
    scores={"ndcg@20": 0.61234, "alignment": 0.3},
    environment={"versions": {"torch": "2.13.0"}, "git_commit": None},
)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved") / "fresh"
    labelled = [("", text) for text in TEXTS]
    save_student(
        create_student("tiny", labelled, vocab_size=500, max_length=24, seed=1), directory, card=CARD
    )
    return directory


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Hugging Face checkpoint as it comes out of training with a shorter length."""
    directory = tmp_path_factory.mktemp("saved") / "trained"
    base = plain_xlmr(tmp_path_factory.mktemp("base"))
    save_student(load_or_create(str(base), (), seed=1, max_length=24, device="cpu"), directory)
    return directory


@pytest.mark.parametrize("name", ["fresh", "trained"])
def test_three_loaders_agree(name: str, request: pytest.FixtureRequest) -> None:
    import torch

    mimo_plugin.register()  # starts a JVM that Pyserini can use
    from pyserini.encode import AutoDocumentEncoder, AutoQueryEncoder
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    directory = str(request.getfixturevalue(name))
    expected = SentenceTransformer(directory, device="cpu").encode(TEXTS_AND_LONG)
    assert np.abs(np.linalg.norm(expected, axis=1) - 1).max() <= 1e-5
    assert np.abs(Encoder(directory).encode_documents(TEXTS_AND_LONG) - expected).max() <= 1e-5

    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()
    inputs = tokenizer(TEXTS_AND_LONG, padding=True, truncation=True, return_tensors="pt")
    assert inputs["input_ids"].shape[1] == 24
    with torch.no_grad():
        states, mask = model(**inputs).last_hidden_state, inputs["attention_mask"].unsqueeze(-1)
    pooled = (states * mask).sum(1) / mask.sum(1)
    assert np.abs(torch.nn.functional.normalize(pooled).numpy() - expected).max() <= 1e-5

    settings = {"device": "cpu", "pooling": "mean", "l2_norm": True}
    documents = AutoDocumentEncoder(directory, **settings).encode(TEXTS_AND_LONG, max_length=24)
    assert np.abs(documents - expected).max() <= 1e-5
    queries = AutoQueryEncoder(directory, **settings)
    for text, vector in zip(TEXTS_AND_LONG, expected, strict=True):
        assert np.abs(queries.encode(text) - vector).max() <= 1e-5


def test_the_files(fresh: Path) -> None:
    names = {path.relative_to(fresh).as_posix() for path in fresh.rglob("*") if path.is_file()}
    assert {"model.safetensors", "modules.json", "config.json", "tokenizer.json", "README.md"} <= names
    assert {Path(name).suffix for name in names} <= {".safetensors", ".json", ".md"}
    modes = {path.stat().st_mode for path in fresh.rglob("*") if path.is_file()}
    assert len(modes) == 1
    assert list(fresh.parent.iterdir()) == [fresh]


def test_nothing_is_lost(tmp_path: Path) -> None:
    base = plain_xlmr(tmp_path / "base")
    prompts = {"query": "query: ", "document": "passage: "}
    own = sentence_transformer(tmp_path / "own", base, pooling="cls", prompts=prompts, max_length=20)
    model = load_or_create(str(own), (), seed=1, device="cpu")
    save_student(model, tmp_path / "saved")
    saved = Encoder(str(tmp_path / "saved"))
    assert (saved.pooling, saved.normalizes, saved.max_length) == ("cls", True, 20)
    assert (saved.query_prompt, saved.document_prompt) == ("query: ", "passage: ")
    assert saved.fingerprint == fingerprint(model)
    # Stock Pyserini's command would need the prompts: the card does not offer it.
    assert "pyserini.encode" not in (tmp_path / "saved" / "README.md").read_text()


def test_the_card_says_what_is_known(fresh: Path) -> None:
    text = (fresh / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["language"] == ["de", "en"]
    assert head["base_model"] == "FacebookAI/xlm-roberta-base"
    for said in (
        "# fresh",
        "Base: `FacebookAI/xlm-roberta-base`",
        "Teacher: `sentence-transformers/all-MiniLM-L6-v2`",
        "128 dimensions, mean pooling, L2-normalised, at most 24 tokens",
        "| languages | en 120, de 90 |",
        "| source.a\\|b | c |",
        "| seed | 7 |",
        "| options.contrastive_weight | 0.2 |",
        "On `dev`, which also chose the checkpoint.",
        "| ndcg@20 | 0.6123 |",
        "| versions.torch | 2.13.0 |",
        "--encoder-class auto --pooling mean --l2-norm",
        "## Limits",
    ):
        assert said in text, said
    assert "/home" not in text
    assert "None" not in text.replace("cache=None", "")


def test_a_card_of_nothing(trained: Path) -> None:
    text = (trained / "README.md").read_text(encoding="utf-8")
    assert "32 dimensions" in text
    assert "## Recipe" not in text
    assert "## Scores" not in text
    assert "base_model" not in text


def test_a_checkpoint_is_replaced_and_nothing_else(trained: Path, tmp_path: Path) -> None:
    model = load_or_create(str(trained), (), seed=1, device="cpu")
    target = tmp_path / "model"
    save_student(model, target)
    (target / "left.over").write_text("x")
    save_student(model, target)
    assert not (target / "left.over").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.tex").write_text("x")
    with pytest.raises(ArtifactError, match=r"thesis holds something else \(chapter.tex\)"):
        save_student(model, foreign)
    with pytest.raises(ArtifactError, match="is a file"):
        save_student(model, foreign / "chapter.tex")
    assert (foreign / "chapter.tex").read_text() == "x"


def test_broken_weights_do_not_replace_good_ones(trained: Path, tmp_path: Path) -> None:
    import torch

    model = load_or_create(str(trained), (), seed=1, device="cpu")
    save_student(model, tmp_path / "model")
    before = Encoder(str(tmp_path / "model")).fingerprint
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("nan")
    with pytest.raises(ModelError, match="weights 0.model.embeddings.* hold NaN or infinity"):
        save_student(model, tmp_path / "model")
    assert Encoder(str(tmp_path / "model")).fingerprint == before


def test_a_place_that_cannot_be_written(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentProblem, match="cannot write .*model"):
        save_student(load_or_create(str(trained), (), seed=1, device="cpu"), tmp_path / "file" / "model")


def test_importing_loads_no_torch() -> None:
    program = (
        "import sys, mimo_plugin.training.record, mimo_plugin.training.student, "
        "mimo_plugin.training.teacher\n"
        "sys.exit(', '.join({'torch', 'transformers', 'sentencepiece'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
