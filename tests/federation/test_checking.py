from __future__ import annotations

import pytest
import torch

from fedmepd.errors import UpdateRefused
from fedmepd.federation.checking import check_update
from fedmepd.federation.exchange import Payload, SiteProfile, Update

PROFILE = SiteProfile("clinic", ("FLAIR", "T2"), {"train": 3, "validation": 1, "test": 1}, "folder")
PARTS = ("encoders", "decoder")
WEIGHT, BIAS = "decoder.classify.weight", "decoder.classify.bias"
FLAIR, FLAIR_2, T2 = "encoders.FLAIR.a.weight", "encoders.FLAIR.b.weight", "encoders.T2.a.weight"


def payload() -> Payload:
    tensors = {key: torch.zeros(3, 2) for key in (FLAIR, FLAIR_2, T2, WEIGHT)}
    tensors |= {BIAS: torch.zeros(3), "anchors.1": torch.zeros(4, 2), "auxiliary.a.weight": torch.zeros(2)}
    return Payload(5, tensors | {"patience.decoder.classify": torch.ones(4, dtype=torch.uint8)})


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
        (update(decoder__classify__bias=[0.0, 0.0, 0.0]), "floating-point numbers, got list"),
        (update(decoder__classify__bias=bad(float("nan"))), "has 1 of 3 values that are NaN or infinite"),
        (update(decoder__classify__bias=bad(float("inf"), 2)), "has 2 of 3 values that are NaN or infinite"),
        (update(decoder__classify__bias=bad(-17.0)), f"{BIAS} changes by 17: expected at most 16"),
    ],
)
def test_refused(given: Update, text: str) -> None:
    with pytest.raises(UpdateRefused, match=text) as error:
        check_update(PROFILE, payload(), given, PARTS)
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
    check_update(PROFILE, payload(), given, PARTS)


def test_a_method_without_exchange_takes_nothing() -> None:
    check_update(PROFILE, Payload(5), Update(5, {}, {}), ())
    with pytest.raises(UpdateRefused, match="no weight that was sent"):
        check_update(PROFILE, Payload(5), Update(5, {WEIGHT: torch.zeros(1)}, {}), ())


def test_one_encoder_for_all() -> None:
    sent = Payload(5, {"encoders.shared.a": torch.zeros(2)})
    check_update(PROFILE, sent, Update(5, {"encoders.shared.a": torch.zeros(2)}, {}), PARTS)
    more = {"encoders.shared.a": torch.zeros(2), "encoders.shared.b": torch.zeros(2)}
    with pytest.raises(UpdateRefused, match="encoders.shared.b is no weight that was sent"):
        check_update(PROFILE, sent, Update(5, more, {}), PARTS)
