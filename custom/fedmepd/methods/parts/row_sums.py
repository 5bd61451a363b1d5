"""Sums over the rows of updates, as loops that Numba compiles: a server with many sites spends most of its time here.

A row is what belongs to the first index of a tensor, such as a filter of a convolution.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedmepd.networks.kernels.compiled import as_array, call_first, compiled, inner_sum, kept_in


def add_rounded(total: Tensor, values: Tensor, factors: Tensor, places: Tensor) -> None:
    """Adds to rows of a sum: each value times its row's factor, rounded to a whole number (half to even).

    Args:
        total: int64 (all rows, ...), contiguous.
        values: (rows, ...), floating-point.
        factors: (rows,) float64.
        places: which rows of the total they are, (rows,) int64.
    """
    prepare()
    if values.numel():
        _add_rounded(as_array(_table(total)), _numbers(values), as_array(factors.contiguous()), as_array(places))


def row_products(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scalar products of the rows of two tensors, in float64.

    Args:
        first, second: (rows, ...), floating-point, of one shape.

    Returns:
        first with first, second with second, first with second; each (rows,) float64.
    """
    prepare()
    if first.dtype != second.dtype:
        first, second = first.double(), second.double()
    sums = np.zeros((3, len(first)))
    if first.numel():
        _row_products(_numbers(first), _numbers(second), sums)
    return tuple(map(torch.from_numpy, sums))


def _numbers(values: Tensor) -> np.ndarray:
    """(rows, values of a row), float32 or float64."""
    values = values if values.dtype in (torch.float32, torch.float64) else values.double()
    return as_array(_table(values.cpu()).contiguous())


def _table(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1)


@functools.cache
def prepare() -> None:
    """Compiles the loops, or loads them; the first sum does the same."""
    one = np.ones((1, 1), np.float32)

    def both() -> None:
        _add_rounded(np.zeros((1, 1), np.int64), one, np.ones(1), np.zeros(1, np.int64))
        _row_products(one, one, np.zeros((3, 1)))

    call_first(both, _add_rounded, "the sums over updates")


def kept() -> Path | None:
    """Returns the folder in which the compiled loops are kept; None if each process compiles them."""
    return kept_in(_add_rounded)


@compiled
def _add_rounded(total, values, factors, places):
    for row in range(len(values)):
        factor, into = factors[row], places[row]
        for column in range(values.shape[1]):
            total[into, column] += np.int64(np.rint(np.float64(values[row, column]) * factor))


@compiled
def _row_products(first, second, sums):
    for row in range(len(first)):
        _add_products(first, second, row, sums)


@inner_sum
def _add_products(first, second, row, sums):
    squares, others, products = 0.0, 0.0, 0.0
    for column in range(first.shape[1]):
        one, other = np.float64(first[row, column]), np.float64(second[row, column])
        squares += one * one
        others += other * other
        products += one * other
    sums[0, row] += squares
    sums[1, row] += others
    sums[2, row] += products
