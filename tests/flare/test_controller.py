import logging
import re
import threading
import time

import pytest
import torch
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import make_reply
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector

from fedmepd.errors import Aborted, DataError, FedMEPDError, FusionAway
from fedmepd.federation.exchange import FusionReply, SiteProfile, Update
from fedmepd.flare import translation
from fedmepd.flare.controller import FedMEPDController
from tests.flare.fakes import CASES, START_UP, Communicator, Engine, Server, client

SITES = ("site-1", "site-2", "site-10")


def good_site(site, name, message):
    if name == "prepare":
        return translation.profile_reply(SiteProfile(site, ("T2",), CASES, "folder"), START_UP)
    payload = translation.payload_of(message)
    if name == "train":
        assert list(payload.tensors) == [f"for {site}"]
        report = {"cases": 3, "losses": {"total": 2.0}}
        update = Update(payload.round, {"w": torch.ones(1)}, report)
        return translation.update_reply(update, translation.run_of(message), message)
    return translation.report_reply({"test": None})


class Job:
    """A controller with everything around it faked; ``run`` does what FLARE's server runner does with it."""

    def __init__(self, root, caplog):
        self.engine = Engine(root, sites=SITES)
        self.server = Server()
        self.answer = good_site
        # What a site says of itself, by its name and the task.
        self.liar = lambda site, name: site
        self.caplog = caplog
        caplog.set_level(logging.INFO)
        self.newcomer_seconds = 10.0
        self.fusion, self.kept = None, None
        self.steps = []

    def open_server(self, run, folder, fusion, timing, log, fl_ctx):
        self.steps.append("open")
        self.timing, self.fusion = timing, fusion
        self.server.restore()
        return self.server

    def run(self, **settings):
        self.controller = FedMEPDController("phantom", {"rounds": 2} | settings)
        self.controller.open_server = self.open_server
        self.controller.load = lambda: self.steps.append("load")
        self.controller.kept_fusion = lambda run, folder: self.kept
        self.controller.newcomer_seconds = self.newcomer_seconds
        self.controller.communicator = Communicator(
            self.engine, lambda *task: self.answer(*task), lambda *task: self.liar(*task)
        )
        with self.engine.new_context() as fl_ctx:
            self.controller.initialize(fl_ctx)
            self.controller.control_flow(self.engine.abort, fl_ctx)
        return self

    @property
    def log(self):
        return self.caplog.text

    def sites_of(self, name):
        return self.controller.communicator.sites_of(name)


@pytest.fixture
def job(tmp_path, caplog):
    return Job(tmp_path, caplog)


def test_federation_from_prepare_to_table(job):
    job.run()
    assert not job.engine.panics
    assert job.server.calls == ["restore", "start", "round 1", "round 2", "finish"]
    assert {number: sorted(sites) for number, sites in job.server.taken.items()} == {1: sorted(SITES), 2: sorted(SITES)}
    assert sorted(job.server.tests) == sorted(SITES)
    for name, times in (("prepare", 1), ("train", 2), ("test", 1)):
        assert sorted(job.sites_of(name)) == sorted(SITES * times)
    assert re.search(r"round 2/2: 3 sites, mean loss 2\.000, 10\.8 s \(sites 4\.8 s\)", job.log)
    assert "results\n" in job.log and "mean of the sites" in job.log


def test_all_tasks_of_a_run_carry_its_identity_and_settings(job):
    job.run(seed=5)
    runs = [translation.run_of(message) for _, _, message in job.controller.communicator.sent]
    assert len(set(run.identity for run in runs)) == 1 and {run.settings.seed for run in runs} == {5}


def test_what_training_needs_is_loaded_before_the_server_opens(job):
    assert job.run().steps == ["load", "open"]


def test_metrics_become_analytics_events(job):
    job.run()
    tags = {data["DXO"]["data"]["track_key"] for event, data in job.engine.events if event == "analytix_log_stats"}
    assert {"server/loss_total", "server/seconds/fusion_training"} <= tags


@pytest.mark.parametrize("name", ["rounds", "method"])
def test_bad_setting_ends_the_job_at_once(job, name):
    job.run(**{name: -1})
    (reason,) = job.engine.panics
    assert f"settings: {name} = -1" in reason
    assert job.controller.communicator.sent == [] and job.server.calls == []


def test_personal_filters_become_a_picture_in_tensorboard(job):
    job.server.filters = {"classifier": 4}
    job.server.rounds = 3
    job.run(rounds=3, evaluation={"every": 2})
    pictures = [
        dxo["DXO"]["data"]
        for event, dxo in job.engine.events
        if event == "analytix_log_stats" and "personal_filters" in str(dxo["DXO"]["data"]["track_key"])
    ]
    # At every second round's validation, and after the last one.
    assert [data["global_step"] for data in pictures] == [2, 3]
    assert all(data["track_value"].shape[0] == 3 and data["track_value"].dtype == "uint8" for data in pictures)


def test_site_that_cannot_prepare_ends_the_job_before_training(job):
    job.answer = cannot_prepare
    job.run()
    (reason,) = job.engine.panics
    assert "the job ends without training" in reason and "site-2: a label is missing" in reason
    assert "start" not in job.server.calls and job.sites_of("train") == []


def cannot_prepare(site, name, message):
    if (site, name) == ("site-2", "prepare"):
        return translation.failure_reply(DataError("/data/x", public="a label is missing"))
    return good_site(site, name, message)


def test_site_that_cannot_prepare_is_left_out_where_the_job_says_so(job):
    job.answer = cannot_prepare
    job.run(aggregation={"refusals": "leave_out"})
    assert not job.engine.panics
    assert sorted(job.server.taken[1]) == sorted(job.server.taken[2]) == ["site-1", "site-10"]
    assert job.log.count("site-2 cannot take part; the job starts without it: a label is missing") == 1
    assert "not prepared in time" not in job.log and job.sites_of("prepare").count("site-2") == 1
    assert job.server.left_out == {"site-2": "a label is missing"}


def test_site_that_could_not_prepare_joins_when_it_logs_in_again(job):
    def come_back(abort):
        job.answer = good_site
        job.engine.clients = [client("site-1"), client("site-2", login=2), client("site-10")]

    job.answer, job.server.during_round = cannot_prepare, come_back
    job.run(aggregation={"refusals": "leave_out"})
    assert sorted(job.server.taken[1]) == ["site-1", "site-10"] and sorted(job.server.taken[2]) == sorted(SITES)


def test_site_that_comes_back_with_an_answer_that_makes_no_sense(job):
    def come_back(abort):
        job.answer = lambda site, name, message: (
            NONSENSE[0][0] if (site, name) == ("site-2", "prepare") else good_site(site, name, message)
        )
        job.engine.clients = [client("site-1"), client("site-2", login=2), client("site-10")]

    job.server.during_round = come_back
    job.run()
    assert sorted(job.server.taken[2]) == ["site-1", "site-10"]
    assert job.server.left_out == {"site-2": "its answer to 'prepare' is no profile"}


def test_site_that_the_server_refuses_is_left_out_where_the_job_says_so(job):
    """One with phantoms among patients, for example."""
    register = job.server.register

    def refuse(profile):
        if profile.name == "site-2":
            raise FedMEPDError("/data/site-2 is a phantom cohort", public="it uses the phantom cohort")
        register(profile)

    job.server.register = refuse
    job.run(aggregation={"refusals": "leave_out"})
    assert not job.engine.panics and sorted(job.server.taken[2]) == ["site-1", "site-10"]
    assert "site-2 cannot take part; the job starts without it: /data/site-2 is a phantom cohort" in job.log
    assert job.server.left_out == {"site-2": "it uses the phantom cohort"}


def test_too_few_sites_are_left_when_the_job_starts(job):
    job.answer = cannot_prepare
    job.run(aggregation={"refusals": "leave_out", "min_sites": 3})
    (reason,) = job.engine.panics
    assert "2 sites got ready, but aggregation.min_sites is 3; the log says what kept the others" in reason
    assert job.sites_of("train") == []


def test_job_does_not_start_without_the_fusion_site(job):
    job.answer = cannot_prepare
    job.run(fusion={"site": "site-2"}, aggregation={"refusals": "leave_out"})
    (reason,) = job.engine.panics
    assert "the job ends without training" in reason and "site-2: a label is missing" in reason


def test_start_up_of_the_sites_is_noted(job):
    job.run()
    assert job.timing.sites == dict.fromkeys(SITES, START_UP)


def profile(**changes):
    return SiteProfile(**{"name": "site-2", "modalities": ("T2",), "cases": CASES, "source": "folder"} | changes)


NONSENSE = [
    (translation.profile_reply(profile(), None), "content = None"),
    (translation.profile_reply(profile(), {"process": -1.0, "data": 0.0}), "process"),
    (translation.report_reply({"nonsense": 1}), "content = None"),
    (make_reply(ReturnCode.OK), "not an answer of this package"),
    (translation.profile_reply(profile(name="site-1"), START_UP), "name = 'site-1': expected 'site-2'"),
    (translation.profile_reply(profile(name="fusion"), START_UP), "name = 'fusion'"),
    (translation.profile_reply(profile(modalities=("T2", "T2")), START_UP), "modalities"),
    (translation.profile_reply(profile(modalities=("DWI",)), START_UP), "modalities"),
    (translation.profile_reply(profile(modalities=()), START_UP), "without any modality"),
    (translation.profile_reply(profile(cases=CASES | {"train": 10**9}), START_UP), "cases.train"),
    (translation.profile_reply(profile(cases=CASES | {"train": "3"}), START_UP), "cases.train"),
    (translation.profile_reply(profile(cases={"train": 3}), START_UP), "cases: validation, test are missing"),
    (translation.profile_reply(profile(source="elsewhere"), START_UP), "source"),
    (translation.profile_reply(profile(cross_site=["share"]), START_UP), "cross_site"),
]


@pytest.mark.parametrize(("reply", "said"), NONSENSE)
def test_site_whose_answer_to_prepare_makes_no_sense_is_left_out(job, reply, said):
    job.answer = lambda site, name, message: (
        reply if (site, name) == ("site-2", "prepare") else good_site(site, name, message)
    )
    job.run()
    assert not job.engine.panics
    assert sorted(job.server.profiles) == ["site-1", "site-10"] and sorted(job.server.taken[2]) == ["site-1", "site-10"]
    assert job.server.left_out == {"site-2": "its answer to 'prepare' is no profile"}
    assert "not prepared in time" not in job.log
    [line] = [line for line in job.log.splitlines() if "site-2 is left out until it logs in again" in line]
    assert "its answer to 'prepare' is no profile" in line and said in line


@pytest.mark.parametrize("task", ["prepare", "train", "test"])
def test_site_that_answers_in_another_sites_name_is_left_out(job, task):
    job.liar = lambda site, name: "site-1" if (site, name) == ("site-2", task) else site
    job.run()
    assert not job.engine.panics
    assert "answer of site-2 refused: it says that it comes from 'site-1'" in job.log
    honest = ["site-1", "site-10"]
    if task == "prepare":
        assert sorted(job.server.profiles) == honest
    elif task == "train":
        assert sorted(job.server.taken[1]) == sorted(job.server.taken[2]) == honest
        assert "it says that it comes from 'site-1'" in job.server.missed[1, "site-2"]
    else:
        assert sorted(job.server.tests) == honest and "site-2" in job.server.untested


def test_profile_that_the_server_refuses_ends_the_job(job):
    def refuse(profile):
        raise FedMEPDError(f"{profile.name} uses phantoms")

    job.server.register = refuse
    job.run()
    (reason,) = job.engine.panics
    assert "the job ends without training" in reason and reason.endswith("site-1: site-1 uses phantoms")
    assert job.sites_of("train") == []


def test_data_error_at_the_server_ends_the_job(job):
    def fail(*_, **__):
        raise DataError("fusion has no data folder")

    job.open_server = fail
    job.run()
    assert job.engine.panics == ["fusion has no data folder"]


def test_too_few_sites(job):
    job.run(aggregation={"min_sites": 4})
    assert "3 sites got ready, but aggregation.min_sites is 4" in job.engine.panics[0]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (translation.failure_reply(MemoryError()), "out of memory"),
        (make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR), "TASK_RESULT_FILTER_ERROR"),
        # As FLARE answers for a site whose job was written before a task existed.
        (make_reply(ReturnCode.TASK_UNKNOWN), "another version of fedmepd wrote it"),
    ],
)
def test_site_that_fails_is_left_out_of_the_round(job, reply, reason):
    def answer(site, name, message):
        fails = site == "site-2" and name == "train" and translation.payload_of(message).round == 1
        return reply if fails else good_site(site, name, message)

    job.answer = answer
    job.run()
    assert not job.engine.panics
    assert sorted(job.server.taken[1]) == ["site-1", "site-10"] and sorted(job.server.taken[2]) == sorted(SITES)
    assert re.search(f"round 1: site-2 is left out: .*{reason}", job.log)
    assert "round 1/2: 2 sites (without site-2)" in job.log


def test_refused_update_is_logged_and_the_round_goes_on(job):
    job.server.refuse = {"site-1"}
    job.run()
    assert not job.engine.panics
    assert sorted(job.server.taken[2]) == ["site-10", "site-2"]
    assert "update of site-1 for round 1 refused: too bad" in job.log
    assert "(without site-1)" in job.log


def test_site_that_does_not_answer_in_time(job):
    job.answer = lambda site, name, message: (
        None if site == "site-2" and name != "prepare" else good_site(site, name, message)
    )
    job.run(rounds=1, aggregation={"round_timeout": 0.3})
    assert not job.engine.panics
    assert sorted(job.server.taken[1]) == ["site-1", "site-10"]
    assert "round 1: site-2 did not answer" in job.log and "test: site-2 did not answer" in job.log


def test_site_that_never_prepares_does_not_keep_the_others_waiting(job):
    job.newcomer_seconds = 0.1
    job.answer = lambda site, name, message: (
        None if (site, name) == ("site-2", "prepare") else good_site(site, name, message)
    )
    job.run(aggregation={"round_timeout": 0.3})
    assert not job.engine.panics
    assert sorted(job.server.taken[2]) == ["site-1", "site-10"]
    assert "site-2: gone, or not prepared in time; the job starts without it" in job.log
    assert job.server.left_out == {"site-2": "gone, or not prepared in time"}


@pytest.mark.parametrize("code", [ReturnCode.UNSAFE_JOB, ReturnCode.RUN_MISMATCH, ReturnCode.TASK_UNKNOWN])
def test_code_that_ends_other_jobs_is_a_failure_of_the_site(job, code):
    job.answer = lambda site, name, message: (
        make_reply(code) if (site, name) == ("site-2", "train") else good_site(site, name, message)
    )
    job.run()
    assert not job.engine.panics and sorted(job.server.taken[2]) == ["site-1", "site-10"]


def test_site_that_appears_during_the_run_is_prepared_first(job):
    def join(abort):
        job.engine.clients = [client(site) for site in (*SITES, "site-3")]

    job.server.during_round = join
    job.run()
    assert sorted(job.server.taken[1]) == sorted(SITES)
    assert sorted(job.server.taken[2]) == sorted((*SITES, "site-3"))
    assert job.sites_of("prepare").count("site-3") == 1 and "site-3: joins in round 2" in job.log


def test_newcomer_that_cannot_prepare_is_left_out(job):
    def answer(site, name, message):
        return translation.failure_reply(MemoryError()) if site == "site-3" else good_site(site, name, message)

    job.answer = answer
    job.server.during_round = lambda abort: job.engine.clients.append(client("site-3"))
    job.run()
    assert not job.engine.panics and sorted(job.server.taken[2]) == sorted(SITES)
    assert "round 2: site-3 is left out until it logs in again: out of memory" in job.log
    assert job.server.left_out["site-3"].startswith("out of memory")
    assert job.sites_of("prepare").count("site-3") == 1


def test_site_that_logs_in_again_prepares_again_once(job):
    def come_back(abort):
        job.engine.clients = [client("site-1"), client("site-2", login=2), client("site-10")]

    job.server.during_round = come_back
    job.run(rounds=3)
    assert job.sites_of("prepare").count("site-2") == 2 and job.sites_of("prepare").count("site-1") == 1
    assert job.log.count("site-2: is back in round 2") == 1
    assert sorted(job.server.taken[2]) == sorted(job.server.taken[3]) == sorted(SITES)


def test_site_that_comes_back_with_other_data_is_left_out(job):
    def come_back(abort):
        job.engine.clients = [client("site-1"), client("site-2", login=2), client("site-10")]
        job.server.register = refuse

    def refuse(profile):
        raise FedMEPDError(f"{profile.name} has other cases")

    job.server.during_round = come_back
    job.run()
    assert not job.engine.panics
    assert "round 2: site-2 is left out until it logs in again: site-2 has other cases" in job.log
    assert sorted(job.server.taken[2]) == ["site-1", "site-10"]


def test_round_does_not_wait_for_a_newcomer_that_prepares_for_long(job):
    job.newcomer_seconds = 0.2
    job.answer = lambda site, name, message: (
        None if site == "site-3" and name == "prepare" else good_site(site, name, message)
    )

    def late(abort):
        if job.server.round == 0:
            job.engine.clients.append(client("site-3"))
        elif job.server.round == 1:
            # Its answer comes in the middle of round 2.
            communicator = job.controller.communicator
            (task,) = [task for name, site, task in communicator.open if site == "site-3"]
            communicator.deliver("site-3", task, good_site("site-3", "prepare", None))

    job.server.during_round = late
    job.run(rounds=3)
    assert sorted(job.server.taken[2]) == sorted(SITES) and sorted(job.server.taken[3]) == sorted((*SITES, "site-3"))
    assert job.sites_of("prepare").count("site-3") == 1 and "site-3: joins in round 3" in job.log


def test_site_that_flare_holds_for_lost_gets_no_task(job):
    job.server.during_round = lambda abort: job.controller.communicator.gone.add("site-2")
    job.run()
    assert job.sites_of("train").count("site-2") == 1 and "round 2/2: 2 sites (without site-2)" in job.log


def test_stragglers_are_waited_for_once_most_sites_are_in(job):
    job.answer = lambda site, name, message: (
        None if site == "site-2" and name == "train" else good_site(site, name, message)
    )
    job.run(rounds=1, aggregation={"round_timeout": 600, "straggler_wait": 0.3})
    assert sorted(job.server.taken[1]) == ["site-1", "site-10"] and "round 1: site-2 did not answer" in job.log


def test_wait_for_stragglers_begins_with_more_than_half_of_the_sites(job):
    job.answer = lambda site, name, message: (
        None if site != "site-1" and name == "train" else good_site(site, name, message)
    )
    started = time.monotonic()
    job.run(rounds=1, aggregation={"round_timeout": 1.5, "straggler_wait": 0.1})
    assert time.monotonic() - started >= 1.5 and job.server.taken[1] == ["site-1"]


def test_late_result_is_refused_with_both_rounds(job):
    job.run()
    job.controller._current_round = 6
    late = make_reply(ReturnCode.OK)
    late.add_cookie("contribution_round", 4)
    with job.engine.new_context() as fl_ctx:
        job.controller.process_result_of_unknown_task(client("site-2"), "train", "id", late, fl_ctx)
    assert "site-2: late answer to 'train' of round 4 refused: round 6 is running" in job.log


def test_finished_run_shows_its_table_and_trains_nothing(job):
    job.server = Server(round=2, finished=True)
    job.run(run_name="old")
    assert not job.engine.panics and job.server.calls == ["restore", "finish"]
    assert "run 'old' is finished" in job.log and "mean of the sites" in job.log
    assert job.sites_of("train") == []


def test_resumed_run_continues_after_its_last_round(job):
    job.server = Server(round=1)
    job.run(run_name="old")
    assert job.server.calls == ["restore", "start", "round 2", "finish"]
    assert "run 'old' continues after round 1" in job.log


def test_resumed_run_that_only_lacks_the_test(job):
    job.server = Server(round=2)
    job.run(run_name="old")
    assert job.server.calls == ["restore", "start", "finish"] and sorted(job.server.tests) == sorted(SITES)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FedMEPDError("the disk is full"), "the disk is full"),
        (ValueError("boom"), "ValueError: boom"),
        (MemoryError("no"), "a smaller crop, batch or width"),
    ],
)
def test_failure_of_the_servers_work_ends_the_job_with_its_reason(job, error, reason):
    def fail(abort):
        raise error

    job.server.during_round = fail
    job.run()
    (panic,) = job.engine.panics
    assert reason in panic and "finish" not in job.server.calls


def test_abort_reaches_the_servers_work_and_is_no_error(job):
    def stopped(abort):
        assert not abort()
        job.engine.abort.trigger(True)
        if abort():
            raise Aborted

    job.server.during_round = stopped
    job.run()
    assert not job.engine.panics and "finish" not in job.server.calls and "stopped" in job.log


def test_abort_ends_the_wait_for_sites(job):
    def answer(site, name, message):
        if name == "train":
            job.engine.abort.trigger(True)
            return None
        return good_site(site, name, message)

    job.answer = answer
    job.run()
    assert not job.engine.panics and "round 1" not in job.server.calls


def test_live_state_for_the_console(job):
    job.run()
    collector = GroupInfoCollector()
    with job.engine.new_context() as fl_ctx:
        fl_ctx.set_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR, collector, sticky=False, private=True)
        job.controller.handle_event(InfoCollector.EVENT_TYPE_GET_STATS, fl_ctx)
    assert collector.info["FedMEPDController"]["phase"] == "testing"
    assert collector.info["FedMEPDController"]["rounds"] == 2
    last = collector.info["FedMEPDController"]["last_round"]
    assert (last["round"], last["sites"], last["missing"], last["loss"]) == (2, len(SITES), [], 2.0)
    assert last["loss_of_sites"] == dict.fromkeys(sorted(SITES), 2.0)
    assert last["seconds"] > 0 and {"bytes_up", "bytes_down"} <= last.keys()


FUSION_PROFILE = SiteProfile("site-2", ("T2",), CASES, "folder", fusion=CASES)


def fusing_site(site, name, message):
    """site-2 is the fusion site too; it adds one to what it gets."""
    if name == "prepare" and site == "site-2":
        return translation.profile_reply(FUSION_PROFILE, START_UP)
    if name == "fusion":
        task = translation.fusion_task_of(message)
        tensors = {key: value + 1 for key, value in task.tensors.items()}
        report = {"losses": {"total": 1.5}, "cases": 3, "seconds": 2.0}
        reply = FusionReply(task.round, "v", tensors, False, {}, report)
        return translation.fusion_reply(reply, translation.run_of(message), message)
    return good_site(site, name, message)


def fuse(job, number, abort=None):
    return job.fusion.fuse({"decoder.w": torch.zeros(2)}, number, abort or (lambda: job.engine.abort.triggered))


def test_fusion_site_at_a_site_does_its_part_of_a_round(job):
    fused = []
    job.answer = fusing_site
    job.server.during_round = lambda abort: fused.append(fuse(job, job.server.round + 1))
    job.run(fusion={"site": "site-2"})
    assert not job.engine.panics and job.sites_of("fusion") == ["site-2", "site-2"]
    assert [one.weights["decoder.w"].tolist() for one in fused] == [[1.0, 1.0]] * 2
    assert (fused[0].losses, fused[0].cases) == ({"total": 1.5}, 3)
    # It trains as a site too, and the server does not: what training needs is not loaded there.
    assert "site-2" in job.server.taken[1] and job.steps == ["open"]


def test_fusion_site_that_fails_is_away_for_the_round(job):
    reasons = []

    def answer(site, name, message):
        return translation.failure_reply(MemoryError()) if name == "fusion" else fusing_site(site, name, message)

    def during(abort):
        with pytest.raises(FusionAway) as error:
            fuse(job, job.server.round + 1)
        reasons.append(error.value.public)

    job.answer, job.server.during_round = answer, during
    job.run(fusion={"site": "site-2"}, rounds=1)
    assert reasons == ["site-2, the fusion site: out of memory; a smaller crop, batch or width needs less"]


def test_fusion_site_that_comes_back_gets_its_task_again(job):
    """It is lost while it trains, logs in again a little later, prepares, and does the round."""
    asked, fused = [], []

    def answer(site, name, message):
        if name == "fusion" and not asked:
            asked.append(site)
            job.engine.clients = [client("site-1"), client("site-10")]
            back = [client("site-1"), client("site-2", login=2), client("site-10")]
            threading.Timer(0.5, lambda: setattr(job.engine, "clients", back)).start()
            return None
        return fusing_site(site, name, message)

    job.answer = answer
    job.server.during_round = lambda abort: fused.append(fuse(job, job.server.round + 1))
    job.run(fusion={"site": "site-2"}, rounds=1, aggregation={"round_timeout": 30})
    assert not job.engine.panics and len(fused) == 1 and fused[0].losses == {"total": 1.5}
    assert job.sites_of("prepare").count("site-2") == 2 and job.sites_of("fusion") == ["site-2", "site-2"]
    assert "waiting for site-2, the fusion site, which is not connected" in job.log


def test_fusion_site_that_logs_in_again_before_flare_misses_it(job):
    """Only the newest list of sites, which the server's main process has, says so."""
    fused, lists = [], []

    def answer(site, name, message):
        if name == "fusion" and not lists:
            lists.append([client("site-1"), client("site-2", login=2), client("site-10")])
            return None
        return fusing_site(site, name, message)

    def newest():
        job.engine.clients = lists[-1] if lists else job.engine.clients

    job.answer, job.engine.sync_clients_from_main_process = answer, newest
    job.server.during_round = lambda abort: fused.append(fuse(job, job.server.round + 1))
    job.run(fusion={"site": "site-2"}, rounds=1, aggregation={"round_timeout": 30})
    assert not job.engine.panics and len(fused) == 1
    assert job.sites_of("prepare").count("site-2") == 2 and job.sites_of("fusion") == ["site-2", "site-2"]


def test_fusion_site_that_stays_away(job):
    """Its round waits once: for the training, and not for the validation again. The final test waits."""
    seconds = []

    def missed(work):
        begun = time.monotonic()
        with pytest.raises(FusionAway, match="site-2, the fusion site, gave no answer in time"):
            work({"decoder.w": torch.zeros(2)}, 1, lambda: False)
        seconds.append(time.monotonic() - begun)

    def during(abort):
        job.controller.communicator.gone.add("site-2")
        for work in (job.fusion.fuse, job.fusion.validate, job.fusion.test):
            missed(work)

    job.answer, job.server.during_round = fusing_site, during
    job.run(fusion={"site": "site-2"}, rounds=1, aggregation={"round_timeout": 0.5})
    assert not job.engine.panics
    assert seconds[0] >= 0.5 > seconds[1] and seconds[2] >= 0.5


def test_abort_while_the_fusion_site_trains(job):
    def answer(site, name, message):
        if name == "fusion":
            threading.Timer(0.3, job.engine.abort.trigger, [True]).start()
            return None
        return fusing_site(site, name, message)

    def during(abort):
        with pytest.raises(Aborted):
            fuse(job, 1)

    job.answer, job.server.during_round = answer, during
    job.run(fusion={"site": "site-2"}, rounds=1, aggregation={"round_timeout": 0})
    assert not job.engine.panics and "waiting for site-2" not in job.log


def test_abort_ends_the_wait_for_the_fusion_site(job):
    def during(abort):
        job.controller.communicator.gone.add("site-2")
        with pytest.raises(Aborted):
            fuse(job, 1, abort=lambda: True)

    job.answer, job.server.during_round = fusing_site, during
    job.run(fusion={"site": "site-2"}, rounds=1, aggregation={"round_timeout": 0})
    assert not job.engine.panics


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("site-7", "fusion.site is 'site-7', which has not joined the job"),
        ("site-1", "site-1 does not know that it is"),
    ],
)
def test_fusion_site_that_is_none(job, place, reason):
    job.answer = fusing_site
    job.run(fusion={"site": place}, aggregation={"round_timeout": 0.5})
    assert reason in job.engine.panics[0] and "start" not in job.server.calls


def test_hospital_that_is_the_fusion_site_alone_does_not_train(job):
    def answer(site, name, message):
        if name == "prepare" and site == "site-2":
            none = dict.fromkeys(CASES, 0)
            return translation.profile_reply(SiteProfile("site-2", (), none, "folder", fusion=CASES), START_UP)
        return fusing_site(site, name, message)

    register = job.server.register
    job.server.register = lambda profile: register(profile) if profile.takes_part() else None
    job.answer = answer
    job.run(fusion={"site": "site-2"})
    assert not job.engine.panics and "site-2" not in job.sites_of("train")


def test_run_goes_on_though_its_fusion_site_is_away(job):
    """It has said what it has when the run began; nobody waits for it before the rounds do."""
    job.server, job.kept = Server(round=1), (FUSION_PROFILE, False)
    job.engine.clients = [client("site-1"), client("site-10")]
    job.run(fusion={"site": "site-2"}, run_name="old", aggregation={"round_timeout": 0})
    assert not job.engine.panics and job.fusion.profile.cases == CASES
    assert sorted(job.server.taken[2]) == ["site-1", "site-10"] and "to join the job" not in job.log


def test_finished_run_shows_its_table_though_its_fusion_site_is_away(job):
    job.server, job.kept = Server(round=2, finished=True), (FUSION_PROFILE, True)
    job.engine.clients = [client("site-1")]
    job.run(fusion={"site": "site-2"}, run_name="old", aggregation={"round_timeout": 0})
    assert not job.engine.panics and job.server.calls == ["restore", "finish"] and "is finished" in job.log
