"""`index`, `search` and `Index` as a program calls them."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr

from mimo_plugin.collections.dataset import collection
from mimo_plugin.collections.pool import load
from mimo_plugin.core.errors import ArtifactError, DataError, ModelError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.indexing.build import index
from mimo_plugin.indexing.open import Index, open_index
from mimo_plugin.indexing.search import search, search_to_run
from mimo_plugin.indexing.settings import SearchOptions

QUERIES = [{"_id": "q1", "text": "Suche Sprache"}, {"_id": "q2", "text": "haku kieli"}]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(str(plain_xlmr(tmp_path_factory.mktemp("checkpoint"))))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_folder(tmp_path_factory.mktemp("folder"), documents(30), QUERIES, {"q1": {"d1": 1}})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder, spec: str) -> Index:
    return index(spec, encoder, tmp_path_factory.mktemp("indexes") / "index", shard_size=8, progress=False)


def test_an_index_says_what_it_is(built: Index, encoder: Encoder, spec: str) -> None:
    assert (len(built), built.encoded, built.already) == (30, 30, False)
    assert built.languages == {"de": 10, "fi": 10, "ja": 10}
    assert repr(built) == f"{built.directory}: 30 documents, 32 dimensions, Flat"
    assert built.encoder is encoder
    again = index([spec], encoder.name, str(built.directory), shard_size=8, progress=False)
    assert again.already
    assert again.manifest == built.manifest == open_index(built.directory).manifest


def test_every_kind_of_topics_gives_the_same_run(built: Index, spec: str, tmp_path: Path) -> None:
    run = search(built, load(spec), hits=5)
    assert {query: len(hits) for query, hits in run.items()} == {"q1": 5, "q2": 5}
    texts = {query["_id"]: query["text"] for query in QUERIES}
    for topics in (spec, [spec], texts, collection(queries=texts)):
        assert dict(built.search(topics, hits=5)) == dict(run)
    listed = built.search(list(texts.values()), hits=5)
    assert [listed["0"], listed["1"]] == [run["q1"], run["q2"]]
    assert built.search("Suche Sprache", hits=5)["0"] == run["q1"]
    assert dict(search(built.directory, texts, hits=5)) == dict(run)
    search_to_run(built, [spec], tmp_path / "run.trec", SearchOptions(hits=5, progress=False))
    run.save(tmp_path / "saved.trec", "mimo")
    assert (tmp_path / "run.trec").read_bytes() == (tmp_path / "saved.trec").read_bytes()


def test_the_encoder_is_loaded_once(built: Index) -> None:
    opened = open_index(built.directory)
    first = opened.search("Suche", hits=3)
    loaded = opened.encoder
    assert loaded is not None
    assert dict(opened.search(collection(queries=["Suche"]), hits=3)) == dict(first)
    assert opened.encoder is loaded


def test_records_in_memory(encoder: Encoder, tmp_path: Path) -> None:
    docs = {"a": {"text": "Suche Sprache", "lang": "de"}, "b": {"text": "haku kieli", "lang": "fi"}}
    made = index(collection(docs=docs), encoder, tmp_path / "index", progress=False)
    assert made.languages == {"de": 1, "fi": 1}
    assert next(iter(made.search("haku kieli", hits=1)["0"])) == "b"
    docs["a"]["text"] = "anders"
    with pytest.raises(ArtifactError, match="holds an index made otherwise: collections is"):
        index(collection(docs=docs), encoder, tmp_path / "index", progress=False)


def test_warnings_are_logged(built: Index, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mimo_plugin"):
        built.search("Suche", hits=99)
    assert "--hits 99: the index holds 30 documents" in caplog.text


def test_what_is_wrong_is_said_before_an_encoder_is_loaded(
    built: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.tex").touch()
    monkeypatch.setattr("mimo_plugin.indexing.encode.Encoder", str)
    with pytest.raises((DataError, ArtifactError, ModelError)) as caught:
        index("mimo-sampel", "/no/model", tmp_path)
    for found in ("mimo-sampel", "thesis.tex", "/no/model: no such directory"):
        assert found in str(caught.value)
    with pytest.raises(DataError, match="unknown collection"):
        search(open_index(built.directory), "miracl/swe/dev")


@pytest.mark.parametrize(
    "arguments",
    [
        ["index", "mircal/sw/dev", "--encoder", "/no/model", "--output", "out"],
        ["encode", "mircal/sw/dev", "--encoder", "/no/model", "--output", "out"],
        ["search", "/no/index", "--topics", "mircal/sw/dev", "--output", "out.trec"],
    ],
)
def test_a_typo_is_answered_before_anything_heavy_is_imported(arguments: list[str], tmp_path: Path) -> None:
    heavy = ("torch", "transformers", "sentence_transformers", "datasets", "faiss", "pandas", "scipy", "ranx")
    script = f"""
import sys
from mimo_plugin.cli import main
assert main({arguments}) == 1
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert "near: miracl/sw/dev" in done.stderr
