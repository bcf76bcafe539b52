"""The model that turns texts into vectors: a sentence-transformers or plain Hugging Face encoder."""

import hashlib
import logging
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.errors import ModelError, UsageError
from mimo_plugin.encoder import checkpoint as checkpoint_files
from mimo_plugin.encoder import fingerprint, packaged
from mimo_plugin.encoder.backend import choose, wanted
from mimo_plugin.encoder.batching import Runner, Texts, TorchRunner, encode, encode_each
from mimo_plugin.encoder.options import EncoderOptions as EncoderOptions
from mimo_plugin.encoder.prompts import Prompts, resolve

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)
_QUERY, _DOCUMENT = "query", "document"
_OWN_LENGTHS = (f"{_QUERY}_length", f"{_DOCUMENT}_length")
# Of static embeddings, which have no bound, it is what manifests say.
_LONGEST = 2**31 - 1
# As torch's normalize: what is shorter is not scaled to 1.
_SHORTEST = 1e-12

# One text, or a (title, text) pair that the tokenizer joins in its own way.
Text = str | tuple[str, str]


class Encoder:
    """A loaded encoder. Vectors are those of `encode_query` and `encode_document` of sentence-transformers.

    Where the checkpoint is no sentence-transformers one, pooling is the mean over tokens (the last token
    for a decoder-only model, as sentence-transformers has it) and vectors are L2-normalised.

    A checkpoint with a Router has two sides, for queries and for documents, of other modules each.

    Args:
        checkpoint: a directory, a hub id or `packaged:all-MiniLM-L6-v2`. Only safetensors weights are read,
            and no code from the checkpoint is run.
        options: how to load and run it; the defaults are what the checkpoint's own files say.
        settings: fields of `EncoderOptions` that replace those of `options`, such as `device="cpu"`.

    Attributes:
        model: the checkpoint as it was loaded.
        name: for messages and manifests.
        options: how it was loaded.

    Raises:
        ModelError: there is no such checkpoint, it cannot be loaded, or the backend that was asked for cannot
            run it.
        EnvironmentProblem: the device is not there, or the backend is not installed.
        UsageError: an option does not fit the checkpoint or another option.

    >>> encoder = Encoder("packaged:all-MiniLM-L6-v2", device="cpu")
    >>> encoder.encode_queries(["a word", "two more words"]).shape
    (2, 384)
    """

    # Name and path of the checkpoint; None for a model in memory, whose family nobody knows.
    _source: tuple[str, str] | None = None

    def __init__(self, checkpoint: str, options: EncoderOptions | None = None, **settings: Any) -> None:
        _log.info(f"loading encoder {checkpoint}")
        options = replace(options or EncoderOptions(), **settings)
        path = packaged.resolve(checkpoint)
        backend = wanted(options.backend, options.dtype, options.device)
        on_cpu = backend in ("onnx", "openvino")
        device = checkpoint_files.check_device("cpu" if on_cpu else options.device)
        # A graph is made of the model in float32; torch needs it in no other format than it runs in.
        dtype = options.dtype if backend == "torch" else "float32"
        model = checkpoint_files.load_model(path, checkpoint, device, dtype, attention=options.attention)
        # Whoever reads the name later may be in another directory.
        name = str(Path(path).resolve()) if Path(checkpoint).is_dir() else checkpoint
        self._take(model, name, options)
        own_modules = checkpoint_files.has_modules_file(path)
        for side in self._sides():
            side.override(options, own_modules, checkpoint)
        self._require_one_dimension()
        if backend != "torch":
            for side in self._sides():
                which = f"the route of {name} for {self._texts_of(side)}" if self.asymmetric else name
                # A graph is compared with torch in all components: others may want more of them.
                with side.model.truncate_embeddings(None):
                    side.runner = choose(side.model, backend, options.dtype, which, side.identity)
        elif dtype != "float32":
            for side in self._sides():
                side.fingerprint = fingerprint.fingerprint(side.model, path)
                checkpoint_files.cast_others(side.model, dtype)
        for side in self._sides():
            if side.runner.name == "torch":
                # A graph was compared with torch on such texts before.
                checkpoint_files.probe(side.model, side.runner, checkpoint)
        self._source = checkpoint, path

    @classmethod
    def of(
        cls,
        model: "SentenceTransformer",
        name: str,
        options: EncoderOptions | None = None,
        runner: Runner | None = None,
    ) -> "Encoder":
        """An encoder of a model in memory, as it is.

        Args:
            name: for messages.
            options: its batch size and prompts; the others had to be applied to the model before.
            runner: what computes; None is torch.
        """
        encoder = cls.__new__(cls)
        encoder._take(model, name, options or EncoderOptions(), runner)
        return encoder

    def _take(
        self, model: "SentenceTransformer", name: str, options: EncoderOptions, runner: Runner | None = None
    ) -> None:
        self.model = model
        self.name = name
        self.options = options
        queries, documents = checkpoint_files.sides(model, name)
        self._documents = self._queries = _Side(documents, runner or TorchRunner(documents))
        if queries is not documents:
            self._queries = _Side(queries, TorchRunner(queries))

    @cached_property
    def prompts(self) -> Prompts:
        """Put before queries and documents; the first look gives the notices of `prompts.resolve`."""
        checkpoint, path = self._source or (self.name, "")
        return resolve(
            self.model,
            checkpoint,
            path,
            query=self.options.query_prompt,
            document=self.options.document_prompt,
            known=self.options.known_prompts and self._source is not None,
        )

    @property
    def asymmetric(self) -> bool:
        """Whether queries go through other modules than documents."""
        return self._queries is not self._documents

    @property
    def dimension(self) -> int:
        return self._documents.dimension

    @property
    def max_length(self) -> int:
        """Longest document in tokens."""
        return self._documents.max_length(_DOCUMENT)

    @property
    def pooling(self) -> str | None:
        """The pooling's name, or None where the model does not pool in a module of its own."""
        modes = (getattr(module, "pooling_mode", None) for module in self._documents.model)
        return next((mode if isinstance(mode, str) else "+".join(mode) for mode in modes if mode), None)

    @property
    def normalizes(self) -> bool:
        """Whether vectors have length 1."""
        return all(side.normalizes for side in self._sides())

    @property
    def document_prompt(self) -> str:
        return self.prompts.document

    @property
    def query_prompt(self) -> str:
        return self.prompts.query

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the model, see `checkpoint.fingerprint`; of one with two sides it is of both."""
        if not self.asymmetric:
            return self._documents.fingerprint
        both = f"query {self._queries.fingerprint} document {self._documents.fingerprint}"
        return hashlib.sha256(both.encode()).hexdigest()

    @property
    def backend(self) -> str:
        """What runs the model, for documents: torch, onnx or openvino."""
        return self._documents.runner.name

    @property
    def device_type(self) -> str:
        """cpu, cuda or mps."""
        return str(self.model.device.type)

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
            prompt: put before each text in place of the student's document prompt.
            max_length: longest text in tokens for this call.
            advance: called after every batch with the number of texts done since the last call.

        Raises:
            NotFinite: a vector holds NaN or infinity.
        """
        prompt = self.document_prompt if prompt is None else prompt
        return self._encode(_DOCUMENT, texts, prompt, max_length, advance)

    def encode_each(
        self, batches: Iterable[Sequence[Text]], *, advance: Callable[[int], object] | None = None
    ) -> Generator["np.ndarray", None, None]:
        """Yields what `encode_documents` gives for each batch of documents; the next one is read and
        tokenised meanwhile.

        Args:
            batches: of one document at least.

        Raises:
            NotFinite: a vector holds NaN or infinity; the ones before have been yielded.
        """
        side = self._documents
        sources = (self._texts(_DOCUMENT, texts, self.document_prompt) for texts in batches)
        with closing(encode_each(side.model, side.runner, sources, advance)) as found:
            for vectors in found:
                yield self._finished(side, vectors)

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
        return self._encode(_QUERY, texts, prompt, max_length, advance)

    def _sides(self) -> "list[_Side]":
        return [self._documents, self._queries] if self.asymmetric else [self._documents]

    def _texts_of(self, side: "_Side") -> str:
        return "queries" if side is self._queries else "documents"

    def _require_one_dimension(self) -> None:
        if self._queries.dimension != self._documents.dimension:
            raise ModelError(
                f"{self.name} gives {self._queries.dimension} dimensions for queries and "
                f"{self._documents.dimension} for documents, expected the same: its Router's routes do not "
                "belong together"
            )

    def _encode(
        self,
        task: str,
        texts: Sequence[Text],
        prompt: str,
        max_length: int | None,
        advance: Callable[[int], object] | None,
    ) -> "np.ndarray":
        side = self._queries if task == _QUERY else self._documents
        with side.cut_to(max_length, task):
            source = self._texts(task, texts, prompt)
            return self._finished(side, encode(side.model, side.runner, source, advance))

    def _texts(self, task: str, texts: Sequence[Text], prompt: str) -> Texts:
        return Texts(texts, [_length(text) for text in texts], prompt, self.options.batch_size, task)

    def _finished(self, side: "_Side", vectors: "np.ndarray") -> "np.ndarray":
        vectors = self._finite(vectors)
        return unit(vectors) if side.normalizes_cut else vectors

    def _finite(self, vectors: "np.ndarray") -> "np.ndarray":
        import numpy as np

        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise NotFinite(int(np.flatnonzero(~finite)[0]), self.name)
        return vectors


class _Side:
    """The modules that queries or documents go through, and what runs them.

    Attributes:
        normalizes_cut: vectors of which only the first components count are normalised again.
    """

    def __init__(self, model: "SentenceTransformer", runner: Runner) -> None:
        self.model = model
        self.runner = runner
        self.normalizes_cut = False

    def override(self, options: EncoderOptions, own_modules: bool, checkpoint: str) -> None:
        """Changes what the user asked to change.

        Raises:
            UsageError: the checkpoint cannot be run that way.
        """
        asked = options.override or not own_modules
        # Static embeddings read a text whole.
        limited = self.model.transformers_model is not None
        checkpoint_files.apply_overrides(
            self.model,
            own_modules,
            pooling=options.pooling if asked else None,
            normalize=options.normalize if asked else None,
            max_length=options.max_length if limited else None,
            checkpoint=checkpoint,
        )
        if options.max_length is not None and limited:
            self._limit(self.model.max_seq_length, None, None)
        if options.dimension is not None:
            whole = checkpoint_files.whole_dimension(self.model)
            if options.dimension > whole:
                raise UsageError(
                    f"--dimension {options.dimension}: {checkpoint} gives {whole} dimensions, expected a "
                    "number up to that"
                )
            self.model.truncate_dim = options.dimension
        self.normalizes_cut = (
            self._is_cut
            and checkpoint_files.normalizes(self.model)
            and (options.dimension is not None or (asked and options.normalize is True))
        )

    @property
    def dimension(self) -> int:
        return int(self.model.get_embedding_dimension())

    @property
    def normalizes(self) -> bool:
        return checkpoint_files.normalizes(self.model) and (self.normalizes_cut or not self._is_cut)

    @property
    def _is_cut(self) -> bool:
        return self.model.truncate_dim is not None and self.dimension < checkpoint_files.whole_dimension(
            self.model
        )

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint.fingerprint(self.model)

    def identity(self) -> str:
        return self.fingerprint

    def max_length(self, task: str) -> int:
        """Longest text in tokens; a task may have a length of its own."""
        own = getattr(self.model[0], f"{task}_length", None)
        return int(min(own or self.model.max_seq_length, _LONGEST))

    @contextmanager
    def cut_to(self, max_length: int | None, task: str) -> Iterator[None]:
        """Cuts texts to so many tokens for a while; None leaves it as it is."""
        before = self.model.max_seq_length
        if max_length is None or max_length == self.max_length(task) or not math.isfinite(before):
            yield
            return
        first = self.model[0]
        own = [getattr(first, name, None) for name in _OWN_LENGTHS]
        most = checkpoint_files.capacity(self.model)
        self._limit(max_length if most is None else min(max_length, most), None, None)
        try:
            yield
        finally:
            self._limit(before, *own)

    def _limit(self, length: int, *own: int | None) -> None:
        """own: lengths of a task's own, which go before the model's."""
        self.model.max_seq_length = length
        for name, value in zip(_OWN_LENGTHS, own, strict=True):
            if hasattr(self.model[0], name):
                setattr(self.model[0], name, value)


class NotFinite(ModelError):
    """A vector holds NaN or infinity; `position` is the text's index in the call."""

    def __init__(self, position: int, name: str, subject: str | None = None) -> None:
        self.position = position
        self.name = name
        subject = subject or f"text {position} of the call"
        super().__init__(
            f"{name} gives NaN or infinity for {subject}: the checkpoint is broken, or overflows in this "
            "--dtype (try float32)"
        )


def lengths(vectors: "np.ndarray") -> "np.ndarray":
    """Of vectors (n, d): shape (n, 1)."""
    import numpy as np

    found: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def unit(vectors: "np.ndarray") -> "np.ndarray":
    """Scales vectors (n, d), in place, to length 1; a vector of zeros stays one."""
    vectors /= lengths(vectors).clip(_SHORTEST)
    return vectors


def _length(text: Text) -> int:
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])
