import json
import platform
from importlib import metadata
from pathlib import Path

import pytest

from fedmepd import __version__
from fedmepd.doctor.federation import Expected, expected, installed_versions, job_settings, write_federation
from fedmepd.doctor.versions import Installed, check_versions, unmet_requirements
from fedmepd.errors import SettingsError
from fedmepd.job_settings import make_settings

JOBS = Path(__file__).parents[2] / "jobs"
HERE = {"python": "3.11.9", "fedmepd": "0.1.0", "nvflare": "2.9.0", "torch": "2.13.0+cpu"}


def test_this_environment():
    """Whatever the environment of the tests is, it fits itself."""
    mine = Installed.here()
    assert mine.versions == {
        "python": platform.python_version(),
        "fedmepd": __version__,
        "nvflare": metadata.version("nvflare"),
        "torch": metadata.version("torch"),
    }
    assert [check.status for check in check_versions(mine, mine.versions, "")] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ({}, ["ok"]),
        ({"python": "3.13.1", "torch": "2.13.1+cu128", "nvflare": "2.9.4"}, ["ok"]),
        ({"torch": "2.12.0"}, ["warning: torch 2.13.0+cpu here, 2.12.0 at the server"]),
        ({"nvflare": "2.8.1"}, ["error: nvflare 2.9.0 here, 2.8.1 at the server"]),
        ({"nvflare": "2.10.0"}, ["error: nvflare 2.9.0 here, 2.10.0 at the server"]),
        ({"fedmepd": "0.1.1"}, ["error: fedmepd 0.1.0 here, 0.1.1 at the server"]),
        ({"fedmepd": "0.2.0", "torch": "3.0"}, ["error: fedmepd", "warning: torch"]),
        ({"torch": "nightly"}, ["warning: torch"]),
    ],
)
def test_against_the_server(there, found):
    first, *rest = check_versions(Installed(HERE), HERE | there, "3.11")
    assert first.status == "ok" and "nvflare 2.9.0" in first.text
    said = [f"{check.status}: {check.text}" for check in rest]
    if found == ["ok"]:
        assert [check.kind for check in rest] == ["fit the server's"]
    else:
        assert len(said) == len(found) and all(a.startswith(b) for a, b in zip(said, found, strict=True))
        assert all(f"pip install {check.text.split()[0]}==" in check.advice for check in rest)
        assert all("+" not in check.advice for check in rest)


def test_a_server_that_is_not_known():
    _, check = check_versions(Installed(HERE), None, "3.12")
    assert (check.status, check.kind) == ("note", "server's versions not known") and "3.12" in check.text
    assert "--write" in check.advice and "--against" in check.advice


def test_packages_that_are_missing():
    wanted = ["nosuchpackage>=1", "numpy<1", "torch>=2.6", 'pytest>=99; extra == "tests"']
    check = next(check_versions(Installed(HERE, tuple(unmet_requirements(wanted))), None, ""))
    numpy = metadata.version("numpy")
    assert (check.status, check.text) == ("error", f"nosuchpackage is not installed, numpy {numpy}, expected <1")


def test_an_old_python(monkeypatch):
    monkeypatch.setattr("sys.version_info", (3, 10, 4))
    check = next(check_versions(Installed.here(), None, ""))
    assert check.status == "error" and "expected 3.11 or newer" in check.text


def test_the_servers_file(tmp_path):
    file = tmp_path / "f.json"
    write_federation(file, "study", JOBS / "fedmepd_brats")
    written = json.loads(file.read_text())
    assert (written["project"], written["versions"]) == ("study", installed_versions())
    found = expected(file, None)
    assert (found.settings, found.versions, found.source) == (make_settings("phantom"), written["versions"], str(file))
    # A job that the user names wins.
    other = expected(file, JOBS / "local_brats")
    assert (other.settings.method, other.source, other.versions) == ("local", "job local_brats", found.versions)
    write_federation(file, "study", None)
    assert expected(file, None) == Expected(make_settings("paper"), written["versions"])


def test_nothing_known():
    assert expected(None, None) == Expected(make_settings("paper"), None, "")


@pytest.mark.parametrize(
    ("content", "named"),
    [("{", "invalid JSON"), ("{}", "project"), ('{"project": "x", "versions": {"cuda": "1"}}', "versions.cuda")],
)
def test_another_file(tmp_path, content, named):
    file = tmp_path / "f.json"
    file.write_text(content)
    with pytest.raises(SettingsError, match=f"f.json: .*{named}.*doctor SERVER_KIT --write FILE"):
        expected(file, None)
    with pytest.raises(SettingsError, match="none.json cannot be read"):
        expected(tmp_path / "none.json", None)


def test_jobs(tmp_path):
    assert job_settings(JOBS / "fedavg_brats") == make_settings("phantom", {"method": "fedavg"})
    with pytest.raises(SettingsError, match="no job of FedMEPD"):
        job_settings(tmp_path)
    config = tmp_path / "app" / "config" / "config_fed_server.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"workflows": [{"path": "nvflare.x.FedAvg"}]}')
    with pytest.raises(SettingsError, match="no job of FedMEPD"):
        job_settings(tmp_path)
    config.write_text("{")
    with pytest.raises(SettingsError, match="config_fed_server.json cannot be read"):
        job_settings(tmp_path)
    config.write_text('{"workflows": [{"path": "fedmepd.x", "args": {"settings": {"crop": 3}}}]}')
    with pytest.raises(SettingsError, match="unknown key crop"):
        job_settings(tmp_path)


@pytest.mark.parametrize("key", ["project", "versions"])
def test_a_servers_file_that_would_rewrite_the_terminal(tmp_path, key):
    file = tmp_path / "server.json"
    write_federation(file, "study", None)
    evil = "2.9\x1b[2J\u202e"
    content = json.loads(file.read_text()) | {key: evil if key == "project" else {"torch": evil}}
    file.write_text(json.dumps(content))
    with pytest.raises(SettingsError, match="control characters") as error:
        expected(file, None)
    assert str(error.value).isprintable()
