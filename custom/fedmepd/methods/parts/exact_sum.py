"""Sums that do not depend on the order in which the sites answer."""

from __future__ import annotations

import torch
from torch import Tensor

# Far above any sane change of a weight in a round, and above any site's number of cases.
LARGEST_CHANGE = 2.0**4
LARGEST_WEIGHT = 2.0**14

_SCALE = 2.0**36


class ExactSum:
    """A sum of floating-point tensors whose bits do not depend on the order of its terms.

    Each term is rounded once, to a multiple of 2^-36, and added as an integer; integer addition has no order. A term is
    at most the largest change times the largest weight, so that 511 of them fit into 63 bits.

    Args:
        shape: of the terms.
    """

    def __init__(self, shape: torch.Size):
        self._total = torch.zeros(shape, dtype=torch.int64)

    def add(self, term: Tensor, rows: Tensor | None = None) -> None:
        """Adds a term, or one for the given rows (bool mask of the first dimension) only."""
        units = (term.double() * _SCALE).round().to(torch.int64)
        if rows is None:
            self._total += units
        else:
            self._total[rows] += units

    def value(self) -> Tensor:
        """The sum, float64."""
        return self._total.double() / _SCALE
