"""Texts beside an index: those of the collection, whatever made the index, and found again by docid."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.beir import documents, write_folder
from helpers.input_readers import import_file, npy_files
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.collections.dataset import collection
from mimo_plugin.collections.pool import load
from mimo_plugin.core.errors import ArtifactError, DataError, UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.indexing import texts as texts_module
from mimo_plugin.indexing.build import index, index_vectors, merge_indexes
from mimo_plugin.indexing.encode import encode_collections
from mimo_plugin.indexing.nearest import Lines
from mimo_plugin.indexing.open import TEXTS, open_index, read_doc_languages
from mimo_plugin.indexing.settings import EncodeOptions, IndexOptions, Part
from mimo_plugin.indexing.texts import KeptTexts, write_texts
from mimo_plugin.indexing.vectors import open_vectors

Build = Callable[..., Path]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_folder(tmp_path_factory.mktemp("folder"), documents(30))


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_module, "_GROUP", 7)


@pytest.fixture
def build(spec: str, student: Encoder, tmp_path: Path) -> Build:
    def run(name: str, part: str | None = None, **options: object) -> Path:
        output = tmp_path / name
        made = IndexOptions(**{"shard_size": 8, "progress": False, "texts": True, **options})  # type: ignore[arg-type]
        index(spec, student, output, made, shard=Part.parse(part))
        return output

    return run


def expected(spec: str) -> dict[str, str]:
    return {doc.doc_id: doc.text for doc in load(spec).docs_iter()}


def hashes(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def test_texts_are_the_collections(build: Build, spec: str) -> None:
    opened = open_index(build("index"))
    wanted = expected(spec)
    assert opened.texts(reversed(wanted)) == wanted
    assert opened.texts(["d7", "none", "d29", "d7"]) == {name: wanted[name] for name in ("d7", "d29")}
    assert opened.texts([]) == {}
    assert "texts are kept beside it" in opened.summary()


def test_parts_make_the_whole_byte_for_byte(build: Build, tmp_path: Path) -> None:
    whole = build("whole")
    parts = [build(f"part{number}", f"{number}/3") for number in (2, 3, 1)]
    merged = merge_indexes(parts, tmp_path / "merged", progress=False)
    assert hashes(merged.directory) == hashes(whole)


def test_a_part_without_texts(build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = [build("one", "1/2"), build("two", "2/2", texts=False)]
    merged = merge_indexes(parts, tmp_path / "merged", progress=False)
    assert not (merged.directory / TEXTS).exists()
    assert f"texts are not kept: {parts[1]} without them" in caplog.text


def test_texts_are_added_to_a_finished_index(
    build: Build, spec: str, student: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = hashes(build("whole"))
    later = build("later", texts=False)
    without = hashes(later)
    assert TEXTS not in without
    encode_collections(spec, student, tmp_path / "vectors", EncodeOptions(shard_size=8, progress=False))
    vectors = open_vectors([tmp_path / "vectors"])
    # Nothing is encoded again, and a full disk leaves the index as it was.
    monkeypatch.setattr(Encoder, "encode_each", None)
    with monkeypatch.context() as patched:
        patched.setattr(texts_module, "in_order", lambda *_: lambda docids: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            index_vectors(vectors, later, IndexOptions(texts=True, progress=False))
    assert hashes(later) == without
    assert index_vectors(vectors, later, IndexOptions(texts=True, progress=False)).already
    assert hashes(later) == whole
    index_vectors(vectors, tmp_path / "new", IndexOptions(texts=True, progress=False))
    assert hashes(tmp_path / "new") == whole
    # Those that are there stay without being asked for.
    assert index_vectors(vectors, later, IndexOptions(progress=False)).already
    assert hashes(later) == whole


def test_a_build_that_was_cut_short_ends_with_the_same_bytes(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = hashes(build("whole"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mimo_plugin.indexing.build.write_texts", killed)
        with pytest.raises(KeyboardInterrupt):
            build("cut")
    assert hashes(build("cut")) == whole


def test_a_byte_that_changed_is_found(build: Build) -> None:
    directory = build("index")
    content = bytearray((directory / TEXTS).read_bytes())
    content[40] ^= 1
    (directory / TEXTS).write_bytes(content)
    opened = open_index(directory)
    assert opened.languages_of(["d1"]) == {"d1": "fi"}
    with pytest.raises(ArtifactError, match=r"texts.parquet does not have the SHA-256"):
        opened.texts(["d1"])


def test_without_kept_texts_the_collection_has_them(
    student: Encoder, build: Build, spec: str, tmp_path: Path
) -> None:
    opened = open_index(build("index", texts=False))
    wanted = expected(spec)
    assert opened.texts(["d3", "none", "d1"]) == {"d1": wanted["d1"], "d3": wanted["d3"]}
    gone = write_folder(tmp_path / "gone", documents(5))
    index(gone, student, tmp_path / "of-gone", progress=False)
    (tmp_path / "gone" / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match="gone"):
        open_index(tmp_path / "of-gone").texts(["d1"])
    memory = index(collection(docs=["ein Haus"]), student, tmp_path / "memory", progress=False)
    with pytest.raises(DataError, match="a collection in memory"):
        memory.texts(["0"])
    kept = index(collection(docs=["ein Haus"]), student, tmp_path / "kept", progress=False, texts=True)
    assert kept.texts(["0"]) == {"0": "ein Haus"}


def test_imported_vectors_have_no_texts(tmp_path: Path) -> None:
    import_file(npy_files(tmp_path / "source"), tmp_path / "vectors")
    vectors = open_vectors([tmp_path / "vectors"])
    with pytest.raises(UsageError, match="were imported from .*: their texts are unknown"):
        index_vectors(vectors, tmp_path / "index", IndexOptions(texts=True, progress=False))
    assert not (tmp_path / "index").exists()


def test_languages_are_found_by_docid(build: Build, spec: str) -> None:
    directory = build("index", texts=False)
    docs = {doc.doc_id: doc.lang for doc in load(spec).docs_iter()}
    assert open_index(directory).languages_of([*docs, "none"]) == docs
    assert read_doc_languages(directory, [*docs, "none"]) == docs


@given(st.lists(st.text(), min_size=1, max_size=40), st.data())
def test_any_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("texts")
    (directory / "docid").write_text("".join(f"d{number}\n" for number in range(len(texts))))
    given = iter(texts)
    write_texts(
        directory / TEXTS, Lines(directory / "docid"), lambda docids: [next(given) for _ in docids], False
    )
    kept = KeptTexts(directory / TEXTS)
    assert list(kept) == texts
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1)))
    assert kept.take(np.array(rows, dtype=np.int64)) == [texts[row] for row in rows]
