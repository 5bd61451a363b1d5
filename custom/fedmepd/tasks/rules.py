"""Rules that a task chooses: how its images are prepared, and how its lesions are scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedmepd.text_table import counted

# What of an image counts as the body. Negative values become 0 before.
# nonzero: voxels that are not 0, as after skull-stripping.
# above: voxels above a share of the mean of all voxels that are not 0, where the air around the body is noise.
# whole: all voxels. The volume is not cropped.
Foreground = Literal["nonzero", "above", "whole"]

# z-score: mean 0 and standard deviation 1 in the foreground.
# percentiles: 0 at the percentile 0.5 of the foreground, 1 at the percentile 99.5; values beyond are clipped.
# Outside the foreground, images are 0.
Intensity = Literal["z-score", "percentiles"]


# What can become of a lesion, as it is counted.
LESION_COUNTS = ("found", "missed", "invented")


@dataclass(frozen=True)
class LesionRules:
    """How lesions are told apart and scored one by one; as it is, by the rules of BraTS 2023 to 2025 for glioma.

    Args:
        dilation: number of times that the label grows by the voxels that share a face or an edge with it, before
            lesions are told apart.
        neighbours: voxels of how many neighbours hang together: 6 (faces), 18 (and edges) or 26 (and corners).
        smallest_voxels: lesions of fewer voxels are left out, in the label and in the prediction.
        missed_mm: HD95 of a lesion that is missed or invented.
    """

    dilation: int = 3
    neighbours: int = 26
    smallest_voxels: int = 50
    missed_mm: float = 374.0

    def problem(self) -> str:
        """Returns what is wrong with the rules; empty: nothing."""
        if self.neighbours not in (6, 18, 26) or min(self.dilation, self.smallest_voxels, self.missed_mm) < 0:
            return "expected neighbours 6, 18 or 26, and no number below 0"
        return ""

    def describe(self) -> str:
        """Returns the rules in one sentence, as a note under scores."""
        voxels = counted(self.dilation, "voxel")
        grown = f"the label grows by {voxels} before its lesions are told apart; " * bool(self.dilation)
        return (
            f"lesion scores: mean over the lesions, a missed or invented one with Dice 0 and {self.missed_mm:g} mm; "
            f"{grown}lesions of fewer than {counted(self.smallest_voxels, 'voxel')} are left out"
        )
