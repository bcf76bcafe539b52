"""Each loss against its formula, written out in float64."""

from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_training

from mimo_plugin.training.losses import Distillation, build_loss, mean_similarity
from mimo_plugin.training.recipe import Metric, ProjectionInput, Stage1Options, Stage2Options
from mimo_plugin.training.run import ANCHOR_PROJECTION, PROJECTION
from mimo_plugin.training.schedule import Objective
from mimo_plugin.training.student import load_or_create

ROWS, DIMENSION, TEACHER, ANCHOR = 7, 32, 20, 12
CHUNKS = (3, 3, 1)
SEED = np.random.SeedSequence(4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    directory = tiny_training.student(tmp_path_factory.mktemp("model"), dropout=0.0)
    return load_or_create(str(directory), (), seed=0, device="cpu")


def drawn(columns: int, dimension: int, seed: int) -> np.ndarray:
    """(columns, rows, dimension)"""
    return np.random.default_rng(seed).normal(size=(columns, ROWS, dimension)).astype(np.float32)


def chunked(column: np.ndarray) -> list:
    import torch

    return list(torch.from_numpy(column).split(list(CHUNKS)))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def distilled(reps, labels, projection, metric: str) -> float:
    """The mean over columns of the mean distance over rows."""
    weight = projection.weight.detach().numpy().astype(np.float64)
    bias = projection.bias.detach().numpy().astype(np.float64)
    means = []
    for column, teacher in zip(reps.astype(np.float64), labels.astype(np.float64), strict=True):
        mapped = column @ weight.T + bias
        if metric == "cosine":
            distance = 1 - (unit(mapped) * unit(teacher)).sum(axis=1)
        elif metric == "l2":
            distance = np.sqrt(((mapped - teacher) ** 2).sum(axis=1))
        else:
            distance = ((mapped - teacher) ** 2).mean(axis=1)
        means.append(distance.mean())
    return float(np.mean(means))


def contrastive(queries, passages, *negatives, temperature: float = 0.05) -> float:
    """Scores (rows, rows + negatives), the positives on the diagonal."""
    documents = np.concatenate([passages, *negatives]).astype(np.float64)
    scores = unit(queries.astype(np.float64)) @ unit(documents).T / temperature
    return float(-np.diag(log_softmax(scores)).mean())


def divergence(query, other, passages) -> float:
    """KL(p_other || p_query), softmax over cosines as they are."""
    space = unit(passages.astype(np.float64)).T
    log_a, log_b = (log_softmax(unit(rows.astype(np.float64)) @ space) for rows in (query, other))
    return float((np.exp(log_b) * (log_b - log_a)).sum(axis=1).mean())


def value(loss, reps: np.ndarray, labels=None) -> float:
    import torch

    teacher = None if labels is None else torch.from_numpy(labels.transpose(1, 0, 2).copy())
    return float(loss.calculate_loss([chunked(column) for column in reps], teacher).detach())


@pytest.mark.parametrize("metric", [metric.value for metric in Metric])
@pytest.mark.parametrize("columns", [1, 2])
def test_distillation(model, metric: str, columns: int) -> None:
    import torch

    loss, projections = build_loss(model, Stage1Options(metric=Metric(metric)), [TEACHER], {})
    projection = projections[PROJECTION]
    reps, labels = drawn(columns, DIMENSION, 1), drawn(columns, TEACHER, 2)
    found = loss.compute_loss_from_embeddings(list(torch.from_numpy(reps)), list(torch.from_numpy(labels)))
    assert projection.weight.shape == (TEACHER, DIMENSION)
    assert float(found.detach()) == pytest.approx(distilled(reps, labels, projection, metric), rel=1e-5)
    assert float(loss.parts["distillation"]) == float(found.detach())


def mixed(teacher: np.ndarray, anchor: np.ndarray, by_anchor: np.ndarray) -> np.ndarray:
    """Targets of columns: the drawn vector, zeros up to the longer one's length, which one it is."""
    width = max(TEACHER, ANCHOR)
    padded = [np.pad(one, ((0, 0), (0, 0), (0, width - one.shape[2]))) for one in (teacher, anchor)]
    which = by_anchor[..., None]
    return np.concatenate([np.where(which, padded[1], padded[0]), which.astype(np.float32)], axis=2)


@pytest.mark.parametrize("metric", [metric.value for metric in Metric])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("larger", ["teacher", "anchor teacher"])
def test_distillation_from_two_teachers(model, metric: str, share: float, larger: str) -> None:
    """The mean over all texts of the distance to the teacher that was drawn, each by its own projection."""
    import torch

    dimensions = (TEACHER, ANCHOR) if larger == "teacher" else (ANCHOR, TEACHER)
    loss, projections = build_loss(model, Stage1Options(metric=Metric(metric)), dimensions, {})
    reps = drawn(2, DIMENSION, 1)
    teacher, anchor = (drawn(2, dimension, 2) for dimension in dimensions)
    by_anchor = np.random.default_rng(3).random((2, ROWS)) < share
    distances = [
        distilled(reps[c, None, r, None], target[c, None, r, None], projections[name], metric)
        for c in range(2)
        for r in range(ROWS)
        for name, target in [
            (ANCHOR_PROJECTION, anchor) if by_anchor[c, r] else (PROJECTION, teacher),
        ]
    ]
    targets = list(torch.from_numpy(mixed(teacher, anchor, by_anchor)))
    found = loss.compute_loss_from_embeddings(list(torch.from_numpy(reps)), targets)
    assert float(found.detach()) == pytest.approx(np.mean(distances), rel=1e-5)
    assert float(loss.parts["anchor_share"]) == pytest.approx(by_anchor.mean())
    found.backward()
    for name, drawn_rows in ((PROJECTION, ~by_anchor), (ANCHOR_PROJECTION, by_anchor)):
        assert bool(projections[name].weight.grad.any()) == drawn_rows.any()


@pytest.mark.parametrize("objective", [Objective.XLCO, Objective.INFONCE])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_contrastive(model, objective: Objective, temperature: float) -> None:
    options = Stage2Options(objective=objective, temperature=temperature, mini_batch_size=3)
    loss, projections = build_loss(model, options, [], {})
    assert projections == {}
    for columns in (2, 3, 5):
        reps = drawn(columns, DIMENSION, 3)
        assert value(loss, reps) == pytest.approx(contrastive(*reps, temperature=temperature), rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("metric", list(Metric))
def test_joint(model, weight: float, metric: Metric) -> None:
    options = Stage2Options(contrastive_weight=weight, mini_batch_size=3, metric=metric)
    loss, projections = build_loss(model, options, [TEACHER], {})
    labels = drawn(2, TEACHER, 6)
    for columns in (2, 4):
        reps = drawn(columns, DIMENSION, 5)
        # Mined negatives have no teacher.
        expected = weight * contrastive(*reps) + (1 - weight) * distilled(
            reps[:2], labels, projections[PROJECTION], metric.value
        )
        assert value(loss, reps, labels) == pytest.approx(expected, rel=1e-5)
    assert set(loss.parts) == {"contrastive", "distillation", "similarity"}


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_lakda(model, alpha: float) -> None:
    options = Stage2Options(objective=Objective.LAKDA, lakda_alpha=alpha, mini_batch_size=3)
    loss, _ = build_loss(model, options, [], {})
    query, other, passage = reps = drawn(3, DIMENSION, 7)
    expected = (1 - alpha) * contrastive(query, passage) + alpha * divergence(query, other, passage)
    assert value(loss, reps) == pytest.approx(expected, rel=1e-5)


def test_both_sides_are_distilled_each_from_its_own_label(model) -> None:
    import torch

    loss, _ = build_loss(model, Stage2Options(contrastive_weight=0.0), [TEACHER], {})
    reps, labels = drawn(2, DIMENSION, 8), drawn(2, TEACHER, 9)
    assert value(loss, reps, labels) != pytest.approx(value(loss, reps, labels[::-1]), rel=1e-3)
    columns = [torch.from_numpy(column).requires_grad_() for column in reps]
    teacher = torch.from_numpy(labels.transpose(1, 0, 2).copy())
    found = loss.calculate_loss([[column] for column in columns], teacher)
    found.backward()
    for column in columns:
        assert (column.grad.norm(dim=1) > 1e-4).all()


def test_the_joint_loss_needs_labels(model) -> None:
    loss, _ = build_loss(model, Stage2Options(), [TEACHER], {})
    with pytest.raises(ValueError, match="labels"):
        value(loss, drawn(2, DIMENSION, 8))


def test_the_trained_projection_is_taken(model, tmp_path: Path) -> None:
    import torch

    from mimo_plugin.training.run import save_projection

    names, dimensions = (PROJECTION, ANCHOR_PROJECTION), (TEACHER, ANCHOR)
    _, first = build_loss(model, Stage1Options(), dimensions, {})
    files = {name: tmp_path / name for name in names}
    for name, file in files.items():
        save_projection(first[name], file, ProjectionInput.NORMALIZED)
    _, carried = build_loss(model, Stage2Options(), dimensions, files)
    assert tuple(first) == tuple(carried) == names
    for name, dimension in zip(names, dimensions, strict=True):
        assert carried[name].weight.shape == (dimension, DIMENSION)
        assert torch.equal(first[name].weight, carried[name].weight)
        assert torch.equal(first[name].bias, carried[name].bias)


def test_a_loss_over_texts_is_that_over_their_embeddings(model) -> None:
    import torch

    texts = [tiny_training.text(tiny_training.QUERY["de"], number) for number in range(ROWS)]
    loss = Distillation(model, Stage1Options(mini_batch_size=3, projection_input="normalized"), TEACHER)
    labels = drawn(1, TEACHER, 2)[0]
    found = loss([model.preprocess(texts)], torch.from_numpy(labels))
    reps = model.encode(texts)[None]
    expected = distilled(reps, labels[None], loss.projection, "cosine")
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def test_mean_similarity_is_over_different_rows() -> None:
    import torch

    rows = drawn(1, DIMENSION, 11)[0]
    cosines = unit(rows.astype(np.float64)) @ unit(rows.astype(np.float64)).T
    expected = cosines[~np.eye(ROWS, dtype=bool)].mean()
    assert float(mean_similarity(torch.from_numpy(rows))) == pytest.approx(expected, rel=1e-4)
    assert float(mean_similarity(torch.ones(4, 3))) == pytest.approx(1)
    assert float(mean_similarity(torch.ones(1, 3))) == 0
