"""The collections of a benchmark: opened, surveyed, limited to what is selected."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from pydantic import BaseModel

from mimo_plugin.collections.survey import Selected, Survey, copies_text, select, selected_pool, survey
from mimo_plugin.core.artifact import SealedRecord, sealed_text, unseal
from mimo_plugin.core.errors import DataError, Problems
from mimo_plugin.core.files import make_parent, write_text
from mimo_plugin.data.sources import collection_identity, identity_key
from mimo_plugin.evaluation.options import Gain, Setting
from mimo_plugin.evaluation.results import SubsetResult

if TYPE_CHECKING:
    from mimo_plugin.benchmark.config import BenchmarkConfig

FORMAT: Final = "mimo-reproduction-survey"
Note = TypeVar("Note", bound=BaseModel)


def read_note(file: Path, kind: type[Note]) -> Note | None:
    """Reads an earlier note; None if it is missing or damaged, so that it is made again."""
    try:
        found, intact = unseal(file.read_bytes())
        return kind.model_validate(found) if intact else None
    except (OSError, ValueError, RecursionError):
        return None


def write_note(file: Path, note: BaseModel) -> None:
    make_parent(file)
    write_text(file, sealed_text(note.model_dump(mode="json")))


class SurveyNote(SealedRecord):
    """Results of a pass over a collection.

    Attributes:
        documents, empty, languages, fingerprint, copies, repeated, sample: see `Survey`.
        text_bytes: size of all texts as UTF-8.
        docids: the documents of a subset; None is all.
        judged, judged_count: see `Selected`; None if neither languages nor documents were selected.
    """

    format: Literal["mimo-reproduction-survey"] = FORMAT
    format_version: Literal[1] = 1
    documents: int
    empty: int
    languages: dict[str, int]
    fingerprint: str
    text_bytes: int
    sample: tuple[str, ...]
    docids: tuple[str, ...] | None
    judged: tuple[str, ...] | None
    judged_count: int | None
    copies: int = 0
    repeated: tuple[str, ...] = ()

    @property
    def survey(self) -> Survey:
        found = {field.name: getattr(self, field.name) for field in fields(Survey)}
        return Survey(**{**found, "repeated": frozenset(self.repeated)})

    @property
    def selected(self) -> Selected | None:
        if self.judged is None:
            return None
        docids = None if self.docids is None else frozenset(self.docids)
        return Selected(docids, frozenset(self.judged))


@dataclass(frozen=True)
class _Selection:
    """The part of the collections that a benchmark uses.

    Attributes:
        doc_languages, query_languages: None is all.
        distractors: unjudged documents per language in a subset; None takes all documents.
        seed: seed of the subset.
    """

    doc_languages: frozenset[str] | None
    query_languages: frozenset[str] | None
    distractors: int | None
    seed: int

    def of(self, pool: Any, selected: Selected | None) -> Any:
        """The selected documents, queries and qrels."""
        if selected is None:
            return pool
        return selected_pool(pool, self.doc_languages, self.query_languages, selected)

    def survey(self, pool: Any, progress: bool | None) -> SurveyNote:
        """Selects and surveys documents."""
        selected = None
        if self.doc_languages is not None or self.distractors is not None:
            selected = select(
                pool,
                languages=self.doc_languages,
                distractors=self.distractors,
                seed=self.seed,
                progress=progress,
            )
        watched = _Watched(self.of(pool, selected))
        found = survey(watched, progress=progress)
        return SurveyNote(
            **{**vars(found), "repeated": sorted(found.repeated)},
            text_bytes=watched.text_bytes,
            docids=None if selected is None or selected.docids is None else tuple(sorted(selected.docids)),
            judged=None if selected is None else tuple(sorted(selected.judged)),
            judged_count=None if selected is None else len(selected.judged),
        )


class _Watched:
    """A collection that counts the bytes of its documents while they are read."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.text_bytes = 0

    def docs_iter(self) -> Iterator[Any]:
        self.text_bytes = 0
        for doc in self._pool.docs_iter():
            self.text_bytes += len(doc.text.encode("utf-8", "surrogatepass"))
            yield doc


@dataclass(frozen=True)
class BenchmarkPart:
    """Documents that go into one index, and the queries that are searched there.

    Attributes:
        name: name of its directories.
        specs: its collections.
        language: language of all its documents; None for several.
        pool: an ir_datasets dataset of `Doc`, `Query` and qrels, under the ids of the whole benchmark.
        prefixes: see `pool_prefixes`; None where ids are the collection's own.
        key: key of the collections and the selection.
    """

    name: str
    specs: tuple[str, ...]
    language: str | None
    pool: Any
    prefixes: Mapping[str, str] | None
    note: SurveyNote
    key: str

    @property
    def documents(self) -> int:
        return self.note.documents

    @cached_property
    def queries(self) -> list[tuple[str, str]]:
        """(query id, text) pairs of the judged queries; no measure uses the others.

        Raises:
            DataError: no query is judged.
        """
        from mimo_plugin.indexing.search import read_topics

        judged = {qrel.query_id for qrel in self.pool.qrels_iter()}
        queries = [query for query in read_topics(self.pool).queries if query[0] in judged]
        if not queries:
            raise DataError(
                f"{', '.join(self.specs)}: none of the queries is judged, expected judgments of some"
            )
        return queries


@dataclass(frozen=True)
class Benchmark:
    """A config and its collections.

    Attributes:
        parts: each is indexed and searched by itself.
        pool: documents, topics and judgments of all parts.
        specs: its collections.
        distractors, seed: of a subset, see `open_benchmark`.
    """

    config: "BenchmarkConfig"
    parts: tuple[BenchmarkPart, ...]
    pool: Any
    specs: tuple[str, ...]
    distractors: int | None
    seed: int

    @property
    def documents(self) -> int:
        return sum(part.documents for part in self.parts)

    @property
    def queries(self) -> int:
        """Number of judged queries."""
        return sum(len(part.queries) for part in self.parts)

    @cached_property
    def queries_fingerprint(self) -> str:
        """SHA-256 over ids and texts of the queries of all parts."""
        digest = hashlib.sha256()
        for part in self.parts:
            for query_id, text in part.queries:
                digest.update(query_bytes(query_id, text))
        return digest.hexdigest()

    @property
    def documents_identity(self) -> list[tuple[str, str]]:
        """The name and the fingerprint of each part's documents."""
        return [(part.name, part.note.fingerprint) for part in self.parts]

    @property
    def warnings(self) -> list[str]:
        """Warnings about the texts, one per line."""
        found = []
        if copies := sum(part.note.copies for part in self.parts):
            found.append(copies_text(copies))
        if documents := sum(part.note.empty for part in self.parts):
            found.append(
                f"{documents:,} documents have no text; encoders take them all the same, BM25 does not"
            )
        if queries := [name for part in self.parts for name, text in part.queries if not text.strip()]:
            found.append(
                f"{len(queries):,} queries have no text and are searched all the same, such as {queries[0]}"
            )
        return found

    def subset(self) -> SubsetResult | None:
        """Size of a subset and the label for every number; None for the whole collection."""
        if self.distractors is None:
            return None
        judged = sum(part.note.judged_count or 0 for part in self.parts)
        others = f"up to {self.distractors:,} others per language" if self.distractors else "no others"
        return SubsetResult(
            documents=self.documents,
            judged=judged,
            distractors_per_language=self.distractors,
            seed=self.seed,
            text=f"From a subset of the collection: {judged:,} judged documents and {others} "
            f"({self.documents:,} documents, seed {self.seed}). "
            "Scores are higher than on the whole collection and do not compare with published ones.",
        )


def query_bytes(query_id: str, text: str) -> bytes:
    """A query as part of a fingerprint."""
    return f"{len(query_id)} {len(text)} {query_id}{text}\n".encode("utf-8", "surrogatepass")


def check_collections(config: "BenchmarkConfig") -> None:
    """Checks that the collections exist, or downloads them; nothing is read.

    Raises:
        DataError: with every problem of every collection.
    """
    from mimo_plugin.benchmark.loading import check_data
    from mimo_plugin.collections.loading import require

    check_data(config)
    source = config.topics.source
    problems = Problems(DataError)
    with problems.collect():
        require(tuple(config.chosen_collections.values()), docs=True, queries=source is None, qrels=True)
    if source is not None:
        with problems.collect():
            require([source], queries=True)
    problems.raise_any()


def open_benchmark(
    config: "BenchmarkConfig",
    cache: Path | None,
    *,
    distractors: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Benchmark:
    """Opens a benchmark's collections and surveys their documents, or reads the survey of an earlier call.

    Args:
        cache: directory of surveys; None writes none.
        distractors: unjudged documents per language in a subset; None takes all documents.
        seed: seed of the subset.

    Raises:
        DataError: with every problem of every collection.
        UsageError: the collections lack a selected language.
    """
    from mimo_plugin.benchmark.loading import at_hand, check_languages
    from mimo_plugin.collections.pool import pool_prefixes

    check_collections(config)
    chosen = config.chosen_collections
    specs = tuple(chosen.values())
    # Ids do not depend on the selected languages, nor do other collections need a download for them.
    every = [spec for spec in config.all_collections.values() if spec in specs or at_hand(spec)]
    prefixes = pool_prefixes(every) if config.pooled else None
    whole = _pool(config, specs, prefixes)
    groups: list[tuple[str, tuple[str, ...], str | None]] = [("all", specs, None)]
    if config.setting is Setting.MULTI_MONOLINGUAL:
        groups = [(language, (spec,), language) for language, spec in chosen.items()]
    languages = config.languages_within
    queried = None if config.setting is Setting.CLIR else languages
    selection = _Selection(languages, queried, distractors, seed)
    parts = []
    for name, some, language in groups:
        pool = whole if len(groups) == 1 else _pool(config, some, prefixes)
        key = _key(config, some, prefixes, selection)
        file = None if cache is None else cache / f"{name}-{key}.json"
        note = None if file is None else read_note(file, SurveyNote)
        if note is None:
            note = selection.survey(pool, progress)
            if file is not None:
                write_note(file, note)
        chosen_pool = selection.of(pool, note.selected)
        parts.append(BenchmarkPart(name, some, language, chosen_pool, prefixes, note, key))
    if isinstance(config.collections, tuple):
        check_languages(config, {language for part in parts for language in part.note.languages})
    pool = parts[0].pool if len(parts) == 1 else whole
    return Benchmark(config, tuple(parts), pool, specs, distractors, seed)


def _pool(config: "BenchmarkConfig", specs: Sequence[str], prefixes: Mapping[str, str] | None) -> Any:
    from mimo_plugin.collections.pool import load
    from mimo_plugin.collections.survey import binary

    topics = config.topics
    pool = load(
        *specs,
        fields=config.fields,
        prefixes=prefixes,
        shared_topics=topics.shared,
        topic_field=topics.field,
        topic_lang=topics.lang,
        topic_source=topics.source,
    )
    return pool if config.gain is Gain.GRADED else binary(pool)


def _key(
    config: "BenchmarkConfig",
    specs: Sequence[str],
    prefixes: Mapping[str, str] | None,
    selection: _Selection,
) -> str:
    """Key of everything that determines a survey of the documents."""
    topics = config.topics.model_dump(mode="json", exclude={"source"})
    # The key is left out without a source, so that the notes of earlier versions stay valid.
    if config.topics.source is not None:
        topics["source"] = collection_identity(config.topics.source)
    return identity_key(
        {
            "collections": [collection_identity(spec) for spec in specs],
            "prefixes": prefixes and sorted(prefixes.values()),
            "fields": config.fields,
            "topics": topics,
            "languages": sorted(selection.doc_languages or ()),
            "distractors": selection.distractors,
            "seed": selection.seed if selection.distractors is not None else None,
        }
    )
