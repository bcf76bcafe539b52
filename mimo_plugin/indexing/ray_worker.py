"""What a Ray worker does: rows of text in, a shard of vectors out."""

import json
import os
import socket
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mimo_plugin.collections.records import Doc
from mimo_plugin.collections.survey import Survey
from mimo_plugin.core import errors
from mimo_plugin.core.errors import EnvironmentProblem, MimoError
from mimo_plugin.encoder.encoder import Encoder, EncoderOptions
from mimo_plugin.indexing.encode import Chunk, chunks, encode_chunks
from mimo_plugin.indexing.plan import EncodingPlan, plan_encoding
from mimo_plugin.indexing.vectors import Shards, VectorBatch

if TYPE_CHECKING:
    import pyarrow as pa


def texts_row(shard: int, docs: Sequence[Any]) -> "pa.Table":
    """A shard's documents, on their way to a worker."""
    return _row(shard, content=[[doc.doc_id, doc.lang, doc.text] for doc in docs])


def texts_of(row: "pa.Table") -> tuple[int, list[Doc]]:
    """The shard of a `texts_row` and its documents."""
    docs = [Doc(docid, text, lang) for docid, lang, text in _content(row)]
    return row.column("shard")[0].as_py(), docs


def vectors_row(shard: int, batch: VectorBatch, empty: int) -> "pa.Table":
    """A shard's vectors, on their way to the one who writes.

    Args:
        empty: documents without text.
    """
    content = {"docids": batch.docids, "langs": batch.langs, "empty": empty}
    return _row(shard, content=content, vectors=batch.vectors.astype("<f4", copy=False).tobytes())


def vectors_of(row: "pa.Table") -> tuple[int, VectorBatch, int]:
    """The shard of a `vectors_row`, its vectors, and the number of documents without text."""
    import numpy as np

    content = _content(row)
    values = np.frombuffer(row.column("vectors")[0].as_buffer(), dtype="<f4")
    batch = VectorBatch(content["docids"], content["langs"], values.reshape(len(content["docids"]), -1))
    return row.column("shard")[0].as_py(), batch, content["empty"]


def trouble_row(error: Exception) -> "pa.Table":
    """An error, on its way to the user."""
    return _row(-1, trouble=trouble(error))


def trouble(error: Exception) -> str:
    """An error as text that `raise_trouble` understands."""
    message = str(error)
    if not isinstance(error, MimoError):
        name, said = type(error).__name__, " ".join(message.split()) or "no message"
        error = EnvironmentProblem(f"a Ray worker on {socket.gethostname()} failed: {name}: {said}")
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return json.dumps({"kind": kind.__name__, "message": str(error), "trace": traceback.format_exc()})


def refuse_trouble(row: "pa.Table") -> None:
    """Raises the error that a row holds, if it holds one."""
    text = row.column("trouble")[0].as_py()
    if text is not None:
        raise_trouble(text)


def raise_trouble(text: str) -> NoReturn:
    """Raises an error of another process as the one of our classes that it was."""
    data = json.loads(text)
    raise getattr(errors, data["kind"])(data["message"]) from _ElsewhereError(data["trace"])


class _ElsewhereError(Exception):
    """The traceback in another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _row(
    shard: int, *, content: Any = None, vectors: bytes | None = None, trouble: str | None = None
) -> "pa.Table":
    import pyarrow as pa

    # Texts may hold what is no valid UTF-8, and a shard more than 2 GiB.
    encoded = json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return pa.table(
        {
            "shard": pa.array([shard], pa.int64()),
            "content": pa.array([encoded], pa.large_binary()),
            "vectors": pa.array([vectors], pa.large_binary()),
            "trouble": pa.array([trouble], pa.string()),
        }
    )


def _content(row: "pa.Table") -> Any:
    return json.loads(row.column("content")[0].as_py().decode("utf-8", "surrogatepass"))


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
    prefixes: Mapping[str, str] | None
    encoder: str
    encoder_options: EncoderOptions
    shard_size: int
    threads: int
    repeated: frozenset[str] = frozenset()

    def load(self) -> Encoder:
        """The encoder, in a process of its own; raises as `Encoder`."""
        import torch

        # Ray gives its processes one thread, or as many as the machine has cores.
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        torch.set_num_threads(self.threads)
        return Encoder(self.encoder, self.encoder_options)

    def terms(self, student: Encoder) -> EncodingPlan:
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
    from mimo_plugin.collections.jsonlines import DistinctDocs
    from mimo_plugin.collections.pool import load_pool

    try:
        with chdir(work.directory):
            collection = load_pool(work.collections, fields=work.fields, pooled=work.pooled)
            if work.repeated:
                collection = DistinctDocs(collection, work.repeated)
            for shard, docs in chunks(collection, shards, missing):
                yield texts_row(shard, docs)
    except Exception as error:
        yield trouble_row(error)


class RayEncoder:
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
