"""One mixed-language index: from a pool of collections, or from vectors that are there already."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimo_plugin.collections.survey import Survey, copies_text, survey
from mimo_plugin.files import replacing
from mimo_plugin.indexing.directory import IndexDirectory
from mimo_plugin.indexing.faiss_index import new_index, write_index
from mimo_plugin.indexing.manifest import DOCID, FILES, INDEX, LANG, IndexManifest, Plan
from mimo_plugin.indexing.presets import resolve
from mimo_plugin.manifests import FileRecord
from mimo_plugin.student import Student
from mimo_plugin.vectors.encoding import (
    EncodeOptions,
    empty_text,
    encode_shards,
    languages_text,
    require_space,
)
from mimo_plugin.vectors.plan import EncodingPlan, plan_encoding
from mimo_plugin.vectors.reading import Vectors


@dataclass(frozen=True)
class IndexOptions(EncodeOptions):
    """Those of encoding, and:

    Attributes:
        factory: FAISS factory string, or one of the presets.
        seed: of the training sample, where the factory needs training.
    """

    factory: str = "Flat"
    seed: int = 42


@dataclass(frozen=True)
class Built:
    """What `build_index` or `index_vectors` did.

    Attributes:
        encoded: documents encoded by this call.
        resumed: documents whose vectors were there before.
        already: the index was there, complete, and made under the same plan.
        note: what to know about the factory, where a preset is not what its name says.
    """

    manifest: IndexManifest
    encoded: int
    resumed: int
    already: bool
    note: str | None = None

    def summary(self, output: Path) -> str:
        """What a user wants to know of it, a few lines."""
        plan = self.manifest.plan
        part = f", part {plan.shard} of {plan.collection_documents}" if plan.shard else ""
        lines = [
            f"{output}: {plan.documents} documents{part}, {plan.dimension} dimensions, {plan.factory}",
            f"languages: {languages_text(self.manifest.languages)}",
        ]
        if self.already:
            lines.append("it was complete already; nothing was encoded")
        elif self.resumed and self.encoded:
            lines.append(f"{self.resumed} documents were encoded before and kept, {self.encoded} now")
        elif self.resumed:
            lines.append("all vectors were there before; nothing was encoded")
        if self.manifest.empty_documents:
            lines.append(empty_text(self.manifest.empty_documents))
        if plan.copies:
            lines.append(copies_text(plan.copies))
        if self.note:
            lines.append(self.note)
        return "\n".join(lines)


def build_index(
    collection: Any,
    collections: tuple[str, ...],
    student: Student,
    output: Path,
    options: IndexOptions | None = None,
    *,
    prefixes: Mapping[str, str] | None = None,
    fields: tuple[str, ...] | None = None,
    found: Survey | None = None,
) -> Built:
    """Encodes a collection's documents and writes `index`, `docid`, `lang` and, last, `manifest.json`.

    Memory does not grow with the collection, but for what FAISS holds of the index itself.

    Args:
        collection: an ir_datasets dataset of `Doc`s.
        collections, fields: how it came to be; recorded, and compared on resuming.
        prefixes: see `pool_prefixes`; None where the collection's ids are its own.
        found: what a survey of the very same documents found; None has one made.

    Raises:
        ArtifactError: the output directory holds something else, or a build under another plan.
        DataError: the collection is not as it must be.
        EnvironmentProblem: no space, or the file system refuses.
        ModelError: a vector holds NaN or infinity.
        UsageError: FAISS does not know the factory string, or there are fewer shards than parts.
    """
    options = options or IndexOptions()
    directory = IndexDirectory(output)
    directory.refuse_foreign()
    found = found or survey(collection, duplicates=options.duplicates, progress=options.progress)
    collection = found.distinct(collection)
    encoding = plan_encoding(
        collections,
        found,
        student,
        prefixes=prefixes,
        fields=fields,
        part=options.part,
        shard_size=options.shard_size,
    )

    def encode() -> tuple[Vectors, int]:
        shards = directory.begin(encoding)
        missing = shards.missing()
        left = shards.documents_in(missing)
        _require_space(output, encoding, vectors=left)
        encode_shards(collection, student, shards, missing, options.progress)
        return Vectors(encoding, [shards]), left

    return _complete(directory, encoding, options, encode)


def index_vectors(vectors: Vectors, output: Path, options: IndexOptions | None = None) -> Built:
    """Builds an index from vectors that are there already; see `build_index`.

    Args:
        options: `part` and `shard_size` do not count here.

    Raises:
        ArtifactError: the output directory holds something else, or the vectors are damaged.
        EnvironmentProblem: no space, or the file system refuses.
        UsageError: FAISS does not know the factory string, or cannot train it on these vectors.
    """
    options = options or IndexOptions()
    directory = IndexDirectory(output)
    directory.refuse_foreign()

    def there_already() -> tuple[Vectors, int]:
        _require_space(output, vectors.plan, vectors=0)
        directory.begin(vectors.plan)
        return vectors, 0

    return _complete(directory, vectors.plan, options, there_already)


def _complete(
    directory: IndexDirectory,
    encoding: EncodingPlan,
    options: IndexOptions,
    make: Callable[[], tuple[Vectors, int]],
) -> Built:
    """Builds and seals the index in a directory where it is not there yet; one writer at a time.

    Args:
        encoding: the plan of its vectors.
        make: begins in the directory, gives the vectors, and how many documents it encoded for them.
    """
    plan, note = _plan(encoding, options)
    with directory.locked():
        if not options.resume:
            directory.start_over()
        manifest = directory.finished(plan)
        if manifest is not None:
            return Built(manifest, encoded=0, resumed=plan.documents, already=True, note=note)
        vectors, encoded = make()
        manifest = _write(directory, plan, vectors, options.progress)
    return Built(manifest, encoded=encoded, resumed=plan.documents - encoded, already=False, note=note)


def _plan(encoding: EncodingPlan, options: IndexOptions) -> tuple[Plan, str | None]:
    resolved = resolve(options.factory, encoding.dimension, encoding.documents)
    new_index(resolved.factory, encoding.dimension)
    return Plan.of(encoding, resolved.factory, resolved.parameters, options.seed), resolved.note


def _require_space(output: Path, plan: EncodingPlan, vectors: int) -> None:
    """Vectors that are still to be made, and the index, which may take as much as all of them."""
    vector = 4 * plan.dimension
    require_space(
        output,
        vector * (vectors + plan.documents),
        f"{plan.documents} documents x {plan.dimension} dimensions x 4 bytes, vectors and index",
    )


def _write(directory: IndexDirectory, plan: Plan, vectors: Vectors, progress: bool | None) -> IndexManifest:
    output = directory.path
    write_index(output / INDEX, plan, vectors, vectors.languages, progress=progress)
    _write_entries(output, vectors)
    manifest = IndexManifest(
        plan=plan,
        languages=vectors.languages,
        empty_documents=vectors.empty_documents,
        files={name: FileRecord.of(output / name) for name in FILES},
    )
    directory.finish(manifest)
    return manifest


def _write_entries(output: Path, vectors: Vectors) -> None:
    """`docid` and `lang`: one line a document, in the order of the index's vectors."""
    with (
        replacing(output / DOCID) as docid_beside,
        replacing(output / LANG) as lang_beside,
        docid_beside.open("w", encoding="utf-8", newline="\n") as docids,
        lang_beside.open("w", encoding="utf-8", newline="\n") as langs,
    ):
        for batch in vectors.batches():
            docids.writelines(f"{docid}\n" for docid in batch.docids)
            langs.writelines(f"{lang}\n" for lang in batch.langs)
