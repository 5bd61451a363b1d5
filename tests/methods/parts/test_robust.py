"""Robust means of updates: against sorted lists, weight by weight, and figures worked out by hand."""

from __future__ import annotations

import math
import random
from itertools import permutations
from pathlib import Path

import pytest
import torch

from fedmepd.errors import SettingsError
from fedmepd.federation.open_round import TensorStore
from fedmepd.job_settings import make_settings
from fedmepd.methods.parts.aggregation import Aggregation, aggregation
from fedmepd.methods.parts.robust import RobustAggregation

KEY, ENCODER = "decoder.a.weight", "encoders.T1.a.weight"
STATE = {KEY: torch.zeros(3, 2), ENCODER: torch.zeros(2, 2)}


def means(folder: Path, trim: float = 0.0, direction: float = -1.0, share: float = 0.0, **more) -> RobustAggregation:
    return RobustAggregation(STATE, list(STATE), share, trim, direction, TensorStore(folder), **more)


def of_one_weight(folder: Path, changes: list[float], weights: list[float], trim: float) -> float:
    found = means(folder, trim)
    for number, (change, weight) in enumerate(zip(changes, weights, strict=True)):
        found.add(f"site-{number}", ENCODER, torch.full((2, 2), change), weight)
    return float(found.result()[ENCODER][0, 0])


@pytest.mark.parametrize(
    ("changes", "trim", "expected"),
    [
        ([1, 2, 3, 4, 90], 0.0, 20.0),
        ([90, 1, 4, 3, 2], 0.2, 3.0),
        ([-900, 1, 2, 3, 4, 5, 6, 7], 0.125, 3.5),
        # A share of an eighth of four is rounded up to one.
        ([1, 2, 4, 90], 0.125, 3.0),
        ([1, 2, 90], 0.125, 2.0),
        # Of two nobody can tell which one is wrong.
        ([1, 90], 0.125, 45.5),
        ([90], 0.5, 90.0),
        ([1, 2, 3, 4, 90], 0.5, 3.0),
        ([1, 2, 4, 90], 0.5, 3.0),
    ],
)
def test_trimmed_mean_and_median(changes, trim, expected, tmp_path) -> None:
    assert of_one_weight(tmp_path, changes, [1.0] * len(changes), trim) == pytest.approx(expected)


def test_weights_of_those_that_are_left(tmp_path) -> None:
    # 1 and 90 are cut; (2 * 1 + 3 * 3) / 4.
    assert of_one_weight(tmp_path, [90, 2, 1, 3], [100.0, 1.0, 100.0, 3.0], 0.25) == pytest.approx(2.75)


@pytest.mark.parametrize("trim", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("block", [1, 7, 2**19])
def test_filters_that_only_some_sites_share(trim, block, tmp_path) -> None:
    """Eight sites with a share of the filters each, against a loop over sorted lists."""
    generator = random.Random(3)
    found = means(tmp_path, trim, share=0.3, block=block)
    lists: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for number in range(8):
        rows = torch.tensor([generator.random() < 0.6 for _ in range(3)])
        change = torch.tensor([[float(generator.randint(-3, 3)) for _ in range(2)] for _ in range(int(rows.sum()))])
        weights = torch.tensor([float(generator.randint(1, 4)) for _ in range(int(rows.sum()))])
        found.add(f"site-{number}", KEY, change.reshape(-1, 2), weights, rows)
        for place, row in enumerate(rows.nonzero().flatten().tolist()):
            for column in range(2):
                pair = float(change[place, column]), float(weights[place])
                lists.setdefault((row, column), []).append(pair)
    result = found.result()
    for (row, column), pairs in lists.items():
        cut = min(math.ceil(trim * len(pairs)), (len(pairs) - 1) // 2)
        kept = sorted(pairs)[cut : len(pairs) - cut]
        mean = sum(value * weight for value, weight in kept) / sum(weight for _, weight in kept)
        assert float(result[KEY][row, column]) == pytest.approx(0.7 * mean, abs=1e-6)
    assert torch.equal(result[ENCODER], STATE[ENCODER])


def test_no_bit_depends_on_the_order_of_the_sites(tmp_path) -> None:
    generator = torch.Generator().manual_seed(0)
    changes = {f"site-{number}": torch.randn(2, 2, generator=generator) for number in range(4)}
    # Equal values with different weights: which of them is cut must not depend on who came first.
    changes["site-1"] = changes["site-0"]
    weights = {"site-0": 0.1, "site-1": 7.3, "site-2": 1 / 3, "site-3": 2.0}
    results = []
    for number, order in enumerate(permutations(changes)):
        found = means(tmp_path / str(number), 0.2, -0.5)
        for site in order:
            found.add(site, ENCODER, changes[site], weights[site])
        results.append(found.result()[ENCODER])
    assert all(torch.equal(results[0], other) for other in results)


def test_an_update_that_opposes_the_median_update_is_left_out(tmp_path) -> None:
    """Four sites change all weights by about 1, one by -1, or by -9: its cosine is -1, and nothing of it counts."""
    for factor in (-1.0, -9.0):
        found = means(tmp_path / str(factor), 0.0, -0.2)
        for number in range(4):
            found.add(f"site-{number}", ENCODER, torch.full((2, 2), 1.0 + number), 1.0)
        found.add("site-4", ENCODER, torch.full((2, 2), factor), 1.0)
        assert found.result()[ENCODER].tolist() == [[2.5, 2.5]] * 2
        assert found.left_out == {"site-4": pytest.approx(-1)} and found.cosines["site-0"] == pytest.approx(1)


def test_direction_by_hand(tmp_path) -> None:
    """Medians over three sites of two weights: (1, 2); the third site's (-1, 0.5) has the cosine 0."""
    found = means(tmp_path, 0.0, -0.1)
    for site, row in {"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [-1.0, 0.5]}.items():
        found.add(site, ENCODER, torch.tensor([row, row]), 1.0)
    found.result()
    assert found.cosines["a"] == pytest.approx(1) and found.cosines["c"] == pytest.approx(0, abs=1e-9)
    assert found.cosines["b"] == pytest.approx((3 + 8) / (5 * math.sqrt(5))) and not found.left_out


def test_direction_says_nothing_of_two_sites(tmp_path) -> None:
    found = means(tmp_path, 0.5, 0.0)
    found.add("a", ENCODER, torch.ones(2, 2), 1.0)
    found.add("b", ENCODER, -torch.ones(2, 2), 1.0)
    assert torch.equal(found.result()[ENCODER], torch.zeros(2, 2)) and found.cosines == {}


def test_memory_holds_a_block_and_the_disk_is_cleared(tmp_path) -> None:
    store = TensorStore(tmp_path)
    RobustAggregation(STATE, list(STATE), 0.0, 0.5, -1.0, store).add("a", ENCODER, torch.ones(2, 2), 1.0)
    [file] = (tmp_path / "spool").iterdir()
    assert file.stat().st_size == 4 * 4
    RobustAggregation(STATE, list(STATE), 0.0, 0.5, -1.0, store)
    assert not list((tmp_path / "spool").iterdir())
    store.spool("a", torch.ones(3))
    store.clear()
    assert not list((tmp_path / "spool").iterdir())


def test_the_settings_decide(tmp_path) -> None:
    def of(**changes) -> object:
        settings = make_settings("paper", {"aggregation": changes})
        return aggregation(settings.aggregation, STATE, list(STATE), 0.0, TensorStore(tmp_path))

    assert isinstance(of(), Aggregation)
    assert isinstance(of(trim=0.1), RobustAggregation) and isinstance(of(direction=-0.2), RobustAggregation)
    for changes in ({"trim": 0.6}, {"trim": -0.1}, {"direction": 0.1}, {"direction": -1.1}):
        with pytest.raises(SettingsError, match="aggregation"):
            of(**changes)


@pytest.mark.parametrize("method", ["fedmsplit", "creamfl", "local"])
def test_methods_that_average_no_updates_refuse_the_setting(method) -> None:
    with pytest.raises(SettingsError, match=f"{method} does not"):
        make_settings("paper", {"method": method, "aggregation": {"trim": 0.2}})
