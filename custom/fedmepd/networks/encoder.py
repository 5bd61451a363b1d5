"""The encoder of one modality (algorithm section 2, E_m)."""

from __future__ import annotations

from torch import Tensor, nn

from fedmepd.networks.blocks import ConvBlock, ImageConvBlock

LEVELS = (1, 2, 3, 4)


def channels(width: int, level: int) -> int:
    """Channels at a level: ``width`` at full resolution (level 1), doubled at each level below."""
    return width * 2 ** (level - 1)


class Encoder(nn.Module):
    """Four residual levels; levels 2 to 4 halve the resolution.

    Args:
        width: channels at full resolution.
    """

    def __init__(self, width: int):
        super().__init__()
        self.levels = nn.ModuleDict()
        for level in LEVELS:
            outputs = channels(width, level)
            first = ImageConvBlock(outputs) if level == 1 else ConvBlock(outputs // 2, outputs, stride=2)
            self.levels[str(level)] = nn.ModuleList([first, ConvBlock(outputs, outputs), ConvBlock(outputs, outputs)])

    def forward(self, image: Tensor) -> list[Tensor]:
        """image (B, 1, X, Y, Z) -> features of levels 1 to 4, (B, C_l, X/2^(l-1), ...)."""
        features = []
        x = image
        for first, second, third in self.levels.values():
            x = first(x)
            x = x + third(second(x))
            features.append(x)
        return features
