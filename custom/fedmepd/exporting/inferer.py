"""What an exported MONAI bundle runs at its user's place: inference as `fedmepd predict` does it."""

from __future__ import annotations

from collections.abc import Sequence

from monai.inferers import Inferer
from torch import Tensor

from fedmepd.config import Settings
from fedmepd.networks.network import FedMEPDNet
from fedmepd.training.inference import class_probabilities


class WindowInferer(Inferer):
    """MONAI's sliding window, with windows outside the brain left out; a fixed set of modalities.

    Args:
        modalities: the channels' names.
        window: side of the window in voxels.
        overlap: share of neighbouring windows.
        precision: of the forward pass: ``auto``, ``float32`` or ``bfloat16``.
    """

    def __init__(self, modalities: Sequence[str], window: int, overlap: float, precision: str = "auto"):
        super().__init__()
        self.modalities = tuple(modalities)
        self._settings = Settings.make("paper", {"evaluation": {"window": window, "overlap": overlap}}).evaluation
        self._precision = precision

    def __call__(self, inputs: Tensor, network: FedMEPDNet, *args: object, **kwargs: object) -> Tensor:
        """Returns class probabilities (1, classes, X, Y, Z) on the CPU, of prepared images (1, M, X, Y, Z)."""
        images = getattr(inputs, "as_tensor", lambda: inputs)()
        found = class_probabilities(network, images, self.modalities, self._settings, self._precision)
        return found[None]
