"""Sums that do not depend on the order in which the sites answer."""

from __future__ import annotations

import torch
from torch import Tensor

from fedmepd.methods.parts.row_sums import add_rounded

# Far above any sane change of a weight in a round, and above any site's number of cases.
LARGEST_CHANGE = 2.0**4
LARGEST_WEIGHT = 2.0**14

_SCALE = 2.0**36


class ExactSum:
    """A sum of weighted floating-point tensors whose bits do not depend on the order of its terms.

    Each term is rounded once, to a multiple of 2^-36, and added as an integer; integer addition has no order. A term is
    at most the largest change times the largest weight, so that 511 of the largest fit into 63 bits. With fewer cases
    a site, as anywhere, millions do.

    Args:
        shape: of the terms.
    """

    def __init__(self, shape: torch.Size):
        self._total = torch.zeros(shape, dtype=torch.int64)

    def add(self, values: Tensor, weight: Tensor | float = 1.0, rows: Tensor | None = None) -> None:
        """Adds ``weight * values``.

        Args:
            values: of the sum's shape, or of the given rows of it.
            weight: one number, or one per row of the values.
            rows: bool mask of the first dimension; None: all.
        """
        # A sum of a single number has no rows; neither has one with one weight for all.
        total, values = self._total, values.detach()
        whole = rows is None and not (isinstance(weight, Tensor) and weight.ndim)
        if whole:
            total, values = total[None], values[None]
        places = torch.arange(len(values)) if rows is None else rows.nonzero()[:, 0]
        # A multiplication by a power of two changes no digit.
        factors = torch.as_tensor(weight, dtype=torch.float64) * _SCALE
        add_rounded(total, values, factors.expand(len(values)), places)

    def value(self) -> Tensor:
        """The sum, float64."""
        return self._total.double() / _SCALE
