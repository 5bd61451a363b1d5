"""Samples side by side: the gradients of the whole batch, whatever the threads do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch

from fedmepd.networks.kernels.portable import plain_operations
from fedmepd.networks.network import FedMEPDNet, Outputs
from fedmepd.tasks.brats import BRATS
from fedmepd.tasks.labels import IGNORE
from fedmepd.training.losses import training_loss
from fedmepd.training.passes import SideBySide, Together, passes

MODALITIES = ("FLAIR", "T1ce", "T2")


def _network(**options) -> FedMEPDNet:
    return FedMEPDNet(BRATS, width=4, **options).start(0).train()


def _batch(size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(4, (size, 16, 16, 16), generator=generator)
    label[0, :3] = IGNORE
    return torch.randn(size, 3, 16, 16, 16, generator=generator), label


def _every_output(outputs: Outputs, label: torch.Tensor) -> torch.Tensor:
    """A loss that every tensor of the outputs enters, not as a mean over the samples."""
    own = sum((tensor.float() ** 2).sum(dim=0).std() for tensor in outputs.tensors())
    return training_loss(outputs, label).total + own


def _the_usual(outputs: Outputs, label: torch.Tensor) -> torch.Tensor:
    return training_loss(outputs, label).total


def _gradients(network: FedMEPDNet, computed, loss: Callable, size: int = 3) -> dict[str, torch.Tensor]:
    images, label = _batch(size)
    network.zero_grad()
    # Our kernels compute in float32 at most.
    exact = next(network.parameters()).dtype == torch.float64
    with plain_operations() if exact else nullcontext():
        dtype = torch.float64 if exact else torch.float32
        computed.backward(loss(computed.forward(images.to(dtype), MODALITIES), label))
    return {name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("loss", [_the_usual, _every_output])
def test_gradients_are_those_of_the_whole_batch(loss: Callable) -> None:
    network = _network().double()
    expected = _gradients(network, Together(network, "float32"), loss)
    found = _gradients(network, SideBySide(network, "float32", 1), loss)
    assert found.keys() == expected.keys()
    assert not any(name.startswith("encoders.T1.") for name in found)
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-9, atol=1e-12), name


def test_threads_give_the_bits_that_one_sample_after_another_gives() -> None:
    network = _network()
    found = _gradients(network, SideBySide(network, "float32", 1), _the_usual)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with passes(network, "float32") as computed:
            assert isinstance(computed, SideBySide)
            threaded = _gradients(network, computed, _the_usual)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(threaded[name], value) for name, value in found.items())


def test_frozen_parts_get_no_gradient_and_gradients_of_the_loss_itself_are_kept() -> None:
    network = _network().double()
    network.auxiliary.requires_grad_(False)
    weight = next(network.decoder.parameters())

    def pulled(outputs: Outputs, label: torch.Tensor) -> torch.Tensor:
        return _the_usual(outputs, label) + 3 * weight.sum()

    plain = _gradients(network, Together(network, "float32"), _the_usual)
    found = _gradients(network, SideBySide(network, "float32", 1), pulled)
    assert not any(name.startswith("auxiliary.") for name in found)
    of_weight = next(name for name, value in network.named_parameters() if value is weight)
    assert torch.allclose(found[of_weight], plain[of_weight] + 3, rtol=1e-9)


def test_a_batch_of_one_and_a_second_step() -> None:
    network = _network().double()
    side_by_side = SideBySide(network, "float32", 1)
    _gradients(network, side_by_side, _the_usual)
    found = _gradients(network, side_by_side, _the_usual, size=1)
    expected = _gradients(network, Together(network, "float32"), _the_usual, size=1)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_threads_are_shared_out_anew_in_every_step() -> None:
    """The last batch of an epoch may be a single sample, which has all threads to itself."""
    network, before = _network(), torch.get_num_threads()
    try:
        side_by_side, found = SideBySide(network, "float32", 4), []
        for size in (2, 1, 3, 5):
            side_by_side.forward(_batch(size)[0], MODALITIES)
            found.append(torch.get_num_threads())
        assert found == [2, 4, 1, 1]
    finally:
        torch.set_num_threads(before)


def test_a_network_that_draws_random_numbers_and_one_thread_compute_the_whole_batch() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with passes(_network(calibration={}), "float32") as computed:
            assert isinstance(computed, Together)
        torch.set_num_threads(1)
        with passes(_network(), "float32") as computed:
            assert isinstance(computed, Together)
    finally:
        torch.set_num_threads(before)
