"""The encoder that most tests of indexes use."""

from pathlib import Path

import pytest
from helpers.checkpoints import plain_xlmr

from mimo_plugin.encoder.encoder import Encoder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_xlmr(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def student(checkpoint: Path) -> Encoder:
    return Encoder(str(checkpoint))
