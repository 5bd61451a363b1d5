"""What FLARE's simulator would remove; tests/flare/test_job_script.py has the command itself."""

import json
import subprocess
import sys

import pytest

from fedmepd.errors import FedMEPDError
from fedmepd.flare.simulator_folder import reserved
from fedmepd.job_settings import make_settings


def settings(**changes):
    return make_settings("phantom", changes)


def left_by(folder, **changes):
    """What a run in the simulator leaves."""
    config = folder / "server/simulate_job/app_server/config/config_fed_server.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"workflows": [{"args": {"preset": "phantom", "settings": changes}}]}))
    for file in ("server/log.txt", "local/resources.json.default", "site-1/log.txt"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


def finish(folder):
    for file in ("server/simulate_job/results/results.json", "site-1/simulate_job/fedmepd/model_best.pt"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("precious")


@pytest.mark.parametrize("file", ["results/results.json", "fedmepd/state_00001.pt", "fedmepd/anything/model_best.pt"])
@pytest.mark.parametrize("changes", [{}, {"seed": 1}, {"run_name": "b"}, {"run_name": "a", "seed": 1}])
def test_another_run_is_kept(tmp_path, changes, file):
    left_by(tmp_path / "w/job", **({"run_name": "a"} if "run_name" in changes else {}))
    made = tmp_path / "w/job/site-2/simulate_job" / file
    made.parent.mkdir(parents=True)
    made.touch()
    (tmp_path / "w/job/site-2/log.txt").touch()
    refused = pytest.raises(FedMEPDError, match="holds the results of another run.*name another --workspace")
    with refused, reserved(tmp_path / "w/job", settings(**changes)):
        pytest.fail("it would be emptied")
    assert made.exists()


def test_a_named_run_goes_on(tmp_path):
    left_by(tmp_path / "job", run_name="a", seed=3)
    finish(tmp_path / "job")
    with reserved(tmp_path / "job", settings(run_name="a", seed=3)):
        pass


def test_a_run_that_came_to_nothing_is_in_nobodys_way(tmp_path):
    left_by(tmp_path / "job")
    with reserved(tmp_path / "job", settings(seed=1)):
        pass


@pytest.mark.parametrize("name", ["thesis.tex", "data"])
@pytest.mark.parametrize("run", [True, False])
def test_what_is_no_run_is_kept(tmp_path, name, run):
    left_by(tmp_path / "job", run_name="a")
    if run:
        finish(tmp_path / "job")
    (tmp_path / "job" / name).mkdir()
    with pytest.raises(FedMEPDError, match=name), reserved(tmp_path / "job", settings(run_name="a")):
        pytest.fail("it would be emptied")


def test_a_run_under_way(tmp_path):
    """Also before it has left anything, and of the same name; a process that is gone is in nobody's way."""
    code = (
        "import sys, time; from pathlib import Path; from fedmepd.job_settings import make_settings;"
        "from fedmepd.flare.simulator_folder import reserved\n"
        "with reserved(Path(sys.argv[1]), make_settings('phantom', {'run_name': 'a'})):\n"
        "    print('there', flush=True); time.sleep(60)"
    )
    folder = tmp_path / "w/job"
    other = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"there\n"
        for changes in ({}, {"run_name": "a"}):
            refused = pytest.raises(
                FedMEPDError, match="a run is under way in .*: wait for its end, or name another --workspace"
            )
            with refused, reserved(folder, settings(**changes)):
                pytest.fail("it would be emptied")
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    with reserved(folder, settings()):
        pass


def test_a_simulator_whose_command_was_killed(tmp_path):
    """It goes on, although the lock is free; who only reads there is in nobody's way."""
    folder = tmp_path / "w/job"
    code = "import time; print(1, flush=True); time.sleep(60)"
    reader, beside, simulator = (
        subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE)
        for words in (["tail", folder / "log.txt"], ["nvflare", tmp_path / "w/job_2"], ["nvflare", "-w", folder])
    )
    try:
        for process in (reader, beside, simulator):
            process.stdout.readline()
        expected = f"a run is under way in .* end its processes: kill {simulator.pid}$"
        with pytest.raises(FedMEPDError, match=expected), reserved(folder, settings()):
            pytest.fail("it would be emptied")
        simulator.kill()
        simulator.wait()
        with reserved(folder, settings()):
            pass
    finally:
        for process in (reader, beside, simulator):
            process.kill()
            process.wait()
            process.stdout.close()


def test_blanks(tmp_path, monkeypatch):
    with pytest.raises(FedMEPDError, match="has a blank"), reserved(tmp_path / "my runs/job", settings()):
        pytest.fail("FLARE would cut the path")
    (tmp_path / "t m p").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t m p"))
    with pytest.raises(FedMEPDError, match="TMPDIR"), reserved(tmp_path / "job", settings()):
        pytest.fail("FLARE would cut the path")
    assert [path.name for path in tmp_path.iterdir()] == ["t m p"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "w").touch()
    with (
        pytest.raises(FedMEPDError, match="choose another folder"),
        reserved(tmp_path / "w/job", settings()),
    ):
        pytest.fail("there is no place")
