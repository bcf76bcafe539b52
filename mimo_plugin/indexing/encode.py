"""A collection's documents through an encoder, shard by shard, to disk."""

import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mimo_plugin.collections.loading import require
from mimo_plugin.collections.pool import load_pool, pool_prefixes
from mimo_plugin.collections.records import ERROR
from mimo_plugin.collections.survey import Survey, copies_text, survey
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem, Findings
from mimo_plugin.core.files import size_text
from mimo_plugin.encoder.encoder import Encoder, EncoderOptions, NotFinite
from mimo_plugin.indexing.plan import WHOLE, EncodingPlan, Part, plan_encoding
from mimo_plugin.indexing.vectors import Shards, VectorBatch, VectorsDirectory, VectorsManifest, take_up


@dataclass(frozen=True)
class EncodeOptions:
    """Attributes:
    part: of the collection; the whole by default.
    shard_size: documents encoded and kept at a time; a kill loses two shards at most.
    resume: go on with work that was cut short; False starts over.
    progress: progress bars; None shows them on a terminal only.
    duplicates: see `survey`.
    """

    part: Part = WHOLE
    shard_size: int = 4096
    resume: bool = True
    progress: bool | None = None
    duplicates: str = ERROR


@dataclass(frozen=True)
class Encoded:
    """What a call did.

    Attributes:
        encoded: documents encoded by this call.
        resumed: documents whose vectors an earlier call had left.
        already: the vectors were there, complete, and made under the same plan.
    """

    manifest: VectorsManifest
    encoded: int
    resumed: int
    already: bool

    def summary(self, output: Path) -> str:
        """What a user wants to know of it, a few lines."""
        plan = self.manifest.plan
        part = f", part {plan.shard} of {plan.collection_documents}" if plan.shard else ""
        lines = [
            f"{output}: vectors of {plan.documents} documents{part}, {plan.dimension} dimensions",
            f"languages: {languages_text(self.manifest.languages)}",
        ]
        if self.already:
            lines.append("they were complete already; nothing was encoded")
        elif self.resumed:
            lines.append(f"{self.resumed} documents were encoded before and kept, {self.encoded} now")
        if self.manifest.empty_documents:
            lines.append(empty_text(self.manifest.empty_documents))
        if plan.copies:
            lines.append(copies_text(plan.copies))
        return "\n".join(lines)


def languages_text(languages: Mapping[str, int]) -> str:
    return ", ".join(f"{lang or 'unknown'} {count}" for lang, count in languages.items())


def empty_text(count: int) -> str:
    return f"{count} documents have no text and were encoded all the same"


def encode_collection(
    collection: Any,
    collections: tuple[str, ...],
    student: Encoder,
    output: Path,
    options: EncodeOptions | None = None,
    *,
    prefixes: Mapping[str, str] | None = None,
    fields: tuple[str, ...] | None = None,
    found: Survey | None = None,
) -> Encoded:
    """Encodes a collection's documents, or a part of them, into a directory of vectors.

    Memory does not grow with the collection.

    Args:
        collection: an ir_datasets dataset of `Doc`s.
        collections, fields: how it came to be; recorded, and compared on resuming.
        prefixes: see `pool_prefixes`; None where the collection's ids are its own.
        found: what a survey of the very same documents found; None has one made.

    Raises:
        ArtifactError: the output directory holds something else, or work under another plan.
        DataError: the collection is not as it must be.
        EnvironmentProblem: no space, or the file system refuses.
        ModelError: a vector holds NaN or infinity.
        UsageError: the collection is too small to be cut into that many parts.
    """
    options = options or EncodeOptions()
    directory = VectorsDirectory(output)
    directory.refuse_foreign()
    found = found or survey(collection, duplicates=options.duplicates, progress=options.progress)
    collection = found.distinct(collection)
    plan = plan_encoding(
        collections,
        found,
        student,
        prefixes=prefixes,
        fields=fields,
        part=options.part,
        shard_size=options.shard_size,
    )

    def encode(shards: Shards, missing: Sequence[int]) -> None:
        encode_shards(collection, student, shards, missing, options.progress)

    return complete(directory, plan, options.resume, encode)


def complete(
    directory: VectorsDirectory,
    plan: EncodingPlan,
    resume: bool,
    make: Callable[[Shards, Sequence[int]], None],
) -> Encoded:
    """Has the shards made that are missing in a directory, and seals it; one writer at a time.

    Args:
        resume: False starts over.
        make: writes these shards; the numbers ascend.

    Raises:
        ArtifactError: the directory holds work under another plan, or another process writes there.
        EnvironmentProblem: no space, or the file system refuses.
    """
    with directory.locked():
        if not resume:
            directory.start_over()
        manifest = directory.finished(plan)
        if manifest is not None:
            return Encoded(manifest, encoded=0, resumed=plan.documents, already=True)
        shards = take_up(directory.path, plan)
        missing = shards.missing()
        left = shards.documents_in(missing)
        needed = 4 * plan.dimension * left
        require_space(directory.path, needed, f"{left} documents x {plan.dimension} dimensions x 4 bytes")
        make(shards, missing)
        manifest = directory.finish(plan, shards)
    return Encoded(manifest, encoded=left, resumed=plan.documents - left, already=False)


class Chunk(NamedTuple):
    """The documents of one shard.

    Attributes:
        docs: `Doc`s, in the collection's order.
    """

    shard: int
    docs: list[Any]


def chunks(collection: Any, shards: Shards, wanted: Sequence[int]) -> Iterator[Chunk]:
    """The documents of some shards, in ascending order; the collection is read once, up to the last of them.

    Raises:
        ArtifactError: the collection does not hold as many documents as it did.
    """
    docs: Iterator[Any] | None = None
    position = 0
    for shard in sorted(wanted):
        start, rows = shards.first_row(shard), shards.rows(shard)
        if docs is None:
            docs, position = iter(collection.docs_iter()), 0
        chunk = list(islice(docs, start - position, start - position + rows))
        position = start + rows
        if len(chunk) != rows:
            raise ArtifactError("the collection has changed since it was surveyed: run the command again")
        yield Chunk(shard, chunk)


def encode_shards(
    collection: Any, student: Encoder, shards: Shards, missing: Sequence[int], progress: bool | None = None
) -> None:
    """Encodes and writes the shards that are missing.

    Raises:
        ArtifactError: the collection has changed since it was surveyed.
        EnvironmentProblem: the file system refuses.
        NotFinite: a vector holds NaN or infinity.
    """
    total, left = shards.documents_in(shards.numbers), shards.documents_in(missing)
    with (
        bar(total=total, initial=total - left, what="encoding", unit="docs", enabled=progress) as counter,
        closing(encode_chunks(chunks(collection, shards, missing), student, counter.update)) as encoded,
        ThreadPoolExecutor(1, "writer") as writer,
    ):
        # One shard is written while the next one is encoded.
        written: Future[None] | None = None
        for chunk in encoded:
            if written is not None:
                written.result()
            written = writer.submit(shards.write, *chunk)
        if written is not None:
            written.result()


class EncodedChunk(NamedTuple):
    """Attributes:
    empty: documents that have no text.
    """

    shard: int
    batch: VectorBatch
    empty: int


def encode_chunks(
    wanted: Iterable[Chunk], student: Encoder, advance: Callable[[int], object] | None = None
) -> Generator[EncodedChunk, None, None]:
    """Vectors of documents, chunk by chunk.

    Raises:
        NotFinite: a vector holds NaN or infinity; the chunks before have been yielded.
    """
    read: deque[Chunk] = deque()

    def texts() -> Iterator[list[str]]:
        for chunk in wanted:
            read.append(chunk)
            yield [doc.text for doc in chunk.docs]

    try:
        with closing(student.encode_each(texts(), advance=advance)) as found:
            for vectors in found:
                shard, docs = read.popleft()
                batch = VectorBatch([doc.doc_id for doc in docs], [doc.lang for doc in docs], vectors)
                yield EncodedChunk(shard, batch, sum(not doc.text.strip() for doc in docs))
    except NotFinite as error:
        raise NotFinite(
            error.position, error.name, f"document {read[0].docs[error.position].doc_id}"
        ) from None


def require_space(output: Path, needed: int, what: str) -> None:
    """A full disk is better met now than after days of encoding.

    Raises:
        EnvironmentProblem: there is less free than needed.
    """
    free = shutil.disk_usage(output).free
    if free < needed:
        raise EnvironmentProblem(
            f"{output} has {size_text(free)} free and {size_text(needed)} are needed ({what}): make room or "
            "choose another --output"
        )


def encode_collections(
    collections: Sequence[str],
    encoder: str,
    output: Path,
    options: EncodeOptions | None = None,
    encoder_options: EncoderOptions | None = None,
    *,
    fields: Sequence[str] | None = None,
    pooled: bool = False,
) -> Encoded:
    """Encodes the documents of one collection, or of a pool of several.

    Args:
        pooled: ids become `lang:id` for a single collection, too.

    Raises:
        MimoError: with every problem that can be found before the documents are read, and as
            `encode_collection`.
    """
    findings = Findings()
    findings.attempt(require, collections, docs=True)
    findings.attempt(VectorsDirectory(output).refuse_foreign)
    student = findings.complete(findings.attempt(Encoder, encoder, encoder_options))
    in_pool = pooled or len(collections) > 1
    return encode_collection(
        load_pool(collections, fields=fields, pooled=in_pool),
        tuple(collections),
        student,
        output,
        options,
        prefixes=pool_prefixes(collections) if in_pool else None,
        fields=tuple(fields) if fields else None,
    )
