"""Hand-made segmentations."""

from __future__ import annotations

import numpy as np


def sphere(centre: tuple[int, int, int], radius: float = 5, shape: tuple[int, int, int] = (24, 24, 24)) -> np.ndarray:
    """A ball of ED, in it one of NCR/NET, in it one of ET, in voxels."""
    distance = np.sqrt(
        sum(
            (np.arange(side).reshape([-1 if axis == along else 1 for axis in range(3)]) - place) ** 2
            for along, (side, place) in enumerate(zip(shape, centre, strict=True))
        )
    )
    return np.select([distance < radius / 3, distance < radius * 2 / 3, distance < radius], [3, 1, 2], 0).astype(
        "uint8"
    )
