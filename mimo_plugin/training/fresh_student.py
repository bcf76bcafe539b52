"""Students from scratch, `new:tiny|mini|small`: XLM-R's architecture, random weights, a new tokenizer."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.errors import UsageError
from mimo_plugin.quiet import without_model_bars
from mimo_plugin.training.fresh_tokenizer import train_tokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PREFIX = "new:"
DEFAULT_MAX_LENGTH = 256


@dataclass(frozen=True)
class Size:
    """Attributes:
    layers: transformer layers.
    hidden: dimension of the vectors; the feed-forward layers are four times as wide.
    heads: attention heads.
    vocab_size: tokens of the vocabulary, special tokens included.
    """

    layers: int
    hidden: int
    heads: int
    vocab_size: int


SIZES: Mapping[str, Size] = {
    "tiny": Size(layers=1, hidden=128, heads=2, vocab_size=16_000),
    "mini": Size(layers=2, hidden=256, heads=4, vocab_size=32_000),
    "small": Size(layers=6, hidden=384, heads=6, vocab_size=64_000),
}


def parse_size(spec: str) -> Size:
    """The size that `new:NAME` stands for.

    Raises:
        UsageError: there is none of that name.
    """
    name = spec.removeprefix(PREFIX)
    if name not in SIZES:
        raise UsageError(
            f"{spec}: unknown size of a new student {name!r}, expected one of {', '.join(SIZES)}"
        )
    return SIZES[name]


def create_student(
    size: str,
    texts: Iterable[tuple[str, str]],
    *,
    vocab_size: int | None = None,
    max_length: int = DEFAULT_MAX_LENGTH,
    pooling: str = "mean",
    seed: int,
    overrides: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> "SentenceTransformer":
    """A student with random weights: encoder, pooling, L2-normalisation.

    The same texts, options and seed give the same student; torch's own random numbers are left alone. There
    is no dropout: models of this size underfit, and on a CPU its random numbers take longer than the rest.

    Args:
        size: "tiny", "mini" or "small", with or without `new:`.
        texts: (language, text) pairs that the tokenizer is trained on, read once.
        vocab_size: in place of the size's own.
        max_length: longest text in tokens, special tokens included.
        pooling: "mean", "cls" or "lasttoken".
        seed: of weights and tokenizer.
        overrides: fields of `XLMRobertaConfig` in place of the size's own.

    Raises:
        DataError: there is no text.
        UsageError: an option does not make sense.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    preset = parse_size(size)
    if max_length < 3:
        raise UsageError(f"a student of {max_length} tokens reads nothing: at least 3 are needed")
    # Checked before the minutes that a tokenizer may take.
    _config(preset, vocab_size or preset.vocab_size, max_length, overrides)
    tokenizer = train_tokenizer(
        texts, vocab_size=vocab_size or preset.vocab_size, max_length=max_length, seed=seed
    )
    with tempfile.TemporaryDirectory(prefix="mimo-student-") as name, without_model_bars():
        # Loaded from files, it is exactly what a checkpoint of it will be.
        directory = Path(name)
        _random_model(_config(preset, len(tokenizer), max_length, overrides), seed).save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        transformer = Transformer(str(directory), max_seq_length=max_length)
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling), Normalize()]
    return SentenceTransformer(modules=modules, device=device)


def _config(preset: Size, vocab_size: int, max_length: int, overrides: Mapping[str, Any] | None) -> Any:
    from transformers import XLMRobertaConfig

    fields: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": preset.hidden,
        "num_hidden_layers": preset.layers,
        "num_attention_heads": preset.heads,
        "intermediate_size": 4 * preset.hidden,
        # Positions are counted from pad_token_id + 1 on.
        "max_position_embeddings": max_length + 2,
        "type_vocab_size": 1,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-5,
    }
    own = {"vocab_size", "max_position_embeddings", "bos_token_id", "pad_token_id", "eos_token_id"}
    unknown = sorted(name for name in overrides or {} if name in own or not hasattr(XLMRobertaConfig(), name))
    if unknown:
        raise UsageError(
            f"{', '.join(unknown)}: cannot be set for a new student; expected fields of XLMRobertaConfig "
            "such as num_hidden_layers, hidden_size, intermediate_size, hidden_act"
        )
    fields |= overrides or {}
    hidden, heads = fields["hidden_size"], fields["num_attention_heads"]
    if hidden % heads:
        raise UsageError(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    return XLMRobertaConfig(**fields)


def _random_model(config: Any, seed: int) -> Any:
    import torch
    from transformers import XLMRobertaModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return XLMRobertaModel(config)
