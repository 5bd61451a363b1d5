"""A bound on the size of one site's update: what a broken or malicious site can do to everybody else's model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median_low

import torch
from torch import Tensor

_BLOCK = 2**16


@dataclass(frozen=True)
class Size:
    """How large an update is, and what was made of it.

    Attributes:
        own: root mean square of the update's changes of weights. Not the norm: sites return different numbers of
            encoders and filters.
        factor: what the changes were multiplied with; 1 where the update is within the bound.
        median: that of the sites, which the update was compared with; None where there was nothing to compare with.
    """

    own: float
    factor: float = 1.0
    median: float | None = None


class NormBound:
    """Compares every update with the median site of the round before, so that updates can be added as they arrive.

    An update that is more than ``bound`` times as large as the median is scaled down to the median: its direction keeps
    one vote, like every other site's. The first round, before which there is none, has to wait for its own median
    (:attr:`waits`).

    Args:
        bound: how many times the median site's size an update may have; 0: any.
    """

    def __init__(self, bound: float):
        self.bound = bound
        self.median: float | None = None

    @property
    def waits(self) -> bool:
        """Whether updates must be kept until all of the round's are there."""
        return bool(self.bound) and not self.median

    def judge(self, own: float) -> Size:
        """Returns what is to be made of an update of the given size (see :func:`size_of`)."""
        if not self.bound or not self.median or own <= self.bound * self.median:
            return Size(own, median=self.median)
        return Size(own, self.median / own, self.median)

    def set_median(self, sizes: Iterable[float]) -> None:
        """Takes the sizes of a round's updates as they came; without any, the median stays.

        The lower one of two middle values: of two sites, the smaller update is the measure.
        """
        sizes = list(sizes)
        if sizes:
            self.median = median_low(sizes)


def size_of(changes: dict[str, Tensor]) -> float:
    """Returns the root mean square of an update's values; 0 without any."""
    count = sum(change.numel() for change in changes.values())
    # In blocks that stay in the processor's cache as float64.
    blocks = (block.double() for change in changes.values() for block in change.reshape(-1).split(_BLOCK))
    return (sum(float(torch.dot(block, block)) for block in blocks) / count) ** 0.5 if count else 0.0


def scaled(changes: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """Returns the changes times a factor, float32; as they are for 1."""
    if factor == 1:
        return changes
    return {key: (change.double() * factor).to(torch.float32) for key, change in changes.items()}
