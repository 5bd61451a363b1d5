import pytest
import torch
from nvflare.apis.signal import Signal

from fedmepd.errors import Aborted, FedMEPDError
from fedmepd.federation.cross_site import SERVER, CrossSiteTest, copy_of
from fedmepd.federation.exchange import SiteProfile
from fedmepd.flare import translation
from fedmepd.flare.answers import Sender
from fedmepd.flare.cross_site import CrossSiteEvaluation
from fedmepd.job_settings import make_settings
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS
from tests.evaluation import runs
from tests.flare.fakes import CASES, Communicator, Engine

SITES = ("site-1", "site-2", "site-3")
SETTINGS = make_settings(
    "phantom",
    {"network": {"width": 4}, "evaluation": {"cross_site": True}, "aggregation": {"round_timeout": 1.0}},
)
RUN = translation.Run("1" * 32, SETTINGS)


def network():
    return FedMEPDNet(BRATS, ("T2",), 4).start(0)


class Server:
    """Has the matrix, and tests every model on its own cases."""

    def __init__(self):
        profiles = {site: SiteProfile(site, ("T2",), CASES, "folder", "share") for site in SITES}
        self.matrix = CrossSiteTest(profiles, SiteProfile("fusion", ("T1", "T2"), CASES, "folder", "share"), BRATS)
        self.tested = []

    def begin_cross_site(self):
        return self.matrix

    def global_copy(self):
        return copy_of(network())

    def test_model(self, model, made, abort):
        assert made.modalities == ("T2",) and made.tensors
        self.tested.append(model)
        if model != SERVER:
            self.matrix.accept(model, SERVER, report())


def report():
    return {"test": runs.summary(0.5, 2.0), "cases": 1}


def good_site(site, name, message):
    assert translation.run_of(message) == RUN
    if name == "give_model":
        return translation.model_reply(copy_of(network()), RUN)
    assert translation.model_of(message).modalities == ("T2",)
    return translation.report_reply(report())


class Job:
    def __init__(self, root, answer=good_site):
        engine = Engine(root, sites=SITES)
        self.communicator = Communicator(engine, answer)
        self.sender = Sender(self.communicator, None, Signal())
        self.server, self.lines, self.connected = Server(), [], list(SITES)

    def run(self, abort=lambda: False):
        CrossSiteEvaluation(
            RUN, self.server, self.sender, lambda: self.connected, say=self.lines.append, warn=self.lines.append
        ).run(abort)
        nothing = {"test": None, "untested": None}
        return self.server.matrix.result(dict.fromkeys((SERVER, *SITES), nothing))


def reasons(cells):
    return {
        (model, site): cell["reason"]
        for model, row in cells.items()
        for site, cell in row.items()
        if model != site and cell["test"] is None
    }


def test_every_model_is_tested_everywhere_else(tmp_path):
    job = Job(tmp_path)
    cells = job.run()
    assert reasons(cells) == {}
    assert job.server.tested == [SERVER, *SITES]
    assert job.communicator.sites_of("give_model") == list(SITES)
    assert job.communicator.sites_of("test_model") == [
        "site-1", "site-2", "site-3", "site-2", "site-3", "site-1", "site-3", "site-1", "site-2"
    ]  # fmt: skip
    assert job.lines == ["testing 4 models at every site that agrees"]


def refuse(message):
    return translation.failure_reply(FedMEPDError("hidden", public=message))


def broken_model():
    copy = copy_of(network())
    copy.tensors["decoder.classify.bias"] = torch.full((4,), torch.inf)
    return translation.model_reply(copy, RUN)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda: refuse("not agreed"), "not agreed"),
        (lambda: translation.report_reply({}), "not a model of this package"),
        (broken_model, "decoder.classify.bias is missing, unknown, not finite"),
        (lambda: None, "site-2 gave no answer in time"),
    ],
)
def test_model_that_a_site_does_not_give(tmp_path, bad, reason):
    job = Job(tmp_path, lambda *task: bad() if task[:2] == ("site-2", "give_model") else good_site(*task))
    found = reasons(job.run())
    assert set(found) == {("site-2", site) for site in ("site-1", "site-3", SERVER)}
    assert all(text.startswith(reason) or reason in text for text in found.values())
    assert job.lines[1].startswith("the model of site-2 is tested nowhere else: ") and reason in job.lines[1]
    assert job.server.tested == [SERVER, "site-1", "site-3"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda: refuse("out of memory"), "out of memory"),
        (lambda: translation.report_reply({"test": 1}), "report of site-2 refused"),
    ],
)
def test_site_that_does_not_test(tmp_path, bad, reason):
    job = Job(tmp_path, lambda *task: bad() if task[:2] == ("site-2", "test_model") else good_site(*task))
    found = reasons(job.run())
    assert set(found) == {(model, "site-2") for model in (SERVER, "site-1", "site-3")}
    assert all(reason in text for text in found.values())


def test_site_that_never_answers_is_awaited_once(tmp_path):
    """A wait may be hours, and there would be one for every model."""
    job = Job(tmp_path, lambda *task: None if task[:2] == ("site-2", "test_model") else good_site(*task))
    found = reasons(job.run())
    assert set(found) == {(model, "site-2") for model in (SERVER, "site-1", "site-3")}
    assert all(reason.startswith("site-2 gave no answer in time") for reason in found.values())
    assert job.communicator.sites_of("test_model").count("site-2") == 1


def test_server_that_fails_loses_nothing_else(tmp_path):
    job = Job(tmp_path)
    good = job.server.test_model

    def test_model(model, made, abort):
        if model == "site-1":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate /secret")
        good(model, made, abort)

    job.server.test_model = test_model
    reason = "out of memory; a smaller crop, batch or width needs less"
    assert reasons(job.run()) == {("site-1", SERVER): reason}
    assert job.communicator.sites_of("test_model").count("site-2") == 3


def test_abort_of_the_servers_own_test(tmp_path):
    job = Job(tmp_path)

    def test_model(model, made, abort):
        raise Aborted

    job.server.test_model = test_model
    with pytest.raises(Aborted):
        job.run()


def test_site_that_has_gone(tmp_path):
    job = Job(tmp_path)
    job.connected.remove("site-3")
    found = reasons(job.run())
    assert set(found.values()) == {"site-3 was not connected"}
    assert set(found) == {(m, "site-3") for m in (SERVER, "site-1", "site-2")} | {
        ("site-3", site) for site in ("site-1", "site-2", SERVER)
    }


def test_abort_ends_it(tmp_path):
    job = Job(tmp_path)
    job.run(lambda: len(job.server.tested) == 1)
    assert job.server.tested == [SERVER]
