"""What breaks with the fusion site at a hospital, in a federation of real processes; the server has no data folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fedmepd.federation.in_process import run_in_process
from fedmepd.flare.watching import COMPLETED
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import load_tensors
from tests.federation.drive import same
from tests.system.eight import SETTINGS, Eight, expand, fill, merged, rounds_of, wait_for, write_cohort

pytestmark = [pytest.mark.system, pytest.mark.slow]
SITES = ("site-1", "site-2", "site-3")
HOSPITAL = "site-3"
AT_HOSPITAL = merged(SETTINGS, fusion={"site": HOSPITAL})


@pytest.fixture(scope="session")
def three_data(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("three"), SITES)


@pytest.fixture
def three(tmp_path, three_data, cache, monkeypatch):
    """A federation whose fusion site is a hospital; its processes are ended afterwards."""
    for key, value in {
        "HOME": str(tmp_path),
        "FEDMEPD_CACHE": str(cache),
        "FEDMEPD_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
    }.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("FEDMEPD_DATA", raising=False)
    federation = Eight(tmp_path, three_data, SITES, fusion_site=HOSPITAL)
    assert not (federation.poc.server_kit / "local/fedmepd.json").exists()
    yield federation
    federation.end()


def trained(federation: Eight) -> list[int]:
    """The rounds with fusion training."""
    history = json.loads(next((federation.folder / "results").rglob("history.json")).read_text())
    return [entry["round"] for entry in history["server"]["rounds"]]


def missed(found: dict) -> dict[int, str]:
    """Why there was no fusion training in which round."""
    return {entry["round"]: entry["reason"] for entry in found["server"]["rounds_missed"]}


def assert_told(table: str, log: str, found: dict) -> None:
    """Log and table name every round without fusion training, and the reason."""
    lines = [line for line in table.splitlines() if "without fusion training" in line]
    assert len(lines) == bool(missed(found))
    for number, reason in missed(found).items():
        rounds = re.findall(r"round ([\d, -]+) \(" + re.escape(reason), lines[0])
        assert any(number in expand(text) for text in rounds), lines
        assert f"round {number}: goes on without fusion training: {reason}" in log
        assert re.search(rf"round {number}/\d+: \d sites \(without .*fusion training\)", log)


def wait_for_fusion(federation: Eight, number: int) -> None:
    """Waits until the hospital is in the middle of a round's training."""
    wait_for(lambda: federation.is_fusing(HOSPITAL, number), f"fusion training of round {number}")


def named(federation: Eight, name: str) -> Path:
    """The folder in which the server or a site keeps its named run."""
    return federation.poc.kit(name) / "fedmepd_runs/trial"


def test_errors_in_fusion_training(three):
    """The round goes on without it, the next one has it again; what leaves the hospital names no patient."""
    faults = {"1": "fusion raise", "2": "fusion memory", "4": "fusion nan", "5": "fusion 60"}
    three.start()
    rounds = 8
    settings = merged(AT_HOSPITAL, rounds=rounds, aggregation={"round_timeout": 40})
    three.submit(settings, faults={HOSPITAL: faults})
    assert three.end_of_job() == COMPLETED
    found, table, log = three.fetch()
    reasons = missed(found)
    # At work on round 5 still, it may miss the next one as a site and as the fusion site.
    assert {1, 2, 4, 5} <= reasons.keys() <= {1, 2, 4, 5, 6}
    assert trained(three) == [number for number in range(rounds + 1) if number not in reasons]
    for number, said in {1: "RuntimeError", 2: "out of memory", 4: "NaN", 5: "gave no answer in time"}.items():
        assert said in reasons[number] and HOSPITAL in reasons[number]
    assert_told(table, log, found)
    assert "patient-7" not in log + table + json.dumps(found) and "patient-7" in three.site_log(HOSPITAL)
    assert str(three.folder) not in table + json.dumps(found)
    assert rounds_of(found)["site-1"] == rounds_of(found)["site-2"] == list(range(1, rounds + 1))
    assert found["server"]["test"] and found["server"]["untested"] is None


def test_a_hospital_that_dies_in_fusion_training_and_later_for_good(three):
    """Meanwhile nothing becomes personal and the anchors stay; when it is back, it goes on.

    In the end it dies in the test of the global model: the results are written without.
    """
    rounds = 9
    three.seconds_until_lost(10)
    three.start()
    faults = {"2": "fusion 300", "test": "fusion 300"}
    settings = merged(AT_HOSPITAL, rounds=rounds, aggregation={"round_timeout": 25})
    three.submit(settings, faults={HOSPITAL: faults})
    three.wait_for_round(1)
    wait_for_fusion(three, 2)
    before = three.server_state()
    three.kill(HOSPITAL)
    three.wait_for_round(3)
    meanwhile = three.server_state()
    assert (before["round"], meanwhile["round"]) == (1, 3)
    three.start_one(HOSPITAL)
    assert same(before["method"]["anchors"], meanwhile["method"]["anchors"])
    assert same(before["method"]["filters"], meanwhile["method"]["filters"])
    assert not same(before["method"]["weights"], meanwhile["method"]["weights"])
    three.wait_for_line("testing the models that were best on validation")
    after = three.server_state()
    three.kill(HOSPITAL)
    assert three.end_of_job() == COMPLETED
    found, table, log = three.fetch()
    reasons = missed(found)
    assert {2, 3} <= reasons.keys() <= {2, 3, 4, 5, 6}, reasons
    assert set(reasons.values()) == {f"{HOSPITAL}, the fusion site, gave no answer in time"}
    assert trained(three) == [number for number in range(rounds + 1) if number not in reasons]
    back = max(reasons) + 1
    assert [number for number in rounds_of(found)[HOSPITAL] if number <= 1 or number > back] == [
        1,
        *range(back + 1, rounds + 1),
    ]
    # With the hospital back, anchors and patience move again.
    assert not same(before["method"]["anchors"], after["method"]["anchors"])
    assert not same(before["method"]["filters"], after["method"]["filters"])
    assert_told(table, log, found)
    assert found["status"] == "finished" and found["server"]["test"] is None
    assert "gave no answer in time" in found["server"]["untested"] and "the global model is not tested" in log
    assert f"fusion site ({found['server']['untested']})" in table
    assert all(site["test"] for site in found["sites"] if site["name"] != HOSPITAL)


def test_a_hospital_whose_process_for_the_job_is_killed(three):
    """As the system does when memory runs out: the process is started again, and does the same round."""
    three.start()
    settings = merged(AT_HOSPITAL, rounds=2, aggregation={"round_timeout": 400})
    three.submit(settings, faults={HOSPITAL: {"1": "fusion 45"}})
    wait_for_fusion(three, 1)
    three.kill_job_process(HOSPITAL)
    assert three.end_of_job() == COMPLETED
    found, table, log = three.fetch()
    assert trained(three) == [0, 1, 2] and not missed(found)
    assert rounds_of(found) == dict.fromkeys(SITES, [1, 2])
    assert three.server_log().count(f"{HOSPITAL}: let into job {three.job_id}") == 1
    assert_told(table, log, found)


def test_a_hospital_whose_disk_is_full(three, small_disk):
    # Room for two states as a site, two as the fusion site, and the models.
    small_disk(three.poc.kit(HOSPITAL) / "fedmepd_runs", megabytes=128)
    three.start()
    settings = merged(AT_HOSPITAL, run_name="trial", rounds=7)
    # It waits in the middle of a round until its disk is full.
    three.submit(settings, faults={HOSPITAL: {"2": "fusion 60"}})
    three.wait_for_round(1)
    wait_for_fusion(three, 2)
    filler = fill(named(three, HOSPITAL))
    three.wait_for_round(2)
    states = sorted(named(three, HOSPITAL).rglob("fusion/state_*.pt"))
    assert [path.name for path in states] == ["state_00000.pt", "state_00001.pt"]
    assert [load_tensors(path)["round"] for path in states] == [0, 1]
    filler.unlink()
    assert three.end_of_job() == COMPLETED
    found, table, log = three.fetch()
    reasons = missed(found)
    assert {2} <= reasons.keys() <= {2, 3}
    assert all("the state cannot be written: No space left on device" in reason for reason in reasons.values())
    assert trained(three) == [number for number in range(8) if number not in reasons]
    assert_told(table, log, found)
    assert not list(named(three, HOSPITAL).rglob(".*.part"))


def test_a_job_that_is_aborted_in_fusion_training(three):
    """Steps of seconds: the hospital's training stops within ten of a core; then the run goes on by its name."""
    three.start()
    settings = merged(AT_HOSPITAL, rounds=1, run_name="trial", aggregation={"round_timeout": 0})
    heavy = merged(settings, training={"crop": 48, "fusion_epochs": 8})
    three.submit(heavy)
    wait_for_fusion(three, 1)
    three.abort()
    assert three.work_until_rest() < 10
    assert three.end_of_job() != COMPLETED
    assert [path.name for path in named(three, HOSPITAL).rglob("fusion/state_*.pt")] == ["state_00000.pt"]
    three.submit(heavy)
    three.wait_for_line("run 'trial' continues after round 0")
    assert three.end_of_job() == COMPLETED
    found, _, _ = three.fetch()
    assert trained(three) == [0, 1] and not missed(found)


def test_a_named_run_whose_server_and_hospital_are_killed(three, three_data, cache, tmp_path):
    """It ends with the bits of a run that nobody disturbed.

    The hospital dies in the middle of fusion training and before it, and is back in time, long before FLARE would miss
    it; the server dies when the hospital has answered, and while it trains.
    """
    three.start()
    rounds = 5
    settings = merged(
        AT_HOSPITAL, run_name="trial", rounds=rounds, aggregation={"min_sites": len(SITES), "round_timeout": 300}
    )
    server, deaths = three.poc.server_kit.name, {"2": "fusion answer", "5": "fusion task"}
    # The other hospital's training leaves the time to kill this one between its own and fusion training.
    faults = {HOSPITAL: {"1": "fusion 45", "5": "fusion 45"}, "site-1": {"4": "60"}}

    def dies_in(number: int) -> None:
        wait_for((tmp_path / "deaths" / str(number)).exists, f"the server's death in round {number}")
        assert load_tensors(named(three, server) / "server_state.pt")["round"] == number - 1
        # FLARE starts the server again by itself, and the sites log in again.
        three.wait_for_logins(logins(three) + len(SITES))

    three.submit(settings, deaths=deaths, faults=faults)
    wait_for_fusion(three, 1)
    three.kill(HOSPITAL)
    three.start_one(HOSPITAL)
    dies_in(2)
    # The hospital has trained the round that the server does not know of.
    assert list(named(three, HOSPITAL).rglob("fusion/state_00002.pt"))
    three.submit(settings, deaths=deaths, faults=faults)
    three.wait_for_round(3)
    wait_for(lambda: HOSPITAL in three.delivered(), "the hospital's update")
    three.kill(HOSPITAL)
    three.start_one(HOSPITAL)
    dies_in(5)
    three.submit(settings, deaths=deaths, faults=faults)
    assert three.end_of_job() == COMPLETED
    found, table, log = three.fetch()
    assert "run 'trial' continues after round 4" in log
    assert rounds_of(found) == dict.fromkeys(SITES, list(range(1, rounds + 1)))
    assert not missed(found) and trained(three) == list(range(rounds + 1))
    assert_told(table, log, found)

    undisturbed = tmp_path / "undisturbed"
    site_settings = SiteSettings(data=three_data, cache=cache, device="cpu")
    run_in_process(make_settings("phantom", settings), site_settings, undisturbed, sites=SITES)
    kept = load_tensors(named(three, server) / "server_state.pt")
    plain = load_tensors(next(undisturbed.rglob("server_state.pt")))
    assert same(kept["method"], plain["method"])
    assert not (named(three, server) / "fusion").exists()
    for name, place, keys in (
        *((name, "", ("network",)) for name in SITES),
        (HOSPITAL, "fusion/", ("network", "optimizer", "method")),
    ):
        file = f"{place}state_{rounds:05d}.pt"
        first, second = (
            load_tensors(one_of(folder, file, fusion=bool(place)))
            for folder in (named(three, name), undisturbed / name)
        )
        for key in keys:
            assert same(first[key], second[key]), (name, place, key)


def one_of(folder: Path, file: str, *, fusion: bool) -> Path:
    [path] = [path for path in folder.rglob(Path(file).name) if (path.parent.name == "fusion") == fusion]
    return path


def logins(federation: Eight) -> int:
    return len(re.findall(r"New client \S+ joined|Re-activate the client", federation.server_log()))
