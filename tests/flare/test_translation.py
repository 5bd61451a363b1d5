import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable, make_reply

from fedmepd.errors import Aborted, CheckpointError, DataError, FedMEPDError, UpdateRefused
from fedmepd.federation.exchange import ModelCopy, Payload, SiteProfile, Update
from fedmepd.flare import translation
from fedmepd.flare.translation import Run
from fedmepd.job_settings import make_settings
from fedmepd.tasks.brats import BRATS

RUN = Run("1" * 32, make_settings("phantom", {"rounds": 3, "calibration": {"residual": False}}))


def test_site_gets_the_settings_and_the_payload_of_the_server():
    message = translation.task(
        RUN, Payload(2, {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([3], dtype=torch.uint8)})
    )
    assert translation.run_of(message) == RUN
    payload = translation.payload_of(message)
    assert payload.round == 2
    assert payload.tensors["a"].tolist() == [[1.0, 2.0]] and payload.tensors["b"].tolist() == [3]


def test_server_gets_the_update_of_the_site():
    received = translation.task(RUN, Payload(2, {}))
    received["DXO"]["meta"]["bytes"] = 70
    report = {"cases": 3, "losses": {"total": 0.5}, "validation": None}
    message = translation.update_reply(Update(2, {"a": torch.tensor([1.0])}, report), RUN, received)
    message["DXO"]["meta"]["bytes"] = 40
    update = translation.update_of("site-1", message)
    assert (update.round, update.report, update.tensors["a"].tolist()) == (2, report, [1.0])
    assert translation.bytes_of(message) == (40, 70)


def test_profile_and_test_report_arrive():
    profile = SiteProfile("site-1", ("FLAIR", "T2"), {"train": 3, "validation": 1, "test": 1}, "folder")
    answer = translation.profile_reply(profile, {"process": 2.5, "data": 0.5})
    assert translation.profile_of("site-1", answer, BRATS) == profile
    assert translation.start_up_of("site-1", answer) == {"process": 2.5, "data": 0.5}
    assert translation.report_of(translation.report_reply({"test": None, "selected_round": 2}))["selected_round"] == 2


def test_a_model_travels_both_ways():
    model = ModelCopy(("FLAIR", "T2"), {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T})
    for message in (translation.model_reply(model, RUN), translation.model_task(RUN, model)):
        came = translation.model_of(message)
        assert (came.modalities, came.tensors["a"].tolist()) == (model.modalities, [[1.0, 3.0], [2.0, 4.0]])
    assert translation.run_of(translation.model_task(RUN, model)) == RUN


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Shareable(), "not an answer of this package"),
        (DXO(DataKind.METRICS, {"a": 1}, {"modalities": ["T2"]}).to_shareable(), "expected weights"),
        (DXO(DataKind.WEIGHTS, {"a": torch.ones(1)}).to_shareable(), "does not say its modalities"),
        (DXO(DataKind.WEIGHTS, {"a": [1.0]}, {"modalities": ["T2"]}).to_shareable(), "a is a list"),
    ],
)
def test_what_is_no_model_is_refused(message, reason):
    with pytest.raises(UpdateRefused, match=reason):
        translation.model_of(message)


def test_tensors_that_are_not_contiguous_can_travel():
    message = translation.task(RUN, Payload(1, {"a": torch.arange(6.0).reshape(2, 3).T}))
    tensor = translation.payload_of(message).tensors["a"]
    assert tensor.is_contiguous() and tensor.tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Shareable(), "not an answer of this package"),
        (DXO(DataKind.METRICS, {"a": 1}).to_shareable(), "expected weights"),
        (DXO(DataKind.WEIGHTS, {}, {"report": {}}).to_shareable(), "expected weights with a round"),
        (DXO(DataKind.WEIGHTS, {}, {"round": 1, "report": 5}).to_shareable(), "and a report"),
        (DXO(DataKind.WEIGHTS, {"a": [1.0]}, {"round": 1, "report": {}}).to_shareable(), "a is a list"),
    ],
)
def test_anything_else_is_refused_by_name(message, reason):
    with pytest.raises(UpdateRefused, match=f"site-3.*{reason}"):
        translation.update_of("site-3", message)


def test_task_of_another_version_is_an_error():
    with pytest.raises(FedMEPDError, match="same version"):
        translation.run_of(Shareable())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DataError("/data/case-7 has no label", public="a case has no label"), "a case has no label"),
        (CheckpointError("/data/state.pt is damaged"), "the site's kept state cannot be used"),
        (KeyError("/data/case-7"), "KeyError; the site's own log says more"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory at /data"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 5 bytes"), "out of memory"),
    ],
)
def test_reason_of_a_failure_names_no_case_and_no_path(error, reason):
    reply = translation.failure_reply(error)
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert translation.failure_of(reply).startswith(reason)
    assert "/data" not in translation.failure_of(reply)


def test_other_ends_of_a_task():
    assert translation.failure_of(Shareable()) == ""
    assert translation.failure_reply(Aborted()).get_return_code() == ReturnCode.TASK_ABORTED
    filtered = make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR)
    assert ReturnCode.TASK_RESULT_FILTER_ERROR in translation.failure_of(filtered)
