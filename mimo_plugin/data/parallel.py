"""Stage-1 training data: parallel pairs, filtered as in the paper."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from hashlib import blake2b
from heapq import heappush, heappushpop
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Findings, Problems, UsageError
from mimo_plugin.core.files import writing
from mimo_plugin.data.sources import DatasetColumns, MosesFiles, TsvFile
from mimo_plugin.data.writers import Made, PairsWriter
from mimo_plugin.training.data import Format, data_directory

Source = TsvFile | MosesFiles | DatasetColumns


def parse_sources(
    *,
    tsv: Sequence[str] = (),
    moses: Sequence[str] = (),
    datasets: Sequence[str] = (),
    columns: str = "english,non_english",
    split: str = "train",
    anchor: str = "en",
    opus: Sequence[Source] = (),
) -> list[Source]:
    """The sources that options name, in order.

    Args:
        opus: what `opus_sources` found; they come first.
        tsv: LANG=FILE.
        moses: LANG=ANCHOR_FILE,LANG_FILE.
        datasets: LANG=NAME or LANG=ID:CONFIG, either with #SPLIT at the end.
        columns: ANCHOR_COLUMN,TEXT_COLUMN of all datasets.
        split: of datasets that name none.

    Raises:
        UsageError: with everything that is wrong with the options.
    """
    problems = Problems(UsageError)
    sources: list[Source] = list(opus)
    if opus and anchor != opus[0].anchor:
        problems.add(f"--anchor {anchor}: OPUS's texts of the paper are with {opus[0].anchor}, expected that")
    for option, specs in (("--tsv", tsv), ("--moses", moses), ("--dataset", datasets)):
        for spec in specs:
            lang, equals, rest = spec.partition("=")
            if not equals or not rest or lang.split() != [lang]:
                problems.add(f"{option} {spec}: expected LANG=SOURCE, such as de=opus.de.tsv.gz")
            elif lang == anchor:
                problems.add(
                    f"{option} {spec}: {lang} is the anchor language, its own pairs are made of the other "
                    "languages' anchor texts (--identity); expected another language"
                )
            elif option == "--tsv":
                sources.append(TsvFile(lang, anchor, Path(rest).expanduser()))
            elif option == "--moses":
                names = rest.split(",")
                if len(names) != 2 or not all(names):
                    problems.add(
                        f"{option} {spec}: {len(names)} files, expected {lang}={anchor.upper()}_FILE,"
                        f"{lang.upper()}_FILE"
                    )
                    continue
                anchor_path, text_path = (Path(name).expanduser() for name in names)
                sources.append(MosesFiles(lang, anchor, anchor_path, text_path))
            else:
                sources.append(_dataset(lang, anchor, rest, columns, split))
    if datasets and (len(columns.split(",")) != 2 or not all(columns.split(","))):
        problems.add(f"--columns {columns}: expected two names, ANCHOR_COLUMN,TEXT_COLUMN")
    if not (tsv or moses or datasets or opus):
        problems.add("no source was given, expected at least one of --tsv, --moses, --dataset and --opus")
    repeated = {source for source in sources if sources.count(source) > 1}
    problems.extend(
        f"{source.lang}: the same source was given twice, expected it once" for source in repeated
    )
    problems.raise_any()
    return sources


def _dataset(lang: str, anchor: str, spec: str, columns: str, split: str) -> DatasetColumns:
    name, config = spec, None
    if not Path(spec).expanduser().exists():
        name, _, own_split = spec.partition("#")
        split = own_split or split
        if not Path(name).expanduser().exists():
            name, _, own_config = name.partition(":")
            config = own_config or None
    if Path(name).expanduser().exists():
        name = str(Path(name).expanduser())
    anchor_column, _, text_column = columns.partition(",")
    return DatasetColumns(lang, anchor, name, config, split, anchor_column, text_column)


class Drop(StrEnum):
    """Why a pair was left out; the value is what reports call it."""

    EMPTY = "empty"
    SHORT = "too short"
    LONG = "too long"
    RATIO = "length ratio"
    DUPLICATE = "duplicate"
    LIMIT = "over the limit"


@dataclass(frozen=True)
class PairFilter:
    """Lengths are in characters (Unicode code points), without white space at the ends.

    Attributes:
        min_characters, max_characters: of either side, inclusive.
        max_ratio: of the longer side to the shorter one, inclusive.

    Raises:
        UsageError: no pair could pass.
    """

    min_characters: int = 10
    max_characters: int = 512
    max_ratio: float = 3.0

    def __post_init__(self) -> None:
        problems = Problems(UsageError)
        if not 1 <= self.min_characters <= self.max_characters:
            problems.add(
                f"lengths from {self.min_characters} to {self.max_characters} characters: expected a "
                "shortest length of at least 1 and a longest one that is no less"
            )
        if not self.max_ratio >= 1:
            problems.add(f"length ratio {self.max_ratio}: expected 1 or more, longer to shorter")
        problems.raise_any()

    def reason(self, text: str, anchor: str) -> Drop | None:
        """Why the pair is left out; None where it is kept."""
        if not text or not anchor:
            return Drop.EMPTY
        shorter, longer = sorted((len(text), len(anchor)))
        if shorter < self.min_characters:
            return Drop.SHORT
        if longer > self.max_characters:
            return Drop.LONG
        return Drop.RATIO if longer > self.max_ratio * shorter else None


class Offer(Enum):
    """What became of a record."""

    TAKEN = auto()
    REPEATED = auto()
    BEYOND = auto()


class Sample:
    """Records with the smallest hashes of their keys, at most `size`, the first record of each key.

    A keyed hash puts the distinct keys into a random order that depends on nothing but the seed; its first
    `size` are a uniform sample. One pass finds them: a key beyond the largest hash of `size` others can never
    come back, so only `size` hashes are held in memory. Records that were among the first when they came are
    put on disk, of n distinct keys about size * (1 + ln(n / size)).

    Args:
        path: file for the records while the sample is in use; removed at the end.
        seed: with `name`, the key of the hash: samples of another name are independent.
    """

    def __init__(self, path: Path, size: int, *, seed: int, name: str) -> None:
        self._path = path
        self._size = size
        self._key = blake2b(f"{seed}\t{name}".encode()).digest()
        # The hashes negated: the heap's first is the largest hash.
        self._heap: list[int] = []
        self._held: set[int] = set()
        self._count = 0
        self._largest = 0

    def __enter__(self) -> Self:
        self._file = self._path.open("w", encoding="utf-8", newline="\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def offer(self, key: str, *record: str) -> Offer:
        """Takes a record for the time being, unless its key is held already or beyond the sample.

        A key that was pushed out before and comes again is BEYOND, not REPEATED: nothing is known of it.
        """
        value = self._hash(key)
        if value in self._held:
            return Offer.REPEATED
        if len(self._heap) < self._size:
            heappush(self._heap, -value)
        elif value < -self._heap[0]:
            self._held.discard(-heappushpop(self._heap, -value))
        else:
            return Offer.BEYOND
        self._held.add(value)
        self._file.write(json.dumps([key, *record], ensure_ascii=False) + "\n")
        return Offer.TAKEN

    def __len__(self) -> int:
        """Number of records in the sample."""
        return self._count or len(self._heap)

    def settle(self) -> None:
        """Ends the taking of records, and frees the memory that it needed."""
        self._file.flush()
        self._count = len(self._heap)
        self._largest = -self._heap[0] if self._heap else -1
        self._heap, self._held = [], set()

    def records(self) -> Iterator[list[str]]:
        """The key and record of each in the sample, in the order in which they came; after `settle`."""
        with self._path.open(encoding="utf-8") as lines:
            for line in lines:
                record: list[str] = json.loads(line)
                if self._hash(record[0]) <= self._largest:
                    yield record

    def _hash(self, key: str) -> int:
        return int.from_bytes(blake2b(key.encode(), digest_size=16, key=self._key).digest(), "big")


@dataclass(frozen=True)
class ParallelOptions:
    """Attributes:
    anchor: language of the texts that the teacher sees.
    max_pairs: of each language, and of the identity pairs.
    identity: whether each kept anchor text is also a pair with itself.
    seed: of the sample where a language has more pairs.
    overwrite: replace what another command wrote to the output.
    """

    anchor: str = "en"
    pair_filter: PairFilter = field(default_factory=PairFilter)
    max_pairs: int = 500_000
    identity: bool = True
    seed: int = 42
    overwrite: bool = False
    progress: bool | None = None

    def parameters(self) -> dict[str, Any]:
        """What decides the rows."""
        return {
            "min_characters": self.pair_filter.min_characters,
            "max_characters": self.pair_filter.max_characters,
            "max_ratio": self.pair_filter.max_ratio,
            "max_pairs": self.max_pairs,
            "identity": self.identity,
            "seed": self.seed,
        }


def make_pairs(sources: Sequence[Source], output: Path, options: ParallelOptions | None = None) -> Made:
    """Filters, deduplicates and samples the sources' pairs and writes them to a directory.

    An anchor text is kept once in each language, with the text that came with it first. Where a language has
    more than `max_pairs` of them, a uniform sample over all its sources is kept. Memory holds hashes of
    `max_pairs` anchor texts, the texts themselves wait on disk beside the output.

    Raises:
        DataError: sources that cannot be read, lines that are not right (up to 20), languages without a pair.
        ArtifactError, UsageError: the output, see `PairsWriter`.
    """
    options = options or ParallelOptions()
    findings = Findings()
    if options.max_pairs < 1:
        findings.add(UsageError, [f"at most {options.max_pairs} pairs a language: expected 1 or more"])
    for source in sources:
        findings.attempt(source.check)
    findings.attempt(data_directory(output, Format.PAIRS).check_output)
    findings.raise_any()
    parameters = options.parameters()
    origin = {"sources": [source.identity() for source in sources]}
    writer = PairsWriter(
        output, anchor=options.anchor, parameters=parameters, source=origin, overwrite=options.overwrite
    )
    done = writer.finished()
    if done is not None:
        return Made(done, new=False)
    with writer, writing(output), ExitStack() as samples:
        _write(_sampled(sources, options, writer, samples), options, writer)
    return Made(writer.manifest, new=True)


def _sampled(
    sources: Sequence[Source], options: ParallelOptions, writer: PairsWriter, samples: ExitStack
) -> dict[str, Sample]:
    """Reads every source, language by language; raises what is wrong with any of them."""
    faults = Problems(stop=True)
    found: dict[str, Sample] = {}
    empty = []
    for number, lang in enumerate(dict.fromkeys(source.lang for source in sources)):
        path = writer.work / f"sample{number}"
        before = len(faults)
        sample = Sample(path, options.max_pairs, seed=options.seed, name=lang)
        found[lang] = samples.enter_context(sample)
        pairs = _pairs([source for source in sources if source.lang == lang], faults)
        dropped: Counter[Drop] = Counter()
        offered = 0
        for text, anchor in bar(pairs, what=lang, unit="pairs", enabled=options.progress):
            reason = options.pair_filter.reason(text, anchor)
            if reason is not None:
                dropped[reason] += 1
                continue
            offered += 1
            if sample.offer(anchor, text) is Offer.REPEATED:
                dropped[Drop.DUPLICATE] += 1
        sample.settle()
        dropped[Drop.LIMIT] = offered - dropped[Drop.DUPLICATE] - len(sample)
        for reason, count in dropped.items():
            writer.drop(reason, lang, count)
        # A language whose lines are faulty is spoken of already.
        if not len(sample) and len(faults) == before:
            empty.append(_without_pairs(lang, dropped))
    findings = Findings()
    findings.attempt(faults.raise_any)
    findings.add(DataError, empty)
    findings.raise_any()
    return found


def _pairs(sources: Sequence[Source], faults: Problems) -> Iterator[tuple[str, str]]:
    for source in sources:
        for text, anchor in source.pairs(faults):
            yield text.strip(), anchor.strip()


def _write(samples: dict[str, Sample], options: ParallelOptions, writer: PairsWriter) -> None:
    path = writer.work / "anchors"
    with Sample(path, options.max_pairs, seed=options.seed, name=options.anchor) as anchors:
        offered = repeated = 0
        total = sum(map(len, samples.values()))
        with bar(total=total, what="writing", unit="pairs", enabled=options.progress) as progress:
            for lang, sample in samples.items():
                for anchor, text in sample.records():
                    writer.add(text, lang, anchor)
                    if options.identity:
                        offered += 1
                        repeated += anchors.offer(anchor) is Offer.REPEATED
                    progress.update()
        anchors.settle()
        writer.drop(Drop.LIMIT, options.anchor, offered - repeated - len(anchors))
        for (anchor,) in anchors.records():
            writer.add(anchor, options.anchor, anchor)


def _without_pairs(lang: str, dropped: Counter[Drop]) -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in dropped.items() if count)
    return (
        f"{lang}: no pair is left of {dropped.total():,}{f' ({reasons})' if reasons else ''}, expected at "
        "least one: give another source, leave the language out, or loosen the filters"
    )
