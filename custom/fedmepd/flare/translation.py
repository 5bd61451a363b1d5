"""What travels, as FLARE's messages: the only file that knows where things lie in a Shareable.

Tensors are the data of a ``WEIGHTS`` DXO, so that a site's privacy filters for weights see them; everything else is
plain values in its meta and in the message's headers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.fuel.utils import fobs

from fedmepd.config import Settings
from fedmepd.errors import LOG_SAYS_MORE, LONGEST_TEXT, Aborted, FedMEPDError, UpdateRefused, plain_text
from fedmepd.federation.exchange import (
    FusionKind,
    FusionReply,
    FusionTask,
    ModelCopy,
    Payload,
    SiteProfile,
    Update,
)
from fedmepd.federation.reports import SpentPrivacy, StartUpReport, check_profile, check_report
from fedmepd.flare.folders import is_identity
from fedmepd.job_settings import make_settings
from fedmepd.privacy.participant import BudgetSpent
from fedmepd.tasks.task import Task

PREPARE, TRAIN, TEST = "prepare", "train", "test"
GIVE_MODEL, TEST_MODEL = "give_model", "test_model"
FUSION = "fusion"

TASKS = (PREPARE, TRAIN, TEST, GIVE_MODEL, TEST_MODEL, FUSION)
# Tasks whose data, and those whose results, hold tensors.
DATA_TASKS = (TRAIN, TEST, TEST_MODEL, FUSION)
RESULT_TASKS = (TRAIN, GIVE_MODEL, FUSION)

WIRE_PRECISION = "wire_precision"
BYTES = "bytes"
_ROUND, _BYTES_DOWN = "round", "bytes_down"
REPORT, START_UP = "report", "start_up"
_MODALITIES = "modalities"
_KIND, _NAMES, _KNOWN, _VERSION, _RELATIVE, _DIGESTS = "kind", "names", "known", "version", "relative", "digests"
_SETTINGS, _RUN, REASON, SPENT = "fedmepd.settings", "fedmepd.run", "fedmepd.reason", "fedmepd.spent"
# What a site's answers have beside their tensors and reports.
OF_ANSWERS = frozenset(
    {_ROUND, _BYTES_DOWN, BYTES, WIRE_PRECISION, REPORT, START_UP, _MODALITIES, _VERSION, _RELATIVE, _DIGESTS}
)
# What a site may say of the bytes that it sent and received in a round; every round's are added up, and a comparison of
# runs reads no sum above 2^53.
MOST_BYTES = 2**36


def let_tensors_travel() -> None:
    """Lets FLARE write and read the tensors of messages, in this process.

    FLARE has a component for that, which imports whatever a job tells it. So a kit must not allow that one.
    """
    fobs.register(TensorDecomposer)


@dataclass(frozen=True)
class Run:
    """Which run a task belongs to, and what the job decided. The server sends it with every task.

    Args:
        identity: differs from run to run; a site's state of another run is not used.
        settings: the job's settings.
    """

    identity: str
    settings: Settings


def task(run: Run, payload: Payload | None = None) -> Shareable:
    """Returns the message of a task for one site."""
    if payload is None:
        message = Shareable()
    else:
        meta = {_ROUND: payload.round, WIRE_PRECISION: run.settings.aggregation.wire_precision}
        message = _weights(payload.tensors, meta).to_shareable()
    return _of_run(run, message)


def _of_run(run: Run, message: Shareable) -> Shareable:
    message.set_header(_SETTINGS, run.settings.model_dump(mode="json"))
    message.set_header(_RUN, run.identity)
    return message


def run_of(message: Shareable) -> Run:
    """Returns the run that a task belongs to.

    Raises:
        FedMEPDError: the server runs another version of this package, or its settings or identity are refused.
    """
    identity, settings = message.get_header(_RUN), message.get_header(_SETTINGS)
    if not isinstance(identity, str) or not isinstance(settings, dict):
        raise FedMEPDError("the task carries no fedmepd settings: server and site must run the same version of fedmepd")
    if not is_identity(identity):
        reason = "the server's identity of the run is refused: expected 32 hexadecimal digits"
        raise FedMEPDError(f"{reason}, got {plain_text(identity)!r}", reason)
    return Run(identity, make_settings("paper", settings))


def model_task(run: Run, model: ModelCopy) -> Shareable:
    """Returns the message of ``test_model`` for one site."""
    return _of_run(run, _model(model, run).to_shareable())


def model_reply(model: ModelCopy, run: Run) -> Shareable:
    """Returns a site's answer to ``give_model``."""
    return _model(model, run).to_shareable()


def model_of(message: Shareable) -> ModelCopy:
    """Returns the model in a site's answer to ``give_model``, or in the task ``test_model``.

    Raises:
        UpdateRefused: the message is something else.
    """
    dxo = _dxo_of(message)
    modalities = dxo.get_meta_prop(_MODALITIES)
    if not isinstance(modalities, list) or not all(map(_is_name, modalities)):
        raise UpdateRefused("not a model of this package: it does not say its modalities")
    return ModelCopy(tuple(modalities), tensors_of(dxo))


def _model(model: ModelCopy, run: Run) -> DXO:
    precision = run.settings.aggregation.wire_precision
    return _weights(model.tensors, {_MODALITIES: list(model.modalities), WIRE_PRECISION: precision})


def payload_of(message: Shareable) -> Payload:
    """Returns what the server sent with a task.

    Raises:
        UpdateRefused: it is something else.
    """
    dxo = _dxo_of(message)
    number = dxo.get_meta_prop(_ROUND)
    # It becomes part of the name of a file.
    if not isinstance(number, int) or number < 0:
        raise UpdateRefused("the task has no round: server and site must run the same version of fedmepd")
    return Payload(round=number, tensors=tensors_of(dxo))


def profile_reply(profile: SiteProfile, start_up: dict[str, float | None]) -> Shareable:
    """Returns a site's answer to ``prepare``; ``start_up`` is a :class:`~fedmepd.federation.reports.StartUpReport`."""
    return DXO(DataKind.APP_DEFINED, data=profile.to_json(), meta={START_UP: start_up}).to_shareable()


def profile_of(site: str, message: Shareable, task: Task) -> SiteProfile:
    """Returns the profile in a site's answer to ``prepare``.

    Args:
        site: its name.
        message: its answer.
        task: of the job.

    Raises:
        UpdateRefused: it is something else, or the profile of another site.
    """
    return check_profile(site, _dxo_of(message).data, task)


def _dxo_of(message: Shareable) -> DXO:
    try:
        return from_shareable(message)
    except (ValueError, TypeError) as error:
        raise UpdateRefused(f"not an answer of this package ({error})") from error


def start_up_of(site: str, message: Shareable) -> dict[str, float]:
    """Returns the seconds of a site's start-up in its answer to ``prepare``.

    Raises:
        UpdateRefused: they are something else.
    """
    return check_report(site, StartUpReport, _dxo_of(message).get_meta_prop(START_UP))


def update_reply(update: Update, run: Run, received: Shareable) -> Shareable:
    """Returns a site's answer to ``train``; ``received`` is the task that it answers."""
    meta = {
        _ROUND: update.round,
        REPORT: update.report,
        WIRE_PRECISION: run.settings.aggregation.wire_precision,
        _BYTES_DOWN: from_shareable(received).get_meta_prop(BYTES, 0),
    }
    return _weights(update.tensors, meta).to_shareable()


def update_of(site: str, message: Shareable) -> Update:
    """Returns a site's update.

    Raises:
        UpdateRefused: the message is something else.
    """
    try:
        dxo = _dxo_of(message)
        tensors, round_number, report = tensors_of(dxo), dxo.get_meta_prop(_ROUND), dxo.get_meta_prop(REPORT)
    except UpdateRefused as error:
        raise UpdateRefused(f"{site}: update refused: {error}") from error
    if not isinstance(round_number, int) or not isinstance(report, dict):
        raise UpdateRefused(f"{site}: update refused: expected weights with a round and a report")
    return Update(round=round_number, tensors=tensors, report=report)


def bytes_of(message: Shareable) -> tuple[int, int]:
    """Returns the bytes of tensors that a site's update had on the wire, up and down; 0 where nothing was counted."""
    meta = from_shareable(message).meta
    up, down = (meta.get(key) for key in (BYTES, _BYTES_DOWN))
    return _count(up), _count(down)


def _count(value: object) -> int:
    return int(value) if isinstance(value, int) and 0 <= value <= MOST_BYTES else 0


def fusion_task(run: Run, task: FusionTask) -> Shareable:
    """Returns the message of a task for the fusion site."""
    meta = {
        _KIND: task.kind,
        _ROUND: task.round,
        _NAMES: task.names,
        _KNOWN: task.known,
        _MODALITIES: list(task.modalities),
        WIRE_PRECISION: run.settings.aggregation.wire_precision,
    }
    return _of_run(run, _weights(task.tensors, meta).to_shareable())


def fusion_task_of(message: Shareable) -> FusionTask:
    """Returns the task in a message for the fusion site.

    Raises:
        UpdateRefused: the message is something else.
    """
    dxo = _dxo_of(message)
    kind, number, names, known, modalities = (
        dxo.get_meta_prop(key) for key in (_KIND, _ROUND, _NAMES, _KNOWN, _MODALITIES)
    )
    lists = isinstance(names, list) and isinstance(modalities, list)
    # The round becomes part of the name of a file.
    plain = isinstance(number, int) and number >= 0 and isinstance(known, str) and len(known) <= LONGEST_TEXT
    if kind not in get_args(FusionKind) or not plain or not lists or not all(map(_is_name, (*names, *modalities))):
        reason = "the task is none for a fusion site: server and site must run the same version of fedmepd"
        raise UpdateRefused(reason, reason)
    return FusionTask(kind, number, names, known, tensors_of(dxo), tuple(modalities))


def fusion_reply(reply: FusionReply, run: Run, received: Shareable) -> Shareable:
    """Returns the fusion site's answer; ``received`` is the task that it answers."""
    meta = {
        _ROUND: reply.round,
        _VERSION: reply.version,
        _RELATIVE: reply.relative,
        _DIGESTS: reply.digests,
        REPORT: reply.report,
        WIRE_PRECISION: run.settings.aggregation.wire_precision,
        _BYTES_DOWN: from_shareable(received).get_meta_prop(BYTES, 0),
    }
    return _weights(reply.tensors, meta).to_shareable()


def fusion_reply_of(site: str, message: Shareable) -> FusionReply:
    """Returns the fusion site's answer.

    Raises:
        UpdateRefused: the message is something else.
    """
    dxo = _dxo_of(message)
    number, version, relative, digests, report = (
        dxo.get_meta_prop(key) for key in (_ROUND, _VERSION, _RELATIVE, _DIGESTS, REPORT)
    )
    kinds = ((number, int), (version, str), (relative, bool), (digests, dict), (report, dict))
    if not all(isinstance(value, kind) for value, kind in kinds) or len(version) > LONGEST_TEXT:
        raise UpdateRefused(f"{site}: answer refused: not one of a fusion site of this package")
    return FusionReply(number, version, tensors_of(dxo), relative, digests, report, bytes_of(message))


def tensors_of(dxo: DXO) -> dict[str, torch.Tensor]:
    """Returns the tensors of a message, whose names may stand in a log as they are.

    Raises:
        UpdateRefused: it holds something else, or under another name than a weight can have.
    """
    if dxo.data_kind != DataKind.WEIGHTS:
        raise UpdateRefused(f"expected weights, got {plain_text(dxo.data_kind)}")
    for key, value in dxo.data.items():
        if not _is_name(key):
            raise UpdateRefused(f"{plain_text(key)} is no name of a weight")
        if not isinstance(value, torch.Tensor):
            raise UpdateRefused(f"{key} is a {type(value).__name__}, expected a tensor")
    return dxo.data


def _is_name(name: object) -> bool:
    """Whether something may be the name of a weight or a modality."""
    return isinstance(name, str) and name.isprintable() and len(name) <= LONGEST_TEXT


def round_of(message: Shareable) -> int | None:
    """Returns the round that a site's answer is about; None if it is about none."""
    try:
        number = from_shareable(message).get_meta_prop(_ROUND)
    except (ValueError, TypeError):
        return None
    return number if isinstance(number, int) else None


def report_reply(report: dict[str, Any]) -> Shareable:
    """Returns a site's answer to ``test``."""
    return DXO(DataKind.METRICS, data=report).to_shareable()


def report_of(message: Shareable) -> dict[str, Any]:
    """Returns the report in a site's answer to ``test``.

    Raises:
        UpdateRefused: the message is something else.
    """
    return _dxo_of(message).data


def failure_reply(error: BaseException) -> Shareable:
    """Returns the answer of a site that cannot do a task, with a reason that names no case and no path."""
    if isinstance(error, Aborted):
        return make_reply(ReturnCode.TASK_ABORTED, {REASON: "the job was stopped"})
    spent = {SPENT: error.spent} if isinstance(error, BudgetSpent) else {}
    return make_reply(ReturnCode.EXECUTION_EXCEPTION, {REASON: public_reason(error), **spent})


def public_reason(error: BaseException) -> str:
    """Returns why something failed, without names of cases and paths."""
    if is_out_of_memory(error):
        return "out of memory; a smaller crop, batch or width needs less"
    if hasattr(error, "public"):
        return str(error.public)
    return f"{type(error).__name__}; {LOG_SAYS_MORE}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; PyTorch reports it as a plain RuntimeError on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def failure_of(message: Shareable) -> str:
    """Returns why a site could not do a task; an empty text if it could."""
    code = message.get_return_code()
    if code == ReturnCode.OK:
        return ""
    if code == ReturnCode.TASK_UNKNOWN:
        return "the job has no executor for this task: another version of fedmepd wrote it; write or export it again"
    return plain_text(message.get_header(REASON, f"FLARE answered {code}"))


def spent_of(site: str, message: Shareable) -> dict[str, Any] | None:
    """Returns what a site has spent of its privacy budget, if it trains no further because that is all; else None.

    Raises:
        UpdateRefused: the message says something else there.
    """
    spent = message.get_header(SPENT)
    return None if spent is None else check_report(site, SpentPrivacy, spent)


def _weights(tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> DXO:
    # FLARE writes tensors with safetensors, which takes contiguous ones only.
    return DXO(DataKind.WEIGHTS, {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, meta)
