"""The packaged sample: Debian package descriptions in 14 languages, as ir_datasets ids.

`mimo-sample/LANG` is monolingual: a description's long text is a document, its short text is a query, and the
two are relevant to each other. `mimo-sample` is one parallel collection of all languages: ids are `LANG:ID`,
and every language version of a long text is relevant to every version of its short text.
`sample/PROVENANCE.md` says where the texts come from.
"""

import gzip
import json
from collections.abc import Iterator
from itertools import product, starmap
from pathlib import Path
from typing import Any, NamedTuple

from ir_datasets.formats import TrecQrel

from mimo_plugin.collections.dataset import StreamedDocs, StreamedQrels, StreamedQueries
from mimo_plugin.collections.records import Doc, Query

SAMPLE = "mimo-sample"
LANGUAGES = ("cs", "da", "de", "en", "es", "fr", "it", "ja", "ko", "pl", "pt", "ru", "sk", "uk")


class Description(NamedTuple):
    """A package description: language -> text, for its first line and for its body."""

    id: str
    short: dict[str, str]
    long: dict[str, str]


def sample_table() -> Path:
    """The packaged table; each line is `{"id", "package", "text": {lang: {"short", "long"}}}`."""
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


def _versions(part: str, lang: str | None) -> Iterator[tuple[str, str, str]]:
    """Yields (id, text, language) of a collection's texts; `part` is "short" or "long"."""
    for row in descriptions():
        texts: dict[str, str] = getattr(row, part)
        if lang is None:
            yield from ((f"{own}:{row.id}", text, own) for own, text in texts.items())
        elif lang in texts:
            yield row.id, texts[lang], lang


def _docs(lang: str | None) -> Iterator[Doc]:
    return starmap(Doc, _versions("long", lang))


def _queries(lang: str | None) -> Iterator[Query]:
    return starmap(Query, _versions("short", lang))


def _qrels(lang: str | None) -> Iterator[Any]:
    for row in descriptions():
        if lang is None:
            for query_lang, doc_lang in product(row.short, row.long):
                yield TrecQrel(f"{query_lang}:{row.id}", f"{doc_lang}:{row.id}", 1, "0")
        elif lang in row.short:
            yield TrecQrel(row.id, row.id, 1, "0")


_RELEVANT = {1: "the long text of the query's own description, in any of the collection's languages"}


def register_sample() -> None:
    """Registers the packaged ids with ir_datasets; further calls change nothing."""
    import ir_datasets

    known = set(ir_datasets.registry)
    for lang in (None, *LANGUAGES):
        name = f"{SAMPLE}/{lang}" if lang else SAMPLE
        if name not in known:
            parts = (
                StreamedDocs(_docs, (lang,), lang=lang),
                StreamedQueries(_queries, (lang,), lang=lang),
                StreamedQrels(_qrels, (lang,), defs=_RELEVANT),
            )
            ir_datasets.registry.register(name, ir_datasets.Dataset(*parts))
