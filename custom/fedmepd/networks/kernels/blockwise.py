"""The number of voxels to process at once, if intermediate results are larger than the feature map they come from."""

from __future__ import annotations

from torch import Tensor

# A GPU needs few large operations; a processor needs intermediate results that fit into its cache.
_VOXELS = {"cpu": 8192}
_OTHERWISE = 2**18


def block_size(like: Tensor) -> int:
    """Voxels in a block on the device of ``like``."""
    return _VOXELS.get(like.device.type, _OTHERWISE)
