"""Encodes a collection's documents, shard by shard, to disk."""

import logging
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mimo_plugin.collections.dataset import Pool
from mimo_plugin.collections.loading import require
from mimo_plugin.collections.pool import load
from mimo_plugin.collections.survey import Survey, survey
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem, Problems
from mimo_plugin.core.files import size_text
from mimo_plugin.encoder import packaged
from mimo_plugin.encoder.checkpoint import check_files
from mimo_plugin.encoder.encoder import Encoder, NotFinite
from mimo_plugin.encoder.options import AUTO, BFLOAT16, FLOAT32, EncoderOptions
from mimo_plugin.indexing.plan import EncodingPlan, plan_encoding
from mimo_plugin.indexing.settings import EncodeOptions, Part
from mimo_plugin.indexing.vectors import (
    VECTORS,
    Shards,
    VectorBatch,
    Vectors,
    VectorsManifest,
    begun_plan,
    finished_under,
    kept_text,
    part_text,
    shards_of,
    summary_text,
    take_up,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """What a call did.

    Attributes:
        encoded: number of documents that this call encoded.
        resumed: number of documents that an earlier call had encoded.
        already: the vectors were complete before the call.
    """

    manifest: VectorsManifest
    encoded: int
    resumed: int
    already: bool

    def summary(self, output: Path) -> str:
        """A few lines for the user."""
        plan = self.manifest.plan
        what = f"vectors of {plan.documents} documents{part_text(plan)}, {plan.dimension} dimensions"
        done = None
        if self.already:
            done = "they were complete already; nothing was encoded"
        elif self.resumed:
            done = kept_text(self.resumed, self.encoded)
        return summary_text(f"{output}: {what}", done, self.manifest)


def open_pool(pool: Any, options: EncodeOptions) -> Pool:
    """Finds the documents to encode, without reading them.

    Args:
        pool: the id of a collection, several ids, or the result of `load` or `collection`.

    Raises:
        DataError: a collection is unknown, has no documents, or its files are not available.
    """
    if isinstance(pool, Pool):
        return pool
    given = pool if isinstance(pool, list | tuple) else [pool]
    require([spec for spec in given if isinstance(spec, str)], docs=True)
    pooled = options.pooled or len(given) > 1
    return load(*given, fields=tuple(options.fields) or None, pooled=pooled)


def check_inputs(pool: Any, options: EncodeOptions, *checks: Callable[[], object]) -> Pool:
    """As `open_pool`, and runs other checks; raises one error with the problems of all."""
    problems = Problems()
    with problems.collect():
        documents = open_pool(pool, options)
    for check in checks:
        with problems.collect():
            check()
    problems.raise_any()
    return documents


def check_checkpoint(encoder: str | Encoder) -> None:
    """Raises a ModelError where a name leads to no checkpoint, without loading it."""
    if isinstance(encoder, str) and encoder:
        check_files(packaged.resolve(encoder), encoder)


def load_encoder(
    encoder: str | Encoder, options: EncoderOptions | None = None, there: EncodingPlan | None = None
) -> Encoder:
    """Loads a checkpoint; a loaded encoder is returned unchanged, unless "auto" chose another format.

    Args:
        there: the plan of vectors that "auto" follows; foreign vectors are taken for float32.
    """
    options = options or EncoderOptions()
    dtype = AUTO if there is None else there.dtype or FLOAT32
    if isinstance(encoder, Encoder):
        if dtype in (AUTO, encoder.options.dtype) or encoder.dtype_reason is None:
            return encoder
        checkpoint, options = encoder.name, replace(encoder.options, dtype=AUTO)
    else:
        checkpoint = encoder
    if there is None or options.dtype != AUTO:
        return Encoder(checkpoint, options)
    loaded = Encoder(checkpoint, replace(options, dtype=dtype))
    loaded.dtype_reason = there.dtype_reason
    return loaded


def settled(encoder: Encoder, documents: Survey, part: Part) -> Encoder:
    """The encoder in a number format that fits the documents; see `Encoder.checked_on`."""
    encoder = encoder.checked_on(documents.sample)
    if part.name and encoder.dtype_reason and encoder.options.dtype == BFLOAT16:
        logger.warning(
            f"--shard {part.name}: --dtype auto is bfloat16 on this processor and may be float32 on another, "
            "whose parts would not fit: give --dtype bfloat16 for all parts"
        )
    return encoder


def encode_collections(
    pool: Any,
    encoder: str | Encoder,
    output: Path,
    options: EncodeOptions | None = None,
    encoder_options: EncoderOptions | None = None,
    *,
    found: Survey | None = None,
) -> Encoded:
    """Encodes the documents of one collection, or of a pool of several, into a directory of vectors.

    Memory does not grow with the collection.

    Args:
        pool: see `open_pool`.
        encoder: a checkpoint's name, or a loaded encoder.
        found: the survey of these documents; None makes one.

    Raises: as `build.index`.
    """
    options = options or EncodeOptions()
    directory = Artifact(output, VECTORS)
    documents = check_inputs(pool, options, directory.check_output, lambda: check_checkpoint(encoder))
    there = begun_plan(directory, output) if options.resume else None
    loaded = load_encoder(encoder, encoder_options, there)
    found = found or survey(documents, duplicates=options.duplicates, progress=options.progress)
    loaded = loaded if there else settled(loaded, found, options.part)
    plan = plan_encoding(documents, found, loaded, options.part, options.shard_size)
    with directory.held():
        begun = begin_vectors(directory, plan, options.resume)
        collection = found.distinct(documents)
        encode_shards(collection, loaded, begun.shards, begun.missing, options.progress)
        return finish_vectors(directory, plan, begun)


class Begun(NamedTuple):
    """The shards of a directory, the numbers of those still missing, and whether it was finished before."""

    shards: Shards
    missing: list[int]
    already: bool


def begin_vectors(directory: Artifact[VectorsManifest], plan: EncodingPlan, resume: bool) -> Begun:
    """Finds the shards that earlier calls left in a held directory; without `resume` it starts over."""
    if finished_under(directory, plan, resume) is not None:
        return Begun(shards_of(directory.path, plan), [], already=True)
    shards = take_up(directory.path, plan)
    missing = shards.missing()
    left = shards.documents_in(missing)
    what = f"{left} documents x {plan.dimension} dimensions x 4 bytes"
    require_space(directory.path, 4 * plan.dimension * left, what)
    return Begun(shards, missing, already=False)


def finish_vectors(directory: Artifact[VectorsManifest], plan: EncodingPlan, begun: Begun) -> Encoded:
    """Writes the manifest of a directory whose shards are complete."""
    shards = begun.shards
    if begun.already:
        manifest = directory.read()
    else:
        vectors = Vectors(plan, [shards])
        manifest = VectorsManifest(
            plan=plan,
            languages=vectors.languages,
            empty_documents=vectors.empty_documents,
            files={shards.path(shard).name: shards.record(shard).file for shard in shards.numbers},
        )
        directory.seal(manifest)
    encoded = shards.documents_in(begun.missing)
    return Encoded(manifest, encoded, plan.documents - encoded, begun.already)


class Chunk(NamedTuple):
    """The documents of one shard, `Doc`s in the collection's order."""

    shard: int
    docs: list[Any]


def chunks(collection: Any, shards: Shards, wanted: Sequence[int]) -> Iterator[Chunk]:
    """The documents of the wanted shards, in ascending order, in one pass over the collection."""
    docs: Iterator[Any] | None = None
    position = 0
    for shard in sorted(wanted):
        start, rows = shard * shards.size, shards.rows(shard)
        docs = iter(collection.docs_iter()) if docs is None else docs
        chunk = list(islice(docs, start - position, start - position + rows))
        position = start + rows
        if len(chunk) != rows:
            raise ArtifactError("the collection has changed since it was surveyed: run the command again")
        yield Chunk(shard, chunk)


def encode_shards(
    collection: Any, encoder: Encoder, shards: Shards, missing: Sequence[int], progress: bool | None = None
) -> None:
    """Encodes and writes the missing shards."""
    if not missing:
        return
    total, left = shards.documents_in(shards.numbers), shards.documents_in(missing)
    with (
        bar(total=total, initial=total - left, what="encoding", unit="docs", enabled=progress) as counter,
        closing(encode_chunks(chunks(collection, shards, missing), encoder, counter.update)) as encoded,
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


def encode_chunks(
    wanted: Iterable[Chunk], encoder: Encoder, advance: Callable[[int], object] | None = None
) -> Generator[tuple[int, VectorBatch, int], None, None]:
    """Yields the number of each shard, its vectors, and its number of documents without text."""
    read: deque[Chunk] = deque()

    def texts() -> Iterator[list[str]]:
        for chunk in wanted:
            read.append(chunk)
            yield [doc.text for doc in chunk.docs]

    try:
        with closing(encoder.encode_each(texts(), advance=advance)) as found:
            for vectors in found:
                shard, docs = read.popleft()
                batch = VectorBatch([doc.doc_id for doc in docs], [doc.lang for doc in docs], vectors)
                yield shard, batch, sum(not doc.text.strip() for doc in docs)
    except NotFinite as error:
        raise NotFinite(
            error.position, error.name, f"document {read[0].docs[error.position].doc_id}"
        ) from None


def require_space(output: Path, needed: int, what: str) -> None:
    """Raises an EnvironmentProblem where the disk has too little room for the result."""
    free = shutil.disk_usage(output).free
    if free < needed:
        raise EnvironmentProblem(
            f"{output} has {size_text(free)} free and {size_text(needed)} are needed ({what}): make room or "
            "choose another --output"
        )
