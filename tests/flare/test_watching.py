"""A job as an admin sees it from outside, by a FLARE that answers as FLARE does; tests/system has the real one."""

import json
from pathlib import Path

import pytest

from fedmepd.cli import main
from fedmepd.errors import SettingsError
from fedmepd.evaluation import results
from fedmepd.flare.kits import ADMIN, SERVER, SITE, admin_kit, kind_of
from fedmepd.flare.poc.commands import FlareError
from fedmepd.flare.watching import COMPLETED, download, naming_jobs, watch
from tests.evaluation import runs
from tests.flare.test_progress import LIVE


class Answering:
    """A job that gives these states, and then has ended."""

    def __init__(self, *stats, status=COMPLETED):
        self.left, self.end = list(stats), status

    def live(self, job_id):
        assert job_id == "j1"
        return {"FedMEPDController": self.left.pop(0)} if self.left else None

    def status(self, job_id):
        assert job_id == "j1"
        return self.end


@pytest.mark.parametrize(
    ("status", "text"),
    [(COMPLETED, "finished"), ("FINISHED:ABORTED", "it was aborted"), ("FINISHED:X", "FINISHED:X")],
)
def test_each_round_once_and_the_end(status, text):
    told, events = [], {}

    def tell(event, line, live):
        told.append(line)
        events[event] = live

    later = LIVE | {"last_round": LIVE["last_round"] | {"round": 4}, "seconds_left": 120}
    assert watch(Answering(LIVE, LIVE, later, status=status), "j1", tell, 0) == status
    assert [line.partition(":")[0] for line in told] == ["round 3/20", "round 4/20", "job j1"]
    assert "mDSC of the sites 0.600" in told[1] and told[1].endswith("2 min of rounds left")
    assert told[-1] == f"job j1: {text}"
    assert events == {"round 3": LIVE, "round 4": later, "end": {"status": status}}


def test_a_server_that_would_rewrite_the_terminal():
    told = []
    evil = "site-1\x1b[2J\n\u202e"
    live = LIVE | {"last_round": LIVE["last_round"] | {"missing": [evil]}}
    watch(Answering(live, status=f"FINISHED{evil}"), "j1", lambda event, line, of: told.append(line), 0)
    assert len(told) == 2 and all(line.isprintable() and r"\x1b[2J" in line for line in told)


UNKNOWN = FlareError("Job 'j1' does not exist. Use 'nvflare job list' to see available job IDs.", "JOB_NOT_FOUND")


class Unknowing:
    """A server that has these jobs and not the one that is asked for, in a session and by FLARE's commands."""

    def __init__(self, jobs):
        self.jobs = jobs

    def live(self, job_id):
        return None

    def status(self, job_id):
        raise UNKNOWN

    def ask(self, *arguments):
        if arguments[:2] != ("job", "list"):
            raise UNKNOWN
        # The newest ten and one more, which says that there are others.
        assert arguments[2:] == ("--reverse", "--max", "11")
        if isinstance(self.jobs, FlareError):
            raise self.jobs
        return self.jobs[:11]


@pytest.mark.parametrize("command", ["watch", "download"])
@pytest.mark.parametrize(
    ("jobs", "told"),
    [
        ([], "the server has no job j1, and no other that you may see"),
        (
            [
                {"job_id": "j3", "job_name": "trial\x1b[2J", "status": "RUNNING"},
                {"job_id": "j2", "job_name": "first", "status": COMPLETED},
            ],
            r"the server has no job j1. Its jobs, the newest first: j3 (trial\x1b[2J, RUNNING), j2 (first, "
            "FINISHED:COMPLETED)",
        ),
        ([{"job_id": f"{n}" * 30} for n in range(5)] * 3, f"{'4' * 30}, and more: `nvflare job list`"),
        (FlareError("no rights", "NOT_AUTHORIZED"), "Job 'j1' does not exist. Use 'nvflare job list'"),
    ],
)
def test_the_jobs_of_a_server_that_does_not_know_one(command, jobs, told, tmp_path):
    server = Unknowing(jobs)
    with pytest.raises(FlareError) as caught, naming_jobs(server.ask, "j1"):
        watch(server, "j1", print, 0) if command == "watch" else download(server.ask, "j1", tmp_path, print)
    assert told in str(caught.value) and str(caught.value).isprintable()


def test_other_errors_name_no_jobs():
    with pytest.raises(FlareError, match="^away$"), naming_jobs(Unknowing([]).ask, "j1"):
        raise FlareError("away", "CONNECTION_FAILED")


def test_a_server_whose_words_are_not_understood_is_followed_to_the_end():
    told = []
    live = LIVE | {"rounds": "many", "last_round": {"round": 1}}
    watch(Answering(live, live), "j1", lambda event, line, of: told.append(line), 0)
    assert len(told) == 2 and told[1] == "job j1: finished"
    assert told[0].startswith("what the server tells of its rounds: ") and "rounds" in told[0]
    assert told[0].endswith("this computer and the server may have other versions of this package")


def test_results_are_fetched_once(tmp_path):
    def ask(*arguments):
        assert arguments[:4] == ("job", "download", "j1", "-o")
        results.write(Path(arguments[4]) / "j1/workspace/results", runs.finished(), {})
        return {"path": f"{arguments[4]}/j1"}

    told = []
    assert download(ask, "j1", tmp_path / "out", told.append) == tmp_path / "out/j1"
    assert results.find(tmp_path / "out").is_file() and told == [f"downloaded the job's results to {tmp_path}/out/j1"]
    with pytest.raises(Exception, match="is there already: choose another --out"):
        download(ask, "j1", tmp_path / "out", told.append)


def kit(folder, file):
    (folder / "startup").mkdir(parents=True)
    (folder / "startup" / file).write_text(json.dumps({}))
    return folder


def test_whose_kit_it_is(tmp_path):
    for kind, file in ((SERVER, "fed_server.json"), (SITE, "fed_client.json"), (ADMIN, "fed_admin.json")):
        assert kind_of(kit(tmp_path / kind, file)) == kind
    with pytest.raises(SettingsError, match="is no FLARE kit: expected a folder with startup/fed_server.json or"):
        kind_of(tmp_path)
    assert admin_kit(str(tmp_path / ADMIN)) == tmp_path / ADMIN
    with pytest.raises(SettingsError, match="is the kit of a site: expected that of an admin"):
        admin_kit(str(tmp_path / SITE))


def test_a_name_that_nobody_has_noted(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["watch", "--kit", "lead@somewhere.org", "j1"]) == 2
    printed = capsys.readouterr().err
    assert "--kit lead@somewhere.org: neither a folder nor a name" in printed and "`fedmepd join FOLDER`" in printed


def test_a_place_for_results_that_cannot_be_is_refused_before_the_job_is_watched(tmp_path, capsys):
    admin = kit(tmp_path / "lead", "fed_admin.json")
    (tmp_path / "file").touch()
    (tmp_path / "out/j1").mkdir(parents=True)
    for place, message in (("file", "is a file"), ("out", "holds job j1 already")):
        assert main(["watch", "j1", "--kit", str(admin), "--download", str(tmp_path / place)]) == 2
        assert f"--download {tmp_path / place}: it {message}; choose another folder" in capsys.readouterr().err
