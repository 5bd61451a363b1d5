"""The bound on an update's size: against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fedmepd.federation.norm_bound import NormBound, Size, scaled, size_of


def test_size_does_not_depend_on_how_much_a_site_returns() -> None:
    one = {"a": torch.tensor([3.0, -3.0])}
    assert size_of(one) == 3 and size_of(one | {"b": torch.full((5, 4), -3.0)}) == pytest.approx(3)
    assert size_of({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[2.0], [4.0]])}) == math.sqrt(25 / 4)
    assert size_of({}) == 0 and size_of({"a": torch.zeros(0, 3)}) == 0


def test_size_of_huge_values_is_finite() -> None:
    assert size_of({"a": torch.full((4,), 3e38)}) == pytest.approx(3e38)


def test_judgement() -> None:
    bound = NormBound(10)
    assert bound.waits
    bound.set_median([4.0, 1.0, 2.0])
    assert not bound.waits
    assert bound.judge(20.0) == Size(20.0, 1.0, 2.0)
    assert bound.judge(20.5) == Size(20.5, 2 / 20.5, 2.0)
    bound.set_median([])
    assert bound.median == 2
    # Of two sites, the smaller one is the measure: otherwise one of them could be as large as it likes.
    bound.set_median([1.0, 1000.0])
    assert bound.judge(1000.0).factor == 1 / 1000


def test_no_bound() -> None:
    bound = NormBound(0)
    assert not bound.waits
    bound.set_median([1.0])
    assert bound.judge(1e9).factor == 1


def test_sites_that_change_nothing_give_no_measure() -> None:
    bound = NormBound(10)
    bound.set_median([0.0, 0.0, 1.0])
    assert bound.waits and bound.judge(1.0).factor == 1


def test_scaled() -> None:
    changes = {"a": torch.tensor([1.0, -2.0]), "b": torch.full((2,), 3e38)}
    assert scaled(changes, 1.0) is changes
    halved = scaled(changes, 0.25)
    torch.testing.assert_close(halved["a"], torch.tensor([0.25, -0.5]))
    assert halved["b"].dtype == torch.float32 and halved["b"].isfinite().all()
