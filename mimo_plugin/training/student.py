"""The student: a checkpoint, or a new encoder with a tokenizer trained on the given texts."""

import hashlib
import heapq
import io
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mimo_plugin.core.environment import without_model_bars
from mimo_plugin.core.errors import DataError, ModelError, UsageError
from mimo_plugin.encoder import checkpoint as checkpoint_files
from mimo_plugin.encoder import packaged

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer
    from transformers import PreTrainedTokenizerFast

# As for XLM-R's vocabulary: 1 leaves the languages' shares as they are, 0 makes them equal.
_SMOOTHING = 0.3
# Longer texts are truncated, so that no text fills the whole sample.
_TEXT_CHARACTERS = 2_000


def balanced_sample(texts: Iterable[tuple[str, str]], characters: int, seed: int) -> list[str]:
    """Distinct texts drawn uniformly within each language, at most about `characters` in all.

    A language's share of the sample is proportional to its share of the texts' characters to the power of
    0.3; what a small language cannot fill goes to the others. Memory is bounded by `characters` a language.

    Args:
        texts: (language, text) pairs, read once.
    """
    languages: dict[str, _Language] = {}
    for lang, text in texts:
        text = text[:_TEXT_CHARACTERS]
        if text.strip():
            languages.setdefault(lang, _Language(characters)).offer(_priority(seed, text), text)
    budgets = _budgets({lang: language.seen for lang, language in languages.items()}, characters)
    return [text for lang in sorted(languages) for text in languages[lang].first(budgets[lang])]


class _Language:
    """The texts of one language with the smallest priorities, up to a number of characters."""

    def __init__(self, characters: int) -> None:
        self.seen = 0
        self._limit = characters
        self._kept = 0
        self._heap: list[tuple[int, str]] = []
        self._priorities: set[int] = set()

    def offer(self, priority: int, text: str) -> None:
        if priority in self._priorities:
            return
        self.seen += len(text)
        if self._kept >= self._limit and -self._heap[0][0] < priority:
            return
        heapq.heappush(self._heap, (-priority, text))
        self._priorities.add(priority)
        self._kept += len(text)
        while self._kept - len(self._heap[0][1]) >= self._limit:
            dropped, dropped_text = heapq.heappop(self._heap)
            self._priorities.remove(-dropped)
            self._kept -= len(dropped_text)

    def first(self, characters: int) -> list[str]:
        chosen, used = [], 0
        for _, text in sorted(self._heap, reverse=True):
            if used >= characters:
                break
            chosen.append(text)
            used += len(text)
        return chosen


def _budgets(seen: dict[str, int], characters: int) -> dict[str, int]:
    """Characters per language: shares by smoothed size, limited to what the language has."""
    budgets: dict[str, int] = {}
    open_languages, left = dict(seen), characters
    while open_languages:
        weights = {lang: size**_SMOOTHING for lang, size in open_languages.items()}
        total = sum(weights.values())
        full = [lang for lang, size in open_languages.items() if size <= left * weights[lang] / total]
        if not full:
            return budgets | {lang: int(left * weights[lang] / total) for lang in open_languages}
        for lang in full:
            budgets[lang] = open_languages.pop(lang)
            left -= budgets[lang]
    return budgets


def _priority(seed: int, text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=str(seed).encode())
    return int.from_bytes(digest.digest())


# Ids 0 to 3 and the last one, as XLM-R has them.
_BOS, _PAD, _EOS, _UNK, _MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
# About a quarter of a minute on one core; more characters hardly change the vocabulary.
_SAMPLE_CHARACTERS = 4_000_000
# The rarest characters are spelled in bytes: all Chinese ones would fill a small vocabulary.
_COVERAGE = 0.9998
# With these, the text "<0x41>" always consists of normal pieces.
_ALWAYS = "".join(map(chr, range(0x21, 0x7F)))
# Below every sum of real scores, so that the text "<0x41>" is not read as a byte.
_BYTE_SCORE = -1000.0


def train_tokenizer(
    texts: Iterable[tuple[str, str]], *, vocab_size: int, max_length: int, seed: int
) -> "PreTrainedTokenizerFast":
    """Trains a tokenizer on a seeded sample of (language, text) pairs, balanced over languages.

    The same texts and seed give the same tokenizer, whatever the texts' order. Characters that are not in the
    vocabulary are spelled in bytes, so that no text needs `<unk>`.

    Args:
        vocab_size: of the whole vocabulary, special tokens and 256 bytes included; few texts give fewer.
        max_length: longest text in tokens.

    Raises:
        DataError: there is no text.
        UsageError: the vocabulary is too small for the texts' characters.
    """
    from transformers import PreTrainedTokenizerFast

    sample = balanced_sample(texts, _SAMPLE_CHARACTERS, seed)
    if not sample:
        raise DataError("no text to train the new student's tokenizer on: all texts are empty")
    return PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(_learn(sample, vocab_size)),
        bos_token=_BOS,
        eos_token=_EOS,
        cls_token=_BOS,
        sep_token=_EOS,
        pad_token=_PAD,
        unk_token=_UNK,
        mask_token=_MASK,
        model_max_length=max_length,
    )


def _learn(sample: list[str], vocab_size: int) -> list[tuple[str, float]]:
    """(piece, log probability) in the order of ids."""
    import sentencepiece

    normalizer = _normalizer()
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(normalizer.normalize_str(text) for text in sample),
            model_writer=model,
            model_type="unigram",
            # The mask is added afterwards.
            vocab_size=vocab_size - 1,
            hard_vocab_limit=False,
            character_coverage=_COVERAGE,
            required_chars=_ALWAYS,
            byte_fallback=True,
            normalization_rule_name="identity",
            bos_id=0,
            pad_id=1,
            eos_id=2,
            unk_id=3,
            max_sentence_length=1 << 20,
            # With more threads, sums depend on their order.
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UsageError(
            f"no tokenizer of {vocab_size} tokens can be trained on these texts: {_reason(error)}; give a "
            "larger vocabulary, or more texts"
        ) from None
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    scores = [
        (pieces.id_to_piece(number), _BYTE_SCORE if pieces.is_byte(number) else pieces.get_score(number))
        for number in range(pieces.get_piece_size())
    ]
    return [*scores, (_MASK, 0.0)]


def _reason(error: RuntimeError) -> str:
    """SentencePiece's message without its condition in brackets."""
    reason = " ".join(str(error).split()).rpartition("] ")[2]
    return reason.partition(". Increase")[0][:200].removesuffix(".")


def _tokenizer(scores: list[tuple[str, float]]) -> "Tokenizer":
    """The same segmentation as SentencePiece's, in the form that transformers reads."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram(scores, unk_id=3, byte_fallback=True))
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (_BOS, _PAD, _EOS, _UNK, _MASK)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A {_EOS}",
        pair=f"{_BOS} $A {_EOS} {_EOS} $B {_EOS}",
        special_tokens=[(_BOS, 0), (_EOS, 2)],
    )
    return tokenizer


def _normalizer() -> "Normalizer":
    """SentencePiece's nmt_nfkc: compatible forms, no control characters, single spaces."""
    from tokenizers import Regex, normalizers

    return normalizers.Sequence(
        [
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )


PREFIX = "new:"
DEFAULT_MAX_LENGTH = 256


@dataclass(frozen=True)
class Size:
    """Size of a new student.

    Attributes:
        hidden: dimension of the vectors; the feed-forward layers are four times as wide.
        vocab_size: special tokens included.
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
    """The size that `new:NAME` stands for."""
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
    seed: int,
    layers: int | None = None,
    vocab_size: int | None = None,
    max_length: int = DEFAULT_MAX_LENGTH,
    pooling: str = "mean",
    device: str = "cpu",
) -> "SentenceTransformer":
    """A student with random weights: encoder, pooling, L2-normalisation.

    The same texts, options and seed give the same student; torch's random state is not changed. There is no
    dropout: models of this size underfit, and on a CPU its random numbers take longer than the rest.

    Args:
        size: "tiny", "mini" or "small", with or without `new:`.
        texts: (language, text) pairs that the tokenizer is trained on, read once.
        seed: of weights and tokenizer.
        layers, vocab_size: replace the size's own.
        max_length: longest text in tokens, special tokens included.
        pooling: "mean", "cls" or "lasttoken".

    Raises:
        DataError: there is no text.
        UsageError: an unknown size, or a length or vocabulary that is too small.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import XLMRobertaConfig, XLMRobertaModel

    preset = parse_size(size)
    preset = replace(preset, layers=layers or preset.layers)
    if max_length < 3:
        raise UsageError(f"a student's texts have at most {max_length} tokens: expected at least 3")
    vocab_size = vocab_size or preset.vocab_size
    tokenizer = train_tokenizer(texts, vocab_size=vocab_size, max_length=max_length, seed=seed)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=preset.hidden,
        num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads,
        intermediate_size=4 * preset.hidden,
        # Positions are counted from pad_token_id + 1 on.
        max_position_embeddings=max_length + 2,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-5,
    )
    with tempfile.TemporaryDirectory(prefix="mimo-student-") as directory, without_model_bars():
        # Loading from files gives exactly what a checkpoint of it will give.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            XLMRobertaModel(config).save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        transformer = Transformer(directory, max_seq_length=max_length)
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling), Normalize()]
    return SentenceTransformer(modules=modules, device=device)


# Head in a checkpoint's config -> kind of model.
_HEADS = {
    "ForSequenceClassification": "a classifier or cross-encoder",
    "ForTokenClassification": "a tagger",
    "ForQuestionAnswering": "a reader",
    "ForMultipleChoice": "a classifier",
}
_GENERATOR = "ForCausalLM"


def load_or_create(
    spec: str,
    texts: Iterable[tuple[str, str]],
    *,
    seed: int,
    max_length: int | None = None,
    layers: int | None = None,
    vocab_size: int | None = None,
    pooling: str | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    device: str | None = None,
) -> "SentenceTransformer":
    """A student: encoder, pooling, L2-normalisation.

    A checkpoint keeps its pooling, prompts and length; a plain Hugging Face encoder gets mean pooling. Unused
    weights (BERT's "pooler") are frozen.

    Args:
        spec: `new:SIZE`, a directory, a hub id or a packaged checkpoint.
        texts: (language, text) pairs for a new student's tokenizer, read only for one.
        seed: of all weights that the checkpoint does not hold.
        max_length: longest text in tokens; None is the checkpoint's own, 256 for a new student.
        layers, vocab_size: of a new student; replace its size's own.
        pooling: replaces a checkpoint's own, or the mean.
        query_prompt, document_prompt: replace a checkpoint's own, and are saved with it; "" is none.
        device: torch device; None is the fastest available.

    Raises:
        ModelError: the checkpoint does not exist, cannot be loaded, or is not a text encoder.
        DataError, EnvironmentProblem, UsageError: as `create_student` and `Encoder`.
    """
    import torch

    device = checkpoint_files.check_device(device)
    if spec.startswith(PREFIX):
        student = create_student(
            spec,
            texts,
            layers=layers,
            vocab_size=vocab_size,
            max_length=DEFAULT_MAX_LENGTH if max_length is None else max_length,
            pooling=pooling or "mean",
            seed=seed,
            device=device,
        )
    else:
        path = packaged.resolve(spec)
        with torch.random.fork_rng(devices=[]):
            # A pooler that is missing in the checkpoint gets random weights.
            torch.manual_seed(seed)
            student = checkpoint_files.load_model(path, spec, device)
        own_modules = checkpoint_files.has_modules_file(path)
        if (kind := _other_kind(student, own_modules)) is not None:
            raise ModelError(
                f"{spec} is {kind}, not an encoder: --student must be an encoder such as "
                "FacebookAI/xlm-roberta-base, a sentence-transformers checkpoint of one, or a new one, "
                "e.g. new:mini"
            )
        checkpoint_files.apply_overrides(
            student,
            own_modules,
            pooling=pooling,
            normalize=True,
            max_length=max_length,
            checkpoint=spec,
        )
    for name, prompt in (("query", query_prompt), ("document", document_prompt)):
        if prompt is not None:
            student.prompts[name] = prompt
    pooler = getattr(student.transformers_model, "pooler", None)
    if pooler is not None:
        # Parameters without a gradient would stop training in several processes.
        pooler.requires_grad_(False)
    return student


def _other_kind(model: "SentenceTransformer", own_modules: bool) -> str | None:
    """The kind of a model that is not a text encoder; None for one.

    Args:
        own_modules: whether it is in sentence-transformers layout, so that its files say how it encodes.
    """
    from transformers import MODEL_MAPPING

    if checkpoint_files.has_routes(model):
        return "two encoders, one of queries and one of documents (Router)"
    if model.transformers_model is None:
        return "a table of word vectors"
    config = model.config
    architectures = getattr(config, "architectures", None) or []
    # sentence-transformers takes T5's encoder alone, which plain transformers would not load again.
    whole = MODEL_MAPPING.get(type(config), None)
    halved = isinstance(whole, type) and not isinstance(model.transformers_model, whole)
    if halved or getattr(config, "is_encoder_decoder", False):
        return f"an encoder-decoder ({config.model_type})"
    for architecture in architectures:
        for head, what in _HEADS.items():
            if architecture.endswith(head):
                return f"{what} ({architecture})"
        if architecture.endswith(_GENERATOR) and not own_modules:
            return f"a text generator ({architecture})"
    if set(model.modalities) != {"text"} or getattr(config, "hidden_size", None) is None:
        return f"a {config.model_type} model, which does not read texts alone"
    try:
        if "sentence_embedding" not in model(model.preprocess(["text"])):
            return f"a {config.model_type} model without pooling (its modules.json names none)"
        model.encode(["text"], show_progress_bar=False)
    except Exception as error:
        return f"a {config.model_type} model that cannot read a text ({type(error).__name__})"
    return None
