"""From a directory of vectors to a directory with a FAISS index that Pyserini's FaissSearcher reads."""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimo_plugin.collections.loading import require
from mimo_plugin.collections.pool import load_pool, pool_prefixes
from mimo_plugin.collections.survey import Survey, copies_text, survey
from mimo_plugin.core.artifact import FileRecord, one_writer, said_format
from mimo_plugin.core.errors import ArtifactError, Findings
from mimo_plugin.core.files import remove_tree, replacing, writing
from mimo_plugin.encoder.encoder import Encoder, EncoderOptions
from mimo_plugin.indexing.encode import (
    EncodeOptions,
    empty_text,
    encode_shards,
    languages_text,
    require_space,
)
from mimo_plugin.indexing.faiss import new_index, resolve, write_index
from mimo_plugin.indexing.plan import (
    DISCARDED,
    DOCID,
    FILES,
    FORMAT,
    INDEX,
    LANG,
    MANIFEST,
    OF_THE_MACHINE,
    WORK,
    EncodingPlan,
    IndexManifest,
    Plan,
    plan_encoding,
    read_manifest,
)
from mimo_plugin.indexing.vectors import OURS, Shards, Vectors, refuse, take_up

_LEFTOVER = re.compile(rf"\.({'|'.join((*FILES, MANIFEST))})\.\d+\.tmp")


class IndexDirectory:
    """An output directory of `mimo index`.

    Args:
        path: new, empty, or one that the command began.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / WORK

    def refuse_foreign(self) -> None:
        """Raises an ArtifactError when the directory holds anything that is not this command's."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ArtifactError(
                f"{self.path} is a file: --output must name a new or empty directory, or an index"
            )
        names = {path.name for path in self.path.iterdir() if not path.name.startswith(".")}
        foreign = names - {*FILES, MANIFEST, WORK} if self._began(names) else names
        if self.work.is_dir():
            inside = {path.name for path in self.work.iterdir()}
            foreign |= {f"{WORK}/{name}" for name in inside if not OURS.fullmatch(name)}
        if foreign:
            shown = ", ".join(sorted(foreign)[:5])
            raise ArtifactError(
                f"{self.path} holds something else ({shown}): --output must name a new or empty directory, "
                "or an index that this command began"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory for one writer; the lock goes with the process, however it ends.

        Raises:
            ArtifactError: another process is writing here.
            EnvironmentProblem: the directory cannot be made.
        """
        with one_writer(self.path):
            self._clear_leftovers()
            yield

    def finished(self, plan: Plan) -> IndexManifest | None:
        """The manifest of the finished index that lies here, or None.

        Raises:
            ArtifactError: it was made under another plan, or is damaged.
        """
        if not (self.path / MANIFEST).exists():
            return None
        manifest = read_manifest(self.path)
        refuse(
            plan.differences(manifest.plan, ignoring=OF_THE_MACHINE),
            f"{self.path} holds an index made otherwise",
        )
        self._discard_work()
        return manifest

    def start_over(self) -> None:
        """Removes what an earlier command wrote; the manifest first: from then on this is no index."""
        # It marks the directory as this command's while the manifest is gone.
        self._make_work()
        for name in (MANIFEST, *FILES):
            (self.path / name).unlink(missing_ok=True)
        self._discard_work()

    def begin(self, plan: EncodingPlan) -> Shards:
        """The shards of vectors that are needed to build the index, as far as they are there.

        Raises:
            ArtifactError: what lies here was begun under another plan.
        """
        return take_up(self.work, plan)

    def finish(self, manifest: IndexManifest) -> None:
        """Seals the index with its manifest and removes what was needed only to build it."""
        manifest.write(self.path)
        self._discard_work()

    def _began(self, names: set[str]) -> bool:
        """Whether what lies here is a mimo index or was to become one."""
        if MANIFEST not in names:
            return WORK in names or not names & set(FILES)
        return said_format(self.path / MANIFEST) == FORMAT

    def _clear_leftovers(self) -> None:
        shutil.rmtree(self.path / DISCARDED, ignore_errors=True)
        for path in self.path.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _make_work(self) -> None:
        with writing(self.work):
            self.work.mkdir(exist_ok=True)

    def _discard_work(self) -> None:
        if self.work.exists():
            with writing(self.work):
                self.work.rename(self.path / DISCARDED)
                remove_tree(self.path / DISCARDED)


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
    student: Encoder,
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


# How many documents there are is not known yet; the kind of index that a preset stands for does not need it.
_MANY = 1_000_000


def index_collections(
    collections: Sequence[str],
    encoder: str,
    output: Path,
    options: IndexOptions | None = None,
    encoder_options: EncoderOptions | None = None,
    *,
    fields: Sequence[str] | None = None,
    pooled: bool = False,
) -> Built:
    """Indexes the documents of one collection, or of a pool of several.

    Args:
        pooled: ids become `lang:id` for a single collection, too.

    Raises:
        MimoError: with every problem that can be found before the documents are read, and as `build_index`.
    """
    options = options or IndexOptions()
    findings = Findings()
    findings.attempt(require, collections, docs=True)
    findings.attempt(IndexDirectory(output).refuse_foreign)
    student = findings.attempt(Encoder, encoder, encoder_options)
    if student is not None:
        findings.attempt(check_factory, options.factory, student.dimension)
    student = findings.complete(student)
    in_pool = pooled or len(collections) > 1
    return build_index(
        load_pool(collections, fields=fields, pooled=in_pool),
        tuple(collections),
        student,
        output,
        options,
        prefixes=pool_prefixes(collections) if in_pool else None,
        fields=tuple(fields) if fields else None,
    )


def check_factory(factory: str, dimension: int) -> None:
    """Raises a UsageError where FAISS cannot build an index of that kind."""
    new_index(resolve(factory, dimension, documents=_MANY).factory, dimension)
