"""`merge_indexes`: the whole from its parts, byte for byte, or a reason why not."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from helpers.beir import documents, write_folder

from mimo_plugin.collections.pool import pool_prefixes
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.errors import ArtifactError, DataError, EnvironmentProblem, UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.build import index as build_index
from mimo_plugin.indexing.build import merge_indexes
from mimo_plugin.indexing.open import INDEXES, index_at
from mimo_plugin.indexing.settings import IndexOptions, Part

FILES = ("index", "docid", "lang")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_folder(tmp_path_factory.mktemp("folder"), documents(90))


Build = Callable[..., Path]


@pytest.fixture(scope="module")
def build(folder: str, student: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Build:
    made: dict[tuple[object, ...], Path] = {}

    def run(factory: str = "Flat", part: str | None = None, spec: str = folder, **more: object) -> Path:
        pooled = bool(more.pop("pooled", False))
        key = (factory, part, spec, pooled, *sorted(more.items()))
        if key not in made:
            output = tmp_path_factory.mktemp("built") / "index"
            options = IndexOptions(factory=factory, shard=Part.parse(part), shard_size=8, progress=False)
            build_index([spec], student, output, replace(options, pooled=pooled, **more))
            made[key] = output
        return made[key]

    return run


def content(directory: Path, names: tuple[str, ...] = FILES) -> dict[str, str]:
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.parametrize("factory", ["Flat", "fp16", "HNSW8", "hnsw"])
def test_the_parts_make_the_whole_byte_for_byte(build: Build, tmp_path: Path, factory: str) -> None:
    parts = [build(factory, f"{number}/3") for number in (3, 1, 2)]
    merged = merge_indexes(parts, tmp_path / "merged", progress=False)
    whole = build(factory)
    assert content(tmp_path / "merged") == content(whole)
    assert merged.manifest == index_at(tmp_path / "merged").read()
    expected = index_at(whole).read()
    assert merged.manifest.plan == expected.plan
    assert merged.manifest.languages == expected.languages
    assert merged.manifest.empty_documents == expected.empty_documents
    assert sorted(path.name for path in (tmp_path / "merged").iterdir()) == [*sorted(FILES), "manifest.json"]


@pytest.mark.parametrize("factory", ["HNSW8", "SQ8", "IVF2,Flat"])
def test_exact_vectors_can_become_any_index(build: Build, tmp_path: Path, factory: str) -> None:
    parts = [build("Flat", f"{number}/2") for number in (1, 2)]
    merge_indexes(parts, tmp_path / "merged", factory=factory, progress=False)
    assert content(tmp_path / "merged") == content(build(factory))


def test_a_finished_merge_stays_and_another_one_is_refused(build: Build, tmp_path: Path) -> None:
    parts = [build("Flat", f"{number}/2") for number in (1, 2)]
    output = tmp_path / "merged"
    merge_indexes(parts, output, progress=False)
    before = content(output, (*FILES, "manifest.json"))
    assert merge_indexes(parts, output, progress=False).already
    with pytest.raises(ArtifactError, match="holds an index made otherwise: factory"):
        merge_indexes(parts, output, factory="HNSW8", progress=False)
    assert content(output, (*FILES, "manifest.json")) == before
    merge_indexes(parts, output, factory="HNSW8", resume=False, progress=False)
    assert index_at(output).read().plan.factory == "HNSW8"


def test_languages_made_apart(student: Encoder, build: Build, tmp_path: Path) -> None:
    rows = documents(40, languages=("de", "fi"))
    specs = [
        write_folder(tmp_path / lang, [row for row in rows if row["lang"] == lang]) for lang in ("de", "fi")
    ]
    parts = [build(spec=spec, pooled=True) for spec in specs]
    merged = merge_indexes(parts, tmp_path / "merged", progress=False)
    together = tmp_path / "together"
    options = IndexOptions(shard_size=8, progress=False)
    build_index(specs, student, together, options)
    assert content(tmp_path / "merged", ("docid", "lang")) == content(together, ("docid", "lang"))
    assert merged.manifest.plan.collections == tuple(specs)
    assert merged.manifest.plan.prefixes == pool_prefixes(specs)
    assert merged.manifest.languages == {"de": 20, "fi": 20}
    ours, theirs = (
        faiss.read_index(str(path / "index")).reconstruct_n(0, 40) for path in (tmp_path / "merged", together)
    )
    assert np.abs(ours - theirs).max() <= 1e-6


@pytest.mark.parametrize("factory", ["SQ8", "IVF2,Flat", "PCA8,Flat"])
def test_codes_learnt_apart_are_refused(build: Build, tmp_path: Path, factory: str) -> None:
    parts = [build(factory, f"{number}/2") for number in (1, 2)]
    with pytest.raises(ArtifactError, match="learns from its own vectors") as caught:
        merge_indexes(parts, tmp_path / "merged", progress=False)
    assert len(str(caught.value).splitlines()) == 2
    assert "mimo encode" in str(caught.value)
    assert not (tmp_path / "merged").exists()


def test_kinds_that_differ(build: Build, tmp_path: Path) -> None:
    parts = [build("Flat", "1/2"), build("HNSW8", "2/2")]
    with pytest.raises(UsageError, match=r"of different kinds \(HNSW8, flat\): say with --factory"):
        merge_indexes(parts, tmp_path / "merged", progress=False)
    merge_indexes(parts, tmp_path / "merged", factory="flat", progress=False)
    assert content(tmp_path / "merged") == content(build("Flat"))
    with pytest.raises(ArtifactError, match="keeps 16 bits a number"):
        merge_indexes([build("fp16", "1/2"), build("fp16", "2/2")], tmp_path / "other", factory="flat")


def test_what_does_not_belong_together_is_all_named(
    build: Build, checkpoint: Path, folder: str, tmp_path: Path
) -> None:
    other = Encoder(str(checkpoint), EncoderOptions(pooling="cls", max_length=16))
    output = tmp_path / "other"
    options = IndexOptions(shard=Part(2, 2), shard_size=8, progress=False)
    build_index([folder], other, output, options)
    with pytest.raises(ArtifactError) as caught:
        merge_indexes([build("Flat", "1/2"), output], tmp_path / "merged", progress=False)
    for field in ("encoder_fingerprint", "max_length", "pooling"):
        assert field in str(caught.value)
    with pytest.raises(ArtifactError, match="part 2 of 3 is missing"):
        merge_indexes([build("Flat", "1/3"), build("Flat", "3/3")], tmp_path / "merged")
    with pytest.raises(UsageError, match="given twice"):
        merge_indexes([build("Flat", "1/2")] * 2, tmp_path / "merged")
    with pytest.raises(UsageError, match="is one of the indexes to merge"):
        merge_indexes([build("Flat", "1/2")], build("Flat", "1/2"), resume=False)
    assert not (tmp_path / "merged").exists()


def test_docids_in_two_indexes_are_named(build: Build, tmp_path: Path) -> None:
    rows = documents(20)
    for row in rows[2:]:
        row["_id"] = "other-" + row["_id"]
    other = build(spec=write_folder(tmp_path / "other", rows))
    with pytest.raises(DataError) as caught:
        merge_indexes([build(), other], tmp_path / "merged", progress=False)
    lines = str(caught.value).splitlines()
    assert [line.split(" ")[1] for line in lines] == ["'d0'", "'d1'"]
    assert f"is in {build()} and in {other}" in lines[0]
    assert not (tmp_path / "merged").exists()


def test_damage_is_named(build: Build, tmp_path: Path) -> None:
    parts = [build("Flat", "1/2"), Path(shutil.copytree(build("Flat", "2/2"), tmp_path / "part"))]
    for name in FILES:
        file = parts[1] / name
        before = file.read_bytes()
        file.write_bytes(before[:-2] + bytes([before[-2] ^ 1]) + before[-1:])
        with pytest.raises(ArtifactError, match=f"{name} does not have the SHA-256 that the manifest says"):
            merge_indexes(parts, tmp_path / "merged", progress=False)
        file.write_bytes(before)
    (parts[1] / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="expected an index"):
        merge_indexes(parts, tmp_path / "merged", progress=False)
    assert not (tmp_path / "merged").exists()


def test_an_interrupted_merge_is_no_index_and_can_be_run_again(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [build("Flat", f"{number}/2") for number in (1, 2)]
    output = tmp_path / "merged"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mimo_plugin.indexing.build._write_entries", killed)
    with pytest.raises(KeyboardInterrupt):
        merge_indexes(parts, output, progress=False)
    with pytest.raises(ArtifactError, match="expected an index"):
        index_at(output).read()
    monkeypatch.undo()
    merge_indexes(parts, output, progress=False)
    assert content(output) == content(build("Flat"))


def test_a_second_writer_is_refused(build: Build, tmp_path: Path) -> None:
    parts = [build("Flat", f"{number}/2") for number in (1, 2)]
    directory = Artifact(tmp_path / "merged", INDEXES)
    with directory.held(), pytest.raises(ArtifactError, match=f"written by process {os.getpid()} on "):
        merge_indexes(parts, tmp_path / "merged", progress=False)


def test_a_full_disk_is_refused_before_anything_is_written(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [build("Flat", f"{number}/2") for number in (1, 2)]
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
    with pytest.raises(EnvironmentProblem, match="has 1000 B free and 11.2 KiB are needed"):
        merge_indexes(parts, tmp_path / "merged", progress=False)
    assert not (tmp_path / "merged").exists()


def test_the_command(build: Build, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from mimo_plugin.cli.index import merge_command

    parts = [str(build("Flat", f"{number}/2")) for number in (1, 2)]
    done = CliRunner().invoke(merge_command, [*parts, "--output", str(tmp_path / "merged")])
    assert done.exit_code == 0
    assert "90 documents, 32 dimensions, Flat" in done.output
    assert json.loads((tmp_path / "merged" / "manifest.json").read_text())["plan"]["shard"] is None
