"""Which weights of the network go where, by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedmepd.errors import FedMEPDError
from fedmepd.networks.network import SHARED, FedMEPDNet

ANCHORS = "anchors."
# What a method has a site or the fusion site send besides weights, such as prototypes.
EXTRA = "extra."
AUXILIARY = "auxiliary."
DECODER = "decoder."
ENCODERS = "encoders."
# All that segments; the auxiliary decoder is for training alone.
SEGMENTING = (ENCODERS, DECODER)


def encoder_of(key: str) -> str | None:
    """The modality (or ``shared``) whose encoder a weight belongs to, or None."""
    return key.split(".")[1] if key.startswith(ENCODERS) else None


def parts(weights: dict[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """The weights of some parts of the network, such as :data:`SEGMENTING`."""
    return {key: value for key, value in weights.items() if key.startswith(prefixes)}


def of_modalities(weights: dict[str, Tensor], modalities: Sequence[str]) -> dict[str, Tensor]:
    """The weights without the encoders of modalities that a site does not own."""
    owned = (None, SHARED, *modalities)
    return {key: value for key, value in weights.items() if encoder_of(key) in owned}


def copy_into(
    network: FedMEPDNet, received: dict[str, Tensor], rows: Callable[[str], Tensor | None] = lambda key: None
) -> None:
    """Copies weights into a network.

    Args:
        network: whose weights change.
        received: new values by name.
        rows: for a name, the bool mask of the filters that the values are of; None: of the whole tensor.

    Raises:
        FedMEPDError: the network has no such weight, or one of another shape.
    """
    state = network.state_dict()
    with torch.no_grad():
        for key, value in received.items():
            target, mask = state.get(key), rows(key)
            expected = None if target is None else (target.shape if mask is None else target[mask].shape)
            if value.shape != expected:
                wanted = "no such weight" if expected is None else tuple(expected)
                message = (
                    f"received {key} of shape {tuple(value.shape)}, expected {wanted}: server and site run different "
                    "settings or versions"
                )
                raise FedMEPDError(message, public=message)
            if mask is None:
                target.copy_(value)
            else:
                target[mask] = value.to(target.device)
