"""A graph beside torch, on real texts, before its vectors are used for the first time on a processor."""

import json
import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager
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

# Longest text that is compared, in tokens, and what one side of the comparison may cost, in parameters times
# tokens: seconds on a few cores.
LONGEST, WORK = 512, 10**11
# Largest difference of any component of a float32 vector.
TOLERANCE = 1e-5
# Where other number formats round, vectors must still point the same way.
LEAST_COSINE = {"bfloat16": 0.98, "int8": 0.8}
# The difference of vectors that hold NaN or infinity; JSON has neither.
_NOT_FINITE = 3e38


class Verdict(Record):
    """Attributes:
    difference: largest difference of a component between the graph's vectors and torch's in float32.
    cosine: smallest cosine between two vectors of the same text.
    """

    difference: float
    cosine: float

    def problem(self, dtype: str) -> str | None:
        """Why the graph is not to be used, or None."""
        if self.difference >= _NOT_FINITE:
            return "its vectors hold NaN or infinity, and torch's do not"
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
    """Encodes real texts with both.

    Raises:
        CheckFailed: the model's own vectors hold NaN or infinity.
    """
    import numpy as np

    budget = affordable(model, WORK)
    longest = int(min(LONGEST, model.max_seq_length, max(budget // 2, 2)))
    texts = list(_texts(longest, budget - longest))
    source = Texts(texts, [len(text) for text in texts], prompt="", batch_size=8)
    with reading_at_most(model, longest):
        expected, found = encode(model, TorchRunner(model), source), encode(model, runner, source)
    if not np.isfinite(expected).all():
        raise CheckFailed("the model's own vectors, as torch computes them, hold NaN or infinity")
    if not np.isfinite(found).all():
        return Verdict(difference=float(np.finfo(np.float32).max), cosine=-1.0)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (expected * found).sum(axis=1) / np.maximum(norms, np.finfo(np.float32).tiny)
    # A text without tokens may have a vector of zeros, which points nowhere.
    cosines = np.where(np.abs(expected - found).max(axis=1) == 0, 1.0, cosines)
    return Verdict(difference=float(np.abs(expected - found).max()), cosine=float(cosines.min()))


def affordable(model: "SentenceTransformer", work: int) -> int:
    """The tokens that can be encoded for so much work, in parameters times tokens, without embeddings."""
    import torch

    tables = sum(
        module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Embedding)
    )
    parameters = sum(parameter.numel() for parameter in model.parameters()) - tables
    return int(work // max(parameters, 1))


@contextmanager
def reading_at_most(model: "SentenceTransformer", tokens: int) -> Iterator[None]:
    """Texts are cut to that many tokens meanwhile, but for static embeddings, which read them whole."""
    before = model.max_seq_length
    if before is not None and math.isinf(before):
        yield
        return
    model.max_seq_length = tokens
    try:
        yield
    finally:
        model.max_seq_length = before


def _texts(longest: int, budget: int) -> Iterator[str]:
    """One text of as many tokens as are read; nothing at all; and of every packaged language a short text and
    a long one, of different descriptions, until the budget of tokens is spent, but one at least."""
    from mimo_plugin.collections.packaged import LANGUAGES, descriptions

    yield "word " * longest
    yield ""
    for lang, row in zip(LANGUAGES, islice(descriptions(), len(LANGUAGES)), strict=False):
        for text in (texts[lang] for texts in (row.short, row.long) if lang in texts):
            yield text
            # Two characters a token, so that languages of one character a token do not cost much more.
            budget -= min(len(text) // 2, longest)
            if budget <= 0:
                return


def _processor() -> str:
    """Identity of the processor's kind: another one may compute differently."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        kind = [platform.machine(), platform.processor()]
    return sha256(json.dumps(kind).encode()).hexdigest()[:16]
