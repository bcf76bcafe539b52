"""A benchmark's collections as they are used: opened, looked through, selected."""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml

from mimo_plugin.collections.survey import Selected, Survey, copies_text, select, selected_pool, survey
from mimo_plugin.core.artifact import Held, SealedRecord, one_writer, parse_manifest
from mimo_plugin.core.config import read_yaml
from mimo_plugin.core.errors import ArtifactError, DataError, EnvironmentProblem, Findings, UsageError
from mimo_plugin.core.files import check_place, make_parent, write_text
from mimo_plugin.data.sources import collection_identity, identity_key

if TYPE_CHECKING:
    from mimo_plugin.benchmark.config import BenchmarkConfig, TopicOptions

FORMAT: Final = "mimo-reproduction-survey"
_SAMPLE = 256


class Note(SealedRecord):
    """What a pass over a collection found.

    Attributes:
        documents, empty, languages, fingerprint, copies, repeated: see `Survey`.
        text_bytes: of all documents, as UTF-8.
        sample: texts drawn evenly, to measure the speed of an encoder with.
        docids: of a subset; None is all.
        judged: judged docids, where languages or documents were chosen.
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


@dataclass(frozen=True)
class Looked:
    """Attributes:
    pool: the documents, queries and qrels that were chosen.
    survey: of these documents.
    text_bytes: of their texts.
    sample: some of their texts.
    judged: judged documents in a subset; 0 where none was made.
    """

    pool: Any
    survey: Survey
    text_bytes: int
    sample: tuple[str, ...]
    judged: int


def look(
    pool: Any,
    place: Path,
    *,
    doc_languages: frozenset[str] | None,
    query_languages: frozenset[str] | None,
    distractors: int | None,
    seed: int,
    progress: bool | None,
) -> Looked:
    """Chooses and surveys documents, or reads what `place` says of an earlier time.

    Args:
        place: file without its suffix; its name stands for all that decides what is found.

    Raises:
        DataError: the documents are not as they must be.
    """
    file = place.with_name(f"{place.name}.json")
    chosen = doc_languages is not None or distractors is not None
    note = _read(file)
    if note is None:
        selected = (
            select(pool, languages=doc_languages, distractors=distractors, seed=seed, progress=progress)
            if chosen
            else None
        )
        part = _part(pool, doc_languages, query_languages, selected)
        watched = _Watched(part, seed)
        found = survey(watched, progress=progress)
        note = Note(
            documents=found.documents,
            empty=found.empty,
            languages=found.languages,
            fingerprint=found.fingerprint,
            text_bytes=watched.text_bytes,
            sample=tuple(watched.sample),
            docids=None if selected is None or selected.docids is None else tuple(sorted(selected.docids)),
            judged=None if selected is None else tuple(sorted(selected.judged)),
            judged_count=None if selected is None else selected.judged_count,
            copies=found.copies,
            repeated=tuple(sorted(found.repeated)),
        )
        make_parent(file)
        write_text(file, note.sealed())
    selected = None
    if note.judged is not None:
        docids = None if note.docids is None else frozenset(note.docids)
        selected = Selected(docids, frozenset(note.judged), note.judged_count or 0, 0)
    return Looked(
        _part(pool, doc_languages, query_languages, selected),
        Survey(
            note.documents,
            note.empty,
            note.languages,
            note.fingerprint,
            note.copies,
            frozenset(note.repeated),
        ),
        note.text_bytes,
        note.sample,
        note.judged_count or 0,
    )


def _part(
    pool: Any,
    doc_languages: frozenset[str] | None,
    query_languages: frozenset[str] | None,
    selected: Selected | None,
) -> Any:
    return pool if selected is None else selected_pool(pool, doc_languages, query_languages, selected)


def _read(file: Path) -> Note | None:
    """An earlier note; None where there is none, or one that is damaged: it is made again."""
    try:
        return parse_manifest(file, Note, "a survey")
    except ArtifactError:
        return None


class _Watched:
    """A collection whose documents are counted in bytes and sampled while somebody else reads them."""

    def __init__(self, pool: Any, seed: int) -> None:
        self._pool = pool
        self._random = random.Random(seed)
        self.text_bytes = 0
        self.sample: list[str] = []

    def docs_iter(self) -> Iterator[Any]:
        self.text_bytes = 0
        self.sample = []
        for number, doc in enumerate(self._pool.docs_iter()):
            self.text_bytes += len(doc.text.encode("utf-8", "surrogatepass"))
            if number < _SAMPLE:
                self.sample.append(doc.text)
            elif (place := self._random.randrange(number + 1)) < _SAMPLE:
                self.sample[place] = doc.text
            yield doc


@dataclass(frozen=True)
class Part:
    """Documents that go into one index, and the queries that are searched there.

    Attributes:
        name: of its directories.
        specs: its collections.
        language: of all its documents; None where they have several.
        pool: an ir_datasets dataset of `Doc`, `Query` and qrels, under the ids of the whole benchmark.
        prefixes: see `pool_prefixes`; None where ids are the collection's own.
        looked: what a pass over its documents found.
        key: names the collections, and what was chosen of them.
    """

    name: str
    specs: tuple[str, ...]
    language: str | None
    pool: Any
    prefixes: Mapping[str, str] | None
    looked: Looked
    key: str

    @property
    def documents(self) -> int:
        return self.looked.survey.documents

    @cached_property
    def queries(self) -> list[tuple[str, str]]:
        """(query id, text) pairs; only those with a judgment: no measure sees the others.

        Raises:
            DataError: there are none.
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
    """A config and its collections, read once.

    Attributes:
        parts: what is indexed and searched, each by itself.
        pool: topics and judgments of all parts, and their documents.
        specs: its collections.
        distractors: of a subset; None where there are all documents.
        seed: of the subset.
    """

    config: "BenchmarkConfig"
    parts: tuple[Part, ...]
    pool: Any
    specs: tuple[str, ...]
    distractors: int | None
    seed: int

    @property
    def documents(self) -> int:
        return sum(part.documents for part in self.parts)

    @cached_property
    def queries_fingerprint(self) -> str:
        """SHA-256 over ids and texts of the queries of all parts."""
        digest = hashlib.sha256()
        for part in self.parts:
            for query_id, text in part.queries:
                digest.update(
                    f"{len(query_id)} {len(text)} {query_id}{text}\n".encode("utf-8", "surrogatepass")
                )
        return digest.hexdigest()

    @property
    def documents_identity(self) -> list[tuple[str, str]]:
        """The name and the fingerprint of each part's documents."""
        return [(part.name, part.looked.survey.fingerprint) for part in self.parts]

    @property
    def warnings(self) -> list[str]:
        """What a user should know of the texts, a line each."""
        documents = sum(part.looked.survey.empty for part in self.parts)
        queries = [name for part in self.parts for name, text in part.queries if not text.strip()]
        found = []
        copies = sum(part.looked.survey.copies for part in self.parts)
        if copies:
            found.append(copies_text(copies))
        if documents:
            found.append(
                f"{documents:,} documents have no text; encoders take them all the same, BM25 does not"
            )
        if queries:
            found.append(
                f"{len(queries):,} queries have no text and are searched all the same, such as {queries[0]}"
            )
        return found

    def subset(self) -> dict[str, Any] | None:
        """What a quick look left out, with the sentence that goes with every number; None for all of it."""
        if self.distractors is None:
            return None
        judged = sum(part.looked.judged for part in self.parts)
        others = f"up to {self.distractors:,} others a language" if self.distractors else "no others"
        return {
            "documents": self.documents,
            "judged": judged,
            "distractors_per_language": self.distractors,
            "seed": self.seed,
            "text": (
                f"From a subset of the collection: {judged:,} judged documents and {others} "
                f"({self.documents:,} documents, seed {self.seed}). "
                "Scores are higher than on the whole collection and do not compare with published ones."
            ),
        }


def check_collections(config: "BenchmarkConfig") -> None:
    """Checks that the collections are there, or fetches them; nothing is read.

    Raises:
        DataError: with every problem of every collection.
    """
    from mimo_plugin.benchmark.loading import check_data
    from mimo_plugin.collections.loading import require

    check_data(config)
    source = config.topics.source
    findings = Findings()
    specs = tuple(config.chosen_collections.values())
    findings.attempt(partial(require, docs=True, queries=source is None, qrels=True), specs)
    if source is not None:
        findings.attempt(partial(require, queries=True), [source])
    findings.raise_any()


def open_benchmark(
    config: "BenchmarkConfig",
    cache: Path,
    *,
    distractors: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Benchmark:
    """Opens a benchmark's collections and reads their documents once, or what an earlier call noted of them.

    Args:
        cache: directory for what a pass over documents found.
        distractors: for a subset: documents without a judgment a language; None takes all documents.

    Raises:
        DataError: the collections are not as they must be, with every problem of every collection.
        UsageError: a language that they do not have.
    """
    from mimo_plugin.benchmark.loading import at_hand, check_languages
    from mimo_plugin.collections.pool import pool_prefixes
    from mimo_plugin.evaluation.options import Setting

    check_collections(config)
    chosen = config.chosen_collections
    specs = tuple(chosen.values())
    # Ids do not depend on which languages are chosen. What is not at hand need not be fetched for that.
    every = [spec for spec in config.all_collections.values() if spec in specs or at_hand(spec)]
    prefixes = pool_prefixes(every) if config.pooled else None
    whole = _pool(config, specs, prefixes)
    groups: list[tuple[str, tuple[str, ...], str | None]]
    if config.setting is Setting.MULTI_MONOLINGUAL:
        groups = [(language, (spec,), language) for language, spec in chosen.items()]
    else:
        groups = [("all", specs, None)]
    languages = config.languages_within
    queried = None if config.setting is Setting.CLIR else languages
    parts = []
    for name, some, language in groups:
        pool = whole if len(groups) == 1 else _pool(config, some, prefixes)
        key = _key(config, some, prefixes, distractors, seed)
        looked = look(
            pool,
            cache / f"{name}-{key}",
            doc_languages=languages,
            query_languages=queried,
            distractors=distractors,
            seed=seed,
            progress=progress,
        )
        parts.append(Part(name, some, language, looked.pool, prefixes, looked, key))
    if not isinstance(config.collections, dict):
        check_languages(config, {language for part in parts for language in part.looked.survey.languages})
    pool = parts[0].pool if len(parts) == 1 else whole
    return Benchmark(config, tuple(parts), pool, specs, distractors, seed)


def _pool(config: "BenchmarkConfig", specs: Sequence[str], prefixes: Mapping[str, str] | None) -> Any:
    from mimo_plugin.collections.pool import load
    from mimo_plugin.collections.survey import binary
    from mimo_plugin.evaluation.options import Gain

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


def _topics_identity(topics: "TopicOptions") -> dict[str, Any]:
    """Nothing of a source where there is none: what earlier versions noted stays valid."""
    found = topics.model_dump(mode="json", exclude={"source"})
    return found | ({"source": collection_identity(topics.source)} if topics.source else {})


def _key(
    config: "BenchmarkConfig",
    specs: Sequence[str],
    prefixes: Mapping[str, str] | None,
    distractors: int | None,
    seed: int,
) -> str:
    """Names all that decides what a pass over the documents finds."""
    return identity_key(
        {
            "collections": [collection_identity(spec) for spec in specs],
            "prefixes": prefixes and sorted(prefixes.values()),
            "fields": config.fields,
            "topics": _topics_identity(config.topics),
            "languages": sorted(config.languages_within or ()),
            "distractors": distractors,
            "seed": seed if distractors is not None else None,
        }
    )


CONFIG, RESULTS, REPORT = "config.yaml", "results.json", "report"
COLLECTIONS, INDEXES, RUNS, GEOMETRY = "collections", "indexes", "runs", "geometry"


def check_output(output: Path, name: str) -> None:
    """Raises an ArtifactError where something else than this benchmark's reproduction lies there."""
    if output.exists() and not output.is_dir():
        raise ArtifactError(f"{output} is a file: --output must name a new or empty directory")
    check_place(output / CONFIG)
    names = sorted(path.name for path in output.iterdir() if path.name[0] != ".") if output.exists() else []
    if not names:
        return
    try:
        there = read_yaml(output / CONFIG).values
    except UsageError:
        there = {}
    if "setting" not in there:
        raise ArtifactError(
            f"{output} holds something else ({', '.join(names[:5])}): --output must name a new or empty "
            "directory, or one that this command began"
        )
    if there.get("name") != name:
        raise ArtifactError(
            f"{output} holds {there.get('name')!r}, expected a directory of its own for {name!r}: choose "
            "another --output"
        )


@contextmanager
def held(output: Path, config: "BenchmarkConfig", *, only_looking: bool = False) -> Iterator[Held]:
    """Holds the directory for one writer, writes down the config, removes what a kill has left.

    Args:
        only_looking: the config of what was made here before stays as it is.

    Raises:
        ArtifactError: another process is writing there.
        EnvironmentProblem: the file system refuses, or somebody has removed the directory meanwhile.
    """
    with one_writer(output) as there:
        for place in (output, *(output / name for name in (COLLECTIONS, RUNS, GEOMETRY))):
            for leftover in place.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
        if not (only_looking and (output / CONFIG).exists()):
            _write_config(output, config)
        try:
            yield there
        finally:
            # Where somebody removed the directory meanwhile, what was made again would look like another's.
            if output.is_dir() and not (output / CONFIG).exists():
                with suppress(EnvironmentProblem):
                    _write_config(output, config)


def _write_config(output: Path, config: "BenchmarkConfig") -> None:
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    write_text(output / CONFIG, text)
