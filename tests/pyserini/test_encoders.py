"""Pyserini's side: what stock code passes to an encoder, and what it gets back."""

from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import TEXTS, plain_xlmr, sentence_transformer

import mimo_plugin
from mimo_plugin.core.errors import UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.encoder.packaged import TEACHER


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_xlmr(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def student() -> Encoder:
    return Encoder(TEACHER)


@pytest.fixture(scope="module")
def document_encoder() -> "mimo_plugin.MimoDocumentEncoder":
    return mimo_plugin.MimoDocumentEncoder(model_name=TEACHER, device="cpu")


@pytest.fixture(scope="module")
def query_encoder() -> "mimo_plugin.MimoQueryEncoder":
    # As `python -m pyserini.search.faiss` calls it.
    return mimo_plugin.MimoQueryEncoder(
        encoder_dir=TEACHER, tokenizer_name=None, device="cpu", prefix=None, fp16=False
    )


def test_classes_are_pyserinis(document_encoder: object, query_encoder: object) -> None:
    from pyserini.encode import DocumentEncoder, QueryEncoder

    assert isinstance(document_encoder, DocumentEncoder)
    assert isinstance(query_encoder, QueryEncoder)


@pytest.mark.threads
def test_shapes_and_values(document_encoder: object, query_encoder: object, student: Encoder) -> None:
    documents, queries = student.encode_documents(TEXTS), student.encode_queries(TEXTS)
    for encoder, expected in ((document_encoder, documents), (query_encoder, queries)):
        many, one = encoder.encode(TEXTS), encoder.encode(TEXTS[0])
        assert (many.dtype, many.shape) == (np.float32, (len(TEXTS), 384))
        assert (one.dtype, one.shape) == (np.float32, (384,))
        assert np.abs(many - expected).max() <= 1e-6
        assert np.abs(one - expected[0]).max() <= 1e-6
    assert np.abs(query_encoder.encode_batch(TEXTS) - queries).max() <= 1e-6


def test_topics_can_be_dicts(query_encoder: object, student: Encoder) -> None:
    expected = student.encode_queries(["talo"])[0]
    for topic in ({"query": "talo", "qid": "7"}, {"title": "talo"}, {"text": "talo"}):
        assert np.abs(query_encoder.encode(**topic) - expected).max() <= 1e-6
        assert np.abs(query_encoder.encode(topic) - expected).max() <= 1e-6
        assert np.abs(query_encoder.encode_batch([topic])[0] - expected).max() <= 1e-6
    with pytest.raises(UsageError, match=r"\['qid'\] has no text"):
        query_encoder.encode(qid="7")


def test_titles_prefix_and_pairs(document_encoder: object, student: Encoder) -> None:
    # As `python -m pyserini.encode` calls it.
    stock = {"max_length": 256, "fp16": False, "add_sep": False}
    titled = document_encoder.encode(texts=["body", "body"], titles=["Title", None], **stock)
    assert np.abs(titled - student.encode_documents(["Title body", "body"])).max() <= 1e-6
    pair = document_encoder.encode(texts=["body"], titles=["Title"], add_sep=True)
    assert np.abs(pair - student.encode_documents([("Title", "body")])).max() <= 1e-6
    assert np.abs(pair - titled[:1]).max() > 1e-3
    with pytest.raises(UsageError, match="1 titles for 2 texts"):
        document_encoder.encode(texts=["a", "b"], titles=["c"])
    prefixed = mimo_plugin.MimoDocumentEncoder(TEACHER, device="cpu", prefix="passage:")
    expected = student.encode_documents(["passage: Title body"])
    assert np.abs(prefixed.encode(texts=["body"], titles=["Title"]) - expected).max() <= 1e-6


def test_max_length_of_a_call(document_encoder: object, student: Encoder) -> None:
    assert (
        np.abs(document_encoder.encode("a b c d e f", max_length=4) - student.encode_documents(["a b"])).max()
        <= 1e-6
    )


def test_plain_checkpoint_takes_pyserinis_pooling_and_norm(plain: Path) -> None:
    from pyserini.encode import AutoDocumentEncoder, AutoQueryEncoder

    for pooling, l2_norm in (("mean", True), ("cls", False)):
        settings = {"device": "cpu", "pooling": pooling, "l2_norm": l2_norm}
        ours = mimo_plugin.MimoDocumentEncoder(str(plain), **settings).encode(TEXTS, max_length=64)
        stock = AutoDocumentEncoder(str(plain), **settings).encode(TEXTS, max_length=64)
        assert np.abs(ours - stock).max() <= 1e-5
        ours = mimo_plugin.MimoQueryEncoder(str(plain), **settings).encode(TEXTS[1])
        stock = AutoQueryEncoder(str(plain), **settings).encode(TEXTS[1])
        assert np.abs(ours - stock).max() <= 1e-5
    with pytest.raises(UsageError, match="one of cls, mean, max, last, eos"):
        mimo_plugin.MimoDocumentEncoder(str(plain), pooling="first")


def test_pooling_that_stock_infers_from_a_path_does_not_win(plain: Path, tmp_path: Path) -> None:
    path = sentence_transformer(tmp_path / "sentence-transformers-dse-clip", plain, pooling="cls")
    with pytest.warns(UserWarning, match="pooling=mean"):
        encoder = mimo_plugin.MimoDocumentEncoder(
            model_name=str(path), device="cpu", pooling="mean", l2_norm=True, multimodal=False
        )
    assert np.abs(encoder.encode(TEXTS) - Encoder(str(path)).encode_documents(TEXTS)).max() <= 1e-6


def test_queries_encoded_before(tmp_path: Path) -> None:
    import pandas as pd

    vector = np.arange(4, dtype=np.float32)
    pd.DataFrame({"text": ["talo"], "embedding": [vector.tolist()]}).to_pickle(tmp_path / "embedding.pkl")
    encoder = mimo_plugin.MimoQueryEncoder(encoded_query_dir=str(tmp_path))
    assert np.array_equal(encoder.encode("talo"), vector)
    assert np.array_equal(encoder.encode_batch(["talo", "talo"]), np.stack([vector, vector]))
    with pytest.raises(UsageError, match="needs encoder_dir"):
        mimo_plugin.MimoQueryEncoder()


def test_registration_comes_first_and_twice_is_once() -> None:
    from pyserini.encode import document_encoder_class_map, query_encoder_class_map

    for class_map, encoder in (
        (document_encoder_class_map, mimo_plugin.MimoDocumentEncoder),
        (query_encoder_class_map, mimo_plugin.MimoQueryEncoder),
    ):
        others = [name for name in class_map if name != "mimo"]
        mimo_plugin.register()
        mimo_plugin.register()
        assert list(class_map) == ["mimo", *others]
        assert class_map["mimo"] is encoder


def test_stock_code_finds_the_class_in_a_path(plain: Path, tmp_path: Path) -> None:
    from pyserini.encode.__main__ import init_encoder
    from pyserini.search.faiss.__main__ import init_query_encoder

    mimo_plugin.register()
    path = str(plain_xlmr(tmp_path / "mimo-relevance"))
    document = init_encoder(path, None, "cpu", "cls", False, None, False, False)
    query = init_query_encoder(path, None, None, "topics", None, "cpu", 256, "cls", False, None)
    assert isinstance(document, mimo_plugin.MimoDocumentEncoder)
    assert isinstance(query, mimo_plugin.MimoQueryEncoder)


def test_published_prompts_and_shortened_vectors(plain: Path, tmp_path: Path) -> None:
    path = sentence_transformer(tmp_path / "multilingual-e5-base", plain)
    student = Encoder(str(path))
    bare = Encoder(str(path), EncoderOptions(known_prompts=False, dimension=8))
    for make, prompt in (
        (mimo_plugin.MimoDocumentEncoder, "passage: "),
        (mimo_plugin.MimoQueryEncoder, "query: "),
    ):
        texts = [f"{prompt}{text}" for text in TEXTS]
        encoder = make(str(path), device="cpu")
        assert np.abs(encoder.encode(TEXTS) - student.encode_documents(texts, prompt="")).max() <= 1e-6
        short = make(str(path), device="cpu", dimension=8, known_prompts=False)
        assert np.abs(short.encode(texts) - bare.encode_documents(texts)).max() <= 1e-6
        assert np.abs(np.linalg.norm(short.encode(texts), axis=1) - 1).max() <= 1e-6
        # An empty prefix is none, not a space.
        none = make(str(path), device="cpu", prefix="")
        assert np.abs(none.encode(texts) - student.encode_documents(texts, prompt="")).max() <= 1e-6


def test_a_router_has_two_encoders(plain: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    query, document = ([Transformer(str(plain)), Pooling(32, mode)] for mode in ("cls", "mean"))
    model = SentenceTransformer(modules=[Router.for_query_document(query, document)], device="cpu")
    model.save_pretrained(str(tmp_path / "router"))
    documents = mimo_plugin.MimoDocumentEncoder(str(tmp_path / "router"), device="cpu")
    queries = mimo_plugin.MimoQueryEncoder(str(tmp_path / "router"), device="cpu")
    assert np.abs(documents.encode(TEXTS) - model.encode_document(TEXTS)).max() <= 1e-5
    assert np.abs(queries.encode(TEXTS) - model.encode_query(TEXTS)).max() <= 1e-5
    assert np.abs(queries.encode(TEXTS[0]) - model.encode_query(TEXTS[0])).max() <= 1e-5
    assert np.abs(queries.encode_batch(TEXTS) - model.encode_query(TEXTS)).max() <= 1e-5
