"""The whole command on kits that FLARE's own builders made, against a server that runs what FLARE's driver runs."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from fedmepd.cli import main
from fedmepd.cli.json_output import Doctor
from tests.doctor import servers
from tests.doctor.conftest import authority, change, issued, kit_folder, provisioned  # noqa: F401

JOB = str(Path(__file__).parents[2] / "jobs" / "fedmepd_brats")
TOPICS = [
    "kit",
    "kit",
    "certificate",
    "certificate",
    "server",
    "clock",
    "versions",
    "versions",
    "versions",
    "data",
    "limits",
    "leaving",
    "job",
    "GPU",
]


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FEDMEPD_DEVICE", "cpu")
    monkeypatch.delenv("FEDMEPD_DATA", raising=False)
    # As where the environment of the tests is activated.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def doctor(capsys):
    def command(*arguments):
        status = main(["doctor", *map(str, arguments)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return command


def test_a_site_that_is_ready(doctor, issued, authority, tiny, tmp_path, provisioned):  # noqa: F811
    """Versions and job come from the file that the server's operator has written into the kit."""
    (issued / "local" / "fedmepd.json").write_text(json.dumps({"data": str(tiny.machine.data), "min_count": 1}))
    written = doctor(provisioned / "localhost", "--job", JOB, "--write", issued / "local" / "fedmepd-federation.json")
    assert written[0] == 0 and "--against fedmepd-federation.json" in written[1]
    with servers.flare_http(servers.tls(tmp_path, authority)) as port:
        change(issued, port)
        status, out, _ = doctor(issued)
        assert status == 0, out
        lines = out.splitlines()
        assert [line.split()[1] for line in lines if line.startswith("ok ")][: len(TOPICS)] == TOPICS
        assert lines[-1].startswith("site site-1: 0 errors") and "width 8" in out and "note" not in out
        status, out, _ = doctor(issued, "--json")
    content = json.loads(out)
    assert (status, content["name"], content["role"], content["errors"]) == (0, "site-1", "site", 0)
    # The few cases of the cohort need a min_count at which doctor warns.
    [warned] = [check for check in content["checks"] if check["status"] == "warning"]
    assert warned["kind"] == "means over very few patients leave"
    assert [check["topic"] for check in content["checks"] if check is not warned][: len(TOPICS)] == TOPICS
    assert set(content["checks"][0]) == {"topic", "status", "kind", "text", "advice"}
    assert Doctor.model_validate(content).errors == 0


def test_a_site_that_is_not(doctor, issued, tmp_path, monkeypatch):  # noqa: F811
    """Everything is looked at whatever has failed before; every error says what to do."""
    change(issued, 9, host="flare.invalid")
    monkeypatch.setenv("PATH", str(tmp_path))
    status, out, _ = doctor(issued)
    assert status == 1
    assert "error    server       name that has no address: flare.invalid" in out
    assert "error    data         no data that can be used: site-1 has no data folder" in out
    assert "note     versions     server's versions not known" in out and "note     clock        not compared" in out
    assert "error    versions     start script without a Python: PATH has no python3" in out
    assert "published settings assumed" in out and "disk" in out and "site site-1: 3 errors, " in out
    lines = out.splitlines()
    for place, line in enumerate(lines):
        if line.startswith(("error", "warning")):
            assert lines[place + 1].strip().startswith("-> ")


def test_the_server(doctor, provisioned, tiny, tmp_path, monkeypatch):  # noqa: F811
    """Before it is started; its data are the fusion site's."""
    kit = Path(shutil.copytree(provisioned / "localhost", tmp_path / "localhost"))
    file = kit / "startup" / "fed_server.json"
    with servers.socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    file.write_text(file.read_text().replace(":8002", f":{port}"))
    monkeypatch.setenv("FEDMEPD_DATA", str(tiny.machine.data))
    status, out, _ = doctor(kit, "--job", JOB)
    assert status == 0, out
    assert "note     server       server that is not started" in out and "6 cases" in out and "T1ce T1 T2" in out
    assert "server localhost: 0 errors" in out and "job fedmepd_brats" in out


def test_a_site_as_the_fusion_site(doctor, kit_folder, tiny_apart, tmp_path, provisioned):  # noqa: F811
    """By option while no job is known; a job that names another site, or the server, is not contradicted."""
    (kit_folder / "local" / "fedmepd.json").write_text(json.dumps({"data": str(tiny_apart.machine.data)}))
    _, out, _ = doctor(kit_folder, "--fusion")
    assert "ok       data         can be used for fusion training: 6 cases: train 3 (3 with all of" in out
    assert "1 x 80^3 voxels a step, FLAIR T1ce T1 T2" in out
    status, _, err = doctor(kit_folder, "--fusion", "--job", JOB)
    assert status == 2 and "the fusion site in job fedmepd_brats is the server, not site-1" in err
    status, _, err = doctor(provisioned / "localhost", "--fusion")
    assert status == 2 and "is the server's kit" in err


def test_what_cannot_be_run(doctor, provisioned, tmp_path):  # noqa: F811
    kit = provisioned / "site-1"
    for arguments, words in [
        ((tmp_path,), "is no FLARE kit"),
        ((kit, "--against", tmp_path / "none.json"), "none.json cannot be read"),
        ((kit, "--job", tmp_path), "is no job of FedMEPD"),
        ((kit, "--timeout", "0"), "--timeout 0.0: expected"),
        ((kit, "--write", tmp_path / "f.json"), "is a site's kit"),
        ((provisioned / "localhost", "--write", tmp_path / "f.json", "--json"), "--json: --write only writes a file"),
        ((provisioned / "localhost", "--write", tmp_path / "f.json", "--timeout", "10"), "--timeout: --write only"),
    ]:
        status, _, err = doctor(*arguments)
        assert status == 2 and words in err
    assert not (tmp_path / "f.json").exists()


def test_a_bad_site_setting(doctor, kit_folder):  # noqa: F811
    (kit_folder / "local" / "fedmepd.json").write_text('{"dta": "/x"}')
    status, _, err = doctor(kit_folder)
    assert status == 2 and "unknown key dta" in err
