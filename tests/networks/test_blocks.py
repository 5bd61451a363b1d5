"""Convolution blocks that compute another way: the same values, with less memory or time."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks

from fedmepd.networks.blocks import ImageConvBlock, JoinedConvBlock, UpsampledConvBlock


def upsampled(x):
    return F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)


def joined(first, second):
    return torch.cat([first, second], dim=1)


def plain(maps, made, weight):
    """The block written down: convolution with zero padding, instance normalisation, LeakyReLU."""
    return F.leaky_relu(F.instance_norm(F.conv3d(made(*maps), weight, padding=1), eps=1e-5), 0.2)


@pytest.mark.parametrize(
    ("kind", "made", "shapes"),
    [
        (UpsampledConvBlock, upsampled, [(2, 6, 3, 4, 5)]),
        (JoinedConvBlock, joined, [(2, 4, 6, 5, 4), (2, 2, 6, 5, 4)]),
    ],
)
@pytest.mark.parametrize("keeps", [True, False])
def test_values_gradients_and_what_is_kept(kind, made, shapes, keeps):
    torch.manual_seed(0)
    maps = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    block = kind(6, 3).double()
    weight = block.conv.weight
    block.kept = made(*maps).numel() - (not keeps)
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda tensor: tensor):
        result = block(*maps)
    assert (made(*maps).shape in kept) is keeps
    toward = torch.randn_like(result)
    gradients = torch.autograd.grad(result, [*maps, weight], toward)
    expected = plain(maps, made, weight)
    expected_gradients = torch.autograd.grad(expected, [*maps, weight], toward)
    torch.testing.assert_close([result, *gradients], [expected, *expected_gradients])
    with torch.no_grad():
        torch.testing.assert_close(block(*maps), expected)


@pytest.mark.parametrize("size", [(3, 4, 5), (1, 2, 1)])
def test_the_image_block_is_a_plain_one(size):
    torch.manual_seed(0)
    image = torch.randn(2, 1, *size, dtype=torch.float64, requires_grad=True)
    block = ImageConvBlock(6).double()
    result, expected = block(image), plain([image], lambda image: image, block.conv.weight)
    toward = torch.randn_like(result)
    inputs = [image, block.conv.weight]
    gradients, expected_gradients = (torch.autograd.grad(of, inputs, toward) for of in (result, expected))
    torch.testing.assert_close([result, *gradients], [expected, *expected_gradients])
