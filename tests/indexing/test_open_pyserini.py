"""An index that Pyserini made, searched by us; and what may not be taken for one."""

import shutil
from pathlib import Path

import faiss
import numpy as np
import pytest
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr

from mimo_plugin.cli import main
from mimo_plugin.core.errors import ArtifactError, MimoError, UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.indexing.build import index as build_index
from mimo_plugin.indexing.search import search_to_run
from mimo_plugin.indexing.settings import IndexOptions, SearchOptions

QUERIES = [{"_id": "q1", "text": "Suche Sprache"}, {"_id": "q2", "text": "haku kieli"}]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(plain_xlmr(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_folder(tmp_path_factory.mktemp("folder"), documents(30), QUERIES, {"q1": {"d1": 1}})


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, checkpoint: str, spec: str) -> Path:
    output = tmp_path_factory.mktemp("ours") / "index"
    build_index([spec], Encoder(checkpoint), output, IndexOptions(progress=False))
    return output


def pyserinis(ours: Path, output: Path, end: str = "\n") -> Path:
    """What `pyserini.encode --to-faiss` writes: the vectors and a docid a line."""
    output.mkdir()
    shutil.copy(ours / "index", output / "index")
    docids = (ours / "docid").read_text().split()
    (output / "docid").write_bytes("".join(docid + end for docid in docids).encode())
    return output


def run(index: Path, spec: str, output: Path, **options: object) -> bytes:
    search_to_run(index, [spec], output, SearchOptions(**{"progress": False, "hits": 10, **options}))  # type: ignore[arg-type]
    return output.read_bytes()


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
def test_it_gives_the_run_of_our_own(
    ours: Path, spec: str, checkpoint: str, tmp_path: Path, end: str
) -> None:
    index = pyserinis(ours, tmp_path / "pyserini", end)
    assert run(index, spec, tmp_path / "a.trec", encoder=checkpoint) == run(ours, spec, tmp_path / "b.trec")
    assert not (index / "manifest.json").exists()


def test_it_does_not_say_its_encoder(ours: Path, spec: str, tmp_path: Path) -> None:
    index = pyserinis(ours, tmp_path / "pyserini")
    with pytest.raises(UsageError, match="does not say which encoder made its vectors: name the one"):
        run(index, spec, tmp_path / "a.trec")
    with pytest.raises(ArtifactError, match="gives 384 dimensions, the vectors in .* have"):
        run(index, spec, tmp_path / "a.trec", encoder="packaged:all-MiniLM-L6-v2")


def test_what_would_give_wrong_hits_is_refused(
    ours: Path, spec: str, checkpoint: str, tmp_path: Path
) -> None:
    index = pyserinis(ours, tmp_path / "pyserini")
    docids = (index / "docid").read_text()

    def refused(message: str) -> None:
        with pytest.raises(MimoError, match=message):
            run(index, spec, tmp_path / "a.trec", encoder=checkpoint)
        assert not (tmp_path / "a.trec").exists()

    (index / "docid").write_text(docids.replace("d7\n", ""))
    refused("holds 30 vectors and 29 docids")
    (index / "docid").write_text(docids.replace("d7\n", "d8\n"))
    refused("docid 'd8' is there 2 times")
    (index / "docid").write_text(docids.replace("d7\n", "d 7\n"))
    refused("docid 'd 7', expected one without white space")
    (index / "docid").write_text(docids)
    vectors = faiss.read_index(str(index / "index")).reconstruct_n(0, 30)
    distances = faiss.IndexFlatL2(vectors.shape[1])
    distances.add(np.ascontiguousarray(vectors))
    faiss.write_index(distances, str(index / "index"))
    refused("was built for distances, expected inner products")


def test_an_unfinished_index_of_ours_is_none_of_pyserinis(ours: Path, spec: str, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    shutil.copytree(ours, begun)
    (begun / "manifest.json").unlink()
    for name in ("lang", "building"):
        with pytest.raises(ArtifactError, match="expected an index: run the `mimo index` command"):
            run(begun, spec, tmp_path / "a.trec")
        (begun / "lang").unlink(missing_ok=True)
        (begun / "building").mkdir(exist_ok=True)
        assert name


def test_other_commands_say_what_it_is_for(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = str(pyserinis(ours, tmp_path / "pyserini"))
    for arguments in (["merge", index, str(ours)], ["export", index, "--to", "jsonl"]):
        assert main([*arguments, "--output", str(tmp_path / "out")]) == 1
        errors = capsys.readouterr().err
        assert "looks like an index that Pyserini made, which `mimo search` takes with --encoder" in errors
