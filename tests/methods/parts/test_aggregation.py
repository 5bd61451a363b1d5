"""Aggregation (algorithm section 3.3) against the formulas with the sites' weights W_i, filter by filter."""

from __future__ import annotations

import pytest
import torch

from fedmepd.federation.open_round import TensorStore
from fedmepd.methods.parts.aggregation import Aggregation
from fedmepd.methods.parts.robust import RobustAggregation
from fedmepd.methods.parts.selection import encoder_of

STATE = {
    "encoders.T1.a.weight": (4, 1, 3),
    "encoders.T2.a.weight": (4, 1, 3),
    "decoder.b.weight": (5, 2, 3),
    "decoder.b.bias": (5,),
    "auxiliary.c.weight": (2, 2),
}


def random(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) for key, shape in STATE.items()}


def bits(flags: str) -> torch.Tensor:
    return torch.tensor([flag == "1" for flag in flags])


# Two sites share filter 0, one each 1 and 2, nobody 3; filter 4 is shared by a site whose weight is zero.
SITES = {
    "a": (["encoders.T1.a.weight"], bits("11000"), torch.tensor([1.0, 0.3, 0.0, 0.0, 0.0])),
    "b": (["encoders.T1.a.weight", "encoders.T2.a.weight"], bits("10101"), torch.tensor([0.2, 0.0, 0.7, 0.0, 0.0])),
    "c": (["encoders.T1.a.weight"], bits("00000"), torch.zeros(5)),
}


@pytest.fixture(params=["plain", "robust"])
def means(request, tmp_path):
    """Makes what adds up a round: the sums, and the robust means where nothing is trimmed."""
    if request.param == "plain":
        return Aggregation
    return lambda *arguments: RobustAggregation(*arguments, 0.0, -1.0, TensorStore(tmp_path))


@pytest.mark.parametrize("server_share", [0.3, 1.0, 0.0])
def test_encoders_and_partial_decoder(server_share: float, means) -> None:
    server = random(0)
    local = {site: random(number) for number, site in enumerate(SITES, start=1)}
    aggregation = means(server, [key for key in server if not key.startswith("auxiliary")], server_share)
    for site, (encoders, shared, weights) in SITES.items():
        for key in encoders:
            aggregation.add(site, key, local[site][key] - server[key], 1.0)
        for key in ("decoder.b.weight", "decoder.b.bias"):
            aggregation.add(site, key, (local[site][key] - server[key])[shared], weights[shared], shared)
    found = aggregation.result()

    # E_m: the plain mean over the sites that hold m.
    mean = sum(local[site]["encoders.T1.a.weight"] for site in "abc") / 3
    torch.testing.assert_close(found["encoders.T1.a.weight"], mean)
    torch.testing.assert_close(found["encoders.T2.a.weight"], local["b"]["encoders.T2.a.weight"])
    for key in ("decoder.b.weight", "decoder.b.bias"):
        for j in range(5):
            weighted, total = torch.zeros_like(server[key][j]), 0.0
            for site, (_, shared, weights) in SITES.items():
                if shared[j]:
                    weighted = weighted + weights[j] * local[site][key][j]
                    total += weights[j].item()
            if total > 0:
                expected = server_share * server[key][j] + (1 - server_share) * weighted / total
                torch.testing.assert_close(found[key][j], expected, rtol=1e-5, atol=1e-6)
            else:
                assert torch.equal(found[key][j], server[key][j])
    assert torch.equal(found["auxiliary.c.weight"], server["auxiliary.c.weight"])


def test_nobody_owns_a_modality(means) -> None:
    server = random(0)
    aggregation = means(server, list(server), 0.3)
    aggregation.add("site-1", "encoders.T1.a.weight", torch.ones(4, 1, 3), 1.0)
    found = aggregation.result()
    assert torch.equal(found["encoders.T2.a.weight"], server["encoders.T2.a.weight"])
    torch.testing.assert_close(found["encoders.T1.a.weight"], server["encoders.T1.a.weight"] + 1)


def test_by_cases(means) -> None:
    """Three parties with 20, 35 and 0 cases; the whole network."""
    server = random(0)
    local = [(random(1), 20.0), (random(2), 35.0), (random(3), 0.0)]
    aggregation = means(server, list(server), 0.0)
    for site, (state, cases) in zip("abc", local, strict=True):
        for key, value in state.items():
            if key != "encoders.T2.a.weight" or cases == 35:
                aggregation.add(site, key, value - server[key], cases)
    for key, value in aggregation.result().items():
        alone = key == "encoders.T2.a.weight"
        expected = local[1][0][key] if alone else (20 * local[0][0][key] + 35 * local[1][0][key]) / 55
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_order_of_the_sites_changes_no_bit(means) -> None:
    server = random(0)
    states = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        aggregation = means(server, list(server), 0.3)
        for number in order:
            for key, value in random(10 + number).items():
                aggregation.add(f"site-{number}", key, value * 1.7**number, 0.1 + number)
        states.append(aggregation.result())
    for key in server:
        assert torch.equal(states[0][key], states[1][key]) and torch.equal(states[0][key], states[2][key])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("encoders.T1ce.levels.1.0.conv.weight", "T1ce"),
        ("encoders.shared.levels.1.0.conv.weight", "shared"),
        ("decoder.levels.4.regions.reduce.conv.weight", None),
        ("auxiliary.classify.bias", None),
    ],
)
def test_encoder_of(key: str, expected: str | None) -> None:
    assert encoder_of(key) == expected
