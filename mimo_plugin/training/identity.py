"""What decides a run's weights, and what of it two runs must have in common to be the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.data.stored import Pairs, Table
from mimo_plugin.manifests import FileRecord
from mimo_plugin.training.options import Recipe, StageOptions

if TYPE_CHECKING:
    from mimo_plugin.training.teacher_store import TeacherStore


def identity_of(
    stage: str,
    recipe: Recipe,
    options: StageOptions,
    data: Pairs | Table,
    student: str | None,
    *,
    taught: bool,
    projection: Path | None,
) -> dict[str, Any]:
    """All that decides the weights, as plain data.

    Args:
        student: fingerprint of the student; None for a new one.
        taught: whether there is a teacher.
        projection: file of a carried projection.
    """
    identity: dict[str, Any] = {
        "stage": stage,
        "seed": recipe.seed,
        "student": {**recipe.student.identity(), "fingerprint": student},
        "data": {
            "path": str(data.directory),
            "fingerprint": data.fingerprint,
            "anchor": data.manifest.anchor,
            "rows": data.manifest.rows,
        },
        "dev": recipe.dev,
        "options": options.identity(),
    }
    if taught:
        identity["teacher"] = recipe.teacher.identity()
    if projection is not None:
        identity["projection"] = FileRecord.of(projection).sha256
    return identity


def teacher_vectors(store: "TeacherStore") -> dict[str, Any]:
    """What the teacher turned out to be."""
    found = store.manifest.identity
    return found.model_dump(
        include={"fingerprint", "query_prompt", "passage_prompt", "max_length", "compute_dtype", "attention"}
    )


def only_vectors(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Of an identity, what the teacher turned out to be."""
    vectors = identity.get("teacher", {}).get("vectors")
    # Earlier versions had one number format, and did not say so.
    return {"teacher": {"vectors": vectors and {"compute_dtype": "float32", "attention": None, **vectors}}}


def without_places(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Without where things lie, and what a name turns out to be: the same data or student elsewhere is the
    same."""
    flat = {name: value for name, value in identity.items() if name not in ("data", "teacher")}
    if "teacher" in identity:
        flat["teacher"] = {name: value for name, value in identity["teacher"].items() if name != "vectors"}
        # Earlier versions had no choice, and did not say so.
        flat["options"] = {"projection_input": "normalized", **identity.get("options", {})}
    data = dict(identity.get("data", {}))
    data.pop("path", None)
    student = dict(identity.get("student", {}))
    if not str(student.get("checkpoint", "")).startswith("new:"):
        student.pop("checkpoint", None)
    return {**flat, "data": data, "student": student}
