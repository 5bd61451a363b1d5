"""A site's side of the job: prepare, train and test, as FLARE's executor."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import psutil
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.widgets.info_collector import InfoCollector

from fedmepd.errors import Aborted, FedMEPDError
from fedmepd.federation.exchange import Update
from fedmepd.flare import console, folders, loading, translation
from fedmepd.flare.translation import Run

if TYPE_CHECKING:
    import torch

TASKS = (
    translation.PREPARE,
    translation.TRAIN,
    translation.TEST,
    translation.GIVE_MODEL,
    translation.TEST_MODEL,
)


class FedMEPDExecutor(Executor):
    """Hands the server's tasks to a :class:`~fedmepd.federation.site.FederationSite`.

    The site object is made on the first task of a run and kept while the process lives. In the simulator without ``-t``
    every task has a process of its own; there the site finds its state on disk, in a folder that carries the run's
    identity. Nothing that goes wrong ends the process (FLARE would end the job): the server gets a reason without paths
    or case names, the site's log the whole story.
    """

    def __init__(self):
        super().__init__()
        self._site = None
        self._run = None
        self._start_up: dict[str, float] = {}

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        if task_name not in TASKS:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        try:
            run = translation.run_of(shareable)
            site = self._open(run, fl_ctx)
            if task_name == translation.PREPARE:
                return translation.profile_reply(site.profile(), self._start_up)
            if task_name == translation.GIVE_MODEL:
                return translation.model_reply(site.give_model(), run)
            if task_name == translation.TEST_MODEL:
                model = translation.model_of(shareable)
                return translation.report_reply(site.test_model(model, lambda: abort_signal.triggered))
            payload = translation.payload_of(shareable)
            if task_name == translation.TRAIN:
                update = site.train(payload, lambda: abort_signal.triggered)
                self._log_round(update, fl_ctx)
                return translation.update_reply(update, run, shareable)
            return translation.report_reply(site.test(payload, lambda: abort_signal.triggered))
        except Aborted as error:
            self.log_info(fl_ctx, f"{task_name}: stopped")
            return self._failed(error)
        except FedMEPDError as error:
            self.log_error(fl_ctx, f"{task_name}: {error}", fire_event=False)
            return self._failed(error)
        except Exception as error:
            self.log_exception(fl_ctx, f"{task_name} failed", fire_event=False)
            return self._failed(error)

    def _open(self, run: Run, fl_ctx: FLContext):
        loading.load()
        from fedmepd.data.site import open_site_data
        from fedmepd.federation.site import FederationSite
        from fedmepd.site_settings import SiteSettings

        if self._site is None or self._run != run:
            ready = _seconds_since_start()
            name = fl_ctx.get_identity_name()
            site_settings = SiteSettings.load(folders.local_folder(fl_ctx))
            level = _level(fl_ctx)

            def log(text: str) -> None:
                self.logger.log(level, text)

            self._site = FederationSite(
                name=name,
                settings=run.settings,
                data=open_site_data(name, run.settings, site_settings, log),
                folder=folders.site_folder(fl_ctx, run.settings, run.identity),
                device=site_settings.torch_device(),
                log=log,
                cross_site=site_settings.cross_site,
            )
            self._run = run
            self._start_up = {"process": ready, "data": _seconds_since_start() - ready}
        return self._site

    def _log_round(self, update: Update, fl_ctx: FLContext) -> None:
        report = update.report
        loss = report["losses"].get("total")
        self.logger.log(
            _level(fl_ctx),
            f"round {update.round}: {report['steps']} steps"
            + (f", mean loss {loss:.3f}" if loss is not None else "")
            + f", {report['seconds']:.1f} s",
        )

    def _failed(self, error: BaseException) -> Shareable:
        # The next task starts from what is on disk: a step that broke off may have left the object between two states.
        self._site = None
        return translation.failure_reply(error)

    def handle_event(self, event_type: str, fl_ctx: FLContext):
        if event_type == EventType.START_RUN and folders.in_simulator(fl_ctx):
            console.quieten()
        elif event_type == InfoCollector.EVENT_TYPE_GET_STATS and self._site is not None:
            collector = fl_ctx.get_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR)
            if collector:
                collector.add_info(group_name=self.name, info=self._site.stats() | _memory(self._site.device))


def _seconds_since_start() -> float:
    """Since the start of this process, the interpreter's own included."""
    return max(0.0, time.time() - psutil.Process().create_time())


def _memory(device: torch.device) -> dict[str, int]:
    """What this process holds, in MiB: of the machine's memory, and of the GPU's if it trains there."""
    held = {"memory_mib": round(psutil.Process().memory_info().rss / 2**20)}
    if device.type == "cuda":
        import torch

        held["gpu_memory_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    return held


def _level(fl_ctx: FLContext) -> int:
    # In the simulator all sites share one console, where the server's line for the round speaks for all.
    return logging.DEBUG if folders.in_simulator(fl_ctx) else logging.INFO
