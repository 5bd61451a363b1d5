"""Networks of the package with the weights of a state in the published layout."""

from __future__ import annotations

from torch import Tensor

from fedmepd.networks.network import FedMEPDNet
from fedmepd.networks.published import _translate
from tests.networks.oracle import MODALITIES

WIDTH = 4


def network(
    state: dict[str, Tensor],
    anchors: dict[int, Tensor] | None,
    modalities: tuple[str, ...] = MODALITIES,
    residual: bool = False,
) -> FedMEPDNet:
    """Returns the network without dropout, in the precision of ``state``; anchors make it a site's."""
    calibration = None if anchors is None else {"residual": residual, "dropout": 0.0}
    made = FedMEPDNet(modalities, WIDTH, calibration=calibration).to(next(iter(state.values())).dtype)
    renamed = {key: value for key, value in translate(state, anchors).items() if key in made.state_dict()}
    made.load_state_dict(renamed)
    made.anchors = dict(anchors or {})
    return made


def translate(tensors: dict[str, Tensor], anchors: dict[int, Tensor] | None) -> dict[str, Tensor]:
    """Returns tensors (weights or gradients) of the published layout by our names."""
    return _translate(tensors, anchors is not None)


def named(mask: str) -> tuple[str, ...]:
    """Returns the modalities that a mask such as ``"0011"`` names."""
    return tuple(name for name, digit in zip(MODALITIES, mask, strict=True) if digit == "1")
