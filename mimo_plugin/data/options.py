"""The options of `mimo data`, with their help texts."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.core.option import ADVANCED, Option, Progress, SharedTopics, TopicField

Texts = tuple[str, ...]
_SOURCES = "Source"
Overwrite = Annotated[bool, Option("Replace what another command wrote to --output.")]


@dataclass(frozen=True)
class SourceOptions:
    """Sources of `mimo data parallel`."""

    tsv: Annotated[
        Texts,
        Option(
            "Lines ANCHOR_TEXT<tab>TEXT, plain or .gz; LANG is the language of the second column.",
            metavar="LANG=FILE...",
        ),
    ] = ()
    moses: Annotated[
        Texts,
        Option(
            "Two aligned files, plain or .gz: line n of one is the translation of line n of the other.",
            metavar="LANG=ANCHOR_FILE,LANG_FILE...",
        ),
    ] = ()
    datasets: Annotated[
        Texts,
        Option(
            "A dataset of the hub (streamed), or a local directory or .parquet, .json(l), .csv or .arrow "
            "file.",
            name="--dataset",
            metavar="LANG=NAME[:CONFIG][#SPLIT]...",
        ),
    ] = ()
    opus: Annotated[
        str | None,
        Option(
            "The paper's corpora and languages from OPUS: a folder of downloads (Moses files or their zips, "
            "Sentence Transformers' lists or hub datasets), or `hub`.",
            metavar="DIR|hub",
        ),
    ] = None
    opus_corpora: Annotated[
        Texts,
        Option(
            "[default: Europarl GlobalVoices JW300 News-Commentary OpenSubtitles Talks Tatoeba WikiMatrix]",
            metavar="NAME...",
            group=_SOURCES,
        ),
    ] = ()
    opus_languages: Annotated[
        Texts, Option("[default: ar de es fr hi id it ja nl pt ru vi zh]", metavar="LANG...", group=_SOURCES)
    ] = ()
    skip_missing: Annotated[
        bool,
        Option("Continue if the folder of --opus lacks texts that OPUS has, and list them.", group=_SOURCES),
    ] = False
    columns: Annotated[
        str,
        Option(
            "Columns of the datasets; a dot leads into a nested column, or the lists language and "
            "translation: translation.en,translation.de.",
            metavar="ANCHOR,TEXT",
            group=_SOURCES,
        ),
    ] = "english,non_english"
    split: Annotated[str, Option("Of datasets that name none.", group=_SOURCES)] = "train"
    anchor: Annotated[str, Option("Language of the first column: what the teacher sees.")] = "en"


class Drop(StrEnum):
    """Reasons for leaving out a pair, as reports name them."""

    EMPTY = "empty"
    SHORT = "too short"
    LONG = "too long"
    RATIO = "length ratio"
    DUPLICATE = "duplicate"
    LIMIT = "over the limit"


@dataclass(frozen=True)
class PairFilter:
    """Decides which pairs are kept.

    Lengths are in characters (Unicode code points) and inclusive. White space at a text's ends is not
    counted.

    Raises:
        UsageError: no pair could pass.
    """

    GROUP: ClassVar[str] = "Filter"

    min_characters: Annotated[int, Option("Shortest text, either side.", min=1)] = 10
    max_characters: Annotated[int, Option("Longest text, either side.", min=1)] = 512
    max_ratio: Annotated[float, Option("Of the longer side's characters to the shorter one's.", min=1)] = 3.0

    def __post_init__(self) -> None:
        with Problems(UsageError) as problems:
            if not 1 <= self.min_characters <= self.max_characters:
                problems.add(
                    f"lengths from {self.min_characters} to {self.max_characters} characters: expected a "
                    "minimum of at least 1 and a maximum that is not smaller"
                )
            if not self.max_ratio >= 1:
                problems.add(f"length ratio {self.max_ratio}: expected 1 or more, longer to shorter")

    def reason(self, text: str, anchor: str) -> Drop | None:
        """Why the pair is left out; None if it is kept."""
        if not text or not anchor:
            return Drop.EMPTY
        shorter, longer = sorted((len(text), len(anchor)))
        if shorter < self.min_characters:
            return Drop.SHORT
        if longer > self.max_characters:
            return Drop.LONG
        return Drop.RATIO if longer > self.max_ratio * shorter else None


@dataclass(frozen=True)
class ParallelOptions:
    """Options of `mimo data parallel`."""

    anchor: Annotated[str, Option("Language of the first column: what the teacher sees.")] = "en"
    pair_filter: PairFilter = field(default_factory=PairFilter)
    max_pairs: Annotated[
        int,
        Option(
            "Limit per language, and of identity pairs; more are sampled uniformly over all sources.",
            min=1,
        ),
    ] = 500_000
    seed: Annotated[int, Option("Of that sample.", min=0, group=ADVANCED)] = 42
    identity: Annotated[bool, Option("Each kept anchor text is also a pair with itself.")] = True
    overwrite: Overwrite = False
    progress: Progress = None

    def parameters(self) -> dict[str, Any]:
        """The manifest's parameters: everything that determines the rows."""
        own = {"max_pairs": self.max_pairs, "identity": self.identity, "seed": self.seed}
        return {**asdict(self.pair_filter), **own}


class Positives(StrEnum):
    """Which part of a collection names its positive passages."""

    TRIPLES = "triples"
    QRELS = "qrels"

    @property
    def part(self) -> str:
        """Its name in ir_datasets."""
        return {Positives.TRIPLES: "docpairs", Positives.QRELS: "qrels"}[self]


@dataclass(frozen=True)
class AlignedOptions:
    """Options of `mimo data aligned`."""

    anchor: Annotated[str, Option("Language that the teacher sees; rows without it are left out.")] = "en"
    positives: Annotated[
        Positives | None,
        Option(
            "What names the positive passages: training triples, or qrels above 0.  [default: triples if "
            "there]"
        ),
    ] = None
    positives_from: Annotated[
        str | None,
        Option(
            "Language whose collection has them.  [default: the first that is not the anchor]", metavar="LANG"
        ),
    ] = None
    require_all: Annotated[bool, Option("Leave out rows that lack a language.")] = False
    max_characters: Annotated[
        int | None,
        Option(
            "Leave a language out of a row where its query or passage is longer.  [default: no limit]", min=1
        ),
    ] = None
    overwrite: Overwrite = False
    progress: Progress = None


@dataclass(frozen=True)
class NegativesOptions:
    """Options of `mimo data negatives`."""

    negatives: Annotated[int, Option("Most negatives per row.", min=1)] = 3
    max_share: Annotated[
        float,
        Option(
            "Highest score of a negative, as a share of the lowest score of the query's own passages: higher "
            "ones may be relevant.",
            min=0,
        ),
    ] = 0.95
    skip: Annotated[
        int, Option("Candidates to leave out before the first negative, for the same reason.", min=0)
    ] = 0
    hits: Annotated[int, Option("Passages searched per query.", min=2)] = 100
    search_parameters: Annotated[
        str | None, Option("FAISS search parameters of --index, e.g. nprobe=16 or efSearch=128.")
    ] = None
    overwrite: Overwrite = False
    progress: Progress = None

    def parameters(self) -> dict[str, Any]:
        """The manifest's parameters: everything that determines the negatives."""
        return {name: value for name, value in asdict(self).items() if name not in ("overwrite", "progress")}


@dataclass(frozen=True)
class CleaningOptions:
    """Cleaning of the archive's descriptions."""

    GROUP: ClassVar[str] = "Cleaning"

    min_characters: Annotated[int, Option("Shortest long text of the archive.", min=1)] = 25
    max_characters: Annotated[int, Option("Where a longer text of the archive is cut.", min=1)] = 1200
    max_english: Annotated[
        float,
        Option(
            "A translation with a larger share of its words in the English text counts as untranslated.",
            min=0,
            max=1,
        ),
    ] = 0.8


class Split(StrEnum):
    TRAIN = "train"
    DEV = "dev"
    TEST = "test"


@dataclass(frozen=True)
class SplitOptions:
    """Split of the groups of descriptions."""

    GROUP: ClassVar[str] = "Split"

    dev_share: Annotated[
        float, Option("Of the groups of packages; 0 makes no dev collection.", min=0, max=1)
    ] = 0.1
    test_share: Annotated[
        float, Option("Of the groups of packages; 0 makes no test collection.", min=0, max=1)
    ] = 0.1
    seed: Annotated[int, Option("Of the split.", min=0)] = 42


@dataclass(frozen=True)
class CollectionOptions:
    """Which descriptions become documents and queries of the collections."""

    GROUP: ClassVar[str] = "Collection"

    min_doc_languages: Annotated[
        int, Option("Fewest languages of a description that gives documents of dev and test.", min=1)
    ] = 5
    min_query_languages: Annotated[
        int, Option("Fewest languages of a document's description that also gives queries.", min=1)
    ] = 7


# The archive's codes that are read by default.
LANGUAGES = ("en", "it", "da", "de", "fr", "sk", "pt_BR", "ja", "ko", "uk", "pl", "ru", "es", "cs")
# A language's code, perhaps with the country: pt_BR.
_CODE = re.compile(r"([a-z]{2,3})([_@-][A-Za-z]+)*")


def language_code(archive_code: str) -> str:
    """The language of an archive's code, without the country: `pt` for `pt_BR`.

    Raises:
        DataError: the code is invalid.
    """
    match = _CODE.fullmatch(archive_code)
    if match is None:
        raise DataError(f"language {archive_code!r}, expected a code such as 'de' or 'pt_BR'")
    return match[1]


@dataclass(frozen=True)
class DebianOptions:
    """Options of `mimo data debian`."""

    sources: Annotated[
        Texts,
        Option(
            "A package source as in apt's sources.list, in place of the machine's own; may be repeated.",
            name="--source",
            metavar="LINE",
            settings={"cls": None, "multiple": True},
        ),
    ] = ()
    main: Annotated[
        Path | None,
        Option(
            "A parsed table in place of the package manager; mimo-sample is the packaged one.",
            name="--from-table",
            metavar="FILE",
        ),
    ] = None
    dev_table: Annotated[Path | None, Option("A parsed table that is the dev split.", metavar="FILE")] = None
    test_table: Annotated[Path | None, Option("A parsed table that is the test split.", metavar="FILE")] = (
        None
    )
    test_only: Annotated[
        bool, Option("Make a test collection of all descriptions, and no training data.")
    ] = False
    languages: Annotated[
        Texts,
        Option(
            "The archive's codes.  [default: en it da de fr sk pt_BR ja ko uk pl ru es cs; all of a table]",
            metavar="CODE...",
        ),
    ] = ()
    anchor: Annotated[
        str,
        Option("Language of what the teacher sees; for another than English, it must be multilingual."),
    ] = "en"
    identity: Annotated[bool, Option("Each anchor text is also a pair with itself.")] = True
    exclude: Annotated[
        Texts,
        Option(
            "Collections of descriptions that must not train, nor any variant of them.",
            metavar="COLLECTION...",
            settings={"default": ["mimo-sample"]},
        ),
    ] = ("mimo-sample",)
    cleaning: CleaningOptions = field(default_factory=CleaningOptions)
    split: SplitOptions = field(default_factory=SplitOptions)
    collections: CollectionOptions = field(default_factory=CollectionOptions)
    overwrite: Annotated[bool, Option("Replace what this command wrote to --output before.")] = False
    progress: Progress = None

    @property
    def codes(self) -> tuple[str, ...]:
        """The languages without countries."""
        return tuple(map(language_code, self.languages))

    @property
    def given(self) -> dict[Split, Path]:
        """The tables given for dev and test."""
        tables = {Split.DEV: self.dev_table, Split.TEST: self.test_table}
        return {split: path for split, path in tables.items() if path is not None}

    @property
    def tables(self) -> dict[str, Path]:
        """All tables: "main", "dev", "test"."""
        main = {} if self.main is None else {"main": self.main}
        return main | {str(split): path for split, path in self.given.items()}

    @property
    def shares(self) -> Mapping[Split, float]:
        """The shares of those of dev and test that have no table."""
        if self.test_only:
            return {Split.DEV: 0, Split.TEST: 1}
        shares = {Split.DEV: self.split.dev_share, Split.TEST: self.split.test_share}
        return {split: share for split, share in shares.items() if split not in self.given}

    @property
    def evaluated(self) -> list[Split]:
        """The splits that become collections."""
        return [split for split in (Split.DEV, Split.TEST) if self.shares.get(split, 1) > 0]


class SlicesBy(StrEnum):
    """What topics are divided by."""

    ENTITIES = "entities"
    RARITY = "rarity"


@dataclass(frozen=True)
class SliceOptions:
    """Options of `mimo data slices`."""

    by: Annotated[Texts, Option("entities, rarity.", metavar="WAY,...")] = ("entities,rarity",)
    rare_share: Annotated[float, Option("Of a language's topics that are rare.")] = 0.5
    pooled: Annotated[bool, Option("Ids are lang:id also for a single collection.")] = False
    shared_topics: SharedTopics = False
    topic_field: TopicField = None
    progress: Progress = None
