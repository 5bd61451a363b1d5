"""A network in blocks: an encoder for each modality, the decoder, the auxiliary decoder."""

from __future__ import annotations

from torch import Tensor

from fedmepd.methods.parts.selection import ENCODERS

Blocks = dict[str, dict[str, Tensor]]


def block_of(key: str) -> str:
    """Returns the block that a weight belongs to: ``encoders.<modality>``, ``decoder`` or ``auxiliary``."""
    first, second = key.split(".")[:2]
    return f"{first}.{second}" if key.startswith(ENCODERS) else first


def in_blocks(weights: dict[str, Tensor]) -> Blocks:
    """Returns weights by block, then by name."""
    blocks: Blocks = {}
    for key, value in weights.items():
        blocks.setdefault(block_of(key), {})[key] = value
    return blocks
