"""What class anchors may look like, wherever they come from: the server, a model of others, a model file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedmepd.networks.encoder import LEVELS, channels
from fedmepd.tasks.task import Task

# What may come from outside. Of others, such as those of 8 bits, PyTorch cannot even say whether they are finite.
FLOATS = (torch.float16, torch.float32, torch.float64)
# Of any job.
MOST_PER_CLASS = 64
# An anchor is a mean of normalised features. Instance normalisation of V voxels leaves no value above the root of V:
# with the largest crops, of 256 voxels a side, 2 ** 12. What is left is room for learned scales, and for the noise of
# differential privacy. Much larger ones, from 1e15 on, leave a site's calibration without a gradient: it never learns.
LARGEST_VALUE = 2.0**20


def kind_of(value: object) -> str:
    """Returns what a value is if it is no tensor of floating-point numbers in memory; empty if it is one.

    A file may also hold tensors that are sparse, or that have a shape and no values.
    """
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.dtype not in FLOATS:
        return str(value.dtype)
    return "" if value.layout == torch.strided and value.device.type != "meta" else "sparse or empty"


def fault_of(anchors: Mapping[object, object], task: Task, width: int, per_class: int = MOST_PER_CLASS) -> str:
    """Returns what is wrong with anchors, as the end of a sentence; empty if nothing is.

    Attention takes memory for every anchor at every voxel, so their number is checked before they are used.

    Args:
        anchors: by level, (rows, C_l); none at all is fine.
        task: of the network that they are for.
        width: of this network.
        per_class: anchors of each class at most.
    """
    levels = {str(level): level for level in LEVELS}
    if anchors and {str(level) for level in anchors} != levels.keys():
        return f"are of the levels {', '.join(map(str, anchors))}: expected {', '.join(levels)}"
    most, rows = per_class * len(task.classes), set()
    for name, value in anchors.items():
        columns = channels(width, levels[str(name)])
        if kind := kind_of(value):
            return f"of level {name} are {kind}: expected a tensor of floating-point numbers"
        shape = tuple(value.shape)
        if len(shape) != 2 or shape[1] != columns or not 1 <= shape[0] <= most:
            return f"of level {name} have shape {shape}: expected 1 to {most} rows of {columns}"
        if not torch.isfinite(value).all():
            return f"of level {name} hold NaN or infinity"
        if (largest := float(value.abs().max())) > LARGEST_VALUE:
            return f"of level {name} hold values up to {largest:.3g}: expected at most {LARGEST_VALUE:.0f}"
        rows.add(shape[0])
    return "of different levels differ in number" if len(rows) > 1 else ""
