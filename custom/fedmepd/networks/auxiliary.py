"""The auxiliary decoder that a site's encoders share; used in training only (algorithm section 2)."""

from __future__ import annotations

from torch import Tensor, nn

from fedmepd.networks.blocks import ConvBlock, JoinedConvBlock, UpsampledConvBlock, classify
from fedmepd.networks.encoder import LEVELS, channels


class AuxiliaryDecoder(nn.Module):
    """A U-Net decoder over one encoder's four levels.

    Args:
        width: channels at full resolution.
        classes: number of classes, background included.
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.levels = nn.ModuleDict()
        for level in reversed(LEVELS[:-1]):
            wide, narrow = channels(width, level + 1), channels(width, level)
            self.levels[str(level)] = nn.ModuleDict(
                {
                    "up": UpsampledConvBlock(wide, narrow),
                    "merge": JoinedConvBlock(2 * narrow, narrow),
                    "out": ConvBlock(narrow, narrow, kernel=1),
                }
            )
        self.classify = nn.Conv3d(width, classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Features of levels 1 to 4, each (B, C_l, ...) -> class probabilities (B, classes, X, Y, Z)."""
        x = features[-1]
        for level, stage in self.levels.items():
            skip = features[int(level) - 1]
            x = stage["out"](stage["merge"](stage["up"](x), skip))
        return classify(self.classify, x).contiguous().softmax(dim=1)
