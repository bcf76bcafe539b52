"""A directory that a command writes: absent, empty, begun, finished, damaged, foreign."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from mimo_plugin.core.artifact import MANIFEST, Artifact, FileRecord, Kind, Manifest, differences
from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem, UsageError


class Box(Manifest):
    format: Literal["box"] = "box"
    color: str


UNMARKED = Kind(Box, frozenset({"box"}), "a box", "mimo box", re.compile(r"\d+\.txt|parts"))
WITH_FILE = replace(UNMARKED, mark="plan.json")
WITH_FOLDER = replace(UNMARKED, mark="work", mark_is_folder=True)
MARKED = replace(UNMARKED, mark="plan.json", mark_stays=True)
KINDS = pytest.mark.parametrize("kind", [WITH_FILE, WITH_FOLDER, MARKED, UNMARKED])


def make(path: Path, kind: Kind[Box]) -> Artifact[Box]:
    box = Artifact(path, kind)
    with box.held():
        box.begin("{}")
        (path / "1.txt").write_text("content")
        (path / "parts").mkdir()
        box.seal(Box(color="red", files={"1.txt": FileRecord.of(path / "1.txt")}))
    return box


@KINDS
def test_from_nothing_to_a_finished_directory(tmp_path: Path, kind: Kind[Box]) -> None:
    box = Artifact(tmp_path / "box", kind)
    box.check_output()
    assert box.finished() is None
    box = make(tmp_path / "box", kind)
    box.check_output()
    assert box.read() == box.verify() == box.finished()
    assert box.read().color == "red"
    marked = {kind.mark} if kind.mark_stays else set()
    assert {path.name for path in box.path.iterdir()} == {MANIFEST, "1.txt", "parts"} | marked


@KINDS
def test_starting_over_leaves_nothing_of_ours(tmp_path: Path, kind: Kind[Box]) -> None:
    box = make(tmp_path, kind)
    (tmp_path / ".hidden").touch()
    box.start_over()
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]


@KINDS
def test_a_kill_while_starting_over_leaves_what_the_command_takes(
    tmp_path: Path, kind: Kind[Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each file that is removed the directory is this command's, and never finished."""
    removed = []
    unlink = Path.unlink

    def watched(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        Artifact(tmp_path / "box", kind).check_output()
        if not path.name.startswith("."):
            removed.append(path.name)
            assert not box.manifest.exists()

    box = make(tmp_path / "box", kind)
    monkeypatch.setattr(Path, "unlink", watched)
    box.start_over()
    assert removed[0] == MANIFEST
    assert "1.txt" in removed


@pytest.mark.parametrize("kind", [WITH_FILE, WITH_FOLDER, MARKED])
def test_files_of_our_names_without_a_mark_are_somebody_elses(tmp_path: Path, kind: Kind[Box]) -> None:
    (tmp_path / "1.txt").touch()
    with pytest.raises(ArtifactError, match=r"holds something else \(1\.txt\): --output must name a new"):
        Artifact(tmp_path, kind).check_output()
    Artifact(tmp_path, kind).begin("{}")
    Artifact(tmp_path, kind).check_output()


@KINDS
def test_what_is_not_ours_is_refused_and_stays(tmp_path: Path, kind: Kind[Box]) -> None:
    box = make(tmp_path / "box", kind)
    (box.path / "thesis.tex").write_text("mine")
    with pytest.raises(ArtifactError, match=r"holds something else \(thesis\.tex\)"):
        box.check_output()
    box.start_over()
    assert (box.path / "thesis.tex").read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / MANIFEST).write_text('{"format": "crate"}')
    with pytest.raises(ArtifactError, match=r"manifest\.json of another kind"):
        Artifact(other, kind).check_output()
    with pytest.raises(ArtifactError, match="is a file: --output must name"):
        Artifact(other / MANIFEST, kind).check_output()
    with pytest.raises(UsageError, match="not a directory where you may write"):
        Artifact(other / MANIFEST / "box", kind).check_output()


def test_what_is_incomplete_or_damaged_is_said(tmp_path: Path) -> None:
    box = Artifact(tmp_path / "box", WITH_FILE)
    with pytest.raises(ArtifactError, match="no such directory, expected a box made by `mimo box`"):
        box.read()
    box.path.mkdir()
    with pytest.raises(
        ArtifactError, match=r"has no manifest\.json, expected a box: run the `mimo box` command"
    ):
        box.read()
    box = make(tmp_path / "box", WITH_FILE)
    (box.path / "1.txt").write_text("CONTENT")
    box.read()
    with pytest.raises(ArtifactError, match=r"1\.txt does not have the SHA-256 that the manifest says"):
        box.verify()
    (box.path / "1.txt").write_text("longer content")
    with pytest.raises(ArtifactError, match="14 bytes, the manifest says 7 bytes: a box that is corrupted"):
        box.read()
    box.manifest.write_text(box.manifest.read_text().replace("red", "rod"))
    with pytest.raises(ArtifactError, match="does not match its checksum"):
        box.finished()


def test_what_a_kill_left_half_written_goes(tmp_path: Path) -> None:
    box = make(tmp_path, WITH_FILE)
    (tmp_path / ".1.txt.77.tmp").touch()
    (tmp_path / ".work.old").mkdir()
    with box.held():
        assert not list(tmp_path.glob(".*.tmp")) + list(tmp_path.glob(".*.old"))


def test_what_was_made_otherwise_is_said(tmp_path: Path) -> None:
    box = make(tmp_path, WITH_FILE)
    box.refuse([])
    with pytest.raises(
        ArtifactError, match=r"holds a box made otherwise: color is 1, there it is 2\. Choose"
    ):
        box.refuse(["color is 1, there it is 2"])


@pytest.mark.parametrize("kind", [WITH_FILE, WITH_FOLDER])
def test_a_finished_directory_loses_the_mark_that_a_kill_left(tmp_path: Path, kind: Kind[Box]) -> None:
    box = make(tmp_path, kind)
    box.begin()
    with box.held():
        assert box.finished() is not None
    assert box.mark is not None
    assert not box.mark.exists()


def test_differences_name_both_sides() -> None:
    one, other = Box(color="red", files={}), Box(color="blue", files={})
    assert differences(one, other) == {"color": "color is 'red', there it is 'blue'"}
    assert differences(one, other, ignoring={"color"}) == {}


@pytest.mark.parametrize("kind", [WITH_FILE, WITH_FOLDER, MARKED])
def test_what_is_written_after_a_directory_was_removed_is_ours(tmp_path: Path, kind: Kind[Box]) -> None:
    box = Artifact(tmp_path / "box", kind)

    def work() -> None:
        with box.held():
            box.begin("{}")
            box.path.rename(tmp_path / "gone")
            box.path.mkdir()
            (box.path / "1.txt").touch()

    with pytest.raises(EnvironmentProblem, match="was removed while it was written to"):
        work()
    box.check_output()
    assert box.finished() is None


def test_an_interrupt_while_a_mark_is_removed_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupts, remove = [KeyboardInterrupt()], shutil.rmtree

    def interrupted(path: Path) -> None:
        if interrupts:
            raise interrupts.pop()
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "box", WITH_FOLDER)
    assert {path.name for path in (tmp_path / "box").iterdir()} == {MANIFEST, "1.txt", "parts"}
