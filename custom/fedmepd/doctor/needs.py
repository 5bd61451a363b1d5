"""What a job needs of a site's disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedmepd.config import Settings
from fedmepd.training.memory_needs import weights

GIB = 2**30

# FLARE's four logs, each of eleven files of 20 MiB, written by two processes; results and the job itself.
_LOGS = 2 * GIB

# Share of a volume that is in the box around the brain: 140 x 175 x 140 voxels of BraTS' 240 x 240 x 155 are 0.39.
_BRAIN_BOX = 0.5


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
