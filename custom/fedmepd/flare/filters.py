"""Half precision on the wire: a filter where tensors leave and one where they arrive.

FLARE's own quantizer needs an extra library even for float16. And float16 as it is would lose what matters late in a
long run, when a round changes weights by little more than its smallest number (6e-8). So every tensor travels scaled by
a power of two of its own, which costs no precision and keeps large values finite. Filter states (uint8) pass as they
are. Both filters change nothing where the message asks for float32.
"""

from __future__ import annotations

import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from fedmepd.flare.translation import BYTES, WIRE_PRECISION

_EXPONENTS = "exponents"
# The largest value of a scaled tensor is just below 2 ** 15; float16 ends at 65504.
_TOP = 15
# 2 ** (_TOP - exponent) and its inverse are float32 numbers themselves.
_SMALLEST, _LARGEST = -100, 128


class ToWirePrecision(DXOFilter):
    """Scales float32 tensors and casts them to float16 if the message asks for it; notes the bytes that leave."""

    def __init__(self):
        super().__init__(supported_data_kinds=[DataKind.WEIGHTS], data_kinds_to_filter=None)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        tensors, exponents = dict(dxo.data), {}
        if dxo.get_meta_prop(WIRE_PRECISION) == "float16":
            for key, tensor in dxo.data.items():
                if tensor.dtype == torch.float32:
                    exponents[key] = _exponent(tensor)
                    tensors[key] = (tensor * 2.0 ** (_TOP - exponents[key])).half()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        return _copy(dxo, tensors, {BYTES: size, _EXPONENTS: exponents})


class FromWirePrecision(DXOFilter):
    """The inverse of :class:`ToWirePrecision`.

    Raises:
        ValueError: an exponent is none; FLARE then reports that the filter failed, and the site is left out.
    """

    def __init__(self):
        super().__init__(supported_data_kinds=[DataKind.WEIGHTS], data_kinds_to_filter=None)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        tensors = dict(dxo.data)
        for key, exponent in (dxo.get_meta_prop(_EXPONENTS) or {}).items():
            if not isinstance(exponent, int) or not _SMALLEST <= exponent <= _LARGEST:
                raise ValueError(f"{key} came with exponent {exponent!r}")
            tensors[key] = tensors[key].float() * 2.0 ** (exponent - _TOP)
        return _copy(dxo, tensors, {})


def _exponent(tensor: torch.Tensor) -> int:
    """The smallest e for which all finite values are below 2 ** e."""
    if not tensor.numel():
        return 0
    # What is infinite or NaN already stays so: the server refuses it with a reason.
    largest = torch.where(tensor.isfinite(), tensor, 0).abs().max()
    return max(_SMALLEST, int(torch.frexp(largest).exponent))


def _copy(dxo: DXO, tensors: dict[str, torch.Tensor], changes: dict) -> DXO:
    # A new DXO: FLARE hands the same one to the filter again when a site asks for its task a second time.
    meta = {key: value for key, value in dxo.meta.items() if key != MetaKey.FILTER_HISTORY}
    return DXO(dxo.data_kind, tensors, {**meta, **changes})
