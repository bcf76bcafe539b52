"""Options of `mimo reproduce`, `mimo experiment` and `mimo analyze`."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from mimo_plugin.core.errors import EnvironmentProblem
from mimo_plugin.core.option import ADVANCED, Option, Progress, duplicates_of
from mimo_plugin.evaluation.options import SLICES, Gain, SeenLanguages
from mimo_plugin.indexing.settings import Factory

_FOLDER = "eval_configs"


def configs_directory() -> Path:
    """Directory of the packaged configs: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    for directory in (package / _FOLDER, package.parent / _FOLDER):
        if directory.is_dir():
            return directory
    raise EnvironmentProblem(f"{package / _FOLDER} is missing, expected the packaged configs: install again")


@dataclass(frozen=True)
class ReproduceOptions:
    """How a benchmark is reproduced."""

    runs: Annotated[
        tuple[str, ...],
        Option("TREC runs that were made elsewhere.", name="--run", metavar="[NAME=]FILE..."),
    ] = ()
    bm25: Annotated[bool | None, Option("BM25 as a system.  [default: as the config says]")] = None
    languages: Annotated[
        tuple[str, ...], Option("Only these languages.  [default: the config's]", metavar="LANG,...")
    ] = ()
    docs: Annotated[
        str | None,
        Option(
            "Use a subset: the judged documents and N others per language. All scores are labelled as such.",
            metavar="judged+N",
        ),
    ] = None
    seed: Annotated[
        int,
        Option(
            "Draws the documents of --docs, the topics of the report, and the sample that trains IVF, PQ and "
            "the like.",
            min=0,
            group=ADVANCED,
        ),
    ] = 42
    data: Annotated[
        str | None,
        Option(
            "What {data} in configs stands for; a folder may also hold copies of hub repositories.  "
            "[default: $MIMO_DATA, else data]",
            metavar="DIR|hub:OWNER/NAME",
        ),
    ] = None
    gain: Annotated[
        Gain | None,
        Option("Gain of a relevant document: its grade, or 1.  [default: the config's]"),
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
    report_topics: Annotated[
        int,
        Option(
            "Topics of the report with the first hits and their texts; 0 leaves all texts out.",
            min=0,
            group=ADVANCED,
        ),
    ] = 200
    slices: Annotated[Path | None, SLICES] = None
    seen_languages: SeenLanguages = ()
    factory: Factory = "Flat"
    shard_size: Annotated[
        int, Option("Documents per shard; a kill loses two shards at most.", min=1, group=ADVANCED)
    ] = 4096
    threads: Annotated[int, Option("Threads of Lucene, for BM25.", min=1, group=ADVANCED)] = 2
    resume: Annotated[
        bool,
        Option("Resume unfinished indexes, or build the indexes of unfinished runs again.", group=ADVANCED),
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
    seeds: Annotated[int | None, Option("Run the first N seeds of the recipe.  [default: all]", min=1)] = None
    keep_indexes: Annotated[bool, Option("Keep the indexes of scored students.", group=ADVANCED)] = False
    teacher_store: Annotated[
        Path | None,
        Option(
            "Directory of the teacher's embeddings, to share them.  [default: inside --output]",
            group=ADVANCED,
        ),
    ] = None
    device: Annotated[str | None, Option("cpu, cuda or mps.  [default: the fastest available]")] = None
    encoder_batch_size: Annotated[
        int, Option("Texts per batch of teacher and students.", min=1, group=ADVANCED)
    ] = 64
    progress: Progress = None


class Role(StrEnum):
    """Texts of a collection, which also determine the encoder's prompt."""

    DOCUMENTS = "documents"
    QUERIES = "queries"


@dataclass(frozen=True)
class AnalyzeOptions:
    """How encoders and runs are analyzed."""

    sts: Annotated[
        tuple[Path, ...],
        Option(
            "Sentence pairs with gold scores: TSV, CSV, JSON Lines or Parquet with the columns sentence1, "
            "sentence2, score, and perhaps lang1 and lang2, or lang.",
            metavar="FILE...",
        ),
    ] = ()
    role: Annotated[
        Role | None,
        Option(
            "Texts to encode, with the encoder's prompt for them.  [default: documents; queries for --sts, "
            "as E5 wants it in symmetric tasks]"
        ),
    ] = None
    texts: Annotated[
        int,
        Option(
            "Texts to draw, each in all its languages; per language, if the collection is not parallel.",
            min=1,
        ),
    ] = 1000
    hits_cutoff: Annotated[int, Option("Hits per query of the runs that count.", min=1)] = 20
    fairness: Annotated[
        Sequence[str],
        Option(
            "Further cutoffs of MRC and PEER, also per query language: MRC@5,10,20 PEER@20,100.",
            metavar="MEASURE@K,...",
        ),
    ] = ()
    seed: Annotated[
        int, Option("Draws the texts, and the bootstrap samples of --sts.", min=0, group=ADVANCED)
    ] = 42
    pooled: Annotated[bool, Option("Use ids lang:id for a single collection, too.")] = False
    duplicates: Annotated[str, duplicates_of("texts with one id and different content")] = "error"
    progress: Progress = None

    @property
    def texts_of(self) -> Role:
        """Texts of the collections."""
        return self.role or Role.DOCUMENTS
