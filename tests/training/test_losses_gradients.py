"""Gradient caching gives the gradients of the whole batch, with dropout and with mined negatives."""

from typing import Any

import pytest
from helpers import tiny_training

from mimo_plugin.training.losses import build_loss
from mimo_plugin.training.recipe import Stage2Options
from mimo_plugin.training.schedule import Objective
from mimo_plugin.training.student import load_or_create

ROWS, TEACHER, ANCHOR = 10, 20, 12
WHOLE = 64


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Any]:
    found = {}
    for dropout in (0.0, 0.3):
        directory = tiny_training.student(tmp_path_factory.mktemp("model"), dropout=dropout)
        # Sums of many nearly equal gradients lose digits in float32.
        found[dropout] = load_or_create(str(directory), (), seed=0, device="cpu").train().double()
    return found


# An objective, and its columns of texts; with mined negatives there are two more.
CASES = [
    (Objective.MIMO, 2),
    (Objective.MIMO, 4),
    (Objective.XLCO, 2),
    (Objective.XLCO, 4),
    (Objective.LAKDA, 3),
]


def batch(model: Any, columns: int) -> tuple[list[Any], Any]:
    import torch

    query, other, passage = tiny_training.QUERY["de"], tiny_training.QUERY["ru"], tiny_training.PASSAGE["en"]
    chosen = [query, other, passage] if columns == 3 else [query, *[passage] * (columns - 1)]
    # Mined negatives are passages of other rows.
    features = [
        model.preprocess([tiny_training.text(t, n + ROWS * max(k - 1, 0)) * (1 + n % 3) for n in range(ROWS)])
        for k, t in enumerate(chosen)
    ]
    labels = torch.randn(ROWS, 2, TEACHER, generator=torch.Generator().manual_seed(1))
    return features, labels


def make(
    model: Any, objective: Objective, mini_batch_size: int, *, anchored: bool = False, **options: Any
) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(5)
    settings = Stage2Options(objective=objective, mini_batch_size=mini_batch_size, **options)
    dimensions = [TEACHER, ANCHOR][: 1 + anchored] if objective is Objective.MIMO else []
    return build_loss(model, settings, dimensions, {})


def gradients(loss: Any) -> dict[str, Any]:
    """Of each parameter, which are then without."""
    found = {name: p.grad.clone() for name, p in loss.named_parameters() if p.grad is not None}
    for parameter in loss.parameters():
        parameter.grad = None
    return found


def close(one: dict[str, Any], other: dict[str, Any]) -> None:
    import torch

    assert one.keys() == other.keys()
    assert any(name.endswith("projection.weight") or "embeddings" in name for name in one)
    for name in one:
        # The last bias is the sum of larger numbers that nearly cancel, with their rounding.
        scale = max(float(other[name].abs().max()), 1e-3)
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-4 * scale, msg=name)


def of(model: Any, objective: Objective, columns: int) -> tuple[list[Any], Any]:
    features, labels = batch(model, columns)
    return features, labels if objective is Objective.MIMO else None


@pytest.mark.parametrize(("objective", "columns"), CASES)
@pytest.mark.parametrize("mini_batch_size", [1, 3, 5])
def test_cached_is_whole(
    models: dict[float, Any], objective: Objective, columns: int, mini_batch_size: int
) -> None:
    features, labels = of(models[0.0], objective, columns)
    whole, _ = make(models[0.0], objective, WHOLE)
    expected = whole([dict(f) for f in features], labels)
    expected.backward()
    wanted = gradients(whole)
    cached, projections = make(models[0.0], objective, mini_batch_size)
    found = cached([dict(f) for f in features], labels)
    found.backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for projection in projections.values():
        assert projection.weight.grad.abs().max() > 0
    close(gradients(cached), wanted)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_cached_is_whole_with_two_teachers(models: dict[float, Any], share: float) -> None:
    """Both projections too, and with what gradient accumulation multiplies."""
    import torch

    features, labels = batch(models[0.0], 2)
    by_anchor = torch.rand(ROWS, 2, 1, generator=torch.Generator().manual_seed(2)) < share
    # Vectors of the smaller space are padded with zeros.
    labels = torch.cat([labels * ~(by_anchor & (torch.arange(TEACHER) >= ANCHOR)), by_anchor.float()], dim=2)
    found = []
    for mini_batch_size in (WHOLE, 3):
        loss, projections = make(models[0.0], Objective.MIMO, mini_batch_size, anchored=True)
        for part in (0.25, 0.75):
            (part * loss([dict(f) for f in features], labels)).backward()
        assert [bool(p.weight.grad.any()) for p in projections.values()] == [share < 1, share > 0]
        found.append(gradients(loss))
    assert sum(name.endswith("projection.weight") for name in found[0]) == 2
    close(found[1], found[0])


@pytest.mark.parametrize(("objective", "columns"), CASES)
@pytest.mark.parametrize("mini_batch_size", [3, 5])
def test_cached_draws_the_same_dropout_twice(
    models: dict[float, Any], objective: Objective, columns: int, mini_batch_size: int
) -> None:
    import torch
    from sentence_transformers.base.losses.gradcache import _create_minibatch

    model = models[0.3]
    features, labels = of(model, objective, columns)
    loss, _ = make(model, objective, mini_batch_size, projection_input="normalized")
    torch.manual_seed(8)
    # The same chunks in the same order with their graphs kept: no second pass, so nothing to replay.
    starts = range(0, ROWS, mini_batch_size)
    reps = [
        [
            model(_create_minibatch(dict(column), start, start + mini_batch_size))["sentence_embedding"]
            for start in starts
        ]
        for column in features
    ]
    expected = loss.calculate_loss(reps, labels)
    expected.backward()
    wanted = gradients(loss)
    torch.manual_seed(8)
    found = loss([dict(f) for f in features], labels)
    found.backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    close(gradients(loss), wanted)
    torch.manual_seed(9)
    assert float(loss([dict(f) for f in features], labels).detach()) != float(found.detach())


@pytest.mark.parametrize("mini_batch_size", [3, WHOLE])
def test_xlco_is_mimo_with_lambda_one(models: dict[float, Any], mini_batch_size: int) -> None:
    features, labels = batch(models[0.0], 2)
    found = []
    for objective, target in ((Objective.XLCO, None), (Objective.MIMO, labels)):
        loss, _ = make(models[0.0], objective, mini_batch_size, contrastive_weight=1.0)
        loss([dict(f) for f in features], target).backward()
        found.append(
            {name: grad for name, grad in gradients(loss).items() if not name.startswith("distillation.proj")}
        )
    close({n.removeprefix("distillation."): g for n, g in found[1].items()}, found[0])


def test_an_outer_factor_reaches_every_part(models: dict[float, Any]) -> None:
    """Gradient accumulation and scaling multiply the loss after it has gone backward once."""
    features, labels = batch(models[0.0], 2)
    found = []
    for factor in (1.0, 0.25):
        loss, _ = make(models[0.0], Objective.MIMO, 3)
        (factor * loss([dict(f) for f in features], labels)).backward()
        found.append({n: g for n, g in gradients(loss).items() if "projection" not in n})
    close({name: 4 * grad for name, grad in found[1].items()}, found[0])


@pytest.mark.parametrize(("objective", "columns"), CASES)
def test_without_caching_the_gradients_are_the_same(
    models: dict[float, Any], objective: Objective, columns: int
) -> None:
    """Dropout too: mini-batches are the same, only embedded once."""
    import torch

    features, labels = of(models[0.3], objective, columns)
    found = []
    for cache in (True, False):
        loss, _ = make(models[0.3], objective, 3, cache_gradients=cache)
        torch.manual_seed(8)
        loss([dict(f) for f in features], labels).backward()
        found.append(gradients(loss))
    close(*found)


@pytest.mark.parametrize("mini_batch_size", [3, WHOLE])
@pytest.mark.parametrize("objective", [Objective.XLCO, Objective.INFONCE])
def test_with_mined_negatives_it_is_the_ranking_loss_of_sentence_transformers(
    models: dict[float, Any], objective: Objective, mini_batch_size: int
) -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    features, _ = batch(models[0.0], 4)
    expected = MultipleNegativesRankingLoss(models[0.0], scale=20.0)
    value = expected([dict(f) for f in features], None)
    value.backward()
    wanted = gradients(expected)
    loss, _ = make(models[0.0], objective, mini_batch_size)
    found = loss([dict(f) for f in features], None)
    found.backward()
    assert float(found.detach()) == pytest.approx(float(value.detach()), rel=1e-6)
    close(gradients(loss), wanted)
