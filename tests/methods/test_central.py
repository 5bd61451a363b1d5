"""Training on everybody's cases in one place."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial

import pytest

from fedmepd.data.site import open_copy
from fedmepd.errors import DataError, FedMEPDError, SettingsError
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.federation.in_process import run_in_process
from fedmepd.federation.server import FederationServer
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import load_tensors
from tests.federation.drive import CPU, make_site
from tests.federation.slow import Party
from tests.methods.plain import near
from tests.tiny import SITES, Tiny, settings


def run(tiny: Tiny, folder, names=tuple(SITES), **changes) -> dict:
    return run_in_process(settings("central", **{"rounds": 2} | changes), tiny.machine, folder, list(names))


def weights(folder) -> dict:
    return load_tensors(folder / "server/server_state.pt")["method"]["weights"]


def test_all_cases_are_pooled(tiny, tmp_path) -> None:
    """One participant that owns all cases: the fusion site's first, then site by site, each with its own images."""
    of = settings("central", rounds=2)
    fusion, sites = tiny.data("fusion", of), [tiny.data(name, of) for name in SITES]
    pool = [*fusion.train, *sites[0].train, *sites[1].train]
    assert {case.modalities for case in pool} == {fusion.modalities, *SITES.values()}
    party = Party(of, replace(fusion, train=pool))
    start = party.state()
    for number in (0, 1, 2):
        party.train(number)
    # The order in which the sites come does not count.
    results = run(tiny, tmp_path, ("site-2", "site-1"))
    expected = {key: value for key, value in party.state().items() if not key.startswith("auxiliary.")}
    near(weights(tmp_path), expected, start)
    assert results["status"] == "finished" and all(site["test"]["mdsc"] > 0 for site in results["sites"])


@pytest.mark.slow
def test_it_goes_on_after_a_kill(tiny, tmp_path) -> None:
    """A run of two rounds that is stopped after the first and opened anew."""

    class Stopped(Exception):
        pass

    def stop(number, figures) -> None:
        if number == 1:
            raise Stopped

    of = settings("central", rounds=2)
    with pytest.raises(Stopped):
        run_in_process(of, tiny.machine, tmp_path / "killed", list(SITES), watch=stop)
    for name in ("killed", "whole"):
        run_in_process(of, tiny.machine, tmp_path / name, list(SITES))
    one, other = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert all((one[key] == other[key]).all() for key in one)


def test_a_hospital_cannot_pool_the_cases() -> None:
    with pytest.raises(SettingsError, match="fusion: site = 'site-1': method central pools all cases at the server"):
        make_settings("phantom", {"method": "central", "fusion": {"site": "site-1"}})


def test_a_site_whose_cases_the_server_has_not(tiny, tmp_path) -> None:
    """Its folder is missing at the server, or holds other cases than the site says."""
    of = settings("central", rounds=1)
    folder = tmp_path / "data"
    shutil.copytree(tiny.machine.data, folder)
    machine = SiteSettings(data=folder, cache=tmp_path / "cache", device="cpu")

    profile = make_site(tiny, of, tmp_path, "site-1").profile()
    open_site = partial(open_copy, settings=of, site_settings=machine)
    fusion = FusionSite(of, tiny.data("fusion", of), tmp_path / "fusion", CPU, print, open_site)
    server = FederationServer(of, fusion, tmp_path / "server", tmp_path / "results")
    shutil.rmtree(folder / "site-1/case-5")
    with pytest.raises(FedMEPDError, match="site-1 has other cases than the server's data folder has of it"):
        server.register(profile)
    shutil.rmtree(folder / "site-1")
    with pytest.raises(DataError, match="has no sub-folder site-1: expected one with the cases of this site") as error:
        server.register(profile)
    assert (
        error.value.public
        == "the server's data folder has no sub-folder site-1: expected one with the cases of this site"
    )
    assert server.profiles == {}
