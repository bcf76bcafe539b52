"""An index is built, resumed and searched in one number format, on whatever machine."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.beir import documents, write_folder
from helpers.logs import logs_a_warning, warnings_logged

from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.encoder import encoder as encoders
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.build import index, index_vectors
from mimo_plugin.indexing.encode import encode_collections
from mimo_plugin.indexing.importing import import_vectors
from mimo_plugin.indexing.open import Index, open_index
from mimo_plugin.indexing.ray_worker import Work
from mimo_plugin.indexing.search import load_query_encoder, search
from mimo_plugin.indexing.settings import EncodeOptions, IndexOptions, Part, SearchOptions
from mimo_plugin.indexing.vectors import Shards, open_vectors

pytestmark = pytest.mark.threads

AUTO = EncoderOptions(device="cpu")
OPTIONS = IndexOptions(shard_size=8, progress=False)
QUERIES = ["Haus Suche", "talo", "検索"]
Machine = Callable[[bool], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_folder(tmp_path_factory.mktemp("folder"), documents(40))


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(directory))
        patch.setattr("pathlib.Path.home", lambda: directory)
        yield directory / "mimo-plugin"


@pytest.fixture
def machine(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Goes on as on another machine, with or without native bfloat16."""
    monkeypatch.delenv("MIMO_BACKEND", raising=False)

    def become(native: bool) -> None:
        shutil.rmtree(caches / "encoders", ignore_errors=True)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)

    become(True)
    return become


def build(folder: str, checkpoint: Path, output: Path) -> Index:
    return index(folder, str(checkpoint), output, OPTIONS, AUTO)


def formats(directory: Path) -> tuple[str, str]:
    """Of an index, and of the encoder that a search of it loads."""
    opened = open_index(directory)
    return opened.manifest.plan.dtype, load_query_encoder([opened], SearchOptions(), None).options.dtype


@pytest.mark.slow
@pytest.mark.usefixtures("machine")
def test_the_documents_decide_and_the_manifest_says_so(
    folder: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build(folder, checkpoint, tmp_path / "rough")
    assert formats(tmp_path / "rough") == ("bfloat16", "bfloat16")
    reason = "the smallest cosine of 40 documents between bfloat16 and float32 is "
    assert f"computed in bfloat16: {reason}" in built.summary()
    monkeypatch.setattr(encoders, "NEAR", 1.1)
    exact = build(folder, checkpoint, tmp_path / "exact")
    assert formats(tmp_path / "exact") == ("float32", "float32")
    assert exact.manifest.plan.dtype_reason is not None
    # The encoder of the index is the one that a search uses.
    assert exact.encoder is not None
    assert exact.encoder.options.dtype == "float32"
    asked = index(folder, str(checkpoint), tmp_path / "asked", OPTIONS, replace(AUTO, dtype="float32"))
    assert asked.manifest.plan.dtype_reason is None
    runs = [search(tmp_path / name, QUERIES, hits=5, progress=False) for name in ("exact", "asked")]
    assert dict(runs[0]) == dict(runs[1])


@pytest.mark.slow
@pytest.mark.parametrize("native", [True, False])
def test_another_machine_goes_on_in_the_same_format(
    folder: str,
    checkpoint: Path,
    tmp_path: Path,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    native: bool,
) -> None:
    machine(native)
    whole = build(folder, checkpoint, tmp_path / "whole")
    begun = whole.manifest.plan.dtype
    assert begun == ("bfloat16" if native else "float32")
    write = Shards.write

    def interrupted(shards: Shards, shard: int, *rest: object) -> None:
        if shard == 2:
            raise KeyboardInterrupt
        write(shards, shard, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(folder, checkpoint, tmp_path / "index")
    machine(not native)
    resumed = build(folder, checkpoint, tmp_path / "index")
    assert (resumed.resumed, resumed.encoded) == (16, 24)
    assert resumed.manifest.plan == whole.manifest.plan
    assert build(folder, checkpoint, tmp_path / "whole").already
    assert formats(tmp_path / "index") == (begun, begun)
    # An encoder that is loaded already follows, too, unless its format was asked for.
    encoder = Encoder(str(checkpoint), AUTO)
    assert encoder.options.dtype != begun
    assert index(folder, encoder, tmp_path / "index", OPTIONS).already
    found = load_query_encoder([open_index(tmp_path / "index")], SearchOptions(encoder=encoder), None)
    assert found.options.dtype == begun
    asked = Encoder(str(checkpoint), AUTO, dtype=encoder.options.dtype)
    with pytest.raises(ArtifactError, match=f"dtype is '{encoder.options.dtype}', there it is '{begun}'"):
        index(folder, asked, tmp_path / "index", OPTIONS)


def test_indexes_of_earlier_versions_stay_in_float32(
    folder: str, checkpoint: Path, tmp_path: Path, machine: Machine
) -> None:
    machine(False)
    build(folder, checkpoint, tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    # Earlier versions wrote no reason, and no checksum.
    del manifest["plan"]["dtype_reason"], manifest["checksum"]
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest))
    machine(True)
    assert build(folder, checkpoint, tmp_path / "index").already
    assert formats(tmp_path / "index") == ("float32", "float32")
    encoder = Encoder(str(checkpoint), AUTO)
    assert encoder.options.dtype == "bfloat16"
    exact = Encoder(str(checkpoint), AUTO, dtype="float32")
    runs = [
        search(tmp_path / "index", QUERIES, encoder=one, hits=5, progress=False)
        for one in (None, encoder, exact)
    ]
    assert dict(runs[0]) == dict(runs[1]) == dict(runs[2])


@pytest.mark.usefixtures("machine")
def test_parts_are_told_that_they_need_one_format(folder: str, checkpoint: Path, tmp_path: Path) -> None:
    options = EncodeOptions(shard_size=8, progress=False, shard=Part(1, 2))
    with logs_a_warning("--shard 1/2: --dtype auto is bfloat16 on this processor"):
        encode_collections(folder, str(checkpoint), tmp_path / "auto", options, AUTO)
    asked = replace(AUTO, dtype="bfloat16")
    with warnings_logged() as warnings:
        encode_collections(folder, str(checkpoint), tmp_path / "asked", options, asked)
    assert not any("--shard" in warning for warning in warnings)


@pytest.mark.usefixtures("machine")
def test_the_first_worker_of_a_cluster_decides_for_all(
    folder: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work((folder,), None, False, tmp_path, None, str(checkpoint), AUTO, 8, 1)
    monkeypatch.setattr(encoders, "NEAR", 1.1)
    terms = [work.load()[1], replace(work, sample=tuple(QUERIES)).load()[1]]
    assert [one.dtype for one in terms] == ["bfloat16", "float32"]
    # Why it was chosen is no difference between vectors.
    asked = replace(work, encoder_options=replace(AUTO, dtype="float32")).load()[1]
    assert asked.dtype_reason != terms[1].dtype_reason
    assert not asked.differences(terms[1])


@pytest.mark.usefixtures("machine")
def test_foreign_vectors_are_searched_in_float32(folder: str, checkpoint: Path, tmp_path: Path) -> None:
    vectors = np.eye(32, dtype=np.float32)[:5]
    np.save(tmp_path / "rows.npy", vectors)
    (tmp_path / "rows.docid").write_text("".join(f"d{row}\n" for row in range(5)))
    import_vectors([tmp_path / "rows.npy"], tmp_path / "vectors", encoder=str(checkpoint))
    index_vectors(open_vectors([tmp_path / "vectors"]), tmp_path / "index")
    assert formats(tmp_path / "index") == ("", "float32")
