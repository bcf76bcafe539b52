"""The processes of a Ray cluster: they read texts and encode shards of vectors."""

import json
import os
import socket
import traceback
from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.collections.dataset import Pool
from mimo_plugin.collections.records import Doc
from mimo_plugin.collections.survey import Survey
from mimo_plugin.core import errors
from mimo_plugin.core.errors import EnvironmentProblem, MimoError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.encode import Chunk, chunks, encode_chunks
from mimo_plugin.indexing.plan import EncodingPlan, plan_encoding
from mimo_plugin.indexing.vectors import Shards, VectorBatch

if TYPE_CHECKING:
    import pyarrow as pa


def make_row(shard: int, content: Any, vectors: bytes | None = None) -> "pa.Table":
    """A message between processes, a table of one row: JSON data and vectors."""
    import pyarrow as pa

    # Texts may hold lone surrogates, and a shard more than 2 GiB.
    encoded = json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return pa.table(
        {
            "shard": pa.array([shard], pa.int64()),
            "content": pa.array([encoded], pa.large_binary()),
            "vectors": pa.array([vectors], pa.large_binary()),
        }
    )


def read_row(row: "pa.Table") -> tuple[int, Any]:
    """The shard and the data of a row; raises the error of a `trouble_row`."""
    content = json.loads(row.column("content")[0].as_py().decode("utf-8", "surrogatepass"))
    if isinstance(content, dict) and "trouble" in content:
        kind: type[MimoError] = getattr(errors, content["trouble"])
        raise kind(content["message"]) from _ElsewhereError(content["trace"])
    return row.column("shard")[0].as_py(), content


def vectors_of(row: "pa.Table") -> tuple[int, VectorBatch, int]:
    """The shard of a `RayEncoder`'s row, its vectors, and its number of documents without text.

    Raises: as `read_row`.
    """
    import numpy as np

    shard, content = read_row(row)
    values = np.frombuffer(row.column("vectors")[0].as_buffer(), dtype="<f4")
    vectors = values.reshape(len(content["docids"]), -1)
    return shard, VectorBatch(content["docids"], content["langs"], vectors), content["empty"]


def trouble_row(error: Exception) -> "pa.Table":
    """An error for the user; Ray would retry a task that raises it."""
    trace = "".join(traceback.format_exception(error))
    if not isinstance(error, MimoError):
        name, said = type(error).__name__, " ".join(str(error).split()) or "no message"
        error = EnvironmentProblem(f"a Ray worker on {socket.gethostname()} failed: {name}: {said}")
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return make_row(-1, {"trouble": kind.__name__, "message": str(error), "trace": trace})


class _ElsewhereError(Exception):
    """The traceback in another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Work:
    """Settings of all processes of a call. For collections see `load`, for `repeated` see `Survey`.

    Attributes:
        directory: base of the collections' relative paths.
        encoder: the checkpoint; for a directory its absolute path.
        threads: torch's threads on a CPU; their number affects rounding.
        sample: texts that the number format must fit, see `Encoder.checked_on`.
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
    sample: tuple[str, ...] = ()

    def load(self) -> tuple[Encoder, EncodingPlan]:
        """Loads the encoder, and makes the plan of an unknown collection."""
        import torch

        # Ray's own choice is one thread, or all cores of the machine.
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        torch.set_num_threads(self.threads)
        encoder = Encoder(self.encoder, self.encoder_options).checked_on(self.sample)
        unknown = Survey(documents=1, empty=0, languages={}, fingerprint="")
        pool = Pool(specs=self.collections, prefixes=self.prefixes, fields=self.fields)
        return encoder, plan_encoding(pool, unknown, encoder, shard_size=self.shard_size)

    def env(self) -> dict[str, str]:
        """This process's environment variables about the places of collections, without secrets."""
        return {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("IR_DATASETS_", "HF_", "MIMO_")) and "TOKEN" not in name
        }


def find_terms(work: Work) -> "pa.Table":
    """A row with the plan of `Work.load`; runs on a worker."""
    try:
        return make_row(-1, work.load()[1].model_dump(mode="json"))
    except Exception as error:
        return trouble_row(error)


def read_texts(batch: "pa.Table", work: Work, shards: Shards, missing: Sequence[int]) -> Iterator["pa.Table"]:
    """Yields a row of texts per missing shard, in ascending order; runs once, on the command's machine.

    Args:
        batch: unused; Ray Data requires an input.
    """
    from mimo_plugin.collections.pool import load
    from mimo_plugin.collections.survey import distinct

    try:
        with chdir(work.directory):
            collection = load(*work.collections, fields=work.fields, pooled=work.pooled)
            if work.repeated:
                collection = distinct(collection, work.repeated)
            for shard, docs in chunks(collection, shards, missing):
                yield make_row(shard, [[doc.doc_id, doc.lang, doc.text] for doc in docs])
    except Exception as error:
        yield trouble_row(error)


class RayEncoder:
    """Encodes shards with an encoder that is loaded once per process.

    Args:
        terms: the first worker's plan, which all workers must share.
    """

    def __init__(self, work: Work, terms: EncodingPlan) -> None:
        self._error: Exception | None = None
        try:
            self._encoder, own = work.load()
            if differences := terms.differences(own):
                raise EnvironmentProblem(
                    f"the Ray worker on {socket.gethostname()} would make other vectors than the first one: "
                    f"{'; '.join(differences)}. All machines need the same checkpoint and releases"
                )
        except Exception as error:
            self._error = error

    def __call__(self, row: "pa.Table") -> "pa.Table":
        try:
            shard, texts = read_row(row)
            if self._error is not None:
                raise self._error
            docs = [Doc(docid, text, lang) for docid, lang, text in texts]
            ((_, batch, empty),) = encode_chunks([Chunk(shard, docs)], self._encoder)
            content = {"docids": batch.docids, "langs": batch.langs, "empty": empty}
            return make_row(shard, content, batch.vectors.astype("<f4", copy=False).tobytes())
        except Exception as error:
            return trouble_row(error)
