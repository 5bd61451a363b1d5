"""The fusion site at a hospital gives the same federation as in the server's process."""

from __future__ import annotations

import pytest

from fedmepd import methods
from fedmepd.federation.in_process import run_in_process
from fedmepd.storage import load_tensors
from tests.federation import bits
from tests.federation.drive import same
from tests.tiny import SITES


@pytest.mark.parametrize("method", methods.names())
def test_same_bits_here_and_there(method, finished, tmp_path) -> None:
    at_server, of = finished(method), bits.of(method, "float32", fusion={"site": "site-1"})
    there, here = run_in_process(of, at_server.machine, tmp_path, list(SITES)), at_server.results
    folders = {"here": at_server.folder, "there": tmp_path}
    states = [load_tensors(folder / "server/server_state.pt")["method"] for folder in folders.values()]
    assert same(*states)
    for site in SITES:
        kept = [load_tensors(folder / site / "state_00003.pt") for folder in folders.values()]
        assert same(kept[0]["network"], kept[1]["network"])
    owners = {"here": "server", "there": "site-1"}
    fusion = [load_tensors(folders[place] / owner / "fusion/state_00003.pt") for place, owner in owners.items()]
    for key in ("network", "optimizer", "method"):
        assert same(fusion[0][key], fusion[1][key])
    for key in ("mean", "server", "sites"):
        assert here[key] == there[key]
    assert not (tmp_path / "server/fusion").exists()
