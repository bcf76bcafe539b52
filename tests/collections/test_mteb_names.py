"""Folders by names that mean the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.collections.loading import matching_folders


@pytest.mark.parametrize(
    ("folders", "name", "found"),
    [
        (["MMLIR/Belebele_test"], "belebele", ["MMLIR/Belebele_test"]),
        (["MMLIR/MultiEup_test"], "multieup", ["MMLIR/MultiEup_test"]),
        (["x/MultiEuP-v2_test"], "multieup", ["x/MultiEuP-v2_test"]),
        (["MMLIR/XQuAD_test", "MMLIR/XQuAD_dev"], "xquad", ["MMLIR/XQuAD_test"]),
        (["a/XQuAD_dev", "MMLIR/XQuAD_dev"], "xquad", ["MMLIR/XQuAD_dev"]),
        (["xquad", "MMLIR/XQuAD_test"], "xquad", ["xquad"]),
        (["XQuAD_test", "MMLIR/XQuAD_test"], "xquad", ["XQuAD_test"]),
        (["a/XQuAD_test", "b/XQuAD_test"], "xquad", ["a/XQuAD_test", "b/XQuAD_test"]),
        (["a/b/XQuAD_test"], "xquad", []),
        (["a/MLQA_test", "mmlqa", "mlqa_train"], "mlqa", ["a/MLQA_test"]),
        (["sets/MLQA_test", "MLQA_test"], "sets/mlqa", ["sets/MLQA_test"]),
        (["anything/test", "Test"], "test", []),
        (["test", "anything/test"], "test", ["test"]),
    ],
)
def test_what_fits(folders: list[str], name: str, found: list[str]) -> None:
    assert matching_folders(folders, name) == found


@given(folders=st.lists(st.text("abAB_-/test12.", max_size=12)), name=st.text("abAB_-/test", max_size=8))
def test_what_is_found_is_there_and_the_name_itself_comes_first(folders: list[str], name: str) -> None:
    found = matching_folders(folders, name)
    assert set(found) <= set(folders)
    if found and name in folders and name in found:
        assert found == [name]
