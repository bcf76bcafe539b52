"""Options of encoding, indexing and searching, for Python and the command line."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from mimo_plugin.core.errors import UsageError, near
from mimo_plugin.core.option import (
    ADVANCED,
    Option,
    Progress,
    RemoveQuery,
    SharedTopics,
    TopicField,
    TopicLang,
    duplicates_of,
)
from mimo_plugin.encoder.options import Dimension
from mimo_plugin.evaluation.options import Analyzers, split_names

if TYPE_CHECKING:
    from mimo_plugin.collections.dataset import Pool
    from mimo_plugin.encoder.encoder import Encoder

_PART = re.compile(r"([1-9]\d*)/([1-9]\d*)")


@dataclass(frozen=True)
class Part:
    """Part `number` (from 1) of a collection that is cut into `of` parts."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "Part":
        """Reads `i/n`, or raises a UsageError; None is the whole."""
        if text is None:
            return cls()
        match = _PART.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]):
            raise UsageError(f"--shard {text!r}: i/n with 1 <= i <= n was expected, e.g. 2/4")
        return cls(int(match[1]), int(match[2]))

    @property
    def name(self) -> str | None:
        """As given; None for the whole."""
        return f"{self.number}/{self.of}" if self.of > 1 else None

    def shards(self, documents: int, shard_size: int) -> range:
        """Numbers of the part's shards; parts differ by one shard at most.

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
        """How many of the collection's documents are in the part; raises as `shards`."""
        shards = self.shards(documents, shard_size)
        return min(shards.stop * shard_size, documents) - shards.start * shard_size


WHOLE = Part()

PRESETS = ("flat", "fp16", "sq8", "hnsw", "hnsw64", "ivf", "ivfpq")
Factory = Annotated[
    str,
    Option(f"{', '.join(PRESETS)}, or any FAISS factory string, e.g. IVF256,Flat.", examples=PRESETS),
]


@dataclass(frozen=True)
class EncodeOptions:
    """How documents are encoded. For `fields` and `pooled` see `load`, for `duplicates` see `survey`."""

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
        int,
        Option(
            "Documents encoded and written at a time; a kill loses two shards at most.",
            min=1,
            group=ADVANCED,
        ),
    ] = 4096
    resume: Annotated[bool, Option("Go on with work that was cut short, or start over.", group=ADVANCED)] = (
        True
    )
    progress: Progress = None

    @property
    def part(self) -> Part:
        return self.shard or WHOLE


@dataclass(frozen=True)
class RayOptions:
    """The cluster that encodes, and its workers.

    Attributes:
        debug: show Ray's messages.
    """

    GROUP: ClassVar[str] = "Ray"

    address: Annotated[
        str | None,
        Option(
            "Encode with Ray Data on the cluster at HOST:PORT, or on this machine's cluster (auto). Without "
            "a value: on the cluster in RAY_ADDRESS, else on this machine with one worker per GPU.",
            name="--ray",
            metavar="[ADDRESS]",
            settings={"is_flag": False, "flag_value": "local"},
        ),
    ] = None
    workers: Annotated[
        int | None,
        Option("Processes that encode.  [default: as many as fit]", name="--ray-workers", min=1),
    ] = None
    cpus: Annotated[
        int | None,
        Option(
            "Cores per worker.  [default: 1 beside a GPU, else the smallest machine's, in groups of at most "
            "8]",
            name="--ray-cpus-per-worker",
            min=1,
        ),
    ] = None
    gpus: Annotated[
        float | None,
        Option(
            "GPUs per worker; with 0.5, two share one.  [default: 1 where there are GPUs]",
            name="--ray-gpus-per-worker",
            min=0,
        ),
    ] = None
    debug: bool = False


@dataclass(frozen=True)
class IndexOptions(EncodeOptions):
    """How documents are encoded and indexed."""

    factory: Factory = "Flat"
    seed: Annotated[
        int, Option("Seed of the sample that trains IVF, PQ and the like.", min=0, group=ADVANCED)
    ] = 42
    texts: Annotated[
        bool, Option("Keep the documents' texts beside the index, compressed: `mimo search -q` shows them.")
    ] = False
    topics: Annotated[
        Sequence[str],
        Option(
            "Queries that measure the recall of an approximate index and choose its efSearch or nprobe.  "
            "[default: those of COLLECTION, else documents]",
            metavar="COLLECTION|FILE...",
        ),
    ] = ()
    threads: Annotated[
        int | None, Option("Threads that build the index.  [default: all]", min=1, group=ADVANCED)
    ] = None
    resume: Annotated[
        bool, Option("Go on with an index that was cut short, or start over.", group=ADVANCED)
    ] = True


@dataclass(frozen=True)
class MergeOptions:
    """How indexes are merged."""

    factory: Annotated[
        str | None,
        Option(
            f"{', '.join(PRESETS)}, or any FAISS factory string.  [default: as the indexes]",
            examples=PRESETS,
        ),
    ] = None
    resume: Annotated[bool, Option("Leave a finished merge as it is, or start over.", group=ADVANCED)] = True
    progress: Progress = None


class Format(StrEnum):
    LUCENE_HNSW = "lucene-hnsw"
    LUCENE_FLAT = "lucene-flat"
    FLEX = "flex"
    JSONL = "jsonl"
    PARQUET = "parquet"
    MILVUS = "milvus"


# Before the address of a collection of Milvus, see `milvus.Address`.
MILVUS_PREFIX = "milvus:"


def is_milvus(place: str) -> bool:
    """Whether an index is a collection of Milvus, and not a directory."""
    return place.startswith(MILVUS_PREFIX)


@dataclass(frozen=True)
class ExportOptions:
    """How vectors are exported."""

    index_type: Annotated[
        str,
        Option(
            "milvus: FLAT is exact search; or another type of Milvus with its parameters, e.g. "
            "HNSW,M=32,efConstruction=200.",
            examples=("FLAT", "HNSW", "IVF_FLAT", "DISKANN"),
        ),
    ] = "FLAT"
    text: Annotated[bool, Option("jsonl: put the documents' texts into `contents`.")] = False
    threads: Annotated[int, Option("Threads that Lucene uses.", min=1, group=ADVANCED)] = 2
    dimension: Dimension = None
    resume: Annotated[
        bool, Option("milvus: go on with a load that was cut short, or start over.", group=ADVANCED)
    ] = True
    progress: Progress = None


# Hits per query that are shown, without --hits.
SHOWN = 10


@dataclass(frozen=True)
class TopicOptions:
    """Queries of collections or files, and their run. For topics, their languages and duplicates see `load`.

    `lang`: one text or several, such as `"de,fr"`.
    """

    hits: Annotated[int, Option("Documents per query.", also=("-k",), min=1)] = 100
    lang: Annotated[
        Sequence[str], Option("Search documents in these languages only.  [default: all]", metavar="LANG,...")
    ] = ()
    tag: Annotated[str, Option("Name of the run, its sixth column.", group=ADVANCED)] = "mimo"
    shared_topics: SharedTopics = False
    topic_field: TopicField = None
    topic_lang: TopicLang = ()
    remove_query: RemoveQuery = False
    duplicates: Annotated[str, duplicates_of("queries with one id and different text")] = "error"
    progress: Progress = None

    @property
    def languages(self) -> list[str]:
        """The documents' languages; [] is all."""
        return split_names(self.lang) if self.lang else []

    def unknown_languages(self, there: Iterable[str], what: str) -> Iterator[str]:
        """A line for each language that no document has. what: has the documents, such as "the index"."""
        known = sorted(filter(None, there))
        are = f"they are in {', '.join(known)}" if known else "their languages are unknown"
        for lang in self.languages:
            if lang not in known:
                yield f"--lang {lang}: {what} has no such documents, {are}{near(lang, known)}"

    def load(self, specs: Sequence[str], prefixes: dict[str, str] | None) -> "Pool":
        """Opens collections and files of queries. prefixes: of pooled ids; None leaves ids unchanged."""
        from mimo_plugin.collections.pool import load, topic_languages

        return load(
            *specs,
            pooled=prefixes is not None,
            prefixes=prefixes,
            shared_topics=self.shared_topics,
            topic_field=self.topic_field,
            duplicates=self.duplicates,
            **topic_languages(self.topic_lang, self.shared_topics, specs),
        )


@dataclass(frozen=True)
class SearchOptions(TopicOptions):
    """How queries are searched."""

    encoder: Annotated[
        "str | Encoder | None",
        Option("Query encoder.  [default: the encoder that made the index]", metavar="CHECKPOINT"),
    ] = None
    allow_other_encoder: Annotated[
        bool, Option("Search with an encoder that is not the one of the index.", group=ADVANCED)
    ] = False
    search_parameters: Annotated[
        str | None,
        Option(
            "Search parameters of FAISS, e.g. nprobe=16 or efSearch=128, or of Milvus, e.g. ef=128.",
            group=ADVANCED,
        ),
    ] = None


@dataclass(frozen=True)
class ServeOptions:
    """How an index is served."""

    host: Annotated[str, Option("Address to listen on; 0.0.0.0 is every network of this machine.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Option("Port to listen on.", min=1, max=65535)] = 8081
    lucene: Annotated[
        Path | None,
        Option("Directory that keeps Lucene's index of the texts for the next start.  [default: none]"),
    ] = None
    threads: Annotated[int, Option("Threads that Lucene uses to index.", min=1, group=ADVANCED)] = 2
    progress: Progress = None


@dataclass(frozen=True)
class ShowOptions:
    """How hits are shown: by default as a table that cuts texts to the terminal's width."""

    full: Annotated[bool, Option("With -q and --interactive: all of each text.")] = False
    json: Annotated[bool, Option("With -q and --interactive: a line of JSON per query.")] = False


@dataclass(frozen=True)
class Bm25Options(TopicOptions):
    """How BM25's index is built and searched. `lang` chooses the documents that are indexed."""

    tag: Annotated[str, Option("Name of the run, its sixth column.", group=ADVANCED)] = "bm25"
    analyzers: Annotated[
        Analyzers,
        Option(
            "Words in lower case for all languages alike, or the stemming and stop words that Pyserini has "
            "for the documents' one language."
        ),
    ] = Analyzers.PLAIN
    index: Annotated[
        Path | None, Option("Directory that keeps Lucene's index for the next search.  [default: none]")
    ] = None
    fields: Annotated[
        Sequence[str], Option("Document fields to index.  [default: what ir_datasets says]")
    ] = ()
    pooled: Annotated[bool, Option("Ids become lang:id for a single collection, too.")] = False
    duplicates: Annotated[str, duplicates_of("documents or queries with one id and different content")] = (
        "error"
    )
    threads: Annotated[int, Option("Threads that Lucene uses.", min=1, group=ADVANCED)] = 2
    resume: Annotated[bool, Option("Search a finished --index, or build it again.", group=ADVANCED)] = True
