"""What a text goes through: a model of sentence-transformers with its tokenizer, and what runs it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from mimo_plugin.encoder.batching import Features, Runner, Text, TorchRunner

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# A task may have a length of its own, which goes before the model's.
_OWN_LENGTHS = ("query_length", "document_length")
# Of static embeddings, which have no bound, it is what manifests say.
_LONGEST = 2**31 - 1


class TorchSide:
    """The modules that queries or documents go through, run by torch or by a graph that was made of them.

    Attributes:
        runner: torch where none is given.
        normalizes_cut: vectors of which only the first components count are normalised again.
    """

    def __init__(self, model: "SentenceTransformer", runner: Runner | None = None) -> None:
        self.model = model
        self.runner = runner or TorchRunner(model)
        self.normalizes_cut = False

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return int(self.model.get_embedding_dimension())

    @property
    def whole_dimension(self) -> int:
        """Of the vectors that the modules give, before a checkpoint's `truncate_dim` cuts them."""
        with self.model.truncate_embeddings(None):
            return self.dimension

    @property
    def is_cut(self) -> bool:
        """Whether only the first components of a vector count."""
        return self.model.truncate_dim is not None and self.dimension < self.whole_dimension

    @property
    def normalizes(self) -> bool:
        """Whether vectors have length 1."""
        return normalizes(self.model) and (self.normalizes_cut or not self.is_cut)

    @property
    def pooling(self) -> str | None:
        """The pooling's name; None where the model does not pool in a module of its own."""
        modes = (getattr(module, "pooling_mode", None) for module in self.model)
        return next((mode if isinstance(mode, str) else "+".join(mode) for mode in modes if mode), None)

    @cached_property
    def fingerprint(self) -> str:
        """See `fingerprint.fingerprint`."""
        from mimo_plugin.encoder.fingerprint import fingerprint

        return fingerprint(self.model)

    def tokenise(self, texts: Sequence[Text], prompt: str, task: str | None) -> Features:
        """Features of texts; `task` is "query" or "document"."""
        import torch

        # A model that is being trained may be encoded with in between.
        self.model.eval()
        features = self.model.preprocess(list(texts), prompt=prompt, task=task)
        return {
            name: value.numpy() if isinstance(value, torch.Tensor) else value
            for name, value in features.items()
        }

    def max_length(self, task: str) -> int:
        """Longest text in tokens."""
        own = getattr(self.model[0], f"{task}_length", None)
        return int(min(own or self.model.max_seq_length, _LONGEST))

    @contextmanager
    def cut_to(self, max_length: int | None, task: str) -> Iterator[None]:
        """Cuts texts to so many tokens meanwhile; None leaves it as it is."""
        before = self.model.max_seq_length
        if max_length is None or max_length == self.max_length(task) or not math.isfinite(before):
            yield
            return
        own = [getattr(self.model[0], name, None) for name in _OWN_LENGTHS]
        most = capacity(self.model)
        self.limit(max_length if most is None else min(max_length, most), None, None)
        try:
            yield
        finally:
            self.limit(before, *own)

    def limit(self, length: int, *own: int | None) -> None:
        """Cuts texts to so many tokens; `own` are the lengths of queries and documents, None for no other."""
        self.model.max_seq_length = length
        for name, value in zip(_OWN_LENGTHS, own, strict=True):
            if hasattr(self.model[0], name):
                setattr(self.model[0], name, value)

    def affordable(self, work: int) -> int:
        """The tokens that can be encoded for so much work, in parameters times tokens, without embeddings."""
        import torch

        tables = sum(
            module.weight.numel() for module in self.model.modules() if isinstance(module, torch.nn.Embedding)
        )
        parameters = sum(parameter.numel() for parameter in self.model.parameters()) - tables
        return int(work // max(parameters, 1))


def normalizes(model: "SentenceTransformer") -> bool:
    """Whether the last module makes the length of every vector 1."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    last, key = next(reversed(model._modules.values())), "sentence_embedding"
    return isinstance(last, Normalize) and getattr(last, "module_output_name", key) == key


def capacity(model: "SentenceTransformer") -> int | None:
    """The most tokens that the model's positions allow, its own maximum where its config says nothing; None
    where neither does."""
    config, own = model.config, model.max_seq_length
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None and hasattr(config, "get_text_config"):
        positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not positions or positions < 0:  # XLNet's config says -1
        return None if no_limit(own) else int(own)
    return int(positions) - _first_position(model)


def no_limit(length: int | None) -> bool:
    """Whether a tokenizer's maximum is what transformers puts where none was given."""
    return length is None or length > 10**9


def _first_position(model: "SentenceTransformer") -> int:
    """The position of a text's first token: RoBERTa's kind counts from the padding's index + 1 on."""
    import torch

    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and isinstance(table, torch.nn.Embedding):
            return padding + 1
    return 0
