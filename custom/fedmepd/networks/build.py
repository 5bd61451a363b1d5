"""The network of a job: the one place where settings become a network."""

from __future__ import annotations

from collections.abc import Iterable

from fedmepd.config import Settings
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.find import find_task


def build_network(
    settings: Settings, modalities: Iterable[str] | None = None, *, calibration: dict | None = None
) -> FedMEPDNet:
    """Builds a network according to the job's settings.

    Args:
        settings: of the job.
        modalities: modalities that have an encoder; None: all of the job's task.
        calibration: arguments of LACCA, or None for a network without it.
    """
    network = settings.network
    return FedMEPDNet(
        find_task(settings.task),
        modalities,
        network.width,
        calibration=calibration,
        shared_encoder=network.shared_encoder,
        affine=network.affine,
        modality_norms=network.modality_norms,
    )
