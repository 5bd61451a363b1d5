"""Half precision on the wire: a filter where tensors leave and one where they arrive.

FLARE's own quantizer needs an extra library even for float16, and quantizes what the site itself keeps exact: round and
filter state in uint8. Both filters do nothing where the message asks for float32.
"""

from __future__ import annotations

import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from fedmepd.flare.translation import BYTES, WIRE_PRECISION

_LARGEST = torch.finfo(torch.float16).max


class ToWirePrecision(DXOFilter):
    """Casts float32 tensors to float16 if the message asks for it, and notes the bytes that leave.

    A tensor with a finite value beyond float16's range (65504) travels as float32: nothing becomes infinite on the way.
    """

    def __init__(self):
        super().__init__(supported_data_kinds=[DataKind.WEIGHTS], data_kinds_to_filter=None)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        tensors = dxo.data
        if dxo.get_meta_prop(WIRE_PRECISION) == "float16":
            tensors = {key: _to_half(tensor) for key, tensor in tensors.items()}
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        return _copy(dxo, tensors, {BYTES: size})


class FromWirePrecision(DXOFilter):
    """Casts float16 tensors back to float32."""

    def __init__(self):
        super().__init__(supported_data_kinds=[DataKind.WEIGHTS], data_kinds_to_filter=None)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        return _copy(dxo, {key: _to_single(tensor) for key, tensor in dxo.data.items()}, {})


def _to_half(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype != torch.float32:
        return tensor
    finite = torch.where(tensor.isfinite(), tensor, 0)
    return tensor if finite.numel() and finite.abs().max() > _LARGEST else tensor.half()


def _to_single(tensor: torch.Tensor) -> torch.Tensor:
    is_half = isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float16
    return tensor.float() if is_half else tensor


def _copy(dxo: DXO, tensors: dict[str, torch.Tensor], changes: dict[str, int]) -> DXO:
    # A new DXO: FLARE hands the same one to the filter again when a site asks for its task a second time.
    meta = {key: value for key, value in dxo.meta.items() if key != MetaKey.FILTER_HISTORY}
    return DXO(dxo.data_kind, tensors, {**meta, **changes})
