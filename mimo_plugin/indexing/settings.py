"""How documents are encoded and indexed, and the same as options of commands."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from mimo_plugin.core.errors import UsageError
from mimo_plugin.core.option import (
    FileLang,
    Option,
    Progress,
    RemoveQuery,
    SharedTopics,
    TopicField,
    TopicLang,
    duplicates_of,
)

if TYPE_CHECKING:
    from mimo_plugin.encoder.encoder import Encoder

_PART = re.compile(r"([1-9]\d*)/([1-9]\d*)")


@dataclass(frozen=True)
class Part:
    """Attributes:
    number: from 1 to `of`.
    of: number of parts that the collection is cut into.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "Part":
        """Reads `i/n`; None is the whole.

        Raises:
            UsageError: it is nothing of that kind.
        """
        if text is None:
            return cls()
        match = _PART.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]):
            raise UsageError(f"--shard {text!r}: i/n with 1 <= i <= n was expected, e.g. 2/4")
        return cls(int(match[1]), int(match[2]))

    @property
    def name(self) -> str | None:
        """As it was given; None for the whole."""
        return f"{self.number}/{self.of}" if self.of > 1 else None

    def shards(self, documents: int, shard_size: int) -> range:
        """The numbers of its shards in a collection. Parts have as many, or one more or less.

        Raises:
            UsageError: the collection has fewer shards than parts.
        """
        shards = -(-documents // shard_size)
        if self.of > shards:
            raise UsageError(
                f"--shard {self.name}: the collection has {documents} documents, {shards} shards of "
                f"{shard_size}, and cannot be cut into {self.of} parts: use fewer, or a smaller --shard-size"
            )
        return range(shards * (self.number - 1) // self.of, shards * self.number // self.of)

    def documents(self, documents: int, shard_size: int) -> int:
        """How many of a collection's documents are in it; raises as `shards`."""
        shards = self.shards(documents, shard_size)
        return min(shards.stop * shard_size, documents) - shards.start * shard_size


WHOLE = Part()


@dataclass(frozen=True)
class EncodeOptions:
    """How documents are encoded.

    Attributes:
        fields, pooled: see `load`.
        shard: the part of the collection that is encoded; None is the whole.
        duplicates: see `survey`.
    """

    fields: Annotated[
        Sequence[str], Option("Document fields to encode.  [default: what ir_datasets says]")
    ] = ()
    pooled: Annotated[bool, Option("Ids become lang:id for a single collection, too.")] = False
    duplicates: Annotated[str, duplicates_of("documents with one docid and different content")] = "error"
    shard: Annotated[
        Part | None,
        Option(
            "Encode the I-th of N parts only, on one of N machines or devices.  [default: everything]",
            metavar="I/N",
            parse=Part.parse,
        ),
    ] = None
    shard_size: Annotated[
        int, Option("Documents encoded and written at a time; a kill loses two shards at most.", min=1)
    ] = 4096
    resume: Annotated[bool, Option("Go on with work that was cut short, or start over.")] = True
    progress: Progress = None

    @property
    def part(self) -> Part:
        """Of the collection."""
        return self.shard or WHOLE


@dataclass(frozen=True)
class IndexOptions(EncodeOptions):
    """How documents are encoded and indexed."""

    factory: Annotated[
        str, Option("flat, fp16, sq8, hnsw, ivfpq, or any FAISS factory string, e.g. IVF256,Flat.")
    ] = "Flat"
    seed: Annotated[int, Option("Of the sample that trains IVF, PQ and the like.", min=0)] = 42
    resume: Annotated[bool, Option("Go on with an index that was cut short, or start over.")] = True


@dataclass(frozen=True)
class SearchOptions:
    """How queries are searched.

    Attributes:
        encoder: of queries, a checkpoint or a loaded one.
        shared_topics, topic_field, topic_lang, lang, duplicates: see `load`.
    """

    hits: Annotated[int, Option("Documents a query.", min=1)] = 100
    encoder: Annotated[
        "str | Encoder | None", Option("Query encoder.  [default: the encoder that made the index]")
    ] = None
    allow_other_encoder: Annotated[
        bool, Option("Search with an encoder that is not the one of the index.")
    ] = False
    tag: Annotated[str, Option("Sixth column of the run.")] = "mimo"
    search_parameters: Annotated[
        str | None, Option("FAISS search parameters, e.g. nprobe=16 or efSearch=128.")
    ] = None
    shared_topics: SharedTopics = False
    topic_field: TopicField = None
    topic_lang: TopicLang = None
    lang: FileLang = ()
    remove_query: RemoveQuery = False
    duplicates: Annotated[str, duplicates_of("queries with one id and different text")] = "error"
    progress: Progress = None
