"""Exported graphs give torch's vectors, or are not used."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import TEXTS, plain_xlmr, sentence_transformer
from helpers.logs import logs_a_warning, warnings_logged
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import EnvironmentProblem, MimoError, ModelError, UsageError
from mimo_plugin.encoder import backend as check
from mimo_plugin.encoder import backend as choosing
from mimo_plugin.encoder import export as cache
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.export import NotExportable
from mimo_plugin.encoder.options import EncoderOptions

GRAPHS = ["openvino", "onnx"]


def load(path: Path, backend: str = "torch", **options: object) -> Encoder:
    options = {"backend": backend, "device": "cpu", "dtype": "float32", **options}
    return Encoder(str(path), EncoderOptions(**options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def students(tiny: Path) -> dict[str, Encoder]:
    return {backend: load(tiny, backend, batch_size=4) for backend in ("torch", *GRAPHS)}


@pytest.mark.slow
@pytest.mark.parametrize("backend", GRAPHS)
def test_backend_is_said(students: dict[str, Encoder], backend: str) -> None:
    assert students[backend].backend == backend
    assert students["torch"].backend == "torch"


@pytest.mark.threads
@settings(max_examples=12)
@given(
    texts=st.lists(st.text(max_size=200), min_size=1, max_size=12),
    max_length=st.sampled_from([None, 3, 17, 64]),
    as_queries=st.booleans(),
)
@pytest.mark.parametrize("backend", GRAPHS)
def test_vectors_are_torchs(
    students: dict[str, Encoder], backend: str, texts: list[str], max_length: int | None, as_queries: bool
) -> None:
    both = [
        (one.encode_queries if as_queries else one.encode_documents)(texts, max_length=max_length)
        for one in (students["torch"], students[backend])
    ]
    assert both[1].dtype == np.float32
    assert np.abs(both[0] - both[1]).max() <= 1e-5


@pytest.mark.threads
@pytest.mark.parametrize("backend", GRAPHS)
def test_pairs_and_padding(students: dict[str, Encoder], backend: str) -> None:
    pairs = [(title, text) for title in TEXTS for text in TEXTS]
    difference = students["torch"].encode_documents(pairs) - students[backend].encode_documents(pairs)
    assert np.abs(difference).max() <= 1e-5


@pytest.mark.threads
@pytest.mark.parametrize("backend", GRAPHS)
def test_same_texts_same_bytes(students: dict[str, Encoder], backend: str) -> None:
    texts = [f"{text} {number}" for number in range(10) for text in TEXTS]
    first = students[backend].encode_documents(texts)
    assert first.tobytes() == students[backend].encode_documents(texts).tobytes()


@pytest.mark.slow
def test_other_pooling_is_another_graph(tiny: Path) -> None:
    options = {"pooling": "cls", "normalize": False, "max_length": 20}
    expected = load(tiny, **options).encode_documents(TEXTS)
    found = load(tiny, "openvino", **options).encode_documents(TEXTS)
    assert np.abs(expected - found).max() <= 1e-5
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() > 1e-3


@pytest.mark.slow
def test_graphs_are_made_once_and_again_when_damaged(
    students: dict[str, Encoder], tiny: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = cache.trace
    monkeypatch.setattr(cache, "trace", lambda model: made.append(1) or real(model))
    expected = students["openvino"].encode_documents(TEXTS)
    assert np.array_equal(load(tiny, "openvino", batch_size=4).encode_documents(TEXTS), expected)
    assert not made
    keys = {path.parent: json.loads(path.read_text())["key"] for path in caches.glob("*/graph.json")}
    directory = next(
        path
        for path, key in keys.items()
        if key["backend"] == "openvino" and key["fingerprint"] == students["torch"].fingerprint
    )
    weights = directory / "model.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert np.array_equal(load(tiny, "openvino", batch_size=4).encode_documents(TEXTS), expected)
    assert len(made) == 1
    assert not list(caches.glob(".*.tmp"))


def test_the_config_is_part_of_a_graphs_identity(tiny: Path, tmp_path: Path) -> None:
    """The weights are the same, and so is the fingerprint; the layers use them differently."""
    copies = []
    for name, change in (("same", {}), ("other", {"hidden_act": "relu"})):
        copy = shutil.copytree(tiny, tmp_path / name)
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, **change}))
        copies.append(load(copy))
    own, same, other = (
        choosing._key(one.model, "openvino", one.fingerprint) for one in (load(tiny), *copies)
    )
    assert own == same
    assert own["fingerprint"] == other["fingerprint"]
    assert own != other


def test_a_graph_with_other_vectors_is_refused(
    students: dict[str, Encoder], tiny: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MIMO_BACKEND", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(check, "TOLERANCE", -1.0)
        with pytest.raises(
            ModelError, match=r"cannot run on openvino: its vectors differ .* --backend torch"
        ):
            load(tiny, "openvino")
        with logs_a_warning("runs on torch, not on openvino: its vectors differ"):
            assert load(tiny, "auto").backend == "torch"
    assert load(tiny, "openvino").backend == "openvino"
    for verdict in caches.glob("*/check-*.json"):
        verdict.write_text('{"difference": 1.0, "cosine": 0.5}')
    with pytest.raises(ModelError, match=r"differ from torch's by 1.0e\+00"):
        load(tiny, "openvino")
    for verdict in caches.glob("*/check-*.json"):
        verdict.write_text("damaged")
    assert load(tiny, "openvino").backend == "openvino"


@pytest.mark.threads
@pytest.mark.parametrize("error", [RuntimeError("a broken kernel"), MemoryError("no memory")])
def test_whatever_a_graph_fails_with_torch_stands_in(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.delenv("MIMO_BACKEND", raising=False)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cache.OpenVinoRunner, "_infer", fail)
    with logs_a_warning(f"runs on torch, not on openvino: {type(error).__name__}: {error}"):
        assert load(tiny, "auto").backend == "torch"
    with pytest.raises(ModelError, match=f"cannot run on openvino: .*{error}; use --backend torch"):
        load(tiny, "openvino")


def test_nan_is_called_nan(tiny: Path, monkeypatch: pytest.MonkeyPatch, caches: Path) -> None:
    monkeypatch.delenv("MIMO_BACKEND", raising=False)
    infer = cache.OpenVinoRunner._infer
    monkeypatch.setattr(cache.OpenVinoRunner, "_infer", lambda *given: infer(*given) * np.nan)
    for _ in range(2):
        for verdict in caches.glob("*/check-*.json"):
            verdict.unlink()
        with logs_a_warning("its vectors hold NaN or infinity, and torch's do not"):
            assert load(tiny, "auto").backend == "torch"
    # What was written down says the same.
    with pytest.raises(ModelError, match="its vectors hold NaN or infinity"):
        load(tiny, "openvino")
    for verdict in caches.glob("*/check-*.json"):
        verdict.unlink()


def test_auto_is_openvino_where_it_is_installed(
    students: dict[str, Encoder], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MIMO_BACKEND", raising=False)
    assert load(tiny, "auto").backend == "openvino"
    assert load(tiny, "auto", dtype="bfloat16").backend == "openvino"
    assert load(tiny, "auto", dtype="float16").backend == "torch"
    monkeypatch.setenv("MIMO_BACKEND", "torch")
    assert load(tiny, "auto").backend == "torch"
    assert load(tiny, "openvino").backend == "openvino"


def test_number_formats_of_graphs(
    students: dict[str, Encoder], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MIMO_BACKEND", raising=False)
    expected = students["torch"].encode_documents(TEXTS)
    for backend, dtype, least in (("openvino", "bfloat16", 0.98), ("onnx", "int8", 0.8)):
        student = load(tiny, backend, dtype=dtype)
        found = student.encode_documents(TEXTS)
        assert student.fingerprint == students["torch"].fingerprint
        assert (found * expected).sum(axis=1).min() >= least
    with logs_a_warning("--dtype int8 changes the vectors"):
        assert load(tiny, "auto", dtype="int8").backend == "onnx"


def test_a_model_that_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIMO_BACKEND", raising=False)
    path = sentence_transformer(tmp_path / "st", plain_xlmr(tmp_path / "plain", seed=3))
    config = path / "1_Pooling" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "include_prompt": False}))
    with pytest.raises(ModelError, match="cannot run on onnx: its pooling leaves out the prompt"):
        load(path, "onnx")
    with logs_a_warning("runs on torch, not on openvino: its pooling leaves out the prompt"):
        student = load(path, "auto")
    assert student.backend == "torch"
    assert student.encode_documents(TEXTS, prompt="some prompt: ").shape == (len(TEXTS), 32)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"backend": "tpu"}, UsageError, "backend 'tpu': one of auto, torch, onnx, openvino was expected"),
        ({"backend": "torch", "dtype": "int8"}, UsageError, "not int8: use --backend onnx"),
        (
            {"backend": "onnx", "dtype": "float16"},
            UsageError,
            "float32, int8, not float16: use .* torch",
        ),
        ({"backend": "openvino", "device": "cuda:0"}, UsageError, "runs on the CPU, not on cuda:0"),
        ({"dtype": "int8", "device": "cuda"}, UsageError, "runs on the CPU, not on cuda"),
    ],
)
def test_what_does_not_go_together(
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str],
    kind: type[MimoError],
    message: str,
) -> None:
    monkeypatch.delenv("MIMO_BACKEND", raising=False)
    with pytest.raises(kind, match=message):
        Encoder(str(tiny), EncoderOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", GRAPHS)
def test_a_backend_that_is_not_installed(tiny: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.delenv("MIMO_BACKEND", raising=False)
    monkeypatch.setattr("mimo_plugin.core.environment.find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"not installed here: pip install 'mimo-plugin\[fast\]'"):
        load(tiny, backend)
    with warnings_logged() as warnings:
        assert load(tiny, "auto").backend == "torch"
    assert warnings == []


def test_two_at_once_make_one_graph(caches: Path) -> None:
    made: list[int] = []
    inside = threading.Event()

    def make(directory: Path) -> None:
        made.append(1)
        inside.wait(0.2)
        (directory / "model").write_text("graph")

    threads = [threading.Thread(target=cache.cached, args=({"a": "b"}, make)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_reason_is_kept_and_a_crash_is_not(caches: Path) -> None:
    calls = []

    def refuse(directory: Path) -> None:
        calls.append(1)
        raise NotExportable("no such operation")

    def crash(directory: Path) -> None:
        calls.append(1)
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(NotExportable, match="no such operation"):
            cache.cached({"kind": "refused"}, refuse)
    assert len(calls) == 1
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            cache.cached({"kind": "crashed"}, crash)
    assert len(calls) == 3


def test_no_place_for_graphs(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("MIMO_BACKEND", raising=False)
    with pytest.raises(EnvironmentProblem, match="cannot write"):
        load(tiny, "openvino")
    with logs_a_warning("runs on torch, not on openvino: cannot write"):
        assert load(tiny, "auto").backend == "torch"
