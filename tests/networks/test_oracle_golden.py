"""The oracle against what the authors' network returned (algorithm section 5)."""

from __future__ import annotations

import pytest
import torch

from tests.networks import golden
from tests.networks.oracle import MODALITIES, forward, shapes, training_loss

pytestmark = pytest.mark.skipif(not golden.AVAILABLE, reason="the golden numbers are not here")

MASKS = ["1111", "1110", "0011", "0100"]


def test_layout() -> None:
    assert shapes(16) == golden.published_shapes()


def agree(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("side", ["server", "client"])
def test_predictions(side: str, mask: str) -> None:
    state, anchors = golden.checkpoint()
    numbers = golden.predictions()
    with torch.no_grad():
        outputs = forward(state, numbers["x"], golden.parse(mask), anchors if side == "client" else None)
    agree(outputs.segmentation, numbers[f"{side}_{mask}_pred"])
    for level in (1, 2, 3, 4):
        agree(outputs.features[level].mean(dim=(2, 3, 4)), numbers[f"{side}_{mask}_feat{level}_mean"])
        if mask == "1111":
            agree(outputs.regions[level][..., ::4, ::4, ::4], numbers[f"{side}_{mask}_prm{level}"])
    if mask == "1111":
        stacked = torch.stack([outputs.auxiliary[name] for name in MODALITIES])
        agree(stacked[..., ::4, ::4, ::4], numbers[f"{side}_{mask}_aux"])


@pytest.mark.parametrize("mask", ["1111", "0011"])
@pytest.mark.parametrize("side", ["server", "client"])
def test_losses_and_gradients(side: str, mask: str) -> None:
    state, anchors = golden.checkpoint()
    # In float64: the smallest gradients are differences of large numbers, and float32 leaves 2 % of noise in them.
    state = {name: tensor.double().requires_grad_() for name, tensor in state.items()}
    anchors = {level: tensor.double() for level, tensor in anchors.items()} if side == "client" else None
    expected = golden.training()[f"{side}_{mask}"]
    outputs = forward(state, golden.predictions()["x"].double(), golden.parse(mask), anchors)
    total, parts = training_loss(outputs, golden.label())
    total.backward()

    def pairs(values) -> list[float]:
        return [value.item() if torch.is_tensor(value) else value for pair in values for value in pair]

    assert total.item() == pytest.approx(expected["total"], rel=1e-3)
    assert pairs([parts["final"]]) == pytest.approx(expected["final"], rel=1e-3)
    assert pairs(parts["regions"][level] for level in (1, 2, 3, 4)) == pytest.approx(
        pairs(expected["regions"]), rel=1e-3
    )
    assert pairs(parts["auxiliary"].values()) == pytest.approx(pairs(expected["auxiliary"]), rel=1e-3)
    weights = {name: tensor.grad for name, tensor in state.items() if name.endswith("weight")}
    norms = {name: gradient.norm().item() for name, gradient in weights.items() if gradient is not None}
    assert {name for name, norm in norms.items() if norm > 0} >= expected["gradient_norms"].keys()
    assert {name: norms[name] for name in expected["gradient_norms"]} == pytest.approx(
        expected["gradient_norms"], rel=1e-3
    )


def test_residual_adds_the_calibration() -> None:
    """With a zero output projection the calibrated network is the server's if it adds, and constant if it replaces."""
    state, anchors = golden.checkpoint()
    for name in state:
        if ".fc_o." in name:
            state[name] = torch.zeros_like(state[name])
    x = golden.predictions()["x"]
    with torch.no_grad():
        server = forward(state, x, [True] * 4)
        residual = forward(state, x, [True] * 4, anchors, residual=True)
        replaced = forward(state, x, [True] * 4, anchors)
    agree(residual.segmentation, server.segmentation)
    assert replaced.segmentation.flatten(2).std(dim=2).max() < 1e-6 < server.segmentation.flatten(2).std(dim=2).min()
