"""A site's side of the job: prepare, train and test, as FLARE's executor."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.widgets.info_collector import InfoCollector

from fedmepd.errors import Aborted, FedMEPDError, escaped
from fedmepd.federation.egress import EgressList, Item
from fedmepd.federation.exchange import Update
from fedmepd.federation.kept_settings import hold_to
from fedmepd.flare import console, folders, loading, translation
from fedmepd.flare.egress import items_of, leave_out_others, live_items
from fedmepd.flare.opening import open_site
from fedmepd.flare.translation import Run
from fedmepd.privacy.participant import BudgetSpent
from fedmepd.text_table import counted

if TYPE_CHECKING:
    import torch


class FedMEPDExecutor(Executor):
    """Hands the server's tasks to a :class:`~fedmepd.federation.site.FederationSite`.

    Where the job has its fusion site here, tasks for that go to a :class:`~fedmepd.federation.fusion_desk.FusionDesk`.
    The site object is made on the first task of a run and kept while the process lives. In the simulator without ``-t``
    every task has a process of its own; there the site finds its state on disk, in a folder that carries the run's
    identity. Nothing that goes wrong ends the process (FLARE would end the job): the server gets a reason without paths
    or case names, the site's log the whole story.

    Attributes:
        open_site: opens the site, see :func:`fedmepd.flare.opening.open_site`.
        load: imports what training needs, see :func:`fedmepd.flare.loading.load`.
        clock: tells the seconds since the start of this process.
    """

    def __init__(self):
        super().__init__()
        self.open_site = open_site
        self.load = loading.load
        self.clock = seconds_since_start
        self._site = None
        self._desk = None
        self._run = None
        self._fusing: dict[str, Any] = {}
        self._watched: tuple[Any, ...] | None = None
        self._start_up: dict[str, float] = {}
        # Before the components that follow in the job's configuration say that they have been made.
        console.quieten()
        translation.let_tensors_travel()

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        if task_name not in translation.TASKS:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        try:
            run = translation.run_of(shareable)
            self._open(run, fl_ctx)
            return self._do(task_name, shareable, run, lambda: abort_signal.triggered, fl_ctx)
        except Aborted as error:
            self.log_info(fl_ctx, f"{task_name}: stopped")
            return self._failed(error)
        except FedMEPDError as error:
            if any(isinstance(one, BudgetSpent) for one in (error, error.__cause__)):
                # The participant has logged that itself, and is in order: it is opened no second time.
                return translation.failure_reply(error)
            self.log_error(fl_ctx, f"{task_name}: {error}", fire_event=False)
            return self._failed(error)
        except Exception as error:
            self.log_exception(fl_ctx, f"{task_name} failed", fire_event=False)
            return self._failed(error)

    def _do(
        self, task_name: str, message: Shareable, run: Run, abort: Callable[[], bool], fl_ctx: FLContext
    ) -> Shareable:
        site = self._site
        if task_name == translation.PREPARE:
            fusion = self._desk.site.data.counts() if self._desk else None
            return translation.profile_reply(site.profile(fusion), site.disclosure.seconds(self._start_up))
        hold_to(folders.site_folder(fl_ctx, run.settings, run.identity), run.settings)
        if task_name in (translation.TRAIN, translation.FUSION):
            # A run grows, and so do others beside it.
            site.limits.check_disk(*folders.written(fl_ctx))
        if task_name == translation.FUSION:
            return self._fuse(message, run, abort, fl_ctx)
        if task_name == translation.GIVE_MODEL:
            return translation.model_reply(site.give_model(), run)
        if task_name == translation.TEST_MODEL:
            return translation.report_reply(site.test_model(translation.model_of(message), abort))
        payload = translation.payload_of(message)
        if task_name == translation.TRAIN:
            began = self.clock()
            update = site.train(payload, abort)
            self._log_round(update, self.clock() - began, fl_ctx)
            return translation.update_reply(update, run, message)
        return translation.report_reply(site.test(payload, abort))

    def _fuse(self, message: Shareable, run: Run, abort: Callable[[], bool], fl_ctx: FLContext) -> Shareable:
        if self._desk is None:
            raise FedMEPDError("this site is not the job's fusion site", "this site is not the job's fusion site")
        task = translation.fusion_task_of(message)

        def progress(step: int, loss: float | None) -> None:
            shown = {} if loss is None else {"fusion_loss": loss}
            self._fusing = {"fusion_round": task.round, "fusion_step": step, **shown}

        began = self.clock()
        reply = self._desk.do(task, abort, progress)
        self._fusing = {}
        self.logger.log(_level(fl_ctx), f"fusion site, round {task.round}: {task.kind}, {self.clock() - began:.1f} s")
        return translation.fusion_reply(reply, run, message)

    def _open(self, run: Run, fl_ctx: FLContext) -> None:
        if self._site is not None and self._run == run:
            return
        self.load()
        ready = self.clock()
        level = _level(fl_ctx)
        # Such lines hold names that the server or the hospital's own files have chosen.
        self._site, self._desk = self.open_site(run, lambda text: self.logger.log(level, escaped(text)), fl_ctx)
        self._run = run
        self._start_up = {"process": ready, "data": self.clock() - ready}

    def _log_round(self, update: Update, seconds: float, fl_ctx: FLContext) -> None:
        report = update.report
        loss = report["losses"].get("total")
        self.logger.log(
            _level(fl_ctx),
            f"round {update.round}: {counted(report['steps'], 'step')}"
            + (f", mean loss {loss:.3f}" if loss is not None else "")
            + f", {seconds:.1f} s",
        )

    def _failed(self, error: BaseException) -> Shareable:
        # The next task starts from what is on disk: a step that broke off may have left the object between two states.
        self._site, self._desk, self._fusing = None, None, {}
        return translation.failure_reply(error)

    def handle_event(self, event_type: str, fl_ctx: FLContext):
        if event_type == EventType.AFTER_TASK_RESULT_FILTER:
            self._note_answer(fl_ctx)
        elif event_type == InfoCollector.EVENT_TYPE_GET_STATS and self._site is not None:
            collector = fl_ctx.get_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR)
            if collector:
                info = self._live(fl_ctx)
                if info:
                    collector.add_info(group_name=self.name, info=info)

    def _live(self, fl_ctx: FLContext) -> dict[str, Any]:
        """What the console may show; noted as leaving once in every phase of every round."""
        allow = self._site.disclosure.allow
        if not allow.live:
            return {}
        info = self._site.stats() | self._fusing | (_memory(self._site.device) if allow.memory else {})
        watched = info.get("phase"), info.get("round"), info.get("fusion_round")
        if watched != self._watched:
            try:
                self._note("live", info.get("round"), ReturnCode.OK, live_items(info), fl_ctx)
            except FedMEPDError as error:
                self.log_error(fl_ctx, str(error), fire_event=False)
                return {}
            self._watched = watched
        return info

    def _note_answer(self, fl_ctx: FLContext) -> None:
        """Notes what an answer holds after the last filter. What cannot be noted does not leave."""
        answer = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        task = fl_ctx.get_prop(FLContextKey.TASK_NAME)
        try:
            self._leave_out_others(answer, fl_ctx)
            number = translation.round_of(answer)
            items = items_of(task, answer, self._cases_behind(task))
            self._note(task, number, answer.get_return_code(), items, fl_ctx)
        except Exception as error:
            self.log_exception(fl_ctx, f"{task}: the answer is held back: it cannot be noted", fire_event=False)
            answer.clear()
            answer.update(translation.failure_reply(error))

    def _leave_out_others(self, answer: Shareable, fl_ctx: FLContext) -> None:
        # Before the first task is done, what the site decides is not read yet.
        if (self._site is None or not self._site.disclosure.allow.other) and (out := leave_out_others(answer)):
            self.log_warning(
                fl_ctx,
                f"other components of the job have added {', '.join(out)} to the answer: it stays here. "
                "allow.other in fedmepd.json lets it leave",
                fire_event=False,
            )

    def _note(self, task: str, number: int | None, code: str, items: list[Item], fl_ctx: FLContext) -> None:
        EgressList(folders.egress_file(fl_ctx)).add(
            to=folders.server_name(fl_ctx),
            job=fl_ctx.get_job_id(),
            run=self._run.identity if self._run else "",
            task=task,
            round_number=number,
            code=code,
            items=items,
        )

    def _cases_behind(self, task: str) -> dict[str, int]:
        """The numbers of cases behind what an answer holds, by kind."""
        if self._site is None:
            return {}
        return (self._desk or self._site).cases_behind() if task == translation.FUSION else self._site.cases_behind()


def seconds_since_start() -> float:
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
