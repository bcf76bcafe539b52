"""From a stage's options to its loss."""

from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.training.losses import CrossLingualContrastive, Distillation, Joint, LanguageAlignment
from mimo_plugin.training.options import PROJECTION_INPUT, ProjectionInput, Stage2Options, StageOptions
from mimo_plugin.training.schedule import Objective

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn


def build_loss(
    model: "SentenceTransformer",
    options: StageOptions,
    teacher_dimension: int | None,
    projection: Path | None,
) -> tuple["nn.Module", "nn.Module | None"]:
    """The loss of a stage, and its projection where it has one.

    Args:
        teacher_dimension: of the teacher's embeddings; None where there is no teacher.
        projection: a trained projection to go on with; None starts with random weights.
    """
    if not isinstance(options, Stage2Options) or options.objective is Objective.MIMO:
        distillation = Distillation(
            model,
            options.metric.value,
            teacher_dimension,
            projection,
            mini_batch_size=options.mini_batch_size,
            raw=(options.projection_input or PROJECTION_INPUT) is ProjectionInput.RAW,
        )
        if not isinstance(options, Stage2Options):
            return distillation, distillation.projection
        joint = Joint(
            model,
            distillation,
            weight=options.contrastive_weight,
            mini_batch_size=options.mini_batch_size,
            temperature=options.temperature,
            cache=options.cache_gradients,
        )
        return joint, distillation.projection
    if options.objective is Objective.LAKDA:
        return LanguageAlignment(
            model,
            options.mini_batch_size,
            options.temperature,
            options.lakda_alpha,
            cache=options.cache_gradients,
        ), None
    return CrossLingualContrastive(
        model, options.mini_batch_size, options.temperature, cache=options.cache_gradients
    ), None
