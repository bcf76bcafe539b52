"""Languages of documents, read back from the files of an index."""

from pathlib import Path

import pytest
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr

from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.indexing.build import index as build_index
from mimo_plugin.indexing.open import read_doc_languages
from mimo_plugin.indexing.settings import IndexOptions


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = documents(12)
    del rows[5]["lang"]
    spec = write_folder(tmp_path_factory.mktemp("folder"), rows)
    student = Encoder(str(plain_xlmr(tmp_path_factory.mktemp("checkpoint"))))
    output = tmp_path_factory.mktemp("indexes") / "index"
    build_index([spec], student, output, IndexOptions(progress=False))
    return output


def test_of_the_documents_that_are_wanted(index: Path) -> None:
    known = {row["_id"]: row["lang"] for row in documents(12) if row["_id"] != "d5"}
    assert read_doc_languages(index, [*known, "d5", "not there"]) == known
    assert read_doc_languages(index, iter(["d11", "d0"])) == {"d0": "de", "d11": "ja"}
    assert read_doc_languages(index, []) == {}


def test_no_index_or_a_damaged_one(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no manifest\.json, expected an index"):
        read_doc_languages(tmp_path, ["d0"])
    languages = index / "lang"
    before = languages.read_bytes()
    # As many bytes, a line less.
    languages.write_bytes(before.replace(b"\n", b" ", 1))
    try:
        with pytest.raises(ArtifactError, match=r"lang does not have the SHA-256 that the manifest says"):
            read_doc_languages(index, ["not there"])
    finally:
        languages.write_bytes(before)
