"""Labels that leave voxels out or do not tell some classes apart: the loss counts what they tell."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
import torch

from fedmepd.networks.network import Outputs
from fedmepd.tasks.labels import IGNORE
from fedmepd.training.distillation import class_means
from fedmepd.training.epoch import class_vectors
from fedmepd.training.losses import told_apart, training_loss

SHAPE = (2, 4, 8, 8, 8)


def outputs(seed: int = 0) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    made = torch.softmax(torch.randn(SHAPE, generator=generator), dim=1).requires_grad_()
    regions = {1: torch.softmax(torch.randn(SHAPE, generator=generator), dim=1)}
    auxiliary = torch.softmax(torch.randn((1, *SHAPE), generator=generator), dim=2)
    return Outputs(made, regions, {}, auxiliary)


def label(seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 4, (2, 8, 8, 8), generator=torch.Generator().manual_seed(seed))


def slow(probabilities: torch.Tensor, label: torch.Tensor, groups) -> torch.Tensor:
    """Dice plus cross entropy as the paper writes them, over the voxels that are told, one class at a time."""
    overlap, there, weighted, voxels = [0.0] * len(groups), [0.0] * len(groups), 0.0, 0
    for of_one, truth in zip(probabilities, label, strict=True):
        told = truth.flatten() != IGNORE
        known = truth.flatten()[told]
        of_groups = [sum(of_one[number].flatten()[told] for number in group) for group in groups]
        for place, group in enumerate(groups):
            inside = torch.isin(known, torch.tensor(group))
            overlap[place] = overlap[place] + of_groups[place][inside].sum()
            there[place] = there[place] + of_groups[place].sum() + inside.sum()
            others = 1 - inside.sum() / len(known)
            weighted = weighted - (others * of_groups[place][inside].clamp(0.005, 1).log()).sum()
        voxels += len(known)
    dice = sum(2 * one / (total + 1e-7) for one, total in zip(overlap, there, strict=True)) / len(groups)
    return 1 - dice + weighted / voxels


ALL = ((0,), (1,), (2,), (3,))


@pytest.mark.parametrize("groups", [ALL, ((0,), (1, 2, 3)), ((0,), (1, 3), (2,)), ((0, 1, 2), (3,))])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_the_loss_and_its_gradient_are_those_of_the_slow_formula(groups, ignored):
    made, truth = outputs(), label()
    if ignored:
        truth[torch.rand(truth.shape, generator=torch.Generator().manual_seed(2)) < ignored] = IGNORE
    loss = training_loss(made, truth, () if groups == ALL else groups)
    expected = sum(slow(of, truth, groups) for of in (made.segmentation, made.regions[1], made.auxiliary[0]))
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
    [gradient] = torch.autograd.grad(loss.total, made.segmentation)
    [by_formula] = torch.autograd.grad(expected, made.segmentation)
    assert torch.allclose(gradient, by_formula, atol=1e-7, rtol=1e-4)
    # A voxel that is left out moves nothing.
    assert not gradient.movedim(1, -1)[truth == IGNORE].any()


def test_what_is_left_out_may_be_anything():
    made, truth = outputs(), label()
    truth[:, :4] = IGNORE
    changed = made.segmentation.detach().clone()
    changed[:, :, :4] = 0.25
    other = replace(made, segmentation=changed)
    one, two = (sum(training_loss(of, truth).segmentation).item() for of in (made, other))
    assert one == two


def test_by_hand():
    """Two voxels that are told: background with 0.5, the tumour with 0.2 + 0.3 + 0.1."""
    truth = torch.tensor([0, 2, IGNORE]).view(1, 1, 1, 3)
    of_voxels = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.4, 0.2, 0.3, 0.1], [1.0, 0, 0, 0]])
    made = of_voxels.t().view(1, 4, 1, 1, 3)
    loss = training_loss(Outputs(made, {}, {}, made[None][:0]), truth, ((0,), (1, 2, 3)))
    cross_entropy, dice = loss.segmentation
    assert cross_entropy.item() == pytest.approx(-(0.5 * log(0.5) + 0.5 * log(0.6)) / 2, abs=1e-6)
    # 2 * 0.5 / (0.9 + 1) and 2 * 0.6 / (1.1 + 1).
    assert dice.item() == pytest.approx(1 - (1 / 1.9 + 1.2 / 2.1) / 2, abs=1e-6)


def test_a_crop_that_tells_nothing_trains_nothing():
    made = outputs()
    loss = training_loss(made, torch.full((2, 8, 8, 8), IGNORE))
    loss.total.backward()
    assert loss.total.item() == 0 and not made.segmentation.grad.any()


def test_voxels_that_are_left_out_are_in_no_anchor():
    truth = label()
    features = {1: torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(3))}
    truth[0][truth[0] == 2] = IGNORE
    vectors, there = class_vectors(features, truth, 4)
    assert there.tolist() == [[True, True, False, True], [True] * 4]
    expected = features[1][0][:, truth[0] == 3].mean(dim=1)
    assert torch.allclose(vectors[1][0, 3], expected, atol=1e-6) and not vectors[1][0, 2].any()


def test_classes_that_are_not_told_apart_have_no_mean():
    """Neither prototypes nor class means may take a region for a class."""
    truth = label()
    apart = told_apart(truth, ((0,), (1, 3), (2,)))
    assert apart.unique().tolist() == [0, 2, IGNORE] and torch.equal(apart == 2, truth == 2)
    assert told_apart(truth, ()) is truth
    features = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(3))
    means, there = class_means(features, apart, 4)
    assert there.tolist() == [[True, False, True, False]] * 2
    assert torch.allclose(means[1, 2], features[1][:, truth[1] == 2].mean(dim=1), atol=1e-6)
