"""Options of a training run. Defaults are those of the MIMO paper's recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field

from mimo_plugin.core.artifact import Record
from mimo_plugin.core.config import Place, read_yaml, validate, yaml_text
from mimo_plugin.core.errors import UsageError
from mimo_plugin.core.files import make_parent, write_text
from mimo_plugin.core.option import ADVANCED, Option, Progress
from mimo_plugin.training.models import Options, Positive, StudentOptions, TeacherOptions
from mimo_plugin.training.schedule import Objective

Share = Annotated[float, Field(ge=0, le=1)]
Trackers = Annotated[
    tuple[str, ...], BeforeValidator(lambda found: (found,) if isinstance(found, str) else found)
]
# Groups of options in `--help`.
MEMORY, CHECKPOINTS = "Memory and speed", "Checkpoint"


def _from_to(given: Any) -> tuple[float, float]:
    """Two shares from "FROM:TO" or a sequence of two numbers."""
    try:
        first, last = given.split(":") if isinstance(given, str) else given
        shares = float(first), float(last)
        if all(0 <= share <= 1 for share in shares):
            return shares
    except (TypeError, ValueError):
        pass
    raise ValueError(f"found {given!r}, expected FROM:TO, two shares from 0 to 1 such as 0:0.5")


Shares = Annotated[tuple[float, float], BeforeValidator(_from_to)]
# Evaluations and checkpoints per run, by default.
_TIMES = 10


class Metric(StrEnum):
    """Distance between the projected student and the teacher."""

    COSINE = "cosine"
    L2 = "l2"
    MSE = "mse"


class Precision(StrEnum):
    """Number format of the forward pass; weights and optimiser are always float32.

    AUTO is bfloat16 if the device computes it natively (CUDA since Ampere, CPUs with AMX), else float32.
    """

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class ProjectionInput(StrEnum):
    """Input of the projection to the teacher's space.

    RAW is the student's vector before L2-normalisation, as in the paper; NORMALIZED is the vector after it.
    """

    RAW = "raw"
    NORMALIZED = "normalized"


# Measured, see performance/README.md.
PROJECTION_INPUT = ProjectionInput.RAW


class StageOptions(Options):
    """Options of both stages.

    Attributes:
        gradient_accumulation_steps: number of equal parts of a batch; their gradients are averaged.
        save_steps: with a dev collection the same as `eval_steps`, as every evaluation saves a checkpoint.
        collapse_steps: consecutive steps, counted after the warm-up.
        anchor_share: at the first and the last step, linear between them; None has no anchor teacher.
    """

    BEFORE: ClassVar[dict[str, tuple[Any, ...]]] = {
        "projection_input": (None, ProjectionInput.NORMALIZED),
        "gradient_accumulation_steps": (1,),
        "gradient_checkpointing": (False,),
        "anchor_share": (None,),
    }

    batch_size: Annotated[
        Positive, Option("Texts (stage 1) or rows (stage 2) an optimiser step, over all devices.")
    ]
    learning_rate: Annotated[float, Field(gt=0), Option("Highest learning rate; it falls linearly to 0.")]
    max_length: Annotated[int, Field(ge=3), Option("Longest text in tokens.")]
    mini_batch_size: Annotated[
        Positive, Option("Texts embedded at a time, sorted by length.", group=MEMORY)
    ] = 32
    warmup: Annotated[
        Share, Option("Share of the steps over which the learning rate rises.", group=ADVANCED)
    ] = 0.1
    epochs: Annotated[float, Field(gt=0), Option("Passes over the data.")] = 1.0
    steps: Annotated[Positive | None, Option("Optimiser steps, in place of --epochs.")] = None
    weight_decay: Annotated[float, Field(ge=0), Option("Of AdamW.", group=ADVANCED)] = 0.0
    max_grad_norm: Annotated[
        float, Field(gt=0), Option("The encoder's gradient norm is clipped to this value.", group=ADVANCED)
    ] = 1.0
    metric: Annotated[Metric, Option("Distance of the projected student to the teacher.", group=ADVANCED)] = (
        Metric.COSINE
    )
    projection_input: Annotated[
        ProjectionInput | None,
        Option(
            "The projection's input: the pooled vector as in the paper (raw), or L2-normalised.  "
            f"[default: as in stage 1, else {PROJECTION_INPUT}]",
            group=ADVANCED,
        ),
    ] = None
    precision: Annotated[
        Precision, Option("Of the forward pass; auto is bfloat16 where the device has it.", group=MEMORY)
    ] = Precision.AUTO
    gradient_accumulation_steps: Annotated[
        Positive,
        Option(
            "Split each batch into so many consecutive parts; each sees the negatives of its own part only.",
            group=MEMORY,
        ),
    ] = 1
    gradient_checkpointing: Annotated[
        bool,
        Option(
            "Recompute activations in the backward pass: slower, with less memory.",
            name="--gradient-checkpointing/--no-gradient-checkpointing",
            group=MEMORY,
        ),
    ] = False
    eval_steps: Annotated[
        Positive | None,
        Option(
            "Steps between evaluations on --dev, each with a checkpoint.  [default: ten times a run]",
            group=CHECKPOINTS,
        ),
    ] = None
    save_steps: Annotated[
        Positive | None,
        Option(
            "Steps between checkpoints, each evaluated on --dev.  [default: ten times a run]",
            group=CHECKPOINTS,
        ),
    ] = None
    log_steps: Annotated[Positive, Option("Steps between lines of metrics.", group=CHECKPOINTS)] = 10
    collapse_similarity: Annotated[
        Share, Option("Stop when the mean cosine of different texts stays above this ...", group=ADVANCED)
    ] = 0.99
    collapse_steps: Annotated[Positive, Option("... for so many steps.", group=ADVANCED)] = 100
    anchor_share: Annotated[
        Shares | None,
        Option(
            "Share of the texts whose target is --anchor-teacher's vector of the student's own text, at the "
            "first and the last step.",
            metavar="FROM:TO",
            parse=str,
            group=ADVANCED,
        ),
    ] = None

    @property
    def reads(self) -> ProjectionInput:
        """The projection's input, with the default resolved."""
        return self.projection_input or PROJECTION_INPUT

    def steps_on(self, rows: int) -> int:
        """Optimiser steps: `steps` if given, else the full batches of `epochs` passes over the rows."""
        if rows < self.batch_size:
            raise UsageError(
                f"--batch-size {self.batch_size} is larger than the data, which has {rows} usable rows: "
                "choose a smaller batch or get more data"
            )
        return max(1, int(rows * self.epochs) // self.batch_size) if self.steps is None else self.steps

    def steps_between_checkpoints(self, steps: int, *, scored: bool) -> int:
        """Steps between checkpoints, and between evaluations.

        Args:
            steps: of the whole run.
            scored: whether there is a dev collection.
        """
        asked = self.save_steps, self.eval_steps if scored else None
        if all(asked) and asked[0] != asked[1]:
            raise UsageError(
                f"--save-steps {asked[0]} and --eval-steps {asked[1]} differ: every evaluation saves a "
                "checkpoint, so that the best one can be kept; give one of the two"
            )
        return asked[0] or asked[1] or max(1, -(-steps // _TIMES))

    def slice_of(self, processes: int) -> int:
        """Texts of a batch per process and part."""
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
        contrastive_weight: lambda. MIMO only.
        carry_projection: MIMO only.
        lakda_alpha: LaKDA only.
        negatives: see `examples.negatives_per_row`.
    """

    BEFORE: ClassVar[dict[str, tuple[Any, ...]]] = {**StageOptions.BEFORE, "negatives": (None,)}

    batch_size: Positive = 2048
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    max_length: Annotated[int, Field(ge=3)] = 512
    objective: Annotated[Objective, Option("MIMO, or a baseline.")] = Objective.MIMO
    contrastive_weight: Annotated[
        Share, Option("Share of the contrastive loss in MIMO.", name="--lambda")
    ] = 0.2
    temperature: Annotated[float, Field(gt=0), Option("Of the contrastive loss.", group=ADVANCED)] = 0.05
    cache_gradients: Annotated[
        bool,
        Option(
            "Need the memory of one mini-batch for any batch size; without, a step is a quarter faster.",
            name="--cache-gradients/--no-cache-gradients",
            group=MEMORY,
        ),
    ] = True
    carry_projection: Annotated[
        bool,
        Option(
            "Continue with stage 1's projection, or start a new one.",
            name="--carry-projection/--fresh-projection",
            group=ADVANCED,
        ),
    ] = True
    lakda_alpha: Annotated[Share, Option("Share of the divergence in LaKDA.", group=ADVANCED)] = 0.5
    negatives: Annotated[
        int | None,
        Field(ge=0),
        Option(
            "Mined negatives per row, of those that `mimo data negatives` put into the table; 0 leaves them "
            "out.  [default: all]",
            min=0,
        ),
    ] = None


class Recipe(Record):
    """Options and data of a training run, without its output directory.

    >>> Recipe(pairs="debian/pairs", stage1={"epochs": 3}).stage1.batch_size
    128

    Attributes:
        anchor_teacher: sets targets in stages with an `anchor_share`.
        pairs, table: directories that `mimo data` wrote, for stage 1 and stage 2.
        dev: collection that is evaluated during training.
        report_to: trackers, in addition to the files of a run.
    """

    student: StudentOptions = StudentOptions()
    teacher: TeacherOptions = TeacherOptions()
    anchor_teacher: Annotated[
        TeacherOptions | None,
        Option(
            "Multilingual encoder that takes the place of --teacher and the anchor for some texts, see "
            "--anchor-share.",
            metavar="CHECKPOINT",
            parse=lambda checkpoint: {"checkpoint": checkpoint},
        ),
    ] = None
    pairs: str | None = None
    table: str | None = None
    dev: Annotated[
        str | None,
        Option(
            "Evaluated while training, to keep the best checkpoint.  [default: none, the last one is kept]",
            metavar="COLLECTION",
        ),
    ] = None
    seed: Annotated[int, Field(ge=0, lt=2**32), Option("Seed of order, new weights, dropout.", min=0)] = 42
    report_to: Annotated[
        Trackers,
        Option(
            "Additional tracker: wandb, mlflow, ...; may be given more than once.",
            metavar="NAME",
            group=ADVANCED,
        ),
    ] = ()
    stage1: Stage1Options = Stage1Options()
    stage2: Stage2Options = Stage2Options()

    @classmethod
    def read(cls, path: str | Path | None, changes: Mapping[str, Any] | None = None) -> Self:
        """Reads a recipe from a YAML file, and changes some of its values.

        Args:
            path: None starts from the defaults.
            changes: field -> value; for a section such as `stage1`, a mapping of its fields.

        Raises:
            UsageError: the file is no recipe, or has invalid values; all are reported.
        """
        file = None if path is None else read_yaml(Path(path))
        values = {} if file is None else file.values
        for name, value in (changes or {}).items():
            if not isinstance(value, Mapping):
                values[name] = value
            elif isinstance(before := values.get(name) or {}, dict):
                values[name] = {**before, **value}

        def where(place: Place) -> str:
            return "the recipe" if file is None else file.where(place)

        return validate(cls, values, where)

    def write(self, path: Path) -> None:
        """Writes the recipe as YAML, every option with its value."""
        make_parent(path)
        write_text(path, yaml_text(self.model_dump(mode="json")))


@dataclass(frozen=True)
class RunSettings:
    """Where and how a stage runs. These settings do not change the weights."""

    output: Annotated[Path, Option("Directory of a new or interrupted run.")]
    teacher_store: Annotated[
        Path | None,
        Option(
            "Directory of the teacher's embeddings, shared between runs.  [default: teacher-store beside "
            "--output]",
            group="Teacher",
        ),
    ] = None
    device: Annotated[
        str | None, Option("cpu, cuda or mps.  [default: the fastest available]", group=MEMORY)
    ] = None
    encoder_batch_size: Annotated[
        int, Option("Batch size for the teacher and --dev.", min=1, group=ADVANCED)
    ] = 64
    resume: Annotated[bool, Option("Resume an interrupted run, or start over.", group=ADVANCED)] = True
    progress: Progress = None

    @property
    def store(self) -> Path:
        """Directory of the teacher's embeddings."""
        return self.teacher_store or self.output.absolute().parent / "teacher-store"
