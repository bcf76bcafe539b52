"""A training run's directory: what says whose it is."""

from pathlib import Path

import pytest

from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.training.run import RunDirectory


@pytest.mark.parametrize(
    "content",
    [
        "options: null\nstage: stage2\nteacher: {vectors: {}}\n",
        "options: {}\nteacher: {vectors: 1.5}\n",
        "data: a path\n",
        "student: [a, list]\n",
        "teacher: 3\n",
    ],
)
def test_a_damaged_identity_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(ArtifactError, match=r"recipe\.yaml is damaged .*: start over with --no-resume"):
        RunDirectory(tmp_path).begun()
