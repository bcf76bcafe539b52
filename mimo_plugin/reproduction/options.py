"""How a benchmark is reproduced."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mimo_plugin.indexing.build import IndexOptions
from mimo_plugin.student import EncoderOptions


@dataclass(frozen=True)
class ReproduceOptions:
    """Attributes:
    output: directory, new or begun before.
    encoders: `NAME=CHECKPOINT` or a checkpoint, each a system.
    runs: `NAME=FILE` or a file, runs that were made elsewhere.
    bm25: whether BM25 is a system; None is what the config says.
    baseline: system that others are compared with; None is the config's.
    distractors: look at a subset: the judged documents and so many others a language; None is all.
    seed: of the subset.
    index, encoder: how documents are encoded and indexed.
    threads: of Lucene.
    command: for the record.
    progress: see `progress.bar`.
    """

    output: Path
    encoders: Sequence[str] = ()
    runs: Sequence[str] = ()
    bm25: bool | None = None
    baseline: str | None = None
    distractors: int | None = None
    seed: int = 42
    index: IndexOptions = field(default_factory=IndexOptions)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    threads: int = 2
    command: str = ""
    progress: bool | None = None
