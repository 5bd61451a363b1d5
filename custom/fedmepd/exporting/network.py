"""The network as a bundle's configuration builds it: before its weights are loaded, and wherever the bundle lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedmepd.networks.encoder import channels
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.find import DEFAULT, find_task


class BundledNetwork(FedMEPDNet):
    """The network with its anchors among its weights, since MONAI's tools carry over nothing else.

    Args:
        modalities, width, calibration, shared_encoder, affine, modality_norms: as for
            :class:`~fedmepd.networks.network.FedMEPDNet`.
        anchors: number of anchors by level.
        task: name of the task; older bundles do not say it.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        calibration: dict | None,
        shared_encoder: bool,
        affine: bool,
        anchors: Mapping[str, int],
        task: str = DEFAULT,
        modality_norms: bool = False,
    ):
        super().__init__(
            find_task(task),
            modalities,
            width,
            calibration=calibration,
            shared_encoder=shared_encoder,
            affine=affine,
            modality_norms=modality_norms,
        )
        for level, rows in anchors.items():
            self.register_buffer(buffer(level), torch.zeros(rows, channels(width, int(level))))
        self._levels = [int(level) for level in anchors]
        self.eval()

    @property
    def anchors(self) -> dict[int, Tensor]:
        """By level, (rows, C_l)."""
        return {level: getattr(self, buffer(level)) for level in self._levels}

    @anchors.setter
    def anchors(self, value: dict[int, Tensor]) -> None:
        self._levels: list[int] = []
        if value:
            raise AttributeError("a bundled network's anchors come with its weights")


def buffer(level: int | str) -> str:
    """Returns the name that a level's anchors have among the weights."""
    return f"anchors_{level}"
