"""Instance normalisation and LeakyReLU on a processor, as loops that pass over a map three times.

A row is the values of some neighbouring voxels, all channels of each. Sums are made by place in the row, over a block
of rows in the map's precision (bfloat16: float32) and then in float64, so the threads change nothing.
"""

from __future__ import annotations

import functools
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedmepd.networks.kernels.compiled import (
    call_first,
    compiled,
    inner_loop,
    kept_in,
    load,
    side_by_side,
    store,
    values,
)

# Values of a row, about: enough for the processor's vectors, and few enough for its nearest cache.
_ROW = 256
_ROWS = 256  # of a block
# Below this number of values in a sample, one thread is faster than several.
_MANY = 2**20


class NormaliseAndActivate(torch.autograd.Function):
    """See :func:`~fedmepd.networks.kernels.normalisation.normalise_and_activate`.

    LeakyReLU can be inverted, so the backward pass needs only the result, which the next convolution keeps anyway.
    """

    @staticmethod
    def forward(ctx, x: Tensor, epsilon: float, slope: float) -> Tensor:
        prepare(x.dtype)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        y = torch.empty_like(x)
        ctx.scale = _normalise(values(x), values(y), x.shape[1], epsilon, slope)
        ctx.slope = slope
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        result = torch.empty_like(y)
        _normalise_backward(values(y), values(gradient), values(result), ctx.scale, ctx.slope)
        return result, None, None


def _normalise(x: np.ndarray, y: np.ndarray, channels: int, epsilon: float, slope: float) -> np.ndarray:
    """x (B, V * C) -> y; returns the inverse standard deviations (B, C)."""
    kind = np.float64 if x.dtype == np.float64 else np.float32
    scale = np.empty((len(x), channels), kind)
    if _alone(x):
        _forward(x, y, scale, epsilon, kind(slope))
        return scale
    blocks = _blocks(x.shape[1], channels)
    with side_by_side() as share:
        for sample, into, of_sample in zip(x, y, scale, strict=True):
            sums, mean = np.empty((blocks, channels)), np.zeros(channels, kind)
            share(partial(_block_sums, sample, mean, False, sums), blocks)
            _set_mean(sums, sample, mean)
            share(partial(_block_sums, sample, mean, True, sums), blocks)
            _set_scale(sums, sample, epsilon, of_sample)
            share(partial(_write, sample, into, mean, of_sample, kind(slope)), blocks)
    return scale


def _normalise_backward(
    y: np.ndarray, gradient: np.ndarray, result: np.ndarray, scale: np.ndarray, slope: float
) -> None:
    """Gradients (B, V * C) of y -> ``result``: scale * (g - mean(g) - n * mean(g * n)), with n before LeakyReLU."""
    slope = scale.dtype.type(slope)
    if _alone(y):
        _backward(y, gradient, result, scale, slope)
        return
    blocks, channels = _blocks(y.shape[1], scale.shape[1]), scale.shape[1]
    with side_by_side() as share:
        for sample, of_sample, into, factor in zip(y, gradient, result, scale, strict=True):
            sums, means = np.empty((blocks, 2, channels)), np.empty((2, channels), scale.dtype)
            share(partial(_block_products, sample, of_sample, slope, sums), blocks)
            _set_means(sums, sample, means)
            share(partial(_write_gradient, sample, of_sample, into, factor, means, slope), blocks)


def _alone(x: np.ndarray) -> bool:
    return x.shape[1] < _MANY or torch.get_num_threads() == 1


@functools.cache
def prepare(precision: torch.dtype) -> None:
    """Compiles the loops for a precision, or loads them; the first map does the same."""
    tiny = torch.ones(1, 1, 2, 1, 1, dtype=precision)

    def both() -> None:
        scale = _normalise(values(tiny), values(tiny.clone()), 1, 1.0, 0.5)
        _normalise_backward(values(tiny), values(tiny), values(tiny.clone()), scale, 0.5)

    call_first(both, _forward, "normalisation")


def kept() -> Path | None:
    """Returns the folder in which the compiled loops are kept; None if each process compiles them."""
    return kept_in(_forward)


@compiled
def _blocks(count, channels):
    """Number of blocks of a sample's values."""
    return -(-count // (_ROWS * _row(channels)))


@inner_loop
def _row(channels):
    return channels * max(1, _ROW // channels)


@compiled
def _forward(x, y, scale, epsilon, slope):
    channels = scale.shape[1]
    blocks = _blocks(x.shape[1], channels)
    sums, mean = np.empty((blocks, channels)), np.empty_like(scale[0])
    for number in range(len(x)):
        mean[:] = 0
        _block_sums(x[number], mean, False, sums, 0, blocks)
        _set_mean(sums, x[number], mean)
        _block_sums(x[number], mean, True, sums, 0, blocks)
        _set_scale(sums, x[number], epsilon, scale[number])
        _write(x[number], y[number], mean, scale[number], slope, 0, blocks)


@compiled
def _backward(y, gradient, result, scale, slope):
    channels = scale.shape[1]
    blocks = _blocks(y.shape[1], channels)
    sums, means = np.empty((blocks, 2, channels)), np.empty((2, channels), scale.dtype)
    for number in range(len(y)):
        _block_products(y[number], gradient[number], slope, sums, 0, blocks)
        _set_means(sums, y[number], means)
        _write_gradient(y[number], gradient[number], result[number], scale[number], means, slope, 0, blocks)


@compiled
def _block_sums(x, mean, squared, sums, first, end):
    """Sums, by block and channel, of x - mean or of its square."""
    row = _row(len(mean))
    means, total = _repeated(mean, row), np.empty(row, mean.dtype)
    for block in range(first, end):
        total[:] = 0
        for start in range(block * _ROWS * row, min(len(x), (block + 1) * _ROWS * row), row):
            part = x[start : start + row]
            if squared:
                _add_squares(part, means, total)
            else:
                _add(part, means, total)
        _gather(total, sums[block])


@compiled
def _block_products(y, gradient, slope, sums, first, end):
    """Sums, by block and channel, of the normalised map's gradient, and of its product with the normalised map."""
    row = _row(sums.shape[2])
    total, products = np.empty(row, type(slope)), np.empty(row, type(slope))
    for block in range(first, end):
        total[:] = 0
        products[:] = 0
        for start in range(block * _ROWS * row, min(len(y), (block + 1) * _ROWS * row), row):
            _add_products(y[start : start + row], gradient[start : start + row], slope, total, products)
        _gather(total, sums[block, 0])
        _gather(products, sums[block, 1])


@compiled
def _write(x, y, mean, scale, slope, first, end):
    row = _row(len(mean))
    means, scales = _repeated(mean, row), _repeated(scale, row)
    for start in range(first * _ROWS * row, min(len(x), end * _ROWS * row), row):
        _write_row(x[start : start + row], means, scales, slope, y[start : start + row])


@compiled
def _write_gradient(y, gradient, result, scale, means, slope, first, end):
    row = _row(len(scale))
    scales, of_sum, of_product = _repeated(scale, row), _repeated(means[0], row), _repeated(means[1], row)
    for start in range(first * _ROWS * row, min(len(y), end * _ROWS * row), row):
        part = slice(start, start + row)
        _write_gradient_row(y[part], gradient[part], scales, of_sum, of_product, slope, result[part])


@compiled
def _set_mean(sums, x, mean):
    voxels = len(x) // len(mean)
    for channel in range(len(mean)):
        mean[channel] = sums[:, channel].sum() / voxels


@compiled
def _set_means(sums, y, means):
    voxels = len(y) // means.shape[1]
    for channel in range(means.shape[1]):
        means[0, channel] = sums[:, 0, channel].sum() / voxels
        means[1, channel] = sums[:, 1, channel].sum() / voxels


@compiled
def _set_scale(sums, x, epsilon, scale):
    voxels = len(x) // len(scale)
    for channel in range(len(scale)):
        scale[channel] = 1 / np.sqrt(sums[:, channel].sum() / voxels + epsilon)


@inner_loop
def _repeated(by_channel, row):
    """The channels' numbers at their places in a row."""
    numbers = np.empty(row, by_channel.dtype)
    for place in range(0, row, len(by_channel)):
        numbers[place : place + len(by_channel)] = by_channel
    return numbers


@inner_loop
def _gather(row, sums):
    """The sums of a row by channel."""
    sums[:] = 0
    for place in range(0, len(row), len(sums)):
        for channel in range(len(sums)):
            sums[channel] += row[place + channel]


@inner_loop
def _add(x, mean, total):
    for place in range(len(x)):
        total[place] += load(x[place]) - mean[place]


@inner_loop
def _add_squares(x, mean, total):
    for place in range(len(x)):
        centred = load(x[place]) - mean[place]
        total[place] += centred * centred


@inner_loop
def _write_row(x, mean, scale, slope, y):
    for place in range(len(y)):
        normalised = (load(x[place]) - mean[place]) * scale[place]
        store(y, place, normalised if normalised > 0 else normalised * slope)


@inner_loop
def _add_products(y, gradient, slope, total, products):
    steep = type(slope)(1) / slope
    for place in range(len(y)):
        value, of_value = load(y[place]), load(gradient[place])
        if value <= 0:
            value, of_value = value * steep, of_value * slope
        total[place] += of_value
        products[place] += of_value * value


@inner_loop
def _write_gradient_row(y, gradient, scale, of_sum, of_product, slope, result):
    steep = type(slope)(1) / slope
    for place in range(len(result)):
        value, of_value = load(y[place]), load(gradient[place])
        if value <= 0:
            value, of_value = value * steep, of_value * slope
        store(result, place, scale[place] * (of_value - of_sum[place] - value * of_product[place]))
