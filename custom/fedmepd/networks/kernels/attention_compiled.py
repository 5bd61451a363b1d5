"""Attention on a processor, as loops that pass once over the voxels, forward and backward.

A group of voxels goes through all steps while its attention weights lie in the nearest cache, voxels last, so that
every step runs along whole vectors of the processor. The gradients of the parameters are summed by block of voxels and
then over the blocks in their order, so the threads change nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedmepd.networks.kernels.blockwise import block_size
from fedmepd.networks.kernels.compiled import (
    as_array,
    call_first,
    compiled,
    inner_loop,
    inner_sum,
    kept_in,
    load,
    side_by_side,
    store,
)
from fedmepd.networks.kernels.dropout import Dropout

# Voxels of a group.
_GROUP = 128


class Attend(torch.autograd.Function):
    """See :func:`~fedmepd.networks.kernels.attention.attend`; ``seed`` decides which weights dropout keeps."""

    @staticmethod
    def forward(ctx, voxels, score, score_bias, out, out_bias, heads, dropout, seed):
        prepare(voxels.dtype)
        voxels = voxels.contiguous()
        ctx.save_for_backward(voxels, score, score_bias, out)
        ctx.heads, ctx.dropping = heads, partial(Dropout, dropout, seed, voxels.device)
        return _attend(voxels, score, score_bias, out, out_bias, heads, ctx.dropping())

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return *_attend_backward(*ctx.saved_tensors, gradient.contiguous(), ctx.heads, ctx.dropping()), None, None, None


def _attend(
    voxels: Tensor, score: Tensor, score_bias: Tensor, out: Tensor, out_bias: Tensor, heads: int, dropping: Dropout
) -> Tensor:
    result = torch.empty_like(voxels)
    x, y = as_array(voxels), as_array(result)
    numbers = [_numbers(each, x) for each in (score, score_bias, out * dropping.scale, out_bias)]
    with side_by_side() as share:
        for part, bits in _waves(voxels, len(score), dropping):
            run = partial(
                _forward, x[part], *numbers, heads, bits, np.int16(dropping.lowest_kept), _size(voxels), y[part]
            )
            share(run, len(bits))
    return result


def _attend_backward(
    voxels: Tensor, score: Tensor, score_bias: Tensor, out: Tensor, gradient: Tensor, heads: int, dropping: Dropout
) -> tuple[Tensor, ...]:
    """Gradients of voxels, score, score_bias, out and out_bias."""
    result = torch.empty_like(voxels)
    x, g, y = as_array(voxels), as_array(gradient), as_array(result)
    transposed = [_numbers(each.t(), x) for each in (score, out * dropping.scale)]
    numbers = [_numbers(score, x), _numbers(score_bias, x), *transposed]
    blocks = -(-len(x) // _size(voxels))
    sums = [np.zeros((blocks, *each.shape)) for each in (score, score_bias, out, out[:, 0])]
    first = 0
    with side_by_side() as share:
        for part, bits in _waves(voxels, len(score), dropping):
            of_blocks = [each[first : first + len(bits)] for each in sums]
            run = partial(
                _backward,
                x[part],
                g[part],
                *numbers,
                heads,
                bits,
                np.int16(dropping.lowest_kept),
                _size(voxels),
                y[part],
                *of_blocks,
            )
            share(run, len(bits))
            first += len(bits)
    totals = [torch.from_numpy(each.sum(axis=0)).to(score.dtype) for each in sums]
    totals[2] *= dropping.scale
    return result, *totals


def _numbers(parameter: Tensor, like: np.ndarray) -> np.ndarray:
    """The parameter in the precision in which the voxels are computed."""
    kind = torch.float64 if like.dtype == np.float64 else torch.float32
    return as_array(parameter.to(kind).contiguous())


def _size(voxels: Tensor) -> int:
    """Voxels of a block."""
    return max(1, min(block_size(voxels), len(voxels)))


def _waves(voxels: Tensor, rows: int, dropping: Dropout) -> Iterator[tuple[slice, np.ndarray]]:
    """A block of voxels for each thread at a time, and dropout's bits (blocks, groups, rows, voxels of a group)."""
    size, threads = _size(voxels), torch.get_num_threads()
    for first in range(0, len(voxels), size * threads):
        part = slice(first, min(len(voxels), first + size * threads))
        blocks = -(-(part.stop - first) // size)
        drawn = (_groups(size), rows, _GROUP) if dropping.scale > 1 else (0, 0, 0)
        yield part, as_array(dropping.bits(torch.Size((blocks, *drawn))))


@functools.cache
def prepare(precision: torch.dtype) -> None:
    """Compiles the loops for a precision, or loads them; the first map does the same."""
    voxels = torch.ones(1, 1, dtype=precision)
    one = torch.ones(1, 1, dtype=torch.float64 if precision == torch.float64 else torch.float32)
    dropping = Dropout(0.0, 0, voxels.device)

    def both() -> None:
        _attend(voxels, one, one[0], one, one[0], 1, dropping)
        _attend_backward(voxels, one, one[0], one, voxels, 1, dropping)

    call_first(both, _forward, "the attention of the calibration")


def kept() -> Path | None:
    """Returns the folder in which the compiled loops are kept; None if each process compiles them."""
    return kept_in(_forward)


@compiled
def _groups(voxels):
    return -(-voxels // _GROUP)


@compiled
def _forward(x, score, score_bias, out, out_bias, heads, bits, lowest_kept, size, y, first, end):
    channels, rows = out.shape
    of_x, of_y = np.empty((channels, _GROUP), out.dtype), np.empty((channels, _GROUP), out.dtype)
    weights, scratch = np.empty((rows, _GROUP), out.dtype), np.empty((2, _GROUP), out.dtype)
    for block in range(first, end):
        # The last block may be a short one.
        held = min(size, len(x) - block * size)
        for group in range(_groups(held)):
            start, count = block * size + group * _GROUP, min(_GROUP, held - group * _GROUP)
            _set_weights(x, start, count, score, score_bias, heads, of_x, weights, scratch)
            _drop(bits, block, group, lowest_kept, weights)
            _combine(out, weights, out_bias, of_y)
            _write(of_y, start, count, y)


@compiled
def _backward(
    x,
    g,
    score,
    score_bias,
    score_t,
    out_t,
    heads,
    bits,
    lowest_kept,
    size,
    y,
    to_score,
    to_bias,
    to_out,
    to_out_bias,
    first,
    end,
):
    rows, channels = score.shape
    of_x, of_g = np.empty((channels, _GROUP), score.dtype), np.empty((channels, _GROUP), score.dtype)
    weights, kept = np.empty((rows, _GROUP), score.dtype), np.empty((rows, _GROUP), score.dtype)
    of_weights, scratch = np.empty((rows, _GROUP), score.dtype), np.empty((2, _GROUP), score.dtype)
    nothing = np.zeros(max(rows, channels), score.dtype)
    for block in range(first, end):
        held = min(size, len(x) - block * size)
        for group in range(_groups(held)):
            start, count = block * size + group * _GROUP, min(_GROUP, held - group * _GROUP)
            _set_weights(x, start, count, score, score_bias, heads, of_x, weights, scratch)
            _read(g, start, count, of_g)
            kept[:] = weights
            _combine(out_t, of_g, nothing, of_weights)
            _drop(bits, block, group, lowest_kept, kept)
            _drop(bits, block, group, lowest_kept, of_weights)
            _add_products(of_g, kept, block, to_out)
            _add_sums(of_g, block, to_out_bias)
            _softmax_backward(weights, heads, of_weights, scratch)
            _add_products(of_weights, of_x, block, to_score)
            _add_sums(of_weights, block, to_bias)
            _combine(score_t, of_weights, nothing, of_x)
            _write(of_x, start, count, y)


# The loops below take whole arrays: a view of a part costs more than a loop over a group.


@inner_loop
def _set_weights(x, start, count, score, score_bias, heads, of_x, weights, scratch):
    """Reads some voxels, and computes their attention weights (rows, group) before dropout."""
    _read(x, start, count, of_x)
    _combine(score, of_x, score_bias, weights)
    _softmax(weights, heads, scratch)


@inner_loop
def _read(voxels, start, count, columns):
    """Some voxels, channels last -> voxels last; zeros where the group has fewer."""
    for channel in range(len(columns)):
        for place in range(count):
            columns[channel, place] = load(voxels[start + place, channel])
        for place in range(count, _GROUP):
            columns[channel, place] = 0


@inner_loop
def _write(columns, start, count, voxels):
    for place in range(count):
        for channel in range(len(columns)):
            store(voxels, (start + place, channel), columns[channel, place])


@inner_loop
def _combine(factors, columns, start, into):
    """factors (N, K), columns (K, group) -> start (N) + factors @ columns."""
    # Four columns at a time: the sums are read and written a quarter as often.
    by_four = len(columns) // 4 * 4
    for number in range(len(into)):
        for place in range(_GROUP):
            into[number, place] = start[number]
        for k in range(0, by_four, 4):
            a, b = factors[number, k], factors[number, k + 1]
            c, d = factors[number, k + 2], factors[number, k + 3]
            for place in range(_GROUP):
                into[number, place] += (a * columns[k, place] + b * columns[k + 1, place]) + (
                    c * columns[k + 2, place] + d * columns[k + 3, place]
                )
        for k in range(by_four, len(columns)):
            factor = factors[number, k]
            for place in range(_GROUP):
                into[number, place] += factor * columns[k, place]


@inner_loop
def _softmax(weights, heads, scratch):
    """The scores -> their softmax by head, in place."""
    rows = len(weights) // heads
    for head in range(heads):
        for place in range(_GROUP):
            scratch[0, place] = weights[head * rows, place]
            scratch[1, place] = 0
        for row in range(head * rows + 1, (head + 1) * rows):
            for place in range(_GROUP):
                value, most = weights[row, place], scratch[0, place]
                scratch[0, place] = value if value > most else most
        for row in range(head * rows, (head + 1) * rows):
            for place in range(_GROUP):
                value = _exponential(weights[row, place] - scratch[0, place])
                weights[row, place] = value
                scratch[1, place] += value
        for place in range(_GROUP):
            scratch[1, place] = 1 / scratch[1, place]
        for row in range(head * rows, (head + 1) * rows):
            for place in range(_GROUP):
                weights[row, place] *= scratch[1, place]


@inner_loop
def _softmax_backward(weights, heads, gradient, scratch):
    """The gradient of the weights -> that of the scores, in place."""
    rows = len(weights) // heads
    for head in range(heads):
        for place in range(_GROUP):
            scratch[0, place] = 0
        for row in range(head * rows, (head + 1) * rows):
            for place in range(_GROUP):
                scratch[0, place] += weights[row, place] * gradient[row, place]
        for row in range(head * rows, (head + 1) * rows):
            for place in range(_GROUP):
                gradient[row, place] = weights[row, place] * (gradient[row, place] - scratch[0, place])


@inner_loop
def _drop(bits, block, group, lowest_kept, weights):
    for row in range(bits.shape[2]):
        for place in range(_GROUP):
            weight = weights[row, place]
            weights[row, place] = weight if bits[block, group, row, place] >= lowest_kept else weights.dtype.type(0)


@inner_sum
def _add_sums(columns, block, sums):
    for number in range(len(columns)):
        total = columns.dtype.type(0)
        for place in range(_GROUP):
            total += columns[number, place]
        sums[block, number] += total


@inner_sum
def _add_products(columns, others, block, sums):
    for number in range(len(columns)):
        for other in range(len(others)):
            total = columns.dtype.type(0)
            for place in range(_GROUP):
                total += columns[number, place] * others[other, place]
            sums[block, number, other] += total


def _exponential(value: float) -> float:
    return np.exp(value)


# The library's function for float32 takes one number at a time; this one takes a vector of the processor.
@overload(_exponential)
def _compiled_exponential(value):
    return _by_series if value == types.float32 else (lambda value: np.exp(value))


_LOWEST = np.float32(-87)  # The result is still a normal number.
_PER_POWER = np.float32(1.4426950408889634)
# The logarithm of 2 in two parts; the product of the first with a whole number is exact.
_LOG_2, _LOG_2_REST = np.float32(0.693359375), np.float32(-2.12194440e-4)
_HALF, _ONE = np.float32(1 / 2), np.float32(1)
_THIRD, _FOURTH, _FIFTH, _SIXTH, _SEVENTH = (np.float32(1 / number) for number in (6, 24, 120, 720, 5040))


def _by_series(value):
    """2**n * exp(r) with a whole n and |r| <= log(2) / 2, by the exponential series of r."""
    value = _LOWEST if value < _LOWEST else value
    power = np.floor(value * _PER_POWER + _HALF)
    rest = value - power * _LOG_2 - power * _LOG_2_REST
    series = _SIXTH + rest * _SEVENTH
    series = _FIFTH + rest * series
    series = _FOURTH + rest * series
    series = _THIRD + rest * series
    series = _HALF + rest * series
    series = _ONE + rest * (_ONE + rest * series)
    # Not a number has no whole part; its series is not a number either.
    whole = np.int32(power) if power == power else np.int32(0)
    bits = np.int32(np.int32(whole + np.int32(127)) << np.int32(23))
    return series * bits.view(np.float32)
