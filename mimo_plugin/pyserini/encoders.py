"""Pyserini's document and query encoder for MIMO students. Importing it starts the JVM (`pyserini.java`)."""

import warnings
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from mimo_plugin.core.errors import UsageError
from mimo_plugin.pyserini.java import import_pyserini

import_pyserini()

from pyserini.encode import (  # noqa: E402
    DocumentEncoder,
    QueryEncoder,
    document_encoder_class_map,
    query_encoder_class_map,
)

from mimo_plugin.encoder.checkpoint import check_device  # noqa: E402
from mimo_plugin.encoder.encoder import Encoder, Text  # noqa: E402
from mimo_plugin.encoder.options import EncoderOptions  # noqa: E402

if TYPE_CHECKING:
    import numpy as np

ENCODER_CLASS = "mimo"

# Pyserini's names of pooling -> sentence-transformers' names
_POOLING = {"cls": "cls", "mean": "mean", "max": "max", "last": "lasttoken", "eos": "lasttoken"}

# Settings with the name of the encoder's option.
_AS_THEY_ARE = ("device", "batch_size", "max_length", "dimension", "known_prompts")


class EncoderSettings(TypedDict, total=False):
    """Keyword arguments of both classes; None is the checkpoint's own. Others of Pyserini are ignored.

    Attributes:
        device: torch device; None is the fastest.
        pooling, l2_norm: for a plain Hugging Face checkpoint. The sentence-transformers layout wins over
            them, because Pyserini derives them from the spelling of a path.
        prefix: put before each text (before a title) with a space, in place of the checkpoint's prompt.
        fp16: half-precision weights, on an accelerator only.
        batch_size: texts per batch inside one call of `encode`.
        max_length: longest text in tokens.
        dimension: keep the vectors' first so many components.
        known_prompts: without a prefix, and without prompts in the checkpoint's files, use those of a known
            family; see `EncoderOptions`.
    """

    device: str | None
    pooling: str | None
    l2_norm: bool | None
    prefix: str | None
    fp16: bool
    batch_size: int
    max_length: int | None
    dimension: int | None
    known_prompts: bool


class MimoDocumentEncoder(DocumentEncoder):
    """Encodes documents with any sentence-transformers or Hugging Face encoder.

    Args:
        model_name: a directory, a hub id or a `packaged:` checkpoint.
        tokenizer_name: accepted as in Pyserini; the checkpoint's own tokenizer is used.
        settings: see `EncoderSettings`.
    """

    def __init__(
        self, model_name: str, tokenizer_name: str | None = None, **settings: Unpack[EncoderSettings]
    ) -> None:
        self.has_model = True
        self.prefix = settings.get("prefix")
        self.student = _load(model_name, settings, "document_prompt", "query_prompt")

    def encode(
        self,
        texts: str | Sequence[str],
        titles: str | Sequence[str | None] | None = None,
        max_length: int | None = None,
        fp16: bool = False,
        add_sep: bool = False,
        **kwargs: Any,
    ) -> "np.ndarray":
        """Vectors of documents: float32 (n, dimension) for a list, (dimension,) for one text.

        Args:
            titles: one per text, joined with a space; empty ones and None are left out.
            max_length: longest text in tokens for this call.
            fp16: accepted as in Pyserini, without effect; see `EncoderSettings`.
            add_sep: give title and text to the tokenizer as a pair.

        Raises:
            UsageError: the numbers of titles and texts differ.
            ModelError: a vector holds NaN or infinity.
        """
        import numpy as np

        single = isinstance(texts, str)
        text_list = [texts] if isinstance(texts, str) else list(texts)
        title_list = [titles] if isinstance(titles, str) else list(titles or [None] * len(text_list))
        if len(title_list) != len(text_list):
            raise UsageError(
                f"{len(title_list)} titles for {len(text_list)} texts: one title a text was expected"
            )
        inputs = [_join(title, text, add_sep) for title, text in zip(title_list, text_list, strict=True)]
        vectors = self.student.encode_documents(inputs, prompt=_prompt(self.prefix), max_length=max_length)
        return np.asarray(vectors[0]) if single else vectors


class MimoQueryEncoder(QueryEncoder):
    """Encodes queries, for `FaissSearcher`.

    Args:
        encoder_dir: a directory, a hub id or a `packaged:` checkpoint; or a loaded encoder, as it is.
        tokenizer_name: accepted as in Pyserini; the checkpoint's own tokenizer is used.
        encoded_query_dir: as in Pyserini: encoded queries, found by their text, in place of a model.
        settings: see `EncoderSettings`.
    """

    def __init__(
        self,
        encoder_dir: str | Encoder | None = None,
        tokenizer_name: str | None = None,
        encoded_query_dir: str | None = None,
        **settings: Unpack[EncoderSettings],
    ) -> None:
        super().__init__(encoded_query_dir)
        if encoder_dir is None and encoded_query_dir is None:
            raise UsageError(
                "MimoQueryEncoder needs encoder_dir (a checkpoint) or encoded_query_dir; neither came"
            )
        self.prefix = settings.get("prefix")
        self.student: Encoder | None = None
        # Servers search in several threads, and a tokenizer must not be used by two of them.
        self._one_at_a_time = Lock()
        if isinstance(encoder_dir, Encoder):
            self.student = encoder_dir
        elif encoder_dir is not None:
            self.student = _load(encoder_dir, settings, "query_prompt", "document_prompt")
        if self.student is not None:
            self.has_model = True

    def encode(
        self,
        query: str | Sequence[str] | dict[str, Any] | None = None,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> "np.ndarray":
        """The vector of one query, float32 (dimension,), or vectors of a list, (n, dimension).

        The text of a topic dict is its `query`, `text`, `title` or `contents`.
        """
        text = _topic_text(query if isinstance(query, dict) else {**kwargs, "query": query})
        vectors = self.encode_batch([text] if isinstance(text, str) else list(text), max_length)
        return vectors[0] if isinstance(text, str) else vectors

    def encode_batch(
        self, queries: Sequence[str | dict[str, Any]], max_length: int | None = None, **kwargs: Any
    ) -> "np.ndarray":
        """Vectors of queries or topic dicts, float32 (n, dimension)."""
        import numpy as np

        texts = [query if isinstance(query, str) else _topic_text(query) for query in queries]
        if self.student is None:
            return np.asarray(
                [super(MimoQueryEncoder, self).encode(text) for text in texts], dtype=np.float32
            )
        with self._one_at_a_time:
            return self.student.encode_queries(texts, prompt=_prompt(self.prefix), max_length=max_length)


def register() -> None:
    """Registers the encoder class `mimo` in Pyserini; repeated calls change nothing.

    It becomes the first key, because the first key that occurs in a checkpoint's path wins ("ance" is in
    "relevance").
    """
    for class_map, encoder in (
        (document_encoder_class_map, MimoDocumentEncoder),
        (query_encoder_class_map, MimoQueryEncoder),
    ):
        others = {name: value for name, value in class_map.items() if name != ENCODER_CLASS}
        # In place, because Pyserini's modules share the dict.
        class_map.clear()
        class_map[ENCODER_CLASS] = encoder
        class_map.update(others)


def _load(checkpoint: str, settings: EncoderSettings, mine: str, other: str) -> Encoder:
    """Loads a checkpoint for queries or documents.

    Args:
        mine, other: the option for the prompt of these texts, and of the other kind.
    """
    pooling, l2_norm, prefix = settings.get("pooling"), settings.get("l2_norm"), settings.get("prefix")
    if pooling is not None and pooling not in _POOLING:
        raise UsageError(f"pooling {pooling!r}: one of {', '.join(_POOLING)} was expected")
    given: dict[str, Any] = {**settings}
    own = {name: given[name] for name in _AS_THEY_ARE if name in given}
    # The other kind is never encoded.
    own |= {mine: _prompt(prefix), other: "" if prefix is not None else None}
    half = settings.get("fp16") and check_device(settings.get("device")) != "cpu"
    options = EncoderOptions(
        dtype="float16" if half else "float32",
        pooling=_POOLING[pooling] if pooling else None,
        normalize=l2_norm,
        override=False,
        **own,
    )
    student = Encoder(checkpoint, options)
    if options.pooling not in (None, student.pooling) or l2_norm not in (None, student.normalizes):
        warnings.warn(
            f"{student.name} says itself how it pools ({student.pooling}) and if it normalises "
            f"({student.normalizes}): pooling={options.pooling}, l2_norm={l2_norm} are not used",
            stacklevel=3,
        )
    return student


def _prompt(prefix: str | None) -> str | None:
    """Pyserini puts a space after a prefix that is not empty."""
    return f"{prefix} " if prefix else prefix


def _join(title: str | None, text: str, as_pair: bool) -> Text:
    if not title:
        return text
    return (title, text) if as_pair else f"{title} {text}"


def _topic_text(topic: dict[str, Any]) -> Any:
    for key in ("query", "text", "title", "contents"):
        if topic.get(key) is not None:
            return topic[key]
    raise UsageError(
        f"a query with the fields {sorted(key for key in topic if key != 'query')} has no text: "
        "one of query, text, title, contents was expected"
    )
