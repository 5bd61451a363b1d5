"""Tensors between participants of one process get what FLARE's filters would make of them."""

from __future__ import annotations

import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from fedmepd.federation.exchange import Payload, Update
from fedmepd.federation.wire import Wire, wire_bytes
from fedmepd.flare.filters import FromWirePrecision, ToWirePrecision
from fedmepd.flare.translation import BYTES, WIRE_PRECISION


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_like_the_filters(precision: str) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "small": 1e-9 * torch.randn(5, 3, generator=generator),
        "large": 1e9 * torch.randn(7, generator=generator),
        "filters": torch.tensor([0, 1, 255], dtype=torch.uint8),
        "empty": torch.zeros(0),
    }
    sent = ToWirePrecision().process_dxo(
        DXO(DataKind.WEIGHTS, tensors, {WIRE_PRECISION: precision}), Shareable(), FLContext()
    )
    arrived = FromWirePrecision().process_dxo(sent, Shareable(), FLContext()).data
    assert wire_bytes(tensors, precision == "float16") == sent.get_meta_prop(BYTES)
    # Fifteen and seven floats, and three bytes.
    assert sent.get_meta_prop(BYTES) == 22 * (2 if precision == "float16" else 4) + 3
    wire = Wire(precision)
    report = {"cases": 3}
    update = wire.update("site-1", Update(2, tensors, report))
    assert (update.round, update.report) == (2, report)
    for found in (update.tensors, wire.payload("site-1", Payload(2, tensors)).tensors):
        assert found.keys() == arrived.keys()
        assert all(torch.equal(found[key], arrived[key]) for key in found)
    assert torch.equal(update.tensors["small"], tensors["small"]) == (precision == "float32")
