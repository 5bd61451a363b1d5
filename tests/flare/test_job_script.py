import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from fedmepd.errors import DataError
from tests.data.files import write_case

SCRIPT = Path(__file__).parents[2] / "job.py"


@pytest.fixture
def job(tmp_path, monkeypatch, capsys):
    """Runs job.py in a folder of its own; returns exit status and errors. In this process, which has FLARE imported."""
    monkeypatch.chdir(tmp_path)

    def command(*options):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return end.value.code, capsys.readouterr().err

    return command


def test_export_writes_the_job_into_the_named_folder(tmp_path):
    options = ("--method", "local", "--rounds", "3", "--fusion-site", "north", "--cohort", "hospitals")
    options = (*options, "--export", "there")
    done = subprocess.run([sys.executable, SCRIPT, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "there/local_brats/app/config/config_fed_server.json").read_text())
    settings = {"method": "local", "rounds": 3, "fusion": {"site": "north"}, "data": {"phantom": "hospitals"}}
    assert config["workflows"][0]["args"]["settings"] == settings
    # FLARE warns when it finds --export itself.
    assert "NVFlare reserves" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rounds", "0"), "rounds = 0"),
        (("--sites", "0"), "expected 1 or more"),
        (("--method", "sgd"), "invalid choice"),
        (("--sites", "2", "--fusion-site", "site-3"), "--fusion-site site-3: expected one of site-1, site-2"),
    ],
)
def test_bad_option_is_one_clear_line(job, tmp_path, options, message):
    status, errors = job(*options)
    assert status == 2 and message in errors.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_sites_are_those_of_the_folder(job, tmp_path):
    """A folder of a split, and one without manifests; phantoms have the protocol's names."""
    script = runpy.run_path(str(SCRIPT))["site_names"]
    for site in ("north", "south-10", "south-9", "fusion"):
        write_case(tmp_path / "data" / site, "a", ("T1",))
    (tmp_path / "data" / "notes").mkdir()
    assert script(str(tmp_path / "data"), None) == ["north", "south-9", "south-10"]
    assert script(str(tmp_path / "data"), 2) == ["north", "south-9"]
    with pytest.raises(DataError, match="--sites 4: .* holds 3 sites, north, south-9, south-10"):
        script(str(tmp_path / "data"), 4)
    assert script(None, None) == [f"site-{number}" for number in range(1, 9)]
    # The folder of one data set holds cases, and no sites.
    assert script(str(tmp_path / "data" / "north"), 2) == ["site-1", "site-2"]
    status, errors = job("--data", str(tmp_path / "nowhere"))
    assert status == 2 and "nowhere cannot be read" in errors.splitlines()[-1]


def test_a_finished_run_is_not_replaced(job, tmp_path):
    finished = tmp_path / "w/fedmepd_brats/server/simulate_job/results/results.json"
    finished.parent.mkdir(parents=True)
    finished.write_text("precious")
    for options in (("--seed", "1"), ("--rounds", "1", "--run-name", "a")):
        status, errors = job(*options, "--workspace", "w")
        assert status == 2 and "name another --workspace" in errors.splitlines()[-1]
        assert finished.read_text() == "precious"


def test_a_blank_in_the_workspace_is_one_clear_line(job, tmp_path):
    status, errors = job("--workspace", "my runs")
    assert status == 2 and "has a blank in it" in errors.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
