import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.fuel.utils import fobs

from fedmepd.errors import UpdateRefused
from fedmepd.flare.filters import FromWirePrecision, ToWirePrecision

INF, NAN = float("inf"), float("nan")


def over_the_wire(tensors, precision="float16"):
    """Filter out, FLARE's own serialization, filter in."""
    message = DXO(DataKind.WEIGHTS, tensors, {"wire_precision": precision}).to_shareable()
    fobs.register(TensorDecomposer)
    sent = ToWirePrecision().process(message, FLContext())
    return sent, FromWirePrecision().process(fobs.loads(fobs.dumps(sent)), FLContext())


@pytest.mark.parametrize(
    ("precision", "values", "expected", "size"),
    [
        # 1/3 in half precision: 1365 / 4096.
        ("float16", [1.0, 1 / 3], [1.0, 1365 / 4096], 4),
        ("float32", [1.0, 1 / 3], [1.0, 1 / 3], 8),
        ("float16", [65504.0, -65504.0], [65504.0, -65504.0], 4),
        # Beyond float16's range. 70000 / 4 rounds to the next multiple of 16, 17504.
        ("float16", [1 / 3, -70000.0], [1365 / 4096, -70016.0], 4),
        # 3e38 is 1805.6 * 2 ** 117; 11 bits make that 1806.
        ("float16", [3.0e38], [1806 * 2.0**117], 2),
        # Below float16's smallest number, 2 ** -24.
        ("float16", [2.0**-30, -3 * 2.0**-32], [2.0**-30, -3 * 2.0**-32], 4),
        ("float16", [1.0, 2.0**-30], [1.0, 2.0**-30], 4),
        ("float16", [1.0, 2.0**-40], [1.0, 0.0], 4),
        ("float16", [2.0**-120, 0.0], [2.0**-120, 0.0], 4),
        # What was infinite or NaN before stays so; the server refuses it with a reason.
        ("float16", [1.0, INF], [1.0, INF], 4),
        ("float16", [1.0, NAN], [1.0, NAN], 4),
        ("float16", [0.0, 0.0], [0.0, 0.0], 4),
        ("float16", [], [], 0),
    ],
)
def test_values_and_bytes(precision, values, expected, size):
    sent, received = over_the_wire({"w": torch.tensor(values, dtype=torch.float32)}, precision)
    assert from_shareable(sent).meta["bytes"] == size
    weight = from_shareable(received).data["w"]
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=0, equal_nan=True)


def test_bytes_of_filter_states_pass_untouched():
    state = torch.tensor([0, 7, 255], dtype=torch.uint8)
    sent, received = over_the_wire({"patience.a": state, "w": torch.zeros(5)})
    assert from_shareable(sent).meta["bytes"] == 3 + 5 * 2
    assert torch.equal(from_shareable(received).data["patience.a"], state)
    assert from_shareable(received).data["patience.a"].dtype == torch.uint8


def test_task_that_is_sent_twice_is_cast_from_the_original_twice():
    weights = {"w": torch.tensor([1 / 3])}
    message = DXO(DataKind.WEIGHTS, weights, {"wire_precision": "float16"}).to_shareable()
    original = message["DXO"]
    outgoing = ToWirePrecision()
    for _ in range(2):
        message["DXO"] = original
        sent = from_shareable(outgoing.process(message, FLContext()))
        assert sent.data["w"].dtype == torch.float16
        assert sent.meta["filter_history"] == ["ToWirePrecision"]
    assert weights["w"].dtype == torch.float32 and "bytes" not in original["meta"]


def test_messages_without_weights_pass():
    message = DXO(DataKind.METRICS, {"mdsc": 0.5}).to_shareable()
    assert from_shareable(ToWirePrecision().process(message, FLContext())).data == {"mdsc": 0.5}


@pytest.mark.parametrize("exponent", ["15", 1000, None, 2.5])
def test_exponent_that_is_none_is_an_error(exponent):
    meta = {"exponents": {"w": exponent}}
    message = DXO(DataKind.WEIGHTS, {"w": torch.ones(1, dtype=torch.float16)}, meta).to_shareable()
    with pytest.raises(UpdateRefused, match="w came with exponent"):
        FromWirePrecision().process(message, FLContext())


HALF = torch.ones(1, dtype=torch.float16)
LINE = "w\n2026-01-01 00:00:00,000 - FedMEPDController - WARNING - site-1 is left out\x1b[2J"


@pytest.mark.parametrize(
    ("data", "exponents"),
    [
        ({LINE: HALF}, {LINE: 15}),
        ({LINE: HALF}, {}),
        ({"w": HALF}, {LINE: 15}),
        ({"w": HALF}, {"w": LINE}),
        ({"w": HALF}, {"w": [[[[LINE] * 10] * 10] * 10] * 10}),
        ({"w": HALF}, {("w",): 15}),
        ({"w": HALF}, [LINE]),
        ({"w": LINE}, {"w": 15}),
        ({7: HALF}, {7: 15}),
        ({"w": torch.ones(1)}, {"w": 15}),
    ],
)
def test_what_no_filter_of_ours_sends_is_refused_in_one_line(data, exponents):
    """FLARE writes the message into the log of whoever receives it."""
    message = DXO(DataKind.WEIGHTS, data, {"exponents": exponents}).to_shareable()
    with pytest.raises(UpdateRefused) as refused:
        FromWirePrecision().process(message, FLContext())
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400
