"""A federation of real processes on this machine, by ``fedmepd poc``."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fedmepd.doctor.diagnose import diagnose
from fedmepd.doctor.federation import expected
from fedmepd.doctor.kit import Kit
from fedmepd.evaluation import results
from fedmepd.flare.poc.workspace import ADMIN, Poc
from tests.signals import WITH_INTERRUPTS_IGNORED
from tests.system.simulator import ROOT, SITES, TINY, Silence, assert_same, weights

pytestmark = pytest.mark.system

SECONDS = 300


def start(tmp_path, cohort, cache, settings, *options, before=()):
    """Starts ``fedmepd poc run`` with a job of these settings; ``before`` stands before the command."""
    job = tmp_path / "job"
    shutil.copytree(ROOT / "jobs/fedmepd_brats", job)
    config = job / "app/config/config_fed_server.json"
    content = json.loads(config.read_text())
    content["workflows"][0]["args"]["settings"] = settings
    config.write_text(json.dumps(content))
    command = ["poc", "run", str(job), "--workspace", str(tmp_path / "w"), "--sites", *SITES, "--data", str(cohort)]
    return launch(tmp_path, cache, *command, *options, before=before)


def launch(tmp_path, cache, *command, before=()):
    """Starts one of our commands, with a home folder of its own."""
    # FLARE notes its last POC workspace in the home folder.
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    environment = os.environ | {
        "HOME": str(home),
        "FEDMEPD_CACHE": str(cache),
        "FEDMEPD_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    environment.pop("FEDMEPD_DATA", None)
    return subprocess.Popen(
        [*before, sys.executable, "-m", "fedmepd.cli", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def follow(process, workspace, at=None, then=lambda: None):
    """Reads what a process prints; once ``at`` is in it, calls ``then``. Ends it if it is silent for minutes."""

    def end():
        for one in (*Poc(workspace).processes(), psutil.Process(process.pid)):
            one.kill()

    silence = Silence(SECONDS, end)
    lines = []
    try:
        for line in process.stdout:
            silence.broken()
            lines.append(line)
            if at and at in line:
                then()
                at = None
    finally:
        silence.end()
        process.stdout.close()
    return process.wait(), "".join(lines)


def test_a_run_from_kits_to_the_table(tmp_path, cohort, cache, reference, monkeypatch):
    monkeypatch.setenv("FEDMEPD_CACHE", str(cache))
    monkeypatch.setenv("FEDMEPD_DEVICE", "cpu")
    monkeypatch.delenv("FEDMEPD_DATA", raising=False)
    # As where the environment of the tests is activated, which the doctor asks for.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    listening, checked = {}, []

    def look():
        checked.extend(diagnose(Kit.read(Poc(tmp_path / "w").kit("site-1")), expected(None, tmp_path / "job")))
        for process in Poc(tmp_path / "w").processes():
            listening[process.pid] = {
                one.laddr.ip for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN
            }

    process = start(tmp_path, cohort, cache, TINY)
    code, output = follow(process, tmp_path / "w", at="submitted job", then=look)
    assert code == 0, output
    for text in ("prepared 2 sites", "submitted job", "mean of the sites", "stopped; no process and no port is left"):
        assert text in output
    # The server and two sites, on loopback alone.
    assert len(listening) >= 3 and set().union(*listening.values()) == {"127.0.0.1"}
    assert Poc(tmp_path / "w").processes() == []
    # What `fedmepd doctor` says of a site while its server runs.
    assert not [check for check in checked if check.status == "error"]
    found_ok = {check.kind for check in checked if check.status == "ok"}
    assert found_ok >= {"reachable by TLS", "agrees", "certificate and key fit", "can be used"}
    found = results.read(results.find(tmp_path / "w" / "results"))
    assert (found["status"], [site["name"] for site in found["sites"]]) == ("finished", list(SITES))
    # Each site trained on its own folder: to the same bits as in one process.
    for site in SITES:
        settings = json.loads((Poc(tmp_path / "w").kit(site) / "local/fedmepd.json").read_text())
        assert settings["data"] == str(cohort / site)
    assert_same(weights(tmp_path / "w", 2), reference[1])


@pytest.mark.slow
def test_a_run_with_the_fusion_site_at_a_hospital(tmp_path, cohort, cache, reference, monkeypatch):
    monkeypatch.setenv("FEDMEPD_CACHE", str(cache))
    monkeypatch.delenv("FEDMEPD_DATA", raising=False)
    process = start(tmp_path, cohort, cache, TINY, "--fusion-site", "site-2")
    code, output = follow(process, tmp_path / "w")
    assert code == 0, output
    assert "site-2 is the fusion site" in output and "stopped; no process and no port is left" in output
    poc = Poc(tmp_path / "w")
    assert not (poc.server_kit / "local/fedmepd.json").exists()
    found = results.read(results.find(tmp_path / "w" / "results"))
    assert found["status"] == "finished" and found["fusion"]["site"] == "site-2" and found["fusion"]["bytes_up"] > 0
    states = {path.relative_to(poc.kit("*").parent).parts[0] for path in (tmp_path / "w").rglob("fusion/state_*.pt")}
    assert states == {"site-2"}
    # The bits of a run in one process, in which it is the server's.
    assert_same(weights(tmp_path / "w", 2), reference[1])


@pytest.mark.slow
def test_a_named_run_goes_on_without_being_told_what_it_was(tmp_path, cohort, cache):
    settings = TINY | {"evaluation": TINY["evaluation"] | {"every": 1}}
    options = ("--run-name", "trial", "--rounds", "4", "--set", "aggregation.min_sites=2")
    process = start(tmp_path, cohort, cache, settings, *options, before=WITH_INTERRUPTS_IGNORED)
    code, output = follow(process, tmp_path / "w", at="/4:", then=lambda: process.send_signal(signal.SIGINT))
    assert code == 130, output
    assert f"`fedmepd poc run --workspace {tmp_path / 'w'}` goes on with run 'trial'" in output
    code, output = follow(launch(tmp_path, cache, "poc", "run", "--workspace", str(tmp_path / "w")), tmp_path / "w")
    assert code == 0, output
    assert "goes on with run 'trial', which is not finished" in output and "round 1/4:" not in output
    assert ": finished" in output and "stopped; no process and no port is left" in output
    found = results.read(results.find(tmp_path / "w" / "results"))
    expected = ("finished", "trial", 4, 2)
    assert (found["status"], found["run_name"], found["round"], len(found["sites"])) == expected
    assert found["settings"]["aggregation"]["min_sites"] == 2
    assert len(list((tmp_path / "w").rglob("fedmepd_runs/trial/*/model_best.pt"))) == 2


def console(workspace, commands):
    """Types commands into FLARE's admin console; returns what it printed."""
    admin = Poc(workspace).kit(ADMIN) / "startup/fl_admin.sh"
    # FLARE's script takes the first python3 that it finds.
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        [admin],
        env=os.environ | {"PATH": programs},
        input="".join(f"{command}\n" for command in (*commands, "bye")),
        capture_output=True,
        text=True,
        timeout=90,
    )
    return run.stdout + run.stderr


def test_the_console_in_the_middle_of_a_round_and_an_interrupt(tmp_path, cohort, cache, monkeypatch):
    # Where FLARE has noted this workspace, and no other.
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    seen = {}

    def look():
        [job_id] = [path.name for path in Poc(tmp_path / "w").server_kit.iterdir() if path.name.count("-") == 4]
        seen["stats"] = Poc(tmp_path / "w")._flare("job", "stats", job_id)["stats"]
        seen["console"] = console(tmp_path / "w", [f"show_stats {job_id} server", f"show_stats {job_id} client site-1"])
        process.send_signal(signal.SIGINT)

    settings = TINY | {"rounds": 200, "evaluation": TINY["evaluation"] | {"every": 1}}
    process = start(tmp_path, cohort, cache, settings, before=WITH_INTERRUPTS_IGNORED)
    # The first round that is told: rounds that are shorter than the time between two looks may be passed over.
    code, output = follow(process, tmp_path / "w", at="/200:", then=look)
    assert code == 130, output
    assert "stopped; no process and no port is left" in output and "interrupted: everything is stopped" in output
    assert Poc(tmp_path / "w").processes() == []
    server = seen["stats"]["server"]["FedMEPDController"]
    assert server["rounds"] == 200 and server["round"] >= 2
    assert server["phase"] in ("sites train", "fusion training", "validating")
    assert set(server["sites_in"]) | set(server["sites_missing"]) <= set(SITES)
    assert set(server["mdsc"]) == {*SITES, "fusion"} and 0 < server["personal_share"] < 1
    last = server["last_round"]
    assert last["missing"] == [] and last["bytes_up"] > 0 and last["bytes_down"] > 0 and last["seconds"] > 0
    for site in SITES:
        client = seen["stats"][site]["FedMEPDExecutor"]
        assert client["round"] >= 2 and client["step"] >= 1 and client["loss"] > 0 and client["memory_mib"] > 100
    # The interactive console shows the same.
    for text in ("FedMEPDController", "sites_missing", "FedMEPDExecutor", "memory_mib"):
        assert text in seen["console"], seen["console"]
