"""Several collections as one: documents, queries and qrels under the ids of a pool."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mimo_plugin.collections import loading as hub
from mimo_plugin.collections.folder import FOLDER_PREFIX, parse_spec, plain_file
from mimo_plugin.collections.loading import documents_id, load
from mimo_plugin.collections.pooled import (
    Member,
    PooledDocs,
    PooledQrels,
    PooledQueries,
    SharedQueries,
    check_topic_field,
)
from mimo_plugin.collections.records import ERROR, Named, check_fields, choose_prefixes, usual_language
from mimo_plugin.core.errors import DataError, Problems, UsageError


def load_pool(
    specs: Sequence[str],
    *,
    fields: Sequence[str] | None = None,
    pooled: bool | None = None,
    prefixes: Mapping[str, str] | None = None,
    shared_topics: bool = False,
    topic_field: str | None = None,
    topic_lang: str | None = None,
    topic_source: str | None = None,
    lang: Sequence[str] = (),
    duplicates: str = ERROR,
) -> Any:
    """Loads collections as one ir_datasets dataset of `Doc`, `Query` and `TrecQrel`; nothing is read yet.

    In a pool ids become `lang:id`, with the language of the collection's documents. Where two collections
    share a language, and where one has none or several, its id takes the language's place: for
    `miracl/de/dev` that is `miracl/de`, which all its splits share; for a folder its name. Collections that
    read the same documents (splits of one) bring them once, and their queries and qrels together.

    Iterating over a part of the pool goes on behind records that are not right, in all collections, and
    raises one DataError at its end, or at the 20th such record: read to the end before using any.

    Args:
        specs: names as `load` takes them.
        fields: fields of the documents to use as text, joined by a space, empty ones left out; None takes the
            text that ir_datasets calls the document's default.
        pooled: whether ids get the prefix. None: exactly when there are several specs; False is possible only
            with the splits of one collection.
        prefixes: what `pool_prefixes` returned for the pool that an index was made of. Collections in it have
            these prefixes, whatever `pooled` is and whatever they are named together with now.
        shared_topics: the collections have topics in common, such as NeuCLIR's: query ids get no prefix, a
            query that several collections have is one, and its judgments are the union of theirs. Reading
            the queries raises where two collections have different queries under one id.
        topic_field: field of the queries to use as text; None takes ir_datasets' default.
        topic_lang: language of queries whose source does not say.
        topic_source: collection whose queries are searched in place of the collections' own: as those of
            NeuCLIR in English for sets that have translations of them.
        lang: languages of the files of topics or qrels, one for each in order, or one for all. In a pool it
            is the prefix of their ids, where these do not begin with it already. Ids of files without one
            stay as they are, and what stands before their colon is their language.
        duplicates: of queries with one id and different content, "first" takes the first; "error" raises on
            reading. What is there twice with the same content is taken once.

    Raises:
        DataError: unknown collections, fields that documents or queries do not have, the same prefix twice.
            Every such problem of every collection is in the one error.
        UsageError: no specs, `pooled=False` with several collections that are not all in `prefixes`, or
            `topic_field` or `topic_lang` without `shared_topics`.
    """
    if not specs:
        raise UsageError("no collection was given, expected at least one")
    if not shared_topics and (topic_field, topic_lang, topic_source) != (None, None, None):
        raise UsageError(
            "topic_field, topic_lang and topic_source are of shared topics, expected shared_topics=True"
        )
    if pooled is None:
        pooled = len(specs) > 1
    loaded = _load_all(specs, fields, None if topic_source else topic_field, lang)
    topics = None
    if topic_source is not None:
        topics = Member(topic_source, load(topic_source), prefix="")
        if topic_field is not None:
            check_topic_field(topic_field, topics)
    collections = [_named(members, prefixes or {}, pooled) for members in loaded]
    if not pooled and len(collections) > 1 and any(one.given is None for one in collections):
        names = ", ".join(specs)
        raise UsageError(
            f"{names}: {len(collections)} collections without pooled ids, expected one: pool them"
        )
    if not pooled:
        collections = [replace(one, given=one.given or "") for one in collections]
    members = [
        [replace(member, prefix=prefix) for member in group]
        for group, prefix in zip(loaded, choose_prefixes(collections), strict=True)
    ]
    return _dataset(
        members,
        tuple(fields) if fields is not None else None,
        partial(SharedQueries, field=topic_field, lang=topic_lang or "", duplicates=duplicates)
        if shared_topics
        else partial(PooledQueries, duplicates=duplicates),
        shared_topics,
        topics,
    )


def pool_prefixes(specs: Sequence[str]) -> dict[str, str]:
    """What stands before the colon of each collection's ids when these are pooled.

    Returns:
        `collection_key` of each collection -> its prefix; splits of one collection have one entry.

    Raises:
        DataError: as `load_pool`.
    """
    groups = _load_all(specs)
    prefixes = choose_prefixes([_named(group, {}, pooled=True) for group in groups])
    return {_key(member): prefix for group, prefix in zip(groups, prefixes, strict=True) for member in group}


def collection_key(spec: str) -> str:
    """What a collection is called in `pool_prefixes`, whichever of its splits is named.

    For an ir_datasets or packaged id that is the id which its documents have there (`miracl/de` for
    `miracl/de/dev`), for `path:DIR#SPLIT` the folder, absolute and without symbolic links, for
    `hub:REPOSITORY/FOLDER#SPLIT` what stands before the split.

    Raises:
        DataError: as `load`.
    """
    return _key(Member(spec, load(spec), prefix=""))


def _load_all(
    specs: Sequence[str],
    fields: Sequence[str] | None = None,
    topic_field: str | None = None,
    lang: Sequence[str] = (),
) -> list[list[Member]]:
    """The collections, those that read the same documents together, in order of first appearance."""
    problems = Problems(DataError)
    languages = _file_languages(specs, lang)
    groups: list[list[Member]] = []
    for position, spec in enumerate(specs):
        if spec in specs[:position]:
            problems.add(f"{spec}: given twice, expected each collection once: leave one out")
            continue
        try:
            own = languages.get(spec, "")
            member = Member(spec, load(spec), prefix="", lang=own, file=spec in languages)
            if fields is not None and member.dataset.has_docs():
                check_fields(fields, member.dataset.docs_cls(), spec)
            if topic_field is not None:
                check_topic_field(topic_field, member)
        except DataError as error:
            problems.extend(str(error).splitlines())
            continue
        for group in groups:
            if _same_documents(group[0], member):
                group.append(member)
                break
        else:
            groups.append([member])
    problems.raise_any()
    return groups


def _file_languages(specs: Sequence[str], lang: Sequence[str]) -> dict[str, str]:
    """The language of each file among the collections; "" where none was given."""
    files = [spec for spec in dict.fromkeys(specs) if is_file(spec)]
    if len(lang) > 1 and len(lang) != len(files):
        raise UsageError(
            f"{len(lang)} languages ({', '.join(lang)}) for {len(files)} files of topics or qrels, expected "
            "one for each, in order, or one for all"
        )
    for own in lang:
        if own.split() != [own] or ":" in own:
            raise UsageError(f"language {own!r}, expected a code such as sw")
    return dict(
        zip(files, [*lang] * len(files) if len(lang) == 1 else lang or [""] * len(files), strict=True)
    )


def is_file(spec: str) -> bool:
    """Whether a name is that of a file of topics or qrels."""
    return not spec.startswith((FOLDER_PREFIX, hub.HUB_PREFIX)) and plain_file(spec) is not None


def _same_documents(one: Member, other: Member) -> bool:
    if not (one.dataset.has_docs() and other.dataset.has_docs()):
        return False
    return bool(one.dataset.docs_handler() == other.dataset.docs_handler())


def _named(group: list[Member], prefixes: Mapping[str, str], pooled: bool) -> Named:
    first = group[0]
    if first.file:
        return Named((first.spec,), first.lang, "", first.lang if pooled else "", file=True)
    part = "docs" if first.dataset.has_docs() else "queries"
    has_language = first.dataset.has_docs() or first.dataset.has_queries()
    lang = getattr(first.dataset, f"{part}_lang")() if has_language else None
    given = next((prefixes[key] for key in map(_key, group) if key in prefixes), None)
    return Named(tuple(member.spec for member in group), usual_language(lang), _collection_id(first), given)


def _collection_id(member: Member) -> str:
    if member.spec.startswith(FOLDER_PREFIX):
        return parse_spec(member.spec).collection_id
    if member.spec.startswith(hub.HUB_PREFIX):
        return hub.parse_hub(member.spec).collection_id
    return documents_id(member.spec)


def _key(member: Member) -> str:
    if member.spec.startswith(FOLDER_PREFIX):
        return str(parse_spec(member.spec).place)
    if member.spec.startswith(hub.HUB_PREFIX):
        return hub.parse_hub(member.spec).key
    if member.file or is_file(member.spec):
        return str(Path(member.spec).expanduser().resolve())
    return documents_id(member.spec)


def _dataset(
    groups: list[list[Member]],
    fields: tuple[str, ...] | None,
    queries: Callable[[tuple[Member, ...]], Any],
    shared_topics: bool,
    topics: Member | None,
) -> Any:
    from ir_datasets import Dataset

    members = [member for group in groups for member in group]
    with_docs = tuple(group[0] for group in groups if group[0].dataset.has_docs())
    asking = members if topics is None else [topics]
    with_queries = tuple(member for member in asking if member.dataset.has_queries())
    with_qrels = tuple(member for member in members if member.dataset.has_qrels())
    return Dataset(
        PooledDocs(with_docs, fields) if with_docs else None,
        queries(with_queries) if with_queries else None,
        PooledQrels(with_qrels, shared_topics) if with_qrels else None,
    )
