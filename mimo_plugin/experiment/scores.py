"""`scores.json`: how one trained student did on one collection, topic by topic."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import write_text
from mimo_plugin.manifests import FileRecord, SealedRecord, parse_manifest
from mimo_plugin.training.run_directory import TrainingManifest

SCORES, RUN, INDEX = "scores.json", "run.trec.gz", "index"
FORMAT: Final = "mimo-experiment-scores"


class Scores(SealedRecord):
    """Written last: where it is there and valid, the student has been scored.

    Attributes:
        model: hashes of the scored weights, from the manifest of the training run.
        encoder: the student's fingerprint.
        collection: fingerprint of the collection.
        measures: the measures asked for -> the mean over topics.
        macro: the same, averaged over languages.
        diagnostics: name -> value; None where it is not defined.
        remarks: name -> why it is not defined, or what to know of it.
        query_ids: the judged topics.
        per_query: measure -> its score for each of them.
        environment: what the scoring ran on.
        seconds: of indexing, searching and scoring.
        encoding: what the recipe says of prompts and dimension.
    """

    format: Literal["mimo-experiment-scores"] = FORMAT
    format_version: Literal[1] = 1
    system: str
    seed: int
    model: dict[str, str]
    encoder: str
    collection: str
    measures: dict[str, float]
    macro: dict[str, float]
    diagnostics: dict[str, float | None]
    remarks: dict[str, str]
    query_ids: tuple[str, ...]
    per_query: dict[str, tuple[float, ...]]
    run: FileRecord
    environment: dict[str, Any]
    seconds: float
    encoding: Annotated[dict[str, Any], Field(default_factory=dict)]

    def write(self, directory: Path) -> None:
        write_text(directory / SCORES, self.sealed())


def weights(manifest: TrainingManifest) -> dict[str, str]:
    """File -> hash of what a training run made."""
    return {name: record.sha256 for name, record in manifest.files.items()}


def read_scores(
    directory: Path,
    manifest: TrainingManifest,
    collection: str,
    measures: tuple[str, ...],
    encoding: Mapping[str, Any],
) -> Scores | None:
    """The scores in a directory; None where there are none, or of another model, collection or the like.

    Args:
        manifest: of the training run that made the student.
        collection: its fingerprint.
        encoding: see `Scores`.
    """
    try:
        found = parse_manifest(directory / SCORES, Scores, "scores")
    except ArtifactError:
        return None
    wanted = (weights(manifest), collection, measures, encoding)
    there = (found.model, found.collection, tuple(found.measures), found.encoding)
    return found if there == wanted else None
