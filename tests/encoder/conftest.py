"""A tiny checkpoint, and a cache of graphs of the tests' own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.checkpoints import plain_xlmr, sentence_transformer


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(directory))
        patch.setattr("pathlib.Path.home", lambda: directory)
        yield directory / "mimo-plugin" / "graphs"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    prompts = {"query": "query: ", "document": "passage: "}
    return sentence_transformer(directory / "st", plain_xlmr(directory / "plain"), prompts=prompts)
