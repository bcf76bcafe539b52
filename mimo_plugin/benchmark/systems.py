"""The systems of a reproduction: names, encoders and how fast they are, the notes of their runs."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from mimo_plugin.benchmark.parts import BenchmarkPart
from mimo_plugin.benchmark.texts import NamedEncoder
from mimo_plugin.core.artifact import FileRecord, SealedRecord, parse_manifest
from mimo_plugin.core.errors import ArtifactError, ModelError, Problems, UsageError, near
from mimo_plugin.core.files import sha256, write_text
from mimo_plugin.encoder.encoder import Encoder, EncoderOptions
from mimo_plugin.evaluation.options import SignificanceTest
from mimo_plugin.evaluation.runs import file_problem, run_files

if TYPE_CHECKING:
    from mimo_plugin.benchmark.config import BenchmarkConfig, Fusion

# Folders of an output directory.
COLLECTIONS, INDEXES, RUNS, GEOMETRY = "collections", "indexes", "runs", "geometry"
BM25 = "bm25"
# Among the parts of a config's fusion: there is one fusion for each encoder.
_EACH_ENCODER = "encoder"
# Tukey's test is one of all pairs of so many or more.
_FOR_TUKEY = 3
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class SystemKind(StrEnum):
    DENSE = "dense"
    BM25 = "bm25"
    FUSION = "fusion"
    RUN = "run"


@dataclass(frozen=True)
class System:
    """Attributes:
    name: in tables, files and the runs' sixth column.
    encoder: of dense systems.
    run: file; of runs made elsewhere.
    fusion: how parts are fused; of fusions.
    parts: names of the systems that are fused.
    """

    name: str
    kind: SystemKind
    encoder: NamedEncoder | None = None
    run: Path | None = None
    fusion: "Fusion | None" = None
    parts: tuple[str, ...] = ()


def all_systems(
    config: "BenchmarkConfig", encoders: Sequence[NamedEncoder], runs: Sequence[str], bm25: bool
) -> tuple[System, ...]:
    """The requested systems; a fusion comes after its parts.

    Args:
        runs: `NAME=FILE` or a file.
        bm25: whether BM25 is one of them; without it fusions that need it are left out.

    Raises:
        UsageError: with every name that cannot be used or is there twice, and every file that is missing.
    """
    problems = Problems(UsageError)
    systems = [System(BM25, SystemKind.BM25)] if bm25 else []
    dense = [System(encoder.label, SystemKind.DENSE, encoder=encoder) for encoder in encoders]
    systems += dense
    systems += _fusions(config, {system.name for system in systems}, [system.name for system in dense])
    for file in run_files(runs):
        if problem := file_problem(file.path):
            problems.add(problem)
        systems.append(System(file.name, SystemKind.RUN, run=file.path))
    for system in systems:
        if system.fusion is None and not _LABEL.fullmatch(system.name):
            problems.add(
                f"system {system.name!r}: expected a name of at most 64 letters, digits and . _ + -: give it "
                f"one, for example mine={system.encoder.checkpoint if system.encoder else system.run}"
            )
    names = [system.name for system in systems]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        problems.add(f"{names.count(name)} systems are named {name!r}: give each a name, as NAME=CHECKPOINT")
    if not systems:
        problems.add("no system: name an --encoder or a --run, or use --bm25")
    problems.raise_any()
    return tuple(systems)


def _fusions(config: "BenchmarkConfig", there: set[str], dense: Sequence[str]) -> Iterator[System]:
    """Fusions of available systems; a fusion with `encoder` becomes one fusion per encoder."""
    for fusion in config.fusion:
        each = dense if _EACH_ENCODER in fusion.systems else [""]
        for encoder in each:
            parts = tuple(encoder if part == _EACH_ENCODER else part for part in fusion.systems)
            if set(parts) <= there:
                name = f"{fusion.name}-{encoder}" if len(each) > 1 else fusion.name
                yield System(name, SystemKind.FUSION, fusion=fusion, parts=parts)


def chosen_test(config: "BenchmarkConfig", systems: Sequence[System]) -> SignificanceTest | None:
    """The config's test; None with one system, and student if Tukey's test lacks a third system."""
    if len(systems) < 2:
        return None
    if config.test is SignificanceTest.TUKEY_HSD and len(systems) < _FOR_TUKEY:
        return SignificanceTest.STUDENT
    return config.test


def chosen_baseline(config: "BenchmarkConfig", systems: Sequence[System], asked: str | None) -> str | None:
    """The baseline: the requested system, the config's, or the first.

    None with one system, and with Tukey's test, which compares all pairs.

    Raises:
        UsageError: no system has the requested name.
    """
    names = [system.name for system in systems]
    if asked is not None and asked not in names:
        expected = f"expected one of {', '.join(names)}"
        raise UsageError(f"--baseline {asked!r}: no such system, {expected}{near(asked, names)}")
    if len(names) < 2:
        return None
    if asked is not None:
        return asked
    if chosen_test(config, systems) is SignificanceTest.TUKEY_HSD:
        return None
    return config.baseline if config.baseline in names else names[0]


FORMAT: Final = "mimo-reproduction-run"


class MadeRun(SealedRecord):
    """Note of a finished run; written last.

    Attributes:
        key: names all that decides the run.
        encoder, fingerprint: of a dense system.
        documents: in the index; None for fusions.
        index_bytes: of the index; None for fusions.
        seconds: step -> what it took; one that an earlier command did in part is not there.
        queries, lines: of the run.
        run: the file.
        details: what else a reader wants to know, such as the analyzer of each language.
        warnings: what a user should know of it.
    """

    format: Literal["mimo-reproduction-run"] = FORMAT
    format_version: Literal[1] = 1
    system: str
    key: str
    encoder: str | None = None
    fingerprint: str | None = None
    documents: int | None = None
    index_bytes: int | None = None
    seconds: dict[str, float]
    queries: int
    lines: int
    run: FileRecord
    details: dict[str, Any]
    warnings: tuple[str, ...] = ()


class RunPlace:
    """Files of a system's run and its note."""

    def __init__(self, output: Path, system: str) -> None:
        self.file = output / RUNS / f"{system}.trec.gz"
        self.note = output / RUNS / f"{system}.json"

    def finished(self, key: str) -> MadeRun | None:
        """The note, if the run is complete, undamaged and made under this key; else None."""
        try:
            made = parse_manifest(self.note, MadeRun, "a run")
            if made.key != key or self.file.stat().st_size != made.run.bytes:
                return None
            return made if sha256(self.file) == made.run.sha256 else None
        except (OSError, ArtifactError):
            return None

    def finish(self, made: MadeRun) -> MadeRun:
        write_text(self.note, made.sealed(indent=2))
        return made


@dataclass(frozen=True)
class EncoderFacts:
    """Properties of an encoder, known without the encoder in memory.

    Attributes:
        truncate: the dimension that was asked for; None is the checkpoint's own.
    """

    name: str
    fingerprint: str
    dimension: int
    pooling: str | None
    max_length: int
    document_prompt: str
    query_prompt: str
    device: str
    dtype: str
    backend: str
    batch_size: int
    truncate: int | None = None

    @classmethod
    def of(cls, encoder: Encoder) -> "EncoderFacts":
        return cls(
            name=encoder.name,
            fingerprint=encoder.fingerprint,
            dimension=encoder.dimension,
            pooling=encoder.pooling,
            max_length=encoder.max_length,
            document_prompt=encoder.document_prompt,
            query_prompt=encoder.query_prompt,
            device=encoder.device_type,
            dtype=encoder.options.dtype,
            backend=encoder.backend,
            batch_size=encoder.options.batch_size,
            truncate=encoder.options.dimension,
        )


def shortened(facts: EncoderFacts) -> dict[str, int]:
    """The part of an identity that only truncated vectors have."""
    return {} if facts.truncate is None else {"dimension": facts.truncate}


class Models:
    """Loads one encoder at a time: the previous one is released first."""

    def __init__(self, options: EncoderOptions) -> None:
        self._options = options
        self._held: tuple[str, Encoder] | None = None

    def facts(self, encoder: NamedEncoder) -> EncoderFacts:
        """Raises: as `Encoder`."""
        return EncoderFacts.of(self._load(encoder))

    def load(self, encoder: NamedEncoder, facts: EncoderFacts) -> Encoder:
        """The encoder with these facts; do not keep it longer than necessary.

        Raises:
            ModelError: the checkpoint is another one than it was; or as `Encoder`.
        """
        found = self._load(encoder)
        if found.fingerprint != facts.fingerprint:
            raise ModelError(
                f"{facts.name} has changed since this command began, expected fingerprint "
                f"{facts.fingerprint[:12]}, found {found.fingerprint[:12]}: run it again"
            )
        return found

    def release(self) -> None:
        self._held = None

    def _load(self, encoder: NamedEncoder) -> Encoder:
        if encoder.model is not None:
            return encoder.model
        if self._held is None or self._held[0] != encoder.checkpoint:
            self._held = None
            self._held = encoder.checkpoint, encoder.load(self._options)
        return self._held[1]


# Lengths that are tried, each of as many documents.
_LENGTHS = 16
# Texts at a time where there is no accelerator, which larger batches do not make faster.
_CPU_BATCH = 4


def seconds_a_document(encoder: Encoder, parts: Sequence[BenchmarkPart], batch_size: int) -> float:
    """Seconds to encode one document of these parts on average.

    Documents are encoded in batches of like length, padded to the longest; so are the texts here, see
    `lengths`.
    """
    texts = list(lengths(parts))
    batch = min(batch_size, _CPU_BATCH) if encoder.device_type == "cpu" else batch_size
    # To warm up, also what depends on the shape.
    for text in (texts[0], texts[-1]):
        encoder.encode_documents([text] * batch)
    began = time.perf_counter()
    for text in texts:
        encoder.encode_documents([text] * batch)
    return (time.perf_counter() - began) / (len(texts) * batch)


def lengths(parts: Sequence[BenchmarkPart]) -> Iterator[str]:
    """Texts from short to long, each of which stands for as many documents.

    Documents are cut into slices in the order of their number of characters. Of each slice it is the text
    with the most bytes, as a sign of the most tokens: in a mix of languages these pad their batch.
    """
    sample = sorted(
        ((text, part.documents / len(part.sample)) for part in parts for text in part.sample),
        key=lambda weighted: len(weighted[0]),
    )
    ends = list(accumulate(weight for _, weight in sample))
    starts = [0.0, *ends[:-1]]
    for step in range(_LENGTHS):
        low, high = (ends[-1] * edge / _LENGTHS for edge in (step, step + 1))
        slice_ = (
            text
            for (text, _), start, end in zip(sample, starts, ends, strict=True)
            if start < high and end > low
        )
        yield max(slice_, key=lambda text: len(text.encode("utf-8", "surrogatepass")))
