"""Vectors that others made, brought into a vectors directory, so that indexes are made from them as well."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mimo_plugin.collections.records import Doc
from mimo_plugin.collections.survey import Survey, survey
from mimo_plugin.errors import DataError, Findings
from mimo_plugin.files import sha256
from mimo_plugin.progress import bar
from mimo_plugin.student import EncoderOptions, Student
from mimo_plugin.vectors.directory import VectorsDirectory
from mimo_plugin.vectors.encoding import Encoded, EncodeOptions, complete
from mimo_plugin.vectors.foreign import Foreign, reader_of
from mimo_plugin.vectors.plan import EncodingPlan
from mimo_plugin.vectors.shards import Shards, VectorBatch


def import_vectors(
    files: Sequence[Path],
    output: Path,
    options: EncodeOptions | None = None,
    *,
    encoder: str | None = None,
    encoder_options: EncoderOptions | None = None,
    lang: str = "",
) -> Encoded:
    """Brings vectors from `.npy`, `.jsonl` and `.parquet` files into a directory of vectors.

    The files are read twice: what is wrong with them shows before anything is written.

    Args:
        encoder: the checkpoint that made them, for searches to come; None leaves that open.
        lang: language of documents whose file does not say it.

    Raises:
        ArtifactError: the output directory holds something else.
        DataError: a file is damaged, a docid occurs twice, vectors differ in dimension or are no numbers.
        EnvironmentProblem: no space, or the file system refuses.
        UsageError: a file is missing, or of no known kind.
    """
    options = options or EncodeOptions()
    findings = Findings()
    for path in files:
        findings.attempt(reader_of, path)
    directory = VectorsDirectory(output)
    findings.attempt(directory.refuse_foreign)
    student = None
    if encoder is not None:
        student = findings.attempt(Student.load, encoder, encoder_options)
    findings.raise_any()
    foreign = Foreign(tuple(files), lang)
    looked = _Looked(foreign)
    found = survey(looked, identical=False, progress=options.progress)
    plan = _plan(foreign, found, looked.dimension, student, options)

    def copy(shards: Shards, missing: Sequence[int]) -> None:
        wanted = set(missing)
        total = plan.documents
        with bar(total=total, what="importing", unit="docs", enabled=options.progress) as counter:
            for shard, batch in enumerate(rebatched(foreign.batches(), options.shard_size)):
                if shard in wanted:
                    shards.write(shard, batch)
                counter.update(len(batch.docids))

    return complete(directory, plan, options.resume, copy)


def rebatched(batches: Iterator[VectorBatch], size: int) -> Iterator[VectorBatch]:
    """The same documents in batches of `size`, the last one smaller."""
    import numpy as np

    held: list[VectorBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += len(batch.docids)
        while count >= size:
            joined = _joined(held)
            yield VectorBatch(joined.docids[:size], joined.langs[:size], joined.vectors[:size])
            held = [
                VectorBatch(
                    joined.docids[size:], joined.langs[size:], np.ascontiguousarray(joined.vectors[size:])
                )
            ]
            count -= size
    if count:
        yield _joined(held)


def _joined(batches: list[VectorBatch]) -> VectorBatch:
    import numpy as np

    return VectorBatch(
        [docid for batch in batches for docid in batch.docids],
        [lang for batch in batches for lang in batch.langs],
        np.concatenate([batch.vectors for batch in batches]),
    )


class _Looked:
    """The documents of vector files as a collection without texts, for the survey; and their dimension."""

    def __init__(self, foreign: Foreign) -> None:
        self._foreign = foreign
        self.dimension = 0

    def docs_iter(self) -> Iterator[Doc]:
        for batch in self._foreign.batches():
            dimension = batch.vectors.shape[1]
            if self.dimension and dimension != self.dimension:
                raise DataError(
                    f"vectors of {dimension} and of {self.dimension} dimensions (at docid "
                    f"{batch.docids[0]!r}), expected one encoder's: import them apart"
                )
            self.dimension = dimension
            for docid, lang in zip(batch.docids, batch.langs, strict=True):
                yield Doc(docid, "", lang)


def _plan(
    foreign: Foreign, found: Survey, dimension: int, student: Student | None, options: EncodeOptions
) -> EncodingPlan:
    contents = hashlib.sha256("\n".join(map(sha256, foreign.files)).encode()).hexdigest()
    if student is not None and student.dimension != dimension:
        raise DataError(
            f"the vectors have {dimension} dimensions and {student.name} gives {student.dimension}: name the "
            "--encoder that made them, or leave it out"
        )
    return EncodingPlan(
        collections=foreign.names,
        prefixes=None,
        fields=None,
        collection_fingerprint=contents,
        collection_documents=found.documents,
        documents=found.documents,
        shard=None,
        encoder=student.name if student else "",
        encoder_fingerprint=student.fingerprint if student else "",
        dimension=dimension,
        prompt=student.document_prompt if student else "",
        max_length=student.max_length if student else None,
        device="",
        dtype="",
        backend="",
        pooling=student.options.pooling if student else None,
        normalize=student.options.normalize if student else None,
        batch_size=None,
        shard_size=options.shard_size,
        versions={},
        query_prompt=student.query_prompt if student else None,
        truncate=student.options.dimension if student else None,
    )
