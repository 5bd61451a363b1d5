"""The building blocks of the network: convolution blocks and upsampling (RFNet, algorithm section 2).

Feature maps are stored voxel by voxel (torch.channels_last_3d). Convolutions with few channels are then several times
faster, especially in half precision, on processors and on GPUs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from fedmepd.networks.kernels.convolution import convolve, convolve_voxels
from fedmepd.networks.kernels.normalisation import normalise_and_activate
from fedmepd.networks.kernels.portable import is_exported

# Values of a map. Up to here, time counts for more than memory: a map of the default job's crops takes 8 MiB at most.
SMALL = 2**22


class Affine(nn.Module):
    """Scale and shift of a normalisation's channels; they start as the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))


class Block(nn.Module):
    """What the blocks have in common: a convolution, and the normalisation after it.

    Attributes:
        conv: the convolution; without a bias, which the normalisation would subtract again.
        norm: scale and shift of the normalisation; None as in RFNet, see :func:`give_affine_parameters`.
        kept: values of an input that is made of other maps, up to which it is kept for the backward pass.
    """

    kept = SMALL

    conv: nn.Conv3d

    def __init__(self) -> None:
        super().__init__()
        self.norm: Affine | None = None

    def activate(self, x: Tensor, norm: Affine | None = None) -> Tensor:
        """Instance normalisation and LeakyReLU(0.2) of what the convolution returned; ``norm`` replaces the own one."""
        norm = norm or self.norm
        return normalise_and_activate(x) if norm is None else normalise_and_activate(x, norm.weight, norm.bias)


def give_affine_parameters(module: nn.Module) -> None:
    """Gives every normalisation of a network's part a scale and a shift, as FedBN needs them."""
    for block in module.modules():
        if isinstance(block, Block):
            block.norm = Affine(block.conv.out_channels)


class ConvBlock(Block):
    """Convolution, instance normalisation, LeakyReLU(0.2).

    Args:
        inputs, outputs: numbers of channels.
        kernel: side of the cubic kernel; padded with zeros by half of it.
        stride: step of the convolution.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor, norm: Affine | None = None) -> Tensor:
        """(B, inputs, X, Y, Z) -> (B, outputs, X/stride, Y/stride, Z/stride); ``norm`` as in :meth:`Block.activate`."""
        return self.activate(_convolve(self.conv, x), norm)

    def _convolve_made(self, values: int, make: Callable[..., Tensor], *maps: Tensor) -> Tensor:
        """conv(make(*maps)). If the result of ``make`` has many values, the backward pass computes it again."""
        if values <= self.kept or not torch.is_grad_enabled():
            return _convolve(self.conv, make(*maps))
        # The second computation stops where the convolution begins, which saves its input before it computes.
        run = lambda *maps: _convolve(self.conv, make(*maps))  # noqa: E731
        return checkpoint(run, *maps, use_reentrant=False, preserve_rng_state=False)


class ImageConvBlock(ConvBlock):
    """A convolution block of kernel 3 on an image's one channel.

    Convolutions process several channels at once and are three times as slow with a single one. So each voxel's
    neighbours along the last axis become its channels, and the kernel has one axis less.

    Args:
        outputs: number of channels.
    """

    def __init__(self, outputs: int):
        super().__init__(1, outputs)

    def forward(self, x: Tensor, norm: Affine | None = None) -> Tensor:
        """(B, 1, X, Y, Z) -> (B, outputs, X, Y, Z); ``norm`` as in :meth:`Block.activate`."""
        if is_exported():
            return super().forward(x)
        padded = F.pad(x[:, 0], (1, 1))
        neighbours = torch.stack([padded[..., :-2], padded[..., 1:-1], padded[..., 2:]], dim=-1).permute(0, 4, 1, 2, 3)
        weight = self.conv.weight[:, 0].permute(0, 3, 1, 2)[..., None]
        return self.activate(convolve(neighbours, weight, (1, 1, 0), (1, 1, 1)), norm)


class UpsampledConvBlock(ConvBlock):
    """A convolution block at twice its input's resolution."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) -> (B, outputs, 2X, 2Y, 2Z)."""
        return self.activate(self._convolve_made(8 * x.numel(), upsample, x))


class JoinedConvBlock(ConvBlock):
    """A convolution block on the channels of two maps."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B, C, X, Y, Z), (B, inputs - C, X, Y, Z) -> (B, outputs, X, Y, Z)."""
        return self.activate(self._convolve_made(first.numel() + second.numel(), join, first, second))


def _convolve(conv: nn.Conv3d, x: Tensor) -> Tensor:
    return convolve(x, conv.weight, conv.padding, conv.stride)


class ModalityConvBlock(Block):
    """A 1x1x1 convolution block over the stacked features of all modalities, of which only the present ones are given.

    An absent modality's features count as zero, so its slice of the weight is left out of the product.

    Args:
        modalities: number of the task's modalities.
        inputs: channels of each modality.
        outputs: channels of the result.
    """

    def __init__(self, modalities: int, inputs: int, outputs: int):
        super().__init__()
        self.modalities = modalities
        self.conv = nn.Conv3d(modalities * inputs, outputs, 1, bias=False)

    def forward(self, features: Tensor, present: list[int]) -> Tensor:
        """features (B, M * inputs, X, Y, Z) of the M ``present`` modalities, in order -> (B, outputs, X, Y, Z)."""
        weight = self.conv.weight
        if len(present) < self.modalities:
            weight = weight.unflatten(1, (self.modalities, -1))[:, present].flatten(1, 2)
        return self.activate(convolve(features, weight, (0, 0, 0), (1, 1, 1)))


def classify(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """The classes' logits: a convolution of kernel 1 with a bias, (B, C, X, Y, Z) -> (B, classes, X, Y, Z)."""
    return convolve_voxels(x, conv.weight, conv.bias)


def full_precision(x: Tensor) -> Tensor:
    """x in float32 if it is in half precision, else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def voxel_major(x: Tensor) -> Tensor:
    """(B, C, X, Y, Z) in channels_last_3d -> (B, V, C), without a copy."""
    return x.permute(0, 2, 3, 4, 1).flatten(1, 3)


def channel_major(x: Tensor, size: torch.Size) -> Tensor:
    """(B, V, C) -> (B, C, X, Y, Z) in channels_last_3d, without a copy; the inverse of :func:`voxel_major`."""
    return x.unflatten(1, size).permute(0, 4, 1, 2, 3)


def join(*maps: Tensor) -> Tensor:
    """Maps (B, C, X, Y, Z) of any numbers of channels, one after the other in one map."""
    return torch.cat(maps, dim=1) if is_exported() else _Join.apply(*maps)


class _Join(torch.autograd.Function):
    """Concatenation. Gradients of small maps are copied: to add up parts of a larger one takes three times as long."""

    @staticmethod
    def forward(ctx, *maps: Tensor) -> Tensor:
        ctx.channels = [part.shape[1] for part in maps]
        return torch.cat(maps, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, ...]:
        parts = gradient.split(ctx.channels, dim=1)
        if gradient.numel() > SMALL:
            return parts
        return tuple(part.contiguous(memory_format=torch.channels_last_3d) for part in parts)


def upsample(x: Tensor) -> Tensor:
    """Trilinear upsampling of features to twice their resolution, with aligned corners."""
    return F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)


def start_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Starts every convolution weight of ``module`` Kaiming normal and every convolution bias at zero."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv3d)):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
