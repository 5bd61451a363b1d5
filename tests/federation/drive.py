"""Server and sites of the tiny federation, driven by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from fedmepd.config import Settings
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.federation.server import FederationServer
from fedmepd.federation.site import FederationSite
from fedmepd.storage import load_tensors
from tests.tiny import SITES, Tiny, never

CPU = torch.device("cpu")


class Clock:
    """Stands still until somebody waits."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    def wait(self, seconds: float) -> None:
        self.time += seconds

    def slowly(self, seconds: float, work: Callable) -> Callable:
        """The same work, for which somebody waits first."""

        def slow(*arguments, **keywords):
            self.wait(seconds)
            return work(*arguments, **keywords)

        return slow


def make_server(tiny: Tiny, of: Settings, folder: Path, *, data=None, log=lambda line: None, timing=None):
    """A server with the fusion site in its process."""
    data = data or tiny.data("fusion", of)
    fusion = FusionSite(of, data, folder / "server" / "fusion", CPU, log, lambda name: tiny.data(name, of))
    return FederationServer(of, fusion, folder / "server", folder / "results", log, timing)


def make_site(tiny: Tiny, of: Settings, folder: Path, name: str) -> FederationSite:
    return FederationSite(name, of, tiny.data(name, of), folder / name, CPU)


# One that sends weights and anchors, and one that sends more: the others are tested with the slow tests.
_QUICK = ("fedmepd", "fedamm")


def by_method(names: Iterable[str]) -> list:
    """Methods as a test's parameters, those that add little to the others marked as slow."""
    return [pytest.param(name, marks=() if name in _QUICK else pytest.mark.slow) for name in names]


def make(
    tiny: Tiny, of: Settings, folder: Path, names: Iterable[str] = SITES
) -> tuple[FederationServer, dict[str, FederationSite]]:
    """A server that has finished what its folder holds, or round 0, with its sites registered."""
    server = make_server(tiny, of, folder)
    server.restore()
    sites = {name: make_site(tiny, of, folder, name) for name in names}
    for site in sites.values():
        server.register(site.profile())
    server.start(never)
    return server, sites


def play(server: FederationServer, sites: dict[str, FederationSite], until: int, backwards: bool = False) -> dict:
    """Plays rounds up to ``until``; returns the last one's figures."""
    figures = {}
    while server.round < until:
        server.begin_round()
        for name in reversed(sites) if backwards else sites:
            server.accept(name, sites[name].train(server.payload(name), never))
        figures = server.finish_round(never)
    return figures


def server_state(folder: Path) -> dict:
    """What server and fusion site keep: the method's state, patience and weights H by site among it, beside the rest.

    ``state`` holds the weights of the whole network; of those that do not travel, the fusion site's.
    """
    content = load_tensors(folder / "server" / "server_state.pt")
    method = content.pop("method")
    content |= {"anchors": method["anchors"], "personalization": {}}
    if "filters" in method:
        kept = method["filters"]
        content["personalization"] = {
            site: {
                kind: {layer: rows[place] for layer, rows in layers.items()} for kind, layers in kept["state"].items()
            }
            for place, site in enumerate(kept["sites"])
        }
    fusion = fusion_state(folder)
    # Versions are random.
    content["fusion"] = {key: value for key, value in fusion.items() if key not in ("network", "version")}
    content["state"] = {**fusion.get("network", {}), **method["weights"]}
    return content


def fusion_state(folder: Path) -> dict:
    """What the fusion site keeps of its last round; empty before the first."""
    found = sorted((folder / "server" / "fusion").glob("state_*.pt"))
    return load_tensors(found[-1]) if found else {}


def site_state(folder: Path, name: str, round_number: int) -> dict:
    return load_tensors(folder / name / f"state_{round_number:05d}.pt")


def same(first: object, second: object) -> bool:
    """Whether two states are the same to the last bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and first.keys() == second.keys()
            and all(same(value, second[key]) for key, value in first.items())
        )
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return first == second


def _without_times(state: dict) -> dict:
    for record in state["records"].values():
        for entry in record["history"]["rounds"]:
            entry.pop("seconds", None)
        record.pop("peak_mib", None)
    return state | {"timing": None}


def assert_same_run(first: Path, second: Path, rounds: int, names: Iterable[str] = SITES) -> None:
    """Weights, optimizers, anchors, patience: everything but the time that it took."""
    states = [_without_times(server_state(folder)) for folder in (first, second)]
    for key in states[0]:
        assert same(states[0][key], states[1][key]), f"server: {key}"
    for name in names:
        kept = [site_state(folder, name, rounds) for folder in (first, second)]
        for key in kept[0]:
            assert same(kept[0][key], kept[1][key]), f"{name}: {key}"


def without_times(results: dict) -> dict:
    """Results without what differs from run to run: times and memory, and bytes, which count only on a wire."""
    left = {
        key: value for key, value in results.items() if key not in ("date", "seconds", "timing", "hardware", "fusion")
    }
    left["server"] = _work_alone(results["server"])
    left["sites"] = [_work_alone(entry) for entry in results["sites"]]
    return left


def _work_alone(entry: dict) -> dict:
    return entry | {"work": {key: entry["work"][key] for key in ("steps", "passes", "networks")}}
