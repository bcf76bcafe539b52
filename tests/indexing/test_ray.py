"""`mimo encode --ray`: the same bytes as on one machine, whatever happens to the others."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.cli import main
from mimo_plugin.collections.pool import load
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.errors import DataError, EnvironmentProblem, ModelError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.encode import encode_collections
from mimo_plugin.indexing.plan import EncodingPlan
from mimo_plugin.indexing.ray import Workers, share_out
from mimo_plugin.indexing.ray_worker import (
    RayEncoder,
    Work,
    find_terms,
    make_row,
    read_row,
    read_texts,
    trouble_row,
    vectors_of,
)
from mimo_plugin.indexing.settings import EncodeOptions, RayOptions
from mimo_plugin.indexing.vectors import VECTORS, Shards

SIZE = 10


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_xlmr(tmp_path_factory.mktemp("checkpoint"), hidden=64)


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A path that is short enough for the sockets that Ray makes below it."""
    with tempfile.TemporaryDirectory(prefix="r") as path:
        yield Path(path)


@pytest.mark.slow
def test_a_lost_node_changes_nothing(checkpoint: Path, tmp_path: Path, short_directory: Path) -> None:
    pytest.importorskip("ray.data", reason="Ray Data is not installed: pip install 'mimo-plugin[ray]'")
    spec = write_folder(tmp_path / "folder", documents(70 * SIZE))
    local, output = tmp_path / "local", tmp_path / "vectors"
    student = Encoder(str(checkpoint), EncoderOptions(batch_size=2))
    options = EncodeOptions(shard_size=SIZE, progress=False)

    def encode(directory: Path) -> int:
        return encode_collections([spec], student, directory, options).encoded

    encode(local)
    # A local run was cut short, and Ray goes on with it.
    plan = student_plan(local)
    begin(output, plan, local, range(3))
    script = Path(__file__).parents[1] / "helpers" / "ray_cluster.py"
    command = ["encode", spec, "--encoder", checkpoint, "--batch-size", "2", "--shard-size", str(SIZE)]
    done = subprocess.run(
        [sys.executable, script, output, "8", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HOME": tmp_path, "RAY_TMPDIR": short_directory},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "30 documents were encoded before and kept, 670 now" in done.stdout
    assert "ray" not in done.stdout.replace(str(output), "").lower()
    assert 8 <= int((tmp_path / "killed").read_text()) < 65
    assert files(output) == files(local)
    # Ray was cut short, and a local run goes on.
    begin(tmp_path / "again", plan, output, range(40, 70))
    assert encode(tmp_path / "again") == 40 * SIZE
    assert files(tmp_path / "again") == files(local)


def student_plan(vectors: Path) -> str:
    return Artifact(vectors, VECTORS).read().plan.model_dump_json()


def begin(output: Path, plan: str, source: Path, shards: range) -> None:
    """Leaves in a directory what a run leaves that was killed after some shards."""
    output.mkdir()
    (output / "plan.json").write_text(plan)
    for shard in shards:
        for kind in ("parquet", "json"):
            shutil.copy(source / f"{shard:05d}.{kind}", output)


@pytest.fixture(scope="module")
def work(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    directory = tmp_path_factory.mktemp("work")
    write_folder(directory / "folder", documents(25))
    return Work(("path:folder",), None, False, directory, None, str(checkpoint), EncoderOptions(), SIZE, 1)


def terms_of(work: Work) -> EncodingPlan:
    return EncodingPlan.model_validate(read_row(find_terms(work))[1])


def test_workers_make_what_the_student_makes(work: Work, checkpoint: Path, tmp_path: Path) -> None:
    encoder = RayEncoder(work, terms_of(work))
    # Paths of collections are relative to where the command runs.
    rows = list(read_texts(None, work, Shards(tmp_path, 25, SIZE, 64), [0, 2]))
    docs = list(load(f"path:{work.directory / 'folder'}").docs_iter())
    for row, some in zip(rows, (docs[:10], docs[20:]), strict=True):
        shard, batch, empty = vectors_of(encoder(row))
        assert (shard, batch.docids) == (docs.index(some[0]) // SIZE, [doc.doc_id for doc in some])
        assert batch.langs == [doc.lang for doc in some]
        assert empty == 0
        vectors = Encoder(str(checkpoint)).encode_documents([doc.text for doc in some])
        assert np.array_equal(batch.vectors, vectors)


def test_errors_of_workers_come_back_as_ours(work: Work, tmp_path: Path) -> None:
    terms = terms_of(work)
    missing = Work(**{**vars(work), "encoder": str(tmp_path / "nowhere")})
    with pytest.raises(ModelError, match="nowhere: no such directory"):
        read_row(find_terms(missing))
    row = make_row(0, [["d", "de", "text"]])
    with pytest.raises(ModelError, match="nowhere: no such directory"):
        read_row(RayEncoder(missing, terms)(row))
    other = Work(**{**vars(work), "encoder_options": EncoderOptions(pooling="cls")})
    with pytest.raises(EnvironmentProblem, match="would make other vectors than the first one: .*pooling"):
        read_row(RayEncoder(other, terms)(row))
    encoder = RayEncoder(work, terms)
    next(encoder._encoder.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(ModelError, match="gives NaN or infinity for document d"):
        read_row(encoder(row))
    # The collection is not as it was surveyed; the worker hands that on.
    (last,) = read_texts(None, work, Shards(tmp_path, 35, SIZE, 64), [3])
    with pytest.raises(Exception, match="the collection has changed since it was surveyed"):
        read_row(encoder(last))


TEXT = st.text(st.characters(exclude_categories=()))


@given(st.lists(st.tuples(TEXT, st.sampled_from(["de", ""]), TEXT), min_size=1), st.integers(0, 9**9))
def test_nothing_is_lost_on_the_way(docs: list[tuple[str, str, str]], shard: int) -> None:
    assert read_row(make_row(shard, docs)) == (shard, [list(doc) for doc in docs])
    vectors = np.random.default_rng(0).normal(size=(len(docs), 3)).astype("<f4")
    docids, langs = [doc[0] for doc in docs], [doc[1] for doc in docs]
    content = {"docids": docids, "langs": langs, "empty": 1}
    found, there, empty = vectors_of(make_row(shard, content, vectors.tobytes()))
    assert (found, there.docids, there.langs, empty) == (shard, docids, langs, 1)
    assert np.array_equal(there.vectors, vectors)


def test_an_error_of_no_class_of_ours_is_one_line() -> None:
    with pytest.raises(DataError, match="^a\nb$"):
        read_row(trouble_row(DataError("a\nb")))
    with pytest.raises(EnvironmentProblem, match=r"^a Ray worker on \S+ failed: MemoryError: out of it$"):
        read_row(trouble_row(MemoryError("out\n  of it")))


@pytest.mark.parametrize(
    ("machines", "device", "options", "expected"),
    [
        ([{"CPU": 2}], None, RayOptions(), Workers(1, 2, 0)),
        ([{"CPU": 64}, {"CPU": 12}], None, RayOptions(), Workers(12, 6, 0)),
        ([{"CPU": 64}, {"CPU": 12}], None, RayOptions(cpus=16), Workers(4, 16, 0)),
        ([{"CPU": 0}, {"CPU": 8}], None, RayOptions(), Workers(1, 8, 0)),
        ([{"CPU": 32, "GPU": 8}, {"CPU": 4}], None, RayOptions(), Workers(8, 1, 1)),
        ([{"CPU": 32, "GPU": 2}], "cuda", RayOptions(gpus=0.5), Workers(4, 1, 0.5)),
        ([{"CPU": 2, "GPU": 8}], None, RayOptions(), Workers(2, 1, 1)),
        ([{"CPU": 32, "GPU": 8}], "cpu", RayOptions(), Workers(4, 8, 0)),
        ([{"CPU": 2}], None, RayOptions(workers=5), Workers(5, 2, 0)),
    ],
)
def test_a_worker_for_each_gpu_or_group_of_cores(
    machines: list[dict[str, float]], device: str | None, options: RayOptions, expected: Workers
) -> None:
    assert share_out(options, machines, device) == expected


def test_a_cluster_without_room() -> None:
    with pytest.raises(EnvironmentProblem, match="a worker of 4 CPUs and 0 GPUs, at most 2 and 0 were found"):
        share_out(RayOptions(cpus=4), [{"CPU": 2}], None)
    with pytest.raises(EnvironmentProblem, match="a worker of 1 CPUs and 1 GPUs, at most 2 and 0 were found"):
        share_out(RayOptions(gpus=1), [{"CPU": 2}], None)


@pytest.mark.enable_socket
def test_what_is_wrong_is_said_before_anything_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_folder(tmp_path / "folder", documents(3))
    encode = ["encode", spec, "--encoder", "nowhere", "--output", str(tmp_path / "vectors")]

    def said(*arguments: str) -> tuple[int, str]:
        return main([*encode, *arguments]), capfd.readouterr().err

    assert said("--ray-workers", "2")[0] == 2
    assert main(["encode", "--import", "x.npy", "--ray", "--output", "y"]) == 2
    assert "leave --ray out" in capfd.readouterr().err
    status, error = said("--ray", spec, "--device", "cuda:1")
    assert status == 2
    assert "HOST:PORT or auto was expected" in error
    assert "Ray gives each worker a GPU of its own, cuda was expected" in error
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    status, error = said("--ray")
    assert status == 1
    assert error.startswith("mimo: --ray 127.0.0.1:1: no Ray answers there")
    monkeypatch.setitem(sys.modules, "ray", None)
    status, error = said("--ray")
    assert status == 1
    assert "pip install 'mimo-plugin[ray]'" in error
    assert not (tmp_path / "vectors").exists()
