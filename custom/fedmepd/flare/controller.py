"""The server's side of the job: ScatterAndGather's rounds with a payload of its own for every site."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from statistics import fmean
from typing import Any

from nvflare.apis.analytix import ANALYTIC_EVENT_TYPE, AnalyticsDataType
from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task, TaskCompletionStatus
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.utils.analytix_utils import create_analytic_dxo, send_analytic_dxo
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather
from nvflare.widgets.info_collector import InfoCollector

from fedmepd.config import FUSION_SITE, Settings
from fedmepd.errors import Aborted, FedMEPDError, UpdateRefused
from fedmepd.federation.exchange import SiteProfile
from fedmepd.federation.timing import SITE_PHASES, Timing
from fedmepd.flare import console, folders, translation
from fedmepd.flare.cross_site import CrossSiteEvaluation
from fedmepd.flare.rounds import NoGlobalModel, RoundAggregator

_CHECK_SECONDS = 0.1
_NEWCOMER_SECONDS = 10.0
_HEAT_MAPS = 50


class FedMEPDController(ScatterAndGather):
    """Runs a federation: every site prepares, rounds of training and fusion, a final test, the results.

    ScatterAndGather's flow stays as it is. Its one broadcast becomes one task per site, since a broadcast sends the
    same data to all; its aggregator hands the updates to the FederationServer, which owns the state, does the server's
    training and writes checkpoints and results. Round 0 comes before the flow, the test after it.

    A site that fails, is refused or does not answer in time is left out of the round, with a line that names it. A site
    that cannot even prepare ends the job before any training.

    Args:
        preset: name of the settings' preset (see :mod:`fedmepd.config`).
        settings: what the job changes in it, nested like the settings.
    """

    def __init__(self, preset: str = "paper", settings: dict | None = None):
        super().__init__(
            min_clients=1,
            num_rounds=0,
            start_round=1,
            train_task_name="train",
            persist_every_n_rounds=0,
            snapshot_every_n_rounds=0,
        )
        self.preset = preset
        self.settings = settings
        self._run = None
        self._server = None
        self._last_round: dict[str, Any] | None = None
        self._timing = None
        # The prepared sites, each with FLARE's token of its login.
        self._sites: dict[str, str] = {}
        # Those that were asked to prepare while the job ran, and what they answered.
        self._asked: dict[str, str] = {}
        self._profiles: dict[str, SiteProfile] = {}
        self._failures: dict[str, str] = {}
        self._simulated = False
        self._progress = logging.getLogger("fedmepd.progress")

    def log_info(self, fl_ctx: FLContext, msg: str, fire_event=False):
        # ScatterAndGather's own lines ("Round 3 started.") say less than the progress line of the round.
        self.log_debug(fl_ctx, msg, fire_event)

    def _say(self, text: str) -> None:
        self._progress.info(text)

    def _warn(self, text: str) -> None:
        self._progress.warning(text)

    def _end_job(self, reason: str, fl_ctx: FLContext) -> None:
        self.system_panic(reason, fl_ctx)

    @contextlib.contextmanager
    def _guarded(self, fl_ctx: FLContext) -> Iterator[None]:
        """Whatever goes wrong inside ends the job with a reason; an abort just ends it."""
        try:
            yield
        except Aborted:
            self._say("stopped; a run with a name continues after its last finished round")
        except FedMEPDError as error:
            self._end_job(str(error), fl_ctx)
        except Exception as error:
            self.log_exception(fl_ctx, "the server's work failed", fire_event=False)
            hint = "; a smaller crop, batch or width needs less" if translation.is_out_of_memory(error) else ""
            self._end_job(f"{type(error).__name__}: {error}{hint}", fl_ctx)

    def start_controller(self, fl_ctx: FLContext) -> None:
        # Not ScatterAndGather's, which takes components and an initial model from the job: the server has both.
        self._simulated = folders.in_simulator(fl_ctx)
        if self._simulated:
            console.quieten()
        with self._guarded(fl_ctx):
            Settings.make(self.preset, self.settings)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        if abort_signal.triggered:
            return
        self._timing = Timing()
        with self._guarded(fl_ctx):
            settings = Settings.make(self.preset, self.settings)
            folder = folders.state_folder(fl_ctx, settings)
            self._run = translation.Run(folders.run_identity(folder), settings)
            server = self._open_server(folder, abort_signal, fl_ctx)
            if server is None:
                return
            self._server = server
            self._rounds(abort_signal, fl_ctx)
            if not abort_signal.triggered:
                self._test(abort_signal, fl_ctx)

    def _open_server(self, folder, abort_signal: Signal, fl_ctx: FLContext):
        """Lets all sites prepare while the server opens its own data and state; None if there is nothing to do."""
        from fedmepd.data.site import open_site_data
        from fedmepd.federation.server import FederationServer
        from fedmepd.site_settings import SiteSettings

        settings = self._run.settings
        profiles, failures = {}, {}
        sites = self._connected()
        self._say(f"{settings.method}, {settings.rounds} rounds: {len(sites)} sites and the server prepare their data")
        tasks = self._send_prepare(sites, profiles, failures, fl_ctx)
        try:
            site_settings = SiteSettings.load(folders.local_folder(fl_ctx))
            server = FederationServer(
                settings=settings,
                data=open_site_data(FUSION_SITE, settings, site_settings, self._say),
                folder=folder,
                results_folder=folders.run_folder(fl_ctx) / "results",
                device=site_settings.torch_device(),
                log=self._say,
                timing=self._timing,
            )
            server.restore()
            if server.finished:
                self._say(f"run {settings.run_name!r} is finished; choose another run name to train again")
                self._show(server.finish(lambda: abort_signal.triggered))
                return None
            unanswered = self._wait(tasks, abort_signal)
        finally:
            for task in tasks.values():
                if task.completion_status is None:
                    self.cancel_task(task)
        if abort_signal.triggered:
            return None
        if failures:
            reasons = "; ".join(f"{site}: {reason}" for site, reason in sorted(failures.items()))
            raise FedMEPDError(f"no training was started, since not every site can take part: {reasons}")
        for site in unanswered:
            self._warn(f"{site}: gone before it was prepared; the job starts without it")
        for site in sorted(profiles):
            server.register(profiles[site])
            self._sites[site] = sites[site]
        needed = settings.aggregation.min_sites
        if len(self._sites) < needed:
            raise FedMEPDError(f"{len(self._sites)} sites are ready, but aggregation.min_sites is {needed}")
        if server.round >= 0:
            self._say(f"run {settings.run_name!r} continues after round {server.round}")
        return server

    def _rounds(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        self._server.start(lambda: abort_signal.triggered)
        self.aggregator = RoundAggregator(
            self._server, lambda context: self._finish_round(abort_signal, context), self._warn
        )
        self.shareable_gen = NoGlobalModel()
        self._num_rounds = self._run.settings.rounds
        self._current_round = self._server.round + 1
        super().control_flow(abort_signal, fl_ctx)

    def broadcast_and_wait(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: list[Client] | list[str] | None = None,
        min_responses: int = 1,
        wait_time_after_min_received: int = 0,
        abort_signal: Signal | None = None,
    ) -> None:
        """Sends every prepared site its own version of ``task``, and waits for the answers."""
        with self._guarded(fl_ctx):
            self._admit_newcomers(abort_signal, fl_ctx)
            self._server.begin_round()
            tasks = {}
            for site in self._ready():
                message = translation.task(self._run, self._server.payload(site))
                for key, value in task.data[ReservedHeaderKey.HEADERS].items():
                    message.set_header(key, value)
                tasks[site] = self._send_task(task.name, site, message, task.result_received_cb, fl_ctx)
            settings = self._run.settings.aggregation
            for site in self._wait(tasks, abort_signal, settings.round_timeout, settings.straggler_wait):
                self._warn(f"round {self._current_round}: {site} did not answer; the round goes on without it")

    def _accept_train_result(
        self, client_name: str, result: Shareable, fl_ctx: FLContext, is_unknown_task: bool = False
    ) -> bool:
        reason = translation.failure_of(result)
        if reason:
            self._warn(f"round {self._current_round}: {client_name} is left out: {reason}")
            self._server.miss(client_name, reason)
            return False
        return super()._accept_train_result(client_name, result, fl_ctx, is_unknown_task)

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        late = result.get_cookie(AppConstants.CONTRIBUTION_ROUND)
        of = "" if late is None else f" of round {late}"
        now = "" if self._current_round is None else f": round {self._current_round} is running"
        self._warn(f"{client.name}: late answer to {task_name!r}{of} refused{now}")

    def _finish_round(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        with self._guarded(fl_ctx):
            metrics = self._server.finish_round(lambda: abort_signal.triggered)
            reports, sizes = self.aggregator.reports, self.aggregator.bytes
            self._record(metrics, fl_ctx)
            self._record_filters(fl_ctx)
            missing = sorted(self._sites.keys() - reports.keys())
            losses = [loss for loss in map(_loss, reports.values()) if loss is not None]
            share = metrics.get("federation/personal_share")
            self._last_round = {
                "round": self._current_round,
                "sites": len(reports),
                "missing": missing,
                "loss": fmean(losses) if losses else None,
                "loss_of_sites": {site: _loss(report) for site, report in sorted(reports.items())},
                "seconds": metrics["server/seconds/total"],
                "bytes_up": sum(up for up, _ in sizes.values()),
                "bytes_down": sum(down for _, down in sizes.values()),
            }
            self._say(
                f"round {self._current_round}/{self._num_rounds}: {len(reports)} sites"
                + (f" (without {', '.join(missing)})" if missing else "")
                + (f", mean loss {fmean(losses):.3f}" if losses else "")
                + (f", personal {share:.1%}" if share is not None else "")
                + f", {metrics['server/seconds/total']:.1f} s"
                + f" (sites {sum(metrics[f'server/seconds/{phase}'] for phase in SITE_PHASES):.1f} s)"
                + f", MB up {_megabytes(up for up, _ in sizes.values())}"
                + f" down {_megabytes(down for _, down in sizes.values())}"
            )

    def _test(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        def take(client_task: ClientTask, fl_ctx: FLContext) -> None:
            site, result = client_task.client.name, client_task.result
            client_task.result = None
            reason = translation.failure_of(result)
            try:
                if reason:
                    raise UpdateRefused(reason)
                self._server.accept_test(site, translation.report_of(result))
            except (UpdateRefused, ValueError) as error:
                self._warn(f"test: {site} is left out: {error}")
                self._server.miss_test(site, str(error))

        self._say("testing the models that were best on validation")
        tasks = {}
        for site in self._ready():
            message = translation.task(self._run, self._server.test_payload(site))
            tasks[site] = self._send_task(translation.TEST, site, message, take, fl_ctx)
        for site in self._wait(tasks, abort_signal, self._run.settings.aggregation.round_timeout):
            self._warn(f"test: {site} did not answer; its row stays empty")
            self._server.miss_test(site, "no answer in time")
        settings = self._run.settings
        if settings.evaluation.cross_site and not abort_signal.triggered:
            CrossSiteEvaluation(
                self._run,
                self._server,
                send=partial(self._send_task, fl_ctx=fl_ctx),
                wait=partial(self._wait, abort_signal=abort_signal, timeout=settings.aggregation.round_timeout),
                ready=self._ready,
                say=self._say,
                warn=self._warn,
            ).run(lambda: abort_signal.triggered)
        if not abort_signal.triggered:
            self._show(self._server.finish(lambda: abort_signal.triggered))

    def _admit_newcomers(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Registers sites that joined, or came back, since the last round.

        They prepare while rounds go on; a round waits for them a few seconds once, which are enough where the cases are
        prepared already.
        """
        connected = self._connected(now=True)
        # Also a site that has logged in again: its data may be others now.
        fresh = [
            site for site, token in connected.items() if token not in (self._sites.get(site), self._asked.get(site))
        ]
        if fresh:
            self._timing.enter("start_up")
            self._asked |= {site: connected[site] for site in fresh}
            tasks = self._send_prepare(fresh, self._profiles, self._failures, fl_ctx)
            self._wait(tasks, abort_signal, _NEWCOMER_SECONDS, cancel=False)
        for site in sorted(self._profiles.keys() | self._failures.keys()):
            profile, reason = self._profiles.pop(site, None), self._failures.pop(site, None)
            try:
                if profile is None:
                    raise FedMEPDError(reason)
                self._server.register(profile)
            except FedMEPDError as error:
                self._warn(f"round {self._current_round}: {site} is left out until it logs in again: {error}")
                self._sites.pop(site, None)
                continue
            self._say(f"{site}: {'is back' if site in self._sites else 'joins'} in round {self._current_round}")
            self._sites[site] = self._asked[site]

    def _send_prepare(self, sites: Iterable[str], profiles: dict, failures: dict, fl_ctx: FLContext) -> dict[str, Task]:
        def take(client_task: ClientTask, fl_ctx: FLContext) -> None:
            site, result = client_task.client.name, client_task.result
            reason = translation.failure_of(result)
            if reason:
                failures[site] = reason
                return
            try:
                self._timing.sites[site] = translation.start_up_of(site, result)
                profiles[site] = translation.profile_of(result)
            except (FedMEPDError, ValueError, TypeError, KeyError) as error:
                failures[site] = f"its answer to 'prepare' is no site profile ({error})"

        return {
            site: self._send_task(translation.PREPARE, site, translation.task(self._run), take, fl_ctx)
            for site in sorted(sites)
        }

    def _send_task(self, name: str, site: str, message: Shareable, take: Callable, fl_ctx: FLContext) -> Task:
        task = Task(name=name, data=message, result_received_cb=take)
        # send, not broadcast: a broadcast task copies its data once more.
        self.send(task, fl_ctx, targets=[site])
        return task

    def _wait(
        self,
        tasks: dict[str, Task],
        abort_signal: Signal,
        timeout: float = 0,
        straggler_wait: float = 0,
        cancel: bool = True,
    ) -> list[str]:
        """Waits for all tasks; returns the sites that gave no answer.

        Args:
            tasks: by site.
            abort_signal: ends the waiting.
            timeout: seconds at most; 0: no limit.
            straggler_wait: seconds at most once more than half of the sites' updates are in; 0: no limit.
            cancel: whether to withdraw the tasks that are not done by then.
        """
        deadline = time.monotonic() + timeout if timeout else float("inf")
        stragglers = float("inf")
        while any(task.completion_status is None for task in tasks.values()):
            if straggler_wait and stragglers == float("inf") and 2 * self._server.delivered() > len(tasks):
                stragglers = time.monotonic() + straggler_wait
            if abort_signal.triggered or time.monotonic() > min(deadline, stragglers):
                for task in tasks.values():
                    if task.completion_status is None and cancel:
                        self.cancel_task(task)
                break
            time.sleep(_CHECK_SECONDS)
        return sorted(site for site, task in tasks.items() if task.completion_status != TaskCompletionStatus.OK)

    def _connected(self, now: bool = False) -> dict[str, str]:
        """The job's sites that FLARE holds for alive, each with the token of its login.

        Args:
            now: ask the server's main process, which may have let in others (see :mod:`fedmepd.flare.admission`).
        """
        if now and not self._simulated:
            try:
                self._engine.sync_clients_from_main_process()
            except RuntimeError as error:
                self._warn(f"the server's main process does not say which sites are connected: {error}")
        clients = self._engine.get_clients()
        return {client.name: client.token for client in clients if not self.get_client_disconnect_time(client.name)}

    def _ready(self) -> list[str]:
        """The sites that have prepared since their last login."""
        return sorted(site for site, token in self._connected().items() if self._sites.get(site) == token)

    def _record(self, metrics: dict[str, float], fl_ctx: FLContext) -> None:
        for tag, value in metrics.items():
            self._send_figure(tag, value, AnalyticsDataType.SCALAR, fl_ctx)

    def _send_figure(self, tag: str, value: Any, kind: AnalyticsDataType, fl_ctx: FLContext) -> None:
        dxo = create_analytic_dxo(tag=tag, value=value, data_type=kind, global_step=self._current_round)
        send_analytic_dxo(self, dxo, fl_ctx, event_type=ANALYTIC_EVENT_TYPE)

    def _record_filters(self, fl_ctx: FLContext) -> None:
        """The heat map of personal filters, some fifty times a run: every picture stays in TensorBoard's file."""
        interval = max(self._run.settings.evaluation.every, -(-self._num_rounds // _HEAT_MAPS))
        if self._current_round % interval and self._current_round != self._num_rounds:
            return
        from fedmepd.reporting.figures import personal_filters, pixels

        figure = personal_filters(self._server.results(), self._server.histories())
        if figure is not None:
            self._send_figure("federation/personal_filters", pixels(figure), AnalyticsDataType.IMAGE, fl_ctx)

    def _show(self, results: dict[str, Any]) -> None:
        from fedmepd.evaluation.tables import console_table

        self._say("results\n" + console_table(results))

    def handle_event(self, event_type: str, fl_ctx: FLContext):
        super().handle_event(event_type, fl_ctx)
        if event_type == InfoCollector.EVENT_TYPE_GET_STATS and self._server is not None:
            collector = fl_ctx.get_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR)
            if collector:
                collector.add_info(group_name=self.name, info=self._server.stats() | {"last_round": self._last_round})


def _megabytes(sizes: Iterator[int]) -> str:
    return f"{sum(sizes) / 1e6:.1f}"


def _loss(report: dict[str, Any]) -> float | None:
    try:
        return float(report["losses"]["total"])
    except (KeyError, TypeError, ValueError):
        return None
