"""What breaks in a federation of real processes, and what is left of it afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedmepd.federation.in_process import run_in_process
from fedmepd.flare.watching import COMPLETED
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import load_tensors
from tests.federation.drive import same
from tests.system.eight import (
    EIGHT,
    ROUNDS,
    SETTINGS,
    Eight,
    expand,
    fill,
    merged,
    missed_by,
    rounds_of,
    wait_for,
    write_cohort,
)

pytestmark = [pytest.mark.system, pytest.mark.slow]
ALL = list(range(1, ROUNDS + 1))
# Where more sites would show nothing else: each costs two processes.
FOUR = EIGHT[:4]


@pytest.fixture(scope="session")
def eight_data(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("eight"), (*EIGHT, "site-9"))


@pytest.fixture
def eight(tmp_path, eight_data, cache, monkeypatch):
    """Makes federations, and ends their processes afterwards."""
    for key, value in {
        "HOME": str(tmp_path),
        "FEDMEPD_CACHE": str(cache),
        "FEDMEPD_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
    }.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("FEDMEPD_DATA", raising=False)
    made = []

    def make(names=EIGHT, **options) -> Eight:
        made.append(Eight(tmp_path, eight_data, names, **options))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_sites_that_fail_and_work_again(eight):
    federation = eight()
    federation.start()
    faults = {
        "site-1": {"2": "raise"},
        "site-2": {"2": "memory"},
        "site-3": {"3": "nan"},
        "site-4": {"3": "shape"},
        "site-5": {"4": "40"},
    }
    federation.submit(merged(SETTINGS, aggregation={"round_timeout": 20}), faults=faults)
    assert federation.end_of_job() == COMPLETED
    found, table, log = federation.fetch()
    assert rounds_of(found) == dict.fromkeys(EIGHT, ALL) | {
        "site-1": [1, 3, 4, 5, 6],
        "site-2": [1, 3, 4, 5, 6],
        "site-3": [1, 2, 4, 5, 6],
        "site-4": [1, 2, 4, 5, 6],
        "site-5": rounds_of(found)["site-5"],
    }
    # The slow one may also miss the next round, since it is still at work on the last one.
    assert set(ALL) - set(rounds_of(found)["site-5"]) in ({4}, {4, 5})
    assert "RuntimeError" in missed_by(found, "site-1")[2] and "out of memory" in missed_by(found, "site-2")[2]
    assert "NaN" in missed_by(found, "site-3")[3] and "shape" in missed_by(found, "site-4")[3]
    assert missed_by(found, "site-5")[4] == "no answer in time"
    for line in (
        "round 2: site-1 is left out: RuntimeError",
        "round 2: site-2 is left out: out of memory",
        "update of site-3 for round 3 refused: decoder.classify.weight has",
        "update of site-4 for round 3 refused: decoder.classify.weight has shape",
        "round 4: site-5 did not answer; the round goes on without it",
        "round 6/6: 8 sites",
    ):
        assert line in log, line
    # What the error said of a patient stays at the site.
    assert "patient-7" not in log + str(found) and "patient-7" in federation.site_log("site-1")
    assert_told(table, found)


def assert_told(table: str, found: dict) -> None:
    """The table names every site that missed rounds, each with its rounds and reasons."""
    for site in found["sites"]:
        for entry in site["rounds_missed"]:
            [line] = [line for line in table.splitlines() if line.startswith(f"- {site['name']}: ")]
            rounds = re.findall(r"without round ([\d, -]+) \(" + re.escape(entry["reason"]), line)
            assert any(entry["round"] in expand(text) for text in rounds), line


def test_sites_that_die_return_leave_and_join(eight):
    """Site 6 dies in round 2 and is back two rounds later; site 8 leaves for good; site 9 is new in round 3.

    Of site 3, the system ends the job's process alone, in round 5.
    """
    rounds, all_rounds = 10, list(range(1, 11))
    federation = eight((*EIGHT, "site-9"))
    federation.seconds_until_lost(10)
    federation.start("site-9")
    # A site takes its time: in round 2 so that the new one is ready for round 3 on a busy machine too, from round 4 on
    # so that those that come back find rounds to take part in.
    slow = {"site-1": {"2": "20"} | {str(number): "12" for number in range(4, 10)}}
    federation.submit(merged(SETTINGS, rounds=rounds, aggregation={"round_timeout": 30}), faults=slow)
    federation.wait_for_round(1)
    for name in ("site-6", "site-8"):
        federation.kill(name)
    federation.start_one("site-9")
    federation.wait_for_round(3)
    kept = federation.patience_of("site-6")
    assert any((values == 0).any() for values in kept.values())
    federation.start_one("site-6")
    federation.wait_for_round(4)
    federation.kill_job_process("site-3")
    assert federation.end_of_job() == COMPLETED
    found, table, log = federation.fetch()
    taken = rounds_of(found)
    back = taken["site-6"][1]
    assert taken["site-6"] == [1, *range(back, rounds + 1)] and 4 < back < 8
    assert taken["site-8"] == [1] and taken["site-9"] == list(range(3, rounds + 1))
    # FLARE gives a process that is started again the task that the last one left.
    assert len(taken["site-3"]) >= rounds - 2 and taken["site-3"][-2:] == all_rounds[-2:]
    others = [name for name in EIGHT if name not in ("site-3", "site-6", "site-8")]
    assert all(taken[name] == all_rounds for name in others)
    assert f"site-6: is back in round {back}" in log and "site-9: joins in round 3" in log
    assert "round 2: site-6 did not answer; the round goes on without it" in log
    assert federation.server_log().count(f"site-3: let into job {federation.job_id}") == 1
    assert "site-6: continues from its state after round 1" in federation.site_log("site-6")
    assert_told(table, found)
    tests = {site["name"]: site["test"] for site in found["sites"]}
    assert tests["site-8"] is None and all(tests[name] for name in taken if name != "site-8")
    # What had become personal before it died is personal still, and nothing became so while it was away.
    history = json.loads(next((federation.folder / "results").rglob("history.json")).read_text())
    for layer, values in kept.items():
        steps = history["site-6"]["personal"].get(layer.removeprefix("decoder."), [])
        personal = int((values == 0).sum())
        before = [count for number, count in steps if number < back]
        assert (before[-1] if before else 0) == personal
        assert all(count >= personal for number, count in steps if number >= back)


def named(federation: Eight, name: str, run: str = "trial") -> Path:
    """The folder in which the server or a site keeps a named run."""
    return federation.poc.kit(name) / "fedmepd_runs" / run


def test_a_server_that_is_killed_three_times(eight, eight_data, cache, tmp_path):
    """Started again by name, it ends with the bits of a run that nobody disturbed."""
    federation = eight(FOUR)
    federation.start()
    server = federation.poc.server_kit.name
    settings = merged(SETTINGS, run_name="trial", aggregation={"min_sites": len(FOUR)})
    deaths = {"2": "aggregation", "3": "fusion training", "4": "checkpoint"}
    for times, number in enumerate(deaths, start=1):
        federation.submit(settings, deaths=deaths)
        wait_for((tmp_path / "deaths" / number).exists, f"the server's death in round {number}")
        state = load_tensors(named(federation, server) / "server_state.pt")
        assert state["round"] == int(number) - 1
        # FLARE starts the server again by itself, and the sites log in again.
        federation.wait_for_logins(len(FOUR) * (times + 1))
    assert list(named(federation, server).glob(".*.part"))
    federation.submit(settings, deaths=deaths)
    assert federation.end_of_job() == COMPLETED
    found, _, log = federation.fetch()
    assert "run 'trial' continues after round 3" in log
    assert rounds_of(found) == dict.fromkeys(FOUR, ALL)
    assert not list(named(federation, server).glob(".*.part"))

    undisturbed = tmp_path / "undisturbed"
    site_settings = SiteSettings(data=eight_data, cache=cache, device="cpu")
    run_in_process(make_settings("phantom", settings), site_settings, undisturbed, sites=FOUR)
    pairs = [(named(federation, server) / "server_state.pt", next(undisturbed.rglob("server_state.pt")), "method")]
    for name in FOUR:
        [kept] = named(federation, name).rglob(f"state_{ROUNDS:05d}.pt")
        [plain] = [path for path in undisturbed.rglob(kept.name) if name in path.parts]
        pairs.append((kept, plain, "network"))
    for kept, plain, key in pairs:
        assert same(load_tensors(kept)[key], load_tensors(plain)[key]), kept


def test_full_disks(eight, small_disk):
    """A site's disk is full in the middle of the run, then the server's: what was written before stays readable."""
    federation = eight(FOUR)
    server = federation.poc.server_kit.name
    for name in ("site-3", server):
        small_disk(federation.poc.kit(name) / "fedmepd_runs")
    federation.start()
    settings = merged(SETTINGS, run_name="trial", rounds=9)
    # Rounds that take their time, so that there are some left for the server's disk.
    federation.submit(settings, faults={"site-1": {str(number): "3" for number in range(2, 10)}})
    federation.wait_for_round(1)
    filler = fill(named(federation, "site-3"))
    federation.wait_for_line("site-3 is left out: the state cannot be written: No space left on device")
    kept = sorted(named(federation, "site-3").rglob("state_*.pt"))
    assert kept and all(load_tensors(path)["network"] for path in kept)
    filler.unlink()
    (missed,) = {int(number) for number in re.findall(r"round (\d+): site-3 is left out", federation.job_log())}
    federation.wait_for_round(missed + 1)
    filler = fill(named(federation, server))
    status = federation.end_of_job()
    assert status != COMPLETED
    state = load_tensors(named(federation, server) / "server_state.pt")
    reached = state["round"]
    assert missed < reached < 9 and not list(named(federation, server).glob(".*.part"))
    _, _, log = federation.fetch()
    assert "cannot write" in log and "No space left on device" in log
    filler.unlink()
    federation.submit(settings)
    assert federation.end_of_job() == COMPLETED
    found, table, log = federation.fetch()
    assert f"run 'trial' continues after round {reached}" in log
    rounds = list(range(1, 10))
    assert {number for number in rounds if number not in rounds_of(found)["site-3"]} <= {missed, missed + 1}
    assert rounds_of(found) | {"site-3": 0} == dict.fromkeys(FOUR, rounds) | {"site-3": 0}
    assert "No space left on device" in missed_by(found, "site-3")[missed]
    assert_told(table, found)


@pytest.fixture
def link():
    """A network of its own for one site, joined to the machine by a single link that can be cut."""
    name, there, here = f"fed{os.getpid()}", f"fs{os.getpid()}"[:15], f"fh{os.getpid()}"[:15]
    hosts = Path("/etc/netns") / name

    def run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)

    try:
        run("ip", "netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to make a network namespace, or no iproute2")
    try:
        run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        run("ip", "addr", "add", "10.213.77.1/30", "dev", here)
        run("ip", "link", "set", here, "up")
        for arguments in (("addr", "add", "10.213.77.2/30", "dev", there), ("link", "set", there, "up")):
            run("ip", "-n", name, *arguments)
        run("ip", "-n", name, "link", "set", "lo", "up")
        hosts.mkdir(parents=True)
        (hosts / "hosts").write_text(f"127.0.0.1 localhost\n10.213.77.1 {socket.gethostname()}\n")
        yield SimpleNamespace(
            prefix=("ip", "netns", "exec", name),
            cut=lambda: run("ip", "link", "set", here, "down"),
            restore=lambda: run("ip", "link", "set", here, "up"),
        )
    finally:
        shutil.rmtree(hosts, ignore_errors=True)
        subprocess.run(["ip", "link", "del", here], capture_output=True)
        run("ip", "netns", "del", name)


def test_a_link_that_is_cut_and_restored_and_cut_for_good(eight, link):
    federation = eight(FOUR, everywhere=True)
    federation.seconds_until_lost(60)
    # From its own network, the site reaches the server by the machine's name.
    connection = federation.poc.kit("site-4") / "startup/fed_client.json"
    connection.write_text(connection.read_text().replace('"localhost', f'"{socket.gethostname()}'))
    federation.start("site-4")
    federation.start_one("site-4", link.prefix)
    federation.wait_for_logins(len(FOUR))
    slow = {"site-1": {str(number): "6" for number in range(2, 13)}}
    federation.submit(merged(SETTINGS, rounds=12, aggregation={"round_timeout": 60}), faults=slow)
    federation.wait_for_round(1)
    link.cut()
    time.sleep(30)
    link.restore()
    federation.wait_for_round(6)
    rounds = federation.live_results()
    assert {5, 6} <= set(rounds_of(rounds)["site-4"]), rounds_of(rounds)["site-4"]
    link.cut()
    assert federation.end_of_job() == COMPLETED
    found, table, log = federation.fetch()
    print(log)
    assert rounds_of(found)["site-4"][-1] in (6, 7)
    assert all(rounds_of(found)[name] == list(range(1, 13)) for name in FOUR if name != "site-4")
    assert_told(table, found)


def test_a_job_that_is_aborted_in_the_middle_of_a_step(eight):
    """Steps of seconds: all training stops within ten of a core; then the run goes on by its name."""
    federation = eight(EIGHT[:3])
    federation.start()
    settings = merged(SETTINGS, rounds=3, run_name="trial", aggregation={"round_timeout": 0})
    heavy = merged(settings, training={"crop": 48, "local_epochs": 10})
    federation.submit(heavy)
    federation.wait_for_round(1)
    wait_for(lambda: all(federation.is_training(name) for name in EIGHT[:3]), "training at all sites")
    federation.abort()
    assert federation.work_until_rest() < 10
    assert federation.end_of_job() != COMPLETED
    federation.submit(heavy)
    federation.wait_for_line("run 'trial' continues after round 1")
    federation.abort()
