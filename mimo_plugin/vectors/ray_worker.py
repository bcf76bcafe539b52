"""What runs in Ray's processes: one that reads the collection, and those that encode."""

import os
from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.collections.survey import Survey
from mimo_plugin.errors import EnvironmentProblem
from mimo_plugin.student import EncoderOptions, Student
from mimo_plugin.vectors.encoding import Chunk, chunks, encode_chunks
from mimo_plugin.vectors.plan import EncodingPlan, plan_encoding
from mimo_plugin.vectors.ray_rows import raise_trouble, texts_of, texts_row, trouble, trouble_row, vectors_row
from mimo_plugin.vectors.shards import Shards

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Work:
    """What all processes of a call know.

    Attributes:
        collections, fields, pooled: see `load_pool`.
        directory: what relative paths of collections are relative to.
        prefixes: see `pool_prefixes`.
        encoder: the checkpoint; a directory by its absolute path.
        threads: that torch computes with on a CPU. Another number may round otherwise.
        repeated: see `Survey`.
    """

    collections: tuple[str, ...]
    fields: tuple[str, ...] | None
    pooled: bool
    directory: Path
    prefixes: dict[str, str] | None
    encoder: str
    encoder_options: EncoderOptions
    shard_size: int
    threads: int
    repeated: frozenset[str] = frozenset()

    def load(self) -> Student:
        """The encoder, in a process of its own; raises as `Student.load`."""
        import torch

        # Ray gives its processes one thread, or as many as the machine has cores.
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        torch.set_num_threads(self.threads)
        return Student.load(self.encoder, self.encoder_options)

    def terms(self, student: Student) -> EncodingPlan:
        """The plan of encoding with this student here, of a collection that is not known yet."""
        unknown = Survey(documents=1, empty=0, languages={}, fingerprint="")
        return plan_encoding(
            self.collections,
            unknown,
            student,
            prefixes=self.prefixes,
            fields=self.fields,
            shard_size=self.shard_size,
        )

    def env(self) -> dict[str, str]:
        """The settings of this process that say where collections lie and come from; no secrets."""
        return {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("IR_DATASETS_", "HF_", "MIMO_")) and "TOKEN" not in name
        }


def find_terms(work: Work) -> tuple[str | None, str | None]:
    """Loads the encoder where workers will run.

    Returns:
        The terms as JSON, and what went wrong; one of them is None.
    """
    try:
        return work.terms(work.load()).model_dump_json(), None
    except Exception as error:
        return None, trouble(error)


def read_texts(batch: "pa.Table", work: Work, shards: Shards, missing: Sequence[int]) -> Iterator["pa.Table"]:
    """The texts of the missing shards, in ascending order, a row each; runs once, where the command runs.

    Args:
        batch: of no interest: Ray Data makes rows from rows.
    """
    from mimo_plugin.collections import load_pool
    from mimo_plugin.collections.streaming import DistinctDocs

    try:
        with chdir(work.directory):
            collection = load_pool(work.collections, fields=work.fields, pooled=work.pooled)
            if work.repeated:
                collection = DistinctDocs(collection, work.repeated)
            for shard, docs in chunks(collection, shards, missing):
                yield texts_row(shard, docs)
    except Exception as error:
        yield trouble_row(error)


class Encoder:
    """Encodes shards with a student that is loaded once a process.

    An error is an answer, not an exception: Ray would start the process again, which mends nothing.

    Args:
        terms: of the first worker, as JSON; all must have the same.
    """

    def __init__(self, work: Work, terms: str) -> None:
        self._trouble: str | None = None
        try:
            self._student = work.load()
            self._refuse_other(EncodingPlan.model_validate_json(terms), work)
        except Exception as error:
            self._trouble = trouble(error)

    def __call__(self, row: "pa.Table") -> "pa.Table":
        if row.column("trouble")[0].is_valid:
            return row
        try:
            if self._trouble is not None:
                raise_trouble(self._trouble)
            shard, docs = texts_of(row)
            (encoded,) = encode_chunks([Chunk(shard, docs)], self._student)
            return vectors_row(*encoded)
        except Exception as error:
            return trouble_row(error)

    def _refuse_other(self, terms: EncodingPlan, work: Work) -> None:
        import socket

        differences = terms.differences(work.terms(self._student))
        if differences:
            raise EnvironmentProblem(
                f"the Ray worker on {socket.gethostname()} would make other vectors than the first one: "
                f"{'; '.join(differences)}. All machines need the same checkpoint and releases"
            )
