import logging
from types import SimpleNamespace

import psutil
import pytest
import torch
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.signal import Signal
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector

import fedmepd.data.site
import fedmepd.federation.site
from fedmepd.config import Settings
from fedmepd.errors import Aborted, DataError
from fedmepd.federation.exchange import ModelCopy, Payload, SiteProfile, Update
from fedmepd.flare import executor as module
from fedmepd.flare import loading, translation
from fedmepd.flare.executor import FedMEPDExecutor
from fedmepd.flare.translation import Run
from fedmepd.tasks.brats import BRATS
from tests.flare.fakes import CASES, Engine

SETTINGS = Settings.make("phantom", {"run_name": "first"})


class Site:
    made = []
    error = None

    def __init__(self, name, settings, data, folder, device, log, cross_site):
        self.cross_site = cross_site
        self.name, self.data, self.folder, self.device = name, data, folder, device
        Site.made.append(self)

    def profile(self):
        return SiteProfile(self.name, ("T2",), CASES, "folder")

    def train(self, payload, abort):
        if Site.error:
            raise Site.error
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


@pytest.fixture
def context(tmp_path, monkeypatch):
    Site.made, Site.error = [], None
    monkeypatch.setattr(loading, "load", lambda: None)
    monkeypatch.setattr(fedmepd.federation.site, "FederationSite", Site)
    monkeypatch.setattr(fedmepd.data.site, "open_site_data", lambda name, *_: f"data of {name}")
    with Engine(tmp_path, "site-1").new_context() as fl_ctx:
        yield fl_ctx


def execute(executor, context, name, identity="run-1", payload=None, abort=None):
    message = translation.task(Run(identity, SETTINGS), payload)
    return executor.execute(name, message, context, abort or Signal())


def test_tasks_reach_the_site(context, tmp_path):
    executor = FedMEPDExecutor()
    assert translation.profile_of("site-1", execute(executor, context, "prepare"), BRATS).modalities == ("T2",)
    update = translation.update_of("site-1", execute(executor, context, "train", payload=Payload(4)))
    assert (update.round, update.tensors["w"].tolist()) == (4, [1.0])
    assert translation.report_of(execute(executor, context, "test", payload=Payload(4))) == {"test": {"mdsc": 0.5}}
    (site,) = Site.made
    assert (site.name, site.data) == ("site-1", "data of site-1")
    assert site.folder == tmp_path / "fedmepd_runs/first/run-1"


def test_models_are_given_and_tested(context, monkeypatch):
    monkeypatch.setenv("FEDMEPD_CROSS_SITE", "share")
    executor = FedMEPDExecutor()
    given = translation.model_of(execute(executor, context, "give_model"))
    assert (given.modalities, given.tensors["w"].tolist()) == (("T2",), [1.0, 1.0])
    message = translation.model_task(Run("run-1", SETTINGS), given)
    reply = executor.execute("test_model", message, context, Signal())
    assert translation.report_of(reply) == {"test": None, "cases": 2, "for": ("T2",)}
    assert [site.cross_site for site in Site.made] == ["share"]


def test_model_that_is_none(context):
    reply = execute(FedMEPDExecutor(), context, "test_model")
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION


def test_answer_to_prepare_says_how_long_it_took(context, monkeypatch):
    # The process starts at 100; at 103 it has the task, and its data two seconds later.
    clock = iter([103.0, 105.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: next(clock)))
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: 100.0)
    answer = execute(FedMEPDExecutor(), context, "prepare")
    assert translation.start_up_of("site-1", answer) == {"process": 3.0, "data": 2.0}


def test_everything_is_imported_before_the_data_is_opened(context, monkeypatch):
    calls = []
    monkeypatch.setattr(loading, "load", lambda: calls.append("imports"))
    monkeypatch.setattr(fedmepd.data.site, "open_site_data", lambda *_: calls.append("data"))
    execute(FedMEPDExecutor(), context, "prepare")
    assert calls == ["imports", "data"]


def test_site_log_has_a_line_per_round(context, caplog):
    caplog.set_level(logging.INFO)
    execute(FedMEPDExecutor(), context, "train", payload=Payload(4))
    assert "round 4: 3 steps, mean loss 0.250, 1.5 s" in caplog.text


def test_state_of_another_run_is_not_used(context):
    executor = FedMEPDExecutor()
    for identity in ("run-1", "run-2"):
        execute(executor, context, "train", identity, Payload(1))
    assert [site.folder.name for site in Site.made] == ["run-1", "run-2"]


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
    executor = FedMEPDExecutor()
    Site.error = error
    reply = execute(executor, context, "train", payload=Payload(1))
    assert reply.get_return_code() == code and translation.failure_of(reply).startswith(reason)
    Site.error = None
    assert execute(executor, context, "train", payload=Payload(2)).get_return_code() == ReturnCode.OK
    assert len(Site.made) == 2


def test_abort_signal_reaches_the_training(context):
    abort = Signal()
    abort.trigger(True)
    reply = execute(FedMEPDExecutor(), context, "train", payload=Payload(1), abort=abort)
    assert reply.get_return_code() == ReturnCode.TASK_ABORTED


def test_data_that_cannot_be_opened_is_an_answer(context, monkeypatch):
    def fail(*_):
        raise DataError("/data/site-1 has no case", public="the data folder of site-1 has no case in it")

    monkeypatch.setattr(fedmepd.data.site, "open_site_data", fail)
    reply = execute(FedMEPDExecutor(), context, "prepare")
    assert translation.failure_of(reply) == "the data folder of site-1 has no case in it"


def test_unknown_task(context):
    assert execute(FedMEPDExecutor(), context, "dance").get_return_code() == ReturnCode.TASK_UNKNOWN


def test_live_state_for_the_console(context):
    executor, collector = FedMEPDExecutor(), GroupInfoCollector()
    context.set_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR, collector, sticky=False, private=True)
    executor.handle_event(InfoCollector.EVENT_TYPE_GET_STATS, context)
    assert collector.info == {}
    execute(executor, context, "prepare")
    executor.handle_event(InfoCollector.EVENT_TYPE_GET_STATS, context)
    info = collector.info["FedMEPDExecutor"]
    # A process with PyTorch in it holds more than 50 MiB, and less than this machine has.
    assert info.pop("memory_mib") in range(50, psutil.virtual_memory().total // 2**20)
    assert info == {"step": 3}
