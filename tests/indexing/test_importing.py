"""Vectors from elsewhere: the three kinds of files, alike, and all that can be wrong with them."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.cli import main
from mimo_plugin.core.errors import ArtifactError, DataError, UsageError
from mimo_plugin.indexing.importing import import_vectors, rebatched
from mimo_plugin.indexing.settings import EncodeOptions
from mimo_plugin.indexing.vectors import VectorBatch, open_vectors

VECTORS = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
DOCIDS = [f"d{number}" for number in range(50)]
LANGS = ["de" if number % 2 else "sw" for number in range(50)]


def write(directory: Path, kind: str, rows: range = range(50), name: str = "them") -> Path:
    path = directory / f"{name}.{kind}"
    docids, langs = [DOCIDS[row] for row in rows], [LANGS[row] for row in rows]
    if kind == "npy":
        np.save(path, VECTORS[rows])
        (directory / f"{name}.docid").write_text("".join(f"{docid}\n" for docid in docids))
        (directory / f"{name}.lang").write_text("".join(f"{lang}\n" for lang in langs))
    elif kind == "parquet":
        columns = {"id": docids, "language": langs, "embedding": [VECTORS[row].tolist() for row in rows]}
        pa.parquet.write_table(pa.table(columns), path)
    else:
        lines = "".join(
            json.dumps(
                {"id": DOCIDS[row], "contents": "", "vector": VECTORS[row].tolist(), "lang": LANGS[row]}
            )
            + "\n"
            for row in rows
        )
        path.write_bytes(gzip.compress(lines.encode()) if kind.endswith("gz") else lines.encode())
    return path


@pytest.mark.parametrize("kind", ["npy", "jsonl", "jsonl.gz", "parquet"])
def test_every_kind_gives_the_same_vectors(tmp_path: Path, kind: str) -> None:
    files = [write(tmp_path, kind, range(20), "a"), write(tmp_path, kind, range(20, 50), "b")]
    done = import_vectors(files, tmp_path / "vectors", EncodeOptions(shard_size=8, progress=False))
    assert done.manifest.languages == {"sw": 25, "de": 25}
    assert done.manifest.empty_documents is None
    batches = list(open_vectors([tmp_path / "vectors"]).batches())
    assert [len(batch.docids) for batch in batches] == [8] * 6 + [2]
    assert [docid for batch in batches for docid in batch.docids] == DOCIDS
    assert [lang for batch in batches for lang in batch.langs] == LANGS
    assert np.array_equal(np.concatenate([batch.vectors for batch in batches]), VECTORS)
    again = import_vectors(files, tmp_path / "vectors", EncodeOptions(shard_size=8, progress=False))
    assert again.already


def test_own_vectors_come_back_through_every_door(tmp_path: Path) -> None:
    import_vectors([write(tmp_path, "npy")], tmp_path / "one", EncodeOptions(shard_size=16, progress=False))
    parquet = sorted((tmp_path / "one").glob("*.parquet"))
    import_vectors(parquet, tmp_path / "two", EncodeOptions(shard_size=16, progress=False))
    assert [path.read_bytes() for path in parquet] == [
        path.read_bytes() for path in sorted((tmp_path / "two").glob("*.parquet"))
    ]


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 10))
def test_rebatching_keeps_every_document_in_order(sizes: list[int], size: int) -> None:
    count, batches = 0, []
    for some in sizes:
        rows = list(range(count, count + some))
        batches.append(VectorBatch([str(row) for row in rows], [""] * some, np.float32(rows).reshape(-1, 1)))
        count += some
    made = list(rebatched(iter(batches), size))
    assert [len(batch.docids) for batch in made] == [size] * (count // size) + [count % size] * bool(
        count % size
    )
    assert [docid for batch in made for docid in batch.docids] == [str(row) for row in range(count)]
    assert all(batch.vectors[:, 0].tolist() == list(map(float, batch.docids)) for batch in made)


def refused(tmp_path: Path, *files: Path, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        import_vectors(files, tmp_path / "vectors", **options)
    assert not (tmp_path / "vectors").exists()
    return str(caught.value)


def test_faulty_lines_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "them.jsonl"
    lines = [
        '{"id": "a", "vector": [1, 2]}',
        '{"id": "b", "vector": [1, "x"]}',
        '{"id": "c d", "vector": [1, 2]}',
        "{",
        '{"vector": [1, 2]}',
        '{"id": "e", "vector": [NaN, 2]}',
        '{"id": "f", "vector": [1, 2, 3]}',
        '{"docid": "g", "vector": []}',
    ]
    path.write_text("\n".join(lines))
    message = refused(tmp_path, path)
    for expected in (
        "them.jsonl:2: 'vector' is no list of numbers",
        "them.jsonl:3: 'id' 'c d' has white space",
        "them.jsonl:4: not valid JSON",
        "them.jsonl:5: key 'id' is missing",
        "them.jsonl:6: the vector holds NaN",
        "the vector of f has 3 dimensions, the one before it 2",
        "them.jsonl:8: 'vector' is no list of numbers",
    ):
        assert expected in message


def test_arrays_and_docids_that_do_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path, "npy")
    docids = tmp_path / "them.docid"
    docids.write_text("\n".join(DOCIDS[:40]))
    assert "them.docid: fewer lines than them.npy has vectors (50)" in refused(tmp_path, path)
    docids.write_text("\n".join([*DOCIDS, "more"]))
    assert "them.docid: more lines than them.npy has vectors (50)" in refused(tmp_path, path)
    docids.unlink()
    assert "them.docid is missing beside it" in refused(tmp_path, path)
    np.save(path, np.zeros(3, dtype=np.int64))
    assert "int64 of 1 axes, expected an array of floats" in refused(tmp_path, path)
    path.write_bytes(b"no array")
    assert "expected an array as numpy.save writes it" in refused(tmp_path, path)


def test_parquet_of_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "them.parquet"
    pa.parquet.write_table(pa.table({"text": ["a"]}), path)
    assert "columns text, expected one of docid, id" in refused(tmp_path, path)
    pa.parquet.write_table(pa.table({"id": ["a", "b"], "vector": [[1.0], [1.0, 2.0, 3.0]]}), path)
    assert "vectors of several lengths" in refused(tmp_path, path)
    pa.parquet.write_table(pa.table({"id": ["a", "b"], "vector": [[1.0], [float("nan")]]}), path)
    assert "vector 1 holds NaN" in refused(tmp_path, path)
    pa.parquet.write_table(pa.table({"id": [1, 2], "vector": [[1.0], [2.0]]}), path)
    assert "column id holds values that are no text" in refused(tmp_path, path)
    path.write_bytes(b"PAR1")
    assert "cannot be read as Parquet" in refused(tmp_path, path)


def test_docids_twice_and_dimensions_that_differ(tmp_path: Path) -> None:
    one = write(tmp_path, "npy")
    assert "'d0' occurs 2 times" in refused(tmp_path, one, write(tmp_path, "jsonl", range(1)))
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "x", "vector": [1, 2]}')
    assert "vectors of 2 and of 6 dimensions (at docid 'x')" in refused(tmp_path, one, other)


def test_files_of_no_known_kind(tmp_path: Path) -> None:
    (tmp_path / "them.csv").write_text("")
    with pytest.raises(UsageError) as caught:
        import_vectors([tmp_path / "them.csv", tmp_path / "nowhere.npy"], tmp_path / "vectors")
    assert "a file that ends in .npy" in str(caught.value)
    assert "nowhere.npy: no such file" in str(caught.value)


def test_from_the_command_line_to_a_search(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint = plain_xlmr(tmp_path / "checkpoint")
    rows = documents(12)
    spec = write_folder(tmp_path / "folder", rows, [{"_id": "q", "text": "Suche", "lang": "de"}])
    encode = ["encode", spec, "--encoder", str(checkpoint), "--shard-size", "5", "--output"]
    assert main([*encode, str(tmp_path / "own")]) == 0
    own = open_vectors([tmp_path / "own"])
    np.save(tmp_path / "them.npy", np.concatenate([batch.vectors for batch in own.batches()]))
    (tmp_path / "them.docid").write_text("".join(f"{row['_id']}\n" for row in rows))
    runs = []
    for name, source in (
        ("named", ["--encoder", str(checkpoint)]),
        ("unnamed", []),
    ):
        vectors, index, run = (tmp_path / f"{name}-{kind}" for kind in ("vectors", "index", "run"))
        imported = ["encode", "--import", str(tmp_path / "them.npy"), "--lang", "de", *source]
        assert main([*imported, "--output", str(vectors)]) == 0
        assert main(["index", "--vectors", str(vectors), "--output", str(index)]) == 0
        search = ["search", str(index), "--topics", spec, "--output", str(run)]
        assert main([*search, *([] if source else ["--encoder", str(checkpoint)])]) == 0
        runs.append(run.read_text())
    assert runs[0] == runs[1]
    assert main(["search", str(tmp_path / "unnamed-index"), "--topics", spec, "--output", "x"]) == 2
    assert "name the one for the queries with --encoder" in capfd.readouterr().err
    for arguments, found in (
        (["encode", spec, "--import", "x.npy"], "leave COLLECTION... out"),
        (["encode", "--import", "x.npy", "--max-length", "9"], "leave --max-length out"),
        (["encode"], "COLLECTION... with --encoder, or --import FILE..."),
        (["index", spec, "--vectors", "v"], "leave COLLECTION... out"),
        (["index", "--vectors", "v", "--pooled", "--device", "cpu"], "leave --pooled, --device out"),
        (["index"], "COLLECTION... with --encoder, or --vectors DIR..."),
    ):
        assert main([*arguments, "--output", "y"]) == 2
        assert found in capfd.readouterr().err


def test_the_encoder_that_is_named_must_fit(tmp_path: Path) -> None:
    message = refused(tmp_path, write(tmp_path, "npy"), encoder=str(plain_xlmr(tmp_path / "checkpoint")))
    assert "the vectors have 6 dimensions and" in message


def test_other_vectors_in_the_same_place_are_refused(tmp_path: Path) -> None:
    import_vectors([write(tmp_path, "npy")], tmp_path / "vectors")
    with pytest.raises(ArtifactError, match="holds vectors made otherwise"):
        import_vectors([write(tmp_path, "jsonl")], tmp_path / "vectors")
