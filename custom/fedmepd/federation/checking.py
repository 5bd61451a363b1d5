"""What a site's update must look like before it is taken into the aggregation."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from fedmepd.config import Settings
from fedmepd.errors import UpdateRefused
from fedmepd.federation.exchange import SiteProfile, Update
from fedmepd.methods.method import Shapes, Tensors
from fedmepd.methods.parts.exact_sum import LARGEST_CHANGE
from fedmepd.methods.parts.selection import ANCHORS, EXTRA, encoder_of, parts
from fedmepd.networks.anchors import FLOATS
from fedmepd.networks.anchors import LARGEST_VALUE as LARGEST_ANCHOR
from fedmepd.networks.encoder import LEVELS, channels
from fedmepd.networks.network import SHARED
from fedmepd.text_table import counted

# Far above any mean of normalised features.
LARGEST_VALUE = 2.0**10
# Clusters of a class at most, times far more classes than any task has.
MOST_ANCHORS = 64 * 32


def check_update(
    profile: SiteProfile, round_number: int, expected: Shapes, update: Update, expected_extras: Shapes | None = None
) -> None:
    """Compares an update with what must come back from a site.

    A whole encoder may be missing (a site may withhold one); everything else must be there.

    Args:
        profile: of the site.
        round_number: of the open round.
        expected: name and shape of every change.
        expected_extras: name and shape of what else must come back.
        update: what the site returned.

    Raises:
        UpdateRefused: the message names the site, the key and the reason.
    """

    def refuse(reason: str) -> None:
        raise UpdateRefused(f"update of {profile.name} for round {update.round} refused: {reason}")

    if update.round != round_number:
        refuse(f"it is for round {update.round}, the current round is {round_number}")
    extras = parts(update.tensors, (EXTRA,))
    changes = {key: value for key, value in update.tensors.items() if key not in extras}
    for key in sorted(set(changes) - set(expected)):
        modality = encoder_of(key)
        if modality not in (None, SHARED, *profile.modalities):
            refuse(f"{key}: the site does not own {modality}; it has {', '.join(profile.modalities)}")
    _check_names(expected, changes, refuse)
    for key, change in changes.items():
        _check_tensor(key, expected[key], change, refuse)
    check_extras(profile.name, expected_extras or {}, extras)


def _check_names(expected: Collection[str], arrived: Collection[str], refuse) -> None:
    withheld = {encoder_of(key) for key in expected} - {encoder_of(key) for key in arrived}
    for key in expected:
        if key not in arrived and (encoder_of(key) not in withheld or encoder_of(key) is None):
            refuse(f"{key} is missing")
    for key in sorted(set(arrived) - set(expected)):
        refuse(f"{key} is no weight that was sent to it")


def _check_floats(key: str, shape: torch.Size, value: object, refuse) -> float:
    """Returns the largest magnitude, 0 without values."""
    if not isinstance(value, Tensor) or value.dtype not in FLOATS:
        refuse(
            f"{key}: expected a tensor of floating-point numbers, got {getattr(value, 'dtype', type(value).__name__)}"
        )
    if value.shape != shape:
        refuse(f"{key} has shape {tuple(value.shape)}, expected {tuple(shape)}")
    # Minimum and maximum read the tensor once; NaN and infinity survive them.
    largest = max(map(abs, torch.stack(value.aminmax()).tolist())) if value.numel() else 0.0
    if not math.isfinite(largest):
        count = int((~torch.isfinite(value)).sum())
        refuse(f"{key} has {count} of {counted(value.numel(), 'value')} that are NaN or infinite")
    return largest


def _check_tensor(key: str, shape: torch.Size, change: object, refuse) -> None:
    largest = _check_floats(key, shape, change, refuse)
    if largest > LARGEST_CHANGE:
        refuse(f"{key} changes by {largest:.3g}: expected at most {LARGEST_CHANGE:.0f}")


def check_extras(owner: str, expected: Shapes, arrived: Tensors) -> None:
    """Looks whether a participant has sent the tensors besides weights that its method expects, and no others.

    Args:
        owner: its name.
        expected: name and shape of each.
        arrived: what it sent.

    Raises:
        UpdateRefused: the message names the participant, the key and the reason.
    """

    def refuse(reason: str) -> None:
        raise UpdateRefused(f"update of {owner} refused: {reason}")

    for key in sorted(expected.keys() - arrived.keys()):
        refuse(f"{key} is missing")
    for key in sorted(arrived.keys() - expected.keys()):
        refuse(f"{key} is nothing that it was to send")
    for key, value in arrived.items():
        largest = _check_floats(key, expected[key], value, refuse)
        if largest > LARGEST_VALUE:
            refuse(f"{key} has values up to {largest:.3g}: expected at most {LARGEST_VALUE:.0f}")


def check_fused(site: str, weights: Tensors, arrived: Tensors, *, relative: bool) -> Tensors:
    """Returns the weights after fusion training at a site elsewhere.

    A whole encoder may be missing (the site may withhold one), and stays as it was.

    Args:
        site: its name.
        weights: what it was to train.
        arrived: what it returned, weights or changes.
        relative: whether they are changes.

    Raises:
        UpdateRefused: the message names the site, the key and the reason.
    """

    def refuse(reason: str) -> None:
        raise UpdateRefused(f"answer of {site}, the fusion site, refused: {reason}")

    _check_names(weights.keys(), arrived.keys(), refuse)
    fused = dict(weights)
    for key, value in arrived.items():
        before = weights[key]
        _check_floats(key, before.shape, value, refuse)
        after = before + value if relative else value
        _check_tensor(key, before.shape, after - before, refuse)
        fused[key] = after
    return fused


def check_anchors(site: str, anchors: Tensors, settings: Settings) -> None:
    """Looks whether anchors are of this job.

    Raises:
        UpdateRefused: they are something else; the message names the site, the key and the reason.
    """

    def refuse(reason: str) -> None:
        raise UpdateRefused(f"answer of {site}, the fusion site, refused: {reason}")

    widths = {f"{ANCHORS}{level}": channels(settings.network.width, level) for level in LEVELS}
    if anchors and anchors.keys() != widths.keys():
        refuse(f"anchors of {', '.join(anchors)}: expected those of every level: {', '.join(widths)}")
    for key, value in anchors.items():
        rows = value.shape[0] if value.ndim == 2 else 0
        if not 0 < rows <= MOST_ANCHORS:
            refuse(f"{key} has shape {tuple(value.shape)}: expected 1 to {MOST_ANCHORS} rows")
        largest = _check_floats(key, torch.Size((rows, widths[key])), value, refuse)
        if largest > LARGEST_ANCHOR:
            refuse(f"{key} has values up to {largest:.3g}: expected at most {LARGEST_ANCHOR:.0f}")
    if len({len(value) for value in anchors.values()}) > 1:
        refuse("its levels have different numbers of anchors")
