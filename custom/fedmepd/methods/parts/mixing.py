"""Attention between the participants' blocks, which gives everyone a mixture of their own (FedMSplit, KDD 2022).

A block b is a part of the network that several participants own, theta^b_k is that of participant k, and p_b the number
of its weights::

    S^b_kl = softmax over the owners l of theta^b_k . theta^b_l / sqrt(p_b)
    e_kl   = mean of S^b_kl over the blocks b that k and l both own
    theta^b_k <- sum over l of S^b_kl e_kl theta^b_l, divided by the sum of S^b_kl e_kl

Nothing here holds more than two blocks at a time, so that memory does not grow with the number of participants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

# Returns a participant's weights of a block, by name.
Load = Callable[[str], dict[str, Tensor]]


def products(owners: Sequence[str], load: Load) -> Tensor:
    """Returns theta_k . theta_l / sqrt(p) of one block for all pairs of its owners, (owners, owners) float64."""
    found = torch.zeros(len(owners), len(owners), dtype=torch.float64)
    for place in range(len(owners)):
        found[place, place:] = found[place:, place] = _with_others(owners[place:], load)
    return found


def _with_others(owners: Sequence[str], load: Load) -> Tensor:
    """The product of the first owner's block with that of each of them."""
    own = load(owners[0])
    size = sum(value.numel() for value in own.values())
    # No name for the other's block: it has to be gone before the next one is loaded.
    found = [_product(own, own), *(_product(own, load(other)) for other in owners[1:])]
    return torch.tensor(found, dtype=torch.float64) / size**0.5


def _product(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return sum(float(torch.dot(one[key].double().flatten(), other[key].double().flatten())) for key in one)


def mixing_weights(owners: dict[str, Sequence[str]], of_block: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns how much of everyone's block goes into everyone's mixture.

    Args:
        owners: by block, the participants that own it.
        of_block: by block, what :func:`products` returned.

    Returns:
        by block, (owners, owners) float64: a row is the mixture of one owner, and its sum is 1.
    """
    attention = {block: of_pairs.softmax(dim=1) for block, of_pairs in of_block.items()}
    weights = {}
    for block, names in owners.items():
        rows = [[_edge(one, other, owners, attention) for other in names] for one in names]
        weighed = attention[block] * torch.tensor(rows, dtype=torch.float64)
        weights[block] = weighed / weighed.sum(dim=1, keepdim=True)
    return weights


def _edge(one: str, other: str, owners: dict[str, Sequence[str]], attention: dict[str, Tensor]) -> float:
    """The mean attention of one participant to another over the blocks that both own."""
    common = [block for block, names in owners.items() if one in names and other in names]
    given = [float(attention[block][owners[block].index(one), owners[block].index(other)]) for block in common]
    return sum(given) / len(given)


def mixture(owners: Iterable[str], weights: Tensor, load: Load) -> dict[str, Tensor]:
    """Returns one owner's mixture of a block.

    Args:
        owners: of the block.
        weights: the owner's row of :func:`mixing_weights`.
        load: returns the block of an owner.
    """
    mixed: dict[str, Tensor] = {}
    for owner, weight in zip(owners, weights.tolist(), strict=True):
        for key, value in load(owner).items():
            share = value.double() * weight
            mixed[key] = mixed[key].add_(share) if key in mixed else share
    return {key: value.float() for key, value in mixed.items()}
