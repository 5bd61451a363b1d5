"""The whole network against the oracle: the naive formulas over all modalities, regions and attention heads."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from fedmepd.errors import FedMEPDError
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS
from fedmepd.training.losses import training_loss
from tests.networks import oracle
from tests.networks.ours import WIDTH, named, network, translate

MASKS = ["".join(digits) for digits in product("01", repeat=4) if "1" in digits]


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    return {key: value.double() for key, value in oracle.random_state(WIDTH, seed).items()}


def anchors() -> dict[int, torch.Tensor]:
    return {level: rows.double() for level, rows in oracle.random_anchors(WIDTH, 1, rows=6).items()}


def images(batch: int, size: tuple[int, int, int] = (16, 16, 16), channels: int = 4, seed: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chosen(x: torch.Tensor, mask: str) -> torch.Tensor:
    return x[:, [place for place, digit in enumerate(mask) if digit == "1"]]


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mask", MASKS)
def test_outputs_losses_and_gradients_are_the_oracles(mask: str) -> None:
    """Every non-empty subset; server and sites, with and without residual, batches of one and two, take turns."""
    number = MASKS.index(mask)
    attended = anchors() if number % 3 else None
    residual, batch = number % 3 == 2, 1 + number % 2
    weights = {key: value.requires_grad_() for key, value in state().items()}
    x, label = images(batch, (16, 24, 16)), torch.randint(4, (batch, 16, 24, 16))
    expected = oracle.forward(weights, x, [digit == "1" for digit in mask], attended, residual)
    expected_loss, expected_parts = oracle.training_loss(expected, label)
    expected_loss.backward()

    plain = {key: value.detach() for key, value in weights.items()}
    net = network(plain, attended, residual=residual).train()
    outputs = net.training_outputs(chosen(x, mask), named(mask))
    loss = training_loss(outputs, label)
    loss.total.backward()

    close(outputs.segmentation, expected.segmentation)
    for level in oracle.LEVELS:
        close(outputs.full_size_regions()[level], expected.regions[level])
        close(outputs.features[level], expected.features[level])
    close(outputs.auxiliary, torch.stack([expected.auxiliary[name] for name in named(mask)]))
    # The loss holds the label in single precision.
    close(loss.total, expected_loss, 1e-6)
    pairs = [loss.segmentation, *loss.regions.values(), *loss.auxiliary]
    expected_pairs = [expected_parts["final"], *(expected_parts["regions"][level] for level in oracle.LEVELS)]
    expected_pairs += expected_parts["auxiliary"].values()
    for pair, expected_pair in zip(pairs, expected_pairs, strict=True):
        close(torch.stack(pair), torch.stack(expected_pair), 1e-6)

    gradients = {key: torch.zeros_like(value) if value.grad is None else value.grad for key, value in weights.items()}
    by_our_names = translate(gradients, attended)
    for key, parameter in net.named_parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        difference = (found - by_our_names[key]).norm()
        # Absolutely too: where the exact gradient is zero both hold rounding noise.
        assert difference <= 1e-5 * by_our_names[key].norm() + 1e-9, (key, difference)


@pytest.mark.parametrize("mask", ["1111", "0110", "0001"])
def test_absent_encoders_do_not_run(mask: str) -> None:
    net = network(state(), None).eval()
    ran: list[str] = []
    for name, encoder in net.encoders.items():
        encoder.register_forward_hook(lambda *_, name=name: ran.append(name))
    net(chosen(images(1), mask), named(mask))
    assert tuple(ran) == named(mask)


@pytest.mark.parametrize("size", [(17, 16, 23), (9, 24, 16), (1, 5, 8)])
def test_any_size_is_padded_and_cropped_back(size: tuple[int, int, int]) -> None:
    """At the end of each axis, with zeros, to a multiple of 8 and at least 16."""
    net = network(state(), None).eval()
    x = images(1, size)
    padded = torch.zeros(1, 4, *(16 if side <= 16 else 24 for side in size), dtype=torch.float64)
    padded[:, :, : size[0], : size[1], : size[2]] = x
    with torch.no_grad():
        expected = oracle.forward(state(), padded, [True] * 4).segmentation
        close(net(x, oracle.MODALITIES), expected[:, :, : size[0], : size[1], : size[2]])


def test_modalities_are_taken_by_name() -> None:
    net = network(state(), None).eval()
    x = images(1)
    with torch.no_grad():
        expected = oracle.forward(state(), x, [True, False, True, True]).segmentation
        close(net(x[:, [3, 0, 2]], ("T2", "FLAIR", "T1")), expected)
        alone = oracle.forward(state(), x, [False, True, False, False]).segmentation
        close(net(x[:, [1]], "T1ce"), alone)


@pytest.mark.parametrize(
    ("modalities", "shape", "text"),
    [
        (("FLAIR", "PET"), (1, 2, 16, 16, 16), "unknown modality 'PET': expected one of FLAIR, T1ce, T1, T2"),
        ((), (1, 0, 16, 16, 16), "no modality given: expected at least one of FLAIR, T1ce, T1, T2"),
        (("T1", "FLAIR", "T1"), (1, 3, 16, 16, 16), "modalities T1, FLAIR, T1: each may be given once"),
        (("FLAIR", "T2"), (1, 2, 16, 16, 16), "no encoder for T2: it was trained with FLAIR, T1"),
        (("FLAIR",), (1, 2, 16, 16, 16), r"\(1, 2, 16, 16, 16\): expected \(B, 1, X, Y, Z\), with the channels FLAIR"),
        (("FLAIR",), (1, 16, 16, 16), r"\(1, 16, 16, 16\): expected \(B, 1, X, Y, Z\), with the channels FLAIR"),
    ],
)
def test_errors(modalities: tuple[str, ...], shape: tuple[int, ...], text: str) -> None:
    net = FedMEPDNet(BRATS, ("T1", "FLAIR"), WIDTH)
    with pytest.raises(FedMEPDError, match=text):
        net(torch.zeros(shape), modalities)


def test_a_sites_network_has_its_own_encoders_alone() -> None:
    net = network(state(), anchors(), ("T2", "FLAIR"))
    assert net.modalities == tuple(net.encoders) == ("FLAIR", "T2")
    x = images(1)
    with torch.no_grad():
        expected = oracle.forward(state(), x, [True, False, False, True], anchors()).segmentation
        close(net(x[:, [0, 3]], ("FLAIR", "T2")), expected)


def test_order_of_the_anchors_is_free() -> None:
    net = network(state(), anchors()).eval()
    x = images(1)
    with torch.no_grad():
        before = net(x, oracle.MODALITIES)
        net.anchors = {level: rows[torch.tensor([4, 2, 0, 5, 1, 3])] for level, rows in net.anchors.items()}
        close(net(x, oracle.MODALITIES), before)


def test_without_anchors_nothing_is_calibrated() -> None:
    net = network(state(), anchors())
    net.anchors = {}
    x = images(1)
    with torch.no_grad():
        close(net(x, oracle.MODALITIES), oracle.forward(state(), x, [True] * 4).segmentation)


def test_one_shared_encoder() -> None:
    """It equals four encoders with the same weights."""
    weights = state()
    for key in [key for key in weights if key.startswith("c1_encoder.")]:
        for number in (2, 3, 4):
            weights[key.replace("c1", f"c{number}", 1)] = weights[key]
    net = FedMEPDNet(BRATS, ("FLAIR", "T1", "T2"), WIDTH, shared_encoder=True).double()
    renamed = {
        key.replace(".FLAIR.", ".shared."): value
        for key, value in translate(weights, None).items()
        if not key.startswith(("encoders.T", "calibration."))
    }
    net.load_state_dict(renamed)
    x = images(1)
    with torch.no_grad():
        expected = oracle.forward(weights, x, [True, False, False, True]).segmentation
        close(net(x[:, [0, 3]], ("FLAIR", "T2")), expected)


def test_dropout_in_training_alone() -> None:
    net = FedMEPDNet(BRATS, width=WIDTH, calibration={"dropout": 0.5}).start(0)
    for lacca in net.calibration.values():
        torch.nn.init.normal_(lacca.out.weight)
        torch.nn.init.normal_(lacca.value.weight)
    net.anchors = oracle.random_anchors(WIDTH)
    x = images(1).float()

    def passes() -> list[torch.Tensor]:
        with torch.no_grad():
            return [net.training_outputs(x, oracle.MODALITIES).segmentation for _ in range(2)]

    net.train()
    first, second = passes()
    assert not torch.allclose(first, second)
    net.eval()
    first, second = passes()
    assert torch.equal(first, second)


def test_dropped_attention_weights_are_replaced_by_zero_and_the_others_scaled_up() -> None:
    """With every projection of queries at zero all 6 weights are 1/6; each survives with a half, then counts 2/6."""
    net = FedMEPDNet(BRATS, width=WIDTH, calibration={"dropout": 0.5})
    lacca = net.calibration["1"].train()
    for layer in (lacca.query, lacca.key, lacca.value, lacca.out):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    # Every head's value is the anchor's first channel; the output adds up the four heads.
    lacca.value.weight.data.view(4, WIDTH, WIDTH)[:, 0, 0] = 1
    lacca.out.weight.data.view(WIDTH, 4, WIDTH)[0, :, 0] = 1
    rows = torch.zeros(6, WIDTH)
    rows[0, 0] = 1
    torch.manual_seed(0)
    found = lacca(torch.zeros(1, WIDTH, 8, 8, 8), rows)[0, 0]
    counts = (found * 3).round()
    torch.testing.assert_close(found, counts / 3)
    # Of four heads as many keep the anchor as heads show when four coins are thrown.
    shares = [(counts == heads).float().mean().item() for heads in range(5)]
    assert shares == pytest.approx([1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16], abs=0.06)


def test_started_weights() -> None:
    net = FedMEPDNet(BRATS, width=16, calibration={}).start(5)
    for key, value in net.state_dict().items():
        if key.endswith(".bias"):
            assert not value.any(), key
        elif key.startswith("calibration."):
            assert value.std() == pytest.approx(0.001, rel=0.15), key
        elif value.numel() >= 500:
            # Kaiming, for a gain of the square root of 2. Grouped convolutions count the inputs of their group.
            assert value.std() == pytest.approx((2 / value[0].numel()) ** 0.5, rel=0.15), key
        assert abs(value.mean()) <= 5 * value.std() / value.numel() ** 0.5, key


def test_start_depends_on_seed_and_part_alone() -> None:
    """A site's weights are those of the fusion site, whatever modalities it has."""
    everything = FedMEPDNet(BRATS, width=WIDTH, calibration={}).start(5).state_dict()
    site = FedMEPDNet(BRATS, ("T2", "T1ce"), WIDTH, calibration={"residual": True}).start(5).state_dict()
    server = FedMEPDNet(BRATS, width=WIDTH).start(5).state_dict()
    other = FedMEPDNet(BRATS, width=WIDTH, calibration={}).start(6).state_dict()
    for part in (site, server):
        for key, value in part.items():
            assert torch.equal(value, everything[key]), key
    for key, value in other.items():
        assert key.endswith(".bias") or not torch.equal(value, everything[key]), key
    first, second = (everything[f"encoders.{name}.levels.1.1.conv.weight"] for name in ("FLAIR", "T2"))
    assert not torch.equal(first, second)
