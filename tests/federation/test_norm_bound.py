"""The bound on an update's size: against figures worked out by hand."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch

from fedmepd.federation.norm_bound import NormBound, Size, scaled, size_of


def sizes(*of: float) -> list[Size]:
    return [Size(own) for own in of]


def bounded(bound: float, of: list[Size], fusion: float | None = None) -> NormBound:
    made = NormBound(bound)
    if fusion is not None:
        made.note_fusion({"w": torch.tensor([fusion])})
    made.set_median(of)
    return made


def test_size_does_not_depend_on_how_much_a_site_returns() -> None:
    one = {"a": torch.tensor([3.0, -3.0])}
    assert size_of(one).own == 3 and size_of(one | {"b": torch.full((5, 4), -3.0)}).own == pytest.approx(3)
    both = size_of({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[2.0], [4.0]])})
    assert both.own == math.sqrt(25 / 4)
    assert both.tensors == {"a": math.sqrt(5 / 2), "b": math.sqrt(20 / 2)}
    assert size_of({}).own == 0 and size_of({"a": torch.zeros(0, 3)}).own == 0


def test_size_of_huge_values_is_finite() -> None:
    assert size_of({"a": torch.full((4,), 3e38)}).own == pytest.approx(3e38)


def test_judgement() -> None:
    bound = NormBound(10)
    assert bound.waits
    bound.set_median(sizes(4.0, 1.0, 2.0))
    assert not bound.waits
    assert bound.judge(Size(20.0)) == Size(20.0, median=2.0)
    assert bound.judge(Size(20.5)) == Size(20.5, factor=2 / 20.5, median=2.0)
    bound.set_median([])
    assert bound.median == 2


def test_no_site_alone_makes_another_ones_update_look_large() -> None:
    """Whatever one of two sites, or half of four, send: an honest update of size 1 is not scaled."""
    for other in (0.0, 1e-9, 0.01, 1.0, 100.0, 1e30):
        for fusion in (None, 0.3, 1.0, 3.0):
            for count in (1, 2):
                for order in set(permutations([*[1.0] * count, *[other] * count])):
                    bound = bounded(10, sizes(*order), fusion)
                    assert bound.judge(Size(1.0)).factor == 1, (other, fusion, order)


def test_with_the_fusion_site_a_large_one_of_two_is_told_from_the_other() -> None:
    assert bounded(10, sizes(1.0, 1000.0), fusion=3.0).judge(Size(1000.0)).factor == 3 / 1000
    # Alone, it is compared with the fusion site, not with itself.
    assert bounded(10, sizes(1000.0), fusion=3.0).judge(Size(1000.0)).factor == 3 / 1000
    # Of an odd number, the sites are the measure: the fusion site takes more steps.
    assert bounded(10, sizes(1.0, 1.0, 1000.0), fusion=100.0).median == 1


def test_the_fusion_site_alone_does_not_make_a_single_site_look_large() -> None:
    bound = bounded(10, sizes(1.0, 1.0, 1.2), fusion=1.0)
    bound.note_fusion({"w": torch.tensor([1e-6])})
    # The others are away.
    for _ in range(3):
        bound.set_median(sizes(0.9))
        assert bound.median == 0.9 and bound.judge(Size(0.9)).factor == 1
    # What it sends itself raises nothing.
    for _ in range(3):
        bound.set_median(sizes(8.0))
        assert bound.median == 0.9
    bound.note_fusion({"w": torch.tensor([2.0])})
    bound.set_median(sizes(8.0))
    assert bound.median == 2


def test_a_tensor_that_a_single_site_has_is_measured_likewise() -> None:
    def update(of_tensor: float) -> list[Size]:
        return [size_of({"w": torch.ones(2), "own": torch.full((2,), of_tensor)}), size_of({"w": torch.ones(2)})]

    bound = bounded(10, update(1.0))
    bound.note_fusion({"w": torch.ones(2), "own": torch.full((2,), 1e-6)})
    bound.set_median(update(0.5))
    assert bound.state()["medians"]["own"] == 0.5
    bound.set_median(update(100.0))
    assert bound.state()["medians"]["own"] == 0.5


def test_a_whole_updates_size_in_one_filter() -> None:
    """Thirty filters of two weights; sites change each weight by 1, the fourth one weight of one filter by 30."""
    honest = {"w": torch.ones(30, 2), "b": torch.ones(30)}
    bound = bounded(10, [size_of(honest)] * 3)
    one = {"w": torch.zeros(30, 2), "b": torch.zeros(30)}
    one["w"][1, 0], one["w"][2, 1], one["b"][0], one["b"][1] = 30.0, 28.0, 19.0, -21.0
    judged = bound.judge(size_of(one))
    assert judged.factor == 1, "the update as a whole is within the bound"
    limited, size = bound.limit(one, judged)
    # The filters' root mean squares are 30 / sqrt(2) = 21.2, which becomes 1, and 28 / sqrt(2) = 19.8, which stays.
    expected = {"w": torch.zeros(30, 2), "b": torch.zeros(30)}
    expected["w"][1, 0], expected["w"][2, 1], expected["b"][0], expected["b"][1] = math.sqrt(2), 28.0, 19.0, -1.0
    for key, value in expected.items():
        torch.testing.assert_close(limited[key], value)
    assert size.filters == 2
    untouched, size = bound.limit(honest, bound.judge(size_of(honest)))
    assert size.filters == 0 and all(untouched[key] is honest[key] for key in honest)


def test_a_filter_of_an_update_that_is_scaled_as_a_whole() -> None:
    bound = bounded(10, [size_of({"w": torch.ones(900, 1)})] * 3)
    huge = {"w": torch.cat([torch.full((899, 1), 1.0), torch.full((1, 1), 3e6)])}
    limited, size = bound.limit(huge, bound.judge(size_of(huge)))
    # The whole has the root mean square 1e5: times 1e-5, the last filter is 30 times as large as the median's tensor.
    assert size.factor == pytest.approx(1e-5, rel=1e-6)
    assert size.filters == 1 and float(limited["w"].abs().max()) == pytest.approx(1)


def test_a_tensor_without_a_measure_of_its_own() -> None:
    """New in this round, or unchanged at the median site: the whole update's median is the measure."""
    bound = bounded(10, [size_of({"w": torch.ones(2, 2), "still": torch.zeros(4)})] * 3)
    measure = bound.median
    changes = {"new": torch.tensor([100.0, 1.0]), "still": torch.tensor([0.0, 0.0, 0.0, 50.0])}
    limited, size = bound.limit(changes, Size(1.0, tensors=size_of(changes).tensors))
    assert size.filters == 2
    torch.testing.assert_close(limited["new"], torch.tensor([measure, 1.0], dtype=torch.float32))
    torch.testing.assert_close(limited["still"], torch.tensor([0.0, 0.0, 0.0, measure], dtype=torch.float32))


def test_a_filter_of_a_tensor_that_sites_hardly_change() -> None:
    """It may be many times as large as the tensor: what counts is that it is not large beside whole updates."""
    usual = {"w": torch.ones(900), "slow": torch.full((100,), 0.01)}
    bound = bounded(10, [size_of(usual)] * 3)
    for amount, filters in ((15.0, 0), (25.0, 1)):
        changes = usual | {"slow": torch.tensor([amount] + [0.01] * 99)}
        limited, size = bound.limit(changes, bound.judge(size_of(changes)))
        assert size.filters == filters
        # The whole update of the usual site: sqrt((900 + 100 * 0.0001) / 1000).
        assert float(limited["slow"][0]) == pytest.approx(amount if not filters else math.sqrt(0.90001))


def test_no_bound() -> None:
    bound = NormBound(0)
    assert not bound.waits
    bound.set_median(sizes(1.0))
    assert bound.judge(Size(1e9)).factor == 1
    changes = {"w": torch.tensor([1e9, 0.0])}
    assert bound.limit(changes, bound.judge(size_of(changes)))[0] is changes


def test_sites_that_change_nothing_give_no_measure() -> None:
    bound = NormBound(10)
    bound.set_median(sizes(0.0, 0.0, 1.0))
    assert bound.waits and bound.judge(Size(1.0)).factor == 1


def test_what_is_kept() -> None:
    bound = bounded(10, [size_of({"w": torch.ones(2)})] * 2, fusion=2.0)
    other = NormBound(10)
    other.restore(bound.state())
    assert other.state() == bound.state() and other.median == 1
    other.set_median(sizes(1.0, 1000.0))
    assert other.median == 2


def test_scaled() -> None:
    changes = {"a": torch.tensor([1.0, -2.0]), "b": torch.full((2,), 3e38)}
    assert scaled(changes, 1.0) is changes
    halved = scaled(changes, 0.25)
    torch.testing.assert_close(halved["a"], torch.tensor([0.25, -0.5]))
    assert halved["b"].dtype == torch.float32 and halved["b"].isfinite().all()
