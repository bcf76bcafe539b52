"""Checkpoints whose queries go through other modules than their documents, and vectors that are cut."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.checkpoints import TEXTS, plain_xlmr, sentence_transformer

from mimo_plugin.core.errors import ModelError, UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions

BACKENDS = ["torch", "openvino", "onnx"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [plain_xlmr(tmp_path_factory.mktemp("plain"), seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def make(plain: list[Path]) -> Callable[[str, Path], Path]:
    """Saves a checkpoint of a layout."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        Pooling,
        StaticEmbedding,
        Transformer,
    )

    def encoder(which: int, pooling: str = "mean", **lengths: int) -> list[Any]:
        return [Transformer(str(plain[which]), max_seq_length=40, **lengths), Pooling(32, pooling)]

    def static() -> Any:
        import torch

        torch.manual_seed(3)
        return StaticEmbedding(Transformer(str(plain[0])).tokenizer, embedding_dim=32)

    def modules(layout: str) -> list[Any]:
        if layout == "first":
            return [Router.for_query_document(encoder(0), encoder(1)), Normalize()]
        if layout == "other modules":
            query = [*encoder(0, "cls"), Dense(32, 32), Normalize()]
            return [Router.for_query_document(query, [*encoder(1), Normalize()])]
        if layout == "static queries":
            return [Router.for_query_document([static()], encoder(1)), Normalize()]
        if layout == "after a shared transformer":
            query, document = [Pooling(32, "cls"), Dense(32, 16)], [Pooling(32, "mean"), Dense(32, 16)]
            return [encoder(0)[0], Router.for_query_document(query, document), Normalize()]
        if layout == "mappings":
            mappings = {("query", "text"): "a", ("document", None): "b"}
            return [Router({"b": encoder(1), "a": encoder(0, "cls")}, route_mappings=mappings), Normalize()]
        if layout == "one for both":
            return [
                Router({"text": encoder(0), "other": encoder(1)}, route_mappings={(None, "text"): "text"})
            ]
        if layout == "lengths of tasks":
            return [*encoder(0, query_length=5, document_length=8), Normalize()]
        if layout == "no such route":
            return [Router({"question": encoder(0), "document": encoder(1)}, default_route="document")]
        return [Router.for_query_document([*encoder(0), Dense(32, 16)], encoder(1))]

    def save(layout: str, directory: Path) -> Path:
        prompts = {"query": "query: ", "document": "passage: "}
        model = SentenceTransformer(modules=modules(layout), device="cpu", prompts=prompts)
        model.save_pretrained(str(directory))
        return directory

    return save


LAYOUTS = [
    "first",
    "other modules",
    "static queries",
    "after a shared transformer",
    "mappings",
    "one for both",
    "lengths of tasks",
]


def theirs(path: Path, **options: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(path), device="cpu", local_files_only=True, **options)


def student_of(path: Path, **options: Any) -> Encoder:
    return Encoder(
        str(path), EncoderOptions(**{"device": "cpu", "backend": "torch", "dtype": "float32", **options})
    )


def difference(found: Any, expected: Any) -> float:
    assert np.shape(found) == np.shape(expected)
    return float(np.abs(np.asarray(found) - np.asarray(expected)).max())


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_side_is_that_of_sentence_transformers(
    make: Callable[[str, Path], Path], layout: str, backend: str, tmp_path: Path
) -> None:
    path = make(layout, tmp_path / "checkpoint")
    model, student = theirs(path), student_of(path, backend=backend)
    texts = [*TEXTS, "", TEXTS[0] * 3]
    tolerance = 1e-6 if backend == "torch" else 1e-5
    assert difference(student.encode_queries(texts), model.encode_query(texts)) <= tolerance
    assert difference(student.encode_documents(texts), model.encode_document(texts)) <= tolerance
    (found,) = student.encode_each([texts])
    assert difference(found, model.encode_document(texts)) <= tolerance
    assert student.asymmetric == (layout not in ("one for both", "lengths of tasks"))
    assert student.dimension == model.get_embedding_dimension()
    other = student.encode_queries(texts) - student.encode_documents(texts, prompt=student.query_prompt)
    assert (np.abs(other).max() > 1e-3) == (layout != "one for both")


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_route_is_a_graph_of_its_own(
    make: Callable[[str, Path], Path], backend: str, tmp_path: Path
) -> None:
    path = make("first", tmp_path / "checkpoint")
    model, student = theirs(path), student_of(path, backend=backend)
    assert student.backend == backend
    assert difference(student.encode_queries(TEXTS), model.encode_query(TEXTS)) <= 1e-5
    assert difference(student.encode_documents(TEXTS), model.encode_document(TEXTS)) <= 1e-5


def test_the_fingerprint_is_of_both_sides(make: Callable[[str, Path], Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = make("first", tmp_path / "checkpoint")
    first = student_of(path).fingerprint
    assert student_of(path, dtype="bfloat16", max_length=9).fingerprint == first
    for weights in sorted(path.rglob("model.safetensors")):
        before = weights.read_bytes()
        tensors = load_file(weights)
        name = next(name for name in sorted(tensors) if "pooler" not in name)
        save_file({**tensors, name: tensors[name] + 1}, weights, metadata={"format": "pt"})
        assert student_of(path).fingerprint != first
        weights.write_bytes(before)
    assert student_of(path).fingerprint == first


def test_options_change_both_sides(make: Callable[[str, Path], Path], tmp_path: Path) -> None:
    path = make("first", tmp_path / "checkpoint")
    student = student_of(
        path, pooling="cls", max_length=6, normalize=False, query_prompt="", document_prompt=""
    )
    short = ["Lyhyt lause hakukoneista", "Ein"]
    for encode in (student.encode_queries, student.encode_documents):
        vectors = encode([f"{text} und noch viel mehr als das" for text in short])
        assert difference(vectors, encode([f"{text} und noch viel mehr" for text in short])) <= 1e-6
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() > 1e-2
    assert (student.pooling, student.max_length, student.normalizes) == ("cls", 6, False)


def test_a_length_of_a_task_gives_way_to_the_users(make: Callable[[str, Path], Path], tmp_path: Path) -> None:
    path = make("lengths of tasks", tmp_path / "checkpoint")
    student = student_of(path)
    assert student.max_length == 8
    before = student.encode_queries(TEXTS)
    longer = student.encode_queries(TEXTS, max_length=12)
    assert np.abs(longer - student_of(path, max_length=12).encode_queries(TEXTS)).max() <= 1e-6
    assert np.abs(longer - before).max() > 1e-3
    assert np.array_equal(student.encode_queries(TEXTS), before)


@pytest.mark.parametrize(
    ("layout", "message"),
    [("no such route", "cannot encode a query: No route"), ("widths", "16 dimensions for")],
)
def test_routes_that_cannot_be_used_are_refused(
    make: Callable[[str, Path], Path], layout: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        student_of(make(layout, tmp_path / "checkpoint"))


def test_it_is_no_teacher(make: Callable[[str, Path], Path], tmp_path: Path) -> None:
    from mimo_plugin.training.models import TeacherOptions
    from mimo_plugin.training.teacher_store import load_teacher

    path = make("first", tmp_path / "checkpoint")
    with pytest.raises(ModelError, match="encodes queries and documents by different modules"):
        load_teacher(TeacherOptions(checkpoint=str(path)).on("cpu"))


def test_a_model_in_training_is_scored_by_its_routes(
    make: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    model = theirs(make("first", tmp_path / "checkpoint")).train()
    expected = model.encode_query(TEXTS), model.encode_document(TEXTS)
    model.train()
    student = Encoder.of(model, "in training", EncoderOptions())
    assert difference(student.encode_queries(TEXTS), expected[0]) <= 1e-6
    assert difference(student.encode_documents(TEXTS), expected[1]) <= 1e-6


def cut(path: Path, plain: Path, dimension: int | None, normalize: bool) -> Path:
    sentence_transformer(path, plain, normalize=normalize)
    if dimension is not None:
        file = path / "config_sentence_transformers.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "truncate_dim": dimension}))
    return path


def lengths(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=1)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("own", [None, 8])
def test_what_a_checkpoint_cuts_is_as_sentence_transformers_cuts_it(
    plain: list[Path], own: int | None, normalize: bool, tmp_path: Path
) -> None:
    path = cut(tmp_path / "checkpoint", plain[0], own, normalize)
    student = student_of(path)
    vectors = student.encode_documents(TEXTS)
    assert difference(vectors, theirs(path).encode_document(TEXTS)) <= 1e-6
    assert student.dimension == (own or 32)
    assert student.normalizes == bool(np.abs(lengths(vectors) - 1).max() <= 1e-5)


@pytest.mark.parametrize(
    ("own", "normalizing", "dimension", "asked", "unit", "backend"),
    [
        (8, False, None, True, True, "torch"),
        (8, True, None, True, True, "torch"),
        (None, True, 8, None, True, "torch"),
        pytest.param(None, True, 8, None, True, "openvino", marks=pytest.mark.slow),
        pytest.param(None, True, 8, None, True, "onnx", marks=pytest.mark.slow),
        (None, False, 8, None, False, "torch"),
        (None, False, 8, True, True, "torch"),
        pytest.param(None, False, 8, True, True, "openvino", marks=pytest.mark.slow),
        (None, True, 8, False, False, "torch"),
        (8, True, 12, None, True, "torch"),
        (8, False, 4, None, False, "torch"),
        (None, True, 32, None, True, "torch"),
    ],
)
def test_vectors_are_cut_and_then_normalised(
    plain: list[Path],
    own: int | None,
    normalizing: bool,
    dimension: int | None,
    asked: bool | None,
    unit: bool,
    backend: str,
    tmp_path: Path,
) -> None:
    path = cut(tmp_path / "checkpoint", plain[0], own, normalizing)
    student = student_of(path, backend=backend, dimension=dimension, normalize=asked)
    raw = cut(tmp_path / "raw", plain[0], None, False)
    size = dimension or own
    assert (student.dimension, student.normalizes) == (size, unit)
    for encode in (student.encode_documents, student.encode_queries):
        expected = theirs(raw, truncate_dim=size).encode(TEXTS, normalize_embeddings=unit)
        assert difference(encode(TEXTS), expected) <= 1e-5
    (found,) = student.encode_each([TEXTS])
    assert difference(found, student.encode_documents(TEXTS)) == 0
    # Of the modules: documents of another dimension are told apart by their dimension.
    assert student.fingerprint == student_of(path, normalize=asked).fingerprint


def test_more_dimensions_than_there_are_is_refused(plain: list[Path], tmp_path: Path) -> None:
    path = cut(tmp_path / "checkpoint", plain[0], None, True)
    with pytest.raises(UsageError, match=r"--dimension 33: .* gives 32 dimensions"):
        student_of(path, dimension=33)


def test_a_router_is_cut_on_both_sides(make: Callable[[str, Path], Path], tmp_path: Path) -> None:
    path = make("first", tmp_path / "checkpoint")
    student, model = student_of(path, dimension=8), theirs(path, truncate_dim=8)
    for ours, other in (
        (student.encode_queries, model.encode_query),
        (student.encode_documents, model.encode_document),
    ):
        assert difference(ours(TEXTS), other(TEXTS, normalize_embeddings=True)) <= 1e-6
