"""Random numbers that nobody else can know."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np


class SecretRandom:
    """Draws patients and noise from the operating system's randomness.

    The other random numbers of a run follow from the job's seed, which the server knows: it could subtract noise that
    did too. Nothing is ever drawn twice, so a round that is repeated has other noise. For the same reason a run with
    differential privacy cannot be reproduced to the bit.

    Args:
        source: returns so many random bytes.
    """

    def __init__(self, source: Callable[[int], bytes] = os.urandom):
        self._source = source

    def uniform(self, count: int) -> np.ndarray:
        """Returns numbers above 0 and up to 1, each a multiple of 2^-53, float64."""
        words = np.frombuffer(self._source(8 * count), dtype=np.uint64)
        return ((words >> np.uint64(11)) + np.uint64(1)) * 2.0**-53

    def normal(self, count: int) -> np.ndarray:
        """Returns numbers of the standard normal distribution, float64 (Box and Muller)."""
        half = -(-count // 2)
        radius, angle = np.sqrt(-2 * np.log(self.uniform(half))), 2 * np.pi * self.uniform(half)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def chosen(self, count: int, rate: float) -> list[int]:
        """Returns which of so many are chosen, each by itself with the given probability."""
        return np.flatnonzero(self.uniform(count) <= rate).tolist()

    def one_of(self, count: int) -> int:
        """Returns one of so many places, all alike."""
        return min(count - 1, int(self.uniform(1)[0] * count))
