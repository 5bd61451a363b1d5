"""Sites are let into a running job: what the server's component asks of FLARE, by a stand-in for its engine."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
from nvflare.apis.client import Client
from nvflare.apis.fl_constant import RunProcessKey
from nvflare.apis.job_def import JobMetaKey
from nvflare.private.admin_defs import Message, error_reply, ok_reply
from nvflare.private.defs import TrainingTopic
from nvflare.private.fed.server.job_runner import JobRunner

from fedmepd.flare import admission
from tests.flare.fakes import Engine as PlainEngine

JOB = "job-1"


class Reply:
    def __init__(self, reply):
        self.reply = reply


class Engine(PlainEngine):
    """A server with one running job of sites a and b, both connected."""

    def __init__(self, root, monkeypatch):
        super().__init__(root)
        self.sites = {f"{name}1": Client(name, f"{name}1") for name in "ab"}
        self.participants = dict(self.sites)
        self.run_processes = {JOB: {RunProcessKey.PARTICIPANTS: self.participants}}
        self.disabled: set[str] = set()
        self.client_manager = SimpleNamespace(
            clients=dict(self.sites), is_client_disabled=lambda name: name in self.disabled
        )
        self.running_at = set(self.sites)
        self.job = SimpleNamespace(
            job_id=JOB,
            resource_spec={"c": {"gpu": 1}},
            meta={},
            get_deployment=lambda: {"app": ["server", "@ALL"]},
            get_application=lambda app, fl_ctx: b"",
        )
        self.server = SimpleNamespace(_job_reported_clients={JOB: {"a1", "b1"}}, admin_server=self)
        self.job_runner = SimpleNamespace(resolve_client_outcome=lambda *what: self.forgiven.add(what))
        self.timeout = 1.0
        self.forgiven: set[tuple[str, str]] = set()
        self.deployed: list[str] = []
        self.started: list[tuple[str, list[str]]] = []
        self.enough = True
        self.status_replies: dict[str, object] = {}
        self.deploy_reply = ok_reply()
        self.start_replies: list[Message | None] = []
        config = self.workspace.get_server_app_config_file_path(JOB)
        self.write_config(config, "fedmepd.flare.controller.FedMEPDController")
        monkeypatch.setattr(JobRunner, "_make_deploy_message", lambda *_: Message("deploy", b""))

    def write_config(self, path, controller):
        from pathlib import Path

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps({"workflows": [{"path": controller}]}))

    def get_component(self, name):
        return SimpleNamespace(get_job=lambda job_id, fl_ctx: self.job)

    def check_client_resources(self, job, requirements, fl_ctx):
        return {name: (self.enough, "token" if self.enough else "no GPU") for name in requirements}

    def send_requests_and_get_reply_dict(self, requests, timeout_secs):
        if {message.topic for message in requests.values()} == {TrainingTopic.CHECK_STATUS}:
            jobs = [{"job_id": JOB}]
            said = {token: json.dumps({"running_jobs": jobs if token in self.running_at else []}) for token in requests}
            return {token: ok_reply(body=self.status_replies.get(token, said[token])) for token in requests}
        [(token, _)] = requests.items()
        self.deployed.append(token)
        return {token: self.deploy_reply}

    def start_client_job(self, job, dispatches, fl_ctx):
        [name] = dispatches
        # What a site gets to know of the others is what the job's meta holds now.
        self.started.append((name, sorted(one["name"] for one in job.meta[JobMetaKey.JOB_CLIENTS])))
        reply = self.start_replies.pop(0) if self.start_replies else ok_reply(body="Start the client app...")
        return [Reply(reply)]

    def connect(self, name, token):
        for old, client in list(self.client_manager.clients.items()):
            if client.name == name:
                del self.client_manager.clients[old]
        self.client_manager.clients[token] = Client(name, token)
        self.running_at.add(token)


@pytest.fixture
def engine(tmp_path, monkeypatch):
    return Engine(tmp_path, monkeypatch)


@pytest.fixture
def clock():
    return SimpleNamespace(time=1000.0)


@pytest.fixture
def look(engine, clock, caplog):
    """Lets the component look once; returns what it logged."""
    component = admission.SiteAdmission()
    component.clock = lambda: clock.time
    caplog.set_level(logging.INFO)

    def once() -> str:
        caplog.clear()
        with engine.new_context() as fl_ctx:
            component.admit(engine, fl_ctx)
        return caplog.text

    once.records = lambda: caplog.records
    return once


def test_nobody_waits(engine, look):
    assert look() == "" and engine.started == engine.deployed == []


def test_a_new_site_is_deployed_and_started(engine, look):
    engine.connect("c", "c1")
    assert f"c: let into job {JOB}" in look()
    assert engine.deployed == ["c1"] and engine.started == [("c", ["a", "b", "c"])]
    assert set(engine.participants) == {"a1", "b1", "c1"}
    assert look() == "" and len(engine.started) == 1


def test_a_site_that_is_back_keeps_what_was_deployed(engine, look):
    """It takes its old place: FLARE starts no process at a site that is named twice."""
    engine.connect("a", "a2")
    assert f"a: let into job {JOB}" in look()
    assert engine.deployed == [] and engine.started == [("a", ["a", "b"])]
    assert set(engine.participants) == {"a2", "b1"}


def test_a_site_that_is_back_on_a_new_machine(engine, look):
    engine.connect("a", "a2")
    missing = "NVFLARE_ERROR: Client app does not exist. Please deploy it before starting client."
    engine.start_replies = [ok_reply(body=missing)]
    assert f"a: let into job {JOB}" in look()
    assert engine.deployed == ["a2"] and len(engine.started) == 2 and set(engine.participants) == {"a2", "b1"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"enough": False}, "its resources do not suffice: no GPU"),
        ({"deploy_reply": error_reply("BYOC not permitted")}, "BYOC not permitted"),
        ({"deploy_reply": None}, "no answer"),
        ({"start_replies": [None] * 2}, "no answer"),
        ({"start_replies": [ok_reply(body="NVFLARE_ERROR: broken")] * 2}, "broken"),
    ],
)
def test_what_fails_is_tried_again_after_a_minute(change, reason, engine, look, clock):
    good = {key: getattr(engine, key) for key in change}
    for key, value in change.items():
        setattr(engine, key, value)
    engine.connect("c", "c1")
    line = look()
    assert f"c: not let into job {JOB}: " in line and reason in line
    assert set(engine.participants) == {"a1", "b1"}
    clock.time += 59
    assert look() == ""
    for key, value in good.items():
        setattr(engine, key, value)
    clock.time += 2
    engine.start_replies = []
    assert f"c: let into job {JOB}" in look() and set(engine.participants) == {"a1", "b1", "c1"}


def test_a_site_that_is_back_and_cannot_be_started_keeps_its_place(engine, look):
    engine.connect("a", "a2")
    engine.start_replies = [None]
    assert "a: not let into job" in look()
    assert set(engine.participants) == {"a1", "b1"}


def test_jobs_of_others_and_for_others_are_left_alone(engine, look):
    engine.connect("c", "c1")
    engine.job.get_deployment = lambda: {"app": ["server", "a", "b"]}
    assert look() == "" and engine.started == []
    engine.forgiven.clear()
    engine.job.get_deployment = lambda: {"app": ["server", "a", "b", "c"]}
    engine.write_config(engine.workspace.get_server_app_config_file_path(JOB), "other.Controller")
    assert look() == "" and engine.started == [] and engine.forgiven == set()


def test_a_process_that_has_ended_alone_is_started_again(engine, look, clock):
    """It is no reason to end the job; at the regular end of a job all processes end within seconds."""
    look()
    assert engine.forgiven == {(JOB, "a"), (JOB, "b")}
    engine.running_at.remove("b1")
    assert look() == ""
    clock.time += 14
    assert look() == "" and engine.started == []
    clock.time += 2
    assert f"b: let into job {JOB}" in look()
    assert engine.started == [("b", ["a", "b"])] and engine.deployed == []


def test_a_process_that_was_never_seen_is_not_missed(engine, look, clock):
    """It may still start, and FLARE ends the job if it cannot."""
    engine.server._job_reported_clients = {JOB: {"a1"}}
    engine.running_at = {"a1"}
    look()
    clock.time += 60
    assert look() == "" and engine.started == [] and engine.forgiven == {(JOB, "a")}


def test_a_process_that_is_seen_again_is_not_missed(engine, look, clock):
    look()
    engine.running_at.remove("b1")
    look()
    engine.running_at.add("b1")
    clock.time += 10
    look()
    engine.running_at.remove("b1")
    clock.time += 10
    assert look() == "" and engine.started == []


def test_a_site_that_is_disabled_leaves_the_job(engine, look):
    """And is let in again once it is enabled and logs in."""
    engine.disabled.add("b")
    del engine.client_manager.clients["b1"]
    assert f"b: disabled, gets no more of job {JOB}" in look()
    assert set(engine.participants) == {"a1"} and look() == ""
    engine.disabled.clear()
    engine.connect("b", "b2")
    assert f"b: let into job {JOB}" in look() and set(engine.participants) == {"a1", "b2"}
    assert engine.deployed == []


@pytest.mark.parametrize(
    "answer",
    [
        '{"running_jobs": 5}',
        '{"running_jobs": [1, {}]}',
        "[" * 10**5,
        "[]",
        "5",
        "\xff",
        b"\xff",
        None,
        {"running_jobs": 1},
    ],
    ids=lambda answer: repr(answer)[:30],
)
def test_a_site_that_answers_nonsense_keeps_nobody_outside(answer, engine, look):
    """The component would fail at its answer every time, and let nobody in any more."""
    engine.status_replies["a1"] = answer
    engine.connect("c", "c1")
    assert f"c: let into job {JOB}" in look()


def test_a_newcomer_whose_answer_flare_cannot_read_keeps_nobody_outside(engine, look, monkeypatch):
    """FLARE takes it apart, and fails; the next site is let in all the same, and the other one has no place."""
    honest = engine.check_client_resources

    def check(job, requirements, fl_ctx):
        if "c" in requirements:
            raise AttributeError("'str' object has no attribute 'get_header'")
        return honest(job, requirements, fl_ctx)

    monkeypatch.setattr(engine, "check_client_resources", check)
    engine.connect("c", "c1")
    engine.connect("d", "d1")
    said = look()
    assert f"d: let into job {JOB}" in said and f"c: not let into job {JOB}: AttributeError" in said
    assert set(engine.participants) == {"a1", "b1", "d1"}


def test_what_a_site_says_is_cut_and_printable(engine, look):
    engine.deploy_reply = error_reply("\x1b[2J\nsite-2: let into job" + "x" * 10**5)
    engine.connect("c", "c1")
    look()
    [line] = [record.message for record in look.records()]
    assert r"\x1b[2J\nsite-2" in line and line.isprintable() and len(line) < 400
