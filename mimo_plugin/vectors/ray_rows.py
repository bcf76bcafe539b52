"""What travels between the machines: a shard a row, first its texts, then its vectors, or what went wrong."""

import json
import socket
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from mimo_plugin import errors
from mimo_plugin.collections import Doc
from mimo_plugin.errors import EnvironmentProblem, MimoError
from mimo_plugin.vectors.shards import VectorBatch

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
