from __future__ import annotations

import pytest
import torch

from fedmepd.errors import UpdateRefused
from fedmepd.federation.checking import check_anchors, check_fused, check_update
from fedmepd.federation.exchange import SiteProfile, Update
from tests.tiny import settings

PROFILE = SiteProfile("clinic", ("FLAIR", "T2"), {"train": 3, "validation": 1, "test": 1}, "folder")
WEIGHT, BIAS = "decoder.classify.weight", "decoder.classify.bias"
FLAIR, FLAIR_2, T2 = "encoders.FLAIR.a.weight", "encoders.FLAIR.b.weight", "encoders.T2.a.weight"


# What was sent, less anchors and the state of the filters, which do not come back.
EXPECTED = {key: torch.Size((3, 2)) for key in (FLAIR, FLAIR_2, T2, WEIGHT)} | {BIAS: torch.Size((3,))}


def update(without: tuple[str, ...] = (), round_number: int = 5, **changed) -> Update:
    tensors = {key: torch.full((3, 2), 0.1) for key in (FLAIR, FLAIR_2, T2, WEIGHT)} | {BIAS: torch.full((3,), 0.1)}
    tensors |= {key.replace("__", "."): value for key, value in changed.items()}
    return Update(round_number, {key: value for key, value in tensors.items() if key not in without}, {})


def bad(value: float, at: int = 1) -> torch.Tensor:
    made = torch.zeros(3)
    made[:at] = value
    return made


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (update(round_number=4), "for round 4 refused: it is for round 4, the current round is 5"),
        (update(round_number=6), "it is for round 6, the current round is 5"),
        (update((BIAS,)), f"{BIAS} is missing"),
        (update((FLAIR,)), f"{FLAIR} is missing"),
        (update((FLAIR, FLAIR_2, T2, WEIGHT, BIAS)), f"{WEIGHT} is missing"),
        (update(decoder__more=torch.zeros(1)), "decoder.more is no weight that was sent to it"),
        (update(anchors__1=torch.zeros(4, 2)), "anchors.1 is no weight that was sent to it"),
        (update(auxiliary__a__weight=torch.zeros(2)), "auxiliary.a.weight is no weight that was sent to it"),
        (update(encoders__FLAIR__c=torch.zeros(1)), "encoders.FLAIR.c is no weight that was sent to it"),
        (update(encoders__T1__a=torch.zeros(1)), "encoders.T1.a: the site does not own T1; it has FLAIR, T2"),
        (update(decoder__classify__bias=torch.zeros(4)), rf"{BIAS} has shape \(4,\), expected \(3,\)"),
        (update(decoder__classify__bias=torch.zeros(3, 1)), rf"{BIAS} has shape \(3, 1\), expected \(3,\)"),
        (update(decoder__classify__bias=torch.zeros(3, dtype=torch.int64)), "floating-point numbers, got torch.int64"),
        (update(decoder__classify__bias=torch.zeros(3, dtype=torch.bfloat16)), "numbers, got torch.bfloat16"),
        (update(decoder__classify__bias=[0.0, 0.0, 0.0]), "floating-point numbers, got list"),
        (update(decoder__classify__bias=bad(float("nan"))), "has 1 of 3 values that are NaN or infinite"),
        (update(decoder__classify__bias=bad(float("inf"), 2)), "has 2 of 3 values that are NaN or infinite"),
        (update(decoder__classify__bias=bad(-17.0)), f"{BIAS} changes by 17: expected at most 16"),
    ],
)
def test_refused(given: Update, text: str) -> None:
    with pytest.raises(UpdateRefused, match=text) as error:
        check_update(PROFILE, 5, EXPECTED, given)
    assert f"update of clinic for round {given.round} refused: " in str(error.value)


@pytest.mark.parametrize(
    "given",
    [
        update(),
        # An encoder may be withheld, and all of them.
        update((T2,)),
        update((FLAIR, FLAIR_2, T2)),
        update(decoder__classify__bias=torch.zeros(3, dtype=torch.float16)),
        update(decoder__classify__bias=bad(16.0)),
    ],
)
def test_taken(given: Update) -> None:
    check_update(PROFILE, 5, EXPECTED, given)


def test_a_method_without_exchange_takes_nothing() -> None:
    check_update(PROFILE, 5, {}, Update(5, {}, {}))
    with pytest.raises(UpdateRefused, match="no weight that was sent"):
        check_update(PROFILE, 5, {}, Update(5, {WEIGHT: torch.zeros(1)}, {}))


def test_one_encoder_for_all() -> None:
    expected = {"encoders.shared.a": torch.Size((2,))}
    check_update(PROFILE, 5, expected, Update(5, {"encoders.shared.a": torch.zeros(2)}, {}))
    more = {"encoders.shared.a": torch.zeros(2), "encoders.shared.b": torch.zeros(2)}
    with pytest.raises(UpdateRefused, match="encoders.shared.b is no weight that was sent"):
        check_update(PROFILE, 5, expected, Update(5, more, {}))


OF = settings()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"without": (BIAS,)}, f"{BIAS} is missing"),
        ({"more": torch.zeros(1)}, "decoder.more is no weight that was sent to it"),
        ({"bias": torch.zeros(4)}, rf"{BIAS} has shape \(4,\), expected \(3,\)"),
        ({"bias": bad(float("nan"))}, "has 1 of 3 values that are NaN or infinite"),
        ({"bias": bad(40.0)}, f"{BIAS} changes by 40: expected at most 16"),
        ({"bias": [0.0]}, "floating-point numbers, got list"),
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_fused_refused(changes, text, relative) -> None:
    weights = {key: torch.zeros(shape) for key, shape in EXPECTED.items()}
    arrived = {key: torch.ones(shape) for key, shape in EXPECTED.items() if key not in changes.get("without", ())}
    arrived |= {
        {"more": "decoder.more", "bias": BIAS}[name]: value for name, value in changes.items() if name != "without"
    }
    with pytest.raises(UpdateRefused, match=text) as error:
        check_fused("clinic", weights, arrived, relative=relative)
    assert "answer of clinic, the fusion site, refused: " in str(error.value)


def test_fused_weights_and_changes() -> None:
    weights = {key: torch.full(shape, 2.0) for key, shape in EXPECTED.items()}
    arrived = {key: torch.ones(shape) for key, shape in EXPECTED.items() if key != T2}
    for relative, value in ((False, 1.0), (True, 3.0)):
        fused = check_fused("clinic", weights, arrived, relative=relative)
        assert fused.keys() == weights.keys()
        # A withheld encoder stays as it was.
        assert (fused[T2] == 2.0).all() and all((fused[key] == value).all() for key in arrived)


WIDTH = 4


def anchors(rows: int = 3) -> dict[str, torch.Tensor]:
    return {f"anchors.{level}": torch.zeros(rows, WIDTH * 2 ** (level - 1)) for level in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"anchors.1": torch.zeros(3, 4)}, "expected those of every level"),
        (anchors() | {"anchors.5": torch.zeros(3, 64)}, "expected those of every level"),
        (anchors() | {"anchors.2": torch.zeros(3, 4)}, r"anchors.2 has shape \(3, 4\), expected \(3, 8\)"),
        (anchors() | {"anchors.2": torch.zeros(8)}, "expected 1 to 2048 rows"),
        (anchors(0), "expected 1 to 2048 rows"),
        (anchors(2049), "expected 1 to 2048 rows"),
        (anchors() | {"anchors.3": torch.zeros(2, 16)}, "different numbers of anchors"),
        (anchors() | {"anchors.3": torch.full((3, 16), float("inf"))}, "NaN or infinite"),
        (anchors() | {"anchors.3": torch.zeros(3, 16, dtype=torch.int64)}, "floating-point numbers"),
        # Finite, and a hospital's calibration never learns from them.
        (
            anchors() | {"anchors.3": torch.full((3, 16), 3e38)},
            r"anchors.3 has values up to 3e\+38: expected at most 1048",
        ),
        (anchors() | {"anchors.3": torch.full((3, 16), -(2.0**20 + 1))}, "expected at most 1048576"),
    ],
)
def test_anchors_refused(given, text) -> None:
    with pytest.raises(UpdateRefused, match=text):
        check_anchors("clinic", given, OF)


def test_anchors_taken() -> None:
    check_anchors("clinic", anchors(), OF)
    check_anchors("clinic", {key: torch.full_like(value, 2.0**13) for key, value in anchors().items()}, OF)
    check_anchors("clinic", {}, OF)
