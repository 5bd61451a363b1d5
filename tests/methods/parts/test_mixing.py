"""Mixing of blocks against the formulas of its docstring, pair by pair, and against cases whose result is known."""

from __future__ import annotations

import math
import weakref

import pytest
import torch

from fedmepd.methods.parts.blocks import block_of, in_blocks
from fedmepd.methods.parts.mixing import mixing_weights, mixture, products

SHAPES = {"a.weight": (3, 2), "a.bias": (3,)}
OWNERS = {"encoders.T1": ["one", "two"], "encoders.T2": ["three", "two"], "decoder": ["one", "three", "two"]}


def blocks(seed: int) -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    """By block and owner, weights."""
    generator = torch.Generator().manual_seed(seed)
    return {
        block: {
            owner: {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()} for owner in owners
        }
        for block, owners in OWNERS.items()
    }


def slow_weights(of: dict[str, dict[str, dict[str, torch.Tensor]]]) -> dict[str, dict[tuple[str, str], float]]:
    """The weight of every owner in every owner's mixture."""
    flat = {
        block: {
            owner: [float(x) for value in weights.values() for x in value.flatten()] for owner, weights in by.items()
        }
        for block, by in of.items()
    }
    attention: dict[str, dict[tuple[str, str], float]] = {}
    for block, by in flat.items():
        attention[block] = {}
        for k, own in by.items():
            powers = {
                other: math.exp(sum(x * y for x, y in zip(own, theirs, strict=True)) / math.sqrt(9))
                for other, theirs in by.items()
            }
            for other, power in powers.items():
                attention[block][k, other] = power / sum(powers.values())
    weights: dict[str, dict[tuple[str, str], float]] = {}
    for block, by in flat.items():
        weights[block] = {}
        for k in by:
            weighed = {}
            for other in by:
                common = [name for name, owners in OWNERS.items() if k in owners and other in owners]
                edge = sum(attention[name][k, other] for name in common) / len(common)
                weighed[other] = attention[block][k, other] * edge
            for other, weight in weighed.items():
                weights[block][k, other] = weight / sum(weighed.values())
    return weights


def test_weights_and_mixtures() -> None:
    of = blocks(0)
    expected = slow_weights(of)
    found = mixing_weights(OWNERS, {block: products(names, of[block].get) for block, names in OWNERS.items()})
    for block, names in OWNERS.items():
        for row, own in enumerate(names):
            for column, other in enumerate(names):
                assert float(found[block][row, column]) == pytest.approx(expected[block][own, other], rel=1e-6)
            mixed = mixture(names, found[block][row], of[block].get)
            for key in SHAPES:
                mean = sum(expected[block][own, other] * of[block][other][key] for other in names)
                torch.testing.assert_close(mixed[key], mean)
    # Nobody's mixture is a plain mean here, and no two are the same.
    assert (found["decoder"] - 1 / 3).abs().min() > 1e-3


def test_owners_that_are_alike_share_evenly() -> None:
    alike = {"a.weight": torch.ones(3, 2)}
    found = mixing_weights({"decoder": ["one", "two"]}, {"decoder": products(["one", "two"], lambda owner: alike)})
    torch.testing.assert_close(found["decoder"], torch.full((2, 2), 0.5, dtype=torch.float64))


def test_an_only_owner_keeps_its_block() -> None:
    own = {"a.weight": torch.randn(3, 2)}
    [row] = mixing_weights({"encoders.T1": ["one"]}, {"encoders.T1": products(["one"], lambda owner: own)})[
        "encoders.T1"
    ]
    assert torch.equal(mixture(["one"], row, lambda owner: own)["a.weight"], own["a.weight"])


def test_two_blocks_at_a_time() -> None:
    """However many owners there are, what was loaded before the last two is gone; of a mixture, before the last one."""
    living: list[weakref.ref] = []
    most = 0

    class Block(dict):
        pass

    def load(owner: str) -> Block:
        nonlocal most
        block = Block({"a.weight": torch.full((3, 2), float(len(owner)))})
        living.append(weakref.ref(block))
        most = max(most, sum(ref() is not None for ref in living))
        return block

    owners = ["a" * length for length in range(1, 8)]
    weights = mixing_weights({"decoder": owners}, {"decoder": products(owners, load)})["decoder"]
    assert most == 2
    most = 0
    living.clear()
    mixture(owners, weights[0], load)
    assert most == 1


def test_blocks_by_name() -> None:
    weights = {key: torch.zeros(1) for key in ("encoders.T1.levels.a", "encoders.T2.b", "decoder.c", "auxiliary.d.e")}
    assert [block_of(key) for key in weights] == ["encoders.T1", "encoders.T2", "decoder", "auxiliary"]
    assert {block: list(of) for block, of in in_blocks(weights | {"decoder.f": torch.ones(1)}).items()}["decoder"] == [
        "decoder.c",
        "decoder.f",
    ]
