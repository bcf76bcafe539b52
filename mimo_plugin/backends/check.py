"""A graph beside torch, on real texts, before its vectors are used for the first time on a processor."""

import json
import platform
from collections.abc import Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.backends.runner import Runner, TorchRunner
from mimo_plugin.backends.running import Texts, encode
from mimo_plugin.errors import ModelError
from mimo_plugin.files import write_text
from mimo_plugin.manifests import Record

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Largest difference of any component of a float32 vector.
TOLERANCE = 1e-5
# Where other number formats round, vectors must still point the same way.
LEAST_COSINE = {"bfloat16": 0.98, "int8": 0.8}


class Verdict(Record):
    """Attributes:
    difference: largest difference of a component between the graph's vectors and torch's in float32.
    cosine: smallest cosine between two vectors of the same text.
    """

    difference: float
    cosine: float

    def problem(self, dtype: str) -> str | None:
        """Why the graph is not to be used, or None."""
        if dtype in LEAST_COSINE:
            least = LEAST_COSINE[dtype]
            if self.cosine >= least:
                return None
            return f"a cosine of {self.cosine:.3f} to torch's float32 vectors, expected {least} at least"
        if self.difference <= TOLERANCE:
            return None
        return f"its vectors differ from torch's by {self.difference:.1e}, expected {TOLERANCE:.0e} at most"


class CheckFailed(ModelError):
    """A graph's vectors are not the model's."""


def require_same(model: "SentenceTransformer", runner: Runner, dtype: str, directory: Path) -> Verdict:
    """Compares once a processor; the verdict stays beside the graph.

    Raises:
        CheckFailed: the vectors differ by more than they may.
    """
    path = directory / f"check-{dtype}-{_processor()}.json"
    try:
        verdict = Verdict.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        verdict = compare(model, runner)
        write_text(path, verdict.model_dump_json() + "\n")
    problem = verdict.problem(dtype)
    if problem is not None:
        raise CheckFailed(problem)
    return verdict


def compare(model: "SentenceTransformer", runner: Runner) -> Verdict:
    """Encodes real texts with both."""
    import numpy as np

    texts = list(_texts(int(model.max_seq_length or 512)))
    source = Texts(texts, [len(text) for text in texts], prompt="", batch_size=8)
    expected, found = encode(model, TorchRunner(model), source), encode(model, runner, source)
    if not np.isfinite(found).all():
        return Verdict(difference=float(np.finfo(np.float32).max), cosine=-1.0)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (expected * found).sum(axis=1) / np.maximum(norms, np.finfo(np.float32).tiny)
    return Verdict(difference=float(np.abs(expected - found).max()), cosine=float(cosines.min()))


def _texts(longest: int) -> Iterator[str]:
    """Of every packaged language a short text and a long one, of different descriptions; nothing at all; and
    one text of as many tokens as the model reads."""
    from mimo_plugin.collections.packaged import LANGUAGES, descriptions

    for lang, row in zip(LANGUAGES, islice(descriptions(), len(LANGUAGES)), strict=False):
        yield from (texts[lang] for texts in (row.short, row.long) if lang in texts)
    yield ""
    yield "word " * longest


def _processor() -> str:
    """Identity of the processor's kind: another one may compute differently."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        kind = [platform.machine(), platform.processor()]
    return sha256(json.dumps(kind).encode()).hexdigest()[:16]
