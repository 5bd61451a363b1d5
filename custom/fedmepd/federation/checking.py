"""What a site's update must look like before it is taken into the aggregation."""

from __future__ import annotations

import torch
from torch import Tensor

from fedmepd.errors import UpdateRefused
from fedmepd.federation.exchange import SiteProfile, Update
from fedmepd.methods.method import Shapes
from fedmepd.methods.parts.exact_sum import LARGEST_CHANGE
from fedmepd.methods.parts.selection import encoder_of
from fedmepd.networks.network import SHARED


def check_update(profile: SiteProfile, round_number: int, expected: Shapes, update: Update) -> None:
    """Compares an update with what must come back from a site.

    A whole encoder may be missing (a site may withhold one); everything else must be there.

    Args:
        profile: of the site.
        round_number: of the open round.
        expected: name and shape of every change.
        update: what the site returned.

    Raises:
        UpdateRefused: the message names the site, the key and the reason.
    """

    def refuse(reason: str) -> None:
        raise UpdateRefused(f"update of {profile.name} for round {update.round} refused: {reason}")

    if update.round != round_number:
        refuse(f"it is for round {update.round}, the current round is {round_number}")
    withheld = {encoder_of(key) for key in expected} - {encoder_of(key) for key in update.tensors}
    for key, shape in expected.items():
        if key not in update.tensors:
            if encoder_of(key) not in withheld or encoder_of(key) is None:
                refuse(f"{key} is missing")
            continue
        _check_tensor(key, shape, update.tensors[key], refuse)
    for key in sorted(set(update.tensors) - set(expected)):
        modality = encoder_of(key)
        if modality not in (None, SHARED, *profile.modalities):
            refuse(f"{key}: the site does not own {modality}; it has {', '.join(profile.modalities)}")
        refuse(f"{key} is no weight that was sent to it")


def _check_tensor(key: str, shape: torch.Size, change: object, refuse) -> None:
    if not isinstance(change, Tensor) or not change.is_floating_point():
        refuse(
            f"{key}: expected a tensor of floating-point numbers, got {getattr(change, 'dtype', type(change).__name__)}"
        )
    if change.shape != shape:
        refuse(f"{key} has shape {tuple(change.shape)}, expected {tuple(shape)}")
    if not torch.isfinite(change).all():
        count = int((~torch.isfinite(change)).sum())
        refuse(f"{key} has {count} of {change.numel()} values that are NaN or infinite")
    if change.numel() and change.abs().max() > LARGEST_CHANGE:
        refuse(f"{key} changes by {float(change.abs().max()):.3g}: expected at most {LARGEST_CHANGE:.0f}")
