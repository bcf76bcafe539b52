"""How benchmarks are reproduced, experiments run and encoders analyzed, as the commands name it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from mimo_plugin.core.option import Option, Progress, duplicates_of
from mimo_plugin.evaluation.options import Gain


@dataclass(frozen=True)
class ReproduceOptions:
    """How a benchmark is reproduced; see each option's text."""

    runs: Annotated[
        tuple[str, ...],
        Option("TREC runs that were made elsewhere.", name="--run", metavar="[NAME=]FILE..."),
    ] = ()
    bm25: Annotated[bool | None, Option("BM25 as a system.  [default: as the config says]")] = None
    languages: Annotated[
        tuple[str, ...], Option("These only.  [default: the config's]", metavar="LANG,...")
    ] = ()
    docs: Annotated[
        str | None,
        Option(
            "A quick look: the judged documents and N others a language. Every number is labelled as such.",
            metavar="judged+N",
        ),
    ] = None
    seed: Annotated[
        int,
        Option("Of the others in --docs, and of the sample that trains IVF, PQ and the like.", min=0),
    ] = 42
    data: Annotated[
        str | None,
        Option(
            "Where {data} of a config lies, or copies of hub repositories.  [default: $MIMO_DATA, else data]",
            metavar="DIR|hub:OWNER/NAME",
        ),
    ] = None
    gain: Annotated[
        Gain | None,
        Option("What judgments count: their grade, or 1 if relevant at all.  [default: the config's]"),
    ] = None
    fairness: Annotated[
        tuple[str, ...],
        Option(
            "Further cutoffs of MRC and PEER, such as MRC@5,10,20 PEER@20,100.  [default: the config's]",
            metavar="MEASURE@K,...",
        ),
    ] = ()
    baseline: Annotated[
        str | None,
        Option("Compare with this system.  [default: the config's, else the first]", metavar="NAME"),
    ] = None
    factory: Annotated[str, Option("FAISS factory string.")] = "Flat"
    shard_size: Annotated[
        int, Option("Documents encoded and written at a time; a kill loses two shards at most.", min=1)
    ] = 4096
    threads: Annotated[int, Option("Of Lucene, for BM25.", min=1)] = 2
    resume: Annotated[
        bool,
        Option("Go on with indexes that were cut short, or start over with those of unfinished runs."),
    ] = True
    progress: Progress = None

    @property
    def loading(self) -> dict[str, Any]:
        """The options of `load_config`."""
        return {name: getattr(self, name) for name in ("languages", "data", "gain", "fairness")}


@dataclass(frozen=True)
class ExperimentOptions:
    """How an experiment runs; no option changes a result."""

    only: Annotated[tuple[str, ...], Option("Run these systems.  [default: all]", metavar="SYSTEM...")] = ()
    seeds: Annotated[
        int | None, Option("Run the first so many of the recipe's seeds.  [default: all]", min=1)
    ] = None
    keep_indexes: Annotated[bool, Option("Keep the indexes of the students that were scored.")] = False
    teacher_store: Annotated[
        Path | None,
        Option("Directory of the teacher's embeddings, to share them.  [default: inside --output]"),
    ] = None
    device: Annotated[str | None, Option("cpu, cuda or mps.  [default: the fastest that is there]")] = None
    encoder_batch_size: Annotated[int, Option("Texts a batch when teacher and students encode.", min=1)] = 64
    progress: Progress = None


class Role(StrEnum):
    """Which texts of a collection, and with which of the encoder's prompts they are encoded."""

    DOCUMENTS = "documents"
    QUERIES = "queries"


@dataclass(frozen=True)
class AnalyzeOptions:
    """How encoders and runs are looked at; the options' texts say what each is."""

    role: Annotated[Role, Option("Which texts, and with which of the encoder's prompts.")] = Role.DOCUMENTS
    texts: Annotated[
        int,
        Option(
            "Texts to draw, each in all its languages; a language, of a collection that is not parallel.",
            min=1,
        ),
    ] = 1000
    hits_cutoff: Annotated[int, Option("How many hits a query of the runs.", min=1)] = 20
    fairness: Annotated[
        Sequence[str],
        Option(
            "MRC and PEER at further cutoffs, of each query language too: MRC@5,10,20 PEER@20,100.",
            metavar="MEASURE@K,...",
        ),
    ] = ()
    seed: Annotated[int, Option("Draws the texts.", min=0)] = 42
    pooled: Annotated[bool, Option("Ids are lang:id also for a single collection.")] = False
    duplicates: Annotated[str, duplicates_of("texts with one id and different content")] = "error"
    progress: Progress = None
