"""How encoders are analyzed, as the command names it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from mimo_plugin.core.options import Option, Progress


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
    duplicates: Annotated[
        str,
        Option(
            "Of texts with one id and different content: an error, or the first is taken. The very same "
            "record is always taken once.",
            choices=("error", "first"),
        ),
    ] = "error"
    progress: Progress = None
