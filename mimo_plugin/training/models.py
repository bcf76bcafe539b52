"""Options of the two models: the student, and the teacher with the form of its vectors."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from mimo_plugin.core.artifact import Record
from mimo_plugin.core.option import Option
from mimo_plugin.encoder import packaged
from mimo_plugin.training.student import PREFIX

Positive = Annotated[int, Field(ge=1)]
Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]


class Options(Record):
    """Options that determine the result.

    Attributes:
        BEFORE: field added by a later version -> values that keep the behaviour of earlier versions.
    """

    BEFORE: ClassVar[dict[str, tuple[Any, ...]]] = {}

    def identity(self) -> dict[str, Any]:
        """The options as plain data; a field of `BEFORE` is left out while it changes nothing."""
        values = self.model_dump(mode="json")
        return {name: value for name, value in values.items() if value not in self.BEFORE.get(name, ())}


class StudentOptions(Options):
    """The multilingual encoder that is trained.

    Attributes:
        layers: of a checkpoint, the kept ones are spread evenly.
        vocabulary: of a checkpoint, "used" keeps the tokens that its training texts have.
        query_prompt, document_prompt: saved with the student, for all later encoding; "" is none.
    """

    GROUP: ClassVar[str] = "Student"
    BEFORE: ClassVar[dict[str, tuple[Any, ...]]] = dict.fromkeys(
        ("layers", "pooling", "query_prompt", "document_prompt"), (None,)
    )

    checkpoint: Annotated[
        str,
        Option(
            f"Directory, hub id, new:tiny, new:mini, new:small, {packaged.NAMES}.",
            name="--student",
            metavar="CHECKPOINT",
            group="",
        ),
    ] = "FacebookAI/xlm-roberta-large"
    layers: Annotated[
        Positive | None,
        Option(
            "Keep this many layers of the checkpoint, spread evenly; or layers of a new student.  "
            "[default: all, the size's own]",
            name="--student-layers",
            min=1,
        ),
    ] = None
    vocabulary: Annotated[
        Literal["used"] | Positive | None,
        Option(
            "Tokens that the checkpoint keeps: `used` are those of the training texts, a number the most "
            "frequent of them; or tokens of a new student's tokenizer.  [default: all, the size's own]",
            name="--student-vocabulary",
            also=("--vocabulary",),
            metavar="used|N",
            parse=lambda given: int(given) if given.isdecimal() else given,
        ),
    ] = None
    pooling: Annotated[
        Literal["mean", "cls", "lasttoken"] | None,
        Option("Of the student.  [default: the checkpoint's own, else mean]"),
    ] = None
    query_prompt: Annotated[
        str | None,
        Option("Put before the student's queries, from stage 2 on.  [default: the checkpoint's own]"),
    ] = None
    document_prompt: Annotated[
        str | None, Option("Before its passages and documents.  [default: the checkpoint's own]")
    ] = None

    @property
    def new(self) -> bool:
        """Whether the student is a new model, not an existing checkpoint."""
        return self.checkpoint.startswith(PREFIX)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.new and self.vocabulary == "used":
            raise ValueError(
                f"vocabulary is 'used' and the student {self.checkpoint}, whose tokenizer is trained on the "
                "texts: expected a number of tokens"
            )
        return self

    def encoding(self) -> dict[str, Any]:
        """Arguments of `load_or_create` that decide how texts become vectors."""
        return {
            "pooling": self.pooling,
            "query_prompt": self.query_prompt,
            "document_prompt": self.document_prompt,
        }


class TeacherOptions(Options):
    """The teacher, and how it encodes.

    Attributes:
        max_length: prompt and special tokens included.
        dtype: number format of stored vectors.
        batch_size: not part of the identity.
    """

    GROUP: ClassVar[str] = "Teacher"
    BEFORE: ClassVar[dict[str, tuple[Any, ...]]] = dict.fromkeys(
        ("compute_dtype", "attention", "batch_size"), (None,)
    )

    checkpoint: Annotated[
        str,
        Option(
            f"Encoder of the anchor language, by default English: directory, hub id, {packaged.NAMES}.",
            name="--teacher",
            metavar="CHECKPOINT",
            group="",
        ),
    ] = "Qwen/Qwen3-Embedding-8B"
    query_prompt: Annotated[
        str | None,
        Option("Put before queries.  [default: the teacher's own]", name="--teacher-query-prompt"),
    ] = None
    passage_prompt: Annotated[
        str | None,
        Option("Put before passages.  [default: the teacher's own]", name="--teacher-passage-prompt"),
    ] = None
    max_length: Annotated[
        Positive | None,
        Option("Tokens.  [default: the teacher's own]", name="--teacher-max-length", min=3),
    ] = None
    dtype: Literal["float16", "float32"] = "float16"
    compute_dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        Option(
            "Number format of the teacher's weights.  [default: that of the store; of a new one bfloat16 on "
            "an accelerator, float32 on a CPU]",
            name="--teacher-dtype",
        ),
    ] = None
    attention: Annotated[
        Attention | None,
        Option("Of the teacher.  [default: what transformers chooses]", name="--teacher-attention"),
    ] = None
    batch_size: Annotated[
        Positive | None,
        Option(
            "Texts a batch of the teacher.  [default: --encoder-batch-size]",
            name="--teacher-batch-size",
            min=1,
        ),
    ] = None
    _device: str | None = PrivateAttr(None)

    @property
    def device(self) -> str | None:
        """Torch device; None is the fastest available."""
        return self._device

    def on(self, device: str | None, batch_size: int = 64) -> Self:
        """The options with a device, and with a batch size if they have none."""
        changed = self.model_copy(update={"batch_size": self.batch_size or batch_size})
        changed._device = device
        return changed

    def identity(self) -> dict[str, Any]:
        return {name: value for name, value in super().identity().items() if name != "batch_size"}
