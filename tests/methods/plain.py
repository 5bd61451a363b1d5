"""What the tests of methods have in common: FedAvg's round by plain loops, and comparisons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fedmepd.config import Settings
from tests.federation.drive import make, play, same, server_state, site_state
from tests.federation.slow import Party
from tests.tiny import SITES, Tiny

State = dict[str, torch.Tensor]


def parties(tiny: Tiny, of: Settings) -> dict[str, Party]:
    """The fusion site and the sites."""
    return {name: Party(of, tiny.data(name, of)) for name in ("fusion", *SITES)}


def hand_out(whole: State, party: Party, beginning: str = "") -> State:
    """Loads a participant's part of the weights whose names begin so; returns it."""
    own = party.state()
    given = {key: value.clone() for key, value in whole.items() if key in own and key.startswith(beginning)}
    party.load(given)
    return given


def average(whole: State, everybody: dict[str, Party], weight: Callable[[Party], float], beginning: str = "") -> None:
    """Puts the weighted means over those who own a weight into ``whole``."""
    states = [(party.state(), weight(party)) for party in everybody.values()]
    for key in whole:
        total = sum(share for state, share in states if key in state)
        if key.startswith(beginning) and total:
            whole[key] = sum(share * state[key] for state, share in states if key in state) / total


def cases(party: Party) -> int:
    return len(party.data.train)


def near(found: State, expected: State, start: State) -> None:
    """Equal but for rounding: a hundredth of how far a weight has come from its start."""
    assert found.keys() == expected.keys()
    moved = 0.0
    for key, value in expected.items():
        difference, way = (found[key] - value).norm(), (value - start[key]).norm()
        assert difference <= 0.01 * way + 1e-7, (key, float(difference), float(way))
        moved += float(way)
    assert moved > 0


def assert_survives_a_kill(tiny: Tiny, of: Settings, folder: Path) -> None:
    """New objects for server, fusion site and sites after every round: the same state as without."""
    play(*make(tiny, of, folder / "one"), of.rounds)
    for number in range(1, of.rounds + 1):
        play(*make(tiny, of, folder / "many"), number)
    one, many = (everything(folder / name, of.rounds) for name in ("one", "many"))
    for owner in one:
        assert same(one[owner], many[owner]), owner


def everything(folder: Path, rounds: int) -> dict[str, Any]:
    """What server, fusion site and sites keep, but for times."""
    server = server_state(folder)
    kept = {f"server {key}": server[key] for key in ("state", "fusion", "anchors", "best", "bound")}
    return kept | {name: site_state(folder, name, rounds) for name in SITES}
