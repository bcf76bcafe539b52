"""Full disks, damaged bytes, second writers and signals: one line, nothing that looks complete, and a way on.

`performance/reliability.py` does the same in real processes at random moments, and kills them.
"""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fault_world import Command, FaultWorld, differences, leftovers, unsound
from helpers.limits import no_file_beyond
from helpers.readers import READERS, Reader

from mimo_plugin.cli import main
from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.core.files import NOTES, one_writer
from mimo_plugin.indexing.vectors import Shards

COMMANDS = ("index", "encode", "data", "train", "reproduce", "search", "fuse", "evaluate")
HELD = {"index": ".", "encode": ".", "data": ".", "train": "stage1", "reproduce": "."}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> FaultWorld:
    made = FaultWorld.make(
        tmp_path_factory.mktemp("world") / "world", documents=40, steps=2, texts=4, encoders=1
    )
    made.prepare()
    return made


Whole = Callable[[str], tuple[Command, Path]]


@pytest.fixture(scope="module")
def whole(world: FaultWorld, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A command and what it makes when nothing goes wrong."""
    made: dict[str, Path] = {}

    def make(name: str) -> tuple[Command, Path]:
        command = world.commands()[name]
        if name not in made:
            made[name] = tmp_path_factory.mktemp("whole") / "output"
            assert main(command.arguments(made[name])) == 0
        return command, made[name]

    return make


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    others = ("mimo: warning: ", "mimo: loading encoder ")
    return [line for line in lines if line.startswith("mimo: ") and not line.startswith(others)]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk(whole: Whole, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file that is written last among the largest does not fit; then it does."""
    command, expected = whole(name)
    files = [expected] if expected.is_file() else [path for path in expected.rglob("*") if path.is_file()]
    output = tmp_path / "output"
    capsys.readouterr()
    # Less by more than what times and dates make of a file.
    with no_file_beyond(max(path.stat().st_size for path in files) * 9 // 10):
        assert main(command.arguments(output)) == 1
    (line,) = errors(capsys)
    assert "File too large" in line or "the disk is full" in line
    assert "What was complete before is kept" in line
    assert not command.complete(output)
    assert unsound(output) == []
    assert not [path for path in leftovers(output) if path.endswith((".tmp", ".old", *NOTES))]
    assert main(command.arguments(output)) == 0
    assert differences(command.content(output), command.content(expected)) == []
    assert leftovers(output) == []


@pytest.mark.parametrize("name", HELD)
def test_a_second_writer(
    world: FaultWorld, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, output = world.commands()[name], tmp_path / "output"
    held = output / HELD[name]
    with one_writer(held):
        assert main(command.arguments(output)) == 1
    (line,) = errors(capsys)
    assert f"{held} is being written by process {os.getpid()} on {socket.gethostname()}" in line


@pytest.mark.threads
@pytest.mark.parametrize("name", ["index", "encode"])
def test_interrupted(
    whole: Whole,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, expected = whole(name)
    output, write = tmp_path / "output", Shards.write

    def interrupted(shards: Shards, shard: int, *rest: Any) -> None:
        if shard == 2:
            raise KeyboardInterrupt
        write(shards, shard, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Shards, "write", interrupted)
        assert main(command.arguments(output)) == 130
    assert errors(capsys) == ["mimo: interrupted"]
    assert not command.complete(output)
    assert not [path for path in output.rglob("*") if path.suffix == ".tmp" or path.name in NOTES]
    assert main(command.arguments(output)) == 0
    assert differences(command.content(output), command.content(expected)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "last", "when"),
    [
        ("index", "manifest.json", "before"),
        ("index", "manifest.json", "after"),
        ("reproduce", "results.json", "after"),
    ],
)
def test_the_output_goes_away(
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    last: str,
    when: str,
) -> None:
    """Right before or after its last file is written."""
    command, expected = whole(name)
    output, replace = tmp_path / "output", Path.replace

    def removing(path: Path, target: Path) -> Path:
        if when == "before" and target.name == last:
            shutil.rmtree(output)
        placed = replace(path, target)
        if when == "after" and target == output / last:
            shutil.rmtree(output)
        return placed

    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", removing)
        assert main(command.arguments(output)) == 1
    (line,) = errors(capsys)
    assert "was removed while" in line
    assert not command.complete(output)
    assert main(command.arguments(output)) == 0
    assert differences(command.content(output), command.content(expected)) == []


SEALED = {
    "vectors: manifest and shard record": ("vectors/manifest.json", "vectors/00001.json"),
    "index: manifest, docid, lang": tuple(
        f"index/{file}" for file in ("manifest.json", "docid", "lang", "index", "texts.parquet")
    ),
    "BM25 index: manifest": ("manifest.json",),
    "training data: manifest": ("manifest.json",),
    "training run: manifest": ("manifest.json",),
    "teacher store: manifest": ("manifest.json", "keys"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEALED)
def test_not_a_byte_of_a_manifest_changes_unnoticed(name: str, tmp_path: Path) -> None:
    reader: Reader = READERS[name](tmp_path / "files")
    for file in SEALED[name]:
        content = (reader.directory / file).read_bytes()
        step = max(len(content) // 150, 1)
        for position in range(0, len(content), step):
            for byte in (content[position] ^ 1, ord(" ") if content[position] == ord("\n") else ord("\n")):
                changed = content[:position] + bytes([byte]) + content[position + 1 :]
                error = reader.attempt(file, changed)
                assert isinstance(error, ArtifactError), (file, position, byte)
                assert len(str(error).splitlines()) == 1
                assert str((reader.directory / file).parent) in str(error)
                assert Path(file).name in str(error)


def test_manifests_from_before_there_were_checksums(tmp_path: Path) -> None:
    import json

    reader = READERS["training data: manifest"](tmp_path / "files")
    manifest = json.loads((reader.directory / "manifest.json").read_bytes())
    del manifest["checksum"]
    assert reader.attempt("manifest.json", json.dumps(manifest).encode()) is None


def test_damaged_vectors_of_a_teacher_are_named(tmp_path: Path) -> None:
    from mimo_plugin.training.teacher_store import Role, TeacherStore, text_keys

    directory = READERS["teacher store: manifest"](tmp_path / "files").directory
    _write_keys(directory, text_keys("", [f"text {number}" for number in range(6)]))
    texts = ["text 1", "text 4"]
    assert np.all(TeacherStore.open(directory).vectors(texts, Role.PASSAGE) == 1)
    for name, width in (("vectors", 8), ("sums", 4)):
        content = (directory / name).read_bytes()
        for row, damaged in ((4, True), (3, False)):
            place = row * width + 1
            (directory / name).write_bytes(
                content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
            )
            store = TeacherStore.open(directory)
            if damaged:
                with pytest.raises(
                    ArtifactError, match=r"row 4 of .*vectors does not match its CRC-32 in .*sums"
                ):
                    store.vectors(texts, Role.PASSAGE)
            else:
                store.vectors(texts, Role.PASSAGE)
        (directory / name).write_bytes(content)


def _write_keys(directory: Path, keys: Any) -> None:
    import zlib

    from mimo_plugin.training.teacher_store import StoreDirectory

    (directory / "keys").write_bytes(keys.tobytes())
    store = StoreDirectory(directory)
    store.seal(store.read().model_copy(update={"keys_crc32": zlib.crc32(keys.tobytes())}))


@pytest.mark.slow
def test_damaged_weights_and_data_are_named(whole: Whole, world: FaultWorld, tmp_path: Path) -> None:
    from mimo_plugin.training.data import open_pairs
    from mimo_plugin.training.run import checkpoint_of

    _, output = whole("train")
    run = Path(shutil.copytree(output / "stage1", tmp_path / "run"))
    assert checkpoint_of(str(run)) == str(run / "model")
    for name in ("model/model.safetensors", "model/tokenizer.json", "projection.safetensors"):
        with _one_byte_changed(run / name), pytest.raises(ArtifactError, match=rf"{name} does not have"):
            checkpoint_of(str(run))
    data = Path(shutil.copytree(world.root / "pairs", tmp_path / "pairs"))
    rows = open_pairs(data).dataset[:]
    (copy,) = data.glob(".*.arrow")
    with _one_byte_changed(copy):
        assert open_pairs(data).dataset[:] == rows
    copy.unlink()
    with (
        _one_byte_changed(data / "pairs-00000.parquet"),
        pytest.raises(ArtifactError, match="does not have the SHA-256"),
    ):
        open_pairs(data)


@contextmanager
def _one_byte_changed(path: Path) -> Iterator[None]:
    content = path.read_bytes()
    place = len(content) // 2
    path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
    try:
        yield
    finally:
        path.write_bytes(content)
