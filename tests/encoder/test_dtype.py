"""The number format "auto": bfloat16 where the processor and the vectors allow it, else float32."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import TEXTS, plain_xlmr, sentence_transformer
from helpers.logs import logs_a_warning, warnings_logged
from sentence_transformers import SentenceTransformer

from mimo_plugin.encoder import backend as choosing
from mimo_plugin.encoder import encoder as encoders
from mimo_plugin.encoder import export
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.side import GraphSide, TorchSide

pytestmark = pytest.mark.threads

Load = Callable[..., Encoder]


@pytest.fixture
def load(tiny: Path, caches: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads an encoder as the first of a machine, with or without native bfloat16."""
    monkeypatch.delenv("MIMO_BACKEND", raising=False)

    def run(native: bool, path: Path = tiny, **options: object) -> Encoder:
        shutil.rmtree(caches.parent / "encoders", ignore_errors=True)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
        return Encoder(str(path), device="cpu", **options)

    return run


@pytest.mark.slow
def test_the_processor_decides(load: Load) -> None:
    rough, exact = load(True), load(False)
    assert (rough.options.dtype, exact.options.dtype) == ("bfloat16", "float32")
    assert rough.backend == exact.backend == "openvino"
    assert rough.dtype_reason is not None
    # A processor without bfloat16 may compute in float32.
    assert re.match(r"the smallest cosine between .* is (0\.99\d+|1\.0+), 0\.999 is", rough.dtype_reason)
    assert exact.dtype_reason == "this processor does not multiply bfloat16"
    asked = load(True, dtype="float32")
    assert asked.dtype_reason is None
    found = [one.encode_documents(TEXTS) for one in (rough, exact, asked)]
    assert found[1].tobytes() == found[2].tobytes()
    assert (found[0] * found[1]).sum(axis=1).min() >= 0.999


def test_a_release_of_torch_that_cannot_tell_is_no_native_bfloat16(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(True)
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert not choosing.native_bfloat16("cpu")


def test_vectors_that_are_not_near_stay_in_float32(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "NEAR", 1.1)
    encoder = load(True)
    assert encoder.options.dtype == "float32"
    assert encoder.dtype_reason is not None
    assert encoder.dtype_reason.endswith("1.1 is enough")


@pytest.mark.parametrize("native", [True, False])
def test_the_choice_is_remembered(load: Load, tiny: Path, native: bool) -> None:
    first = load(native)
    assert isinstance(first._documents, TorchSide)
    again = Encoder(str(tiny), device="cpu")
    chosen = first.options.dtype
    # As a search does.
    for_queries = Encoder(str(tiny), device="cpu", dtype=chosen)
    for other in (again, for_queries):
        assert isinstance(other._documents, GraphSide)
        assert other.options.dtype == chosen
        assert other.encode_queries(TEXTS).tobytes() == first.encode_queries(TEXTS).tobytes()
    assert again.dtype_reason == first.dtype_reason
    assert for_queries.dtype_reason is None


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=pytest.mark.slow)])
def test_other_backends_are_in_float32(load: Load, backend: str) -> None:
    encoder = load(True, backend=backend)
    assert (encoder.options.dtype, encoder.dtype_reason) == ("float32", f"auto is float32 on {backend}")


def test_where_no_graph_runs_torch_has_the_format_that_was_asked_for(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a broken kernel")

    monkeypatch.setattr(export.OpenVinoRunner, "_infer", fail)
    with logs_a_warning("runs on torch, not on openvino: RuntimeError: a broken kernel"):
        auto = load(True)
    assert (auto.backend, auto.options.dtype) == ("torch", "float32")
    assert auto.dtype_reason == "bfloat16 failed: RuntimeError: a broken kernel"
    with logs_a_warning("runs on torch, not on openvino"):
        asked = load(True, dtype="bfloat16")
    assert (asked.backend, asked.options.dtype) == ("torch", "bfloat16")
    assert {parameter.dtype for parameter in asked.model.parameters()} == {torch.bfloat16}
    assert asked.fingerprint == auto.fingerprint


def test_bfloat16_on_another_processor_is_told(load: Load, tiny: Path) -> None:
    with warnings_logged() as warnings:
        load(True, dtype="bfloat16")
    assert not warnings
    for kind in (load, lambda _, **options: Encoder(str(tiny), device="cpu", **options)):
        with logs_a_warning("runs in bfloat16, which this processor does not multiply"):
            assert kind(False, dtype="bfloat16").backend == "openvino"


def test_other_texts_may_call_for_float32(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(True)
    texts = [f"{text} {number}" for number in range(30) for text in TEXTS]
    before = encoder.encode_documents(texts)
    assert encoder.checked_on(texts) is encoder
    assert encoder.dtype_reason is not None
    assert "the smallest cosine of 50 documents between" in encoder.dtype_reason
    assert encoder.encode_documents(texts).tobytes() == before.tobytes()
    assert encoder.checked_on([]) is encoder
    monkeypatch.setattr(encoders, "NEAR", 1.1)
    exact = encoder.checked_on(texts)
    assert (encoder.options.dtype, exact.options.dtype) == ("bfloat16", "float32")
    asked = load(True, dtype="float32")
    assert exact.encode_documents(texts).tobytes() == asked.encode_documents(texts).tobytes()
    for given in (asked, load(True, dtype="bfloat16")):
        assert given.checked_on(texts) is given


def test_a_model_in_memory_is_what_it_is(tmp_path: Path) -> None:
    path = sentence_transformer(tmp_path / "st", plain_xlmr(tmp_path / "plain"))
    encoder = Encoder.of(SentenceTransformer(str(path), device="cpu"), "in memory")
    assert (encoder.options.dtype, encoder.dtype_reason) == ("float32", None)
    assert np.isfinite(encoder.encode_documents(TEXTS)).all()
