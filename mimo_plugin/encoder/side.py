"""One side of an encoder: the modules of queries or documents, with tokenizer and runner."""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from mimo_plugin.core.artifact import Record
from mimo_plugin.encoder.batching import Features, Runner, Text, TorchRunner

if TYPE_CHECKING:
    import tokenizers
    from sentence_transformers import SentenceTransformer

    from mimo_plugin.encoder.export import GraphRunner

# Tasks may have their own maximum lengths, which win over the model's.
_OWN_LENGTHS = ("query_length", "document_length")
# Static embeddings have no maximum length; manifests say this number.
_LONGEST = 2**31 - 1


class TorchSide:
    """The modules that queries or documents go through, run by torch or as a graph.

    Attributes:
        runner: torch by default.
        normalizes_cut: vectors are normalised again after they are cut to their first components.
    """

    def __init__(self, model: "SentenceTransformer", runner: Runner | None = None) -> None:
        self.model = model
        self.runner = runner or TorchRunner(model)
        self.normalizes_cut = False

    @property
    def dimension(self) -> int:
        """Number of components of a vector."""
        return int(self.model.get_embedding_dimension())

    @property
    def whole_dimension(self) -> int:
        """Number of components before `truncate_dim` cuts the vectors."""
        with self.model.truncate_embeddings(None):
            return self.dimension

    @property
    def is_cut(self) -> bool:
        """Whether `truncate_dim` cuts the vectors."""
        return self.model.truncate_dim is not None and self.dimension < self.whole_dimension

    @property
    def normalizes(self) -> bool:
        """Whether vectors have length 1."""
        return normalizes(self.model) and (self.normalizes_cut or not self.is_cut)

    @property
    def pooling(self) -> str | None:
        """Name of the pooling, or None for a model without a pooling module."""
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

        # The model may be in training mode, between two steps of a trainer.
        self.model.eval()
        features = self.model.preprocess(list(texts), prompt=prompt, task=task)
        return {
            name: value.numpy() if isinstance(value, torch.Tensor) else value
            for name, value in features.items()
        }

    def max_length(self, task: str | None) -> int:
        """Longest text in tokens."""
        own = getattr(self.model[0], f"{task}_length", None)
        return int(min(own or self.model.max_seq_length, _LONGEST))

    @contextmanager
    def cut_to(self, max_length: int | None, task: str | None = None) -> Iterator[None]:
        """Cuts texts to `max_length` tokens meanwhile; None changes nothing.

        Static embeddings always read a whole text.
        """
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
        """Sets the maximum length in tokens, and those of queries and documents, None for the same."""
        self.model.max_seq_length = length
        for name, value in zip(_OWN_LENGTHS, own, strict=True):
            if hasattr(self.model[0], name):
                setattr(self.model[0], name, value)

    def affordable(self, work: int) -> int:
        """Tokens that can be encoded with `work` = tokens x parameters, embedding tables not counted."""
        import torch

        tables = sum(
            module.weight.numel() for module in self.model.modules() if isinstance(module, torch.nn.Embedding)
        )
        parameters = sum(parameter.numel() for parameter in self.model.parameters()) - tables
        return int(work // max(parameters, 1))


class Facts(Record):
    """What torch and sentence-transformers say of an encoder that ran as a graph.

    Attributes:
        checkpoint: its name in `warnings`.
        graph: name of the graph's directory.
        dtype, dtype_reason: see `Encoder`.
        capacity: the most tokens that its positions allow, or None for no limit.
        workers: batches that are computed at the same time.
        warnings: logged while it was loaded.
    """

    checkpoint: str
    graph: str
    dtype: str
    dtype_reason: str | None
    fingerprint: str
    dimension: int
    max_length: int
    capacity: int | None
    pooling: str | None
    normalizes: bool
    normalizes_cut: bool
    prompts: dict[str, str]
    default_prompt_name: str | None
    workers: int
    warnings: tuple[str, ...]


class GraphSide:
    """A graph with the checkpoint's own tokenizer: a `TorchSide` without torch."""

    def __init__(self, facts: Facts, tokenizer: "tokenizers.Tokenizer", runner: "GraphRunner") -> None:
        self.facts = facts
        self.runner = runner
        self.dimension, self.fingerprint = facts.dimension, facts.fingerprint
        self.normalizes, self.normalizes_cut = facts.normalizes, facts.normalizes_cut
        self.pooling = facts.pooling
        self._tokenizer = tokenizer
        self.limit(facts.max_length)

    def tokenise(self, texts: Sequence[Text], prompt: str, task: str | None) -> Features:
        """As `SentenceTransformer.preprocess`, where the tokenizer alone decides it."""
        import numpy as np

        put_before = [
            prompt + text if isinstance(text, str) else (prompt + text[0], *text[1:]) for text in texts
        ]
        found = self._tokenizer.encode_batch(put_before)
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        return {
            name: np.array([getattr(one, columns[name]) for one in found], dtype=np.int64)
            for name in self.runner.inputs
        }

    def max_length(self, task: str | None) -> int:
        """Longest text in tokens."""
        return self._max_length

    @contextmanager
    def cut_to(self, max_length: int | None, task: str | None = None) -> Iterator[None]:
        """Cuts texts to `max_length` tokens meanwhile; None changes nothing."""
        before = self._max_length
        self.limit(min(max_length or before, self.facts.capacity or sys.maxsize))
        try:
            yield
        finally:
            self.limit(before)

    def limit(self, length: int) -> None:
        """Sets the maximum length in tokens."""
        self._max_length = length
        self._tokenizer.enable_truncation(**{**self._tokenizer.truncation, "max_length": length})


def normalizes(model: "SentenceTransformer") -> bool:
    """Whether the last module normalises the vectors to length 1."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    last, key = next(reversed(model._modules.values())), "sentence_embedding"
    return isinstance(last, Normalize) and getattr(last, "module_output_name", key) == key


def capacity(model: "SentenceTransformer") -> int | None:
    """The most tokens that the model's positions allow, else its own maximum, else None."""
    config, own = model.config, model.max_seq_length
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None and hasattr(config, "get_text_config"):
        positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not positions or positions < 0:  # XLNet's config says -1
        return None if no_limit(own) else int(own)
    return int(positions) - _first_position(model)


def no_limit(length: int | None) -> bool:
    """Whether a maximum length is None or transformers' huge default."""
    return length is None or length > 10**9


def _first_position(model: "SentenceTransformer") -> int:
    """The position of a text's first token; RoBERTa-like models count from the padding index + 1."""
    import torch

    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and isinstance(table, torch.nn.Embedding):
            return padding + 1
    return 0
