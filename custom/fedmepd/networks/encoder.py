"""The encoder of one modality (algorithm section 2, E_m)."""

from __future__ import annotations

from torch import Tensor, nn

from fedmepd.networks.blocks import Affine, ConvBlock, ImageConvBlock

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

    def forward(self, image: Tensor, norms: EncoderNorms | None = None) -> list[Tensor]:
        """image (B, 1, X, Y, Z) -> features of levels 1 to 4, (B, C_l, X/2^(l-1), ...).

        With ``norms`` the normalisations have these scales and shifts.
        """
        features = []
        x = image
        for level, (first, second, third) in self.levels.items():
            of_first, of_second, of_third = (None, None, None) if norms is None else norms.levels[level]
            x = first(x, of_first)
            x = x + third(second(x, of_second), of_third)
            features.append(x)
        return features


class EncoderNorms(nn.Module):
    """Scale and shift of every normalisation of an encoder, for one of the modalities that share its convolutions.

    Args:
        width: channels at full resolution.
    """

    def __init__(self, width: int):
        super().__init__()
        self.levels = nn.ModuleDict(
            {str(level): nn.ModuleList(Affine(channels(width, level)) for _ in range(3)) for level in LEVELS}
        )
