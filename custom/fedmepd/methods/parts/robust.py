"""Means that one dishonest site of several cannot move far: coordinate-wise trimmed, and of updates in one direction.

Trimmed mean and median: Yin et al., ICML 2018. An update that opposes the median update is left out as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedmepd.methods.parts.selection import DECODER

if TYPE_CHECKING:
    from fedmepd.methods.method import Store

# Of fewer, nobody can tell which one is wrong.
_FEWEST = 3


@dataclass(frozen=True)
class _Part:
    """A site's change of one tensor: where its values are, which rows it has, and the weight of each row."""

    start: int
    rows: Tensor
    weights: Tensor


class RobustAggregation:
    """One round's means of changes, in which every weight's largest and smallest changes do not count.

    It is used in place of :class:`~fedmepd.methods.parts.aggregation.Aggregation`, and gives the same mean, but for
    rounding, where nothing is trimmed or left out. The order of the sites does not change a bit. Changes wait on disk,
    and memory holds a block of values of all sites at a time.

    Args:
        state: the server's weights, by name, which the sites' changes refer to.
        keys: the weights that sites may return.
        server_share: share of the server's own decoder filter kept.
        trim: share of the sites whose changes of a weight are left out at either end, rounded up; at most so many that
            one change, or two, are left. 0: none; 0.5: the median.
        direction: an update whose cosine with the median update is smaller is left out of all means; -1: none.
        store: keeps the changes.
        block: values of all sites together that are in memory at a time.

    Attributes:
        cosines: after :meth:`result`, of every site's update with the median update; of weights that at least three
            sites return.
        left_out: those of the sites that were left out.
    """

    def __init__(
        self,
        state: dict[str, Tensor],
        keys: list[str],
        server_share: float,
        trim: float,
        direction: float,
        store: Store,
        block: int = 2**19,
    ):
        self._state, self._server_share = state, server_share
        self._trim, self._direction = trim, direction
        self._store, self._block = store, block
        self._parts: dict[str, dict[str, _Part]] = {key: {} for key in keys}
        self.cosines: dict[str, float] = {}
        self.left_out: dict[str, float] = {}
        store.begin_spool()

    def add(self, site: str, key: str, change: Tensor, weight: float | Tensor, rows: Tensor | None = None) -> None:
        """Adds a site's change of one tensor; see :meth:`~fedmepd.methods.parts.aggregation.Aggregation.add`."""
        count = self._state[key].shape[0] if self._state[key].ndim else 1
        rows = torch.ones(count, dtype=torch.bool) if rows is None else rows
        weights = torch.zeros(count, dtype=torch.float64)
        weights[rows] = torch.as_tensor(weight, dtype=torch.float64).expand(int(rows.sum()))
        self._parts[key][site] = _Part(self._store.spool(site, change), rows.clone(), weights)

    def result(self) -> dict[str, Tensor]:
        """The new weights; a tensor or filter that no site returned stays as it is."""
        if self._direction > -1:
            self.cosines = self._compare()
            self.left_out = {site: cosine for site, cosine in self.cosines.items() if cosine < self._direction}
        merged = dict(self._state)
        for key in self._parts:
            share = 1 - self._server_share if key.startswith(DECODER) else 1.0
            means = [mean for *_, mean in self._blocks(key, self._trim, self.left_out)]
            if means:
                mean = torch.cat(means).reshape(self._state[key].shape)
                merged[key] = (self._state[key].double() + share * mean).float()
        return merged

    def _compare(self) -> dict[str, float]:
        products: dict[str, float] = {}
        squares: dict[str, tuple[float, float]] = {}
        for key in self._parts:
            for sites, values, there, _, median in self._blocks(key, 0.5, ()):
                known = there.sum(dim=0) >= _FEWEST
                for place, site in enumerate(sites):
                    rows = known & there[place]
                    own, middle = values[place][rows].reshape(-1), median[rows].reshape(-1)
                    products[site] = products.get(site, 0.0) + float(own.dot(middle))
                    before = squares.get(site, (0.0, 0.0))
                    squares[site] = before[0] + float(own.dot(own)), before[1] + float(middle.dot(middle))
        return {
            site: products[site] / math.sqrt(of_site * of_median)
            for site, (of_site, of_median) in sorted(squares.items())
            if of_site and of_median
        }

    def _blocks(
        self, key: str, trim: float, without: dict[str, float] | tuple
    ) -> Iterator[tuple[list[str], Tensor, Tensor, Tensor, Tensor]]:
        """Gives a tensor some rows at a time.

        Yields:
            the sites; their changes (sites, rows, columns), which rows each has, and the rows' weights (sites, rows);
            the trimmed means (rows, columns).
        """
        parts = {site: part for site, part in sorted(self._parts[key].items()) if site not in without}
        if not parts:
            return
        count = len(next(iter(parts.values())).rows)
        columns = self._state[key].numel() // count
        step = max(1, self._block // max(1, columns * len(parts)))
        for first in range(0, count, step):
            block = slice(first, min(count, first + step))
            there = torch.stack([part.rows[block] for part in parts.values()])
            weights = torch.stack([part.weights[block] for part in parts.values()])
            values = torch.zeros(*there.shape, columns, dtype=torch.float64)
            for place, (site, part) in enumerate(parts.items()):
                begin = part.start + int(part.rows[:first].sum()) * columns
                found = self._store.spooled(site, begin, int(there[place].sum()) * columns)
                values[place, there[place]] = found.double().reshape(-1, columns)
            yield list(parts), values, there, weights, _trimmed_mean(values, there, weights, trim)


def _trimmed_mean(values: Tensor, there: Tensor, weights: Tensor, trim: float) -> Tensor:
    """The weighted mean over sites of what is left after trimming, (rows, columns); 0 where there is nothing.

    Args:
        values: (sites, rows, columns).
        there: which of them count, (sites, rows).
        weights: (sites, rows).
        trim: see :class:`RobustAggregation`.
    """
    count = there.sum(dim=0)
    cut = torch.minimum((trim * count).ceil().long(), ((count - 1) // 2).clamp_min(0))
    # What is not there is last.
    values = torch.where(there[:, :, None], values, torch.inf)
    alike = torch.where(there, weights, weights.amax(dim=0)) == weights.amax(dim=0)
    if alike.all():
        values = values.sort(dim=0).values
        weights = weights.amax(dim=0)[None, :, None].expand_as(values)
    else:
        # Of equal values the weight decides, so that no bit depends on the order of the sites.
        order = weights.argsort(dim=0, stable=True)
        weights = weights.gather(0, order)[:, :, None].expand_as(values)
        values, order = values.gather(0, order[:, :, None].expand_as(values)).sort(dim=0, stable=True)
        weights = weights.gather(0, order)
    total, sum_of_weights = torch.zeros_like(values[0]), torch.zeros_like(values[0])
    for rank in range(len(values)):
        kept = ((rank >= cut) & (rank < count - cut))[:, None]
        total += torch.where(kept, values[rank] * weights[rank], 0.0)
        sum_of_weights += torch.where(kept, weights[rank], 0.0)
    return torch.where(sum_of_weights > 0, total / sum_of_weights.clamp_min(1e-300), 0.0)
