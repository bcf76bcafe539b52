"""Stage-1 training data: parallel pairs, filtered as in the paper."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from heapq import heappush, heappushpop
from pathlib import Path
from typing import Self

from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import Problems, UsageError
from mimo_plugin.data.options import Drop, ParallelOptions, SourceOptions
from mimo_plugin.data.opus import Opus, opus_sources
from mimo_plugin.data.sources import DatasetColumns, MosesFiles, PairSource, TsvFile
from mimo_plugin.data.writers import Made, PairsWriter
from mimo_plugin.training.data import Format, data_directory


def parse_sources(options: SourceOptions) -> tuple[list[PairSource], Opus | None]:
    """The sources that options name, in order, OPUS first; and the result for OPUS.

    Raises:
        UsageError, DataError: with all problems of the options and of OPUS's downloads.
    """
    problems = Problems(UsageError)
    opus = None
    if options.opus is not None:
        with problems.collect():
            opus = opus_sources(
                options.opus,
                corpora=options.opus_corpora,
                languages=options.opus_languages,
                skip_missing=options.skip_missing,
            )
        if options.anchor != "en":
            problems.add(f"--anchor {options.anchor}: the anchor of --opus is English, expected en")
    elif options.opus_corpora or options.opus_languages or options.skip_missing:
        problems.add("--opus-corpora, --opus-languages and --skip-missing go with --opus")
    sources: list[PairSource] = list(opus.sources) if opus else []
    for option, specs in (
        ("--tsv", options.tsv),
        ("--moses", options.moses),
        ("--dataset", options.datasets),
    ):
        for spec in specs:
            with problems.collect():
                sources.append(_source(option, spec, options))
    if options.datasets and (len(options.columns.split(",")) != 2 or not all(options.columns.split(","))):
        problems.add(f"--columns {options.columns}: expected two names, ANCHOR_COLUMN,TEXT_COLUMN")
    if not (options.tsv or options.moses or options.datasets or options.opus):
        problems.add("no source was given, expected at least one of --tsv, --moses, --dataset and --opus")
    problems.extend(
        f"{source.lang}: the same source was given twice, expected it once"
        for source, count in Counter(sources).items()
        if count > 1
    )
    problems.raise_any()
    return sources, opus


def _source(option: str, spec: str, options: SourceOptions) -> PairSource:
    lang, equals, rest = spec.partition("=")
    anchor = options.anchor
    if not equals or not rest or lang.split() != [lang]:
        raise UsageError(f"{option} {spec}: expected LANG=SOURCE, such as de=opus.de.tsv.gz")
    if lang == anchor:
        raise UsageError(
            f"{option} {spec}: {lang} is the anchor language, expected another language; --identity makes "
            "the anchor's own pairs"
        )
    if option == "--tsv":
        return TsvFile(lang, anchor, Path(rest).expanduser())
    if option == "--moses":
        paths = [Path(name).expanduser() for name in rest.split(",") if name]
        if len(paths) != 2:
            raise UsageError(
                f"{option} {spec}: {len(paths)} files, expected {lang}={anchor.upper()}_FILE,"
                f"{lang.upper()}_FILE"
            )
        return MosesFiles(lang, anchor, paths[0], paths[1])
    name, config, split = rest, "", ""
    # A file's name may contain a hash or a colon.
    if not Path(name).expanduser().exists():
        name, _, split = name.partition("#")
    if not Path(name).expanduser().exists():
        name, _, config = name.partition(":")
    else:
        name = str(Path(name).expanduser())
    anchor_column, _, text_column = options.columns.partition(",")
    return DatasetColumns(
        lang, anchor, name, config or None, split or options.split, anchor_column, text_column
    )


class Sample:
    """A uniform sample of `size` distinct keys in one pass, with the first record of each key.

    A keyed hash orders the keys randomly; the sample holds the `size` smallest hashes. Memory holds these
    hashes: a key above the largest can never enter again. Records go to disk if their key is in the sample
    when they are offered; for n distinct keys that is about size * (1 + ln(n / size)) records.

    Args:
        path: temporary file for the records, removed at the end.
        seed, name: key of the hash: samples with other names are independent.
    """

    def __init__(self, path: Path, size: int, *, seed: int, name: str) -> None:
        self._path = path
        self._size = size
        self._key = blake2b(f"{seed}\t{name}".encode()).digest()
        # Negated hashes: the first in the heap is the largest hash.
        self._heap: list[int] = []
        self._held: set[int] = set()
        self._count = 0
        self._largest = -1

    def __enter__(self) -> Self:
        self._file = self._path.open("w", encoding="utf-8", newline="\n")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def offer(self, key: str, *record: str) -> bool:
        """Adds a record for now, unless its key is outside the sample or repeated.

        Returns:
            False for a repeated key. A key that left the sample counts as new when it is offered again.
        """
        value = self._hash(key)
        if value in self._held:
            return False
        if len(self._heap) < self._size:
            heappush(self._heap, -value)
        elif value < -self._heap[0]:
            self._held.discard(-heappushpop(self._heap, -value))
        else:
            return True
        self._held.add(value)
        self._file.write(json.dumps([key, *record], ensure_ascii=False) + "\n")
        return True

    def settle(self) -> None:
        """Ends the sampling and frees its memory."""
        self._file.flush()
        self._count = len(self._heap)
        self._largest = -self._heap[0] if self._heap else -1
        self._heap, self._held = [], set()

    def __len__(self) -> int:
        """Number of records in the sample; after `settle`."""
        return self._count

    def records(self) -> Iterator[list[str]]:
        """The sample's keys with their records, in the order of arrival; after `settle`."""
        with self._path.open(encoding="utf-8") as lines:
            for line in lines:
                record: list[str] = json.loads(line)
                if self._hash(record[0]) <= self._largest:
                    yield record

    def _hash(self, key: str) -> int:
        return int.from_bytes(blake2b(key.encode(), digest_size=16, key=self._key).digest(), "big")


def make_pairs(sources: Sequence[PairSource], output: Path, options: ParallelOptions | None = None) -> Made:
    """Filters, deduplicates and samples the sources' pairs and writes them to a directory.

    An anchor text is kept once per language, with its first translation. If a language has more than
    `max_pairs` of them, a uniform sample over all its sources is kept. Memory holds the hashes of `max_pairs`
    anchor texts, temporary files the texts.

    Raises:
        DataError: a source cannot be read or has bad lines (the first 20), or a language has no pairs left.
        ArtifactError, UsageError: the output holds something else, or cannot be written.
    """
    options = options or ParallelOptions()
    problems = Problems()
    with problems.collect():
        data_directory(output, Format.PAIRS).check_output()
    for source in sources:
        with problems.collect():
            source.check()
    problems.raise_any()
    writer = PairsWriter(
        output,
        anchor=options.anchor,
        parameters=options.parameters(),
        source={"sources": [source.identity() for source in sources]},
        overwrite=options.overwrite,
    )
    done = writer.finished()
    if done is not None:
        return Made(done, new=False)
    with writer, ExitStack() as samples:
        _write(_sampled(sources, options, writer, samples), options, writer)
    return Made(writer.manifest, new=True)


def _sampled(
    sources: Sequence[PairSource], options: ParallelOptions, writer: PairsWriter, samples: ExitStack
) -> dict[str, Sample]:
    """Reads all sources, language by language; raises all their problems together."""
    faults, empty = Problems(stop=True), []
    found: dict[str, Sample] = {}
    for number, lang in enumerate(dict.fromkeys(source.lang for source in sources)):
        before = len(faults)
        sample = Sample(writer.work / f"sample{number}", options.max_pairs, seed=options.seed, name=lang)
        found[lang] = samples.enter_context(sample)
        pairs = (pair for source in sources if source.lang == lang for pair in source.pairs(faults))
        dropped: Counter[Drop] = Counter()
        offered = 0
        for text, anchor in bar(pairs, what=lang, unit="pairs", enabled=options.progress):
            text, anchor = text.strip(), anchor.strip()
            reason = options.pair_filter.reason(text, anchor)
            if reason is not None:
                dropped[reason] += 1
                continue
            offered += 1
            dropped[Drop.DUPLICATE] += not sample.offer(anchor, text)
        sample.settle()
        dropped[Drop.LIMIT] = offered - dropped[Drop.DUPLICATE] - len(sample)
        for reason, count in dropped.items():
            writer.drop(reason, lang, count)
        # Faulty lines are reported instead of an empty language.
        if not len(sample) and len(faults) == before:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in dropped.items() if count)
            empty.append(
                f"{lang}: no pairs are left of {dropped.total():,}{f' ({reasons})' if reasons else ''}, "
                "expected at least one: give another source, leave the language out, or loosen the filters"
            )
    problems = Problems()
    with problems.collect():
        faults.raise_any()
    problems.extend(empty)
    problems.raise_any()
    return found


def _write(samples: dict[str, Sample], options: ParallelOptions, writer: PairsWriter) -> None:
    with Sample(
        writer.work / "anchors", options.max_pairs, seed=options.seed, name=options.anchor
    ) as anchors:
        distinct = 0
        total = sum(map(len, samples.values()))
        with bar(total=total, what="writing", unit="pairs", enabled=options.progress) as progress:
            for lang, sample in samples.items():
                for anchor, text in sample.records():
                    writer.add(text, lang, anchor)
                    if options.identity:
                        distinct += anchors.offer(anchor)
                    progress.update()
        anchors.settle()
        writer.drop(Drop.LIMIT, options.anchor, distinct - len(anchors))
        for (anchor,) in anchors.records():
            writer.add(anchor, options.anchor, anchor)
