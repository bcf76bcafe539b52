"""Small encoders with random weights, in the layouts that checkpoints come in."""

import math
from collections import Counter
from pathlib import Path

TEXTS = [
    "Ein kurzer Satz über Suchmaschinen und viele Sprachen.",
    "A short sentence about search engines and many languages.",
    "Lyhyt lause hakukoneista ja monista kielistä.",
    "検索エンジンと多くの言語についての短い文。",
    "Короткое предложение о поисковых системах.",
]


def _pieces() -> list[tuple[str, float]]:
    """Letters and repeated pairs with log probabilities. Trained, they would differ in every process."""
    words = [f"▁{word}" for text in TEXTS for word in text.split()]
    parts = Counter(word[at : at + size] for word in words for size in (1, 2) for at in range(len(word)))
    kept = {part: count for part, count in sorted(parts.items()) if len(part) == 1 or count > 1}
    return [(part, math.log(count / sum(kept.values()))) for part, count in kept.items()]


def plain_xlmr(directory: Path, *, seed: int = 0, hidden: int = 32, positions: int = 66) -> Path:
    """A Hugging Face XLM-R checkpoint without sentence-transformers files; it reads positions - 2 tokens."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = [(token, 0.0) for token in special] + _pieces()
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=special.index("<unk>")))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=positions - 2,
    )
    torch.manual_seed(seed)
    config = XLMRobertaConfig(
        vocab_size=len(fast),
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=positions,
        type_vocab_size=1,
        pad_token_id=1,
    )
    XLMRobertaModel(config).save_pretrained(directory)
    fast.save_pretrained(directory)
    return directory


def sentence_transformer(
    directory: Path,
    base: Path,
    *,
    pooling: str = "mean",
    normalize: bool = True,
    prompts: dict[str, str] | None = None,
    max_length: int = 48,
) -> Path:
    """The same encoder in sentence-transformers layout."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(base), max_seq_length=max_length)
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling)]
    if normalize:
        modules.append(Normalize())
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save_pretrained(str(directory))
    return directory


def plain_decoder(directory: Path, *, positions: int = 64, **special: str) -> Path:
    """A Llama whose tokenizer adds no special tokens, so that an empty text has no token at all.

    Args:
        special: more of its tokenizer's settings, such as `pad_token` and `padding_side`.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["</s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", **special)
    fast.save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaModel(config).save_pretrained(directory)
    return directory
