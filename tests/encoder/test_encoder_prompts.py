import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.checkpoints import TEXTS, plain_xlmr, sentence_transformer
from helpers.logs import warnings_logged
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.encoder import packaged
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.encoder.prompts import family

INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
REPRESENT = "Represent this sentence for searching relevant passages: "
# config_sentence_transformers.json names any of these, or leaves them out.
PROMPTS = st.dictionaries(
    st.sampled_from(["query", "document", "passage", "corpus", "clustering"]),
    st.sampled_from(["", "query: ", "passage of many languages: ", "such\n"]),
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_xlmr(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, plain: Path) -> Path:
    return sentence_transformer(tmp_path_factory.mktemp("st") / "checkpoint", plain)


def load(path: Path | str, **options: Any) -> tuple[Encoder, list[str]]:
    with warnings_logged() as warnings:
        student = Encoder(str(path), EncoderOptions(device="cpu", backend="torch", **options))
        # The first look, after what else may be wrong.
        assert warnings == []
        assert len(student.prompts) == 2
    return student, warnings


def say(checkpoint: Path, prompts: dict[str, str], default: str | None = None) -> None:
    file = checkpoint / "config_sentence_transformers.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "prompts": prompts, "default_prompt_name": default}))


def difference(found: Any, expected: Any) -> float:
    return float(np.abs(np.asarray(found) - np.asarray(expected)).max())


@pytest.mark.slow
@settings(max_examples=20)
@given(prompts=PROMPTS, data=st.data())
def test_prompts_are_those_of_sentence_transformers(
    checkpoint: Path, prompts: dict[str, str], data: st.DataObject
) -> None:
    from sentence_transformers import SentenceTransformer

    default = data.draw(st.sampled_from([None, *prompts]))
    say(checkpoint, prompts, default)
    expected = SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True)
    student, _ = load(checkpoint)
    assert difference(student.encode_queries(TEXTS), expected.encode_query(TEXTS)) <= 1e-6
    assert difference(student.encode_documents(TEXTS), expected.encode_document(TEXTS)) <= 1e-6
    asked, said = load(checkpoint, query_prompt=" q\n", document_prompt="")
    assert not said
    assert difference(asked.encode_queries(TEXTS), expected.encode_query(TEXTS, prompt=" q\n")) <= 1e-6
    assert difference(asked.encode_documents(TEXTS), expected.encode_document(TEXTS, prompt="")) <= 1e-6


@settings(max_examples=15)
@given(prompts=PROMPTS, document=st.one_of(st.none(), st.just(""), st.just("d: ")))
def test_a_passage_prompt_that_is_not_used_is_named(
    checkpoint: Path, prompts: dict[str, str], document: str | None
) -> None:
    say(checkpoint, prompts)
    student, said = load(checkpoint, document_prompt=document)
    unused = next((name for name in ("passage", "corpus") if prompts.get(name)), None)
    if document is None and not prompts.get("document") and unused:
        assert len(said) == 1
        assert f"{unused!r}" in said[0]
        assert repr(prompts[unused]) in said[0]
        assert student.document_prompt == ""
    else:
        assert not any("passage" in line or "corpus" in line for line in said)


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("intfloat/multilingual-e5-small", "query: ", "passage: "),
        ("intfloat/e5-base-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-large-instruct", INSTRUCT, ""),
        ("BAAI/bge-base-en-v1.5", REPRESENT, ""),
        ("BAAI/bge-small-zh-v1.5", "为这个句子生成表示以用于检索相关文章：", ""),
        ("BAAI/bge-m3", "", ""),
        ("thenlper/gte-large", "", ""),
        ("Alibaba-NLP/gte-multilingual-base", "", ""),
        ("Alibaba-NLP/gte-Qwen2-1.5B-instruct", INSTRUCT, ""),
        ("Snowflake/snowflake-arctic-embed-m", REPRESENT, ""),
        ("Snowflake/snowflake-arctic-embed-m-v1.5", REPRESENT, ""),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", "query: ", ""),
        ("Qwen/Qwen3-Embedding-0.6B", INSTRUCT.rstrip(" "), ""),
        ("google/embeddinggemma-300m", "task: search result | query: ", "title: none | text: "),
        ("ibm-granite/granite-embedding-278m-multilingual", "", ""),
        (packaged.TEACHER, "", ""),
    ],
)
def test_known_families(name: str, query: str, document: str, tmp_path: Path) -> None:
    found = family(name, name)
    assert found is not None
    assert found.prompts == (query, document)
    name = name.removeprefix(packaged.PREFIX)
    cached = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / "0a1b"
    cached.mkdir(parents=True)
    assert family(str(cached), str(cached)) == found
    flat = tmp_path / name.replace("/", "_")
    flat.mkdir()
    assert family(str(flat), str(flat)) == found


@pytest.mark.parametrize(
    "name", ["multilingual-e5-small-finetuned", "my-e5-base", "e5", "bge-reranker-v2-m3", "large", "student"]
)
def test_what_is_of_no_known_family(name: str, tmp_path: Path) -> None:
    assert family(f"someone/{name}", f"someone/{name}") is None


def renamed(plain: Path, place: Path) -> Path:
    shutil.copytree(plain, place)
    return place


@pytest.mark.parametrize("in_layout", [True, False])
def test_silent_files_of_a_known_family_are_filled_in(plain: Path, tmp_path: Path, in_layout: bool) -> None:
    place = tmp_path / "intfloat" / "multilingual-e5-small"
    path = sentence_transformer(place, plain) if in_layout else renamed(plain, place)
    student, said = load(path)
    assert (student.query_prompt, student.document_prompt) == ("query: ", "passage: ")
    assert len(said) == 1
    assert "'query: '" in said[0]
    assert "--no-known-prompts" in said[0]
    assert "\n" not in said[0]
    bare, said = load(path, known_prompts=False)
    assert (bare.query_prompt, bare.document_prompt, said) == ("", "", [])
    assert bare.fingerprint == student.fingerprint
    found = bare.encode_documents([f"passage: {text}" for text in TEXTS])
    assert difference(student.encode_documents(TEXTS), found) <= 1e-6
    half, said = load(path, query_prompt="")
    assert (half.query_prompt, half.document_prompt, len(said)) == ("", "passage: ", 1)
    asked, said = load(path, query_prompt="q ", document_prompt="d ")
    assert (asked.query_prompt, asked.document_prompt, said) == ("q ", "d ", [])


def test_files_that_speak_win_over_the_family(plain: Path, tmp_path: Path) -> None:
    path = sentence_transformer(tmp_path / "e5-base-v2", plain, prompts={"query": "frage: "})
    student, said = load(path)
    assert (student.query_prompt, student.document_prompt, said) == ("frage: ", "", [])


def test_the_name_in_the_config_tells_the_family(plain: Path, tmp_path: Path) -> None:
    path = renamed(plain, tmp_path / "downloaded")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "_name_or_path": "intfloat/e5-small/"}))
    student, said = load(path)
    assert (student.query_prompt, student.document_prompt, len(said)) == ("query: ", "passage: ", 1)


def test_an_unknown_model_without_prompts_is_named_once(plain: Path, tmp_path: Path) -> None:
    student, said = load(plain)
    assert (student.query_prompt, student.document_prompt) == ("", "")
    assert len(said) == 1
    assert "--query-prompt" in said[0]
    assert "--document-prompt" in said[0]
    assert load(plain, query_prompt="")[1] == []
    assert load(plain, known_prompts=False)[1] == []
    # A family that is known to need none.
    assert load(renamed(plain, tmp_path / "bge-m3"))[1] == []


def test_nothing_is_said_of_our_own_students(plain: Path, tmp_path: Path) -> None:
    from mimo_plugin.encoder.checkpoint import load_model
    from mimo_plugin.training.record import save_student

    model = load_model(str(sentence_transformer(tmp_path / "base", plain)), "base", "cpu")
    save_student(model, tmp_path / "e5-small")
    student, said = load(tmp_path / "e5-small")
    assert (student.query_prompt, student.document_prompt, said) == ("", "", [])
    going = tmp_path / "run" / "checkpoints" / "checkpoint-3"
    model.save_pretrained(str(going), create_model_card=False)
    (tmp_path / "run" / "recipe.yaml").write_text("seed: 1\n")
    assert load(going)[1] == []
