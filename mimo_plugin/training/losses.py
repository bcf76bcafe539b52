"""The losses, built on sentence-transformers' own."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    EmbedDistillLoss,
)
from sentence_transformers.sentence_transformer.modules import Normalize
from sentence_transformers.util import all_gather_with_grad
from torch import Tensor, nn
from torch.nn import functional

from mimo_plugin.training.recipe import ProjectionInput, Stage2Options, StageOptions
from mimo_plugin.training.run import ANCHOR_PROJECTION, PROJECTION
from mimo_plugin.training.schedule import Objective

Features = dict[str, Tensor]


def mean_similarity(embeddings: Tensor) -> Tensor:
    """Mean cosine over all pairs of different rows; embeddings (n, d). 1 is a collapsed encoder."""
    unit = functional.normalize(embeddings.detach().float(), dim=-1)
    n = len(unit)
    if n < 2:
        return unit.new_zeros(())
    return (unit.sum(dim=0).square().sum() - n) / (n * (n - 1))


def _average_over_devices(gradient: Tensor) -> Tensor:
    total = gradient.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


class _LastInput:
    """Keeps the input of a model's last module if that is the L2-normalisation."""

    def __init__(self, model: SentenceTransformer) -> None:
        self.vectors: Tensor | None = None
        last = list(model)[-1]
        if isinstance(last, Normalize):
            last.register_forward_pre_hook(self._keep)

    def _keep(self, _: nn.Module, inputs: tuple[Features, ...]) -> None:
        self.vectors = inputs[0]["sentence_embedding"]


class _MiniBatches(CachedLossMixin):
    """Embeds a batch in mini-batches, each padded to its own longest text.

    Vectors are the model's, also truncated as it does (`truncate_dim`).
    """

    # Set to get the vectors before their normalisation.
    last_input: _LastInput | None = None
    truncate_dim: int | None = None

    def embed_minibatch(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        vectors, random_state = super().embed_minibatch(*args, **kwargs)
        if self.last_input is not None and self.last_input.vectors is not None:
            vectors, self.last_input.vectors = self.last_input.vectors, None
        return vectors[:, : self.truncate_dim], random_state

    def embed(self, columns: Iterable[Features]) -> list[list[Tensor]]:
        """The embeddings of each column with gradients, one tensor per mini-batch."""
        return [
            [rep for rep, _ in self.embed_minibatch_iter(features, with_grad=True, copy_random_state=False)]
            for features in columns
        ]


class Distillation(_MiniBatches, EmbedDistillLoss):
    """Stage 1: mean cosine distance between the projected student and the teacher, eq. (1) of the MIMO paper.

    With an anchor teacher, the target of text i is drawn: the teacher's embedding of its anchor text,
    `y_i = T(anchor_i)`, or the anchor teacher's of the text itself, `y_i = A(x_i)`. The loss is
    `1/n * sum_i d(P_i(h_i), y_i)`: P_i is the projection to the space of the drawn teacher. Each teacher has
    a projection, since their spaces differ, even where their dimensions do not; one for both would pull a
    text and its translation to unrelated points. A text counts once, whichever teacher is drawn.

    Projections belong to the loss. DistributedDataParallel wraps only the model, so their gradients are
    averaged over devices here.

    Args:
        projection_dim: t.
        projection: file of a trained projection to continue with; None starts with random weights.
        anchor_dim: a, the anchor teacher's; None without one. Each target is then the drawn vector, padded
            with zeros to max(t, a), and a last number: 1 if the anchor teacher was drawn, else 0.
        anchor_projection: as `projection`, for the anchor teacher.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        options: StageOptions,
        projection_dim: int | None,
        projection: Path | None = None,
        anchor_dim: int | None = None,
        anchor_projection: Path | None = None,
    ) -> None:
        super().__init__(model, distance_metric=options.metric.value, projection_dim=projection_dim)
        self.mini_batch_size = options.mini_batch_size
        self.truncate_dim = model.truncate_dim
        self.raw = options.reads is ProjectionInput.RAW
        self.last_input = _LastInput(model) if self.raw else None
        if projection is not None:
            self.load_projection(projection)
        self.anchor: EmbedDistillLoss | None = None
        if anchor_dim is not None:
            self.anchor = EmbedDistillLoss(model, options.metric.value, anchor_dim)
            if anchor_projection is not None:
                self.anchor.load_projection(anchor_projection)
        self.parts: dict[str, Tensor] = {}
        if _distributed():
            for name, parameter in self.named_parameters():
                if name.startswith("model."):
                    continue
                torch.distributed.broadcast(parameter.data, 0)
                parameter.register_hook(_average_over_devices)

    @property
    def projections(self) -> dict[str, nn.Module]:
        """Name of a projection's file -> the projection."""
        own = {PROJECTION: self.projection}
        return own if self.anchor is None else {**own, ANCHOR_PROJECTION: self.anchor.projection}

    def forward(self, sentence_features: Iterable[Features], labels: Tensor) -> Tensor:
        embeddings = [torch.cat(reps) for reps in self.embed(sentence_features)]
        return self.compute_loss_from_embeddings(embeddings, [labels])

    def compute_loss_from_embeddings(
        self, embeddings: list[Tensor], teacher_embeddings: list[Tensor]
    ) -> Tensor:
        # Cosines near 1 need more digits than bfloat16 has.
        with torch.autocast(embeddings[0].device.type, enabled=False):
            inputs = [embedding.float() for embedding in embeddings]
            if self.truncate_dim is not None and not self.raw:
                # The model normalises before it truncates.
                inputs = [functional.normalize(vectors, dim=-1) for vectors in inputs]
            loss: Tensor
            if self.anchor is None:
                loss = super().compute_loss_from_embeddings(inputs, teacher_embeddings)
            else:
                columns = zip(inputs, teacher_embeddings, strict=True)
                loss = torch.stack([self._drawn(self.anchor, *column) for column in columns]).mean()
        self.parts = {
            "distillation": loss.detach(),
            "similarity": mean_similarity(torch.cat(embeddings)),
        }
        if self.anchor is not None:
            self.parts["anchor_share"] = torch.stack([target[:, -1] for target in teacher_embeddings]).mean()
        return loss

    def _drawn(self, anchor: EmbedDistillLoss, vectors: Tensor, targets: Tensor) -> Tensor:
        """The loss of one column: its mean over texts of each teacher, weighted by their number."""
        by_anchor = targets[:, -1] > 0
        parts = []
        for loss, rows in ((self, ~by_anchor), (anchor, by_anchor)):
            projection, some = loss.projection, vectors[rows]
            if len(some):
                target = targets[rows, : projection.out_features]
                mean = EmbedDistillLoss.compute_loss_from_embeddings(loss, [some], [target])
                parts.append(mean * (len(some) / len(vectors)))
            else:
                # Zero, but each projection has a gradient in each process: they wait for each other's.
                parts.append(projection(some).sum())
        return parts[0] + parts[1]


class _Contrastive(_MiniBatches, nn.Module):
    """A loss over the embeddings of a whole batch.

    With cached gradients it embeds twice, and keeps the activations of one mini-batch only.
    """

    def __init__(self, model: SentenceTransformer, options: Stage2Options) -> None:
        super().__init__()
        self.model = model
        self.mini_batch_size = options.mini_batch_size
        self.truncate_dim = model.truncate_dim
        self.cache = options.cache_gradients
        self.parts: dict[str, Tensor] = {}

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None) -> Tensor:
        columns = list(sentence_features)
        # A batch of one mini-batch is all in memory anyway.
        if self.cache and len(columns[0]["input_ids"]) > self.mini_batch_size:
            loss: Tensor = self.forward_cached(columns, labels)
            return loss
        return self.calculate_loss(self.embed(columns), labels)


class CrossLingualContrastive(_Contrastive):
    """XLCO; InfoNCE if both texts of a row are in one language.

    Cross entropy over `cos / temperature` with all passages of all devices, positives on the diagonal. With N
    mined negatives a row (columns: query, passage, N negatives) the scores are (B, B + N * B): every query
    is compared with the negatives of all rows.
    """

    def __init__(self, model: SentenceTransformer, options: Stage2Options) -> None:
        super().__init__(model, options)
        self.ranking = CachedMultipleNegativesRankingLoss(
            model,
            scale=1 / options.temperature,
            mini_batch_size=options.mini_batch_size,
            gather_across_devices=_distributed(),
        )

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        with torch.autocast(reps[0][0].device.type, enabled=False):
            vectors = [[rep.float() for rep in column] for column in reps]
            loss: Tensor = self.ranking.calculate_loss(vectors, None, with_backward=with_backward)
        self.parts = {"contrastive": loss.detach(), "similarity": mean_similarity(torch.cat(reps[1]))}
        return loss


class Joint(_Contrastive):
    """Stage 2 of MIMO: `weight * L_XLCO + (1 - weight) * L_Distill`, eq. (4) of the MIMO paper.

    The contrastive part compares the student's own vectors. The distillation compares the projected query and
    passage with the teacher's embeddings in the anchor language, labels (L, 2, t). Mined negatives are part
    of the contrastive loss only.

    With cached gradients, backward runs before the trainer scales the loss. The base class holds the vectors'
    gradients back until then, and this class those of the projection.
    """

    def __init__(
        self, model: SentenceTransformer, options: Stage2Options, distillation: Distillation
    ) -> None:
        super().__init__(model, options)
        self.contrastive = CrossLingualContrastive(model, options)
        self.distillation = distillation
        self.last_input = distillation.last_input
        self.weight = options.contrastive_weight

    def forward_cached(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        parameters = [p for layer in self.distillation.projections.values() for p in layer.parameters()]
        before = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        loss: Tensor = super().forward_cached(sentence_features, labels)
        own = [parameter.grad for parameter in parameters]
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient

        def add(scale: Tensor) -> None:
            for parameter, gradient in zip(parameters, own, strict=True):
                scaled = gradient * scale
                parameter.grad = scaled if parameter.grad is None else parameter.grad + scaled

        if loss.requires_grad:
            loss.register_hook(add)
        return loss

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        if labels is None:
            raise ValueError("the joint loss needs the teacher's embeddings as labels")
        contrastive = self.contrastive.calculate_loss(reps, with_backward=with_backward)
        if with_backward:
            # Its backward pass has run already, unweighted.
            for rep in (rep for column in reps for rep in column):
                rep.grad *= self.weight
        columns = [torch.cat(column) for column in reps[:2]]
        distillation = self.distillation.compute_loss_from_embeddings(columns, list(labels.unbind(dim=1)))
        if with_backward:
            ((1 - self.weight) * distillation).backward()
            distillation = distillation.detach()
        self.parts = {**self.distillation.parts, **self.contrastive.parts}
        return self.weight * contrastive + (1 - self.weight) * distillation


class LanguageAlignment(_Contrastive):
    """LaKDA: `(1 - a) * InfoNCE(q_a, p) + a * KL(p_b || p_a)` with `p_x = softmax(cos(q_x, passages))`.

    q_a and q_b are one query in two languages; the passage's language is drawn independently. Gradients flow
    through both queries. Columns: query, other query, passage. The divergence has no temperature.
    """

    def __init__(self, model: SentenceTransformer, options: Stage2Options) -> None:
        super().__init__(model, options)
        self.contrastive = CrossLingualContrastive(model, options)
        self.alpha = options.lakda_alpha

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        query, other, passage = reps
        contrastive = self.contrastive.calculate_loss([query, passage], with_backward=with_backward)
        if with_backward:
            for rep in (rep for column in (query, passage) for rep in column):
                rep.grad *= 1 - self.alpha
        divergence = self._divergence(torch.cat(query), torch.cat(other), torch.cat(passage))
        if with_backward:
            (self.alpha * divergence).backward()
            divergence = divergence.detach()
        self.parts = {"divergence": divergence.detach(), **self.contrastive.parts}
        return (1 - self.alpha) * contrastive + self.alpha * divergence

    def _divergence(self, query: Tensor, other: Tensor, passage: Tensor) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            passages = functional.normalize(passage.float(), dim=-1)
            if _distributed():
                passages = all_gather_with_grad(passages)
            logs = [
                functional.log_softmax(functional.normalize(rep.float(), dim=-1) @ passages.T, dim=-1)
                for rep in (query, other)
            ]
            # KL(p_b || p_a), (L, N) -> mean over queries
            return functional.kl_div(logs[0], logs[1], log_target=True, reduction="batchmean")


def _distributed() -> bool:
    return bool(torch.distributed.is_available() and torch.distributed.is_initialized())


def build_loss(
    model: SentenceTransformer,
    options: StageOptions,
    dimensions: Sequence[int],
    projections: Mapping[str, Path],
) -> tuple[nn.Module, dict[str, nn.Module]]:
    """The loss of a stage, and its projections by the names of their files.

    Args:
        dimensions: of the embeddings of the teacher, and of the anchor teacher; empty without a teacher.
        projections: name -> file of a trained projection to continue with; the others start with random
            weights.
    """
    if isinstance(options, Stage2Options) and options.objective is Objective.LAKDA:
        return LanguageAlignment(model, options), {}
    if isinstance(options, Stage2Options) and options.objective is not Objective.MIMO:
        return CrossLingualContrastive(model, options), {}
    teacher, anchor = (*dimensions, None, None)[:2]
    carried = projections.get(PROJECTION), projections.get(ANCHOR_PROJECTION)
    distillation = Distillation(model, options, teacher, carried[0], anchor, carried[1])
    if isinstance(options, Stage2Options):
        return Joint(model, options, distillation), distillation.projections
    return distillation, distillation.projections
