"""An index on disk: its manifest, and what is opened of it when it is searched."""

import mmap
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mimo_plugin.core.artifact import MANIFEST, Artifact, Kind
from mimo_plugin.core.errors import ArtifactError, Problems, UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.indexing.faiss import read_index, set_parameters
from mimo_plugin.indexing.nearest import Listed
from mimo_plugin.indexing.plan import EncodingPlan, foreign_plan, unlike
from mimo_plugin.indexing.vectors import VectorsManifest, kept_text, part_text, summary_text

if TYPE_CHECKING:
    import pyarrow as pa

    from mimo_plugin.evaluation.runs import Run

INDEX, DOCID, LANG = "index", "docid", "lang"
FILES = (INDEX, DOCID, LANG)
# Vectors that are needed only while the index is built lie here.
WORK = "building"


class IndexPlan(EncodingPlan):
    """All that decides the bytes of an index.

    Attributes:
        factory: FAISS factory string.
        parameters: what is set on the empty index before vectors come in, and stays in its file, such as
            "efConstruction=200,efSearch=128"; None leaves FAISS's own.
        seed: of the training sample, where the factory needs training.
    """

    factory: str
    parameters: str | None
    seed: int

    @classmethod
    def of(cls, vectors: EncodingPlan, factory: str, parameters: str | None, seed: int) -> "IndexPlan":
        return cls(**vectors.model_dump(), factory=factory, parameters=parameters, seed=seed)

    @property
    def vectors(self) -> EncodingPlan:
        """The plan of the vectors alone."""
        return EncodingPlan(**{name: getattr(self, name) for name in EncodingPlan.model_fields})


class IndexManifest(VectorsManifest):
    """What lies beside `index`, `docid` and `lang`."""

    format: Literal["mimo-index"] = "mimo-index"  # type: ignore[assignment]
    format_version: Literal[2] = 2  # type: ignore[assignment]
    plan: IndexPlan


INDEXES = Kind(
    IndexManifest,
    formats=frozenset({"mimo-index"}),
    noun="an index",
    command="mimo index",
    names=re.compile("|".join(FILES)),
    mark=WORK,
    mark_is_folder=True,
)


def made_by_pyserini(directory: Path) -> bool:
    """Whether `index` and `docid` lie there, and nothing that `mimo index` leaves before it is done."""
    return all((directory / name).is_file() for name in (INDEX, DOCID)) and not any(
        (directory / name).exists() for name in (MANIFEST, LANG, WORK)
    )


def index_at(directory: Path) -> Artifact[IndexManifest]:
    """The directory of an index that `mimo index` wrote."""
    if made_by_pyserini(directory):
        raise ArtifactError(
            f"{directory} has no {MANIFEST}: it looks like an index that Pyserini made, which `mimo search` "
            "takes with --encoder; for anything else make one with `mimo index`"
        )
    return Artifact(directory, INDEXES)


def read_manifest(directory: Path) -> IndexManifest:
    """Reads an index's manifest and checks it against the sizes of the files beside it."""
    return index_at(directory).read()


class Lines:
    """The lines of a text file by number, mapped from disk: 8 bytes of memory a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> str:
        return self.between(number, number + 1)[0]

    def between(self, start: int, stop: int) -> list[str]:
        """The lines from `start` up to, not including, `stop`."""
        return _split(self._bytes[int(self._starts[start]) : int(self._starts[stop])])

    def take(self, numbers: np.ndarray) -> list[str]:
        """The lines of these numbers, int64 (n,), in their order: a tenth of the time of one by one."""
        import pyarrow as pa

        content = self._table.take(pa.array(numbers)).buffers()[2]
        return [] if content is None else _split(content.to_pybytes())

    @cached_property
    def _bytes(self) -> mmap.mmap:
        with self._path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def _starts(self) -> np.ndarray:
        """Where each line starts, and where the last one ends, int64 (lines + 1,)."""
        piece = 1 << 24
        ends = [
            np.flatnonzero(np.frombuffer(self._bytes[at : at + piece], dtype=np.uint8) == ord("\n")) + at
            for at in range(0, len(self._bytes), piece)
        ]
        return np.concatenate([np.zeros(1, dtype=np.int64), *(part + 1 for part in ends)])

    @cached_property
    def _table(self) -> "pa.LargeBinaryArray":
        """The lines with their line ends, over the mapped file."""
        import pyarrow as pa

        buffers = [None, pa.py_buffer(self._starts), pa.py_buffer(self._bytes)]
        return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), buffers)


def _split(lines: bytes) -> list[str]:
    """Lines that all end with a line end, without it."""
    return lines.decode("utf-8").split("\n")[:-1]


class Index:
    """An index: `len(index)` documents with vectors, docids and languages, ready to be searched.

    FAISS reads the vectors when they are first needed; all files are checked against their SHA-256 then.

    Attributes:
        directory: where it lies.
        manifest: how it was made.
        encoded: documents encoded by the call that gave this index.
        already: the index was there, complete, and made under the same plan.
        note: what to know about the factory, where a preset is not what its name says.
        encoder: its own, once it has been loaded; searches take it.
    """

    def __init__(
        self,
        directory: Path,
        manifest: IndexManifest,
        parameters: str | None = None,
        *,
        opened: tuple[Any, Lines | Listed] | None = None,
        encoded: int = 0,
        already: bool = True,
        note: str | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        """See `open_index`.

        Args:
            opened: FAISS index and docids, where they are in memory already.
        """
        self.directory = directory
        self.manifest = manifest
        self.encoded = encoded
        self.already = already
        self.note = note
        self.encoder = encoder
        self._parameters = parameters
        self._given = opened

    def __len__(self) -> int:
        return self.manifest.plan.documents

    def __repr__(self) -> str:
        plan = self.manifest.plan
        kind = f", {plan.factory}" if plan.factory else ""
        return f"{self.directory}: {len(self)} documents{part_text(plan)}, {plan.dimension} dimensions{kind}"

    @property
    def resumed(self) -> int:
        """Documents whose vectors were there before."""
        return len(self) - self.encoded

    def summary(self) -> str:
        """What a user wants to know of it, a few lines."""
        done = None
        if self.already:
            done = "it was complete already; nothing was encoded"
        elif not self.encoded:
            done = "all vectors were there before; nothing was encoded"
        elif self.resumed:
            done = kept_text(self.resumed, self.encoded)
        text = summary_text(repr(self), done, self.manifest)
        return f"{text}\n{self.note}" if self.note else text

    @property
    def languages(self) -> dict[str, int]:
        """Language -> number of documents."""
        return dict(self.manifest.languages)

    @property
    def faiss(self) -> Any:
        """The FAISS index; raises as `open_index`."""
        return self._opened[0]

    @property
    def docids(self) -> Lines | Listed:
        """Docid by position; raises as `open_index`."""
        return self._opened[1]

    def search(self, topics: Any, **options: Any) -> "Run":
        """Searches queries; see `search.search`."""
        from mimo_plugin.indexing.search import search

        return search(self, topics, **options)

    @cached_property
    def _opened(self) -> tuple[Any, Lines | Listed]:
        index, docids = self._given or self._read()
        if self._parameters:
            set_parameters(index, self._parameters, self.directory)
        return index, docids

    def _read(self) -> tuple[Any, Lines]:
        index_at(self.directory).verify()
        index, docids = read_index(self.directory / INDEX), Lines(self.directory / DOCID)
        if not index.ntotal == len(docids) == len(self):
            raise ArtifactError(
                f"{self.directory} holds {index.ntotal} vectors and {len(docids)} docids, its manifest says "
                f"{len(self)}: build it again with --no-resume"
            )
        return index, docids


def open_index(directory: Path, parameters: str | None = None) -> Index:
    """Opens an index that `mimo index` wrote.

    Args:
        parameters: FAISS search parameters such as "nprobe=16" or "efSearch=128".

    Raises:
        ArtifactError: it is incomplete or damaged.
        UsageError: the index does not have such parameters.
    """
    index = Index(directory, read_manifest(directory), parameters)
    index.faiss  # noqa: B018
    return index


def _open_pyserini(directory: Path, parameters: str | None) -> Index:
    """Opens an index that Pyserini made. Its manifest says nothing of an encoder."""
    import faiss

    index = read_index(directory / INDEX)
    try:
        with (directory / DOCID).open(encoding="utf-8") as file:
            # So Pyserini reads docids, too.
            docids = Listed(line.rstrip() for line in file)
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{directory / DOCID} cannot be read ({error}), expected a docid a line"
        ) from error
    if not index.ntotal == len(docids) > 0:
        raise ArtifactError(
            f"{directory} holds {index.ntotal} vectors and {len(docids)} docids, expected as many of both, "
            "and some: build it again"
        )
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ArtifactError(
            f"{directory} was built for distances, expected inner products: its best hits would come last; "
            "build it again, with inner product"
        )
    problems = Problems(ArtifactError)
    for docid, count in Counter(docids).items():
        if count > 1:
            problems.add(f"{directory / DOCID}: docid {docid!r} is there {count} times, expected once")
        elif docid.split() != [docid]:
            problems.add(f"{directory / DOCID}: docid {docid!r}, expected one without white space")
    problems.raise_any()
    vectors = foreign_plan((), "", len(docids), index.d, len(docids))
    manifest = IndexManifest(
        plan=IndexPlan.of(vectors, "", None, 0), languages={"": len(docids)}, empty_documents=None, files={}
    )
    return Index(directory, manifest, parameters, opened=(index, docids))


def find_indexes(places: Sequence[Index | Path | str], parameters: str | None = None) -> list[Index]:
    """Indexes, also of Pyserini, whose hits are to be merged; vectors of ours are not read yet.

    Args:
        places: directories, or indexes that are open already.
        parameters: FAISS search parameters of those that are opened here.

    Raises:
        ArtifactError: one is damaged or there twice, or their scores or ids do not go together.
        UsageError: there are none.
    """
    if not places:
        raise UsageError("no index was given, expected at least one")
    problems = Problems(ArtifactError)
    directories = [place.directory if isinstance(place, Index) else Path(place) for place in places]
    for directory, count in Counter(path.resolve() for path in directories).items():
        if count > 1:
            problems.add(f"{directory}: given {count} times, expected each index once")
    indexes: list[Index] = []
    for place, directory in zip(places, directories, strict=True):
        with problems.collect():
            if isinstance(place, Index):
                indexes.append(place)
            elif made_by_pyserini(directory):
                indexes.append(_open_pyserini(directory, parameters))
            else:
                indexes.append(Index(directory, read_manifest(directory), parameters))
    plans = [index.manifest.plan for index in indexes]
    found = [str(index.directory) for index in indexes]
    problems.extend(unlike(plans, found, _OF_THE_VECTORS, "cannot be searched as one"))
    with problems.collect():
        shared_prefixes(indexes)
    problems.raise_any()
    return indexes


# What says that vectors were made alike, whatever texts they are of.
_OF_THE_VECTORS = ("encoder_fingerprint", "dimension", "pooling", "normalize")


def shared_prefixes(indexes: Sequence[Index]) -> dict[str, str] | None:
    """The prefixes that ids have in all of these indexes; None where ids are the sources' own."""
    problems = Problems(ArtifactError)
    shared: dict[str, str] = {}
    for index in indexes:
        for collection, prefix in (index.manifest.plan.prefixes or {}).items():
            if shared.setdefault(collection, prefix) != prefix:
                problems.add(
                    f"{index.directory}: ids of {collection} begin with '{prefix}:', in another index with "
                    f"'{shared[collection]}:'; make one of them again"
                )
    problems.raise_any()
    return shared if indexes and indexes[0].manifest.plan.prefixes is not None else None


def check_encoder(index: Index, encoder: Encoder, *, allow_other: bool = False) -> None:
    """Refuses a query encoder that is not the one whose vectors are in the index."""
    plan = index.manifest.plan
    if encoder.dimension != plan.dimension:
        raise ArtifactError(
            f"{encoder.name} gives {encoder.dimension} dimensions, the vectors in {index.directory} have "
            f"{plan.dimension}: search with the encoder that made the index"
            f"{f' ({plan.encoder})' if plan.encoder else ''}"
        )
    # Of vectors from elsewhere nobody may have said whose they are.
    if plan.encoder_fingerprint not in ("", encoder.fingerprint) and not allow_other:
        raise ArtifactError(
            f"{encoder.name} (fingerprint {encoder.fingerprint[:12]}) is not the encoder of "
            f"{index.directory} ({plan.encoder}, fingerprint {plan.encoder_fingerprint[:12]}): search with "
            "that one, or say --allow-other-encoder"
        )


def read_doc_languages(directory: Path, wanted: Iterable[str]) -> dict[str, str]:
    """Docid -> language, of those wanted documents that an index holds and whose language it knows.

    `docid` and `lang` are streamed side by side until all that are wanted have been met: memory grows with
    these, not with the index. How many documents each language has stands in the manifest.

    Raises:
        ArtifactError: the directory is no index, or a damaged one.
    """
    index_at(directory).verify(DOCID, LANG)
    missing = {docid.encode() for docid in wanted}
    found: dict[str, str] = {}
    with (directory / DOCID).open("rb") as docids, (directory / LANG).open("rb") as languages:
        for line, language in zip(docids, languages, strict=True):
            if not missing:
                break
            docid = line.rstrip(b"\n")
            if docid in missing:
                missing.discard(docid)
                name = language.decode().rstrip("\n")
                if name:
                    found[docid.decode()] = name
    return found
