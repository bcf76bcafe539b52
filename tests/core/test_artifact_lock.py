"""One writer a directory, and what is left of a directory in which nothing came about."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.limits import no_file_beyond

from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem
from mimo_plugin.core.files import NOTE, one_writer


def test_a_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    with (
        one_writer(tmp_path),
        pytest.raises(ArtifactError, match=r"is being written by process \d+ on "),
        one_writer(tmp_path),
    ):
        pass


def test_a_new_directory_without_content_is_not_left_behind(tmp_path: Path) -> None:
    new = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt), one_writer(new):
        raise KeyboardInterrupt
    assert not new.exists()
    with one_writer(new):
        (new / "data").touch()
    assert [path.name for path in new.iterdir()] == ["data"]


def test_an_empty_directory_that_was_there_stays(tmp_path: Path) -> None:
    with one_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("again", [False, True])
def test_work_does_not_end_well_in_a_directory_that_is_gone(tmp_path: Path, again: bool) -> None:
    def work() -> None:
        with one_writer(held):
            held.rename(tmp_path / "removed")
            if again:
                (held / "another").mkdir(parents=True)

    held = tmp_path / "held"
    with pytest.raises(EnvironmentProblem, match="held was removed while it was written to: run the command"):
        work()
    assert held.exists() == again


def test_what_went_wrong_comes_before_a_directory_that_is_gone(tmp_path: Path) -> None:
    def work() -> None:
        with one_writer(held):
            held.rename(tmp_path / "removed")
            raise ArtifactError("what went wrong")

    held = tmp_path / "held"
    with pytest.raises(ArtifactError, match="what went wrong"):
        work()


def test_a_note_that_cannot_be_written_is_not_left_behind(tmp_path: Path) -> None:
    def hold(directory: Path) -> None:
        with one_writer(directory):
            raise RuntimeError("it cannot be held")

    for directory in (tmp_path, tmp_path / "new"):
        with (
            no_file_beyond(0),
            pytest.raises(EnvironmentProblem, match=r"cannot write .*\.writer: File too large"),
        ):
            hold(directory)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", [1, 2, 3, 4, 5])
def test_a_kill_while_the_note_is_written_leaves_nothing(tmp_path: Path, moment: int) -> None:
    kill = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from mimo_plugin.core.files import one_writer\n"
        "directory, left = Path(sys.argv[1]), int(sys.argv[2])\n"
        "def hook(event, arguments):\n"
        "    global left\n"
        "    if event in ('open', 'os.rename') and str(arguments[0]).startswith(f'{directory}'):\n"
        "        left -= 1\n"
        "        if not left:\n"
        "            os.kill(os.getpid(), 9)\n"
        "sys.addaudithook(hook)\n"
        "with one_writer(directory):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", kill, str(tmp_path), str(moment)], check=False)
    assert done.returncode == -9
    with one_writer(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [NOTE]
        assert (tmp_path / NOTE).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    assert list(tmp_path.iterdir()) == []
