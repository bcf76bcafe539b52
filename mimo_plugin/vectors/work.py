"""Vectors in the making: a plan, and the shards that are there so far."""

import re
from pathlib import Path

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import write_text, writing
from mimo_plugin.vectors.plan import EncodingPlan
from mimo_plugin.vectors.shards import SHARD_FILES, Shards

PLAN = "plan.json"
OURS = re.compile(rf"{PLAN}|{SHARD_FILES.pattern}|\..*\.tmp")


def take_up(directory: Path, plan: EncodingPlan) -> Shards:
    """The shards of a plan in a directory: those that an earlier command left under the same plan stay.

    Raises:
        ArtifactError: what lies here was begun under another plan.
        EnvironmentProblem: the directory cannot be written.
    """
    path = directory / PLAN
    if path.is_file():
        try:
            there = EncodingPlan.model_validate_json(path.read_bytes())
        except ValueError as error:
            raise ArtifactError(f"{path} is damaged: start over with --no-resume") from error
        refuse(plan.differences(there), f"{directory} holds work that was begun otherwise")
    else:
        # Shards without a plan are nobody's.
        clear(directory)
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    write_text(path, plan.model_dump_json(indent=2) + "\n")
    return shards_of(directory, plan)


def shards_of(directory: Path, plan: EncodingPlan) -> Shards:
    numbers = plan.part.shards(plan.collection_documents, plan.shard_size)
    return Shards(directory, plan.collection_documents, plan.shard_size, plan.dimension, numbers)


def clear(directory: Path) -> None:
    """Removes the plan and the shards; the plan last, so that a kill leaves nothing that looks foreign."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if path.name != PLAN and (SHARD_FILES.fullmatch(path.name) or path.name.endswith(".tmp")):
            path.unlink(missing_ok=True)
    (directory / PLAN).unlink(missing_ok=True)


def refuse(differences: list[str], what: str) -> None:
    """Raises an ArtifactError where there are differences."""
    if differences:
        raise ArtifactError(
            f"{what}: {'; '.join(differences)}. Choose another --output, give the same options, or start "
            "over with --no-resume"
        )
