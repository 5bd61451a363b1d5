"""The POC commands against a FLARE that answers as FLARE does; tests/system has the real one."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from fedmepd import cli
from fedmepd.data import phantom_cohorts
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation import results
from fedmepd.flare.admin_session import AdminSession
from fedmepd.flare.export import fusion_site_of
from fedmepd.flare.poc.commands import FlareError
from fedmepd.flare.poc.workspace import Poc
from tests.evaluation import runs
from tests.flare.test_progress import LIVE


class Flare:
    """Answers commands, in place of FLARE; ``fails`` names one that reports an error."""

    def __init__(self):
        self.commands: list[str] = []
        self.fails = ""
        self.phases = [
            {},
            {"phase": "fusion training", "round": 0},
            LIVE,
            LIVE | {"personal_share": 0.2},
            LIVE | {"phase": "testing"},
        ]
        self.end = "FINISHED:COMPLETED"
        self.starting, self.connected = 2, 0

    def __call__(self, poc: Poc, *arguments: str) -> dict:
        command = " ".join(arguments[:2])
        self._answer(command)
        if command == "poc prepare":
            kits = {poc.server_kit: "fed_server.json"} | {poc.kit(site): "fed_client.json" for site in poc.sites()}
            for kit, file in kits.items():
                for folder in ("local", "startup"):
                    (kit / folder).mkdir(parents=True)
                (kit / "startup" / file).write_text("{}")
                (kit / "local" / "resources.json.default").write_text("{}")
        self.expected = poc.sites()
        if command == "job submit":
            self.meta = json.loads((Path(arguments[3]) / "meta.json").read_text())
            self.fusion_site = fusion_site_of(Path(arguments[3]))
            return {"job_id": "j1"}
        if command == "job download":
            folder = Path(arguments[4]) / "j1"
            results.write(folder / "workspace" / "results", runs.finished(), {})
            (folder / "workspace" / "log.txt").write_text("2026 - x - INFO - begins\n2026 - x - ERROR - no data\n")
            return {"path": str(folder)}
        return {}

    def _answer(self, question: str) -> None:
        self.commands.append(question)
        if question == self.fails:
            raise FlareError(f"nvflare {question}: broken", "BROKEN")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def sites(self) -> list[str]:
        self._answer("sites")
        if self.starting:
            self.starting -= 1
            raise FlareError("no server", "CONNECTION_FAILED")
        # One site after the other.
        self.connected = min(self.connected + 1, len(self.expected))
        return self.expected[: self.connected]

    def live(self, job_id: str) -> dict | None:
        self._answer("live")
        return {"FedMEPDController": self.phases.pop(0)} if self.phases else None

    def status(self, job_id: str) -> str:
        self._answer("status")
        return self.end


@pytest.fixture
def flare(monkeypatch):
    made = Flare()
    monkeypatch.setattr(Poc, "_flare", lambda poc, *arguments: made(poc, *arguments))
    monkeypatch.setattr(Poc, "_session", lambda poc: made)
    monkeypatch.setattr(Poc, "poll_seconds", 0)
    return made


@pytest.fixture
def data(tmp_path):
    for name in ("site-1", "north", "fusion"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path / "data"


@pytest.fixture
def job(tmp_path):
    (tmp_path / "job").mkdir()
    meta = {"name": "job", "deploy_map": {"app": ["server", "site-1", "site-2"]}}
    (tmp_path / "job" / "meta.json").write_text(json.dumps(meta))
    return tmp_path / "job"


def command(name, tmp_path, *arguments):
    return cli.main(["poc", name, *map(str, arguments), "--workspace", str(tmp_path / "w")])


def run(tmp_path, job, data, *more):
    return command("run", tmp_path, job, "--sites", "site-1", "north", "--data", data, *more)


def test_all_in_one(flare, tmp_path, data, job, capsys):
    assert run(tmp_path, job, data) == 0
    printed = capsys.readouterr().out
    for text in ("round 0: the fusion site trains", "round 3/20: 7 sites", "testing the models"):
        assert printed.count(text) == 1
    # In the table of regions, and in that of lesions.
    assert printed.count("mean of the sites") == 2
    # The server is there at the third question, the second site at the fourth.
    assert flare.commands[:7] == ["poc prepare", "poc start", *["sites"] * 4, "job submit"]
    assert "job download" in flare.commands
    assert "stopped; no process and no port is left" in printed
    for kit, name in (("site-1", "site-1"), ("north", "north"), ("localhost", "fusion")):
        settings = json.loads((Poc(tmp_path / "w").kit(kit) / "local" / "fedmepd.json").read_text())
        assert settings == {"data": str(data / name)}
    # North is not among the sites that the job names.
    assert flare.meta["deploy_map"] == {"app": ["@ALL"]}
    assert json.loads((job / "meta.json").read_text())["deploy_map"]["app"] == ["server", "site-1", "site-2"]


def settings_of(tmp_path, kit):
    file = Poc(tmp_path / "w").kit(kit) / "local" / "fedmepd.json"
    return json.loads(file.read_text()) if file.exists() else None


@pytest.fixture
def real_job(tmp_path):
    """A job with settings, for site 1 and the server."""
    (tmp_path / "real/app/config").mkdir(parents=True)
    (tmp_path / "real/meta.json").write_text(json.dumps({"deploy_map": {"app": ["server", "site-1"]}}))
    content = {"workflows": [{"path": "fedmepd.flare.controller.FedMEPDController"}]}
    (tmp_path / "real/app/config/config_fed_server.json").write_text(json.dumps(content))
    return tmp_path / "real"


def test_the_fusion_site_at_a_hospital(flare, tmp_path, data, real_job):
    """The server has no data, the hospital the folder with both; every job that is submitted says so."""
    before = (real_job / "app/config/config_fed_server.json").read_text()
    assert run(tmp_path, real_job, data, "--fusion-site", "north") == 0
    assert settings_of(tmp_path, "localhost") is None
    assert settings_of(tmp_path, "north") == {"data": str(data)}
    assert settings_of(tmp_path, "site-1") == {"data": str(data / "site-1")}
    assert (Poc(tmp_path / "w").server_kit / "local/resources.json").is_file()
    assert flare.fusion_site == "north" and flare.meta["deploy_map"] == {"app": ["@ALL"]}
    assert (real_job / "app/config/config_fed_server.json").read_text() == before
    # Each step can be done alone.
    assert command("submit", tmp_path, real_job) == 0 and flare.fusion_site == "north"


def test_phantoms_of_the_fusion_site_at_a_hospital(flare, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(phantom_cohorts, "ensure_site", lambda root, name, seed: made.append(name) or root / name)
    Poc(tmp_path / "w").prepare(["site-1", "site-2"], None, fusion_site="site-2")
    assert made == ["site-1", "site-2", "fusion"]
    # Made-up cases are nobody's: their sites tell every mean, and a run can be repeated to the bit.
    open_values = {"min_count": 1, "reproducible": "yes"}
    assert settings_of(tmp_path, "site-2") == {"data": str(tmp_path / "w/data"), **open_values}


def test_fusion_sites_that_cannot_be(flare, tmp_path, data, real_job):
    poc = Poc(tmp_path / "w")
    with pytest.raises(FedMEPDError, match="the fusion site 'south': expected one of site-1, north"):
        poc.prepare(["site-1", "north"], data, fusion_site="south")
    assert not flare.commands and not (tmp_path / "w").exists()
    file = real_job / "app/config/config_fed_server.json"
    content = json.loads(file.read_text())

    def ask_for(site):
        content["workflows"][0]["args"] = {"settings": {"fusion": {"site": site}}}
        file.write_text(json.dumps(content))

    ask_for("south")
    poc.prepare(["site-1", "north"], data)
    with pytest.raises(FedMEPDError, match="fusion.site is 'south': expected one of site-1, north"):
        poc.submit(real_job)
    shutil.rmtree(tmp_path / "w" / "poc")
    poc.prepare(["site-1", "north"], data, fusion_site="north")
    ask_for("site-1")
    with pytest.raises(FedMEPDError, match="'site-1', but this workspace was prepared for 'north'"):
        poc.submit(real_job)
    assert "job submit" not in flare.commands
    ask_for("north")
    poc.submit(real_job)
    assert flare.fusion_site == "north"


@pytest.mark.parametrize(
    "left",
    ["site-1/4f6c1d2e-0000-4abc-8def-0123456789ab/fedmepd", "localhost/fedmepd_runs/a", "localhost/fedmepd_jobs/4f6c"],
)
def test_what_an_earlier_job_left_is_kept(flare, tmp_path, data, job, capsys, left):
    """Preparing a workspace anew removes its kits, and with them the sites' models."""
    Poc(tmp_path / "w").prepare(["site-1", "north"], data)
    model = Poc(tmp_path / "w").kit(left) / "model_best.pt"
    model.parent.mkdir(parents=True)
    model.touch()
    before = (tmp_path / "w" / "project.yml").read_text()
    assert command("prepare", tmp_path, "--sites", "site-1", "--data", data) == 2
    printed = capsys.readouterr().err
    assert "choose another --workspace" in printed and "fedmepd poc submit" not in printed
    assert left.split("/")[1] in printed and "`fedmepd poc clean`" in printed
    assert [name for name in flare.commands if name != "poc stop"] == ["poc prepare"]
    # A run uses the kits that are there, if they are those that it asks for.
    for options, named in (
        (["--sites", "site-1"], "for the sites site-1 north,"),
        (["--data", tmp_path], f"for the data in {data},"),
        (["--fusion-site", "north"], "for the fusion site at the server,"),
        (["--port", 1], "for port "),
        (["--everywhere"], "for addresses of this machine alone,"),
    ):
        assert command("run", tmp_path, job, *options) == 2
        assert f"was prepared {named}" in capsys.readouterr().err
    assert run(tmp_path, job, data) == 0
    assert flare.commands.count("poc prepare") == 1 and flare.commands.count("job submit") == 1
    assert model.exists() and (tmp_path / "w" / "project.yml").read_text() == before


def settings_of_job(job):
    content = json.loads((job / "app/config/config_fed_server.json").read_text())
    return content["workflows"][0].get("args", {}).get("settings", {})


def test_a_named_run_goes_on(flare, tmp_path, data, real_job, capsys, monkeypatch):
    """Without a job and settings, as it was started; it is not made ready again."""
    submitted = []
    answer = type(flare).__call__

    def submit(self, poc, *arguments):
        if arguments[:2] == ("job", "submit"):
            submitted.append(settings_of_job(Path(arguments[3])))
        return answer(self, poc, *arguments)

    monkeypatch.setattr(type(flare), "__call__", submit)
    watch = Poc.watch
    monkeypatch.setattr(Poc, "watch", lambda poc, job_id: os.kill(os.getpid(), signal.SIGINT))
    before = settings_of_job(real_job)
    options = ["--rounds", "3", "--run-name", "trial", "--set", "network.width=4"]
    assert run(tmp_path, real_job, data, *options) == 130
    assert f"`fedmepd poc run --workspace {tmp_path / 'w'}` goes on with run 'trial'" in capsys.readouterr().err
    monkeypatch.setattr(Poc, "watch", watch)
    assert command("run", tmp_path) == 0
    printed = capsys.readouterr().out
    assert "goes on with run 'trial', which is not finished" in printed
    assert "prod_00/*/fedmepd_runs/trial/*" in printed
    expected = {"rounds": 3, "run_name": "trial", "network": {"width": 4}}
    assert submitted == [expected, expected] and flare.commands.count("poc prepare") == 1
    assert settings_of_job(real_job) == before
    # It is finished: the next run without a job is the default one.
    assert Poc(tmp_path / "w").unfinished() is None


def test_a_damaged_note_of_the_last_run_is_named(tmp_path):
    poc = Poc(tmp_path / "w")
    poc.workspace.mkdir()
    (poc.workspace / "run.json").write_text('{"finished": false, "job": 3}')
    with pytest.raises(FedMEPDError, match="run.json is damaged .*: remove it"):
        poc.unfinished()


@pytest.mark.parametrize("content", ["{}", '{"data": 5}'])
def test_a_kit_without_its_data_folder_is_named(flare, tmp_path, data, content):
    poc = Poc(tmp_path / "w")
    poc.prepare(["site-1"], data)
    (file := poc.kit("site-1") / "local/fedmepd.json").write_text(content)
    with pytest.raises(FedMEPDError, match=f"{file}: data = (None|5): expected the folder of the site's cases"):
        poc.require_fit(None, data, None)


def test_settings_that_cannot_be(flare, tmp_path, data, real_job, capsys):
    for options, message in (
        (["--rounds", "0"], "rounds = 0"),
        (["--set", "training.epochs=1"], "unknown key training.epochs"),
        (["--set", "rounds=3"], "--set rounds=3: say --rounds"),
        (["--set", "data.phantom=hospitals"], "say --data FOLDER; `fedmepd data phantom FOLDER --cohort`"),
    ):
        assert run(tmp_path, real_job, data, *options) == 2
        assert message in capsys.readouterr().err
    assert "job submit" not in flare.commands


def test_a_workspace_that_no_job_has_used_is_prepared_again(flare, tmp_path, data):
    Poc(tmp_path / "w").prepare(["site-1", "north"], data)
    shutil.rmtree(tmp_path / "w" / "poc")
    Poc(tmp_path / "w").prepare(["site-1"], data)
    assert Poc(tmp_path / "w").sites() == ["site-1"]


def test_downloaded_results_are_not_replaced(flare, tmp_path, data, capsys):
    """FLARE would remove the folder first, and with it the report that somebody has made there."""
    Poc(tmp_path / "w").prepare(["site-1"], data)
    assert command("download", tmp_path, "j1") == 0
    report = tmp_path / "w/results/j1/workspace/report/report.html"
    report.parent.mkdir()
    report.touch()
    assert command("download", tmp_path, "j1") == 2
    assert "j1 is there already: choose another --out" in capsys.readouterr().err and report.exists()
    assert command("download", tmp_path, "j1", "--out", tmp_path / "other") == 0
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["j1"]


def test_a_download_that_is_broken_off_leaves_nothing(flare, tmp_path, data, capsys):
    Poc(tmp_path / "w").prepare(["site-1"], data)
    flare.fails = "job download"
    assert command("download", tmp_path, "j1") == 2
    assert list((tmp_path / "w/results").iterdir()) == []
    flare.fails = ""
    assert command("download", tmp_path, "j1") == 0


@pytest.mark.parametrize("fails", ["poc prepare", "poc start", "job submit", "live", "status", "job download"])
def test_a_failure_at_any_step_stops_everything(flare, tmp_path, data, job, capsys, fails, monkeypatch):
    stopped = []
    monkeypatch.setattr(Poc, "stop", lambda poc: stopped.append(True))
    flare.fails = fails
    assert run(tmp_path, job, data) == 2
    assert f"nvflare {fails}: broken" in capsys.readouterr().err and stopped == [True]


def test_sites_that_do_not_come(flare, tmp_path, data, job, capsys, monkeypatch):
    monkeypatch.setattr(Poc, "start_seconds", 0)
    assert run(tmp_path, job, data) == 2
    printed = capsys.readouterr()
    assert (
        "server and sites are not ready after 0 s (no server): see" in printed.err
        and "localhost/log.txt" in printed.err
    )
    assert "stopped; no process and no port is left" in printed.out and "job submit" not in flare.commands


def test_a_job_that_fails(flare, tmp_path, data, job, capsys):
    flare.end = "FINISHED:EXECUTION_EXCEPTION"
    assert run(tmp_path, job, data) == 1
    printed = capsys.readouterr()
    log = tmp_path / "w" / "results" / "j1" / "workspace" / "log.txt"
    assert f"the job ended as FINISHED:EXECUTION_EXCEPTION: its log is {log}" in printed.err
    assert "2026 - x - ERROR - no data" in printed.err and "stopped" in printed.out
    flare.phases = []
    assert command("watch", tmp_path, "j1") == 1
    assert "`fedmepd poc download j1` fetches its log" in capsys.readouterr().err


@pytest.mark.parametrize("inherited", [signal.default_int_handler, signal.SIG_IGN], ids=["at a terminal", "with &"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_everything(flare, tmp_path, data, job, capsys, how, inherited, monkeypatch):
    """Also of a command that a script has started with ``&``, which inherits that interrupts are ignored."""
    monkeypatch.setattr(Poc, "watch", lambda poc, job_id: os.kill(os.getpid(), how))
    outside = signal.signal(signal.SIGINT, inherited)
    try:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        assert run(tmp_path, job, data) == 130
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    finally:
        signal.signal(signal.SIGINT, outside)
    assert "stopped; no process" in capsys.readouterr().out


def test_stop_ends_what_belongs_to_the_workspace_alone(flare, tmp_path, data):
    """Also what does not answer FLARE, and what ignores a request to end."""
    poc = Poc(tmp_path / "w")
    poc.prepare(["site-1"], data)
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    ours, other = (
        subprocess.Popen([sys.executable, "-c", stubborn, place], stdout=subprocess.PIPE)
        for place in (str(poc.kit("site-1") / "x"), str(tmp_path / "another" / "x"))
    )
    try:
        for process in (ours, other):
            process.stdout.readline()
        assert [process.pid for process in poc.processes()] == [ours.pid]
        with pytest.raises(FedMEPDError, match="is running: stop it first"):
            poc.prepare(["site-1"], data)
        with pytest.raises(FedMEPDError, match="is running: stop it first"):
            poc.clean()
        flare.fails = "poc stop"
        poc.stop_seconds = 0.1
        poc.stop()
        assert ours.wait(5) == -signal.SIGKILL and other.poll() is None and poc.processes() == []
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_run_that_is_under_way_is_not_stopped(flare, tmp_path, data, job, capsys, monkeypatch):
    stopped = []
    monkeypatch.setattr(Poc, "stop", lambda poc: stopped.append(True))
    poc = Poc(tmp_path / "w")
    with poc.alone():
        assert run(tmp_path, job, data) == 2
        assert "is at work in" in capsys.readouterr().err
    poc.prepare(["site-1", "north"], data)
    code = "import time; print(1, flush=True); time.sleep(60)"
    site = subprocess.Popen([sys.executable, "-c", code, str(poc.kit("site-1") / "x")], stdout=subprocess.PIPE)
    try:
        site.stdout.readline()
        assert run(tmp_path, job, data) == 2
        told = f"is running: stop it first, `fedmepd poc stop --workspace {tmp_path / 'w'}`"
        assert told in capsys.readouterr().err and not stopped
    finally:
        site.kill()
        site.wait()
        site.stdout.close()


def test_a_port_that_closes_late_is_waited_for(flare, tmp_path, data):
    """A process that ends loses its command line, by which it is found, before its ports."""
    poc = Poc(tmp_path / "w")
    poc.prepare(["site-1"], data)
    late = socket.create_server(("127.0.0.1", poc._server_ports()[1]))
    timer = threading.Timer(1.5, late.close)
    timer.start()
    poc.stop()
    assert not timer.is_alive()


def test_a_port_that_stays_open_is_told(flare, tmp_path, data):
    poc = Poc(tmp_path / "w")
    poc.port_seconds = 0.5
    poc.prepare(["site-1"], data)
    with socket.create_server(("127.0.0.1", poc._server_ports()[0])), pytest.raises(FedMEPDError, match="port"):
        poc.stop()


@pytest.mark.parametrize(
    ("everywhere", "name"), [(False, "localhost"), (True, socket.gethostname())], ids=["loopback", "everywhere"]
)
def test_where_the_server_listens(flare, tmp_path, data, everywhere, name):
    """Of a server called localhost, FLARE listens on loopback alone."""
    Poc(tmp_path / "w").prepare(["site-1"], data, port=29871, everywhere=everywhere)
    project = yaml.safe_load((tmp_path / "w" / "project.yml").read_text())
    [server] = [entry for entry in project["participants"] if entry["type"] == "server"]
    assert (server["name"], server["fed_learn_port"], server["admin_port"]) == (name, 29871, 29872)


@pytest.mark.parametrize(
    ("sites", "expected"),
    [(["site-1", "south"], "south does not exist: expected a sub-folder"), (["site-1", "site-1"], "each name once")],
)
def test_sites_that_cannot_be(flare, tmp_path, data, sites, expected):
    with pytest.raises(FedMEPDError, match=expected):
        Poc(tmp_path / "w").prepare(sites, data)
    assert not flare.commands and not (tmp_path / "w").exists()


def test_a_folder_of_two_sites(flare, tmp_path, data):
    (data / "south").symlink_to(data / "site-1")
    with pytest.raises(FedMEPDError, match="site-1 and .*south are the same folder"):
        Poc(tmp_path / "w").prepare(["site-1", "south"], data)
    assert not flare.commands and not (tmp_path / "w").exists()


def test_two_sites_with_the_same_files(flare, tmp_path, data):
    (data / "site-1" / "case").mkdir()
    (data / "site-1" / "case" / "t1.nii.gz").touch()
    os.link(data / "site-1" / "case" / "t1.nii.gz", data / "north" / "other.nii.gz")
    with pytest.raises(FedMEPDError, match="site-1 and north have 1 file in common through links, such as "):
        Poc(tmp_path / "w").prepare(["site-1", "north"], data)
    assert not flare.commands and not (tmp_path / "w").exists()


def test_a_port_that_is_taken(flare, tmp_path, data):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(FedMEPDError, match="is taken"):
        Poc(tmp_path / "w").prepare(["site-1"], data, port=taken.getsockname()[1])


def test_folders_that_are_something_else(flare, tmp_path, data, job, capsys):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "thesis.tex").touch()
    with pytest.raises(FedMEPDError, match="is no POC workspace: choose another folder"):
        Poc(tmp_path / "w").prepare(["site-1"], data)
    for name in (("start",), ("clean",), ("submit", job), ("watch", "j1"), ("download", "j1")):
        assert command(name[0], tmp_path, *name[1:]) == 2
        assert "is no POC workspace: `fedmepd poc prepare` makes one" in capsys.readouterr().err
    assert (tmp_path / "w" / "thesis.tex").exists() and not flare.commands
    assert command("stop", tmp_path) == 0


def test_commands_go_to_this_workspaces_server_whatever_kit_flare_has_noted(tmp_path, data, job):
    asked = []

    def answer(arguments, *, poc, kit):
        asked.append((" ".join(arguments[:2]), poc, kit))
        return {"job_id": "j1"}

    @contextmanager
    def session(kit):
        asked.append(("session", kit))
        yield SimpleNamespace(sites=lambda: ["site-1"])

    poc = Poc(tmp_path / "w", flare=answer, open_session=session)
    poc.workspace.mkdir()
    parties = [{"name": "site-1", "type": "client"}, {"name": "localhost", "type": "server"}]
    (poc.workspace / "project.yml").write_text(yaml.safe_dump({"participants": parties}))
    poc.start()
    poc.submit(job)
    admin = tmp_path / "w/poc/fedmepd_poc/prod_00/admin@poc.local"
    folder = tmp_path / "w/poc"
    # FLARE's command poc finds the kit in its folder, and takes no other.
    assert asked == [("poc start", folder, None), ("session", admin), ("job submit", folder, admin)]


def test_a_workspace_without_its_admin_is_not_waited_for(flare, tmp_path, data, monkeypatch):
    poc = Poc(tmp_path / "w")
    poc.prepare(["site-1"], data)
    monkeypatch.setattr(Poc, "_session", lambda poc: AdminSession(poc.kit("admin@poc.local")))
    with pytest.raises(FlareError, match="startup kit path does not exist"):
        poc.start()


def test_a_folder_that_is_no_job(flare, tmp_path, data):
    poc = Poc(tmp_path / "w")
    poc.prepare(["site-1"], data)
    with pytest.raises(FedMEPDError, match="data is no job"):
        poc.submit(data)


def test_clean(flare, tmp_path, data):
    poc = Poc(tmp_path / "w")
    poc.prepare(["site-1"], data)
    poc.clean()
    assert not (tmp_path / "w").exists() and flare.commands[-1] == "poc clean" and (data / "site-1").exists()
