"""What a training run is asked to do. Defaults are those of the MIMO paper's recipe."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from mimo_plugin.core.artifact import Record
from mimo_plugin.core.errors import UsageError
from mimo_plugin.core.files import make_parent, write_text
from mimo_plugin.training.schedule import Objective
from mimo_plugin.training.teacher_store import TeacherOptions

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
Trackers = Annotated[
    tuple[str, ...], BeforeValidator(lambda found: (found,) if isinstance(found, str) else found)
]
# Lists and mappings within each other in a file of YAML.
_DEEPEST = 20


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


class TeacherSettings(Options):
    """Attributes:
    checkpoint: the English teacher.
    query_prompt, passage_prompt: put before a text; None is the checkpoint's own.
    max_length: in tokens; None is the checkpoint's own.
    dtype: of the stored embeddings.
    compute_dtype: of the teacher's weights; None is bfloat16 on an accelerator and float32 on a CPU, or what
        the store was begun with.
    attention: implementation, see `TeacherOptions`.
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

    def identity(self) -> dict[str, Any]:
        """What decides the vectors, as plain data."""
        return {name: value for name, value in super().identity().items() if name != "batch_size"}

    def options(self, device: str | None, batch_size: int) -> TeacherOptions:
        return TeacherOptions(
            self.checkpoint,
            query_prompt=self.query_prompt,
            passage_prompt=self.passage_prompt,
            max_length=self.max_length,
            dtype=self.dtype,
            compute_dtype=self.compute_dtype,
            attention=self.attention,
            device=device,
            batch_size=self.batch_size or batch_size,
        )


class Recipe(Record):
    """Everything of a training run but its place; the data are directories that `mimo data` wrote.

    Attributes:
        dev: collection that is scored during training.
        seed: of the plan, of fresh weights and of dropout.
        report_to: trackers besides the files of a run, as the trainer names them: "wandb", "mlflow", ...
    """

    student: StudentOptions = StudentOptions()
    teacher: TeacherSettings = TeacherSettings()
    pairs: str | None = None
    table: str | None = None
    dev: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    report_to: Trackers = ()
    stage1: Stage1Options = Stage1Options()
    stage2: Stage2Options = Stage2Options()


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        UsageError: it cannot be read, holds something else, or says a field twice.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        _refuse_traps(path, text)
        loader = _loader()(text)
        node = loader.get_single_node()
        repeated = next(_repeated_keys(node), None)
        found = None if node is None or repeated is not None else loader.construct_document(node)
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    # No UTF-8; a date or number that there is not.
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{path} cannot be read as YAML: {error}") from error
    if repeated is not None:
        raise UsageError(f"{path}{repeated}, the first would be lost: name each once")
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds {type(found).__name__}, expected a mapping such as `seed: 42`")
    return found


def _refuse_traps(path: Path, text: str) -> None:
    """Refuses what a few lines can make larger than any memory, or slower than anybody waits."""
    import yaml

    depth = 0
    for event in yaml.parse(text, _loader()):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(f"{path}:{line}: *{event.anchor} is an alias, expected the value itself")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise UsageError(f"{path}:{line}: nested in {depth} lists and mappings, expected a few")


def _loader() -> Any:
    """YAML's safe loader, with the parser in C where there is one: ten times as fast."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _repeated_keys(node: Any) -> Iterator[str]:
    """Where a mapping has a key for the second time, of which YAML's loader keeps the last without a word."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                yield f":{key.start_mark.line + 1}: {key.value!r} is there twice"
            seen.add(key.value)
        for _, value in node.value:
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated_keys(value)


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Writes a recipe as YAML, every option with its value."""
    import yaml

    make_parent(path)
    write_text(path, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
