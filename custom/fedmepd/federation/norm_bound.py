"""A bound on the size of one site's update: what a broken or malicious site can do to everybody else's model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median_high, median_low
from typing import Any

import torch
from torch import Tensor

from fedmepd.methods.parts.row_sums import row_products

# Single filters of honest sites differ more than their updates: in round 20 of a default job, one was 4.6 times the
# measure.
_OF_FILTERS = 2.0


@dataclass(frozen=True)
class Size:
    """How large an update is, and what was made of it.

    Attributes:
        own: root mean square of the update's changes of weights. Not the norm: sites return different numbers of
            encoders and filters.
        factor: what the changes were multiplied with; 1 where the update is within the bound.
        median: that of the sites, which the update was compared with; None where there was nothing to compare with.
        tensors: the root mean square of every tensor alone, by name.
        filters: how many filters were scaled down besides, because each alone was above the bound.
    """

    own: float
    factor: float = 1.0
    median: float | None = None
    tensors: Mapping[str, float] = field(default_factory=dict)
    filters: int = 0


class NormBound:
    """Compares every update with the median site of the round before, so that updates can be added as they arrive.

    An update that is more than ``bound`` times as large as the median is scaled down to the median: its direction keeps
    one vote, like every other site's. Within the update, a filter (a row of a tensor) that is more than twice ``bound``
    times as large as the median site's tensor, and as its whole update, is scaled down to the larger of them: otherwise
    an update's whole size could be in a handful of weights. The first round, before which there is no median, has to
    wait for its own (:attr:`waits`).

    No site alone decides what the measure is: of an even number of sites, the fusion site's training counts as one
    more. A single site, or the only one that has a tensor, is compared with the fusion site and with the measure of the
    round before: it cannot raise the measure by itself, and a fusion site that hardly trains cannot lower it below what
    was usual.

    As long as the fusion site has not trained, this holds for three sites or more. Of an even number, the larger one of
    the two middle values is the measure then, so that a site with a tiny update cannot make another site's look large.
    The larger one of two sites is bounded by nothing: of two sizes alone, nobody can tell which one is wrong.

    Args:
        bound: how many times the median site's size an update may have, and a filter twice as many; 0: any.
        by_filter: whether single filters are bounded too.
    """

    def __init__(self, bound: float, by_filter: bool = True):
        self.bound = bound
        self.median: float | None = None
        self._by_filter = by_filter
        # Of every tensor alone, by name.
        self._medians: dict[str, float] = {}
        self._fusion: Size | None = None

    @property
    def waits(self) -> bool:
        """Whether updates must be kept until all of the round's are there."""
        return bool(self.bound) and not self.median

    def judge(self, size: Size) -> Size:
        """Returns what is to be made of an update of the given size (see :func:`size_of`)."""
        own, factor = size.own, 1.0
        if self.bound and self.median and own > self.bound * self.median:
            factor = self.median / own
        return replace(size, factor=factor, median=self.median)

    def limit(self, changes: dict[str, Tensor], size: Size) -> tuple[dict[str, Tensor], Size]:
        """Scales down what is too large in an update.

        Args:
            changes: the update.
            size: what :meth:`judge` has said of it.

        Returns:
            the changes, and the size with the number of filters that were scaled down alone.
        """
        changes = scaled(changes, size.factor)
        if not (self.bound and self.median and self._by_filter):
            return changes, size
        limited, count = {}, 0
        for key, change in changes.items():
            # In a tensor that sites hardly change, many times as much is little all the same.
            measure = max(self._medians.get(key, 0.0), self.median)
            # No row is larger than the square root of their number times the whole.
            if size.factor * size.tensors[key] * max(1, len(change)) ** 0.5 > _OF_FILTERS * self.bound * measure:
                change, rows = _limited_rows(change, _OF_FILTERS * self.bound, measure)
                count += rows
            limited[key] = change
        return limited, replace(size, filters=count)

    def note_fusion(self, changes: dict[str, Tensor]) -> None:
        """Notes what the fusion site's training has changed, which is one more size to compare with."""
        if changes:
            self._fusion = size_of(changes)

    def set_median(self, sizes: Iterable[Size]) -> None:
        """Takes the sizes of a round's updates as they came; without any, the median stays."""
        sizes = list(sizes)
        if not sizes:
            return
        fusion = self._fusion
        self.median = _middle([size.own for size in sizes], None if fusion is None else fusion.own, self.median)
        if self._by_filter:
            names = sorted(set().union(*(size.tensors for size in sizes)))
            of_fusion = {} if fusion is None else fusion.tensors
            self._medians |= {
                name: _middle(
                    [size.tensors[name] for size in sizes if name in size.tensors],
                    of_fusion.get(name),
                    self._medians.get(name),
                )
                for name in names
            }

    def state(self) -> dict[str, Any]:
        """Everything, as plain values."""
        fusion = self._fusion and {"own": self._fusion.own, "tensors": dict(self._fusion.tensors)}
        return {"median": self.median, "medians": self._medians, "fusion": fusion}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.median, self._medians = state["median"], state["medians"]
        self._fusion = state["fusion"] and Size(**state["fusion"])


def _middle(sizes: list[float], fusion: float | None, before: float | None) -> float:
    """The median of an odd number of sizes: of sites, and where these are even, of the fusion site too.

    Of one site, see :class:`NormBound`; ``before`` is the measure of the round before.
    """
    if len(sizes) == 1:
        (own,) = sizes
        if fusion is None:
            return own
        return fusion if before is None else max(fusion, min(own, before))
    if len(sizes) % 2 == 0:
        return median_high(sizes) if fusion is None else median_low([*sizes, fusion])
    return median_low(sizes)


def _limited_rows(change: Tensor, bound: float, measure: float) -> tuple[Tensor, int]:
    rows = change.double().reshape(len(change), -1)
    sizes = rows.square().mean(dim=1).sqrt()
    above = sizes > bound * measure
    if not above.any():
        return change, 0
    factors = torch.where(above, measure / sizes.clamp_min(1e-300), 1.0)
    return (rows * factors[:, None]).reshape(change.shape).to(torch.float32), int(above.sum())


def size_of(changes: dict[str, Tensor]) -> Size:
    """Returns the root mean square of an update's values, of all and of every tensor; 0 without any."""
    squares = {key: _squares(change) for key, change in changes.items()}
    count = sum(change.numel() for change in changes.values())
    tensors = {key: (squares[key] / max(1, change.numel())) ** 0.5 for key, change in changes.items()}
    return Size((sum(squares.values()) / count) ** 0.5 if count else 0.0, tensors=tensors)


def _squares(change: Tensor) -> float:
    values = change.reshape(1, -1)
    return row_products(values, values)[0].item()


def scaled(changes: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """Returns the changes times a factor, float32; as they are for 1."""
    if factor == 1:
        return changes
    return {key: (change.double() * factor).to(torch.float32) for key, change in changes.items()}
