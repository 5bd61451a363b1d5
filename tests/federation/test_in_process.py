from __future__ import annotations

import json

import pytest

from fedmepd.config import Settings
from fedmepd.federation.in_process import run_in_process
from tests.federation.drive import assert_same_run, same, server_state
from tests.tiny import COUNTS, SITES, settings

RESULTS = ("mean", "server", "sites", "status", "round", "method", "seed", "rounds")


def run(tiny, of: Settings, folder, **options) -> dict:
    return run_in_process(of, tiny.machine, folder, list(SITES), **options)


@pytest.mark.parametrize("method", ["fedmepd", "fedavg"])
def test_same_seed_same_bits(method, tiny, tmp_path) -> None:
    of = settings(method=method, rounds=2)
    first, second = (run(tiny, of, tmp_path / name) for name in ("first", "second"))
    assert_same_run(tmp_path / "first", tmp_path / "second", 2)
    assert {key: first[key] for key in RESULTS} == {key: second[key] for key in RESULTS}
    run(tiny, settings(method=method, rounds=2, seed=1), tmp_path / "other")
    states = [server_state(tmp_path / name)["state"] for name in ("first", "other")]
    assert not same(*states)


@pytest.mark.parametrize("method", ["fedmepd", "local", "fedavg", "fusion_only"])
def test_results_of_every_method(method, tiny, tmp_path) -> None:
    seen: list[int] = []
    results = run(tiny, settings(method=method, rounds=2), tmp_path, watch=lambda number, figures: seen.append(number))
    assert seen == [1, 2]
    assert json.loads((tmp_path / "results" / "results.json").read_text()) == results
    assert (results["method"], results["status"], results["round"]) == (method, "finished", 2)
    assert [(site["name"], site["cases"]) for site in results["sites"]] == [(name, COUNTS[name]) for name in SITES]
    for entry in (results["server"], *results["sites"]):
        assert entry["validation"]["round"] == 2
        assert entry["test"]["mdsc"] == pytest.approx(sum(entry["test"]["dice"].values()) / 3)
    mean = sum(site["test"]["mdsc"] for site in results["sites"]) / 2
    assert results["mean"]["mdsc"] == pytest.approx(mean)
    shares = {site["personal_share"] is None for site in results["sites"]}
    assert shares == {method != "fedmepd"}
