"""The loss by hand and against the authors' numbers; the whole of it meets the oracle in tests/networks."""

from __future__ import annotations

from math import log

import pytest
import torch

from fedmepd.networks.network import Outputs
from fedmepd.training.losses import Target, dice_and_cross_entropy, training_loss
from tests.networks import golden
from tests.networks.ours import named, network, translate


def test_by_hand() -> None:
    """Two samples of four voxels, two classes; 3 and 1 voxels of class 1."""
    label = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 1]]).view(2, 1, 2, 2)
    of_one = torch.tensor([[0.5, 0.8, 1.0, 0.4], [0.0, 0.2, 0.5, 0.001]]).view(2, 1, 2, 2)
    dice, cross_entropy = dice_and_cross_entropy(torch.stack([1 - of_one, of_one], dim=1), Target.of(label, 2))
    # Class 1: 2 * (0.5+0.8+1+0.001) / (3.401 + 4); class 0: 2 * (0.6+1+0.8+0.5) / (8 - 3.401 + 4).
    assert dice.item() == pytest.approx(1 - (2 * 2.301 / 7.401 + 2 * 2.9 / 8.599) / 2, abs=1e-6)
    # A voxel weighs the share of its sample that is of another class; 0.001 counts as 0.005.
    first = 0.25 * (log(0.5) + log(0.8) + log(1.0)) + 0.75 * log(0.6)
    second = 0.25 * (log(1.0) + log(0.8) + log(0.5)) + 0.75 * log(0.005)
    assert cross_entropy.item() == pytest.approx(-(first + second) / 8, abs=1e-6)


def test_absent_class_and_perfect_prediction() -> None:
    label = torch.tensor([0, 2, 2, 2]).view(1, 1, 2, 2)
    perfect = torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float()
    dice, cross_entropy = dice_and_cross_entropy(perfect, Target.of(label, 3))
    # The class that is neither there nor predicted has Dice 0.
    assert dice.item() == pytest.approx(1 / 3, abs=1e-6) and cross_entropy.item() == 0


def test_sums_over_every_output() -> None:
    """Perfect outputs cost what Dice leaves for absent classes; one wrong output at a time costs more."""
    label = torch.arange(4).repeat(1024).view(1, 16, 16, 16)
    right = torch.nn.functional.one_hot(label, 4).movedim(-1, 1).float()
    even = torch.full_like(right, 0.25)
    # Dice 2 * 256 / (1024 + 1024), cross entropy of 1/4 with weight 3/4.
    cost = 0.75 + 0.75 * log(4)
    auxiliary = torch.stack([right, even, even])
    outputs = Outputs(right, {1: right, 2: even[..., ::2, ::2, ::2], 3: even[..., ::4, ::4, ::4]}, {}, auxiliary)
    loss = training_loss(outputs, label)
    assert loss.total.item() == pytest.approx(4 * cost, rel=1e-5)
    parts = [loss.segmentation, *(loss.regions[level] for level in (1, 2, 3)), *loss.auxiliary]
    wrong = [(pytest.approx(0.75 * log(4), rel=1e-5), pytest.approx(0.75, rel=1e-5))]
    assert [(ce.item(), dice.item()) for ce, dice in parts] == [(0, 0)] * 2 + wrong * 2 + [(0, 0)] + wrong * 2


def test_half_precision_is_summed_in_full() -> None:
    """bfloat16 would keep eight bits of the sums over three million voxels."""
    label = torch.zeros(1, 3, 1000, 1000, dtype=torch.int64)
    even = torch.tensor(0.25, dtype=torch.bfloat16).expand(1, 4, 3, 1000, 1000)
    dice, cross_entropy = dice_and_cross_entropy(even, Target.of(label, 4))
    # Class 0: 2 * n/4 / (n/4 + n); no other class.
    assert dice.item() == pytest.approx(1 - 0.4 / 4, rel=1e-5) and cross_entropy.item() == 0


@pytest.mark.skipif(not golden.AVAILABLE, reason="the golden numbers are not here")
@pytest.mark.parametrize("mask", ["1111", "0011"])
@pytest.mark.parametrize("side", ["server", "client"])
def test_authors_losses_and_gradients(side: str, mask: str) -> None:
    state, anchors = golden.checkpoint()
    state = {key: value.double() for key, value in state.items()}
    attended = {level: rows.double() for level, rows in anchors.items()} if side == "client" else None
    net = network(state, attended).train()
    expected = golden.training()[f"{side}_{mask}"]
    x = golden.predictions()["x"][:, golden.parse(mask)].double()
    loss = training_loss(net.training_outputs(x, named(mask)), golden.label())
    loss.total.backward()

    def plain(pairs) -> list[float]:
        return [float(torch.as_tensor(value).detach()) for pair in pairs for value in pair]

    assert loss.total.item() == pytest.approx(expected["total"], rel=1e-3)
    assert plain([loss.segmentation]) == pytest.approx(expected["final"], rel=1e-3)
    regions = [loss.regions[level] for level in (1, 2, 3, 4)]
    assert plain(regions) == pytest.approx(plain(expected["regions"]), rel=1e-3)
    assert plain(loss.auxiliary) == pytest.approx(plain(expected["auxiliary"]), rel=1e-3)

    # The authors' norms are per published weight. Ours of the four regions' perceptrons are one tensor each: there the
    # squares of the norms add up.
    squares: dict[str, float] = {}
    for key, norm in expected["gradient_norms"].items():
        if not key.endswith(".weight"):
            continue
        renamed = translate({key: torch.zeros(1, 1, 1, 1, 1)}, attended)
        for name in renamed:
            squares[name] = squares.get(name, 0.0) + norm**2
    norms = {name: value.grad.norm().item() for name, value in net.named_parameters() if value.grad is not None}
    assert len(squares) > 80
    assert {name: norms[name] for name in squares} == pytest.approx(
        {name: value**0.5 for name, value in squares.items()}, rel=1e-3
    )
