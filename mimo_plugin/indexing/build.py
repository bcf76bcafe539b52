"""One mixed-language index from a pool of collections: survey, encode in shards, build, seal."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from mimo_plugin.errors import ArtifactError, EnvironmentProblem
from mimo_plugin.files import replacing, size_text
from mimo_plugin.indexing.directory import IndexDirectory
from mimo_plugin.indexing.faiss_index import new_index, write_index
from mimo_plugin.indexing.manifest import DOCID, FILES, INDEX, LANG, IndexManifest, Plan
from mimo_plugin.indexing.shards import Shards
from mimo_plugin.indexing.survey import Survey, survey
from mimo_plugin.manifests import FileRecord
from mimo_plugin.progress import bar
from mimo_plugin.student import NotFinite, Student


@dataclass(frozen=True)
class IndexOptions:
    """Attributes:
    factory: FAISS factory string.
    seed: of the training sample, where the factory needs training.
    shard_size: documents encoded and kept at a time; a kill loses at most one shard.
    resume: go on with a build that was cut short; False starts over.
    progress: progress bars; None shows them on a terminal only.
    """

    factory: str = "Flat"
    seed: int = 42
    shard_size: int = 4096
    resume: bool = True
    progress: bool | None = None


@dataclass(frozen=True)
class Built:
    """What `build_index` did.

    Attributes:
        encoded: documents encoded by this call.
        resumed: documents whose vectors an earlier call had left.
        already: the index was there, complete, and made under the same plan.
    """

    manifest: IndexManifest
    encoded: int
    resumed: int
    already: bool

    def summary(self, output: Path) -> str:
        """What a user wants to know of it, a few lines."""
        plan = self.manifest.plan
        languages = ", ".join(
            f"{lang or 'unknown'} {count}" for lang, count in self.manifest.languages.items()
        )
        lines = [
            f"{output}: {plan.documents} documents, {plan.dimension} dimensions, {plan.factory}",
            f"languages: {languages}",
        ]
        if self.already:
            lines.append("it was complete already; nothing was encoded")
        elif self.resumed:
            lines.append(f"{self.resumed} documents were encoded before and kept, {self.encoded} now")
        if self.manifest.empty_documents:
            lines.append(
                f"{self.manifest.empty_documents} documents have no text and were encoded all the same"
            )
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
        UsageError: FAISS does not know the factory string.
    """
    options = options or IndexOptions()
    new_index(options.factory, student.dimension)
    directory = IndexDirectory(output)
    directory.refuse_foreign()
    found = found or survey(collection, progress=options.progress)
    plan = _plan(collections, prefixes, fields, found, student, options)
    with directory.locked():
        if not options.resume:
            directory.start_over()
        manifest = directory.finished(plan)
        if manifest is not None:
            return Built(manifest, encoded=0, resumed=plan.documents, already=True)
        directory.begin(plan)
        shards = Shards(directory.work, plan.documents, plan.shard_size, plan.dimension)
        done = shards.complete()
        resumed = shards.documents_before(done)
        _require_space(output, plan, plan.documents - resumed)
        _encode(collection, student, shards, done, options.progress)
        write_index(output / INDEX, plan, shards, found.languages, progress=options.progress)
        _write_entries(output, shards)
        manifest = IndexManifest(
            plan=plan,
            languages=found.languages,
            empty_documents=found.empty,
            files={name: FileRecord.of(output / name) for name in FILES},
        )
        directory.finish(manifest)
    return Built(manifest, encoded=plan.documents - resumed, resumed=resumed, already=False)


def _plan(
    collections: tuple[str, ...],
    prefixes: Mapping[str, str] | None,
    fields: tuple[str, ...] | None,
    found: Survey,
    student: Student,
    options: IndexOptions,
) -> Plan:
    return Plan(
        collections=collections,
        prefixes=None if prefixes is None else dict(prefixes),
        fields=fields,
        collection_fingerprint=found.fingerprint,
        documents=found.documents,
        encoder=student.name,
        encoder_fingerprint=student.fingerprint,
        dimension=student.dimension,
        prompt=student.document_prompt,
        max_length=student.max_length,
        device=student.device_type,
        dtype=student.options.dtype,
        pooling=student.options.pooling,
        normalize=student.options.normalize,
        batch_size=student.options.batch_size,
        factory=options.factory,
        seed=options.seed,
        shard_size=options.shard_size,
        versions={
            name: version(name) for name in ("faiss-cpu", "sentence-transformers", "torch", "transformers")
        },
    )


def _require_space(output: Path, plan: Plan, missing: int) -> None:
    """A full disk is better met now than after days of encoding. Vectors are there twice for a while."""
    vector = 4 * plan.dimension
    needed = vector * (missing + plan.documents)
    free = shutil.disk_usage(output).free
    if free < needed:
        raise EnvironmentProblem(
            f"{output} has {size_text(free)} free and the index needs up to {size_text(needed)} while it is "
            f"built ({plan.documents} documents x {plan.dimension} dimensions x 4 bytes, vectors and index): "
            "make room or choose another --output"
        )


def _encode(collection: Any, student: Student, shards: Shards, done: int, progress: bool | None) -> None:
    total, skipped = shards.documents_before(len(shards)), shards.documents_before(done)
    docs: Iterator[Any] = islice(collection.docs_iter(), skipped, None)
    with bar(total=total, initial=skipped, what="encoding", unit="docs", enabled=progress) as counter:
        for shard in range(done, len(shards)):
            chunk = list(islice(docs, shards.rows(shard)))
            if len(chunk) != shards.rows(shard):
                raise ArtifactError("the collection has changed since it was surveyed: run the command again")
            try:
                vectors = student.encode_documents([doc.text for doc in chunk], advance=counter.update)
            except NotFinite as error:
                raise NotFinite(
                    error.position, error.name, f"document {chunk[error.position].doc_id}"
                ) from None
            shards.write(shard, [(doc.doc_id, doc.lang) for doc in chunk], vectors)


def _write_entries(output: Path, shards: Shards) -> None:
    """`docid` and `lang`: one line a document, in the order of the index's vectors."""
    with (
        replacing(output / DOCID) as docid_beside,
        replacing(output / LANG) as lang_beside,
        docid_beside.open("w", encoding="utf-8", newline="\n") as docids,
        lang_beside.open("w", encoding="utf-8", newline="\n") as langs,
    ):
        for shard in range(len(shards)):
            for docid, lang in shards.entries(shard):
                docids.write(docid + "\n")
                langs.write(lang + "\n")
