"""The packaged sample: Debian package descriptions in 14 languages, as ir_datasets ids.

`mimo-sample/LANG` is monolingual: a description's long text is a document, its short text a query, and the
long text of the same description is relevant to it. `mimo-sample` is all of it as one parallel collection:
ids are `LANG:ID`, and every language version of a long text is relevant to every version of its short text.
`sample/PROVENANCE.md` says where the texts come from.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

from ir_datasets.formats import BaseQrels, BaseQueries, TrecQrel

from mimo_plugin.collections.jsonlines import StreamedDocs
from mimo_plugin.collections.records import Doc, Query

SAMPLE = "mimo-sample"
LANGUAGES = ("cs", "da", "de", "en", "es", "fr", "it", "ja", "ko", "pl", "pt", "ru", "sk", "uk")


class Description(NamedTuple):
    """One package description: language -> text, for its first line and for its body."""

    id: str
    short: dict[str, str]
    long: dict[str, str]


def sample_table() -> Path:
    """The packaged table: a description a line, `{"id", "package", "text": {lang: {"short", "long"}}}`."""
    return Path(__file__).parent / "sample" / "debian-sample.jsonl.gz"


def descriptions() -> Iterator[Description]:
    """Streams the packaged table."""
    with gzip.open(sample_table(), "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            texts = row["text"].items()
            yield Description(
                row["id"],
                {lang: text["short"] for lang, text in texts},
                {lang: text["long"] for lang, text in texts},
            )


def _version_id(lang: str, identifier: str) -> str:
    return f"{lang}:{identifier}"


def _collection_id(lang: str | None) -> str:
    return SAMPLE if lang is None else f"{SAMPLE}/{lang}"


def _versions(lang: str | None, part: str) -> Iterator[tuple[str, str, str]]:
    """Yields (id, text, language) of the texts of one collection; `part` is "short" or "long"."""
    for row in descriptions():
        texts: dict[str, str] = getattr(row, part)
        if lang is None:
            yield from ((_version_id(own, row.id), text, own) for own, text in texts.items())
        elif lang in texts:
            yield row.id, texts[lang], lang


@dataclass(frozen=True)
class SampleDocs(StreamedDocs):
    """Attributes:
    lang: the language; None is all of them.
    """

    lang: str | None

    def stream(self) -> Iterator[Doc]:
        return starmap(Doc, _versions(self.lang, "long"))

    def docs_lang(self) -> str | None:
        return self.lang

    def docs_namespace(self) -> str:
        return _collection_id(self.lang)


@dataclass(frozen=True)
class SampleQueries(BaseQueries):
    """Attributes:
    lang: the language; None is all of them.
    """

    lang: str | None

    def queries_iter(self) -> Iterator[Query]:
        return starmap(Query, _versions(self.lang, "short"))

    def queries_cls(self) -> type[Query]:
        return Query

    def queries_lang(self) -> str | None:
        return self.lang

    def queries_namespace(self) -> str:
        return _collection_id(self.lang)


@dataclass(frozen=True)
class SampleQrels(BaseQrels):
    """Attributes:
    lang: the language; None is all of them.
    """

    lang: str | None

    def qrels_iter(self) -> Iterator[Any]:
        for row in descriptions():
            if self.lang is None:
                for query_lang in row.short:
                    for doc_lang in row.long:
                        yield TrecQrel(_version_id(query_lang, row.id), _version_id(doc_lang, row.id), 1, "0")
            elif self.lang in row.short:
                yield TrecQrel(row.id, row.id, 1, "0")

    def qrels_cls(self) -> type[Any]:
        return TrecQrel  # type: ignore[no-any-return]

    def qrels_defs(self) -> dict[int, str]:
        return {1: "the long text of the query's own description, in any of the collection's languages"}


def sample_ids() -> dict[str, str | None]:
    """Every packaged id with its language; None is the parallel collection."""
    return {_collection_id(lang): lang for lang in (None, *LANGUAGES)}


def register_sample() -> None:
    """Makes the packaged ids known to ir_datasets; calling it again changes nothing."""
    import ir_datasets

    known = set(ir_datasets.registry)
    for name, lang in sample_ids().items():
        if name not in known:
            dataset = ir_datasets.Dataset(SampleDocs(lang), SampleQueries(lang), SampleQrels(lang))
            ir_datasets.registry.register(name, dataset)
