"""`build_index`: what it writes, what it refuses, and that a kill at any moment costs at most a shard."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from helpers import processes
from helpers.beir import documents, write_folder
from helpers.limits import no_file_beyond

from mimo_plugin.cli import main
from mimo_plugin.collections.dataset import collection
from mimo_plugin.collections.pool import load
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.errors import ArtifactError, DataError, EnvironmentProblem, UsageError
from mimo_plugin.encoder.encoder import Encoder, NotFinite
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.build import index
from mimo_plugin.indexing.build import index as build_index
from mimo_plugin.indexing.faiss import sample_evenly
from mimo_plugin.indexing.importing import import_vectors
from mimo_plugin.indexing.open import INDEXES, Index, index_at
from mimo_plugin.indexing.settings import EncodeOptions, IndexOptions
from mimo_plugin.indexing.vectors import Shards, Vectors, open_vectors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_folder(tmp_path_factory.mktemp("folder"), documents(50))


Build = Callable[..., Index]


@pytest.fixture
def build(folder: str, student: Encoder, tmp_path: Path) -> Build:
    def run(spec: str = folder, output: Path = tmp_path / "index", **options: object) -> Index:
        settings = IndexOptions(**{"shard_size": 16, "progress": False, **options})
        return build_index([spec], student, output, settings)

    return run


def content(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if path.is_file()
    }


@pytest.mark.threads
def test_index_holds_every_document_in_order(build: Build, student: Encoder, tmp_path: Path) -> None:
    built = build()
    rows = documents(50)
    index = faiss.read_index(str(tmp_path / "index" / "index"))
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    assert (tmp_path / "index" / "docid").read_text().splitlines() == [row["_id"] for row in rows]
    assert (tmp_path / "index" / "lang").read_text().splitlines() == [row["lang"] for row in rows]
    texts = [doc.text for doc in load(built.manifest.plan.collections[0]).docs_iter()]
    assert np.abs(index.reconstruct_n(0, 50) - student.encode_documents(texts)).max() <= 1e-6
    assert built.manifest.languages == {"de": 17, "fi": 17, "ja": 16}
    assert sorted(content(tmp_path / "index")) == ["docid", "index", "lang", "manifest.json"]
    assert not (tmp_path / "index" / "building").exists()
    assert index_at(tmp_path / "index").read() == built.manifest


@pytest.mark.threads
def test_shard_size_changes_no_vector_beyond_rounding(build: Build, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    build(output=one, shard_size=7)
    build(output=other, shard_size=1000)
    vectors = [faiss.read_index(str(path / "index")).reconstruct_n(0, 50) for path in (one, other)]
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-6


def test_same_command_again_changes_nothing(build: Build, tmp_path: Path) -> None:
    build()
    before = content(tmp_path / "index")
    again = build()
    assert again.already
    assert again.encoded == 0
    assert content(tmp_path / "index") == before


@pytest.mark.parametrize(
    "option", [{"factory": "SQ8"}, {"shard_size": 8}, {"seed": 7, "factory": "IVF2,Flat"}]
)
def test_complete_index_made_otherwise_is_not_touched(
    build: Build, tmp_path: Path, option: dict[str, object]
) -> None:
    build()
    before = content(tmp_path / "index")
    with pytest.raises(ArtifactError, match=next(iter(option))):
        build(**option)
    assert content(tmp_path / "index") == before
    build(**option, resume=False)
    assert index_at(tmp_path / "index").read().plan.model_dump()[next(iter(option))] == next(
        iter(option.values())
    )


def test_another_encoder_or_collection_is_named(
    build: Build, folder: str, tmp_path: Path, checkpoint: Path
) -> None:
    build()
    other_model = Encoder(str(checkpoint), EncoderOptions(pooling="cls"))
    with pytest.raises(ArtifactError, match="encoder_fingerprint"):
        build_index([folder], other_model, tmp_path / "index", IndexOptions(shard_size=16))
    changed = documents(50)
    changed[30]["text"] += " geändert"
    path = folder.removeprefix("path:")
    copy = write_folder(tmp_path / "copy", changed)
    assert Path(path).is_dir()
    with pytest.raises(ArtifactError, match=r"collection_fingerprint is .*; .*|collections is"):
        build(spec=copy)


def test_output_that_holds_something_else_is_refused(build: Build, tmp_path: Path) -> None:
    output = tmp_path / "index"
    output.mkdir()
    (output / "thesis.tex").write_text("four years of work")
    for resume in (True, False):
        with pytest.raises(ArtifactError, match=r"holds something else \(thesis.tex\)"):
            build(resume=resume)
    assert (output / "thesis.tex").read_text() == "four years of work"
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ArtifactError, match="is a file"):
        build(output=file)


def test_what_only_looks_like_an_index_is_not_deleted(build: Build, tmp_path: Path) -> None:
    for name in ("building/thesis.txt", "manifest.json", "index"):
        output = tmp_path / name.replace("/", "-")
        (output / name).parent.mkdir(parents=True)
        (output / name).write_text('{"four": "years of work"}')
        for resume in (True, False):
            with pytest.raises(ArtifactError, match="holds something else"):
                build(output=output, resume=resume)
        assert (output / name).read_text() == '{"four": "years of work"}'


def test_shards_without_their_plan_are_not_used(build: Build, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        build(factory="IVF64,Flat")
    work = tmp_path / "index" / "building"
    shards = Shards(work, 50, 16, 32)
    shards.write(0, shards.read(0)._replace(vectors=np.zeros((16, 32), dtype=np.float32)))
    (work / "plan.json").unlink()
    assert build().encoded == 50
    build(output=tmp_path / "whole")
    assert content(tmp_path / "index") == content(tmp_path / "whole")


def test_what_a_kill_left_is_cleared(build: Build, tmp_path: Path) -> None:
    build()
    before = content(tmp_path / "index")
    left = (".index.123.tmp", ".manifest.json.7.tmp", ".building.old/00000.parquet", "building/plan.json")
    for name in left:
        (tmp_path / "index" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "index" / name).write_text("left")
    (tmp_path / "index" / ".gitkeep").write_text("")
    assert build().already
    assert content(tmp_path / "index") == before | content(tmp_path / "index")
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == sorted([*before, ".gitkeep"])


def test_a_second_writer_is_refused_with_the_firsts_process(build: Build, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        build(factory="IVF64,Flat")
    directory = Artifact(tmp_path / "index", INDEXES)
    with directory.held(), pytest.raises(ArtifactError, match=f"written by process {os.getpid()} on "):
        build()
    assert build().resumed == 50


def test_a_finished_index_is_the_same_under_another_release(build: Build, tmp_path: Path) -> None:
    build()
    manifest = index_at(tmp_path / "index").read()
    plan = manifest.plan.model_copy(update={"versions": {**manifest.plan.versions, "torch": "1.0"}})
    Artifact(tmp_path / "index", INDEXES).seal(manifest.model_copy(update={"plan": plan}))
    assert build().already
    with pytest.raises(UsageError):
        build(output=tmp_path / "begun", factory="IVF64,Flat")
    path = tmp_path / "begun" / "building" / "plan.json"
    begun = json.loads(path.read_text())
    begun["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(begun))
    with pytest.raises(ArtifactError, match="versions is "):
        build(output=tmp_path / "begun")


@pytest.mark.threads
def test_factories(build: Build, tmp_path: Path) -> None:
    for factory in ("HNSW8", "SQ8", "IVF2,Flat", "PCA8,Flat"):
        build(output=tmp_path / factory, factory=factory)
        index = faiss.read_index(str(tmp_path / factory / "index"))
        assert index.ntotal == 50
        assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    for factory, message in (
        ("Flatt", "'Flatt' with 32 dimensions is not a FAISS index"),
        ("HNSW8_PQ4", "cannot build this kind with inner product"),
        ("IDMap,Flat", "leave IDMap out"),
    ):
        with pytest.raises(UsageError, match=message):
            build(output=tmp_path / "none", factory=factory)
    assert not (tmp_path / "none").exists()


def test_untrainable_factory_keeps_the_vectors(build: Build, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be trained on 50 vectors"):
        build(factory="IVF64,Flat")
    assert not (tmp_path / "index" / "manifest.json").exists()
    assert len(list((tmp_path / "index" / "building").glob("*.parquet"))) == 4
    # Factory and seed decide what is made of the vectors, not the vectors.
    flat = build(factory="Flat", seed=7)
    assert (flat.resumed, flat.encoded) == (50, 0)


def test_duplicates_are_all_named_before_anything_is_encoded(build: Build, tmp_path: Path) -> None:
    rows = documents(30)
    rows[7]["_id"] = rows[20]["_id"] = "d1"
    rows[9]["_id"] = "d2"
    spec = write_folder(tmp_path / "folder", rows)
    with pytest.raises(DataError) as caught:
        build(spec=spec)
    assert "'d1' occurs 3 times" in str(caught.value)
    assert "'d2' occurs 2 times" in str(caught.value)
    assert not (tmp_path / "index").exists()


def test_duplicates_far_apart_are_found(build: Build, tmp_path: Path) -> None:
    rows = documents(50)
    rows[49]["_id"] = "d0"
    with pytest.raises(DataError, match="'d0' occurs 2 times"):
        build(spec=write_folder(tmp_path / "folder", rows))


def test_empty_texts_are_kept_counted_and_reported(build: Build, tmp_path: Path) -> None:
    rows = documents(10)
    rows[3] |= {"title": "", "text": ""}
    rows[4] |= {"title": "", "text": " \n"}
    built = build(spec=write_folder(tmp_path / "folder", rows))
    assert built.manifest.empty_documents == 2
    assert built.manifest.plan.documents == 10
    assert "2 documents have no text" in built.summary()
    assert np.isfinite(faiss.read_index(str(tmp_path / "index" / "index")).reconstruct_n(0, 10)).all()


def test_not_finite_vectors_name_the_document(folder: str, checkpoint: Path, tmp_path: Path) -> None:
    import torch

    broken = Encoder(str(checkpoint))
    with torch.no_grad():
        next(broken.model.parameters()).fill_(float("inf"))
    with pytest.raises(NotFinite, match="document d0"):
        build_index([folder], broken, tmp_path / "index", IndexOptions(progress=False))
    assert not (tmp_path / "index" / "manifest.json").exists()


def test_truncated_shard_is_named(build: Build, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        build(factory="IVF64,Flat")
    plan_dir = tmp_path / "index" / "building"
    shard = plan_dir / "00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="00001.parquet"):
        build(factory="IVF64,Flat")


def test_damaged_index_is_named(build: Build, tmp_path: Path) -> None:
    build()
    index = tmp_path / "index"
    docid = index / "docid"
    docid.write_text(docid.read_text()[:-1])
    with pytest.raises(ArtifactError, match="docid has .* bytes, the manifest says"):
        index_at(index).read()
    docid.unlink()
    with pytest.raises(ArtifactError, match="docid is missing"):
        index_at(index).read()
    (index / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="not the manifest of an index"):
        index_at(index).read()
    (index / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="expected an index"):
        index_at(index).read()
    with pytest.raises(ArtifactError, match="no such directory"):
        index_at(tmp_path / "nowhere").read()


def test_full_disk_is_refused_before_and_survived_while_writing(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
    with pytest.raises(EnvironmentProblem, match="has 1000 B free and 12.5 KiB are needed"):
        build()
    monkeypatch.undo()
    for limit, file in ((1500, "00000.parquet"), (6000, "index")):
        message = f"cannot write .*{file}: File too large"
        with no_file_beyond(limit), pytest.raises(EnvironmentProblem, match=message):
            build()
        assert not list((tmp_path / "index").rglob("*.tmp"))
        assert not (tmp_path / "index" / "manifest.json").exists()
    assert build().resumed == 50


def test_training_sample_is_even_over_languages(student: Encoder, tmp_path: Path) -> None:
    order = ["de"] * 90 + ["fi"] * 20 + ["ja"] * 4
    vectors = stored(order, tmp_path)
    rows, sample = sample_evenly(vectors, 30, seed=1)
    assert rows.tolist() == sample[:, 0].tolist()
    assert np.bincount(sample[:, 1].astype(int)).tolist() == [13, 13, 4]
    assert len(np.unique(sample[:, 0])) == 30
    assert np.array_equal(sample, sample_evenly(vectors, 30, seed=1).vectors)
    assert not np.array_equal(rows, sample_evenly(vectors, 30, seed=2).rows)
    assert len(sample_evenly(vectors, 1000, seed=1).rows) == 114


def stored(order: list[str], directory: Path) -> Vectors:
    """Vectors (row, number of its language), imported from an array."""
    languages = sorted(set(order))
    rows = [[row, languages.index(lang)] for row, lang in enumerate(order)]
    np.save(directory / "rows.npy", np.asarray(rows, dtype=np.float32))
    (directory / "rows.docid").write_text("".join(f"{row}\n" for row in range(len(order))))
    (directory / "rows.lang").write_text("".join(f"{lang}\n" for lang in order))
    options = EncodeOptions(shard_size=10, progress=False)
    import_vectors([directory / "rows.npy"], directory / "vectors", options)
    return open_vectors([directory / "vectors"])


@pytest.mark.threads
@pytest.mark.slow
def test_killed_and_started_again_it_is_byte_identical(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_folder(tmp_path / "folder", documents(400))
    command = ["index", spec, "--encoder", str(checkpoint), "--batch-size", "4", "--shard-size", "25"]
    assert main([*command, "--output", str(tmp_path / "whole")]) == 0
    output = tmp_path / "killed"
    command += ["--output", str(output)]
    for shards in (1, 6):
        process = processes.command(*command)
        processes.kill(process, lambda least=shards: len(list(output.glob("building/*.parquet"))) >= least)
        assert not (output / "manifest.json").exists()
    capsys.readouterr()
    assert main(command) == 0
    assert "documents were encoded before and kept" in capsys.readouterr().out
    assert content(output) == content(tmp_path / "whole")


def test_records_in_memory_are_indexed_under_their_fingerprint(
    student: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {row["_id"]: row for row in documents(5)}
    own = collection(docs=rows)
    built = index(own, student, tmp_path / "index", progress=False)
    assert built.manifest.plan.collections == own.specs
    again = index(collection(docs=rows, queries=["new"]), student, tmp_path / "index", progress=False)
    assert again.manifest == built.manifest
    changed = collection(docs={**rows, "d0": "another text"})
    with pytest.raises(ArtifactError, match="holds an index made otherwise"):
        index(changed, student, tmp_path / "index", progress=False)
    export = ["export", str(tmp_path / "index"), "--to", "jsonl", "--text", "--output", str(tmp_path / "x")]
    assert main(export) == 1
    assert f"{own.specs[0]}: a collection in memory cannot be opened by name" in capsys.readouterr().err
