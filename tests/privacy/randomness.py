"""Stand-ins for secret random numbers."""

from __future__ import annotations

import numpy as np

from fedmepd.privacy.randomness import SecretRandom


def known(seed: int = 0) -> SecretRandom:
    """Numbers that a test can repeat."""
    return SecretRandom(np.random.default_rng(seed).bytes)


class Silent(SecretRandom):
    """Chooses everybody, and makes no noise."""

    def chosen(self, count: int, rate: float) -> list[int]:
        return list(range(count))

    def normal(self, count: int) -> np.ndarray:
        return np.zeros(count)
