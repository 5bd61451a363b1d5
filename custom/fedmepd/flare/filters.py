"""Half precision on the wire: a filter where tensors leave and one where they arrive.

FLARE's own quantizer needs an extra library even for float16. Tensors travel as :mod:`fedmepd.federation.wire` scales
them; filter states (uint8) pass as they are. Both filters change nothing where the message asks for float32.
"""

from __future__ import annotations

import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from fedmepd.errors import UpdateRefused, plain_text
from fedmepd.federation.wire import LARGEST_EXPONENT, SMALLEST_EXPONENT, grow, shrink
from fedmepd.flare.translation import BYTES, WIRE_PRECISION, tensors_of

EXPONENTS = "exponents"


class ToWirePrecision(DXOFilter):
    """Scales float32 tensors and casts them to float16 if the message asks for it; notes the bytes that leave."""

    def __init__(self):
        super().__init__(supported_data_kinds=[DataKind.WEIGHTS], data_kinds_to_filter=None)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        tensors, exponents = dict(dxo.data), {}
        if dxo.get_meta_prop(WIRE_PRECISION) == "float16":
            for key, tensor in dxo.data.items():
                if tensor.dtype == torch.float32:
                    tensors[key], exponents[key] = shrink(tensor)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        return _copy(dxo, tensors, {BYTES: size, EXPONENTS: exponents})


class FromWirePrecision(DXOFilter):
    """The inverse of :class:`ToWirePrecision`.

    Raises:
        UpdateRefused: a tensor, its name or its exponent is none, or there are exponents of tensors that did not come;
            FLARE then logs the message, and that the filter failed, and the site is left out.
    """

    def __init__(self):
        super().__init__(supported_data_kinds=[DataKind.WEIGHTS], data_kinds_to_filter=None)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        tensors, exponents = dict(tensors_of(dxo)), dxo.get_meta_prop(EXPONENTS) or {}
        if not isinstance(exponents, dict):
            raise UpdateRefused(f"expected an exponent for each tensor, got a value of type {type(exponents).__name__}")
        for key, exponent in exponents.items():
            if key not in tensors:
                raise UpdateRefused(f"an exponent came for {plain_text(key)}, and no tensor of that name")
            if not isinstance(exponent, int) or not SMALLEST_EXPONENT <= exponent <= LARGEST_EXPONENT:
                raise UpdateRefused(f"{key} came with exponent {plain_text(exponent)}")
            # The other filter has made it so.
            if tensors[key].dtype != torch.float16:
                raise UpdateRefused(f"{key} came with an exponent, as {tensors[key].dtype}: expected torch.float16")
            tensors[key] = grow(tensors[key], exponent)
        return _copy(dxo, tensors, {})


def _copy(dxo: DXO, tensors: dict[str, torch.Tensor], changes: dict) -> DXO:
    # A new DXO: FLARE hands the same one to the filter again when a site asks for its task a second time.
    meta = {key: value for key, value in dxo.meta.items() if key != MetaKey.FILTER_HISTORY}
    return DXO(dxo.data_kind, tensors, {**meta, **changes})
