"""Questions in one session, to a FLARE that answers as FLARE does; tests/system has the real one."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from nvflare.fuel.flare_api.api_spec import (
    AuthenticationError,
    InternalError,
    JobNotFound,
    JobNotRunning,
    NoConnection,
    SessionExpired,
)
from nvflare.tool.kit.kit_config import StartupKitConfigError

from fedmepd.flare.admin_session import BAD_KIT, AdminSession
from fedmepd.flare.poc.commands import CONNECT_SECONDS, FlareError
from tests.doctor.conftest import provisioned  # noqa: F401
from tests.signals import heeding_interrupts


class Flare:
    """A session that gives these answers one after the other, and raises those that are errors."""

    def __init__(self, *answers):
        self.answers, self.asked, self.closed = list(answers), [], 0

    def show_stats(self, job_id, target_type):
        return self.answer("stats", job_id, target_type)

    def get_job_meta(self, job_id):
        return self.answer("meta", job_id)

    def get_system_info(self):
        return self.answer("info")

    def answer(self, *question):
        self.asked.append(question)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        self.closed += 1
        raise NoConnection("it is gone")


def opened(*sessions):
    """An AdminSession that opens these, how often it has opened one, and how long it has waited."""
    left, kits, waited = list(sessions), [], []

    def clock():
        return sum(waited)

    def open_session(kit):
        kits.append(kit)
        if isinstance(left[0], Exception):
            raise left.pop(0) if len(left) > 1 else left[0]
        return left.pop(0)

    return AdminSession("the kit", open_session, waited.append, clock), kits, waited


def test_one_session_for_all_questions():
    flare = Flare({"server": {"FedMEPDController": {"round": 3}}}, {}, {"status": "RUNNING"})
    session, kits, waited = opened(flare)
    with session:
        assert not kits
        assert session.live("j1") == {"FedMEPDController": {"round": 3}}
        assert session.live("j1") == {}
        assert session.status("j1") == "RUNNING"
    # The server alone is asked for the state: sites have better things to do.
    assert flare.asked == [("stats", "j1", "server"), ("stats", "j1", "server"), ("meta", "j1")]
    assert kits == ["the kit"] and not waited and flare.closed == 1


def test_sites_that_are_connected():
    session, _, _ = opened(Flare(SimpleNamespace(client_info=[SimpleNamespace(name="site-1")])))
    assert session.sites() == ["site-1"]


def test_without_a_kit_the_message_says_how_to_name_one(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for place, expected in (
        ("", "no active startup kit is configured"),
        ("gone", "points to a missing path Path: gone"),
    ):
        monkeypatch.setenv("NVFLARE_STARTUP_KIT_DIR", place)
        with pytest.raises(FlareError, match=expected) as caught, AdminSession() as session:
            session.status("some job")
        assert str(caught.value).endswith("with --kit FOLDER, or note it with `fedmepd join FOLDER`")
        assert caught.value.code == BAD_KIT


@pytest.mark.parametrize("error", [JobNotFound("j1"), JobNotRunning("j1")])
def test_a_job_that_does_not_run(error):
    session, kits, _ = opened(Flare(error, {"status": "FINISHED:COMPLETED"}))
    assert session.live("j1") is None and session.status("j1") == "FINISHED:COMPLETED"
    assert len(kits) == 1


@pytest.mark.parametrize("error", [NoConnection("gone"), SessionExpired("another one")])
def test_another_session_where_the_server_has_ended_it_or_starts_again(error):
    first, second = Flare({"server": {"a": 1}}, error), Flare({"server": {"a": 2}})
    session, kits, waited = opened(first, NoConnection("not yet"), InternalError("login failed"), second)
    assert [session.live("j1"), session.live("j1")] == [{"a": 1}, {"a": 2}]
    assert len(kits) == 4 and waited == [1.0] * 3 and first.closed == 1


def test_a_server_that_stays_away():
    session, kits, waited = opened(NoConnection("nobody there"))
    with pytest.raises(FlareError, match=r"does not answer \(nobody there\): look whether it runs") as raised:
        session.live("j1")
    assert raised.value.code == "CONNECTION_FAILED"
    assert (len(kits), sum(waited)) == (CONNECT_SECONDS + 1, CONNECT_SECONDS)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AuthenticationError("bad certificate"), "the server refuses: bad certificate"),
        (StartupKitConfigError("no active kit", hint="Run this."), "no active kit. Run this."),
        (StartupKitConfigError("no such kit"), "no such kit."),
        (FileNotFoundError("no fed_admin.json"), "FLARE cannot answer: no fed_admin.json"),
    ],
)
def test_what_waiting_does_not_mend(error, message):
    session, _, waited = opened(error)
    with pytest.raises(FlareError) as raised:
        session.status("j1")
    assert str(raised.value) == message and not waited


def test_an_answer_that_cannot_be_used():
    session, _, _ = opened(Flare({"server": "x"}, {}, {"status": 3}))
    assert session.live("j1") == {}
    for _ in range(2):
        with pytest.raises(FlareError, match="it gives job j1 no status"):
            session.status("j1")
    session, _, waited = opened(Flare(InternalError("syntax")))
    with pytest.raises(FlareError, match="FLARE cannot answer: syntax"):
        session.status("j1")
    assert not waited


def test_a_job_that_nobody_knows():
    session, _, _ = opened(Flare(JobNotFound("no such job")))
    with pytest.raises(FlareError, match="the server has no job j1") as raised:
        session.status("j1")
    assert raised.value.code == "JOB_NOT_FOUND"


def test_who_interrupts_while_a_session_opens_is_let_go(provisioned, tmp_path):  # noqa: F811
    """FLARE's threads end with it: they would keep the process from ending, for ever."""
    kit = Path(shutil.copytree(provisioned / "boss@a.org", tmp_path / "kit"))
    others = set(threading.enumerate())

    def interrupt():
        while not any(thread.name.startswith("conn_mgr") for thread in set(threading.enumerate()) - others):
            time.sleep(0.05)
        # By then FLARE has begun to try.
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)

    # Nobody listens there, so that FLARE would try for half a minute.
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt), heeding_interrupts(), AdminSession(kit) as session:
        session.live("j1")
    end = time.monotonic() + 10
    while left := [one for one in threading.enumerate() if one not in others and one.name.startswith("conn_mgr")]:
        assert time.monotonic() < end, left
        time.sleep(0.05)
