"""What a training run is asked to do. Defaults are those of the MIMO paper's recipe."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr

from mimo_plugin.core.artifact import Record
from mimo_plugin.core.config import Place, read_yaml, validate, yaml_text
from mimo_plugin.core.errors import UsageError
from mimo_plugin.core.files import make_parent, write_text
from mimo_plugin.training.schedule import Objective

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
Trackers = Annotated[
    tuple[str, ...], BeforeValidator(lambda found: (found,) if isinstance(found, str) else found)
]
# Evaluations and checkpoints a run, unless asked otherwise.
_TIMES = 10


class Metric(StrEnum):
    """How far the projected student is from the teacher."""

    COSINE = "cosine"
    L2 = "l2"
    MSE = "mse"


class Precision(StrEnum):
    """Number format of the forward pass; weights and optimiser are float32 in each.

    AUTO is bfloat16 where the device computes it natively (CUDA since Ampere, CPUs with AMX), else float32.
    """

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class ProjectionInput(StrEnum):
    """What the projection to the teacher's space reads.

    RAW is the student's vector before its L2-normalisation, as in the paper; NORMALIZED the one after.
    """

    RAW = "raw"
    NORMALIZED = "normalized"


# Measured, see performance/README.md.
PROJECTION_INPUT = ProjectionInput.RAW


class Options(Record):
    """Options whose fields decide what comes out.

    Attributes:
        BEFORE: fields that came later, and the values that stand for what held before.
    """

    BEFORE: ClassVar[dict[str, tuple[Any, ...]]] = {}

    def identity(self) -> dict[str, Any]:
        """As plain data, without later fields that change nothing, as an earlier version wrote it."""
        values = self.model_dump(mode="json")
        return {name: value for name, value in values.items() if value not in self.BEFORE.get(name, ())}


class StageOptions(Options):
    """What both stages have.

    Attributes:
        batch_size: texts or rows an optimiser step, over all devices.
        learning_rate: its highest value; it rises over the first `warmup` of the steps and falls to 0.
        warmup: share of the steps.
        epochs: passes over the data.
        steps: optimiser steps, in place of `epochs`.
        max_length: longest text in tokens, special tokens included.
        mini_batch_size: texts embedded at a time, each mini-batch as wide as its own longest text.
        weight_decay: of AdamW.
        max_grad_norm: longer gradients of the encoder are cut to this length.
        metric: of the distillation.
        projection_input: of the projection; None is what a carried projection was trained on, else
            `PROJECTION_INPUT`.
        precision: of the forward pass.
        gradient_accumulation_steps: parts of equal size that a batch is cut into, one after another; their
            gradients are averaged. Each has the negatives of its own part only.
        gradient_checkpointing: compute a layer's activations again in the backward pass, to save memory.
        eval_steps: steps between two evaluations on the dev collection; None is `save_steps`.
        save_steps: steps between two checkpoints; None is `eval_steps` with a dev collection, else ten a run.
            What is scored is saved, so with a dev collection both are the same.
        log_steps: steps between two lines of metrics.
        collapse_similarity: training stops when the mean cosine between texts of a batch stays above it.
        collapse_steps: for this many steps on end, counted after the warm-up.
    """

    BEFORE: ClassVar[dict[str, tuple[Any, ...]]] = {
        "projection_input": (None, ProjectionInput.NORMALIZED),
        "gradient_accumulation_steps": (1,),
        "gradient_checkpointing": (False,),
    }

    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    max_length: Annotated[int, Field(ge=3)]
    mini_batch_size: Positive = 32
    warmup: Share = 0.1
    epochs: Annotated[float, Field(gt=0)] = 1.0
    steps: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    metric: Metric = Metric.COSINE
    projection_input: ProjectionInput | None = None
    precision: Precision = Precision.AUTO
    gradient_accumulation_steps: Positive = 1
    gradient_checkpointing: bool = False
    eval_steps: Positive | None = None
    save_steps: Positive | None = None
    log_steps: Positive = 10
    collapse_similarity: Share = 0.99
    collapse_steps: Positive = 100

    def steps_on(self, rows: int) -> int:
        """Optimiser steps: `steps` where given, else the whole batches of `epochs` passes over the rows.

        Raises:
            UsageError: not even one batch can be filled.
        """
        if rows < self.batch_size:
            raise UsageError(
                f"--batch-size {self.batch_size} is larger than the data, which has {rows} usable rows: "
                "choose a smaller batch or get more data"
            )
        return max(1, int(rows * self.epochs) // self.batch_size) if self.steps is None else self.steps

    def steps_between_checkpoints(self, steps: int, *, scored: bool) -> int:
        """Steps between two checkpoints, and between two scores on a dev collection.

        Args:
            steps: of the whole run.
            scored: whether there is a dev collection.

        Raises:
            UsageError: a step would be scored that has no checkpoint, or the other way round.
        """
        asked = self.save_steps, self.eval_steps if scored else None
        if all(asked) and asked[0] != asked[1]:
            raise UsageError(
                f"--save-steps {asked[0]} and --eval-steps {asked[1]} differ: what is scored is saved, so "
                "that the best checkpoint can be kept; give one of the two"
            )
        return asked[0] or asked[1] or max(1, -(-steps // _TIMES))

    def slice_of(self, processes: int) -> int:
        """Texts of a batch that one process gets at a time.

        Raises:
            UsageError: the batch cannot be shared evenly.
        """
        parts = self.gradient_accumulation_steps
        if self.batch_size % (processes * parts):
            accumulated = f" in --gradient-accumulation-steps {parts}" if parts > 1 else ""
            raise UsageError(
                f"--batch-size {self.batch_size} cannot be shared by {processes} processes{accumulated}: a "
                f"multiple of {processes * parts} was expected"
            )
        return self.batch_size // (processes * parts)


class Stage1Options(StageOptions):
    """Distillation warm-up."""

    batch_size: Positive = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    max_length: Annotated[int, Field(ge=3)] = 256


class Stage2Options(StageOptions):
    """The joint stage, or a baseline in its place.

    Attributes:
        objective: what is minimised.
        contrastive_weight: lambda, the share of the contrastive loss. MIMO only.
        temperature: of the contrastive loss.
        cache_gradients: embed each batch twice and keep one mini-batch's activations at a time, whatever the
            batch; else all of them are in memory, and a step is a quarter faster.
        carry_projection: go on with the projection of stage 1; False starts a fresh one.
        lakda_alpha: share of the divergence. LaKDA only.
    """

    batch_size: Positive = 2048
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    max_length: Annotated[int, Field(ge=3)] = 512
    objective: Objective = Objective.MIMO
    contrastive_weight: Share = 0.2
    temperature: Annotated[float, Field(gt=0)] = 0.05
    cache_gradients: bool = True
    carry_projection: bool = True
    lakda_alpha: Share = 0.5


class StudentOptions(Options):
    """Attributes:
    checkpoint: a directory, a hub id, or `new:tiny`, `new:mini`, `new:small`.
    vocabulary: tokens of a fresh student's tokenizer; None is its size's own.
    pooling: None is the checkpoint's own, else the mean.
    query_prompt, document_prompt: put before a text in stage 2, and ever after by whoever encodes with the
        student; "" is none, None is the checkpoint's own.
    """

    BEFORE: ClassVar[dict[str, tuple[Any, ...]]] = dict.fromkeys(
        ("pooling", "query_prompt", "document_prompt"), (None,)
    )

    checkpoint: str = "FacebookAI/xlm-roberta-large"
    vocabulary: Positive | None = None
    pooling: Literal["mean", "cls", "lasttoken"] | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None

    def encoding(self) -> dict[str, Any]:
        """How texts become vectors, as `load_or_create` takes it."""
        return {
            "pooling": self.pooling,
            "query_prompt": self.query_prompt,
            "document_prompt": self.document_prompt,
        }


class TeacherOptions(Options):
    """Which of a teacher's vectors are wanted.

    Attributes:
        checkpoint: the English teacher: a directory, hub id or `packaged:` checkpoint.
        query_prompt, passage_prompt: put before a text; "" is none, None is the checkpoint's own.
        max_length: longest text in tokens, prompt and special tokens included; None is the checkpoint's own.
        dtype: number format that vectors are stored in.
        compute_dtype: number format of the teacher's weights; None is bfloat16 on an accelerator and float32
            on a CPU, or what the store was begun with.
        attention: implementation of the attention; None is what transformers chooses.
        batch_size: texts a batch; None is that of the other encoders. It is no part of an identity.
    """

    BEFORE: ClassVar[dict[str, tuple[Any, ...]]] = dict.fromkeys(
        ("compute_dtype", "attention", "batch_size"), (None,)
    )

    checkpoint: str = "Qwen/Qwen3-Embedding-8B"
    query_prompt: str | None = None
    passage_prompt: str | None = None
    max_length: Positive | None = None
    dtype: Literal["float16", "float32"] = "float16"
    compute_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    attention: Attention | None = None
    batch_size: Positive | None = None
    _device: str | None = PrivateAttr(None)

    @property
    def device(self) -> str | None:
        """Torch device; None is the fastest that is there."""
        return self._device

    def on(self, device: str | None, batch_size: int = 64) -> Self:
        """The same on a device, with so many texts a batch unless the options say another number."""
        changed = self.model_copy(update={"batch_size": self.batch_size or batch_size})
        changed._device = device
        return changed

    def identity(self) -> dict[str, Any]:
        return {name: value for name, value in super().identity().items() if name != "batch_size"}


class Recipe(Record):
    """Everything of a training run but its place.

    >>> Recipe(pairs="debian/pairs", stage1={"epochs": 3}).stage1.batch_size
    128

    Attributes:
        pairs, table: data of stage 1 and of stage 2, directories that `mimo data` wrote.
        dev: collection that is scored during training.
        seed: of the plan, of fresh weights and of dropout.
        report_to: trackers besides the files of a run, as the trainer names them: "wandb", "mlflow", ...
    """

    student: StudentOptions = StudentOptions()
    teacher: TeacherOptions = TeacherOptions()
    pairs: str | None = None
    table: str | None = None
    dev: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    report_to: Trackers = ()
    stage1: Stage1Options = Stage1Options()
    stage2: Stage2Options = Stage2Options()

    @classmethod
    def read(cls, path: Path | None, changes: Mapping[str, Any] | None = None) -> Self:
        """A recipe from a YAML file, with other values in place of some of its own.

        Args:
            path: None starts from the defaults.
            changes: dotted field, such as "stage1.steps" -> value; None is left out.

        Raises:
            UsageError: the file is no recipe, or a value is not allowed; all of them together.
        """
        file = None if path is None else read_yaml(path)
        values = {} if file is None else file.values
        for name, value in (changes or {}).items():
            section, _, field = name.rpartition(".")
            inner = values.setdefault(section, {}) if section and value is not None else values
            if value is not None and isinstance(inner, dict):
                inner[field] = value

        def where(place: Place) -> str:
            return "the recipe" if file is None else file.where(place)

        return validate(cls, values, where)

    def write(self, path: Path) -> None:
        """Writes the recipe as YAML, every option with its value."""
        make_parent(path)
        write_text(path, yaml_text(self.model_dump(mode="json")))
