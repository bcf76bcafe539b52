"""Vectors in other tools' formats: nothing is lost, and Lucene ranks as FAISS does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr

from mimo_plugin.cli.index import export_command
from mimo_plugin.collections.pool import load
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.errors import ArtifactError, DataError, UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.build import index_vectors
from mimo_plugin.indexing.encode import encode_collections
from mimo_plugin.indexing.exporting import LUCENE_VECTORS, export_vectors
from mimo_plugin.indexing.importing import import_vectors
from mimo_plugin.indexing.settings import EncodeOptions, Format, IndexOptions, Part
from mimo_plugin.indexing.vectors import open_vectors

QUERIES = ["Suche Sprache", "haku kieli", "検索 言語", "Haus"]
DOCUMENTS = 50
LUCENE = [Format.LUCENE_FLAT, Format.LUCENE_HNSW]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(str(plain_xlmr(tmp_path_factory.mktemp("checkpoint"))))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = documents(DOCUMENTS)
    # Equal documents: their scores tie.
    for number in (5, 15, 25):
        rows[number] |= {"title": "", "text": "Suche Sprache"}
    return write_folder(tmp_path_factory.mktemp("folder"), rows)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory, spec: str, student: Encoder) -> Path:
    output = tmp_path_factory.mktemp("vectors") / "whole"
    encode_collections([spec], student, output, EncodeOptions(shard_size=20, progress=False))
    return output


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, vectors: Path) -> Path:
    return indexed(tmp_path_factory.mktemp("index") / "flat", vectors)


def indexed(output: Path, vectors: Path, factory: str = "Flat") -> Path:
    index_vectors(open_vectors([vectors]), output, IndexOptions(factory=factory, progress=False))
    return output


def exported(sources: list[Path], to: Format, output: Path, **options: Any) -> Any:
    return export_vectors(sources, to, output, progress=False, **options)


def rows_of(directory: Path) -> list[tuple[str, str, bytes]]:
    """(docid, language, bytes of the vector) of vectors that `mimo encode` wrote."""
    return [
        (docid, lang, vector.tobytes())
        for batch in open_vectors([directory]).batches()
        for docid, lang, vector in zip(*batch, strict=True)
    ]


def read_parquet(path: Path) -> list[tuple[str, str, bytes]]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    return [
        (row["docid"], row["lang"], np.asarray(row["vector"], dtype=np.float32).tobytes())
        for row in table.to_pylist()
    ]


def texts_of(spec: str) -> dict[str, str]:
    return {doc.doc_id: doc.text for doc in load(spec).docs_iter()}


@pytest.mark.parametrize("kind", ["vectors", "index"])
def test_files_hold_the_very_vectors(
    kind: str, vectors: Path, index: Path, spec: str, tmp_path: Path
) -> None:
    source = vectors if kind == "vectors" else index
    expected = rows_of(vectors)
    exported([source], Format.PARQUET, tmp_path / "a.parquet")
    assert read_parquet(tmp_path / "a.parquet") == expected
    exported([source], Format.JSONL, tmp_path / "b" / "embeddings.jsonl", text=True)
    texts = texts_of(spec)
    lines = [json.loads(line) for line in (tmp_path / "b" / "embeddings.jsonl").read_text().splitlines()]
    for line, (docid, _, vector) in zip(lines, expected, strict=True):
        assert list(line) == ["id", "contents", "vector"]
        assert (line["id"], line["contents"]) == (docid, texts[docid])
        assert np.asarray(line["vector"], dtype=np.float32).tobytes() == vector
    for name in ("a.parquet", "b/embeddings.jsonl"):
        import_vectors(
            [tmp_path / name], tmp_path / "back", options=EncodeOptions(resume=False, progress=False)
        )
        assert [row[::2] for row in rows_of(tmp_path / "back")] == [row[::2] for row in expected]


def test_lines_are_those_of_pyserini(vectors: Path, spec: str, tmp_path: Path) -> None:
    from mimo_plugin.pyserini.java import import_pyserini

    import_pyserini()
    from pyserini.encode import JsonlRepresentationWriter

    texts = texts_of(spec)
    writer = JsonlRepresentationWriter(str(tmp_path / "stock"))
    with writer:
        for batch in open_vectors([vectors]).batches():
            info = {
                "id": batch.docids,
                "text": [texts[docid] for docid in batch.docids],
                "vector": batch.vectors,
            }
            writer.write(info, ["text"])
    exported([vectors], Format.JSONL, tmp_path / "ours.jsonl", text=True)
    assert (tmp_path / "ours.jsonl").read_bytes() == (tmp_path / "stock" / "embeddings.jsonl").read_bytes()


def test_parts_are_joined(vectors: Path, spec: str, student: Encoder, tmp_path: Path) -> None:
    parts = []
    for number in (2, 1):
        part = tmp_path / f"part-{number}"
        options = EncodeOptions(shard=Part(number, 2), shard_size=20, progress=False)
        encode_collections([spec], student, part, options)
        parts.append(part)
    exported(parts, Format.PARQUET, tmp_path / "joined.parquet")
    assert read_parquet(tmp_path / "joined.parquet") == rows_of(vectors)
    exported(parts[:1], Format.JSONL, tmp_path / "second.jsonl", text=True)
    texts = texts_of(spec)
    for line in map(json.loads, (tmp_path / "second.jsonl").read_text().splitlines()):
        assert line["contents"] == texts[line["id"]]


@pytest.mark.parametrize("to", LUCENE)
def test_lucene_ranks_as_faiss_does(
    to: Format, vectors: Path, index: Path, student: Encoder, tmp_path: Path
) -> None:
    """Up to ties, with scores (1 + cosine) / 2."""
    source = vectors if to is Format.LUCENE_FLAT else index
    done = exported([source], to, tmp_path / "lucene", threads=1)
    assert (done.documents, done.already, done.warnings) == (DOCUMENTS, False, ())
    from pyserini.search.lucene import LuceneFlatDenseSearcher, LuceneHnswDenseSearcher

    searchers = {Format.LUCENE_FLAT: LuceneFlatDenseSearcher, Format.LUCENE_HNSW: LuceneHnswDenseSearcher}
    searcher = searchers[to](str(tmp_path / "lucene"))
    expected = {docid: np.frombuffer(vector, dtype=np.float32) for docid, _, vector in rows_of(vectors)}
    encoded = student.encode_queries(QUERIES)
    batch = searcher.batch_search(
        [json.dumps(vector.tolist()) for vector in encoded], list("abcd"), k=DOCUMENTS
    )
    for query, name in zip(encoded, "abcd", strict=True):
        scores = {docid: (1 + float(vector @ query)) / 2 for docid, vector in expected.items()}
        for hits in (searcher.search(json.dumps(query.tolist()), k=DOCUMENTS), batch[name]):
            assert {hit.docid for hit in hits} == set(scores)
            found = [hit.score for hit in hits]
            assert np.allclose(found, [scores[hit.docid] for hit in hits], atol=1e-6)
            assert np.allclose(found, sorted(scores.values(), reverse=True), atol=1e-6)
    searcher.close()
    again = exported([source], to, tmp_path / "lucene")
    assert again.already
    assert [path.name for path in tmp_path.iterdir()] == ["lucene"]


@pytest.mark.parametrize("factory", ["HNSW8", "IVF2,Flat"])
def test_indexes_that_keep_vectors_unchanged(factory: str, vectors: Path, tmp_path: Path) -> None:
    index = indexed(tmp_path / "index", vectors, factory)
    exported([index], Format.PARQUET, tmp_path / "out.parquet")
    assert read_parquet(tmp_path / "out.parquet") == rows_of(vectors)


@pytest.mark.parametrize("factory", ["SQ8", "PCA8,Flat"])
def test_indexes_that_do_not_are_refused(factory: str, vectors: Path, tmp_path: Path) -> None:
    index = indexed(tmp_path / "index", vectors, factory)
    with pytest.raises(ArtifactError, match=f"index of {factory}, which does not keep .* export its vectors"):
        exported([index], Format.PARQUET, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_large_shards_are_cut(tmp_path: Path) -> None:
    from pyarrow import parquet

    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((5000, 4)).astype(np.float32)
    np.save(tmp_path / "in.npy", matrix)
    (tmp_path / "in.docid").write_text("".join(f"d{number}\n" for number in range(5000)))
    import_vectors(
        [tmp_path / "in.npy"], tmp_path / "vectors", options=EncodeOptions(shard_size=5000, progress=False)
    )
    exported([tmp_path / "vectors"], Format.PARQUET, tmp_path / "out.parquet")
    assert [row[2] for row in read_parquet(tmp_path / "out.parquet")] == [row.tobytes() for row in matrix]
    assert parquet.ParquetFile(tmp_path / "out.parquet").num_row_groups == 2
    with pytest.raises(UsageError, match="were imported from .*in.npy: their texts are unknown"):
        exported([tmp_path / "vectors"], Format.JSONL, tmp_path / "out.jsonl", text=True)


def test_vectors_that_are_not_of_unit_length(spec: str, tmp_path: Path, student: Encoder) -> None:
    loose = Encoder(student.name, EncoderOptions(normalize=False))
    encode_collections([spec], loose, tmp_path / "v", EncodeOptions(progress=False))
    done = exported([tmp_path / "v"], Format.LUCENE_FLAT, tmp_path / "lucene")
    (warning,) = done.warnings
    assert "Lucene takes them to be of length 1" in warning
    from pyserini.search.lucene import LuceneFlatDenseSearcher

    searcher = LuceneFlatDenseSearcher(str(tmp_path / "lucene"))
    expected = {
        docid: np.frombuffer(vector, dtype=np.float32) for docid, _, vector in rows_of(tmp_path / "v")
    }
    for query in (loose.encode_queries(QUERIES[:1])[0], -loose.encode_queries(QUERIES[:1])[0]):
        for hit in searcher.search(json.dumps(query.tolist()), k=DOCUMENTS):
            assert hit.score == pytest.approx(max(0, (1 + float(expected[hit.docid] @ query)) / 2), abs=1e-4)


def test_what_lies_in_the_way(index: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for to in (Format.JSONL, Format.PARQUET):
        with pytest.raises(ArtifactError, match="taken exists already"):
            exported([index], to, taken)
    assert taken.read_text() == "mine"
    with pytest.raises(ArtifactError, match="taken is a file"):
        exported([index], Format.LUCENE_FLAT, taken)
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"full holds something else \(notes.txt\)"):
        exported([index], Format.LUCENE_FLAT, full)
    with pytest.raises(UsageError, match="is a directory"):
        exported([index], Format.JSONL, full)
    exported([index], Format.LUCENE_FLAT, tmp_path / "lucene")
    with pytest.raises(ArtifactError, match="an export made otherwise: kind is 'lucene-hnsw'"):
        exported([index], Format.LUCENE_HNSW, tmp_path / "lucene")
    next((tmp_path / "lucene").glob("*.fdt")).write_bytes(b"")
    with pytest.raises(ArtifactError, match="fdt has 0 bytes, the manifest says"):
        exported([index], Format.LUCENE_FLAT, tmp_path / "lucene")


def test_what_a_kill_leaves_and_a_second_writer(index: Path, tmp_path: Path) -> None:
    output = tmp_path / "lucene"
    (output / "exporting").mkdir(parents=True)
    for name in ("exporting/000000.parquet", "_0.fdt", "write.lock"):
        (output / name).write_text("cut sho")
    with (
        Artifact(output, LUCENE_VECTORS).held(),
        pytest.raises(ArtifactError, match=r"is being written by process \d+"),
    ):
        exported([index], Format.LUCENE_FLAT, output)
    exported([index], Format.LUCENE_FLAT, output)
    assert Artifact(output, LUCENE_VECTORS).verify().kind == "lucene-flat"
    assert not (output / "exporting").exists()


def test_sources_are_checked(index: Path, vectors: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    for sources, message in (
        ([tmp_path / "none"], "no such directory"),
        ([tmp_path], "has no manifest.json"),
        ([index, vectors], "one index, or directories of vectors, were expected"),
    ):
        with pytest.raises((ArtifactError, UsageError), match=message):
            exported(sources, Format.JSONL, output)
    with pytest.raises(UsageError, match="--text: only jsonl takes texts, not parquet"):
        exported([index], Format.PARQUET, tmp_path / "out.parquet", text=True)


def test_a_collection_that_has_changed(student: Encoder, tmp_path: Path) -> None:
    spec = write_folder(tmp_path / "folder", documents(6))
    encode_collections([spec], student, tmp_path / "v", EncodeOptions(progress=False))
    write_folder(tmp_path / "folder", documents(3))
    with pytest.raises(DataError, match="has no document d3 at the place of its vector"):
        exported([tmp_path / "v"], Format.JSONL, tmp_path / "out.jsonl", text=True)
    assert not (tmp_path / "out.jsonl").exists()


def test_command(index: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    arguments = [str(index), "--to", "parquet", "--output", str(output), "--no-progress"]
    found = CliRunner().invoke(export_command, arguments, catch_exceptions=False)
    assert found.exit_code == 0
    assert found.stdout == f"{output}: {DOCUMENTS} vectors, 32 dimensions, parquet\n"
