"""The recipe of an experiment: what its systems share, and the grid of what differs between them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from mimo_plugin.errors import UsageError
from mimo_plugin.evaluation.choices import Correction, SignificanceTest
from mimo_plugin.evaluation.significance import Plan
from mimo_plugin.manifests import Record, field_problems
from mimo_plugin.training.options import (
    Metric,
    Share,
    Stage1Options,
    Stage2Options,
    StudentOptions,
    TeacherSettings,
    read_yaml,
)
from mimo_plugin.training.schedule import Objective

# They become names of directories.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Specs = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(lambda found: (found,) if isinstance(found, str) else found),
    Field(min_length=1),
]

# What a system says by fields of its own.
_OWN_FIELDS = {
    "objective": "objective",
    "contrastive_weight": "lambda",
    "carry_projection": "carry_projection",
    "metric": "metric",
}


class Data(Record):
    """Directories that `mimo data` wrote.

    Attributes:
        pairs: of stage 1; None where no system has a warm-up.
        table: of stage 2.
    """

    pairs: str | None = None
    table: str


class System(Record):
    """What is a system's own.

    Attributes:
        objective: of stage 2.
        warm_up: whether stage 1 comes before; None is yes for MIMO and no for a baseline.
        contrastive_weight: lambda; None is that of the shared stage-2 options. MIMO only.
        carry_projection: see `Stage2Options`. MIMO with a warm-up only.
        metric: of the distillation in both stages.
        anchor: data made for another anchor language, in place of the shared.
        stage1, stage2: further options in place of the shared ones.
    """

    objective: Objective
    warm_up: bool | None = None
    contrastive_weight: Share | None = Field(None, alias="lambda")
    carry_projection: bool | None = None
    metric: Metric | None = None
    anchor: Data | None = None
    stage1: Annotated[dict[str, Any], Field(default_factory=dict)]
    stage2: Annotated[dict[str, Any], Field(default_factory=dict)]

    @property
    def warmed_up(self) -> bool:
        return self.objective is Objective.MIMO if self.warm_up is None else self.warm_up

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        mimo = self.objective is Objective.MIMO
        if not mimo and self.contrastive_weight is not None:
            yield f"lambda is MIMO's, {self.objective} has none: leave it out"
        if self.carry_projection is not None and not mimo:
            yield f"carry_projection is MIMO's, {self.objective} has no projection: leave it out"
        if self.carry_projection and mimo and not self.warmed_up:
            yield "carry_projection needs a warm-up, and warm_up is false: leave one of them out"
        if self.metric is not None and not mimo and not self.warmed_up:
            yield f"metric is of the distillation, {self.objective} without a warm-up has none: leave it out"
        if self.stage1 and not self.warmed_up:
            yield "stage1 has options, and there is no warm-up: leave them out or say `warm_up: true`"
        for section in ("stage1", "stage2"):
            for field in sorted(_OWN_FIELDS.keys() & getattr(self, section)):
                yield f"{section}.{field} is said for the whole system: `{_OWN_FIELDS[field]}: ...`"


class EncoderSettings(Record):
    """How trained students encode when they are scored; None is what their own files say.

    Attributes:
        query_prompt, document_prompt, dimension: see `EncoderOptions`.
    """

    query_prompt: str | None = None
    document_prompt: str | None = None
    dimension: Annotated[int, Field(ge=1)] | None = None


class ExperimentRecipe(Record):
    """A grid of systems and seeds; paths are relative to the recipe's own directory.

    Attributes:
        name: of the experiment.
        data: that all systems are trained on.
        dev: collection that is scored during training, so that the best checkpoint is kept; None keeps the
            last.
        collections: name -> the collections of the pool that every trained student is scored on.
        student, teacher, stage1, stage2: shared by all systems.
        encoder: how the trained students are scored.
        systems: name -> what is its own.
        seeds: every system is trained under each.
        baseline: system that the others are compared with; None compares nothing.
        measures: the first is the one that is tested.
        test, correction, alpha, permutations: as `mimo evaluate` has them.
    """

    name: Name
    data: Data
    dev: str | None = None
    collections: Annotated[dict[Name, Specs], Field(min_length=1)]
    student: StudentOptions = StudentOptions()
    teacher: TeacherSettings = TeacherSettings()
    stage1: Stage1Options = Stage1Options()
    stage2: Stage2Options = Stage2Options()
    encoder: EncoderSettings = EncoderSettings()
    systems: Annotated[dict[Name, System], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (1, 2, 3)
    baseline: str | None = None
    measures: Annotated[tuple[str, ...], Field(min_length=1)] = ("ndcg@20", "recall@100")
    test: Literal[SignificanceTest.STUDENT, SignificanceTest.PERMUTATION] = SignificanceTest.STUDENT
    correction: Correction = Correction.HOLM
    alpha: Annotated[float, Field(gt=0, lt=1)] = Plan.alpha
    permutations: Annotated[int, Field(ge=1000)] = Plan.permutations


def read_recipe(path: Path) -> ExperimentRecipe:
    """Reads a recipe file.

    Raises:
        UsageError: it is no recipe; with every field that is not as it must be.
    """
    try:
        return ExperimentRecipe.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UsageError("\n".join(f"{path}: {problem}" for problem in field_problems(error))) from error
