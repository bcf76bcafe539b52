"""What a checkpoint's files say and leave out shows when it is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import TEXTS, plain_decoder, plain_xlmr, sentence_transformer
from helpers.logs import logs_a_warning, warnings_logged
from helpers.training_runs import finished
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch.utils._python_dispatch import TorchDispatchMode

from mimo_plugin.core.errors import ModelError
from mimo_plugin.encoder import backend as check
from mimo_plugin.encoder import checkpoint as checkpoint_files
from mimo_plugin.encoder import fingerprint
from mimo_plugin.encoder.batching import Features, TorchRunner
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.encoder.side import TorchSide

LONG = "word " * 400


def load(path: Path, **options: object) -> Encoder:
    return Encoder(str(path), EncoderOptions(device="cpu", **options))  # type: ignore[arg-type]


def unlimited(path: Path) -> Path:
    """Takes the limit out of a tokenizer's files, and of sentence-transformers'."""
    for name in ("tokenizer_config.json", "sentence_bert_config.json"):
        if (path / name).is_file():
            config = json.loads((path / name).read_text())
            for key in ("model_max_length", "max_seq_length"):
                config.pop(key, None)
            (path / name).write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_xlmr(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def copy(plain: Path, tmp_path: Path) -> Path:
    return shutil.copytree(plain, tmp_path / "copy")


def test_a_training_run_stands_for_its_model(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    student = load(run)
    assert student.name == str(run / "model")
    assert student.fingerprint == load(run / "model").fingerprint
    (run / "manifest.json").unlink()
    with pytest.raises(ModelError, match="expected a .*, or a finished training run"):
        load(run)


def test_more_tokens_than_positions_are_cut(copy: Path, plain: Path) -> None:
    with logs_a_warning("copy allows 66 tokens and has positions for 64: texts are cut to 64"):
        student = load(unlimited(copy))
    assert student.max_length == 64
    assert np.array_equal(student.encode_documents([LONG]), load(plain).encode_documents([LONG]))
    with warnings_logged() as warnings:
        assert load(copy, max_length=32).max_length == 32
    assert warnings == []


@pytest.mark.parametrize("kind", ["MPNet", "Camembert", "Roberta", "Bert", "DistilBert"])
def test_positions_of_every_kind(kind: str, copy: Path) -> None:
    import transformers

    shapes = (
        {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}
        if kind == "DistilBert"
        else {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    )
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=400, max_position_embeddings=40, pad_token_id=1, **shapes
    )
    getattr(transformers, f"{kind}Model")(config).save_pretrained(copy)
    student = load(unlimited(copy))
    assert student.max_length == (40 if "Bert" in kind else 38)
    assert np.isfinite(student.encode_documents([LONG])).all()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_no_limit_at_all(copy: Path, backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from transformers import T5Config, T5EncoderModel

    monkeypatch.delenv("MIMO_BACKEND")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    config = T5Config(vocab_size=400, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(copy)
    with logs_a_warning("copy sets no limit to a text's length: texts are cut to 512 tokens"):
        student = load(unlimited(copy), backend=backend)
    assert student.max_length == 512
    assert student.encode_documents([LONG * 4, ""]).shape == (2, 32)
    assert load(copy, max_length=700).max_length == 700


def test_no_padding_token(tmp_path: Path) -> None:
    with logs_a_warning("m has no padding token: '</s>' is used for padding"):
        student = load(plain_decoder(tmp_path / "m"))
    together = student.encode_documents(TEXTS)
    alone = np.concatenate([student.encode_documents([text]) for text in TEXTS])
    assert np.abs(together - alone).max() <= 1e-5


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["mean", "lasttoken", "cls"])
def test_texts_without_tokens(tmp_path: Path, side: str, pooling: str) -> None:
    path = plain_decoder(tmp_path / "m", pad_token="</s>", padding_side=side)
    student = load(path, pooling=pooling, batch_size=2)
    nothing = student.encode_queries([""])
    assert nothing.shape == (1, 32)
    mixed = student.encode_documents(["", *TEXTS, ""])
    assert np.abs(mixed[[0, -1]] - nothing).max() <= 1e-6
    alone = np.concatenate([student.encode_documents([text]) for text in TEXTS])
    assert np.abs(mixed[1:-1] - alone).max() <= 1e-5
    if pooling != "cls":
        expected = student.model.encode(["", TEXTS[0]], convert_to_numpy=True)
        assert np.abs(mixed[:2] - expected).max() <= 1e-5


def adapter(path: Path) -> str:
    (path / "model.safetensors").unlink()
    (path / "config.json").unlink()
    (path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "some/base"})
    )
    return r"copy is a LORA adapter of some/base and no whole checkpoint: merge it .*merge_and_unload\(\)"


def pickled(path: Path) -> str:
    (path / "model.safetensors").unlink()
    torch.save({}, path / "pytorch_model.bin")
    return r"no \*.safetensors file but pytorch_model.bin, .* AutoModel.from_pretrained\(.*\).save_pretrained"


def own_code(path: Path) -> str:
    config = json.loads((path / "config.json").read_text())
    changes = {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}
    (path / "config.json").write_text(json.dumps({**config, **changes}))
    (path / "own.py").write_text("raise SystemExit('this ran')")
    return r"copy needs program code that comes with it \(own.py\), which is never run"


def few_embeddings(path: Path) -> str:
    weights = load_file(path / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file({**weights, name: weights[name][:5].clone()}, path / "model.safetensors", {"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "vocab_size": 5}))
    return "copy cannot encode one word: IndexError: .* fetch or save it again"


def not_a_number(path: Path) -> str:
    weights = load_file(path / "model.safetensors")
    name = "embeddings.LayerNorm.weight"
    save_file({**weights, name: weights[name] * np.nan}, path / "model.safetensors", {"format": "pt"})
    return "copy gives NaN or infinity for one word: the checkpoint is broken"


@pytest.mark.parametrize("spoil", [adapter, pickled, own_code, few_embeddings, not_a_number])
def test_what_cannot_be_used_is_named_with_a_remedy(copy: Path, spoil: Callable[[Path], str]) -> None:
    message = spoil(copy)
    with pytest.raises(ModelError, match=message) as caught:
        load(copy)
    assert "trust_remote_code" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_static_embeddings_are_read_whole(plain: Path, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from transformers import AutoTokenizer

    table = StaticEmbedding(AutoTokenizer.from_pretrained(plain).backend_tokenizer, embedding_dim=8)
    model = SentenceTransformer(modules=[table], device="cpu")
    model.save_pretrained(str(tmp_path / "m"))
    texts = ["haku " * 900, "", "Suche"]
    found = load(tmp_path / "m").encode_documents(texts)
    assert found == pytest.approx(model.encode(texts), abs=1e-6)


class Counting:
    """torch, and how many tokens it was given."""

    name, workers, tokens = "torch", 1, 512

    def __init__(self, student: Encoder) -> None:
        self._runner = TorchRunner(student.model)
        self.seen: list[tuple[int, int]] = []

    def run(self, features: Features) -> np.ndarray:
        self.seen.append(tuple(features["input_ids"].shape))
        return self._runner.run(features)


@pytest.mark.slow
def test_looking_at_a_checkpoint_costs_little_whatever_its_length(tmp_path: Path) -> None:
    """Of 32,768 tokens the probe and the comparison of a graph encode a few hundred."""
    student = load(plain_decoder(tmp_path / "m", positions=32_768, pad_token="</s>"))
    assert student.max_length == 32_768
    runner = Counting(student)
    check.compare(TorchSide(student.model), runner)
    assert max(tokens for _, tokens in runner.seen) == 512
    for work, at_most in ((10**7, 600), (10**6, 100)):
        runner.seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(check, "WORK", work)
            patch.setattr(checkpoint_files, "_PROBE_WORK", work)
            check.compare(TorchSide(student.model), runner)
            checkpoint_files.probe(TorchSide(student.model, runner), "m")
        assert sum(texts * tokens for texts, tokens in runner.seen) <= 5 * at_most
    assert student.max_length == 32_768


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
def test_the_fingerprint_is_of_the_files_values(plain: Path, copy: Path, stored: str, dtype: str) -> None:
    weights = {
        name: tensor.to(getattr(torch, stored)) if tensor.is_floating_point() else tensor
        for name, tensor in load_file(plain / "model.safetensors").items()
    }
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    path = sentence_transformer(copy.with_name("st"), plain)
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    for place in (copy, path):
        student = load(place, dtype=dtype)
        assert student.fingerprint == load(place).fingerprint
        assert {parameter.dtype for parameter in student.model.parameters()} == {getattr(torch, dtype)}


def test_weights_under_other_names_are_looked_up_too(copy: Path) -> None:
    """The library renames them while it loads; then only its own way of loading tells which is which."""
    expected = load(copy).fingerprint
    weights = load_file(copy / "model.safetensors")
    renamed = {
        f"roberta.{name}".replace("LayerNorm.weight", "LayerNorm.gamma"): tensor
        for name, tensor in weights.items()
    }
    save_file(renamed, copy / "model.safetensors", {"format": "pt"})
    assert load(copy, dtype="bfloat16").fingerprint == load(copy).fingerprint == expected


def test_no_weight_is_ever_held_in_float32(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = load_file(copy / "model.safetensors")
    save_file(
        {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()},
        copy / "model.safetensors",
        {"format": "pt"},
    )
    monkeypatch.setattr(fingerprint, "_AT_ONCE", 1000)
    largest = weights["embeddings.word_embeddings.weight"].numel()

    class Watch(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            for one in result if isinstance(result, tuple | list) else [result]:
                if isinstance(one, torch.Tensor) and one.dtype == torch.float32 and not one.is_meta:
                    self.most = max(self.most, one.numel())
            return result

    made: list[torch.dtype] = []
    init = SentenceTransformer.__init__

    def noted(self: SentenceTransformer, *args: object, **kwargs: object) -> None:
        init(self, *args, **kwargs)
        made.extend(parameter.dtype for parameter in self.parameters())

    monkeypatch.setattr(SentenceTransformer, "__init__", noted)
    with Watch() as watch:
        student = load(copy, dtype="bfloat16", max_length=8)
    assert set(made) == {torch.bfloat16}
    assert 0 < watch.most < largest // 2
    monkeypatch.undo()
    with Watch() as watch:
        assert fingerprint.fingerprint(student.model) == student.fingerprint
    assert watch.most >= largest
