"""The model that turns texts into vectors: a sentence-transformers or plain Hugging Face encoder."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin import checkpoint as checkpoint_files
from mimo_plugin import packaged
from mimo_plugin.backends import Runner, Texts, TorchRunner, choose, encode, encode_each, wanted
from mimo_plugin.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer

# One text, or a (title, text) pair that the tokenizer joins in its own way.
Text = str | tuple[str, str]


@dataclass(frozen=True)
class EncoderOptions:
    """How a checkpoint is loaded and run; None means what the checkpoint's own files say.

    Attributes:
        device: torch device; None is the fastest that is there.
        dtype: number format of the weights: float32, bfloat16, float16 or int8. Vectors are float32 whatever
            it is.
        backend: "torch", "onnx" or "openvino"; "auto" is OpenVINO for float32 on a CPU, where it is installed
            and gives the same vectors, else torch. MIMO_BACKEND in the environment stands in for "auto".
        batch_size: most texts a batch; long texts share one with fewer.
        max_length: longest text in tokens, special tokens included.
        pooling: "mean", "cls", "max" or "lasttoken", in place of the checkpoint's own.
        normalize: L2-normalise or not, in place of what the checkpoint does.
        override: False lets a checkpoint in sentence-transformers layout win over `pooling` and `normalize`.
    """

    device: str | None = None
    dtype: str = "float32"
    backend: str = "auto"
    batch_size: int = 64
    max_length: int | None = None
    pooling: str | None = None
    normalize: bool | None = None
    override: bool = True


class Student:
    """A loaded encoder. Vectors are those of `SentenceTransformer.encode` on the same texts.

    Where the checkpoint is no sentence-transformers one, pooling is the mean over tokens (the last token
    for a decoder-only model, as sentence-transformers has it) and vectors are L2-normalised.
    """

    def __init__(
        self, model: "SentenceTransformer", name: str, options: EncoderOptions, runner: Runner | None = None
    ) -> None:
        self.model = model
        self.name = name
        self.options = options
        self._runner = runner or TorchRunner(model)

    @classmethod
    def load(cls, checkpoint: str, options: EncoderOptions | None = None) -> "Student":
        """Loads a directory, a hub id or a `packaged:` checkpoint.

        Only safetensors weights are read and no code from the checkpoint is run.

        Raises:
            ModelError: there is no such checkpoint, it cannot be loaded, or the backend that was asked for
                cannot run it.
            EnvironmentProblem: the device is not there, or the backend is not installed.
            UsageError: an option does not fit the checkpoint or another option.
        """
        options = options or EncoderOptions()
        path = packaged.resolve(checkpoint)
        backend = wanted(options.backend, options.dtype, options.device)
        on_cpu = backend in ("onnx", "openvino")
        device = checkpoint_files.check_device("cpu" if on_cpu else options.device)
        # A graph is made of the model in float32; torch needs it in no other format than it runs in.
        dtype = options.dtype if backend == "torch" else "float32"
        model = checkpoint_files.load_model(path, checkpoint, device, dtype)
        own_modules = checkpoint_files.has_modules_file(path)
        asked = options.override or not own_modules
        checkpoint_files.apply_overrides(
            model,
            own_modules,
            pooling=options.pooling if asked else None,
            normalize=options.normalize if asked else None,
            max_length=options.max_length,
            checkpoint=checkpoint,
        )
        # Whoever reads the name later may be in another directory.
        name = str(Path(path).resolve()) if Path(checkpoint).is_dir() else checkpoint
        student = cls(model, name, options)
        if backend != "torch":
            student._runner = choose(model, backend, options.dtype, name, lambda: student.fingerprint)
        elif dtype != "float32":
            student.fingerprint = checkpoint_files.fingerprint(model, path)
            checkpoint_files.cast_others(model, dtype)
        if student.backend == "torch":
            # A graph was compared with torch on such texts before.
            checkpoint_files.probe(model, student._runner, checkpoint)
        return student

    @property
    def dimension(self) -> int:
        return int(self.model.get_embedding_dimension())

    @property
    def max_length(self) -> int:
        """Longest text in tokens."""
        return int(self.model.max_seq_length)

    @property
    def pooling(self) -> str | None:
        """The pooling's name, or None where the model does not pool in a module of its own."""
        modes = (getattr(module, "pooling_mode", None) for module in self.model)
        return next((mode if isinstance(mode, str) else "+".join(mode) for mode in modes if mode), None)

    @property
    def normalizes(self) -> bool:
        """Whether vectors are L2-normalised."""
        return any(type(module).__name__ == "Normalize" for module in self.model)

    @property
    def document_prompt(self) -> str:
        return _prompt(self.model, ("document", "passage", "corpus"))

    @property
    def query_prompt(self) -> str:
        return _prompt(self.model, ("query",))

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the model, see `checkpoint.fingerprint`."""
        return checkpoint_files.fingerprint(self.model)

    @property
    def backend(self) -> str:
        """What runs the model: torch, onnx or openvino."""
        return self._runner.name

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
            prompt: put before each text in place of the checkpoint's document prompt.
            max_length: longest text in tokens for this call.
            advance: called after every batch with the number of texts done since the last call.

        Raises:
            NotFinite: a vector holds NaN or infinity.
        """
        return self._encode(texts, self.document_prompt if prompt is None else prompt, max_length, advance)

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
        sources = (self._texts(texts, self.document_prompt) for texts in batches)
        with closing(encode_each(self.model, self._runner, sources, advance)) as found:
            yield from map(self._finite, found)

    def encode_queries(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        max_length: int | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> "np.ndarray":
        """Vectors of queries, float32 of shape (len(texts), dimension); arguments as for documents."""
        return self._encode(texts, self.query_prompt if prompt is None else prompt, max_length, advance)

    def _encode(
        self,
        texts: Sequence[Text],
        prompt: str,
        max_length: int | None,
        advance: Callable[[int], object] | None,
    ) -> "np.ndarray":
        with self._max_length(max_length):
            return self._finite(encode(self.model, self._runner, self._texts(texts, prompt), advance))

    def _texts(self, texts: Sequence[Text], prompt: str) -> Texts:
        return Texts(texts, [_length(text) for text in texts], prompt, self.options.batch_size)

    def _finite(self, vectors: "np.ndarray") -> "np.ndarray":
        import numpy as np

        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise NotFinite(int(np.flatnonzero(~finite)[0]), self.name)
        return vectors

    def _max_length(self, max_length: int | None) -> AbstractContextManager[None]:
        if max_length is None or max_length == self.max_length:
            return nullcontext()
        most = checkpoint_files.capacity(self.model)
        return _MaxLength(self.model, max_length if most is None else min(max_length, most))


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


class _MaxLength(AbstractContextManager[None]):
    def __init__(self, model: "SentenceTransformer", length: int) -> None:
        self._model = model
        self._length = length

    def __enter__(self) -> None:
        self._before = self._model.max_seq_length
        self._model.max_seq_length = self._length

    def __exit__(self, *_: object) -> None:
        self._model.max_seq_length = self._before


def _prompt(model: "SentenceTransformer", names: tuple[str, ...]) -> str:
    for name in names:
        if model.prompts.get(name):
            return str(model.prompts[name])
    if model.default_prompt_name is not None:
        return str(model.prompts.get(model.default_prompt_name) or "")
    return ""


def _length(text: Text) -> int:
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])
