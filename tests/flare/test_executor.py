import logging
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.signal import Signal
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector

from fedmepd.disclosure import OPEN
from fedmepd.errors import Aborted, DataError
from fedmepd.federation.exchange import FusionReply, FusionTask, ModelCopy, Payload, SiteProfile, Update
from fedmepd.flare import loading, translation
from fedmepd.flare.executor import FedMEPDExecutor, seconds_since_start
from fedmepd.flare.opening import open_site
from fedmepd.flare.translation import Run
from fedmepd.job_settings import make_settings
from fedmepd.site_limits import HIGHEST, Limits
from fedmepd.tasks.brats import BRATS
from tests.flare.fakes import CASES, Engine

SETTINGS = make_settings("phantom", {"run_name": "first"})
IDENTITY, OTHER = "1" * 32, "2" * 32


class Site:
    """A site that does what its task says at once, or fails with ``error``."""

    def __init__(self, run, fl_ctx):
        self.run, self.device = run, torch.device("cpu")
        self.name = fl_ctx.get_identity_name()
        self.error = None
        self.disclosure = OPEN
        self.limits = HIGHEST

    def profile(self, fusion=None):
        return SiteProfile(self.name, ("T2",), CASES, "folder", fusion=fusion)

    def train(self, payload, abort):
        if self.error:
            raise self.error
        if abort():
            raise Aborted
        return Update(payload.round, {"w": torch.ones(1)}, {"losses": {"total": 0.25}, "steps": 3, "seconds": 1.5})

    def test(self, payload, abort):
        return {"test": {"mdsc": 0.5}}

    def give_model(self):
        return ModelCopy(("T2",), {"w": torch.ones(2)})

    def test_model(self, model, abort):
        return {"test": None, "cases": len(model.tensors["w"]), "for": model.modalities}

    def stats(self):
        return {"step": 3}

    def cases_behind(self):
        return {"updates": 3, "losses": 3, "test_scores": 1}


class Desk:
    """A fusion site's desk that adds one to every tensor."""

    def __init__(self):
        self.site = SimpleNamespace(data=SimpleNamespace(counts=lambda: CASES), disclosure=OPEN)
        self.during = lambda: None

    def do(self, task, abort, progress):
        if abort():
            raise Aborted
        progress(2, 0.5)
        self.during()
        tensors = {key: value + 1 for key, value in task.tensors.items()}
        return FusionReply(task.round, "v2", tensors, report={"losses": {}, "cases": 3, "seconds": 1.0})


def make(desk=None, fails=None):
    """An executor whose sites are fakes; they are kept in ``made``."""
    executor = FedMEPDExecutor()
    executor.made = []

    def open_site(run, log, fl_ctx):
        executor.made.append(Site(run, fl_ctx))
        executor.made[-1].error = fails() if fails else None
        return executor.made[-1], desk

    executor.open_site = open_site
    executor.load = lambda: None
    return executor


@pytest.fixture
def context(tmp_path):
    with Engine(tmp_path, "site-1").new_context() as fl_ctx:
        yield fl_ctx


def execute(executor, context, name, identity=IDENTITY, payload=None, abort=None):
    message = translation.task(Run(identity, SETTINGS), payload)
    return executor.execute(name, message, context, abort or Signal())


def test_tasks_reach_the_site(context):
    executor = make()
    assert translation.profile_of("site-1", execute(executor, context, "prepare"), BRATS).modalities == ("T2",)
    update = translation.update_of("site-1", execute(executor, context, "train", payload=Payload(4)))
    assert (update.round, update.tensors["w"].tolist()) == (4, [1.0])
    assert translation.report_of(execute(executor, context, "test", payload=Payload(4))) == {"test": {"mdsc": 0.5}}
    (site,) = executor.made
    assert site.run == Run(IDENTITY, SETTINGS)


def test_models_are_given_and_tested(context):
    executor = make()
    given = translation.model_of(execute(executor, context, "give_model"))
    assert (given.modalities, given.tensors["w"].tolist()) == (("T2",), [1.0, 1.0])
    message = translation.model_task(Run(IDENTITY, SETTINGS), given)
    reply = executor.execute("test_model", message, context, Signal())
    assert translation.report_of(reply) == {"test": None, "cases": 2, "for": ("T2",)}


FUSE = FusionTask("fuse", 3, ["w"], "v1", {"w": torch.zeros(2)})


def test_fusion_site_says_so_and_gets_its_tasks(context):
    desk = Desk()
    executor = make(desk)
    assert translation.profile_of("site-1", execute(executor, context, "prepare"), BRATS).fusion == CASES
    live = []
    desk.during = lambda: live.append(stats(executor, context))
    reply = executor.execute("fusion", translation.fusion_task(Run(IDENTITY, SETTINGS), FUSE), context, Signal())
    found = translation.fusion_reply_of("site-1", reply)
    assert (found.round, found.version, found.tensors["w"].tolist()) == (3, "v2", [1.0, 1.0])
    assert (live[0]["fusion_round"], live[0]["fusion_step"], live[0]["fusion_loss"]) == (3, 2, 0.5)
    assert "fusion_step" not in stats(executor, context)


def test_site_that_is_not_the_fusion_site_refuses_its_task(context):
    message = translation.fusion_task(Run(IDENTITY, SETTINGS), FUSE)
    reply = make().execute("fusion", message, context, Signal())
    assert translation.failure_of(reply) == "this site is not the job's fusion site"


def test_fusion_task_that_makes_no_sense(context):
    reply = execute(make(Desk()), context, "fusion", payload=Payload(1))
    assert "the same version of fedmepd" in translation.failure_of(reply) or reply.get_return_code() != ReturnCode.OK


def test_model_that_is_none(context):
    reply = execute(make(), context, "test_model")
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION


def test_answer_to_prepare_says_how_long_it_took(context):
    # Three seconds after its start the process has the task, and its data two seconds later.
    executor = make()
    executor.clock = iter([3.0, 5.0]).__next__
    answer = execute(executor, context, "prepare")
    assert translation.start_up_of("site-1", answer) == {"process": 3.0, "data": 2.0}


def test_seconds_since_the_start(monkeypatch):
    now = time.time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: now - 7)
    assert 7 <= seconds_since_start() < 17
    # A clock that was put back.
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: now + 100)
    assert seconds_since_start() == 0


def test_everything_is_imported_before_the_data_is_opened(context):
    calls = []
    executor = make(fails=lambda: calls.append("data"))
    executor.load = lambda: calls.append("imports")
    execute(executor, context, "prepare")
    assert calls == ["imports", "data"]


def test_what_an_executor_begins_with():
    executor = FedMEPDExecutor()
    assert (executor.open_site, executor.load, executor.clock) == (open_site, loading.load, seconds_since_start)


def test_site_log_has_a_line_per_round(context, caplog):
    caplog.set_level(logging.INFO)
    executor = make()
    # Since the start: when the task came, when the site was ready, when training began and ended.
    executor.clock = iter([1.0, 2.0, 3.0, 4.5]).__next__
    execute(executor, context, "train", payload=Payload(4))
    assert "round 4: 3 steps, mean loss 0.250, 1.5 s" in caplog.text


LINE = "x\n2026-01-01 00:00:00,000 - INFO - nothing has left\x1b[2J"


def test_no_text_of_others_is_a_line_of_its_own_in_the_hospitals_log(context, caplog):
    """The server's tasks and the names in the hospital's own files end up in what a site says."""
    caplog.set_level(logging.INFO)
    executor = make()

    def open_site(run, log, fl_ctx):
        log(f"site-1: now has {LINE}")
        raise DataError(f"case {LINE}", f"public {LINE}")

    executor.open_site = open_site
    reply = execute(executor, context, "prepare")
    assert all(record.getMessage().isprintable() for record in caplog.records) and len(caplog.records) == 2
    assert translation.failure_of(reply).startswith(r"public x\n2026-01-01")


def test_state_of_another_run_is_not_used(context):
    executor = make()
    for identity in (IDENTITY, OTHER):
        execute(executor, context, "train", identity, Payload(1))
    assert [site.run.identity for site in executor.made] == [IDENTITY, OTHER]


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (
            DataError("/data/case-7: no", public="a case cannot be read"),
            ReturnCode.EXECUTION_EXCEPTION,
            "a case cannot",
        ),
        (MemoryError(), ReturnCode.EXECUTION_EXCEPTION, "out of memory"),
        (torch.OutOfMemoryError(), ReturnCode.EXECUTION_EXCEPTION, "out of memory"),
        (ValueError("/data/case-7"), ReturnCode.EXECUTION_EXCEPTION, "ValueError; the site's own log"),
        (Aborted(), ReturnCode.TASK_ABORTED, "the job was stopped"),
    ],
)
def test_failure_is_an_answer_and_the_next_task_starts_from_disk(context, error, code, reason):
    errors = [error, None]
    executor = make(fails=lambda: errors.pop(0))
    reply = execute(executor, context, "train", payload=Payload(1))
    assert reply.get_return_code() == code and translation.failure_of(reply).startswith(reason)
    assert execute(executor, context, "train", payload=Payload(2)).get_return_code() == ReturnCode.OK
    assert len(executor.made) == 2


def test_abort_signal_reaches_the_training(context):
    abort = Signal()
    abort.trigger(True)
    reply = execute(make(), context, "train", payload=Payload(1), abort=abort)
    assert reply.get_return_code() == ReturnCode.TASK_ABORTED


def test_data_that_cannot_be_opened_is_an_answer(context):
    def fail():
        raise DataError("/data/site-1 has no case", public="the data folder of site-1 has no case in it")

    reply = execute(make(fails=fail), context, "prepare")
    assert translation.failure_of(reply) == "the data folder of site-1 has no case in it"


def test_a_run_that_fills_the_disk_is_trained_no_further_and_tested(context, tmp_path):
    executor = make(Desk())
    execute(executor, context, "prepare")
    executor.made[0].limits = Limits(disk_gib=1 / 1024)
    assert execute(executor, context, "train", payload=Payload(1)).get_return_code() == ReturnCode.OK
    state = tmp_path / "fedmepd_runs/first/state.pt"
    state.parent.mkdir(parents=True, exist_ok=True)
    state.write_bytes(bytes(2**20 + 1))
    for message in (translation.task(Run(IDENTITY, SETTINGS), Payload(2)), None):
        name = "train" if message else "fusion"
        message = message or translation.fusion_task(Run(IDENTITY, SETTINGS), FUSE)
        executor.made[-1].limits = Limits(disk_gib=1 / 1024)
        reply = executor.execute(name, message, context, Signal())
        assert "limits.disk_gib is 0.000976562 at this site" in translation.failure_of(reply)
        assert execute(executor, context, "test", payload=Payload(2)).get_return_code() == ReturnCode.OK
    state.unlink()
    assert execute(executor, context, "train", payload=Payload(3)).get_return_code() == ReturnCode.OK


def test_unknown_task(context):
    assert execute(make(), context, "dance").get_return_code() == ReturnCode.TASK_UNKNOWN


def stats(executor, context):
    collector = GroupInfoCollector()
    context.set_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR, collector, sticky=False, private=True)
    executor.handle_event(InfoCollector.EVENT_TYPE_GET_STATS, context)
    return collector.info.get("FedMEPDExecutor")


def test_live_state_for_the_console(context):
    executor = make()
    assert stats(executor, context) is None
    execute(executor, context, "prepare")
    info = stats(executor, context)
    # A process with PyTorch in it holds more than 50 MiB, and less than this machine has.
    assert info.pop("memory_mib") in range(50, psutil.virtual_memory().total // 2**20)
    assert info == {"step": 3}


def test_a_server_that_divides_the_cases_anew_between_two_tests(context):
    """Of two means over nearly the same cases, the difference is the score of one patient."""
    executor = make()
    other = Run(IDENTITY, make_settings("phantom", {"run_name": "first", "data": {"train": 0.45}}))
    assert translation.failure_of(executor.execute("prepare", translation.task(other), context, Signal())) == ""
    assert translation.failure_of(execute(executor, context, "prepare")) == ""
    assert translation.failure_of(execute(executor, context, "test", payload=Payload(2))) == ""
    for process in (executor, make()):
        reply = process.execute("test", translation.task(other, Payload(2)), context, Signal())
        reason = "the server has changed the settings of the run: data.train was 0.5, now 0.45"
        assert translation.failure_of(reply) == reason
    # Another run is another run.
    anew = Run(OTHER, other.settings)
    assert translation.failure_of(executor.execute("test", translation.task(anew, Payload(2)), context, Signal())) == ""
