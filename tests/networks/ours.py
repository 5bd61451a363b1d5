"""Networks of the package with the weights of a state in the published layout, and such states of networks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fedmepd.networks.network import FedMEPDNet
from fedmepd.networks.published import _translate
from fedmepd.tasks.brats import BRATS
from tests.networks.oracle import MODALITIES, shapes

WIDTH = 4
# What an error would name.
_PUBLISHED = Path("published.pt")


def network(
    state: dict[str, Tensor],
    anchors: dict[int, Tensor] | None,
    modalities: tuple[str, ...] = MODALITIES,
    residual: bool = False,
    dropout: float = 0.0,
) -> FedMEPDNet:
    """Returns the network, in the width and precision of ``state``; anchors make it a site's."""
    calibration = None if anchors is None else {"residual": residual, "dropout": dropout}
    first = state["c1_encoder.e1_c1.conv.weight"]
    made = FedMEPDNet(BRATS, modalities, first.shape[0], calibration=calibration).to(first.dtype)
    renamed = {key: value for key, value in translate(state, anchors).items() if key in made.state_dict()}
    made.load_state_dict(renamed)
    made.anchors = dict(anchors or {})
    return made


def translate(tensors: dict[str, Tensor], anchors: dict[int, Tensor] | None) -> dict[str, Tensor]:
    """Returns tensors (weights or gradients) of the published layout by our names."""
    return _translate(_PUBLISHED, tensors, anchors is not None)


def published(made: FedMEPDNet) -> dict[str, Tensor]:
    """Returns the weights of a network with all modalities in the published layout; what has no place in ours is 0."""
    calibrated = made.calibration is not None
    layout = shapes(made.width, calibrated)
    sizes = [torch.Size(shape).numel() for shape in layout.values()]
    # Where every number of the published layout stands in ours: its place, translated.
    places = torch.arange(sum(sizes)).split(sizes)
    of_places = {key: p.view(layout[key]) for key, p in zip(layout, places, strict=True)}
    translated = _translate(_PUBLISHED, of_places, calibrated)
    numbers = torch.zeros(sum(sizes))
    for key, value in made.state_dict().items():
        numbers[translated[key].flatten()] = value.flatten()
    split = zip(layout.items(), numbers.split(sizes), strict=True)
    return {key: of_key.view(shape).clone() for (key, shape), of_key in split}


def named(mask: str) -> tuple[str, ...]:
    """Returns the modalities that a mask such as ``"0011"`` names."""
    return tuple(name for name, digit in zip(MODALITIES, mask, strict=True) if digit == "1")
