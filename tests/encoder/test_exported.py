"""An encoder that ran as a graph before runs again without torch, with the same vectors."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import TEXTS, plain_xlmr, sentence_transformer
from helpers.logs import logs_a_warning

from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.side import GraphSide, TorchSide

# What a second encoder of the same checkpoint must not import.
HEAVY = {"torch", "transformers", "sentence_transformers", "datasets", "sklearn", "scipy", "pandas"}

SECOND = """
import sys
import numpy as np
from mimo_plugin.encoder.encoder import Encoder

encoder = Encoder(sys.argv[1], backend=sys.argv[2], device="cpu")
texts = sys.argv[4:]
np.savez(
    sys.argv[3],
    documents=encoder.encode_documents([*texts, (texts[0], texts[1]), ""]),
    queries=encoder.encode_queries(texts, max_length=5),
    facts=[encoder.fingerprint, encoder.dimension, encoder.max_length, encoder.pooling, encoder.normalizes],
    prompts=encoder.prompts,
)
print(*sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", "openvino", "onnx"])
def test_the_second_time_without_torch(
    tiny: Path, tmp_path: Path, backend: str, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIMO_BACKEND", "")
    monkeypatch.setenv("HOME", str(caches.parents[1]))
    first = Encoder(str(tiny), backend=backend, device="cpu")
    command = [sys.executable, "-c", SECOND, str(tiny), backend, str(tmp_path / "found.npz"), *TEXTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())
    with np.load(tmp_path / "found.npz") as found:
        documents = first.encode_documents([*TEXTS, (TEXTS[0], TEXTS[1]), ""])
        assert found["documents"].tobytes() == documents.tobytes()
        assert found["queries"].tobytes() == first.encode_queries(TEXTS, max_length=5).tobytes()
        facts = [first.fingerprint, first.dimension, first.max_length, first.pooling, first.normalizes]
        assert found["facts"].tolist() == list(map(str, facts))
        assert tuple(found["prompts"]) == first.prompts


@pytest.mark.slow
def test_other_files_are_another_encoder(tmp_path: Path) -> None:
    path = sentence_transformer(tmp_path / "st", plain_xlmr(tmp_path / "plain", seed=5))
    first = Encoder(str(path), backend="openvino")
    again = Encoder(str(path), backend="openvino")
    assert isinstance(again._documents, GraphSide)
    assert again.model.get_embedding_dimension() == first.dimension
    other = Encoder(str(path), backend="openvino", pooling="cls")
    assert not isinstance(other._documents, GraphSide)
    config = json.loads((path / "config_sentence_transformers.json").read_text())
    prompts = {"query": "ask: ", "document": ""}
    (path / "config_sentence_transformers.json").write_text(json.dumps({**config, "prompts": prompts}))
    changed = Encoder(str(path), backend="openvino")
    assert not isinstance(changed._documents, GraphSide)
    assert changed.query_prompt == "ask: "


@pytest.mark.slow
def test_what_the_first_load_warns_of_the_second_does_too(tmp_path: Path) -> None:
    path = plain_xlmr(tmp_path / "plain", seed=6)
    config = json.loads((path / "tokenizer_config.json").read_text())
    del config["model_max_length"]
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    for kind in (TorchSide, GraphSide):
        with logs_a_warning("plain allows 66 tokens and has positions for 64"):
            assert isinstance(Encoder(str(path), backend="openvino")._documents, kind)


@pytest.mark.slow
def test_a_tokenizer_that_does_not_decide_alone_needs_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where sentence-transformers changes a text before the tokenizer sees it."""
    path = sentence_transformer(tmp_path / "st", plain_xlmr(tmp_path / "plain", seed=7))
    alone = GraphSide.tokenise
    monkeypatch.setattr(
        GraphSide,
        "tokenise",
        lambda side, texts, prompt, task: alone(side, texts, prompt.upper(), task),
    )
    for _ in range(2):
        encoder = Encoder(str(path), backend="openvino")
        assert isinstance(encoder._documents, TorchSide)


@pytest.mark.slow
def test_damaged_facts_are_found_out_again(tmp_path: Path, caches: Path) -> None:
    path = sentence_transformer(tmp_path / "st", plain_xlmr(tmp_path / "plain", seed=8))
    before = set((caches.parent / "encoders").glob("[!.]*"))
    first = Encoder(str(path), backend="openvino").encode_documents(TEXTS)
    directories = set((caches.parent / "encoders").glob("[!.]*")) - before
    assert directories
    for name in ("tokenizer.json", "facts.json"):
        for directory in directories:
            (directory / name).write_text("{}")
        encoder = Encoder(str(path), backend="openvino")
        assert isinstance(encoder._documents, TorchSide)
        assert np.array_equal(encoder.encode_documents(TEXTS), first)
        assert isinstance(Encoder(str(path), backend="openvino")._documents, GraphSide)
