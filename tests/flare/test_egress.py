"""What a site's answer holds, as it leaves; what the site cannot note does not leave."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ProcessType, ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.widgets.job_stats_reporter import JobStatsReporter

from fedmepd.disclosure import Allow, Disclosure
from fedmepd.errors import DataError
from fedmepd.federation.egress import read
from fedmepd.federation.exchange import ModelCopy, Payload, SiteProfile, Update
from fedmepd.flare import translation
from fedmepd.flare.egress import items_of, leave_out_others
from fedmepd.flare.filters import ToWirePrecision
from fedmepd.flare.translation import Run
from fedmepd.flare.withholding import policy
from tests.flare.fakes import CASES, Engine
from tests.flare.test_executor import IDENTITY, SETTINGS, execute, make, stats

RUN = Run("run-1", SETTINGS)
REPORT = {
    "cases": 3,
    "losses": {"total": 1.5},
    "figures": {},
    "steps": 6,
    "validation": {"round": 2, "dice": {"WT": 0.5}, "mdsc": 0.5},
    "train_seconds": 2.0,
    "validation_seconds": None,
    "seconds": 3.0,
    "peak_mib": None,
}
BEHIND = {"updates": 3, "losses": 3, "validation_scores": 1, "anchors": 2}


@pytest.fixture
def context(tmp_path):
    with Engine(tmp_path, "site-1").new_context() as fl_ctx:
        yield fl_ctx


def update(context, **tensors):
    """An update as it is after the job's own filter, which turns float32 into float16."""
    task = translation.task(RUN, Payload(2))
    message = translation.update_reply(Update(2, tensors, REPORT), RUN, task)
    return ToWirePrecision().process(message, context)


def by_kind(items):
    found = {}
    for item in items:
        found.setdefault(item.kind, []).append(item)
    return found


def test_an_update_tensor_by_tensor(context):
    value = torch.tensor([[3.0, 0.0], [0.0, -4.0]])
    found = by_kind(items_of("train", update(context, w=value, **{"anchors.1": torch.ones(2, 4)}), BEHIND))
    [tensor], [anchors] = found["updates"], found["anchors"]
    # 3 and 4 make 5, and float16 holds both exactly.
    assert (tensor.name, tensor.shape, tensor.format, tensor.bytes) == ("w", [2, 2], "float16", 8)
    assert tensor.norm == 5.0 and tensor.cases == 3
    assert (anchors.name, anchors.shape, anchors.cases) == ("anchors.1", [2, 4], 2)


def test_a_report_value_by_value(context):
    found = by_kind(items_of("train", update(context), BEHIND))
    assert [(item.name, item.value, item.cases) for item in found["losses"]] == [("losses", {"total": 1.5}, 3)]
    [validation] = found["validation_scores"]
    assert validation.value["mdsc"] == 0.5 and validation.cases == 1
    assert {item.name: item.value for item in found["durations"]} == {"train_seconds": 2.0, "seconds": 3.0}
    # What the site keeps to itself is not listed as if it had left.
    assert "memory" not in found and {item.name for item in found["counts"]} == {"cases", "steps"}


def test_a_filter_of_the_site_counts(context):
    """With `fedmepd kit --withhold T1`, nothing of that encoder is on the list."""
    from nvflare.app_common.filters.exclude_vars import ExcludeVars

    [withhold] = policy(("T1",))["scopes"][0]["task_result_filters"]
    message = update(context, **{"encoders.T1.w": torch.ones(2), "encoders.T2.w": torch.ones(2)})
    left = ExcludeVars(**withhold["args"]).process(message, context)
    assert [item.name for item in by_kind(items_of("train", left, {}))["updates"]] == ["encoders.T2.w"]


def test_tensors_that_a_filter_of_flare_has_made_arrays(context):
    message = DXO(DataKind.WEIGHTS, {"w": np.array([3.0, 4.0])}).to_shareable()
    [item] = items_of("train", message, {})
    assert (item.shape, item.format, item.norm, item.bytes) == ([2], "float64", 5.0, 16)


def test_nothing_in_a_message_is_left_out(context):
    """Also what no version of this package sends: a new key cannot leave unseen."""
    message = update(context)
    dxo = from_shareable(message)
    dxo.set_meta_prop("patient", "Ms X")
    dxo.meta["report"]["hidden"] = [1, 2]
    message = dxo.update_shareable(message)
    message.set_header("more", "told")
    message.set_header("__telemetry__", {"seconds": 3})
    message["beside"] = "Mr Y"
    found = {item.name: item for item in items_of("train", message, {})}
    assert {found[name].kind for name in ("patient", "more", "__telemetry__", "beside")} == {"other"}
    assert found["hidden"].kind == "message" and found["beside"].value == "Mr Y"
    assert found["patient"].value == "Ms X" and found["hidden"].value == [1, 2]


def test_an_answer_without_dxo_hides_nothing_either():
    message = make_reply(ReturnCode.EXECUTION_EXCEPTION, {translation.REASON: "no", "__error__": "in case-7"})
    message["beside"] = 1
    found = [(item.kind, item.name) for item in items_of("train", message, {})]
    assert sorted(found) == [("other", "beside"), ("reason", "__error__"), ("reason", translation.REASON)]


def reported(executor, context, allow):
    """The answer to `prepare` of a site whose job has FLARE's reporter of resources, as it leaves."""
    reporter = JobStatsReporter()
    context.set_prop(FLContextKey.PROCESS_TYPE, ProcessType.CLIENT_JOB, private=True, sticky=False)
    reporter.handle_event(EventType.START_RUN, context)
    for event in (EventType.BEFORE_TASK_DATA_FILTER, EventType.BEFORE_TASK_EXECUTION):
        context.set_prop(FLContextKey.TASK_ID, "t1", private=True, sticky=False)
        context.set_prop(FLContextKey.TASK_NAME, "prepare", private=True, sticky=False)
        context.set_prop(FLContextKey.TASK_DATA, Shareable(), private=True, sticky=False)
        reporter.handle_event(event, context)
    reply = execute(executor, context, "prepare")
    executor.made[0].disclosure = Disclosure(1, allow)
    context.set_prop(FLContextKey.TASK_RESULT, reply, private=True, sticky=False)
    reporter.handle_event(EventType.AFTER_TASK_EXECUTION, context)
    assert reply.get_header(AppConstants.JOB_STATS_CLIENT_TELEMETRY)["execution_time"] >= 0
    return leave(executor, context, "prepare", reply)


def test_what_another_component_adds_stays_unless_the_site_lets_it_leave(context, tmp_path, caplog):
    """FLARE's reporter tells durations, memory and load, which the site may have kept to itself."""
    left = reported(make(), context, Allow(durations=False, memory=False))
    assert left.get_header(AppConstants.JOB_STATS_CLIENT_TELEMETRY) is None
    assert left.get_return_code() == "OK" and from_shareable(left).data["name"] == "site-1"
    assert "other" not in by_kind(read(tmp_path / "egress.jsonl").entries[-1].items)
    assert f"have added {AppConstants.JOB_STATS_CLIENT_TELEMETRY} to the answer: it stays here" in caplog.text
    left = reported(make(), context, Allow(other=True))
    assert left.get_header(AppConstants.JOB_STATS_CLIENT_TELEMETRY) is not None
    [item] = by_kind(read(tmp_path / "egress.jsonl").entries[-1].items)["other"]
    assert item.name == AppConstants.JOB_STATS_CLIENT_TELEMETRY and item.bytes > 100


def test_what_this_package_and_flare_need_is_not_taken_out(context):
    message = update(context)
    message.set_header(ReservedHeaderKey.TASK_ID, "t1")
    before = sorted(message[ReservedHeaderKey.HEADERS]), sorted(from_shareable(message).meta)
    message.set_header("more", "told")
    message["beside"] = 1
    message["DXO"]["meta"]["patient"] = "Ms X"
    assert sorted(leave_out_others(message)) == ["beside", "more", "patient"]
    assert (sorted(message[ReservedHeaderKey.HEADERS]), sorted(from_shareable(message).meta)) == before


def test_other_answers(context):
    profile = SiteProfile("site-1", ("T2",), CASES, "folder")
    found = by_kind(items_of("prepare", translation.profile_reply(profile, {"process": 1.0, "data": 2.0}), {}))
    assert {item.name for item in found["profile"]} >= {"name", "modalities", "cases", "source"}
    assert [item.name for item in found["durations"]] == ["start_up"]
    test = {"test": {"mdsc": 0.5, "dice": {}}, "selected_round": 3, "each": {"cases": None, "fingerprint": None}}
    found = by_kind(items_of("test", translation.report_reply(test), {"test_scores": 5}))
    assert found["test_scores"][0].cases == 5 and "case_scores" not in found
    test["each"] = {"cases": [{"dice": {}}], "fingerprint": "a"}
    assert "case_scores" in by_kind(items_of("test", translation.report_reply(test), {}))
    found = by_kind(items_of("test_model", translation.report_reply({"test": {"mdsc": 1}, "cases": 2}), {}))
    assert "model_scores" in found and "test_scores" not in found
    model = translation.model_reply(ModelCopy(("T2",), {"w": torch.ones(2)}), RUN)
    assert "model" in by_kind(items_of("give_model", model, {}))
    failed = translation.failure_reply(DataError("/data/case-7", public="a case cannot be read"))
    assert [(item.kind, item.value) for item in items_of("train", failed, {})] == [("reason", "a case cannot be read")]


def leave(executor, context, task, reply):
    """FLARE's events after the last filter; returns what is then sent."""
    context.set_prop(FLContextKey.TASK_NAME, task, private=True, sticky=False)
    context.set_prop(FLContextKey.TASK_RESULT, reply, private=True, sticky=False)
    executor.handle_event(EventType.AFTER_TASK_RESULT_FILTER, context)
    return reply


def test_every_answer_is_noted_with_whom_it_is_for(context, tmp_path):
    (tmp_path / "startup/fed_client.json").write_text(
        '{"servers": [{"name": "project", "service": {"target": "fl.example.org:8002"}}]}'
    )
    executor = make()
    for task, payload in (("prepare", None), ("train", Payload(4))):
        leave(executor, context, task, execute(executor, context, task, payload=payload))
    found = read(tmp_path / "egress.jsonl")
    assert found.fault == "" and [(entry.task, entry.round) for entry in found.entries] == [
        ("prepare", None),
        ("train", 4),
    ]
    last = found.entries[-1]
    assert (last.to, last.job, last.run, last.code) == ("project fl.example.org:8002", "job-1", IDENTITY, "OK")
    assert [item.cases for item in last.items if item.kind == "updates"] == [3]


def test_what_cannot_be_noted_does_not_leave(context, tmp_path, caplog):
    executor = make()
    (tmp_path / "egress.jsonl").mkdir()
    reply = execute(executor, context, "train", payload=Payload(4))
    assert reply.get_return_code() == ReturnCode.OK
    sent = leave(executor, context, "train", reply)
    assert sent.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert "the state cannot be written" in translation.failure_of(sent)
    with pytest.raises(ValueError):
        from_shareable(sent)
    assert "held back" in caplog.text


def test_the_console_is_noted_once_in_a_phase(context, tmp_path):
    executor = make()
    execute(executor, context, "prepare")
    for _ in range(3):
        assert stats(executor, context)["step"] == 3
    entries = read(tmp_path / "egress.jsonl").entries
    assert [entry.task for entry in entries] == ["live"]
    assert {item.name for item in entries[0].items} == {"step", "memory_mib"}


def test_a_site_that_shows_nothing_on_the_console(context, tmp_path):
    executor = make()
    execute(executor, context, "prepare")
    executor.made[0].disclosure = Disclosure(1, Allow(live=False))
    assert stats(executor, context) is None and not (tmp_path / "egress.jsonl").exists()
    executor.made[0].disclosure = Disclosure(1, Allow(memory=False))
    assert stats(executor, context) == {"step": 3}
