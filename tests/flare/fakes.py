"""FLARE's engine and communicator, and a federation server and site, as far as the adapters use them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task, TaskCompletionStatus
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.workspace import Workspace

from fedmepd.errors import UpdateRefused
from fedmepd.federation.exchange import Payload, SiteProfile
from fedmepd.federation.timing import PHASES, RoundSeconds, figures_of
from tests.evaluation import runs

CASES = {"train": 3, "validation": 1, "test": 1}
START_UP = {"process": 2.5, "data": 0.5}
SECONDS = dict.fromkeys(PHASES, 0.0) | {"site_training": 4.0, "transfer": 0.5, "waiting": 0.25, "fusion_training": 6.0}


def workspace(root: Path, name: str) -> Workspace:
    for folder in ("startup", "local"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    return Workspace(str(root), name)


def client(site: str, login: int = 1) -> Client:
    """A site that has logged in ``login`` times; every login has a token of its own."""
    return Client(site, f"{site}, login {login}")


class Engine:
    """One server's or site's engine; a fatal error triggers the abort signal, as FLARE's server runner does."""

    def __init__(self, root: Path, name: str = "server", job: str = "job-1", sites: tuple[str, ...] = ()):
        self.workspace = workspace(root, name)
        self.clients = [client(site) for site in sites]
        self.abort = Signal()
        self.panics: list[str] = []
        self.events: list[tuple[str, object]] = []
        self.run_manager = SimpleNamespace(aux_runner=SimpleNamespace(topic_table={}))
        runner = {FLContextKey.RUNNER: SimpleNamespace(ABORT_RETURN_CODES=["UNSAFE_JOB"])}
        self.manager = FLContextManager(engine=self, identity_name=name, job_id=job, private_stickers=runner)

    def get_workspace(self) -> Workspace:
        return self.workspace

    def get_clients(self) -> list[Client]:
        return list(self.clients)

    def sync_clients_from_main_process(self) -> None:
        pass

    def new_context(self) -> FLContext:
        return self.manager.new_context()

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
        self.events.append((event_type, data))
        if event_type == EventType.FATAL_SYSTEM_ERROR:
            self.panics.append(data)
            self.abort.trigger(True)


class Communicator:
    """Answers every task at once with what ``answer(site, task name, message)`` returns; None: no answer ever.

    ``claim(site, task name)`` is the name in which a site answers.
    """

    def __init__(
        self,
        engine: Engine,
        answer: Callable[[str, str, Shareable], Shareable | None],
        claim: Callable[[str, str], str] = lambda site, name: site,
    ):
        self.engine = engine
        self.answer = answer
        self.claim = claim
        self.sent: list[tuple[str, str, Shareable]] = []
        self.open: list[tuple[str, str, Task]] = []
        self.gone: set[str] = set()

    def get_client_disconnect_time(self, site) -> float | None:
        return 1.0 if site in self.gone else None

    def send(self, task, fl_ctx, targets, send_order=None, task_assignment_timeout=0) -> None:
        (site,) = targets
        self.sent.append((task.name, site, task.data))
        reply = self.answer(site, task.name, task.data)
        if reply is None:
            self.open.append((task.name, site, task))
        else:
            # From another thread, as in FLARE.
            threading.Thread(target=self.deliver, args=(site, task, reply)).start()

    def deliver(self, site: str, task, reply: Shareable) -> None:
        client_task = ClientTask(next(client for client in self.engine.clients if client.name == site), task)
        client_task.result = reply
        with self.engine.new_context() as context:
            context.set_peer_context(_peer(self.claim(site, task.name)))
            task.result_received_cb(client_task=client_task, fl_ctx=context)
        task.completion_status = TaskCompletionStatus.OK

    def cancel_task(self, task, completion_status=TaskCompletionStatus.CANCELLED, fl_ctx=None) -> None:
        task.completion_status = completion_status

    def sites_of(self, name: str) -> list[str]:
        return [site for task, site, _ in self.sent if task == name]


def _peer(site: str) -> FLContext:
    return FLContextManager(identity_name=site, job_id="job-1").new_context()


class Server:
    """Counts rounds and notes what is asked of it."""

    def __init__(self, rounds: int = 2, round: int = -1, finished: bool = False):
        self.rounds, self.round, self.finished = rounds, round, finished
        self.calls: list[str] = []
        self.taken: dict[int, list[str]] = {}
        self.profiles: dict[str, SiteProfile] = {}
        self.left_out: dict[str, str] = {}
        self.tests: dict[str, dict] = {}
        self.missed: dict[tuple[int, str], str] = {}
        self.untested: dict[str, str] = {}
        self.refuse: set[str] = set()
        self.ended: dict[str, dict] = {}
        self.filters: dict[str, int] = {}
        self.last_round: dict | None = None
        self._losses: dict[str, float] = {}
        self.during_round: Callable[[Callable[[], bool]], None] = lambda abort: None

    def restore(self):
        self.calls.append("restore")

    def leave_out(self, site, reason):
        self.left_out[site] = reason

    def register(self, profile):
        self.profiles[profile.name] = profile

    def start(self, abort):
        self.calls.append("start")
        self.round = max(self.round, 0)

    def begin_round(self):
        self.taken[self.round + 1] = []
        self._losses = {}

    def payload(self, site):
        import torch

        return Payload(self.round + 1, {f"for {site}": torch.ones(2)})

    def miss(self, site, reason):
        self.missed[self.round + 1, site] = reason

    def end_training(self, site, reason, spent):
        self.ended[site] = spent

    def trains(self, site):
        return site not in self.ended

    @property
    def training_over(self):
        return bool(self.ended) and len(self.ended) == len(self.profiles)

    def miss_test(self, site, reason):
        self.untested[site] = reason

    def delivered(self):
        return len(self.taken[self.round + 1])

    def accept(self, site, update, wire_bytes):
        if site in self.refuse:
            raise UpdateRefused(f"update of {site} for round {update.round} refused: too bad")
        self.taken[update.round].append(site)
        self._losses[site] = update.report["losses"]["total"]

    def finish_round(self, abort):
        self.during_round(abort)
        if self.training_over and not self._losses:
            return {}
        self.round += 1
        self.calls.append(f"round {self.round}")
        self.last_round = {
            "fused": True,
            "site_seconds": 4.8,
            "round": self.round,
            "sites": len(self._losses),
            "missing": sorted(set(self.profiles) - set(self._losses)),
            "loss": fmean(self._losses.values()) if self._losses else None,
            "loss_of_sites": dict(sorted(self._losses.items())),
            "seconds": sum(SECONDS.values()),
            "bytes_up": 0,
            "bytes_down": 0,
        }
        return {"server/loss_total": 1.0} | figures_of(RoundSeconds(self.round, SECONDS))

    def test_payload(self, site):
        return Payload(self.round)

    def accept_test(self, site, report):
        self.tests[site] = report

    def finish(self, abort):
        self.calls.append("finish")
        return runs.finished()

    def results(self):
        sites = [{"name": name, "modalities": profile.modalities} for name, profile in self.profiles.items()]
        return {"filters": self.filters, "round": self.round, "sites": sites}

    def histories(self):
        return {name: {"personal": {"classifier": [[1, 1]]}} for name in self.profiles}

    def stats(self):
        return {"phase": "testing", "rounds": self.rounds, "last_round": self.last_round}
