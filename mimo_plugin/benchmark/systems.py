"""The systems of a reproduction: their names, encoders and runs."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from mimo_plugin.benchmark.parts import BenchmarkPart, read_note
from mimo_plugin.benchmark.texts import NamedEncoder
from mimo_plugin.core.artifact import FileRecord, SealedRecord
from mimo_plugin.core.errors import ModelError, Problems, UsageError, near
from mimo_plugin.core.files import sha256, write_text
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.evaluation.options import SignificanceTest
from mimo_plugin.evaluation.runs import file_problem, run_files

if TYPE_CHECKING:
    from mimo_plugin.benchmark.config import BenchmarkConfig, Fusion

# Folders of an output directory.
COLLECTIONS, INDEXES, RUNS, GEOMETRY = "collections", "indexes", "runs", "geometry"
BM25 = "bm25"
# As a part of a config's fusion, it makes one fusion per encoder.
_EACH_ENCODER = "encoder"
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class SystemKind(StrEnum):
    DENSE = "dense"
    BM25 = "bm25"
    FUSION = "fusion"
    RUN = "run"


@dataclass(frozen=True)
class System:
    """Attributes:
    name: used in tables, file names and the runs' sixth column.
    encoder: of a dense system.
    run: file of a run made elsewhere.
    fusion, parts: of a fusion: how it fuses, and the names of the fused systems.
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
        bm25: whether BM25 is one of them; without it, fusions with BM25 are left out.

    Raises:
        UsageError: with every invalid or repeated name, and every missing file.
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
    """The config's test; None with one system, and Student's in place of Tukey's with two."""
    if len(systems) < 2:
        return None
    if config.test is SignificanceTest.TUKEY_HSD and len(systems) == 2:
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
        key: key of everything that determines the run.
        encoder, fingerprint: of a dense system.
        documents, index_bytes: of the index; None for fusions.
        seconds: step -> duration; without steps that an earlier command did in part.
        queries, lines: of the run.
        details: further facts for readers, such as the analyzer of each language.
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
        """The note, if the run is complete, intact and made under this key; else None."""
        made = read_note(self.note, MadeRun)
        if made is None or made.key != key or not self.file.is_file():
            return None
        return made if sha256(self.file) == made.run.sha256 else None

    def finish(self, made: MadeRun) -> MadeRun:
        write_text(self.note, made.sealed(indent=2))
        return made


@dataclass(frozen=True)
class EncoderFacts:
    """Properties of an encoder, kept when the encoder is released.

    Attributes:
        truncate: the requested dimension; None is the checkpoint's own.
        dtype_reason: see `Encoder`.
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
    dtype_reason: str | None = None

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
            dtype_reason=encoder.dtype_reason,
        )


def shortened(facts: EncoderFacts) -> dict[str, int]:
    """The part of an identity that depends on truncated vectors."""
    return {} if facts.truncate is None else {"dimension": facts.truncate}


class Models:
    """Loads encoders and keeps one in memory at a time."""

    def __init__(self, options: EncoderOptions) -> None:
        self._options = options
        self._held: tuple[str, Encoder] | None = None

    def facts(self, encoder: NamedEncoder) -> EncoderFacts:
        """Raises: as `Encoder`."""
        return EncoderFacts.of(self._load(encoder))

    def load(self, encoder: NamedEncoder, facts: EncoderFacts) -> Encoder:
        """The encoder with these facts; do not keep it longer than necessary.

        Raises:
            ModelError: the checkpoint has changed; or as `Encoder`.
        """
        found = self._load(encoder)
        if found.options.dtype != facts.dtype:
            found = Encoder(found.name, replace(found.options, dtype=facts.dtype))
            self._held = encoder.checkpoint, found
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


# Number of text lengths that are timed.
_LENGTHS = 16
# Larger batches are not faster on a CPU.
_CPU_BATCH = 4


def seconds_a_document(encoder: Encoder, parts: Sequence[BenchmarkPart], batch_size: int) -> float:
    """Mean seconds to encode a document of these parts.

    As in the real encoding, a batch holds texts of similar length, padded to the longest; see `lengths`.
    """
    texts = list(lengths(parts))
    batch = min(batch_size, _CPU_BATCH) if encoder.device_type == "cpu" else batch_size
    # The shortest and longest text warm up all that depends on the shape.
    for text in (texts[0], texts[-1]):
        encoder.encode_documents([text] * batch)
    began = time.perf_counter()
    for text in texts:
        encoder.encode_documents([text] * batch)
    return (time.perf_counter() - began) / (len(texts) * batch)


def lengths(parts: Sequence[BenchmarkPart]) -> Iterator[str]:
    """Texts from short to long; each stands for the same number of documents.

    Documents are sorted by their number of characters and cut into slices. The text with the most bytes
    represents its slice: it probably has the most tokens, to which its batch is padded.
    """
    sample = sorted(
        ((text, part.documents / len(part.note.sample)) for part in parts for text in part.note.sample),
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
