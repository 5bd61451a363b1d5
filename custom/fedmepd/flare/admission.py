"""Lets sites into a job that runs already: those that come back after their processes ended, and new ones.

FLARE 2.9 fixes the sites of a job when it starts. A hospital whose machine was restarted would stay outside until the
job is submitted again, for weeks perhaps; and one whose process for the job is ended by the system, for want of memory
say, would end the job of all.
"""

from __future__ import annotations

import json
import threading
import time

from nvflare.apis.client import Client
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import RunProcessKey, SystemComponents
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import ALL_SITES, Job, JobMetaKey
from nvflare.apis.job_scheduler_spec import DispatchInfo

from fedmepd.errors import plain_text
from fedmepd.flare.private import (
    ERROR_MSG_PREFIX,
    ClientStatusKey,
    Message,
    MsgHeader,
    ReturnCode,
    TrainingTopic,
    deploy_message,
    extract_participants,
    reported_clients,
)

_CONTROLLER = "fedmepd.flare.controller.FedMEPDController"
_NOT_DEPLOYED = "Client app does not exist"
_POLL_SECONDS = 5.0
_AGAIN_SECONDS = 60.0
# A job's processes end at the sites some seconds before it ends at the server.
_MISSING_SECONDS = 15.0


class SiteAdmission(FLComponent):
    """A component of the server itself (``local/resources.json``), not of a job.

    Every few seconds it compares the sites that are connected with those of every running job of this package. A site
    that the job's deploy map covers and that is not in it gets the job: deployed, unless it has it from before, and
    started. The job's controller asks it to prepare before the next round. A site whose process for the job has ended
    alone gets it started again. What fails is tried again after a minute. A site that an admin has disabled is taken
    out of the job: it gets nothing from the next round on.

    Attributes:
        clock: tells seconds that only grow.
    """

    def __init__(self):
        super().__init__()
        self.clock = time.monotonic
        self._tried: dict[tuple[str, str], float] = {}
        self._missing: dict[tuple[str, str], float] = {}
        self._disabled: set[tuple[str, str]] = set()
        self._stopped = threading.Event()

    def handle_event(self, event_type: str, fl_ctx: FLContext):
        if event_type == EventType.SYSTEM_START:
            threading.Thread(target=self._watch, args=(fl_ctx.get_engine(),), daemon=True).start()
        elif event_type == EventType.SYSTEM_END:
            self._stopped.set()

    def _watch(self, engine) -> None:
        while not self._stopped.wait(_POLL_SECONDS):
            with engine.new_context() as fl_ctx:
                try:
                    self.admit(engine, fl_ctx)
                except Exception:
                    self.log_exception(fl_ctx, "could not look for sites to let in", fire_event=False)

    def admit(self, engine, fl_ctx: FLContext) -> None:
        """Lets in every site that may take part in a running job and does not."""
        for job_id, running in list(engine.run_processes.items()):
            participants: dict[str, Client] = running.get(RunProcessKey.PARTICIPANTS) or {}
            if not participants or not self._is_ours(engine, job_id):
                continue
            self._remove_disabled(engine, job_id, participants, fl_ctx)
            connected = list(engine.client_manager.clients.items())
            waiting = [client for token, client in connected if token not in participants]
            waiting += self._without_process(engine, job_id, participants, dict(connected))
            waiting = [client for client in waiting if self.clock() >= self._tried.get((job_id, client.token), 0)]
            if not waiting:
                continue
            job = engine.get_component(SystemComponents.JOB_MANAGER).get_job(job_id, fl_ctx)
            for client in waiting:
                app = _app_for(job, client.name)
                if app is None:
                    continue
                self._tried[job_id, client.token] = self.clock() + _AGAIN_SECONDS
                problem = self._let_in(engine, job, app, client, participants, fl_ctx)
                if problem:
                    text = f"{client.name}: not let into job {job_id}: {plain_text(problem)}"
                    self.log_warning(fl_ctx, text, fire_event=False)
                else:
                    self.log_info(fl_ctx, f"{client.name}: let into job {job_id}", fire_event=False)

    def _remove_disabled(self, engine, job_id: str, participants: dict[str, Client], fl_ctx: FLContext) -> None:
        # FLARE closes the door to a site that an admin disables, and leaves it in the jobs that it is in already.
        for token, client in list(participants.items()):
            if engine.client_manager.is_client_disabled(client.name):
                del participants[token]
                self._disabled.add((job_id, client.name))
                self.log_info(fl_ctx, f"{client.name}: disabled, gets no more of job {job_id}", fire_event=False)

    def _without_process(
        self, engine, job_id: str, participants: dict[str, Client], connected: dict[str, Client]
    ) -> list[Client]:
        """Returns the job's sites that are connected, did run the job, and have not run it for some seconds."""
        # By FLARE's own books: of sites whose process may still be about to start, nothing is known.
        reported = reported_clients(engine, job_id) & participants.keys() & connected.keys()
        for token in reported:
            # From here on the end of one site's process is no reason to end the job.
            engine.job_runner.resolve_client_outcome(job_id, connected[token].name)
        replies = {}
        if reported:
            message = Message(topic=TrainingTopic.CHECK_STATUS, body="")
            admin_server = engine.server.admin_server
            replies = admin_server.send_requests_and_get_reply_dict(
                {token: message for token in reported}, timeout_secs=_POLL_SECONDS
            )
        lost = []
        for token, reply in replies.items():
            since = self._missing.setdefault((job_id, token), self.clock())
            # No answer says nothing.
            if reply is None or _runs(reply, job_id):
                del self._missing[job_id, token]
            elif self.clock() - since >= _MISSING_SECONDS:
                lost.append(connected[token])
        return lost

    def _is_ours(self, engine, job_id: str) -> bool:
        config = engine.get_workspace().get_server_app_config_file_path(job_id)
        try:
            with open(config, encoding="utf-8") as file:
                return _CONTROLLER in file.read()
        except OSError:
            return False

    def _let_in(
        self, engine, job: Job, app: str, client: Client, participants: dict[str, Client], fl_ctx: FLContext
    ) -> str:
        """Returns what went wrong, an empty text otherwise."""
        known = {token: other for token, other in participants.items() if other.name == client.name}
        # What was deployed is kept: FLARE would remove the run's folder, and the site's models with it.
        was_in = bool(known) or (job.job_id, client.name) in self._disabled
        if not was_in and (problem := self._deploy(engine, job, app, client, fl_ctx)):
            return problem
        # One entry a name: a site's process does not start with more.
        for token in known:
            del participants[token]
        participants[client.token] = client
        job.meta[JobMetaKey.JOB_CLIENTS] = [participant.to_dict() for participant in participants.values()]
        try:
            problem = self._start(engine, job, app, client, fl_ctx)
            if was_in and _NOT_DEPLOYED in problem:
                # A site on a new machine.
                problem = self._deploy(engine, job, app, client, fl_ctx) or self._start(
                    engine, job, app, client, fl_ctx
                )
        except Exception as error:
            # FLARE takes answers apart, and a site may answer anything: that must not keep the others outside.
            problem = f"{type(error).__name__}: {error}"
        if problem:
            del participants[client.token]
            participants.update(known)
        return problem

    def _start(self, engine, job: Job, app: str, client: Client, fl_ctx: FLContext) -> str:
        requirements = (job.resource_spec or {}).get(client.name, {})
        checked = engine.check_client_resources(job, {client.name: requirements}, fl_ctx)
        enough, token = checked.get(client.name, (False, "no answer"))
        if not enough:
            return f"its resources do not suffice: {token}"
        dispatch = DispatchInfo(app_name=app, resource_requirements=requirements, token=token)
        replies = engine.start_client_job(job, {client.name: dispatch}, fl_ctx)
        return _problem_in(replies[0].reply if replies else None)

    def _deploy(self, engine, job: Job, app: str, client: Client, fl_ctx: FLContext) -> str:
        message, admin_server = deploy_message(job, app, fl_ctx), engine.server.admin_server
        replies = admin_server.send_requests_and_get_reply_dict(
            {client.token: message}, timeout_secs=admin_server.timeout
        )
        return _problem_in(replies.get(client.token))


def _problem_in(reply) -> str:
    if reply is None:
        return "no answer"
    failed = reply.get_header(MsgHeader.RETURN_CODE, ReturnCode.OK) != ReturnCode.OK
    return str(reply.body) if failed or str(reply.body).startswith(ERROR_MSG_PREFIX) else ""


def _runs(reply, job_id: str) -> bool:
    try:
        jobs = json.loads(reply.body)[ClientStatusKey.RUNNING_JOBS]
        return any(job[ClientStatusKey.JOB_ID] == job_id for job in jobs)
    # A site may answer anything; nested too deep, it is a RecursionError. Then nothing is known of its processes.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return True


def _app_for(job: Job, site: str) -> str | None:
    for app, places in job.get_deployment().items():
        names = extract_participants(places)
        if site in names or ALL_SITES in [name.upper() for name in names]:
            return app
    return None
