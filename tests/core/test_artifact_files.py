"""A file is whole or not there."""

import os
from pathlib import Path

import pytest

from mimo_plugin.core.errors import EnvironmentProblem, UsageError
from mimo_plugin.core.files import check_place, remove_tree, replacing, size_text, write_text


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    write_text(path, "old")
    with pytest.raises(ValueError, match="half-way"):
        _fail_half_way(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _fail_half_way(path: Path) -> None:
    with replacing(path) as beside:
        beside.write_text("ne")
        raise ValueError("half-way")


def test_a_file_system_that_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"cannot write .*/none/run.trec: No such file or directory"):
        write_text(tmp_path / "none" / "run.trec", "text")


def test_a_directory_that_somebody_else_removes_meanwhile_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    for number in range(3):
        (tree / "inner" / f"{number}.parquet").touch()
    unlink = os.unlink

    def overtaken(path: str, **named: int) -> None:
        unlink(path, **named)
        unlink(path, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", overtaken)
        with pytest.raises(EnvironmentProblem, match=f"cannot remove {tree}: No such file or directory"):
            remove_tree(tree)
    remove_tree(tree)
    assert not tree.exists()


def test_an_error_of_another_file_is_not_called_a_write_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "run.trec"):
        Path("/nowhere/corpus.jsonl").read_text()


def test_a_name_that_no_file_can_have_is_refused_before_the_work(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / ("x" * 300), "cannot be written: File name too long"),
        (tmp_path, "is a directory"),
    ):
        with pytest.raises(UsageError, match=message):
            check_place(path)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB")]
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text
