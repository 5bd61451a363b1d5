"""FLARE's private names that this package uses: all of them, and what for.

FLARE promises nothing about them from one release to the next, so ``pyproject.toml`` holds FLARE at 2.9.
``tests/flare/test_private.py`` looks for each in the FLARE that is installed, and refuses any that is used and does not
stand here: another release fails in that test, and not in a hospital.
"""

from __future__ import annotations

from typing import Any

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_constant import ReturnCode as TaskCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import Job
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.private.admin_defs import Message, MsgHeader, ReturnCode
from nvflare.private.defs import ERROR_MSG_PREFIX, ClientStatusKey, TrainingTopic
from nvflare.private.fed.server.job_runner import JobRunner
from nvflare.private.fed.simulator.simulator_const import SimulatorConstants
from nvflare.private.fed.utils.fed_utils import extract_participants
from nvflare.widgets.fed_event import FED_EVENT_TOPIC

# The id of every job in the simulator, by which a process knows where it is.
SIMULATOR_JOB = SimulatorConstants.JOB_NAME

# State and steps of ScatterAndGather that the controller reads, sets or replaces, by what it does with them.
SCATTER_AND_GATHER = {
    "_engine": "asks which sites are connected",
    "_current_round": "sets it to the round that a named run goes on with, and tells it",
    "_num_rounds": "sets it, since the settings are not known when FLARE makes the object",
    "_accept_train_result": "leaves out a site that failed, before FLARE's own rules end the job",
    "aggregator": "sets it, since the server's part is made by the controller and is no component of the job",
    "shareable_gen": "sets it, for the same reason",
}

# What the server's parent process is made of, as far as sites are let into a job that runs; by class.
SERVER = {
    "nvflare.private.fed.server.server_engine.ServerEngine": (
        "run_processes",
        "client_manager",
        "job_runner",
        "server",
        "check_client_resources",
        "start_client_job",
        "sync_clients_from_main_process",
    ),
    "nvflare.private.fed.server.client_manager.ClientManager": ("clients", "is_client_disabled"),
    "nvflare.private.fed.server.job_runner.JobRunner": ("resolve_client_outcome", "_make_deploy_message"),
    "nvflare.private.fed.server.fed_server.FederatedServer": ("admin_server", "_job_reported_clients"),
    "nvflare.private.fed.server.admin.FedAdminServer": ("timeout", "send_requests_and_get_reply_dict"),
    "nvflare.private.fed.server.server_runner.ServerRunner": ("ABORT_RETURN_CODES",),
    "nvflare.private.fed.server.run_manager.RunManager": ("aux_runner",),
    "nvflare.private.aux_runner.AuxRunner": ("topic_table",),
}

__all__ = [
    "ERROR_MSG_PREFIX",
    "SCATTER_AND_GATHER",
    "SERVER",
    "SIMULATOR_JOB",
    "ClientStatusKey",
    "Message",
    "MsgHeader",
    "ReturnCode",
    "TrainingTopic",
    "deploy_message",
    "extract_participants",
    "reported_clients",
    "take_no_orders",
]


def deploy_message(job: Job, app: str, fl_ctx: FLContext) -> Message:
    """Returns the message by which FLARE's own runner deploys an app of a job at a site."""
    return JobRunner._make_deploy_message(job, job.get_application(app, fl_ctx), app, fl_ctx)


def reported_clients(engine: Any, job_id: str) -> set[str]:
    """Returns the tokens of the sites whose processes for the job have been heard of, by the server's own books."""
    return set(engine.server._job_reported_clients.get(job_id, ()))


def take_no_orders(fl_ctx: FLContext) -> None:
    """Takes from every site of a job what FLARE lets it do to all: end the job, and raise events at the server.

    A site whose answer has one of certain codes (``UNSAFE_JOB``, say) ends the job of all; so does one that sends the
    event of a fatal error. Nothing of this package needs either.

    Args:
        fl_ctx: of the server, after the event that starts its run, in which FLARE begins to listen.
    """
    runner, engine = fl_ctx.get_prop(FLContextKey.RUNNER), fl_ctx.get_engine()
    runner.ABORT_RETURN_CODES = []
    engine.run_manager.aux_runner.topic_table[FED_EVENT_TOPIC] = _refuse


def _refuse(topic: str, request: Shareable, fl_ctx: FLContext) -> Shareable:
    return make_reply(TaskCode.BAD_REQUEST_DATA)
