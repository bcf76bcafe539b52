"""Indexes on disk: manifests, opening, and checks that they fit each other and an encoder."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from mimo_plugin.core.artifact import MANIFEST, Artifact, Kind
from mimo_plugin.core.errors import ArtifactError, Problems, UsageError
from mimo_plugin.core.files import size_text
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.indexing.faiss import read_index, set_parameters
from mimo_plugin.indexing.nearest import Lines, Listed, Part, Searchable
from mimo_plugin.indexing.plan import EncodingPlan, foreign_plan, unlike
from mimo_plugin.indexing.recall import Recall
from mimo_plugin.indexing.settings import is_milvus
from mimo_plugin.indexing.vectors import VectorsManifest, kept_text, part_text, summary_text

if TYPE_CHECKING:
    from mimo_plugin.evaluation.runs import Run
    from mimo_plugin.indexing.texts import KeptTexts

logger = logging.getLogger(__name__)

INDEX, DOCID, LANG = "index", "docid", "lang"
FILES = (INDEX, DOCID, LANG)
# Only where texts are kept.
TEXTS = "texts.parquet"
# Folder of the vectors while the index is built.
WORK = "building"


class IndexPlan(EncodingPlan):
    """Everything that decides the bytes of an index; `factory` and `parameters` as in `ResolvedFactory`."""

    factory: str
    parameters: str | None
    seed: int

    @classmethod
    def of(cls, vectors: EncodingPlan, factory: str, parameters: str | None, seed: int) -> "IndexPlan":
        return cls(**vectors.model_dump(), factory=factory, parameters=parameters, seed=seed)

    @property
    def vectors(self) -> EncodingPlan:
        return EncodingPlan(**{name: getattr(self, name) for name in EncodingPlan.model_fields})


class IndexManifest(VectorsManifest):
    """The manifest beside `index`, `docid` and `lang`.

    Attributes:
        recall: None for an exact index, for one without neighbours to find, and in older manifests.
    """

    format: Literal["mimo-index"] = "mimo-index"  # type: ignore[assignment]
    format_version: Literal[2] = 2  # type: ignore[assignment]
    plan: IndexPlan
    recall: Recall | None = None


INDEXES = Kind(
    IndexManifest,
    formats=frozenset({"mimo-index"}),
    noun="an index",
    command="mimo index",
    names=re.compile("|".join((*FILES, re.escape(TEXTS)))),
    mark=WORK,
    mark_is_folder=True,
)


def made_by_pyserini(directory: Path) -> bool:
    """Whether a directory holds `index` and `docid`, and no other file of `mimo index`."""
    return all((directory / name).is_file() for name in (INDEX, DOCID)) and not any(
        (directory / name).exists() for name in (MANIFEST, LANG, WORK)
    )


def index_at(directory: Path) -> Artifact[IndexManifest]:
    """The directory of an index that `mimo index` wrote."""
    if made_by_pyserini(directory):
        raise ArtifactError(
            f"{directory} has no {MANIFEST}: it looks like an index of Pyserini, which only `mimo search` "
            "takes, with --encoder; for anything else build one with `mimo index`"
        )
    return Artifact(directory, INDEXES)


class AnyIndex(Protocol):
    """What a search needs of an index: one of FAISS (`Index`), or a collection of Milvus.

    Attributes:
        encoder: the index's own, once a search has loaded it.
    """

    encoder: Encoder | None

    def __len__(self) -> int:
        """Number of documents."""

    @property
    def name(self) -> str:
        """As given, for messages."""

    @property
    def plan(self) -> EncodingPlan: ...

    @property
    def languages(self) -> dict[str, int]:
        """Language -> number of documents."""

    def open(self) -> None:
        """Checks that the vectors are whole, and reads what is held in memory."""

    def searchable(self, languages: Sequence[str] = ()) -> Part:
        """What is searched: the documents in the languages, at least one; () is all."""

    def texts(self, docids: Iterable[str]) -> dict[str, str]:
        """See `Index.texts`."""

    def languages_of(self, docids: Iterable[str]) -> dict[str, str]:
        """See `Index.languages_of`."""


@dataclass(eq=False, repr=False)
class Index:
    """An index of `len(index)` documents with vectors, docids and languages.

    The first use of the vectors reads the files and checks their SHA-256, and a warning is logged where the
    recall that was measured, or the user's parameter, is too low.

    Attributes:
        parameters: FAISS search parameters.
        opened: FAISS index and docids, where they are in memory already.
        encoded: number of documents encoded by the call that built this index.
        already: the index was complete before the call.
        note: tells where another factory took a preset's place.
        encoder: the index's own, once a search has loaded it.
    """

    directory: Path
    manifest: IndexManifest
    parameters: str | None = None
    _: KW_ONLY
    opened: tuple[Any, Lines | Listed] | None = None
    encoded: int = 0
    already: bool = True
    note: str | None = None
    encoder: Encoder | None = None

    def __len__(self) -> int:
        return self.manifest.plan.documents

    def __repr__(self) -> str:
        plan = self.manifest.plan
        kind = f", {plan.factory}" if plan.factory else ""
        return f"{self.directory}: {len(self)} documents{part_text(plan)}, {plan.dimension} dimensions{kind}"

    @property
    def name(self) -> str:
        """The directory, for messages."""
        return str(self.directory)

    @property
    def plan(self) -> IndexPlan:
        return self.manifest.plan

    @property
    def resumed(self) -> int:
        """Number of documents that had been encoded before the call."""
        return len(self) - self.encoded

    def summary(self) -> str:
        """A few lines for the user."""
        done = None
        if self.already:
            done = "it was complete already; nothing was encoded"
        elif not self.encoded:
            done = "all vectors were there before; nothing was encoded"
        elif self.resumed:
            done = kept_text(self.resumed, self.encoded)
        text = summary_text(repr(self), done, self.manifest)
        if TEXTS in self.manifest.files:
            text += f"\ntexts are kept beside it, {size_text(self.manifest.files[TEXTS].bytes)}"
        if self.manifest.recall is not None:
            text += f"\n{self.manifest.recall}"
        return f"{text}\n{self.note}" if self.note else text

    @property
    def languages(self) -> dict[str, int]:
        """Language -> number of documents."""
        return dict(self.manifest.languages)

    @property
    def faiss(self) -> Any:
        """Raises as `open_index`."""
        return self._opened[0]

    @property
    def docids(self) -> Lines | Listed:
        """Docids by position; raises as `open_index`."""
        return self._opened[1]

    def open(self) -> None:
        """Reads the vectors; raises as `open_index`."""
        _ = self._opened

    def searchable(self, languages: Sequence[str] = ()) -> Searchable:
        """See `AnyIndex.searchable`."""
        return Searchable(self.name, self.faiss, self.docids, self.rows_in(languages) if languages else None)

    def search(self, topics: Any, **options: Any) -> "Run":
        """Searches queries; see `search.search`."""
        from mimo_plugin.indexing.search import search

        return search(self, topics, **options)

    def texts(self, docids: Iterable[str]) -> dict[str, str]:
        """Docid -> text; docids that the index lacks are left out.

        The texts are those kept beside the index (`mimo index --texts`), else those of its collections, which
        are read until all are found.

        Raises:
            ArtifactError: the index is corrupted.
            DataError: texts are not kept, and the collections are not on this machine.
            UsageError: texts are not kept, and the vectors were imported.
        """
        from mimo_plugin.indexing.texts import texts_in

        rows = self._rows(docids)
        if self._kept is None:
            return texts_in(self.manifest.plan, list(rows))
        return dict(zip(rows, self._kept.take(np.fromiter(rows.values(), np.int64)), strict=True))

    def languages_of(self, docids: Iterable[str]) -> dict[str, str]:
        """Docid -> language; docids that the index lacks, and those without a language, are left out."""
        rows = self._rows(docids)
        langs = self._langs.take(np.fromiter(rows.values(), np.int64)) if self._langs else [""] * len(rows)
        return {docid: lang for docid, lang in zip(rows, langs, strict=True) if lang}

    def rows_in(self, languages: Sequence[str]) -> np.ndarray:
        """Which documents are in the languages, bool (documents,)."""
        return self._langs.among(languages) if self._langs else np.zeros(len(self), dtype=bool)

    def _rows(self, docids: Iterable[str]) -> dict[str, int]:
        """Docid -> number of the document, for the docids that the index has."""
        asked = list(dict.fromkeys(docids))
        return {
            docid: row for docid, row in zip(asked, self.docids.find(asked).tolist(), strict=True) if row >= 0
        }

    @cached_property
    def _langs(self) -> Lines | None:
        return Lines(self.directory / LANG) if LANG in self.manifest.files else None

    @cached_property
    def _kept(self) -> "KeptTexts | None":
        from mimo_plugin.indexing.texts import KeptTexts

        if TEXTS not in self.manifest.files:
            return None
        index_at(self.directory).verify(TEXTS)
        return KeptTexts(self.directory / TEXTS)

    @cached_property
    def _opened(self) -> tuple[Any, Lines | Listed]:
        index, docids = self.opened or self._read()
        if self.parameters:
            set_parameters(index, self.parameters, self.directory)
        recall = self.manifest.recall
        if recall is not None and (problem := recall.problem(self.parameters)):
            logger.warning("%s: %s", self.directory, problem)
        return index, docids

    def _read(self) -> tuple[Any, Lines]:
        index_at(self.directory).verify(*FILES)
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
        ArtifactError: the index is incomplete or corrupted.
        UsageError: the index has no such parameters.
    """
    index = Index(directory, index_at(directory).read(), parameters)
    index.open()
    return index


def _open_pyserini(directory: Path, parameters: str | None) -> Index:
    """Opens an index that Pyserini made, with a manifest that names no encoder."""
    import faiss

    index = read_index(directory / INDEX)
    try:
        with (directory / DOCID).open(encoding="utf-8") as file:
            # Pyserini strips docids, too.
            docids = Listed(line.rstrip() for line in file)
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{directory / DOCID} cannot be read ({error}), expected a docid a line"
        ) from error
    if not index.ntotal == len(docids) > 0:
        raise ArtifactError(
            f"{directory} holds {index.ntotal} vectors and {len(docids)} docids, expected the same number, "
            "at least 1: build it again"
        )
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ArtifactError(
            f"{directory} was built for distances, expected inner products: the best hits would come last; "
            "build it again with inner product"
        )
    problems = Problems(ArtifactError)
    for docid, count in Counter(docids).items():
        if count > 1:
            problems.add(f"{directory / DOCID}: docid {docid!r} occurs {count} times, expected once")
        elif docid.split() != [docid]:
            problems.add(f"{directory / DOCID}: docid {docid!r} contains white space, expected none")
    problems.raise_any()
    vectors = foreign_plan((), "", len(docids), index.d, len(docids))
    manifest = IndexManifest(
        plan=IndexPlan.of(vectors, "", None, 0), languages={"": len(docids)}, empty_documents=None, files={}
    )
    return Index(directory, manifest, parameters, opened=(index, docids))


def find_indexes(places: Sequence[AnyIndex | Path | str], parameters: str | None = None) -> list[AnyIndex]:
    """Finds indexes that are searched as one, also Pyserini's; the vectors of `mimo index` are not read yet.

    Args:
        places: directories, addresses of Milvus, or open indexes.
        parameters: search parameters for the directories and addresses.

    Raises:
        ArtifactError: an index is corrupted or repeated, or scores or ids do not fit together.
        UsageError: `places` is empty.
    """
    if not places:
        raise UsageError("no index was given, expected at least one")
    problems = Problems(ArtifactError)
    names = [str(place) if isinstance(place, Path | str) else place.name for place in places]
    for name, count in Counter(
        name if is_milvus(name) else str(Path(name).resolve()) for name in names
    ).items():
        if count > 1:
            problems.add(f"{name}: given {count} times, expected each index once")
    indexes: list[AnyIndex] = []
    for place in places:
        with problems.collect():
            indexes.append(_find(place, parameters))
    plans = [index.plan for index in indexes]
    found = [index.name for index in indexes]
    problems.extend(unlike(plans, found, _OF_THE_VECTORS, "cannot be searched as one"))
    with problems.collect():
        shared_prefixes(indexes)
    problems.raise_any()
    return indexes


def _find(place: AnyIndex | Path | str, parameters: str | None) -> AnyIndex:
    if not isinstance(place, Path | str):
        return place
    if is_milvus(str(place)):
        from mimo_plugin.indexing.milvus import find_collection

        return find_collection(str(place), parameters)
    directory = Path(place)
    if made_by_pyserini(directory):
        return _open_pyserini(directory, parameters)
    return Index(directory, index_at(directory).read(), parameters)


# Vectors are comparable where these fields are equal.
_OF_THE_VECTORS = ("encoder_fingerprint", "dimension", "pooling", "normalize")


def shared_prefixes(indexes: Sequence[AnyIndex]) -> dict[str, str] | None:
    """Collection -> prefix of its ids in all indexes; None where ids are the sources' own."""
    problems = Problems(ArtifactError)
    shared: dict[str, str] = {}
    for index in indexes:
        for collection, prefix in (index.plan.prefixes or {}).items():
            if shared.setdefault(collection, prefix) != prefix:
                problems.add(
                    f"{index.name}: ids of {collection} begin with '{prefix}:', in another index with "
                    f"'{shared[collection]}:'; build one of them again"
                )
    problems.raise_any()
    return shared if indexes and indexes[0].plan.prefixes is not None else None


def check_encoder(index: AnyIndex, encoder: Encoder, *, allow_other: bool = False) -> None:
    """Raises an ArtifactError where a query encoder is not the encoder of the index."""
    plan = index.plan
    if encoder.dimension != plan.dimension:
        raise ArtifactError(
            f"{encoder.name} gives {encoder.dimension} dimensions, the vectors in {index.name} have "
            f"{plan.dimension}: search with the encoder that made the index"
            f"{f' ({plan.encoder})' if plan.encoder else ''}"
        )
    # Imported vectors may name no encoder.
    if plan.encoder_fingerprint not in ("", encoder.fingerprint) and not allow_other:
        raise ArtifactError(
            f"{encoder.name} (fingerprint {encoder.fingerprint[:12]}) is not the encoder of "
            f"{index.name} ({plan.encoder}, fingerprint {plan.encoder_fingerprint[:12]}): search with "
            "that encoder, or give --allow-other-encoder"
        )


def read_doc_languages(directory: Path, wanted: Iterable[str]) -> dict[str, str]:
    """Docid -> language, for the wanted documents that are in an index and have a language.

    Raises:
        ArtifactError: the directory holds no index, or a corrupted one.
    """
    manifest = index_at(directory).verify(DOCID, LANG)
    return Index(directory, manifest, opened=(None, Lines(directory / DOCID))).languages_of(wanted)
