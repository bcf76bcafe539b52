"""Loaded encoders, from sentence-transformers or plain Hugging Face checkpoints."""

import hashlib
import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.environment import native_bfloat16
from mimo_plugin.core.errors import ModelError, UsageError
from mimo_plugin.encoder import checkpoint as files
from mimo_plugin.encoder import fingerprint, packaged
from mimo_plugin.encoder.backend import (
    LONGEST,
    NEAR,
    Chosen,
    choose,
    cosines_text,
    float32_on,
    least_cosine,
    recall,
    remember,
    warnings_noted,
)
from mimo_plugin.encoder.batching import Runner, Text, Texts, encode, encode_each
from mimo_plugin.encoder.checkpoint import NotFinite
from mimo_plugin.encoder.export import GraphRunner, open_graph
from mimo_plugin.encoder.options import (
    AUTO,
    BFLOAT16,
    FLOAT32,
    INT8,
    ONNX,
    OPENVINO,
    TORCH,
    EncoderOptions,
    installed,
    wanted,
)
from mimo_plugin.encoder.prompts import Prompts, resolve
from mimo_plugin.encoder.side import GraphSide, TorchSide, normalizes

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer

__all__ = ["Encoder", "NotFinite", "Text", "lengths", "unit"]

_log = logging.getLogger(__name__)
_QUERY, _DOCUMENT = "query", "document"
# As in torch's normalize: a shorter vector is not scaled to length 1.
_SHORTEST = 1e-12
# Most texts that `Encoder.checked_on` encodes in two number formats.
_CHECKED = 64
_INT8 = (
    "--dtype int8 changes the vectors: use it for documents and queries alike; performance/README.md has the "
    "loss that was measured"
)


_Side = TorchSide | GraphSide


class Encoder:
    """A loaded encoder. Vectors are those of `encode_query` and `encode_document` of sentence-transformers.

    A checkpoint without sentence-transformers' files gets mean pooling (last-token pooling for a
    decoder-only model, as in sentence-transformers) and L2 normalisation. A checkpoint with a Router has two
    sides: queries and documents go through different modules. An encoder that ran as a graph before runs
    again without torch.

    The number format "auto" is bfloat16 where OpenVINO runs the model, the processor multiplies bfloat16
    natively, and vectors of packaged texts of 14 languages have cosines of 0.999 and above to those in
    float32. Elsewhere, on a GPU too, it is float32. `index` looks at the collection's own texts, too.

    Args:
        checkpoint: a directory, a hub id or one of `packaged.PACKAGES`. Only safetensors weights are read,
            and no code from the checkpoint is run.
        options: how to load and run it; the defaults follow the checkpoint's files.
        settings: fields of `EncoderOptions` that replace those of `options`, such as `device="cpu"`.

    Attributes:
        name: the checkpoint as given, a directory as an absolute path; for messages and manifests.
        options: with `settings` applied; `dtype` is the format that was chosen.
        dtype_reason: why "auto" chose it; None if it was given.

    Raises:
        ModelError: there is no such checkpoint, it cannot be loaded, or the requested backend cannot run it.
        EnvironmentProblem: the device does not exist, or the backend is not installed.
        UsageError: an option does not fit the checkpoint or another option.

    >>> encoder = Encoder("packaged:all-MiniLM-L6-v2", device="cpu")
    >>> encoder.encode_queries(["a word", "two more words"]).shape
    (2, 384)
    """

    # Name and path of the checkpoint; None for a model in memory, whose family is unknown.
    _source: tuple[str, str] | None = None
    dtype_reason: str | None = None
    _queries: _Side
    _documents: _Side

    def __init__(self, checkpoint: str, options: EncoderOptions | None = None, **settings: Any) -> None:
        _log.info(f"loading encoder {checkpoint}")
        self.options = options = replace(options or EncoderOptions(), **settings)
        path = packaged.resolve(checkpoint)
        backend = wanted(options.backend, options.dtype, options.device)
        files.check_files(path, checkpoint)
        # A manifest with this name may be read in another working directory.
        self.name = str(Path(path).resolve()) if Path(checkpoint).is_dir() else checkpoint
        self._source = checkpoint, path
        found = recall(checkpoint, path, backend, options)
        if found is not None:
            self._queries = self._documents = found
            chosen = Chosen([found.runner], found.facts.dtype, found.facts.dtype_reason)
        else:
            with warnings_noted() as warnings:
                chosen = self._load(checkpoint, path, backend)
            if isinstance(self._documents, TorchSide) and not self.asymmetric:
                remember(self._documents, checkpoint, path, options, chosen, warnings)
        self.options, self.dtype_reason = replace(options, dtype=chosen.dtype), chosen.reason
        if chosen.dtype == INT8:
            _log.warning(_INT8)

    def __repr__(self) -> str:
        return (
            f"Encoder({self.name!r}, dimension={self.dimension}, backend={self.backend!r}, "
            f"device={self.device_type!r})"
        )

    def _load(self, checkpoint: str, path: str, backend: str) -> Chosen:
        """Loads the checkpoint with torch, and its runners."""
        options = self.options
        device = files.check_device("cpu" if backend in (ONNX, OPENVINO) else options.device)
        on_cpu = device.startswith("cpu")
        if backend == AUTO and not (on_cpu and installed(OPENVINO)):
            backend = TORCH
        # A graph is exported from the float32 model; torch loads the format that it runs in.
        dtype = options.dtype if backend == TORCH and options.dtype != AUTO else FLOAT32
        self.model = files.load_model(path, checkpoint, device, dtype, attention=options.attention)
        sides = self._take(self.model)
        own_modules = files.has_modules_file(path)
        for side in sides:
            _override(side, options, own_modules, checkpoint)
        if self._queries.dimension != self._documents.dimension:
            raise ModelError(
                f"{self.name} gives {self._queries.dimension} dimensions for queries and "
                f"{self._documents.dimension} for documents, expected the same: its Router's routes do not "
                "belong together"
            )
        reason = float32_on(TORCH if on_cpu else device) if options.dtype == AUTO else None
        chosen = Chosen([side.runner for side in sides], dtype, reason)
        if backend != TORCH:
            routes = [f"the route of {self.name} for {texts}" for texts in ("documents", "queries")]
            names = routes if self.asymmetric else [self.name]
            chosen = choose(dict(zip(names, sides, strict=True)), backend, options.dtype)
        if chosen.dtype == BFLOAT16 and on_cpu:
            if backend != TORCH and any(runner.name == TORCH for runner in chosen.runners):
                return self._load(checkpoint, path, TORCH)
            if not native_bfloat16("cpu"):
                _log.warning(
                    f"{checkpoint} runs in bfloat16, which this processor does not multiply: it is slower "
                    "than in float32, and its vectors fit those of other processors but for rounding"
                )
        for side, runner in zip(sides, chosen.runners, strict=True):
            side.runner = runner
            if dtype != FLOAT32:
                side.fingerprint = fingerprint.fingerprint(side.model, path)
                files.cast_others(side.model, dtype)
            if runner.name == TORCH:
                # A graph was compared with torch on such texts already.
                files.probe(side, checkpoint)
        return chosen

    @classmethod
    def of(
        cls,
        model: "SentenceTransformer",
        name: str,
        options: EncoderOptions | None = None,
        runner: Runner | None = None,
    ) -> "Encoder":
        """An encoder of a model in memory, which is not changed.

        Args:
            name: for messages.
            options: only batch size and prompts are used; the model must reflect the others already.
            runner: computes the vectors; None is torch.
        """
        encoder = cls.__new__(cls)
        encoder.model, encoder.name = model, name
        encoder.options = replace(options or EncoderOptions(), dtype=FLOAT32)
        encoder._take(model, runner)
        return encoder

    def _take(self, model: "SentenceTransformer", runner: Runner | None = None) -> list[TorchSide]:
        """Sets and returns the sides of a model: one, or documents' and queries'."""
        queries, documents = files.sides(model, self.name)
        sides = [TorchSide(documents, runner)]
        if queries is not documents:
            sides.append(TorchSide(queries))
        self._documents, self._queries = sides[0], sides[-1]
        return sides

    @cached_property
    def model(self) -> "SentenceTransformer":
        """The sentence-transformers model. An encoder without torch loads it on first use."""
        return Encoder(self.name, replace(self.options, backend=TORCH, dtype=FLOAT32)).model

    @cached_property
    def prompts(self) -> Prompts:
        """Prompts of queries and documents. First use logs the warnings of `prompts.resolve`."""
        checkpoint, path = self._source or (self.name, "")
        facts = getattr(self._documents, "facts", None) or self.model
        return resolve(
            facts.prompts,
            facts.default_prompt_name,
            checkpoint,
            path,
            query=self.options.query_prompt,
            document=self.options.document_prompt,
            known=self.options.known_prompts and self._source is not None,
        )

    @property
    def asymmetric(self) -> bool:
        """Whether queries and documents go through different modules."""
        return self._queries is not self._documents

    @property
    def dimension(self) -> int:
        """Number of components of a vector."""
        return self._documents.dimension

    @property
    def max_length(self) -> int:
        """Longest document in tokens."""
        return self._documents.max_length(_DOCUMENT)

    @property
    def pooling(self) -> str | None:
        """Name of the pooling, or None for a model without a pooling module."""
        return self._documents.pooling

    @property
    def normalizes(self) -> bool:
        """Whether vectors have length 1."""
        return self._documents.normalizes and self._queries.normalizes

    @property
    def document_prompt(self) -> str:
        """Put before each document."""
        return self.prompts.document

    @property
    def query_prompt(self) -> str:
        """Put before each query."""
        return self.prompts.query

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the model, see `fingerprint.fingerprint`; for two sides, a hash of both."""
        if not self.asymmetric:
            return self._documents.fingerprint
        both = f"query {self._queries.fingerprint} document {self._documents.fingerprint}"
        return hashlib.sha256(both.encode()).hexdigest()

    @property
    def backend(self) -> str:
        """The backend that encodes documents: torch, onnx or openvino."""
        return self._documents.runner.name

    @property
    def device_type(self) -> str:
        """cpu, cuda or mps."""
        return str(self.model.device.type) if self.backend == TORCH else "cpu"

    def checked_on(self, texts: Sequence[Text]) -> "Encoder":
        """This encoder, or the same in float32 if "auto" chose bfloat16 and it does not fit the documents.

        At most 64 of them, evenly drawn and cut to 512 tokens, are encoded in both formats.
        """
        side, runner = self._documents, self._documents.runner
        by_auto = self.dtype_reason is not None and self.options.dtype == BFLOAT16
        if not (by_auto and texts and isinstance(runner, GraphRunner)):
            return self
        source = Texts(
            texts[:: -(-len(texts) // _CHECKED)], self.document_prompt, self.options.batch_size, _DOCUMENT
        )
        with side.cut_to(min(self.max_length, LONGEST), _DOCUMENT):
            found = encode(side, source)
            side.runner = open_graph(runner.directory, runner.name, FLOAT32, runner.workers)
            try:
                expected = encode(side, source)
            finally:
                side.runner = runner
        cosine = least_cosine(expected, found)
        # NaN is not near, either: the encoder in float32 says which document has it.
        near = cosine >= NEAR
        encoder = self if near else Encoder(self.name, replace(self.options, dtype=FLOAT32))
        encoder.dtype_reason = cosines_text(cosine, f"of {len(source.texts)} documents ")
        return encoder

    def encode_documents(
        self,
        texts: Sequence[Text],
        *,
        prompt: str | None = None,
        max_length: int | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> "np.ndarray":
        """Vectors of documents, float32 of shape (len(texts), dimension), in the texts' order.

        Args:
            texts: texts, or (title, text) pairs.
            prompt: replaces the encoder's document prompt.
            max_length: longest text in tokens, for this call.
            advance: called after every batch with the number of texts done since the last call.

        Raises:
            NotFinite: a vector holds NaN or infinity.
        """
        prompt = self.document_prompt if prompt is None else prompt
        return self._encode(self._documents, _DOCUMENT, texts, prompt, max_length, advance)

    def encode_queries(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        max_length: int | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> "np.ndarray":
        """Vectors of queries, float32 of shape (len(texts), dimension); arguments as for documents."""
        prompt = self.query_prompt if prompt is None else prompt
        return self._encode(self._queries, _QUERY, texts, prompt, max_length, advance)

    def encode_each(
        self, batches: Iterable[Sequence[Text]], *, advance: Callable[[int], object] | None = None
    ) -> Generator["np.ndarray", None, None]:
        """Yields `encode_documents` of each batch, while the next batch is read and tokenised.

        Args:
            batches: each with at least one document.

        Raises:
            NotFinite: a vector holds NaN or infinity; earlier batches have been yielded.
        """
        sources = (
            Texts(texts, self.document_prompt, self.options.batch_size, _DOCUMENT) for texts in batches
        )
        with closing(encode_each(self._documents, sources, advance)) as found:
            for vectors in found:
                yield self._finished(self._documents, vectors)

    def _encode(
        self,
        side: _Side,
        task: str,
        texts: Sequence[Text],
        prompt: str,
        max_length: int | None,
        advance: Callable[[int], object] | None,
    ) -> "np.ndarray":
        with side.cut_to(max_length, task):
            source = Texts(texts, prompt, self.options.batch_size, task)
            return self._finished(side, encode(side, source, advance))

    def _finished(self, side: _Side, vectors: "np.ndarray") -> "np.ndarray":
        import numpy as np

        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise NotFinite(int(np.flatnonzero(~finite)[0]), self.name)
        return unit(vectors) if side.normalizes_cut else vectors


def _override(side: TorchSide, options: EncoderOptions, own_modules: bool, checkpoint: str) -> None:
    """Applies the options to a side's model; raises a UsageError where they do not fit it."""
    asked = options.override or not own_modules
    files.apply_overrides(
        side.model,
        own_modules,
        pooling=options.pooling if asked else None,
        normalize=options.normalize if asked else None,
        max_length=options.max_length,
        checkpoint=checkpoint,
    )
    if options.max_length is not None and side.model.transformers_model is not None:
        side.limit(side.model.max_seq_length, None, None)
    if options.dimension is not None:
        if options.dimension > side.whole_dimension:
            raise UsageError(
                f"--dimension {options.dimension}: {checkpoint} gives {side.whole_dimension} dimensions, "
                "expected a number up to that"
            )
        side.model.truncate_dim = options.dimension
    side.normalizes_cut = (
        side.is_cut
        and normalizes(side.model)
        and (options.dimension is not None or (asked and options.normalize is True))
    )


def lengths(vectors: "np.ndarray") -> "np.ndarray":
    """The L2 norms of vectors (n, d), shape (n, 1)."""
    import numpy as np

    found: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def unit(vectors: "np.ndarray") -> "np.ndarray":
    """Scales vectors (n, d) to length 1, in place; a zero vector stays zero."""
    vectors /= lengths(vectors).clip(_SHORTEST)
    return vectors
