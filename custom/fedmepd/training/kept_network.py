"""What is kept of a network and its optimizer, and how they come back where a site's modalities have changed since."""

from __future__ import annotations

from typing import Any

import torch

from fedmepd.errors import CheckpointError
from fedmepd.networks.network import FedMEPDNet


def state_of(network: FedMEPDNet, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Returns the state of a network and its optimizer, on the CPU, with what is needed to restore it by name."""
    return {
        "modalities": list(network.modalities),
        "network": {key: value.cpu() for key, value in network.state_dict().items()},
        "parameters": [name for name, _ in network.named_parameters()],
        "anchors": network.anchors,
        "optimizer": optimizer.state_dict(),
    }


def restore(
    source: object, content: dict[str, Any], network: FedMEPDNet, optimizer: torch.optim.Optimizer
) -> tuple[str, ...]:
    """Puts a kept state into a network and its optimizer.

    The site's data may have gained or lost modalities since: their encoders come from the server anyway, and everything
    else goes on where it was.

    Args:
        source: of the state, such as its file, for messages.
        content: what :func:`state_of` returned.
        network, optimizer: as they start.

    Returns:
        the modalities that the site had then.

    Raises:
        CheckpointError: the state is an older version's, or does not fit.
    """
    missing = [key for key in ("modalities", "parameters") if key not in content]
    if missing:
        raise CheckpointError(
            f"{source}: {missing[0]} is missing: it was written by an older version of fedmepd; use another run name"
        )
    changed = set(content["modalities"]) ^ set(network.modalities)
    others = tuple(f"encoders.{modality}." for modality in changed)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    found = {key: value.shape for key, value in content["network"].items()}
    for key in sorted(shapes.keys() | found.keys()):
        if shapes.get(key) != found.get(key) and not key.startswith(others):
            raise CheckpointError(
                f"{source}: {key} does not fit this run (width {network.width}, modalities "
                f"{', '.join(network.modalities)}): it was written with other settings; use another run name"
            )
    kept = {key: value for key, value in content["network"].items() if key in shapes}
    network.load_state_dict(kept, strict=False)
    network.anchors = content["anchors"]
    _restore_optimizer(content, network, optimizer)
    return tuple(content["modalities"])


def _restore_optimizer(content: dict[str, Any], network: FedMEPDNet, optimizer: torch.optim.Optimizer) -> None:
    """Gives every parameter its own state back, by name: there may be others before it now."""
    of_name = {content["parameters"][index]: state for index, state in content["optimizer"]["state"].items()}
    present = [name for name, _ in network.named_parameters()]
    states = {index: of_name[name] for index, name in enumerate(present) if name in of_name}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
