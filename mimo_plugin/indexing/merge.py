"""One index of several that were built apart: the parts of a collection, or the languages of a pool."""

from collections.abc import Sequence
from pathlib import Path

from mimo_plugin.errors import ArtifactError, Findings, UsageError
from mimo_plugin.indexing.build import Built, IndexOptions, index_vectors
from mimo_plugin.indexing.manifest import FILES, IndexManifest, Plan, read_manifest, require_unchanged
from mimo_plugin.indexing.merge_docids import require_unique
from mimo_plugin.indexing.merge_vectors import IndexedVectors, storage_of
from mimo_plugin.indexing.presets import PRESETS, resolve
from mimo_plugin.vectors.joining import join_plans
from mimo_plugin.vectors.plan import EncodingPlan


def merge_indexes(
    directories: Sequence[Path],
    output: Path,
    factory: str | None = None,
    *,
    resume: bool = True,
    progress: bool | None = None,
) -> Built:
    """Builds one index of the vectors that are in several; nothing is encoded.

    Where it is of the same kind as its parts, it is the index, byte for byte, that the whole would have been
    built to.

    Args:
        factory: preset or FAISS factory string; None is what the parts were built with.
        resume: leave a finished merge as it is; False starts over.
        progress: progress bars; None shows them on a terminal only.

    Raises:
        ArtifactError: an index is damaged, does not give its vectors back, or does not go with the others.
        DataError: a docid is in two of them.
        UsageError: FAISS does not know the factory string, or output is one of the indexes.
    """
    if not directories:
        raise UsageError("no index was given, expected at least one")
    findings = Findings()
    findings.attempt(_require_apart, directories, output)
    manifests = [findings.attempt(_read, directory) for directory in directories]
    findings.raise_any()
    parts = [
        (directory, manifest)
        for directory, manifest in zip(directories, manifests, strict=True)
        if manifest is not None
    ]
    kinds = {_kind(manifest.plan) for _, manifest in parts}
    if factory is None and len(kinds) > 1:
        raise UsageError(
            f"the indexes are of different kinds ({', '.join(sorted(kinds))}): say with --factory which one "
            "the merged index is to be"
        )
    factory = factory or kinds.pop()
    joined = join_plans(
        [_encoding(manifest.plan) for _, manifest in parts], [str(directory) for directory, _ in parts]
    )
    ordered = [parts[at] for at in joined.order]
    target = resolve(factory, joined.plan.dimension, joined.plan.documents).factory
    for directory, manifest in ordered:
        findings.attempt(storage_of, directory, manifest.plan, target)
    findings.raise_any()
    require_unique([directory for directory, _ in ordered], progress=progress)
    options = IndexOptions(factory=factory, seed=ordered[0][1].plan.seed, resume=resume, progress=progress)
    return index_vectors(IndexedVectors(joined.plan, ordered), output, options)


def _require_apart(directories: Sequence[Path], output: Path) -> None:
    places = [directory.resolve() for directory in directories]
    if output.resolve() in places:
        raise UsageError(f"--output {output} is one of the indexes to merge: choose another place")
    twice = {str(one) for one, place in zip(directories, places, strict=True) if places.count(place) > 1}
    if twice:
        raise UsageError(f"{', '.join(sorted(twice))}: given twice, expected each index once")


def _read(directory: Path) -> IndexManifest:
    manifest = read_manifest(directory)
    require_unchanged(directory, manifest, FILES)
    return manifest


def _kind(plan: Plan) -> str:
    """The preset that an index was built with, else its factory string."""
    asked = (plan.factory, plan.parameters)
    for preset in PRESETS:
        found = resolve(preset, plan.dimension, plan.documents)
        if (found.factory, found.parameters) == asked:
            return preset
    if plan.parameters is not None:
        raise ArtifactError(
            f"an index was built as {plan.factory} with {plan.parameters}, which is no preset of this "
            "release: say with --factory what the merged index is to be"
        )
    return plan.factory


def _encoding(plan: Plan) -> EncodingPlan:
    return EncodingPlan(**{name: getattr(plan, name) for name in EncodingPlan.model_fields})
