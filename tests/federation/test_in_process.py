from __future__ import annotations

import json
import shutil

import pytest

from fedmepd.cli import main
from fedmepd.federation.in_process import run_in_process
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import load_tensors
from fedmepd.training.checkpoints import load_model
from tests.federation import bits
from tests.federation.drive import assert_same_run, make, same, server_state, without_times
from tests.tiny import CASES, COUNTS, SITES, settings, write, write_case

RESULTS = ("mean", "server", "sites", "status", "round", "method", "seed", "rounds")


@pytest.mark.parametrize("method", ["fedmepd", pytest.param("fedavg", marks=pytest.mark.slow)])
def test_same_seed_same_bits(method, finished, tiny, tmp_path) -> None:
    first = finished(method)
    # The first of FedMEPD draws pictures.
    same_settings = bits.of(method, "float32", evaluation={"pictures": method == "fedmepd"})
    second = run_in_process(same_settings, first.machine, tmp_path / "second", list(SITES))
    assert_same_run(first.folder, tmp_path / "second", bits.ROUNDS)
    assert without_times(first.results) == without_times(second)
    starts = []
    for seed in (0, 1):
        make(tiny, bits.of(method, "float32", seed=seed), tmp_path / f"seed {seed}")
        starts.append(server_state(tmp_path / f"seed {seed}")["state"])
    assert not same(*starts)


@pytest.mark.parametrize("method", ["fedmepd", "local", "fedavg", "fusion_only"])
def test_results_of_every_method(method, finished) -> None:
    folder, results = finished(method).folder, finished(method).results
    assert finished(method).seen == [1, 2, 3]
    assert json.loads((folder / "results" / "results.json").read_text()) == results
    assert (results["method"], results["status"], results["round"]) == (method, "finished", 3)
    assert [(site["name"], site["cases"]) for site in results["sites"]] == [(name, COUNTS[name]) for name in SITES]
    for entry in (results["server"], *results["sites"]):
        assert entry["validation"]["round"] == 3
        assert entry["test"]["mdsc"] == pytest.approx(sum(entry["test"]["dice"].values()) / 3)
        # Beside every best model stands its card, with the scores of the final test.
        [best] = (folder / entry["name"]).glob("*_best.pt")
        text = best.with_name("model_card.md").read_text()
        assert f"model of {entry['name']}" in text and f"| {entry['test']['mdsc']:.3f} |" in text
        assert "case-" not in text and str(folder) not in text
    mean = sum(site["test"]["mdsc"] for site in results["sites"]) / 2
    assert results["mean"]["mdsc"] == pytest.approx(mean)
    shares = {site["personal_share"] is None for site in results["sites"]}
    assert shares == {method != "fedmepd"}


@pytest.mark.slow
def test_a_hospital_whose_manifest_marks_its_fusion_cases(tmp_path, monkeypatch) -> None:
    """A flat folder gives the bits of the same cases in two folders, one of them for fusion training."""
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    of = settings(rounds=2, fusion={"site": "hospital"})
    homes = {"flat": ("flat", "flat"), "apart": ("apart/hospital", "apart/fusion")}
    for own, fusion in homes.values():
        for number in range(6):
            write_case(tmp_path / own / f"own-{number}", ("FLAIR", "T1ce"), number)
            write_case(tmp_path / fusion / f"full-{number}", ("FLAIR", "T1ce", "T1", "T2"), 100 + number)
        for folder in {own, fusion}:
            which = ["--fusion", "all"] if own == fusion else []
            shares = ["--train", "0.5", "--validation", "0.2"]
            assert main(["data", "init", str(tmp_path / folder), *shares, *which]) == 0
    results = {}
    for name in homes:
        machine = SiteSettings(data=tmp_path / name, cache=tmp_path / f"cache-{name}", device="cpu")
        results[name] = run_in_process(of, machine, tmp_path / f"run-{name}", ["hospital"])
        # The card of the global model counts the cases for fusion training; the hospital's own its own.
        card = (tmp_path / f"run-{name}" / "server" / "model_card.md").read_text()
        assert "| 3 for training, 1 for validation, 2 for testing, for fusion training at hospital |" in card
        card = (tmp_path / f"run-{name}" / "hospital" / "model_card.md").read_text()
        assert "| 3 for training, 1 for validation, 2 for testing |" in card
    states = [load_tensors(tmp_path / f"run-{name}" / "server" / "server_state.pt") for name in homes]
    assert same(states[0]["method"], states[1]["method"])
    for place in ("hospital", "hospital/fusion"):
        kept = [load_tensors(tmp_path / f"run-{name}" / place / "state_00002.pt") for name in homes]
        assert same(kept[0]["network"], kept[1]["network"]) and same(kept[0]["optimizer"], kept[1]["optimizer"])
    flat, apart = (without_times(results[name]) for name in ("flat", "apart"))
    assert {key: flat[key] for key in RESULTS} == {key: apart[key] for key in RESULTS}


def test_a_hospital_that_is_the_fusion_site_alone(tiny_apart, tmp_path) -> None:
    """It has no model of its own, and no row among the sites."""
    data = tmp_path / "data"
    for site in ("fusion", "site-1"):
        shutil.copytree(tiny_apart.machine.data / site, data / site)
    machine = SiteSettings(data=data, cache=tmp_path / "cache", device="cpu")
    results = run_in_process(settings(rounds=1, fusion={"site": "full"}), machine, tmp_path / "run", ["full", "site-1"])
    assert [site["name"] for site in results["sites"]] == ["site-1"] and results["server"]["cases"] == COUNTS["fusion"]
    assert results["status"] == "finished" and (tmp_path / "run/full/fusion/state_00001.pt").is_file()


class Stopped(Exception):
    """The run is stopped between two rounds."""


@pytest.mark.parametrize("change", ["gains", "loses"])
def test_a_site_whose_modalities_change_between_two_runs(change, tmp_path) -> None:
    """Site 1 gets T2 in four of its six cases (or loses FLAIR): the run goes on, and what the site had stays."""
    data = write(tmp_path / "data")
    machine = SiteSettings(data=data, cache=tmp_path / "cache", device="cpu")
    of = settings(run_name="trial")

    def stop(round_number: int, figures: dict) -> None:
        if round_number == 2:
            raise Stopped

    with pytest.raises(Stopped):
        run_in_process(of, machine, tmp_path / "run", list(SITES), watch=stop)
    before = load_tensors(tmp_path / "run" / "site-1" / "state_00002.pt")
    for number in range(CASES["site-1"]):
        if change == "loses":
            (data / "site-1" / f"case-{number}" / "x_flair.nii.gz").unlink()
        elif number < 4:
            other = data / "fusion" / f"case-{number}" / "x_t2.nii.gz"
            shutil.copy(other, data / "site-1" / f"case-{number}" / other.name)

    lines: list[str] = []
    results = run_in_process(of, machine, tmp_path / "run", list(SITES), log=lines.append)
    now = ("FLAIR", "T1ce", "T2") if change == "gains" else ("T1ce",)
    assert f"site-1: now has {' '.join(now)}, not FLAIR T1ce" in lines
    assert results["status"] == "finished" and results["sites"][0]["modalities"] == list(now)
    assert results["sites"][0]["test"]["mdsc"] is not None
    assert load_model(tmp_path / "run" / "site-1" / "model_best.pt").modalities == now

    # The optimizer went on where it was with the same weights, and is new for the new encoder's.
    after = load_tensors(tmp_path / "run" / "site-1" / "state_00003.pt")
    steps = {
        place: {
            state["parameters"][index]: float(values["step"]) for index, values in state["optimizer"]["state"].items()
        }
        for place, state in (("before", before), ("after", after))
    }
    per_round = steps["before"]["decoder.classify.weight"] / 2
    assert steps["after"]["decoder.classify.weight"] > steps["before"]["decoder.classify.weight"]
    assert any(name.startswith("encoders.T2") for name in steps["after"]) == (change == "gains")
    new = [step for name, step in steps["after"].items() if name.startswith("encoders.T2")]
    assert all(step <= per_round + 1 for step in new)
    assert not any(name.startswith("encoders.FLAIR") for name in steps["after"]) or change == "gains"
