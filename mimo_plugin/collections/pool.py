"""Several collections as one pool of documents, queries and qrels."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ir_datasets.formats import BaseQueries, TrecQrel

from mimo_plugin.collections.dataset import MEMORY, Pool, StreamedDocs, StreamedQrels
from mimo_plugin.collections.folder import FOLDER_PREFIX, local_path, parse_spec
from mimo_plugin.collections.loading import HUB_PREFIX, documents_id, open_collection, parse_hub
from mimo_plugin.collections.reading import read
from mimo_plugin.collections.records import (
    ERROR,
    FIRST,
    Doc,
    Query,
    check_fields,
    check_id,
    check_text,
    common_language,
    pooled_id,
    text_of,
    usual_language,
)
from mimo_plugin.core.errors import DataError, Problems, UsageError


@dataclass(frozen=True)
class Member:
    """One collection of a pool.

    Attributes:
        dataset: the ir_datasets dataset.
        prefix: of its ids, before the colon; "" without a colon.
        lang: of queries without their own language.
        file: whether it is a file of topics or qrels, whose ids may have the prefix already.
    """

    spec: str
    dataset: Any
    prefix: str = ""
    lang: str = ""
    file: bool = False

    def pooled(self, identifier: str) -> str:
        """The pool's id for an id of this collection."""
        named = self.file and identifier.startswith(f"{self.prefix}:")
        return identifier if named else pooled_id(self.prefix, identifier)

    def numbered(self, part: str) -> Iterator[tuple[int, Any]]:
        """A part's records, numbered from 1."""
        return enumerate(read(self.dataset, part, self.spec), start=1)


def load(
    *specs: Any,
    fields: Sequence[str] | None = None,
    pooled: bool | None = None,
    prefixes: Mapping[str, str] | None = None,
    shared_topics: bool = False,
    topic_field: str | None = None,
    topic_lang: str | None = None,
    topic_source: str | None = None,
    lang: Sequence[str] = (),
    duplicates: str = ERROR,
) -> Pool:
    """Loads collections as one ir_datasets dataset of `Doc`, `Query` and `TrecQrel`; nothing is read yet.

    In a pool ids become `lang:id`, with the language of the collection's documents. If two collections share
    a language, or one has none or several, the collection's id replaces the language: for `miracl/de/dev`
    that is `miracl/de`, which all its splits share; for a folder its name. Collections with the same
    documents (splits of one) contribute them once, and the queries and qrels of each.

    >>> pool = load("mimo-sample/de", "mimo-sample/fr")
    >>> next(pool.queries_iter()).query_id.partition(":")[0], pool.specs
    ('de', ('mimo-sample/de', 'mimo-sample/fr'))

    Reading a part of the pool skips invalid records. At the end, or at the 20th invalid record, it raises one
    DataError for all collections. Read to the end before using any record.

    Args:
        specs: names: an ir_datasets id, `path:DIR`, `path:DIR#SPLIT`,
            `hub:OWNER/NAME[@REVISION][/FOLDER][#SPLIT]`, a packaged id, or a file of topics or qrels. Or the
            result of `collection` or of ir_datasets itself.
        fields: document fields to use as text; non-empty ones are joined by a space. None takes the default
            text of ir_datasets.
        pooled: whether ids get a prefix. None: if there are several specs. False is possible only with the
            splits of one collection.
        prefixes: result of `pool_prefixes` for the pool of an index. Its collections keep these prefixes,
            whatever `pooled` and the other specs are.
        shared_topics: the collections have common topics, as in NeuCLIR: query ids get no prefix, and a query
            of several collections is one query with the union of their judgments. Reading the queries raises
            if two collections have different queries with the same id.
        topic_field: query field to use as text; None takes ir_datasets' default.
        topic_lang: language of queries without their own.
        topic_source: collection whose queries replace those of the collections: such as NeuCLIR in English
            for sets with translations of its topics.
        lang: languages of the files of topics or qrels: one for each in order, or one for all. In a pool it
            is the prefix of their ids, unless these begin with it already. Without one, ids stay unchanged,
            and their own prefix is their language.
        duplicates: for queries with the same id and different content, "first" takes the first; "error"
            raises on reading. Repeated queries with the same content are always taken once.

    Raises:
        DataError: unknown collections, unknown fields of documents or queries, or a repeated prefix. The
            error has all such problems of all collections.
        UsageError: no specs, `pooled=False` with several collections that are not all in `prefixes`, or
            `topic_field` or `topic_lang` without `shared_topics`.
    """
    if not specs:
        raise UsageError("no collection was given, expected at least one")
    if not shared_topics and (topic_field, topic_lang, topic_source) != (None, None, None):
        raise UsageError(
            "topic_field, topic_lang and topic_source need shared topics, expected shared_topics=True"
        )
    groups = _open_all(specs, fields, None if topic_source else topic_field, lang)
    in_pool = len(specs) > 1 if pooled is None else pooled
    groups = [
        [replace(member, prefix=prefix) for member in group]
        for group, prefix in zip(groups, _choose_prefixes(groups, prefixes or {}, in_pool), strict=True)
    ]
    members = [member for group in groups for member in group]
    asking = members
    if topic_source is not None:
        asking = [Member(topic_source, open_collection(topic_source))]
        if topic_field is not None:
            _check_topic_field(topic_field, asking[0])
    with_docs = tuple(group[0] for group in groups if group[0].dataset.has_docs())
    with_queries = tuple(member for member in asking if member.dataset.has_queries())
    with_qrels = tuple(member for member in members if member.dataset.has_qrels())
    chosen = tuple(fields) if fields is not None else None
    languages = [member.dataset.docs_lang() for member in with_docs]
    docs = StreamedDocs(_read_docs, (with_docs, chosen), lang=common_language(languages))
    queries = PooledQueries(with_queries, shared_topics, topic_field, topic_lang or "", duplicates)
    defs = {grade: text for member in with_qrels for grade, text in member.dataset.qrels_defs().items()}
    qrels = StreamedQrels(_read_qrels, (with_qrels, shared_topics), defs=defs)
    return Pool(
        docs if with_docs else None,
        queries if with_queries else None,
        qrels if with_qrels else None,
        specs=tuple(given if isinstance(given, str) else _opened(given)[0] for given in specs),
        prefixes={_identity(member.spec)[0]: member.prefix for member in members} if in_pool else None,
        fields=chosen,
    )


def pool_prefixes(specs: Sequence[str]) -> dict[str, str]:
    """The prefix of each collection's ids in a pool.

    Returns:
        `collection_key` -> prefix; splits of one collection have one entry.

    Raises:
        DataError: as `load`.
    """
    return load(*specs, pooled=True).prefixes or {}


def collection_key(spec: str) -> str:
    """The key of a collection in `pool_prefixes`; all splits of a collection share it.

    For an ir_datasets or packaged id it is the id of its documents: `miracl/de` for `miracl/de/dev`. For
    `path:DIR#SPLIT` it is the folder, absolute and without symbolic links. For `hub:REPOSITORY/FOLDER#SPLIT`
    it is the name without the split.

    Raises:
        DataError: as `load`.
    """
    return _identity(spec)[0]


def is_file(spec: str) -> bool:
    """Whether a name is a file of topics or qrels."""
    path = None if spec.startswith((FOLDER_PREFIX, HUB_PREFIX)) else local_path(spec)
    return path is not None and path.is_file()


def topic_languages(given: str | Sequence[str], shared: bool, specs: Sequence[str]) -> dict[str, Any]:
    """The arguments `topic_lang` and `lang` of `load`.

    Args:
        given: languages of the topics; several are of several files.
        shared: whether topics are shared.
        specs: names of collections and files.
    """
    several = [given] if isinstance(given, str) else list(given)
    alone = shared and not any(map(is_file, specs))
    return {"topic_lang": several[0] if shared and several else None, "lang": [] if alone else several}


def _identity(spec: str) -> tuple[str, str]:
    """The `collection_key` of a collection, and the prefix of its ids if its language cannot be that."""
    if spec.startswith(FOLDER_PREFIX):
        folder = parse_spec(spec)
        return str(folder.place), folder.collection_id
    if spec.startswith(HUB_PREFIX):
        hub = parse_hub(spec)
        return hub.key, hub.collection_id
    if spec.startswith(MEMORY):
        return spec, spec.replace(":", "-")
    if is_file(spec):
        return str(Path(spec).expanduser().resolve()), ""
    return documents_id(spec), documents_id(spec)


def _open_all(
    specs: Sequence[Any], fields: Sequence[str] | None, topic_field: str | None, lang: Sequence[str]
) -> list[list[Member]]:
    """Opens the collections, and groups those with the same documents."""
    problems = Problems()
    languages = _file_languages([spec for spec in specs if isinstance(spec, str)], lang)
    groups: list[list[Member]] = []
    names = set()
    for given in specs:
        with problems.collect():
            spec, dataset = _opened(given)
            if spec in names:
                raise DataError(f"{spec}: given twice, expected each collection once: leave one out")
            names.add(spec)
            member = Member(spec, dataset, lang=languages.get(spec, ""), file=spec in languages)
            if fields is not None and dataset.has_docs():
                check_fields(fields, dataset.docs_cls(), spec)
            if topic_field is not None:
                _check_topic_field(topic_field, member)
            for group in groups:
                first = group[0].dataset
                if first.has_docs() and dataset.has_docs() and first.docs_handler() == dataset.docs_handler():
                    group.append(member)
                    break
            else:
                groups.append([member])
    problems.raise_any()
    return groups


def _opened(given: Any) -> tuple[str, Any]:
    """The name of a collection and its dataset."""
    if isinstance(given, str):
        return given, open_collection(given)
    if not isinstance(given, Pool) and not hasattr(given, "dataset_id"):
        raise UsageError(
            f"of type {type(given).__name__}, expected the name of a collection, or the result of "
            "`collection` or ir_datasets.load"
        )
    names = given.specs if isinstance(given, Pool) else (given.dataset_id(),)
    if len(names) != 1:
        raise UsageError(f"{', '.join(names)}: a pool inside a pool, expected single collections: name them")
    return names[0], given


def _file_languages(specs: Sequence[str], lang: Sequence[str]) -> dict[str, str]:
    """The language of each file among the collections; "" if none was given."""
    files = [spec for spec in dict.fromkeys(specs) if is_file(spec)]
    if len(lang) > 1 and len(lang) != len(files):
        raise UsageError(
            f"{len(lang)} languages ({', '.join(lang)}) for {len(files)} files of topics or qrels, expected "
            "one for each, in order, or one for all"
        )
    for own in lang:
        if own.split() != [own] or ":" in own:
            raise UsageError(f"language {own!r}, expected a code such as sw")
    each = lang if len(lang) > 1 else [*(lang or [""])] * len(files)
    return dict(zip(files, each, strict=True))


def _check_topic_field(field: str, member: Member) -> None:
    if member.dataset.has_queries():
        check_fields([field], member.dataset.queries_cls(), member.spec, "queries")


def _choose_prefixes(groups: list[list[Member]], given: Mapping[str, str], in_pool: bool) -> list[str]:
    """A prefix for each group: the given one, else its language, else its id.

    Raises:
        DataError: two prefixes are equal.
        UsageError: several collections without pooled ids.
    """
    languages = [_language(group[0]) for group in groups]
    shared = Counter(lang for group, lang in zip(groups, languages, strict=True) if not group[0].file)
    chosen: list[str | None] = []
    for group, lang in zip(groups, languages, strict=True):
        first = group[0]
        keys = (_identity(member.spec)[0] for member in group)
        known = next((given[key] for key in keys if key in given), None)
        if first.file:
            known = first.lang if in_pool else ""
        elif known is None and in_pool:
            known = lang if lang and shared[lang] == 1 else _identity(first.spec)[1]
        chosen.append(known)
    if None in chosen and len(groups) > 1:
        names = ", ".join(member.spec for group in groups for member in group)
        raise UsageError(f"{names}: {len(groups)} collections without pooled ids, expected one: pool them")
    prefixes = [prefix or "" for prefix in chosen]
    # Files may share the prefix of their collection.
    named = [(group[0], own) for group, own in zip(groups, prefixes, strict=True) if not group[0].file]
    with Problems() as problems:
        for prefix, count in Counter(own for _, own in named).items():
            if count > 1:
                same = " and ".join(member.spec for member, own in named if own == prefix)
                start = f"that start with '{prefix}:'" if prefix else "without a prefix"
                problems.add(
                    f"{same} would both have ids {start}, expected different prefixes in a pool: rename a "
                    "folder, or leave one out"
                )
    return prefixes


def _language(member: Member) -> str:
    """The language of a collection's documents, or of its queries if it has no documents."""
    if member.file:
        return member.lang
    part = next((part for part in ("docs", "queries") if member.dataset.has(part)), None)
    return usual_language(getattr(member.dataset, f"{part}_lang")()) if part else ""


def _read_docs(members: tuple[Member, ...], fields: tuple[str, ...] | None) -> Iterator[Doc]:
    def convert(member: Member, lang: str, numbered: tuple[int, Any]) -> Doc:
        number, record = numbered
        doc_id = check_id(record.doc_id, f"{member.spec}: document number {number}: docid")
        text = text_of(record, fields, f"{member.spec}: document {doc_id}")
        return Doc(pooled_id(member.prefix, doc_id), text, getattr(record, "lang", None) or lang)

    with Problems(stop=True) as faults:
        for member in members:
            lang = usual_language(member.dataset.docs_lang())
            yield from faults.convert(member.numbered("docs"), partial(convert, member, lang))


@dataclass(frozen=True)
class PooledQueries(BaseQueries):
    """The queries of a pool.

    Attributes:
        members: collections with queries.
        shared: whether query ids stay unchanged, so that collections may share queries.
        field: query field used as text; None is the default text.
        lang: of queries without their own language; "" if unknown.
        duplicates: for queries with the same id and different content, "error" or "first".
        copies: repeated ids that the last reading left out.
    """

    members: tuple[Member, ...]
    shared: bool = False
    field: str | None = None
    lang: str = ""
    duplicates: str = ERROR
    copies: list[str] = dataclasses.field(default_factory=list, compare=False)

    def queries_iter(self) -> Iterator[Query]:
        met: dict[str, tuple[Query, list[str]]] = {}
        self.copies.clear()
        with Problems(stop=True) as faults:
            for member in self.members:
                lang = usual_language(member.dataset.queries_lang()) or member.lang or self.lang
                convert = partial(self._query, member, lang, met)
                for query in faults.convert(member.numbered("queries"), convert):
                    if query is not None:
                        yield query

    def _query(
        self,
        member: Member,
        lang: str,
        met: dict[str, tuple[Query, list[str]]],
        numbered: tuple[int, Any],
    ) -> Query | None:
        """The query; None for a repeated one. met: id -> query and the collections that have it."""
        number, record = numbered
        own_id = check_id(record.query_id, f"{member.spec}: query number {number}: query id")
        where = f"{member.spec}: query {own_id}"
        own_lang = member.lang if member.file and member.lang else getattr(record, "lang", None) or lang
        query = Query(
            own_id if self.shared else member.pooled(own_id),
            text_of(record, None, where)
            if self.field is None
            else check_text(getattr(record, self.field), where),
            own_lang,
        )
        first, specs = met.setdefault(query.query_id, (query, []))
        if not specs:
            specs.append(member.spec)
            return query
        differ = "text" if first.text != query.text else "language"
        if self.shared and member.spec not in specs:
            if first != query:
                raise DataError(
                    f"query id {own_id} has another {differ} in {member.spec} than in {specs[0]}, expected "
                    "the same query where topics are shared: pool the collections without shared topics"
                )
            specs.append(member.spec)
            return None
        if first != query and self.duplicates != FIRST:
            names = member.spec if member.spec in specs else f"{specs[0]} and in {member.spec}"
            raise DataError(
                f"query id {query.query_id} occurs twice, in {names}, with another {differ}: expected each "
                "once, leave one out, or take the first (--duplicates first)"
            )
        self.copies.append(query.query_id)
        return None

    def queries_cls(self) -> type[Query]:
        return Query

    def queries_lang(self) -> str | None:
        return common_language(member.dataset.queries_lang() or self.lang for member in self.members)


def _read_qrels(members: tuple[Member, ...], shared_topics: bool) -> Iterator[Any]:
    """Judgments of all members; with shared topics query ids stay unchanged."""

    def convert(member: Member, numbered: tuple[int, Any]) -> Any:
        number, record = numbered
        where = f"{member.spec}: judgment number {number}"
        query_id = check_id(record.query_id, f"{where}: query id")
        doc_id = check_id(record.doc_id, f"{where}: docid")
        if type(record.relevance) is not int:
            raise DataError(
                f"{member.spec}: query {query_id}, document {doc_id}: relevance {record.relevance!r}, "
                "expected an integer"
            )
        return TrecQrel(
            query_id if shared_topics else member.pooled(query_id),
            member.pooled(doc_id),
            record.relevance,
            getattr(record, "iteration", "0"),
        )

    with Problems(stop=True) as faults:
        for member in members:
            if "subtopic_id" in member.dataset.qrels_cls()._fields:
                faults.add(
                    f"{member.spec}: judged by subtopic, expected one relevance per query and document"
                )
            else:
                yield from faults.convert(member.numbered("qrels"), partial(convert, member))
