"""Indexes built apart, joined into the index of the whole."""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from mimo_plugin.collections.survey import docid_hash, repeated_hashes
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError, DataError, Findings, Problems, UsageError
from mimo_plugin.core.files import writing
from mimo_plugin.indexing.build import Built, IndexOptions, index_vectors
from mimo_plugin.indexing.faiss import PRESETS, new_index, read_index, resolve
from mimo_plugin.indexing.open import Lines
from mimo_plugin.indexing.plan import (
    DOCID,
    FILES,
    INDEX,
    LANG,
    EncodingPlan,
    IndexManifest,
    Plan,
    join_plans,
    read_manifest,
    require_unchanged,
)
from mimo_plugin.indexing.vectors import VectorBatch, Vectors


def require_unique(directories: Sequence[Path], *, progress: bool | None = None) -> None:
    """Raises a DataError that names docids which occur more than once, and the indexes they are in."""
    count = 0
    with tempfile.TemporaryFile() as file:
        for _, docid in bar(_docids(directories), what="docids", unit="docs", enabled=progress):
            with writing(Path(tempfile.gettempdir())):
                file.write(docid_hash(docid))
            count += 1
        repeated = repeated_hashes(file, count)
    if not repeated:
        return
    # A second pass tells real duplicates from ids whose hashes happen to be equal.
    places: defaultdict[bytes, list[Path]] = defaultdict(list)
    for directory, docid in _docids(directories):
        if int.from_bytes(docid_hash(docid), "little") in repeated:
            places[docid].append(directory)
    problems = Problems(DataError)
    for docid, found in places.items():
        if len(found) > 1:
            problems.add(
                f"docid {docid.decode()!r} is in {' and in '.join(map(str, found))}, expected each document "
                "in one index: leave one out, or make them with --pooled, which puts the language before it"
            )
    problems.raise_any()


def _docids(directories: Sequence[Path]) -> Iterator[tuple[Path, bytes]]:
    for directory in directories:
        with (directory / DOCID).open("rb") as lines:
            for line in lines:
                yield directory, line.removesuffix(b"\n")


class Storage(StrEnum):
    """What an index gives back of the vectors that were put in."""

    EXACT = "the vectors themselves"
    HALF = "the vectors in 16 bits, which put in again give the same 16 bits"
    LEARNT = "what is left of them after codes that it learnt from its own vectors"


def storage_of(directory: Path, plan: Plan, target: str) -> Storage:
    """Raises an ArtifactError where an index of the kind `target` cannot be made of this one's vectors."""
    # What FAISS hands out of an index lives only as long as the index itself.
    index = new_index(plan.factory, plan.dimension)
    storage = _storage(index)
    if storage is Storage.LEARNT:
        raise ArtifactError(
            f"{directory} is of the kind {plan.factory}, which learns from its own vectors and does not give "
            "them back: keep vectors with `mimo encode` and build one index with `mimo index --vectors`, or "
            "search the indexes together with `mimo search A B`"
        )
    if storage is Storage.HALF and target != plan.factory:
        raise ArtifactError(
            f"{directory} is of the kind {plan.factory}, which keeps 16 bits a number: it can be merged into "
            f"another one of that kind, not into {target}; leave --factory out"
        )
    return storage


def _storage(index: Any) -> Storage:
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, (faiss.IndexHNSW, faiss.IndexNSG)):
        index = faiss.downcast_index(index.storage)
    if isinstance(index, faiss.IndexFlat):
        return Storage.EXACT
    half = (faiss.ScalarQuantizer.QT_fp16, faiss.ScalarQuantizer.QT_bf16)
    if isinstance(index, faiss.IndexScalarQuantizer) and index.sq.qtype in half:
        return Storage.HALF
    return Storage.LEARNT


class IndexedVectors(Vectors):
    """The vectors of several indexes as one sequence of shards, as large as those they were built from.

    Args:
        plan: of all of it.
        parts: directory and manifest of each index, in their order.
    """

    def __init__(self, plan: EncodingPlan, parts: Sequence[tuple[Path, IndexManifest]]) -> None:
        self.plan = plan
        self._parts = [directory for directory, _ in parts]
        languages: Counter[str] = Counter()
        for _, manifest in parts:
            languages.update(manifest.languages)
        self.languages = dict(languages)
        empty = [manifest.empty_documents for _, manifest in parts]
        self.empty_documents = None if None in empty else sum(count or 0 for count in empty)
        self._pieces = [
            (number, start, min(start + manifest.plan.shard_size, manifest.plan.documents))
            for number, (_, manifest) in enumerate(parts)
            for start in range(0, manifest.plan.documents, manifest.plan.shard_size)
        ]
        self._held = None
        self._open: tuple[int, Any, Lines, Lines] | None = None

    def __len__(self) -> int:
        return len(self._pieces)

    def batch(self, shard: int) -> VectorBatch:
        """One shard; the last one that was asked for is held, and its index is open.

        Raises:
            ArtifactError: FAISS cannot read the index.
        """
        if self._held is None or self._held[0] != shard:
            number, start, stop = self._pieces[shard]
            if self._open is None or self._open[0] != number:
                directory = self._parts[number]
                self._open = None
                self._open = (
                    number,
                    read_index(directory / INDEX),
                    Lines(directory / DOCID),
                    Lines(directory / LANG),
                )
            _, index, docids, langs = self._open
            vectors = index.reconstruct_n(start, stop - start)
            self._held = (
                shard,
                VectorBatch(docids.between(start, stop), langs.between(start, stop), vectors),
            )
        return self._held[1]


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
