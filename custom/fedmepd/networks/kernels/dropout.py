"""Which attention weights dropout keeps. The same seed always keeps the same ones on a kind of device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

# Of the 2**16 values of an int16, one after another from the lowest, so many stand for what is dropped.
_VALUES = 2**16


class Dropout:
    """Random bits that decide about attention weights.

    Args:
        share: of the weights that are dropped.
        seed: of the random numbers.
        device: of the weights.

    Attributes:
        lowest_kept: a weight is kept where its number of :attr:`bits` is at least this.
        scale: factor of the kept weights, which preserves their mean.
        bits: draws a tensor of int16 of a shape.
    """

    def __init__(self, share: float, seed: int, device: torch.device):
        dropped = round(share * _VALUES)
        self.lowest_kept = dropped - _VALUES // 2
        self.scale = _VALUES / (_VALUES - dropped)
        self.bits = processor_bits(seed) if device.type == "cpu" or not share else device_bits(seed, device)


def processor_bits(seed: int) -> Callable[[torch.Size], Tensor]:
    """Returns what draws tensors of random int16 of a shape, on the processor.

    NumPy makes them several times as fast as PyTorch, whose dropout would take longer than the rest of the attention.
    """
    generator = np.random.Generator(np.random.SFC64(seed))

    def draw(shape: torch.Size) -> Tensor:
        words = generator.integers(0, 2**64, -(-shape.numel() // 4), dtype=np.uint64)
        return torch.from_numpy(words.view(np.int16))[: shape.numel()].view(shape)

    return draw


def device_bits(seed: int, device: torch.device) -> Callable[[torch.Size], Tensor]:
    """Returns what draws tensors of random int16 of a shape on a GPU, which need not be sent to it."""
    generator = torch.Generator(device).manual_seed(seed)
    return lambda shape: torch.randint(-(2**15), 2**15, shape, dtype=torch.int16, device=device, generator=generator)
