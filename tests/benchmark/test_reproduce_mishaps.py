"""What may be lost, damaged, missing or asked otherwise between one `mimo reproduce` and the next."""

import gc
import os
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.beir import write_folder
from helpers.bench import LANGUAGES, parallel_folder, results, stamps, write_config
from helpers.checkpoints import plain_xlmr
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.benchmark.systems import Models, lengths
from mimo_plugin.benchmark.texts import NamedEncoder
from mimo_plugin.cli import main
from mimo_plugin.collections import pool
from mimo_plugin.core.errors import ModelError
from mimo_plugin.core.files import one_writer
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.vectors import Shards

_PLAIN: dict[str, Any] = {"fairness": None, "geometry": None}


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("checkpoints")
    return [str(plain_xlmr(directory / name, seed=seed)) for seed, name in enumerate("abc")]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> str:
    return parallel_folder(tmp_path_factory.mktemp("collection") / "parallel")


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: list[str], collection: str
) -> tuple[Path, list[str]]:
    """A finished output, and the command that made it; copy it before anything happens to it."""
    base = tmp_path_factory.mktemp("finished")
    config = write_config(base / "small.yaml", [collection], geometry=None)
    command = ["reproduce", str(config), "--encoder", checkpoints[0], "--no-bm25", "--output"]
    assert main([*command, str(base / "output")]) == 0
    return base / "output", command


def test_a_relevant_document_that_the_collection_lacks(
    finished: tuple[Path, list[str]], checkpoints: list[str], tmp_path: Path
) -> None:
    lacking = parallel_folder(tmp_path / "lacking")
    with (tmp_path / "lacking" / "qrels" / "test.tsv").open("a", encoding="utf-8") as lines:
        lines.write("de:q0\tde:gone\t1\n")
    config = write_config(tmp_path / "lacking.yaml", [lacking], geometry=None)
    output = tmp_path / "output"
    command = ["reproduce", str(config), "--encoder", checkpoints[0], "--no-bm25", "--output", str(output)]
    assert main(command) == 0
    found, whole = results(output), results(finished[0])
    assert any("de:gone" in warning for warning in found["warnings"])
    for name in ("peer", "language_mix", "same_language_preference", "cross_lingual_gap"):
        assert found["language_bias"]["a"][name] == whole["language_bias"]["a"][name]
    scores, before = (one["evaluation"]["runs"]["a"]["mean"]["recall@10"] for one in (found, whole))
    assert scores < before


def test_documents_that_do_not_tell_their_language(checkpoints: list[str], tmp_path: Path) -> None:
    docs = [{"_id": f"d{number}", "text": f"Haus {number}"} for number in range(30)]
    folder = write_folder(tmp_path / "folder", docs, [{"_id": "q", "text": "Haus"}], {"q": {"d1": 1}})
    config = write_config(tmp_path / "config.yaml", [folder])
    output = tmp_path / "output"
    command = ["reproduce", str(config), "--encoder", checkpoints[0], "--no-bm25", "--output", str(output)]
    assert main(command) == 0
    found = results(output)
    assert found["language_bias"] == {}
    assert found["geometry"] is None
    assert any("language bias left out" in warning for warning in found["warnings"])
    assert any("geometry left out" in warning for warning in found["warnings"])


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["all of it", "its end", "its manifest"])
def test_an_index_that_is_gone_or_damaged(
    finished: tuple[Path, list[str]], tmp_path: Path, lost: str
) -> None:
    output = tmp_path / "output"
    shutil.copytree(finished[0], output)
    command = [*finished[1], str(output)]
    (index,) = output.glob("indexes/a-*/all")
    whole = {file.name: file.read_bytes() for file in index.iterdir()}
    if lost == "all of it":
        shutil.rmtree(output / "indexes")
    elif lost == "its end":
        (index / "index").write_bytes(whole["index"][:-10])
    else:
        (index / "manifest.json").unlink()
    # The run is whole: nothing is encoded for it again.
    assert main(command) == 0
    found, before = results(output), results(finished[0])
    assert found["evaluation"] == before["evaluation"]
    assert any("its index is missing or damaged" in warning for warning in found["warnings"])
    assert found["language_bias"]["a"]["mrc"]["unscored"] > 0
    (output / "runs" / "a.json").unlink()
    assert main(command) == 0
    assert {file.name: file.read_bytes() for file in index.iterdir()} == whole
    again = results(output)
    assert again["warnings"] == before["warnings"]
    assert again["language_bias"] == before["language_bias"]


@pytest.mark.slow
def test_a_build_that_was_begun_otherwise(
    checkpoints: list[str],
    collection: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = str(write_config(tmp_path / "plain.yaml", [collection], **_PLAIN))
    output = tmp_path / "output"
    command = ["reproduce", config, "--encoder", checkpoints[0], "--no-bm25", "--output", str(output)]
    command += ["--shard-size", "2"]
    write = Shards.write

    def killed(shards: Shards, shard: int, *rest: Any) -> None:
        if shard == 3:
            raise Killed
        write(shards, shard, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Shards, "write", killed)
        with pytest.raises(Killed):
            main(command)
    # A shard counts when its record is there, which is written after it.
    left = 42 - 2 * len(list(output.glob("indexes/a-*/all/building/[0-9]*.json")))
    assert 0 < left < 42
    assert main([*command, "--dry-run"]) == 0
    assert f"{left} documents to encode" in capsys.readouterr().out
    assert main([*command, "--batch-size", "8"]) == 1
    assert "--no-resume" in capsys.readouterr().err
    assert main([*command, "--batch-size", "8", "--no-resume"]) == 0
    # A part of the time is no time.
    assert set(results(output)["systems"]["a"]["seconds"]) == {"index", "search"}


def test_the_seed_of_a_sample_that_nothing_is_trained_on(
    finished: tuple[Path, list[str]], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    shutil.copytree(finished[0], output)
    before = stamps(output, ("runs", "indexes"))
    assert main([*finished[1], str(output), "--seed", "7"]) == 0
    assert stamps(output, ("runs", "indexes")) == before


def test_damaged_geometry_is_measured_again(
    finished: tuple[Path, list[str]], collection: str, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    shutil.copytree(finished[0], output)
    config = write_config(tmp_path / "small.yaml", [collection])
    command = ["reproduce", str(config), *finished[1][2:], str(output)]
    assert main(command) == 0
    (file,) = (output / "geometry").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    leftover = output / "runs" / ".a.trec.gz.1.tmp"
    leftover.write_text("what a kill has left")
    assert main(command) == 0
    assert file.read_bytes() == whole
    assert not leftover.exists()


def test_a_dry_run_leaves_what_is_there(finished: tuple[Path, list[str]], tmp_path: Path) -> None:
    output = tmp_path / "output"
    shutil.copytree(finished[0], output)
    made = ("runs", "indexes", "report")
    before, config = stamps(output, made), (output / "config.yaml").read_bytes()
    assert main([*finished[1], str(output), "--languages", "de", "--dry-run"]) == 0
    assert (output / "config.yaml").read_bytes() == config
    assert stamps(output, made) == before


def test_two_writers(
    finished: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    with one_writer(output):
        assert main([*finished[1], str(output)]) == 1
        assert [path.name for path in output.iterdir()] == [".writer"]
    assert f"process {os.getpid()}" in capsys.readouterr().err


@pytest.mark.slow
def test_tukeys_test_is_of_all_pairs(checkpoints: list[str], collection: str, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "tukey.yaml", [collection], test="tukey-hsd", correction="none", **_PLAIN
    )
    command = ["reproduce", str(config), "--no-bm25", "--encoder"]
    assert main([*command, *checkpoints, "--output", str(tmp_path / "three")]) == 0
    evaluation = results(tmp_path / "three")["evaluation"]
    pairs = {(one["baseline"], one["run"]) for one in evaluation["comparisons"]}
    assert pairs == {("a", "b"), ("a", "c"), ("b", "c")}
    assert main([*command, *checkpoints[:2], "--output", str(tmp_path / "two")]) == 0
    assert results(tmp_path / "two")["evaluation"]["test"]["name"] == "student"


@pytest.mark.slow
def test_runs_alone_read_the_collection_once_for_all_of_them(
    collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    read_docs = pool._read_docs

    def counted(*source: Any) -> Any:
        passes.append(source)
        yield from read_docs(*source)

    monkeypatch.setattr(pool, "_read_docs", counted)
    files = []
    for name in "xyz":
        files.append(str(tmp_path / f"{name}.trec"))
        hits = [f"de:q0 Q0 {lang}:{rank} 0 {-rank} x\n" for rank in range(10) for lang in LANGUAGES[:1]]
        Path(files[-1]).write_text("".join(hits))
    config = write_config(tmp_path / "runs.yaml", [collection], geometry=None, measures=["ndcg@5", "map"])
    command = ["reproduce", str(config), "--no-bm25", "--output", str(tmp_path / "output"), "--run", *files]
    assert main(command) == 0
    # To survey it, for the languages of what was found, and for the texts of the report's hits; then only
    # for the languages.
    assert len(passes) == 3
    assert main(command) == 0
    assert len(passes) == 4
    found = results(tmp_path / "output")
    assert any("map" in warning and "'x'" in warning for warning in found["warnings"])
    assert "run x" in found["provenance"]["fingerprints"]


def test_one_model_is_in_memory_at_a_time(checkpoints: list[str], tmp_path: Path) -> None:
    models = Models(EncoderOptions(device="cpu"))
    encoders = [NamedEncoder(checkpoint, checkpoint) for checkpoint in checkpoints[:2]]
    facts = [models.facts(encoder) for encoder in encoders]
    first = weakref.ref(models.load(encoders[0], facts[0]).model)
    models.load(encoders[1], facts[1])
    gc.collect()
    assert first() is None
    shutil.copytree(checkpoints[0], tmp_path / "model")
    changing = NamedEncoder("changing", str(tmp_path / "model"))
    before = models.facts(changing)
    models.release()
    shutil.copytree(checkpoints[1], changing.checkpoint, dirs_exist_ok=True)
    with pytest.raises(ModelError, match="has changed"):
        models.load(changing, before)


@given(
    st.lists(
        st.tuples(st.integers(1, 1000), st.lists(st.text(), min_size=1, max_size=40)), min_size=1, max_size=4
    )
)
def test_texts_that_stand_for_as_many_documents(collections: list[tuple[int, list[str]]]) -> None:
    parts: Any = [
        SimpleNamespace(documents=count, note=SimpleNamespace(sample=texts)) for count, texts in collections
    ]
    found = list(lengths(parts))
    every = [text for _, texts in collections for text in texts]
    assert len(found) == 16
    assert set(found) <= set(every)
    assert [len(text) for text in found] == sorted(len(text) for text in found)
