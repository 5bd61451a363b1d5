"""What a site's update must look like before it is taken into the aggregation."""

from __future__ import annotations

import torch
from torch import Tensor

from fedmepd.errors import UpdateRefused
from fedmepd.federation.aggregation import encoder_of
from fedmepd.federation.exact_sum import LARGEST_CHANGE
from fedmepd.federation.exchange import Payload, SiteProfile, Update
from fedmepd.networks.network import SHARED


def check_update(profile: SiteProfile, payload: Payload, update: Update, parts: tuple[str, ...]) -> None:
    """Compares an update with what was sent to the site.

    A whole encoder may be missing (a site may withhold one); everything else that was sent must come back.

    Args:
        profile: of the site.
        payload: what it was sent for this round.
        update: what it returned.
        parts: the parts of the network that the method's sites return.

    Raises:
        UpdateRefused: the message names the site, the key and the reason.
    """

    def refuse(reason: str) -> None:
        raise UpdateRefused(f"update of {profile.name} for round {update.round} refused: {reason}")

    if update.round != payload.round:
        refuse(f"it is for round {update.round}, the current round is {payload.round}")
    expected = {key: value for key, value in payload.tensors.items() if key.split(".")[0] in parts}
    withheld = {encoder_of(key) for key in expected} - {encoder_of(key) for key in update.tensors}
    for key, value in expected.items():
        if key not in update.tensors:
            if encoder_of(key) not in withheld or encoder_of(key) is None:
                refuse(f"{key} is missing")
            continue
        _check_tensor(key, value, update.tensors[key], refuse)
    for key in sorted(set(update.tensors) - set(expected)):
        modality = encoder_of(key)
        if modality not in (None, SHARED, *profile.modalities):
            refuse(f"{key}: the site does not own {modality}; it has {', '.join(profile.modalities)}")
        refuse(f"{key} is no weight that was sent to it")


def _check_tensor(key: str, sent: Tensor, change: object, refuse) -> None:
    if not isinstance(change, Tensor) or not change.is_floating_point():
        refuse(
            f"{key}: expected a tensor of floating-point numbers, got {getattr(change, 'dtype', type(change).__name__)}"
        )
    if change.shape != sent.shape:
        refuse(f"{key} has shape {tuple(change.shape)}, expected {tuple(sent.shape)}")
    if not torch.isfinite(change).all():
        count = int((~torch.isfinite(change)).sum())
        refuse(f"{key} has {count} of {change.numel()} values that are NaN or infinite")
    if change.numel() and change.abs().max() > LARGEST_CHANGE:
        refuse(f"{key} changes by {float(change.abs().max()):.3g}: expected at most {LARGEST_CHANGE:.0f}")
