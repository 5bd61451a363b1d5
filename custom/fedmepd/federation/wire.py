"""Half precision on the wire: every tensor scaled by a power of two of its own, so that nothing is lost that matters.

float16 as it is would lose what matters late in a long run, when a round changes weights by little more than its
smallest number (6e-8). Scaling by a power of two costs no precision and keeps large values finite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedmepd.federation.exchange import Payload, Update

# The largest value of a scaled tensor is just below 2 ** 15; float16 ends at 65504.
_TOP = 15
# 2 ** (_TOP - exponent) and its inverse are float32 numbers themselves.
SMALLEST_EXPONENT, LARGEST_EXPONENT = -100, 128


def shrink(tensor: Tensor) -> tuple[Tensor, int]:
    """float32 -> float16 and the exponent that :func:`grow` needs."""
    exponent = _exponent(tensor)
    return (tensor * 2.0 ** (_TOP - exponent)).half(), exponent


def grow(tensor: Tensor, exponent: int) -> Tensor:
    """The inverse of :func:`shrink`, but for what half precision cannot hold."""
    return tensor.float() * scale_of(exponent)


def scale_of(exponent: int) -> float:
    """What :func:`grow` multiplies by."""
    return 2.0 ** (exponent - _TOP)


def wire_bytes(tensors: dict[str, Tensor], half: bool) -> int:
    """Returns how many bytes tensors have on the wire; ``half``: float32 travels as float16."""
    return sum(
        tensor.numel() * (2 if half and tensor.dtype == torch.float32 else tensor.element_size())
        for tensor in tensors.values()
    )


class Wire:
    """What becomes of tensors between sites and server that share a process: what FLARE's filters make of them.

    Args:
        precision: ``aggregation.wire_precision`` of the job.
    """

    def __init__(self, precision: str):
        self._half = precision == "float16"

    def payload(self, site: str, payload: Payload) -> Payload:
        """Returns what a site gets of what the server sends."""
        return Payload(payload.round, self._arrived(payload.tensors))

    def update(self, site: str, update: Update) -> Update:
        """Returns what the server gets of what a site returns."""
        return Update(update.round, self._arrived(update.tensors), update.report)

    def _arrived(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self._half:
            return tensors
        return {key: grow(*shrink(value)) if value.dtype == torch.float32 else value for key, value in tensors.items()}


def _exponent(tensor: Tensor) -> int:
    """The smallest e for which all finite values are below 2 ** e."""
    if not tensor.numel():
        return 0
    # What is infinite or NaN already stays so: the server refuses it with a reason.
    largest = torch.where(tensor.isfinite(), tensor, 0).abs().max()
    return max(SMALLEST_EXPONENT, int(torch.frexp(largest).exponent))
