"""How much memory training and segmentation need, estimated before they begin."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedmepd.config import Settings
from fedmepd.networks.build import build_network

_MIB, _GIB = 2**20, 2**30

# FLARE's process at the site, and the job's with Python, PyTorch, MONAI and FLARE before it has a network.
_PROCESSES = 768 * _MIB

# float32 numbers that a step holds at its peak for every voxel of its crops: by themselves, for every channel of the
# network's width, and for every such channel of each modality's encoder. The same for a window, without gradients.
_STEP = (160, 30, 28)
_WINDOW = (120, 12, 3)

# Weights, gradients, and Adam's two moments.
_COPIES = 4

_MARGIN = 1.2

# Of CUDA: its context and the working space of convolutions on the GPU, its libraries in the machine's memory.
_CUDA, _CUDA_HOST = 1 * _GIB, 2 * _GIB

# No window is larger than the volume, and no head is longer than this many voxels of 1 mm.
_LONGEST_HEAD = 256


def memory_need(settings: Settings, modalities: Sequence[str]) -> int:
    """Returns an upper bound of the machine's memory in bytes that training on the processor needs.

    Measured with ``benchmarks.memory`` on a processor in float32, MiB at the peak of a step's process: width 16, crop
    80, one modality 2526, four 4924; width 16, crop 48, 892 and 1542; width 8, two crops of 32, 517 and 711; width 8,
    two crops of 64, four modalities 2500. Without margin the estimate is 15 to 83 % above these values, most for the
    smallest, because it includes FLARE's processes (150 MiB). It does not rely on bfloat16, which halves the tensors
    that convolutions store. A window takes less than a crop of its size: width 16, window 96, one modality 1348, four
    1770. The margin of a fifth is for whole volumes, data, and memory that an allocator does not return.

    Args:
        settings: of the job.
        modalities: of the site.
    """
    return round(_MARGIN * (_PROCESSES + _working(settings, modalities)))


def gpu_need(settings: Settings, modalities: Sequence[str]) -> tuple[int, int]:
    """Returns upper bounds in bytes of what training on a GPU needs: the GPU's memory, and the machine's.

    The same tensors as on a processor, and CUDA's own; not measured on a GPU.
    """
    return round(_MARGIN * (_CUDA + _working(settings, modalities))), round(_MARGIN * (_PROCESSES + _CUDA_HOST))


def _working(settings: Settings, modalities: Sequence[str]) -> int:
    width, window = settings.network.width, min(settings.evaluation.window, _LONGEST_HEAD)
    numbers = max(
        settings.training.batch * settings.training.crop**3 * _per_voxel(_STEP, width, modalities),
        window**3 * _per_voxel(_WINDOW, width, modalities),
    )
    return 4 * numbers + _COPIES * weights(settings, modalities)


def _per_voxel(of: tuple[int, int, int], width: int, modalities: Sequence[str]) -> int:
    alone, per_channel, per_modality = of
    return alone + width * (per_channel + per_modality * len(modalities))


def weights(settings: Settings, modalities: Sequence[str]) -> int:
    """Returns the bytes of a site's network."""
    with torch.device("meta"):
        network = build_network(settings, modalities, calibration={})
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())
