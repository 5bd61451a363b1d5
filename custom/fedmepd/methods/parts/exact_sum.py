"""Sums that do not depend on the order in which the sites answer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Far above any sane change of a weight in a round, and above any site's number of cases.
LARGEST_CHANGE = 2.0**4
LARGEST_WEIGHT = 2.0**14

_SCALE = 2.0**36

# Values that are handled at a time, so that what lies between the steps stays in the processor's cache.
_BLOCK = 2**14


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
        # A multiplication by a power of two changes no digit.
        factor = np.asarray(weight, dtype=np.float64) * _SCALE
        values = values.detach().cpu().numpy()
        if rows is None or rows.all():
            _add(self._total.numpy(), values, factor)
        else:
            part = self._total[rows]
            _add(part.numpy(), values, factor)
            self._total[rows] = part

    def value(self) -> Tensor:
        """The sum, float64."""
        return self._total.double() / _SCALE


def _add(total: np.ndarray, values: np.ndarray, factor: np.ndarray) -> None:
    """Adds the rounded products of values and factor to the total, some rows at a time."""
    rows, columns = (len(factor), values.size // max(1, len(factor))) if factor.ndim else (values.size, 1)
    total, values = total.reshape(rows, columns), values.reshape(rows, columns)
    factor = np.broadcast_to(factor.reshape(-1, 1), (rows, 1))
    count = max(1, _BLOCK // max(1, columns))
    for start in range(0, len(values), count):
        block = slice(start, start + count)
        units = np.multiply(values[block], factor[block], dtype=np.float64)
        total[block] += np.rint(units, out=units).astype(np.int64)
