"""Muon: which parameters it steps, how, and that a run with it goes on where it stopped."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from mma_edge.errors import UsageError
from mma_trainer.training.muon import MATRIX_LR, SMALLEST, Muon, orthogonal
from mma_trainer.training.recipe import Recipe, build_optimizer, build_scheduler


def test_a_matrix_is_brought_near_to_the_nearest_orthogonal_one() -> None:
    torch.manual_seed(0)
    for shape in ((16, 16), (16, 40), (40, 16)):
        matrix = torch.randn(shape)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        values = torch.linalg.svdvals(orthogonal(matrix))
        assert values.min() > 0.5
        assert values.max() < 1.3
        assert ((u.T @ orthogonal(matrix) @ v.T).diagonal() > 0.5).all()  # the directions stay


def model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(32, 32))
    return nn.Sequential(*layers, nn.Linear(32, SMALLEST - 1))


def test_layers_inside_are_stepped_as_matrices_and_all_else_as_adamw_does() -> None:
    net = model()
    recipe = Recipe(lr=1e-3, weight_decay=0.1, optimizer="muon")
    optimizer = build_optimizer(net, recipe)
    assert isinstance(optimizer, Muon)
    others, matrices = (group["params"] for group in optimizer.param_groups)
    assert [id(p) for p in matrices] == [id(net[2].weight), id(net[4].weight)]
    assert len(others) + len(matrices) == len(list(net.parameters()))
    plain = model()
    adamw = build_optimizer(plain, dataclasses.replace(recipe, optimizer="adamw"))
    inputs = torch.randn(8, 1, 5, 5)
    before = net[4].weight.detach().clone()
    for one, step in ((net, optimizer), (plain, adamw)):
        one(inputs).square().mean().backward()
        step.step()
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-7) == (id(ours) in {id(p) for p in others})
    moved = net[4].weight - before * (1 - MATRIX_LR * recipe.lr * recipe.weight_decay)
    assert torch.linalg.svdvals(moved).max() < 1.3 * MATRIX_LR * recipe.lr


def test_both_learning_rates_follow_the_schedule_and_a_saved_state_goes_on_exactly() -> None:
    torch.manual_seed(1)
    inputs, recipe = torch.randn(4, 8, 1, 5, 5), Recipe(epochs=4, lr=1e-2, optimizer="muon")

    def train(net: nn.Module, state: tuple | None, steps: range) -> tuple:
        optimizer = build_optimizer(net, recipe)
        scheduler = build_scheduler(optimizer, recipe)
        if state:
            optimizer.load_state_dict(state[0])
            scheduler.load_state_dict(state[1])
        for step in steps:
            optimizer.zero_grad(set_to_none=True)
            net(inputs[step]).square().mean().backward()
            optimizer.step()
            scheduler.step()
        lr, matrix_lr = (group["lr"] for group in optimizer.param_groups)
        assert matrix_lr == pytest.approx(MATRIX_LR * lr)
        return optimizer.state_dict(), scheduler.state_dict()

    whole, parts = model(), model()
    train(whole, None, range(4))
    train(parts, train(parts, None, range(2)), range(2, 4))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_optimizer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="optimizer sgd"):
        Recipe(optimizer="sgd")
