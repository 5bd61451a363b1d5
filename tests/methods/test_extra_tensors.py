"""Tensors that are no changes of weights: sent, checked, bounded, and kept."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

from fedmepd import methods
from fedmepd.errors import UpdateRefused
from fedmepd.federation.exchange import Update
from fedmepd.federation.in_process import run_in_process
from fedmepd.storage import load_tensors
from tests.federation.drive import make, play, same, server_state, site_state
from tests.tiny import COUNTS, SITES, never, settings

NAME = "extra.told"


@pytest.fixture(autouse=True)
def telling(tmp_path, monkeypatch):
    """Makes the method of telling.py one of the methods."""
    (tmp_path / "added").mkdir()
    shutil.copy(Path(__file__).with_name("telling.py"), tmp_path / "added/telling.py")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "added")])
    yield
    sys.modules.pop("fedmepd.methods.telling", None)


def answers(server, sites) -> dict[str, Update]:
    """Opens a round, and has every site train."""
    server.begin_round()
    return {name: site.train(server.payload(name), never) for name, site in sites.items()}


def test_they_reach_the_server_and_come_back(tiny, tmp_path) -> None:
    """Three and two cases: the mean is 2.5, the fusion site adds 1, and the sites hear of it in the next round."""
    assert [COUNTS[name]["train"] for name in SITES] == [3, 2]
    server, sites = make(tiny, settings("telling"), tmp_path)
    figures = [play(server, sites, number) for number in (1, 2)]
    assert figures[0]["server/told"] == figures[1]["server/told"] == 2.5
    assert [found["site-1/heard"] for found in figures] == [0, 2.5]
    assert [found["server/heard"] for found in figures] == [2.5, 2.5]
    history = server.histories()["site-1"]["rounds"]
    assert [entry["heard"] for entry in history] == [0, 2.5]
    kept = server_state(tmp_path)
    assert torch.equal(kept["fusion"]["method"]["heard"], torch.full((2, 3), 2.5))
    state = load_tensors(tmp_path / "server/server_state.pt")["method"]
    assert torch.equal(state["of_fusion"], torch.full((2, 3), 3.5))


def test_frozen_parts_and_their_averages_stay(tiny, tmp_path) -> None:
    server, sites = make(tiny, settings("telling", training={"weight_decay": 0.1}), tmp_path)
    server.begin_round()
    before: dict = {}

    def look() -> bool:
        before.update(before or {key: value.clone() for key, value in sites["site-1"]._network.state_dict().items()})
        return False

    sites["site-1"].train(server.payload("site-1"), look)
    kept = site_state(tmp_path, "site-1", 1)
    for key, value in kept["network"].items():
        assert torch.equal(value, before[key]) == key.startswith("encoders."), key
    stepped = {kept["parameters"][index] for index in kept["optimizer"]["state"]}
    assert stepped == {name for name in kept["parameters"] if not name.startswith("encoders.")}


def test_state_survives_a_kill(tiny, tmp_path) -> None:
    of = settings("telling", rounds=2)
    play(*make(tiny, of, tmp_path / "one"), 2)
    for number in (1, 2):
        play(*make(tiny, of, tmp_path / "many"), number)
    states = [load_tensors(tmp_path / name / "server/server_state.pt") for name in ("one", "many")]
    assert same(states[0]["method"], states[1]["method"])
    # Of 3 and 2 cases, and the fusion site's 3.5 of round 1.
    assert states[0]["extras_bound"]["median"] == states[1]["extras_bound"]["median"] == 3
    assert all(same(site_state(tmp_path / "one", name, 2), site_state(tmp_path / "many", name, 2)) for name in SITES)


@pytest.mark.parametrize("precision", ["float32", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_hospital_as_fusion_site(precision, tiny_apart, tmp_path) -> None:
    for place in ("", "site-1"):
        of = settings("telling", rounds=1, fusion={"site": place}, aggregation={"wire_precision": precision})
        run_in_process(of, tiny_apart.machine, tmp_path / f"at-{place}", list(SITES))
    states = [load_tensors(tmp_path / f"at-{place}/server/server_state.pt")["method"] for place in ("", "site-1")]
    assert torch.equal(states[0]["of_fusion"], states[1]["of_fusion"])
    assert float(states[0]["of_fusion"][0, 0]) == 3.5


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({}, "extra.told is missing"),
        ({NAME: torch.zeros(2, 3), "extra.more": torch.zeros(1)}, "extra.more is nothing that it was to send"),
        ({NAME: torch.zeros(3, 2)}, r"extra.told has shape \(3, 2\), expected \(2, 3\)"),
        ({NAME: torch.full((2, 3), float("nan"))}, "extra.told has 6 of 6 values that are NaN or infinite"),
        ({NAME: torch.full((2, 3), 1025.0)}, "extra.told has values up to 1.02e.03: expected at most 1024"),
        ({NAME: torch.zeros(2, 3), "decoder.a": torch.zeros(1)}, "decoder.a is no weight that was sent to it"),
    ],
)
def test_others_are_refused(tensors, reason, tiny, tmp_path) -> None:
    server, sites = make(tiny, settings("telling"), tmp_path, ["site-1"])
    server.begin_round()
    server.payload("site-1")
    with pytest.raises(UpdateRefused, match=f"update of site-1 .*refused: {reason}"):
        server.accept("site-1", Update(1, tensors, {}))
    assert server.delivered() == 0


def test_a_fusion_site_that_sends_others(tiny, tmp_path) -> None:
    """The round goes on without it."""
    server, sites = make(tiny, settings("telling"), tmp_path)
    server._fusion._method.leave = lambda round_number: {NAME: torch.zeros(1)}
    play(server, sites, 1)
    assert server.last_round["fused"] is False
    reason = server.results()["server"]["rounds_missed"][0]["reason"]
    assert reason == "update of fusion refused: extra.told has shape (1,), expected (2, 3)"


@pytest.mark.parametrize("first", [True, False])
def test_large_ones_are_scaled_down(first, tiny, tmp_path) -> None:
    """To the median's size: of 3, 200 and the fusion site's 1 of round 0; in the first round, once all are there."""
    lines: list[str] = []
    server, sites = make(tiny, settings("telling"), tmp_path)
    server.log = lines.append
    if not first:
        play(server, sites, 1)
    updates = answers(server, sites)
    updates["site-2"].tensors[NAME] = torch.full((2, 3), 200.0)
    for name, update in updates.items():
        server.accept(name, update)
    figures = server.finish_round(never)
    # The median of the round before, of 3, 2 and 1, is 2.
    expected = (3 + 3) / 2 if first else (3 + 2) / 2
    assert figures["server/told"] == pytest.approx(expected, abs=1e-6)
    [line] = [line for line in lines if "scaled down" in line]
    times = "66.7" if first else "100"
    assert (
        f"the extra part of the update of site-2 is scaled down to the median site's size: it was {times} times" in line
    )
