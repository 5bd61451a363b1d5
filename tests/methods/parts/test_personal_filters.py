"""PersonalFilters (algorithm section 3.5), filter by filter in plain Python."""

from __future__ import annotations

import math

import pytest
import torch

from fedmepd.methods.parts.personal_filters import (
    PersonalFilters,
    bound_weights,
    cosine_and_norms,
    decoder_layers,
    layer_of,
)
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS

LAYER = "decoder.x"


def share_of(state: PersonalFilters) -> float:
    return sum(state.personal_filters().values()) / sum(len(left) for left in state.patience.values())


def test_layers_are_the_decoders_convolutions() -> None:
    layers = decoder_layers(FedMEPDNet(BRATS, ("T1",), 4, calibration={}).state_dict())
    # Per level 5 of the regions, 2 perceptrons, 3 + 3 of the fusion; 3 more where a coarser level comes in; 1 head.
    assert len(layers) == 4 * 13 + 3 * 3 + 1
    assert all(name.startswith("decoder.") and not name.endswith(".weight") for name in layers)
    assert layers["decoder.classify"] == 4 and layers["decoder.levels.4.fusion.hidden"] == 4 * 128
    assert layer_of("decoder.levels.4.fusion.hidden.bias") == "decoder.levels.4.fusion.hidden"


def test_by_hand() -> None:
    """H = 0.9 * 1 + 0.1 * (5 / 2.5) * 0.25 for the first filter; the second opposes, the third is orthogonal."""
    state = PersonalFilters({LAYER: 3}, patience=2, weight_ema=0.9)
    server = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0]])
    site = torch.tensor([[1.5, 2.0], [-2.0, 1.0], [1.0, -1.0]])
    state.update({LAYER: server}, {LAYER: site}, 0.25)
    assert state.patience[LAYER].tolist() == [2, 1, 2]
    expected = [0.9 + 0.1 * 2 * 0.25, 0.9 + 0.1 * 0.25 / math.sqrt(5), 0.9 + 0.1 * 0.25]
    assert state.weights[LAYER].tolist() == pytest.approx(expected)
    assert share_of(state) == 0


@pytest.mark.parametrize("ema", [0.95, 0.0, 0.5])
@pytest.mark.parametrize("patience", [1, 3])
def test_many_rounds_against_plain_loops(patience: int, ema: float) -> None:
    generator = torch.Generator().manual_seed(0)
    state = PersonalFilters({LAYER: 6}, patience, ema)
    left, weight = [patience] * 6, [1.0] * 6
    went_personal = 0
    for _ in range(7):
        server = torch.randn(6, 2, 3, generator=generator)
        site = torch.randn(6, 2, 3, generator=generator) * 0.3
        share = 0.4
        shared = [j for j in range(6) if left[j] > 0]
        assert state.shared(LAYER).tolist() == [j in shared for j in range(6)]
        # Of its personal filters the site returns nothing.
        state.update({LAYER: server}, {LAYER: site[shared]}, share)
        for j in shared:
            first, second = server[j].flatten().tolist(), site[j].flatten().tolist()
            product = sum(a * b for a, b in zip(first, second, strict=True))
            norms = math.sqrt(sum(a * a for a in first)), math.sqrt(sum(b * b for b in second))
            left[j] = left[j] - 1 if product < 0 else patience
            weight[j] = ema * weight[j] + (1 - ema) * norms[0] / norms[1] * share
            if left[j] == 0:
                weight[j] = 0.0
                went_personal += 1
        assert state.patience[LAYER].tolist() == left
        assert state.weights[LAYER].tolist() == pytest.approx(weight, rel=1e-5)
        assert share_of(state) == pytest.approx(left.count(0) / 6)
    assert 0 < went_personal


AGREES, OPPOSES, ORTHOGONAL, STILL = [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.0]


@pytest.mark.parametrize(
    ("site_changes", "patience"),
    [
        ([OPPOSES, OPPOSES, AGREES, OPPOSES, OPPOSES], [2, 1, 3, 2, 1]),
        ([OPPOSES, ORTHOGONAL, OPPOSES, OPPOSES], [2, 2, 1, 0]),
        ([OPPOSES, STILL, OPPOSES], [2, 2, 1]),
        ([AGREES, AGREES], [3, 3]),
    ],
)
def test_patience(site_changes: list[list[float]], patience: list[int]) -> None:
    state = PersonalFilters({LAYER: 1}, 3, 0.95)
    counted = []
    for change in site_changes:
        state.update({LAYER: torch.tensor([[2.0, 0.0]])}, {LAYER: torch.tensor([change])}, 0.5)
        counted += state.patience[LAYER].tolist()
    assert counted == patience


def test_personal_is_for_good() -> None:
    state = PersonalFilters({LAYER: 2}, 1, 0.95)
    server = torch.tensor([AGREES, AGREES])
    state.update({LAYER: server}, {LAYER: torch.tensor([OPPOSES, AGREES])}, 0.5)
    assert state.shared(LAYER).tolist() == [False, True] and state.weights[LAYER][0] == 0
    for _ in range(3):
        state.update({LAYER: server}, {LAYER: torch.tensor([AGREES])}, 0.5)
    assert state.shared(LAYER).tolist() == [False, True] and state.weights[LAYER][0] == 0
    assert share_of(state) == 0.5


def test_a_filter_that_does_not_move_keeps_its_weight() -> None:
    state = PersonalFilters({LAYER: 2}, 3, 0.5)
    state.update({LAYER: torch.tensor([AGREES, STILL])}, {LAYER: torch.tensor([STILL, AGREES])}, 1.0)
    # The site's did not move: no ratio. The server's did not: the ratio is 0.
    assert state.weights[LAYER].tolist() == [1.0, 0.5] and state.patience[LAYER].tolist() == [3, 3]


def test_a_vanishing_change_gets_no_endless_weight() -> None:
    state = PersonalFilters({LAYER: 1}, 3, 0.5)
    state.update({LAYER: torch.tensor([AGREES])}, {LAYER: torch.tensor([[1e-30, 0.0]])}, 1.0)
    assert state.weights[LAYER].tolist() == [16384.0]


def test_a_filter_that_hardly_moves_keeps_its_weight_where_that_is_asked_for() -> None:
    """The server's norm is 2; a hundredth of it is 0.02."""
    for norm, weight in ((0.019, 1.0), (0.021, 0.5 + 0.5 * 2 / 0.021)):
        state = PersonalFilters({LAYER: 1}, 3, 0.5)
        state.update({LAYER: torch.tensor([[2.0, 0.0]])}, {LAYER: torch.tensor([[norm, 0.0]])}, 1.0, 0.01)
        assert state.weights[LAYER].tolist() == pytest.approx([weight])


@pytest.mark.parametrize(("patience", "share", "weight", "byte"), [(0, 1.0, 0.0, 0), (None, 0.0, 1.0, 255)])
def test_all_personal_from_the_start_and_never(patience: int | None, share: float, weight: float, byte: int) -> None:
    state = PersonalFilters({LAYER: 2, "decoder.y": 3}, patience, 0.95)
    assert share_of(state) == share
    for _ in range(300 if patience is None else 0):
        state.update({LAYER: torch.tensor([AGREES, AGREES])}, {LAYER: torch.tensor([OPPOSES, OPPOSES])}, 0.5)
    for layer, count in ((LAYER, 2), ("decoder.y", 3)):
        assert state.patience[layer].dtype == torch.uint8
        assert state.patience[layer].tolist() == [byte] * count and state.weights[layer].tolist() == [weight] * count


def test_each_convolution_by_itself() -> None:
    """Convolutions of different shapes, one of them partly personal, one that the site did not return."""
    state = PersonalFilters({"decoder.a": 2, "decoder.b": 1, "decoder.c": 2}, 2, 0.5)
    state.patience["decoder.c"].copy_(torch.tensor([0, 1]))
    server = {"decoder.a": torch.ones(2, 3), "decoder.b": torch.ones(1, 4), "decoder.c": torch.tensor([[9.0], [1.0]])}
    state.update(server, {"decoder.a": torch.tensor([[1.0] * 3, [-0.5] * 3]), "decoder.c": torch.tensor([[-4.0]])}, 0.5)
    assert {layer: left.tolist() for layer, left in state.patience.items()} == {
        "decoder.a": [2, 1],
        "decoder.b": [2],
        "decoder.c": [0, 0],
    }
    assert state.weights["decoder.a"].tolist() == [0.5 + 0.5 * 1 * 0.5, 0.5 + 0.5 * 2 * 0.5]
    assert state.weights["decoder.b"].tolist() == [1.0] and state.weights["decoder.c"].tolist() == [1.0, 0.0]
    assert state.personal_filters() == {"decoder.a": 0, "decoder.b": 0, "decoder.c": 2}


def test_state_and_restore() -> None:
    state = PersonalFilters({LAYER: 1}, 3, 0.5)
    state.update({LAYER: torch.tensor([AGREES])}, {LAYER: torch.tensor([OPPOSES])}, 0.5)
    other = PersonalFilters({LAYER: 1}, 3, 0.5)
    other.restore(state.state())
    assert other.patience[LAYER].tolist() == [2] and other.weights[LAYER].tolist() == [0.75]


def test_cosine_and_norms() -> None:
    first = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]], [[1e-20, 0.0]]])
    second = torch.tensor([[[4.0, 3.0]], [[1.0, 0.0]], [[-1e-20, 0.0]]])
    cosine, of_first, of_second = cosine_and_norms(first, second)
    assert cosine.tolist() == pytest.approx([0.96, 0.0, -1.0])
    assert of_first.tolist() == pytest.approx([5, 0, 1e-20]) and of_second.tolist() == pytest.approx([5, 1, 1e-20])


def sites_with(weights: list[list[float]], patience: list[list[int]]) -> list[PersonalFilters]:
    sites = [PersonalFilters({LAYER: len(row)}, 3, 0.5) for row in weights]
    for site, row, left in zip(sites, weights, patience, strict=True):
        site.weights[LAYER].copy_(torch.tensor(row))
        site.patience[LAYER].copy_(torch.tensor(left))
    return sites


@pytest.mark.parametrize(
    ("bound", "weights", "patience", "expected"),
    [
        # Of 0.1, 0.2, 0.3 and 16384 the lower middle one is 0.2.
        (3.0, [[0.1], [16384.0], [0.3], [0.2]], [[3], [3], [3], [3]], [[0.1], [0.6], [0.3], [0.2]]),
        (10.0, [[0.1], [16384.0], [0.3], [0.2]], [[3], [3], [3], [3]], [[0.1], [2.0], [0.3], [0.2]]),
        (0.0, [[0.1], [16384.0], [0.3], [0.2]], [[3], [3], [3], [3]], [[0.1], [16384.0], [0.3], [0.2]]),
        # Of two sites the smaller weight is the measure.
        (3.0, [[0.1], [1.0]], [[3], [3]], [[0.1], [0.3]]),
        # Personal filters are not counted, and stay at zero; a site that shares a filter alone keeps its weight.
        (3.0, [[0.0, 0.0], [0.4, 9.0], [9.0, 0.0]], [[0, 0], [3, 3], [3, 0]], [[0.0, 0.0], [0.4, 9.0], [1.2, 0.0]]),
    ],
)
def test_bounded_by_the_median_sites_weight(bound, weights, patience, expected) -> None:
    sites = sites_with(weights, patience)
    counts = bound_weights(sites, bound)
    for site, row, before, count in zip(sites, expected, weights, counts, strict=True):
        assert site.weights[LAYER].tolist() == pytest.approx(row)
        assert count == sum(new < old for new, old in zip(row, before, strict=True))


def test_nothing_to_bound() -> None:
    assert bound_weights([], 3.0) == [] and bound_weights(sites_with([[9.0]], [[3]]), 0.0) == [0]
