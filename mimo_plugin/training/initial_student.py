"""The student that training starts from: a checkpoint made ready to be trained, or a new one."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mimo_plugin import checkpoint as checkpoint_files
from mimo_plugin import packaged
from mimo_plugin.errors import ModelError
from mimo_plugin.training.fresh_student import DEFAULT_MAX_LENGTH, PREFIX, create_student

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# The head that a checkpoint's config names, and what such a checkpoint is.
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
    vocab_size: int | None = None,
    pooling: str | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    device: str | None = None,
) -> "SentenceTransformer":
    """A student: encoder, pooling, L2-normalisation.

    A checkpoint keeps its pooling, prompts and length; a plain Hugging Face encoder gets mean pooling. What
    takes no part in the vectors (BERT's "pooler") is frozen.

    Args:
        spec: `new:SIZE`, a directory, a hub id or a packaged checkpoint.
        texts: (language, text) pairs for a new student's tokenizer, read only for one.
        seed: of all weights that the checkpoint does not hold.
        max_length: longest text in tokens; None is the checkpoint's own, 256 for a new student.
        vocab_size: of a new student, in place of its size's own.
        pooling: in place of a checkpoint's own, or of the mean.
        query_prompt, document_prompt: in place of a checkpoint's own; "" is none. They become the student's.
        device: torch device; None is the fastest that is there.

    Raises:
        ModelError: there is no such checkpoint, it cannot be loaded, or is no text encoder.
        DataError, EnvironmentProblem, UsageError: as `create_student` and `Student.load`.
    """
    import torch

    device = checkpoint_files.check_device(device)
    if spec.startswith(PREFIX):
        student = create_student(
            spec,
            texts,
            vocab_size=vocab_size,
            max_length=DEFAULT_MAX_LENGTH if max_length is None else max_length,
            pooling=pooling or "mean",
            seed=seed,
            device=device,
        )
    else:
        path = packaged.resolve(spec)
        with torch.random.fork_rng(devices=[]):
            # A pooler that the checkpoint does not hold is drawn at random.
            torch.manual_seed(seed)
            student = checkpoint_files.load_model(path, spec, device)
        own_modules = checkpoint_files.has_modules_file(path)
        require_encoder(student, spec, own_modules)
        checkpoint_files.apply_overrides(
            student, own_modules, pooling=pooling, normalize=True, max_length=max_length
        )
    for name, prompt in (("query", query_prompt), ("document", document_prompt)):
        if prompt is not None:
            student.prompts[name] = prompt
    _freeze_pooler(student)
    return student


def require_encoder(model: "SentenceTransformer", spec: str, own_modules: bool) -> None:
    """Raises a ModelError where a loaded checkpoint is no encoder of texts.

    Args:
        own_modules: whether it is in sentence-transformers layout, so that its files say how it encodes.
    """
    what = _what_else(model, own_modules)
    if what is not None:
        raise ModelError(
            f"{spec} is {what}, not an encoder: --student must be an encoder such as "
            "FacebookAI/xlm-roberta-base, a sentence-transformers checkpoint of one, or a new one, "
            "e.g. new:mini"
        )


def _what_else(model: "SentenceTransformer", own_modules: bool) -> str | None:
    """What a checkpoint is that is no encoder; None where it is one."""
    from transformers import MODEL_MAPPING

    if has_routes(model):
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


def has_routes(model: "SentenceTransformer") -> bool:
    """Whether queries and documents may go through different modules."""
    from sentence_transformers.base.modules import Router

    return any(isinstance(module, Router) for module in model)


def _freeze_pooler(model: "SentenceTransformer") -> None:
    """Parameters without a gradient would stop a training over several processes."""
    pooler = getattr(model.transformers_model, "pooler", None)
    if pooler is not None:
        pooler.requires_grad_(False)
