"""A dishonest site at the server, without FLARE: what it sends, and what becomes of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from fedmepd.errors import FusionAway, UpdateRefused
from fedmepd.federation.exchange import SiteProfile, Update
from fedmepd.federation.server import FederationServer
from tests.federation.drive import make_server, server_state
from tests.tiny import COUNTS, Tiny, never, settings

SITES = ("site-1", "site-2", "site-3", "site-4")


def started(tiny: Tiny, folder: Path, log: list[str], method: str = "fedmepd", **means: float) -> FederationServer:
    of = settings(method, aggregation=means)
    server = make_server(tiny, of, folder, log=log.append)
    for name in SITES:
        server.register(SiteProfile(name, ("T1ce",), COUNTS["site-1"], "folder"))
    server.start(never)
    server.begin_round()
    return server


def update(server: FederationServer, site: str, value: float) -> Update:
    """Every weight that the site was sent changes by the value."""
    payload = server.payload(site)
    sent = {key: tensor for key, tensor in payload.tensors.items() if key.startswith(("encoders.", "decoder."))}
    report = {"cases": 3, "losses": {}, "figures": {}, "steps": 1, "validation": None}
    report |= {"train_seconds": 1.0, "validation_seconds": 0.0, "seconds": 1.0}
    return Update(1, {key: torch.full_like(tensor, value) for key, tensor in sent.items()}, report)


def test_an_update_without_tensors_is_a_site_that_gives_nothing(tiny: Tiny, tmp_path) -> None:
    """FedMEMA exchanges encoders alone, and a site may withhold all that it has."""
    log: list[str] = []
    server = started(tiny, tmp_path, log, "fedmema")
    for site in SITES:
        given = update(server, site, 0.001)
        server.accept(site, Update(1, {}, given.report) if site == "site-4" else given)
    server.finish_round(never)
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert all(site["rounds_taken"] == [1] and site["limited"] == [] for site in results["sites"])


@pytest.mark.parametrize("method", ["fedavg", "fedbn", "fedmsplit"])
@pytest.mark.parametrize("away", [False, True])
def test_a_huge_update_of_one_of_two_sites_in_the_first_round(method: str, away: bool, tiny: Tiny, tmp_path) -> None:
    """Without a round 0, the fusion site has not trained before. The measure was the huge update itself."""
    of = settings(method)
    log: list[str] = []
    server = make_server(tiny, of, tmp_path, log=log.append)
    for name in SITES[:2]:
        server.register(SiteProfile(name, ("T1ce",), COUNTS["site-1"], "folder"))
    server.start(never)
    server.begin_round()
    before = dict(server._method.weights)
    for site, value in (("site-1", 0.001), ("site-2", 10.0)):
        server.accept(site, whole_update(server, site, value))
    if away:
        server._fusion.fuse = gone
    server.finish_round(never)
    limited = server_state(tmp_path)["records"]["site-2"]["limited"]
    if away:
        # Nobody can tell which one of two is wrong. Both are taken, and nothing waits any more.
        assert limited == [] and not list((tmp_path / "server" / "waiting").glob("*.npy"))
        return
    [entry] = limited
    # The middle one of 0.001, 10 and what the fusion site has changed: Adam moves a weight by 0.001 a step, at most.
    assert entry["round"] == 1 and 0.001 <= 10 / entry["times_median"] < 0.01
    assert sum("site-2 is scaled down to the median site's size" in line for line in log) == 1
    after = server._method.weights
    assert all(float((after[key] - value).abs().max()) < 0.1 for key, value in before.items())


def gone(*arguments: object) -> NoReturn:
    raise FusionAway("no answer", "no answer")


def whole_update(server: FederationServer, site: str, value: float) -> Update:
    """Every weight that the method expects of the site changes by the value."""
    tensors = {key: torch.full(shape, value) for key, shape in server._method.expect(site).items()}
    return Update(1, tensors, update(server, site, value).report)


def test_an_update_against_all_others_is_left_out_and_told(tiny: Tiny, tmp_path) -> None:
    """As if the site had not answered, to the last bit."""
    states = {}
    for name, sites in {"with": SITES, "without": SITES[:3]}.items():
        log: list[str] = []
        server = started(tiny, tmp_path / name, log, direction=-0.2, trim=0.2)
        for place, site in enumerate(sites):
            server.accept(site, update(server, site, -0.009 if site == "site-4" else 0.001 * (1 + place)))
        figures = server.finish_round(never)
        states[name] = server_state(tmp_path / name)["state"]
        told = [line for line in log if "site-4: its update is left out, its cosine" in line]
        assert len(told) == (name == "with") and figures["site-1/direction"] > 0.99
    assert all(torch.equal(states["with"][key], value) for key, value in states["without"].items())


@pytest.mark.parametrize("forged", [{"validation_mdsc": 1e9}, {"total": 7.0}, {"seconds": -5.0}, {"f000001": 0.5}])
def test_a_figure_of_the_sites_own_is_no_figure_of_the_federation(forged, tiny: Tiny, tmp_path) -> None:
    """It was the federation's mean score in the curves, hid another figure, or filled the history."""
    log: list[str] = []
    server = started(tiny, tmp_path, log, "fedmema")
    for site in SITES:
        given = update(server, site, 0.001)
        given.report["losses"] = {"total": 5.0}
        if site != "site-4":
            server.accept(site, given)
            continue
        given.report["figures"] = forged
        with pytest.raises(UpdateRefused, match="report of site-4 refused: FedMEMA has no figures"):
            server.accept(site, given)
    figures = server.finish_round(never)
    assert {name for name in figures if name.startswith(("site-4/", "mean of the sites/"))} == {
        f"mean of the sites/{name}" for name in ("loss_total", "seconds", "bytes_up", "bytes_down")
    }
    assert figures["mean of the sites/loss_total"] == 5.0 and figures["mean of the sites/seconds"] == 1.0
    assert server.histories()["site-4"]["rounds"] == []
