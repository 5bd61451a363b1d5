"""What a job needs at a site: memory while it trains, and disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from fedmepd.config import Settings
from fedmepd.networks.build import build_network

MIB = 2**20
GIB = 2**30

# FLARE's process at the site, and the job's with Python, PyTorch, MONAI and FLARE before it has a network.
_PROCESSES = 768 * MIB

# float32 numbers that a step holds at its peak for every voxel of its crops: by themselves, for every channel of the
# network's width, and for every such channel of each modality's encoder.
_PER_VOXEL, _PER_CHANNEL, _PER_MODALITY = 160, 30, 28

# Weights, gradients, and Adam's two moments.
_COPIES = 4

_MARGIN = 1.2

# Of CUDA: its context and the working space of convolutions on the GPU, its libraries in the machine's memory.
_CUDA, _CUDA_HOST = 1 * GIB, 2 * GIB

# FLARE's four logs, each of eleven files of 20 MiB, written by two processes; results and the job itself.
_LOGS = 2 * GIB

# Share of a volume that is in the box around the brain: 140 x 175 x 140 voxels of BraTS' 240 x 240 x 155 are 0.39.
_BRAIN_BOX = 0.5


def memory_need(settings: Settings, modalities: Sequence[str]) -> int:
    """Returns an upper bound of the machine's memory in bytes that training on the processor needs.

    Measured with ``benchmarks.memory`` on a processor in float32, MiB at the peak of a step's process: width 16, crop
    80, one modality 2526, four 4924; width 16, crop 48, 892 and 1542; width 8, two crops of 32, 517 and 711; width 8,
    two crops of 64, four modalities 2500. Without margin the estimate is 15 to 83 % above these values, most for the
    smallest, because it includes FLARE's processes (150 MiB). It does not rely on bfloat16, which halves the tensors
    that convolutions store. The margin of a fifth is for validation, data, and memory that an allocator does not
    return.

    Args:
        settings: of the job.
        modalities: of the site.
    """
    return round(_MARGIN * (_PROCESSES + _training(settings, modalities)))


def gpu_need(settings: Settings, modalities: Sequence[str]) -> tuple[int, int]:
    """Returns upper bounds in bytes of what training on a GPU needs: the GPU's memory, and the machine's.

    The same tensors as on a processor, and CUDA's own; not measured on a GPU.
    """
    return round(_MARGIN * (_CUDA + _training(settings, modalities))), round(_MARGIN * (_PROCESSES + _CUDA_HOST))


def _training(settings: Settings, modalities: Sequence[str]) -> int:
    width, crop = settings.network.width, settings.training.crop
    voxels = settings.training.batch * crop**3
    numbers = _PER_VOXEL + width * (_PER_CHANNEL + _PER_MODALITY * len(modalities))
    return 4 * voxels * numbers + _COPIES * weights(settings, modalities)


def weights(settings: Settings, modalities: Sequence[str]) -> int:
    """Returns the bytes of a site's network."""
    with torch.device("meta"):
        network = build_network(settings, modalities, calibration={})
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())


def run_need(settings: Settings, modalities: Sequence[str], networks: int = 1) -> int:
    """Returns an upper bound in bytes of what a run leaves in the kit's folder.

    A site keeps its last two states (weights and Adam's two moments), its best and its last model, and writes each new
    file before it deletes the old one: three states and three models at a time. The server keeps less.

    Args:
        settings: of the job.
        modalities: of the site.
        networks: how many it trains: two if it is the fusion site too.
    """
    return _LOGS + networks * (3 * 3 + 3) * weights(settings, modalities)


def prepared_need(volumes: Iterable[tuple[int, int]]) -> int:
    """Returns the bytes of prepared cases: images in float16 and a label of a byte, in the box around the brain.

    Args:
        volumes: voxels and number of modalities of every case, as its files are.
    """
    return round(sum(voxels * _BRAIN_BOX * (2 * modalities + 1) for voxels, modalities in volumes))
