"""A fusion site that is not there for a round, or for the final test."""

from __future__ import annotations

import pytest

from fedmepd import methods
from fedmepd.errors import FusionAway
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.federation.server import FederationServer
from fedmepd.federation.timing import Timing
from fedmepd.methods.fedavg import FedAvgAtServer
from fedmepd.methods.local import LocalAtServer
from fedmepd.storage import load_tensors
from tests.federation.drive import CPU, Clock, by_method, make_site, play, same
from tests.tiny import SITES, never, settings

REASON = "site-1, the fusion site, gave no answer in time"


class Away:
    """A fusion site that is away when it is asked for some things, after half an hour of waiting.

    Args:
        fusion: the site.
        clock: of the server.
        when: kind and round of what is asked.
    """

    def __init__(self, fusion: FusionSite, clock: Clock, when: set[tuple[str, int]]):
        self._fusion, self._clock, self._when = fusion, clock, when
        self.profile, self.device = fusion.profile, fusion.device
        self.images, self.phantoms = fusion.images, fusion.phantoms
        self.steps, self.spent, self.join = fusion.steps, fusion.spent, fusion.join

    def _do(self, kind: str, weights, round_number: int, *more):
        if (kind, round_number) in self._when:
            self._clock.wait(1800)
            raise FusionAway("/data/patient-7 cannot be read", REASON)
        return getattr(self._fusion, kind)(weights, round_number, *more)

    def fuse(self, *arguments):
        return self._do("fuse", *arguments)

    def validate(self, *arguments):
        return self._do("validate", *arguments)

    def test(self, *arguments):
        return self._do("test", *arguments)


def federation(tiny, folder, method, *when, log=lambda line: None, **changes):
    of, clock = settings(method, evaluation={"every": 1}, **changes), Clock()
    fusion = FusionSite(
        of, tiny.data("fusion", of), folder / "server/fusion", CPU, open_site=lambda name: tiny.data(name, of)
    )
    away = Away(fusion, clock, set(when))
    server = FederationServer(of, away, folder / "server", folder / "results", log, Timing(clock))
    sites = {name: make_site(tiny, of, folder, name) for name in SITES}
    for site in sites.values():
        server.register(site.profile())
    server.start(never)
    return server, sites


def kept(folder) -> dict:
    return load_tensors(folder / "server/server_state.pt")["method"]


# CreamFL is for phantoms alone.
METHODS = [name for name in methods.names() if not methods.find(name).phantoms_only]
# Their global model is the fusion site's own.
OWN = ("fedmsplit",)
# FedAvg, what is made of it, and these begin with the sites.
BEGIN_WITH_SITES = ("fedamm", "fediot", "fedmsplit")


@pytest.mark.parametrize("method", by_method(METHODS))
def test_round_without(method, tiny, tmp_path) -> None:
    """The sites' part of the round counts; anchors and patience stay until the next round."""
    # So many that no method is in its last ones, in which the fusion site may not train.
    server, sites = federation(tiny, tmp_path, method, ("fuse", 2), ("validate", 2), rounds=40)
    at_server = methods.find(method).at_server
    play(server, sites, 1)
    before = kept(tmp_path)
    play(server, sites, 2)
    without = kept(tmp_path)
    assert without.keys() == before.keys()
    assert all(same(before[key], without[key]) for key in before.keys() & {"anchors", "filters"})
    # Where the sites send something, their mean is the new model.
    assert same(before["weights"], without["weights"]) == (issubclass(at_server, LocalAtServer) or method in OWN)
    results = server.results()
    assert results["server"]["rounds_missed"] == [{"round": 2, "reason": REASON}]
    assert results["server"]["validation"]["round"] == 1 and server.last_round["fused"] is False
    assert "patient-7" not in (tmp_path / "results/results.json").read_text()
    seconds = server.timing.rounds[-1].phases
    assert (seconds["fusion_training"], seconds["fusion_evaluation"], seconds["aggregation"]) == (1800, 1800, 0)
    play(server, sites, 3)
    assert not same(without["weights"], kept(tmp_path)["weights"]) and server.last_round["fused"] is True
    rounds = [entry["round"] for entry in server.histories()["server"]["rounds"]]
    begins_with_sites = issubclass(at_server, FedAvgAtServer) or method in BEGIN_WITH_SITES
    assert rounds == ([1, 3] if begins_with_sites else [0, 1, 3])
    assert server.results()["server"]["validation"]["round"] == 3
    if method == "fedmepd":
        assert not same(before["anchors"], kept(tmp_path)["anchors"])


def test_merged_weights_are_the_rounds_result(tiny, tmp_path) -> None:
    """What fusion training would have started from."""
    seen = []

    class Watched(FusionSite):
        def fuse(self, weights, *arguments):
            seen.append(weights)
            return super().fuse(weights, *arguments)

    server, sites = federation(tiny, tmp_path / "a", "fedmepd", ("fuse", 1), ("validate", 1))
    play(server, sites, 1)
    of = settings("fedmepd", evaluation={"every": 1})
    fusion = Watched(of, tiny.data("fusion", of), tmp_path / "b/server/fusion", CPU)
    whole = FederationServer(of, fusion, tmp_path / "b/server", tmp_path / "b/results")
    others = {name: make_site(tiny, of, tmp_path / "b", name) for name in SITES}
    for site in others.values():
        whole.register(site.profile())
    whole.start(never)
    play(whole, others, 1)
    assert same(kept(tmp_path / "a")["weights"], dict(seen[1]))
    assert not same(kept(tmp_path / "a")["weights"], kept(tmp_path / "b")["weights"])


def test_final_test_without(tiny, tmp_path) -> None:
    lines: list[str] = []
    server, sites = federation(tiny, tmp_path, "fedmepd", ("test", 1), log=lines.append, rounds=1)
    play(server, sites, 1)
    for name, site in sites.items():
        server.accept_test(name, site.test(server.test_payload(name), never))
    results = server.finish(never)
    assert results["status"] == "finished"
    assert results["server"]["test"] is None and results["server"]["untested"] == REASON
    assert all(site["test"] for site in results["sites"])
    table = (tmp_path / "results/results.md").read_text()
    assert f"not tested, and not in the mean: fusion site ({REASON})" in table and "patient-7" not in table
    assert any("the global model is not tested" in line for line in lines)


def test_nothing_begins_without(tiny, tmp_path) -> None:
    with pytest.raises(FusionAway, match="cannot be read"):
        federation(tiny, tmp_path, "fedmepd", ("fuse", 0))
    assert not (tmp_path / "server/server_state.pt").exists()
