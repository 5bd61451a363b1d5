"""Instance normalisation and LeakyReLU as one step, the most frequent one of the network after the convolution.

LeakyReLU can be inverted, so the backward pass needs only the result, which the next convolution keeps anyway. On a
processor, loops compiled for it do the work (:mod:`normalisation_compiled`), elsewhere PyTorch's batch normalisation
(:mod:`normalisation_rows`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedmepd.networks.kernels import normalisation_compiled, normalisation_rows
from fedmepd.networks.kernels.compiled import PRECISIONS
from fedmepd.networks.kernels.portable import is_exported

_EPSILON = 1e-5
_SLOPE = 0.2


def normalise_and_activate(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Instance normalisation (eps 1e-5), then LeakyReLU(0.2).

    Args:
        x: (B, C, X, Y, Z).
        weight, bias: (C,), scale and shift of the normalisation; None as in RFNet. With them PyTorch does the work,
            since the result of a scale of 0 cannot be inverted.

    Returns:
        the same shape, in channels_last_3d.
    """
    if is_exported():
        return plain_normalise_and_activate(x, weight, bias)
    if weight is None:
        has_loops = x.device.type == "cpu" and x.dtype in PRECISIONS
        kernel = normalisation_compiled if has_loops else normalisation_rows
        return kernel.NormaliseAndActivate.apply(x, _EPSILON, _SLOPE)
    # PyTorch's gradient is right in this memory format alone, for a single sample.
    scaled = plain_normalise_and_activate(x.contiguous(), weight, bias)
    return scaled.contiguous(memory_format=torch.channels_last_3d)


def plain_normalise_and_activate(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """The plain twin of :func:`normalise_and_activate`."""
    normalised = F.instance_norm(x, weight=weight, bias=bias, eps=_EPSILON)
    return F.leaky_relu(normalised, _SLOPE)
