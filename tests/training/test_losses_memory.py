"""Accumulated gradients and checkpointed activations: less memory, the same gradients for the optimiser."""

from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_training import World

from mimo_plugin.core.errors import UsageError
from mimo_plugin.training.stages import train_stage1, train_stage2
from mimo_plugin.training.trainer import Trainer


@pytest.fixture(scope="module", params=[0.0, 0.3], ids=["no dropout", "dropout"])
def dropped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"), dropout=request.param)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"), dropout=0.0)


def gradients(world: World, output: Path, stage: str, **options: Any) -> dict[str, Any]:
    """Of the first step, as the optimiser gets them, of model and projection."""
    found: dict[str, Any] = {}

    def keep(self: Trainer) -> None:
        assert self.model.transformers_model.is_gradient_checkpointing == options.get(
            "gradient_checkpointing", False
        )
        named = self.loss.named_parameters()
        found.update({name: p.grad.clone() for name, p in named if p.grad is not None})

    settings = {"steps": 1, "max_grad_norm": 1e9, **options}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "refuse_overflow", keep)
        if stage == "stage1":
            train_stage1(world.recipe(stage1=settings), world.job(output))
        else:
            recipe = world.recipe(stage2={"carry_projection": False, "mini_batch_size": 2, **settings})
            train_stage2(recipe, world.job(output))
    assert any("projection" in name for name in found)
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    import torch

    assert one.keys() == other.keys()
    for name in one:
        scale = float(other[name].abs().max())
        assert torch.allclose(one[name], other[name], rtol=0, atol=1e-5 * scale + 1e-8), name


@pytest.mark.parametrize(
    ("stage", "options"),
    [
        ("stage1", {}),
        # Without negatives a batch of two parts is the mean of the parts, too.
        ("stage2", {"contrastive_weight": 0.0}),
        ("stage2", {"contrastive_weight": 0.0, "projection_input": "raw"}),
        ("stage2", {"contrastive_weight": 0.0, "cache_gradients": False}),
    ],
)
def test_parts_of_a_batch_give_the_gradients_of_the_batch(
    world: World, tmp_path: Path, stage: str, options: dict[str, Any]
) -> None:
    whole = gradients(world, tmp_path / "whole", stage, **options)
    parts = gradients(world, tmp_path / "parts", stage, **options, gradient_accumulation_steps=2)
    same(parts, whole)


def test_accumulated_parts_with_cached_gradients_are_those_without(world: World, tmp_path: Path) -> None:
    options = {"contrastive_weight": 0.3, "gradient_accumulation_steps": 2}
    plain = gradients(world, tmp_path / "plain", "stage2", **options, cache_gradients=False)
    same(gradients(world, tmp_path / "cached", "stage2", **options), plain)


@pytest.mark.parametrize(
    ("stage", "options"),
    [("stage1", {}), ("stage2", {}), ("stage2", {"cache_gradients": False})],
)
def test_checkpointing_gives_the_same_gradients(
    dropped: World, tmp_path: Path, stage: str, options: dict[str, Any]
) -> None:
    plain = gradients(dropped, tmp_path / "plain", stage, **options)
    same(gradients(dropped, tmp_path / "less", stage, **options, gradient_checkpointing=True), plain)


def test_a_batch_that_cannot_be_cut(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(stage1={"gradient_accumulation_steps": 3})
    with pytest.raises(UsageError, match=r"--batch-size 8 .*--gradient-accumulation-steps 3.* multiple of 3"):
        train_stage1(recipe, world.job(tmp_path / "run"))
