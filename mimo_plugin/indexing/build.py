"""Builds FAISS indexes, which Pyserini's FaissSearcher reads, from documents, vectors or other indexes."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mimo_plugin.collections.dataset import StreamedDocs
from mimo_plugin.collections.loading import require
from mimo_plugin.collections.pool import load
from mimo_plugin.collections.records import Doc
from mimo_plugin.collections.survey import Survey, survey
from mimo_plugin.core.artifact import Artifact, FileRecord
from mimo_plugin.core.errors import ArtifactError, DataError, MimoError, Problems, UsageError
from mimo_plugin.core.files import replacing
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.encode import (
    check_checkpoint,
    check_inputs,
    encode_shards,
    load_encoder,
    require_space,
    settled,
)
from mimo_plugin.indexing.faiss import filled_index, new_index, read_index, resolve, write_index
from mimo_plugin.indexing.nearest import Lines
from mimo_plugin.indexing.open import (
    DOCID,
    FILES,
    INDEX,
    INDEXES,
    LANG,
    TEXTS,
    WORK,
    Index,
    IndexManifest,
    IndexPlan,
    index_at,
)
from mimo_plugin.indexing.plan import EncodingPlan, join_plans, plan_encoding
from mimo_plugin.indexing.recall import is_exact, sampled_queries, tune
from mimo_plugin.indexing.search import load_query_encoder
from mimo_plugin.indexing.settings import PRESETS, IndexOptions, MergeOptions, SearchOptions
from mimo_plugin.indexing.texts import TextsOf, in_order, joined_texts, texts_of, write_texts
from mimo_plugin.indexing.vectors import (
    VECTORS,
    VectorBatch,
    Vectors,
    begun_plan,
    finished_under,
    summed,
    take_up,
)

logger = logging.getLogger(__name__)

# Stands for the unknown number of documents when the kind of index is checked.
_MANY = 1_000_000


def index(
    pool: Any,
    encoder: str | Encoder,
    output: str | Path,
    options: IndexOptions | None = None,
    encoder_options: EncoderOptions | None = None,
    *,
    found: Survey | None = None,
    **changes: Any,
) -> Index:
    """Encodes the documents of one collection, or of a pool of several, and builds one FAISS index.

    Writes `index`, `docid`, `lang` and, last, `manifest.json`. An interrupted build resumes from the last
    complete shard; a finished index of the same documents and options stays as it is. Only FAISS's own index
    needs memory that grows with the collection. The recall of an approximate index is measured, and its
    efSearch or nprobe chosen by that: see `recall.tune`.

    Args:
        pool: the id of a collection, several ids, or the result of `load` or `collection`.
        encoder: a checkpoint's name, or a loaded encoder.
        output: directory of the index, new or begun before.
        encoder_options: how a checkpoint is loaded.
        found: the survey of these documents; None makes one.
        changes: fields of `IndexOptions`, such as factory="hnsw", in place of those of `options`.

    Raises:
        MimoError: with every problem that shows before the encoder is loaded.
        ArtifactError: the output directory holds something else, or a build under another plan.
        DataError: the collection has faults, such as repeated docids.
        EnvironmentProblem: the disk is full, or the file system refuses.
        ModelError: a vector holds NaN or infinity.
        UsageError: FAISS does not know the factory string, or there are fewer shards than parts.
    """
    options, output = replace(options or IndexOptions(), **changes), Path(output)
    directory = Artifact(output, INDEXES)
    documents = check_inputs(
        pool,
        options,
        lambda: _check_output(directory),
        lambda: check_checkpoint(encoder),
        lambda: require(options.topics, queries=True),
    )
    there = begun_plan(directory, output / WORK) if options.resume else None
    loaded = load_encoder(encoder, encoder_options, there)
    new_index(resolve(options.factory, loaded.dimension, _MANY).factory, loaded.dimension)
    found = found or survey(documents, duplicates=options.duplicates, progress=options.progress)
    loaded = loaded if there else settled(loaded, found, options.part)
    vectors_plan = plan_encoding(documents, found, loaded, options.part, options.shard_size)
    plan, note = _plan(vectors_plan, options)
    with directory.held():
        texts = in_order(found.distinct(documents).docs_iter(), plan.collections) if options.texts else None
        manifest = finished_under(directory, plan, options.resume)
        if manifest is not None:
            manifest = _add_texts(directory, manifest, texts, options.progress)
            return Index(output, manifest, note=note, encoder=loaded)
        shards = take_up(output / WORK, vectors_plan)
        missing = shards.missing()
        left = shards.documents_in(missing)
        _require_space(output, plan, left)
        encode_shards(found.distinct(documents), loaded, shards, missing, options.progress)
        manifest = _write(
            directory,
            plan,
            Vectors(vectors_plan, [shards]),
            texts,
            options,
            lambda: _queries_of(documents, lambda: loaded, options),
        )
    return Index(output, manifest, encoded=left, already=False, note=note, encoder=loaded)


def index_vectors(
    vectors: Vectors, output: Path, options: IndexOptions | None = None, texts: TextsOf | None = None
) -> Index:
    """Builds an index from existing vectors; see `index`. `part` and `shard_size` have no effect here.

    Only for `options.topics` the vectors' encoder is loaded.

    Args:
        texts: of the documents, to be kept; None reads them from the collections if `options` want them.

    Raises:
        ArtifactError: the output directory holds something else, or the vectors are corrupted.
        DataError: the collection of the wanted texts is missing or has changed.
        EnvironmentProblem: the disk is full, or the file system refuses.
        UsageError: FAISS does not know the factory string, or cannot train it on these vectors.
    """
    options = options or IndexOptions()
    directory = Artifact(output, INDEXES)
    _check_output(directory)
    if options.topics and not vectors.plan.encoder:
        raise UsageError(
            "the vectors do not say which encoder made them, and --topics are encoded with it: leave them "
            "out, or import the vectors with --encoder"
        )
    require(options.topics, queries=True)
    plan, note = _plan(vectors.plan, options)
    if texts is None and options.texts:
        texts = texts_of(vectors.plan)
    with directory.held():
        manifest = finished_under(directory, plan, options.resume)
        if manifest is not None:
            return Index(output, _add_texts(directory, manifest, texts, options.progress), note=note)
        _require_space(output, plan, left=0)
        directory.begin()
        unfinished = IndexManifest(plan=plan, languages=vectors.languages, empty_documents=None, files={})
        manifest = _write(
            directory,
            plan,
            vectors,
            texts,
            options,
            lambda: _queries_of(
                None,
                lambda: load_query_encoder([Index(output, unfinished)], SearchOptions(), None),
                options,
            ),
        )
    return Index(output, manifest, already=False, note=note)


def _queries_of(pool: Any, encoder: Callable[[], Encoder], options: IndexOptions) -> np.ndarray | None:
    """Vectors of a sample of the topics that were named, else of the pool's queries; None without either."""
    if options.topics:
        return sampled_queries(load(*options.topics), encoder(), options.seed)
    if pool is None or not pool.has_queries():
        return None
    try:
        return sampled_queries(pool, encoder(), options.seed)
    except MimoError as error:
        logger.warning("recall is measured on documents, as the queries cannot be used: %s", error)
        return None


def _check_output(directory: Artifact[IndexManifest]) -> None:
    """Raises an ArtifactError where the output directory holds anything foreign."""
    directory.check_output()
    # An interrupted build can leave vectors without a plan.
    Artifact(directory.path / WORK, replace(VECTORS, mark=None)).check_output()


def _plan(vectors: EncodingPlan, options: IndexOptions) -> tuple[IndexPlan, str | None]:
    resolved = resolve(options.factory, vectors.dimension, vectors.documents)
    new_index(resolved.factory, vectors.dimension)
    plan = IndexPlan.of(vectors, resolved.factory, resolved.parameters, options.seed)
    return plan, resolved.note


def _require_space(output: Path, plan: EncodingPlan, left: int) -> None:
    """For the vectors that are left to encode, and an index as large as all vectors."""
    require_space(
        output,
        4 * plan.dimension * (left + plan.documents),
        f"{plan.documents} documents x {plan.dimension} dimensions x 4 bytes, vectors and index",
    )


def _write(
    directory: Artifact[IndexManifest],
    plan: IndexPlan,
    vectors: Vectors,
    texts: TextsOf | None,
    options: IndexOptions,
    queries: Callable[[], np.ndarray | None],
) -> IndexManifest:
    output = directory.path
    # Before the index, which may take hours, so that topics that cannot be encoded show early.
    asked = None if is_exact(new_index(plan.factory, plan.dimension)) else queries()
    built = filled_index(plan, vectors, threads=options.threads, progress=options.progress)
    recall = tune(built, vectors, asked, plan.seed, threads=options.threads, progress=options.progress)
    write_index(output / INDEX, built)
    del built
    _write_entries(output, vectors)
    if texts is not None:
        write_texts(output / TEXTS, Lines(output / DOCID), texts, options.progress)
    manifest = IndexManifest(
        plan=plan,
        languages=vectors.languages,
        empty_documents=vectors.empty_documents,
        recall=recall,
        files={name: FileRecord.of(output / name) for name in (*FILES, *[TEXTS] * (texts is not None))},
    )
    directory.seal(manifest)
    return manifest


def _add_texts(
    directory: Artifact[IndexManifest], manifest: IndexManifest, texts: TextsOf | None, progress: bool | None
) -> IndexManifest:
    """Adds texts to a finished index, unless it has them."""
    if texts is None or TEXTS in manifest.files:
        return manifest
    output = directory.path
    write_texts(output / TEXTS, Lines(output / DOCID), texts, progress)
    files = {**manifest.files, TEXTS: FileRecord.of(output / TEXTS)}
    directory.seal(manifest := manifest.model_copy(update={"files": files}))
    return manifest


def _write_entries(output: Path, vectors: Vectors) -> None:
    """Writes `docid` and `lang`, one line per document in the order of the vectors."""
    with (
        replacing(output / DOCID) as docid_beside,
        replacing(output / LANG) as lang_beside,
        docid_beside.open("w", encoding="utf-8", newline="\n") as docids,
        lang_beside.open("w", encoding="utf-8", newline="\n") as langs,
    ):
        for batch in vectors.batches():
            docids.writelines(f"{docid}\n" for docid in batch.docids)
            langs.writelines(f"{lang}\n" for lang in batch.langs)


def merge_indexes(
    directories: Sequence[Path],
    output: Path,
    options: MergeOptions | None = None,
    **changes: Any,
) -> Index:
    """Merges indexes into one; nothing is encoded.

    Parts of one collection, merged without another factory, give the same bytes as indexing the whole, except
    for an efSearch or nprobe that was chosen by real queries: here documents choose it. Texts are kept if all
    indexes have them.

    Args:
        changes: fields of `MergeOptions` in place of those of `options`.

    Raises:
        ArtifactError: an index is corrupted, does not keep its vectors, or does not fit the others.
        DataError: a docid is in two of them.
        UsageError: FAISS does not know the factory string, or `output` is one of the indexes.
    """
    options = replace(options or MergeOptions(), **changes)
    if not directories:
        raise UsageError("no index was given, expected at least one")
    problems = Problems(UsageError)
    places = [directory.resolve() for directory in directories]
    if output.resolve() in places:
        problems.add(f"--output {output} is one of the indexes to merge: choose another place")
    twice = {str(one) for one, place in zip(directories, places, strict=True) if places.count(place) > 1}
    if twice:
        problems.add(f"{', '.join(sorted(twice))}: given twice, expected each index once")
    manifests = []
    for directory in directories:
        with problems.collect():
            manifests.append(index_at(directory).verify())
    problems.raise_any()
    kinds = {_preset(manifest.plan) for manifest in manifests}
    if options.factory is None and len(kinds) > 1:
        raise UsageError(
            f"the indexes are of different kinds ({', '.join(sorted(kinds))}): say with --factory which kind "
            "to build"
        )
    factory = options.factory or kinds.pop()
    plan, order = join_plans([manifest.plan.vectors for manifest in manifests], list(map(str, directories)))
    parts = [(directories[at], manifests[at]) for at in order]
    target = resolve(factory, plan.dimension, plan.documents).factory
    for directory, manifest in parts:
        with problems.collect():
            _require_vectors(directory, manifest.plan, target)
    problems.raise_any()
    _require_unique([directory for directory, _ in parts], options.progress)
    indexing = IndexOptions(
        factory=factory, seed=parts[0][1].plan.seed, resume=options.resume, progress=options.progress
    )
    without = [str(directory) for directory, manifest in parts if TEXTS not in manifest.files]
    if without and len(without) < len(parts):
        logger.warning("texts are not kept: %s without them", ", ".join(without))
    texts = None if without else joined_texts([directory / TEXTS for directory, _ in parts])
    return index_vectors(IndexedVectors(plan, parts), output, indexing, texts)


def _preset(plan: IndexPlan) -> str:
    """The preset that an index was built with, else its factory string."""
    asked = (plan.factory, plan.parameters)
    for preset in PRESETS:
        found = resolve(preset, plan.dimension, plan.documents)
        if (found.factory, found.parameters) == asked:
            return preset
    if plan.parameters is not None:
        raise ArtifactError(
            f"an index was built as {plan.factory} with {plan.parameters}, which is no preset of this "
            "release: give --factory for the merged index"
        )
    return plan.factory


def _require_vectors(directory: Path, plan: IndexPlan, target: str) -> None:
    """Raises an ArtifactError where an index of the factory `target` cannot be built from this one."""
    import faiss

    # A part of a FAISS index lives only as long as the index.
    built = new_index(plan.factory, plan.dimension)
    index = faiss.downcast_index(built)
    if isinstance(index, (faiss.IndexHNSW, faiss.IndexNSG)):
        index = faiss.downcast_index(index.storage)
    if isinstance(index, faiss.IndexFlat):
        return
    half = (faiss.ScalarQuantizer.QT_fp16, faiss.ScalarQuantizer.QT_bf16)
    if not isinstance(index, faiss.IndexScalarQuantizer) or index.sq.qtype not in half:
        raise ArtifactError(
            f"{directory} is of the kind {plan.factory}, which learns from its own vectors and does not keep "
            "them: save vectors with `mimo encode` and build one index with `mimo index --vectors`, or "
            "search the indexes together with `mimo search A B`"
        )
    if target != plan.factory:
        raise ArtifactError(
            f"{directory} is of the kind {plan.factory}, which keeps 16 bits a number: it can be merged into "
            f"an index of the same kind, not into {target}; leave --factory out"
        )


def _require_unique(directories: Sequence[Path], progress: bool | None) -> None:
    """Raises a DataError that names repeated docids and their indexes."""

    def docids() -> Iterator[tuple[Path, str]]:
        for directory in directories:
            with (directory / DOCID).open(encoding="utf-8", newline="\n") as lines:
                for line in lines:
                    yield directory, line.removesuffix("\n")

    documents = StreamedDocs(lambda: (Doc(docid, "", "") for _, docid in docids()))
    repeated = survey(documents, progress=progress).repeated
    if not repeated:
        return
    places: defaultdict[str, list[Path]] = defaultdict(list)
    for directory, docid in docids():
        if docid in repeated:
            places[docid].append(directory)
    with Problems(DataError) as problems:
        for docid, found in places.items():
            problems.add(
                f"docid {docid!r} is in {' and in '.join(map(str, found))}, expected each document in one "
                "index: leave one out, or make them with --pooled, which puts the language before it"
            )


class IndexedVectors(Vectors):
    """The vectors of several indexes as one sequence of shards.

    Args:
        plan: the joined plan.
        parts: directory and manifest of each index, in order.
    """

    def __init__(self, plan: EncodingPlan, parts: Sequence[tuple[Path, IndexManifest]]) -> None:
        super().__init__(plan, [])
        manifests = [manifest for _, manifest in parts]
        self.languages, self.empty_documents = summed(
            (manifest.languages for manifest in manifests),
            (manifest.empty_documents for manifest in manifests),
        )
        self._pieces = [
            (directory, start, min(start + manifest.plan.shard_size, manifest.plan.documents))
            for directory, manifest in parts
            for start in range(0, manifest.plan.documents, manifest.plan.shard_size)
        ]
        self._open: tuple[Path, Any, Lines, Lines] | None = None

    def __len__(self) -> int:
        return len(self._pieces)

    def batch(self, shard: int) -> VectorBatch:
        import faiss

        directory, start, stop = self._pieces[shard]
        if self._open is None or self._open[0] != directory:
            # Freed first, so that memory holds one index at a time.
            self._open = None
            index = read_index(directory / INDEX)
            if isinstance(index, faiss.IndexIVFFlat):
                index.make_direct_map()
            self._open = (directory, index, Lines(directory / DOCID), Lines(directory / LANG))
        _, index, docids, langs = self._open
        return VectorBatch(
            docids.between(start, stop), langs.between(start, stop), index.reconstruct_n(start, stop - start)
        )
