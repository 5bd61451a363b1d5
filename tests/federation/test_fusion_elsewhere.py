"""The fusion site at a hospital gives the same federation as in the server's process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedmepd import methods
from fedmepd.errors import FusionAway
from fedmepd.federation.exchange import FusionReply, SiteProfile
from fedmepd.federation.fusion_elsewhere import FusionElsewhere
from fedmepd.federation.in_process import run_in_process
from fedmepd.federation.server import FederationServer
from fedmepd.storage import load_tensors
from tests.federation.drive import by_method, same
from tests.tiny import SITES, never, settings


def run(tiny, folder, method, place, precision="float32", **changes) -> dict:
    of = settings(method, fusion={"site": place}, aggregation={"wire_precision": precision}, **changes)
    return run_in_process(of, tiny.machine, folder, list(SITES))


# Central training has no hospital and refuses one; what is for phantoms refuses the tiny cohort, and is tested apart.
METHODS = [name for name in methods.names() if name != "central" and not methods.find(name).phantoms_only]


@pytest.mark.parametrize("method", by_method(METHODS))
def test_same_bits_here_and_there(method, tiny_apart, tmp_path) -> None:
    here, there = (
        run(tiny_apart, tmp_path / name, method, place, rounds=2) for name, place in (("here", ""), ("there", "site-1"))
    )
    states = [load_tensors(tmp_path / place / "server/server_state.pt")["method"] for place in ("here", "there")]
    assert same(*states)
    for site in SITES:
        kept = [load_tensors(tmp_path / place / site / "state_00002.pt") for place in ("here", "there")]
        assert same(kept[0]["network"], kept[1]["network"])
    # In the last round the fusion site does not train with every method.
    folders = [tmp_path / place / "fusion" for place in ("here/server", "there/site-1")]
    fusion = [load_tensors(max(folder.glob("state_*.pt"))) for folder in folders]
    assert fusion[0]["round"] == fusion[1]["round"]
    for key in ("network", "optimizer", "method"):
        assert same(fusion[0][key], fusion[1][key])
    assert here["mean"] == there["mean"]
    for one, other in zip([here["server"], *here["sites"]], [there["server"], *there["sites"]], strict=True):
        work = [entry.pop("work") for entry in (one, other)]
        assert one == other and work[0]["steps"] == work[1]["steps"]
        # What travels to and from the fusion site counts there alone.
        up, down = (work[1][key] - work[0][key] for key in ("bytes_up", "bytes_down"))
        assert (up, down) == (
            (there["fusion"]["bytes_up"], there["fusion"]["bytes_down"]) if one["name"] == "server" else (0, 0)
        )
    assert not (tmp_path / "there/server/fusion").exists()


@pytest.mark.parametrize(("place", "line"), [("", "2 steps at the fusion site"), ("site-1", "the fusion site trains")])
def test_round_0_is_told(place, line, tiny_apart, tmp_path) -> None:
    lines: list[str] = []

    class Told(Exception):
        """The run ends there."""

    def log(text: str) -> None:
        lines.append(text)
        if text.startswith("round 0"):
            raise Told

    of = settings("fedmepd", fusion={"site": place}, rounds=1)
    with pytest.raises(Told):
        run_in_process(of, tiny_apart.machine, tmp_path, list(SITES), log)
    assert lines[-1] == f"round 0: {line} before the sites begin"


def test_a_hospital_that_comes_back_with_more_cases(tmp_path) -> None:
    """Its training on them was refused for the rest of the run, whatever it did."""
    of = settings("fedmepd", fusion={"site": "site-1"})
    counts = {"train": 2, "validation": 1, "test": 1}
    hospital = SiteProfile("site-1", (), dict.fromkeys(counts, 0), "folder", fusion=counts)
    fusion = FusionElsewhere(of, hospital, lambda task, abort: FusionReply(task.round, report={"cases": 3}))
    server = FederationServer(of, fusion, tmp_path / "server", tmp_path / "results")
    with pytest.raises(FusionAway, match="it had 2 training cases when it logged in; start it again"):
        fusion.validate({}, 1, never)
    server.register(replace(hospital, fusion=counts | {"train": 3}))
    assert fusion.validate({}, 1, never) is None
    assert server.profiles == {} and server.results()["server"]["cases"]["train"] == 3
    # Other sites' numbers are no business of the fusion site's.
    server.register(SiteProfile("site-2", ("T1",), dict.fromkeys(counts, 9), "folder"))
    assert fusion.profile.cases["train"] == 3


@pytest.mark.parametrize("told", [{"figures": {"validation_mdsc": 1e9}}, {"losses": {"total": -1e9}}])
def test_figures_that_the_method_does_not_have(told) -> None:
    of = settings("fedmepd", fusion={"site": "site-1"})
    hospital = SiteProfile("site-1", (), {}, "folder", fusion={"train": 2, "validation": 1, "test": 1})
    fusion = FusionElsewhere(of, hospital, lambda task, abort: FusionReply(task.round, report=told))
    with pytest.raises(FusionAway, match="report of site-1 refused: "):
        fusion.validate({}, 1, never)
