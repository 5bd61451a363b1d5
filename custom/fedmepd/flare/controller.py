"""The server's side of the job: ScatterAndGather's rounds with a payload of its own for every site."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from nvflare.apis.analytix import ANALYTIC_EVENT_TYPE, AnalyticsDataType
from nvflare.apis.client import Client
from nvflare.apis.controller_spec import Task
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.utils.analytix_utils import create_analytic_dxo, send_analytic_dxo
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather
from nvflare.widgets.info_collector import InfoCollector

from fedmepd.errors import LONGEST_MESSAGE, Aborted, FedMEPDError, UpdateRefused, escaped, plain_text
from fedmepd.federation.charts import FEDERATION
from fedmepd.federation.timing import Timing
from fedmepd.flare import console, folders, loading, progress, translation
from fedmepd.flare.answers import Answer, Sender, impostor
from fedmepd.flare.cross_site import CrossSiteEvaluation
from fedmepd.flare.fusion_at_a_site import FusionPost, profile_of_fusion
from fedmepd.flare.opening import kept_fusion, open_server
from fedmepd.flare.private import take_no_orders
from fedmepd.flare.roll_call import NEWCOMER_SECONDS, RollCall, wait_until
from fedmepd.flare.rounds import NoGlobalModel, RoundEnd
from fedmepd.job_settings import make_settings
from fedmepd.text_table import counted

_HEAT_MAPS = 50


class FedMEPDController(ScatterAndGather):
    """Runs a federation: every site prepares, rounds of training and fusion, a final test, the results.

    ScatterAndGather's flow stays as it is. Its one broadcast becomes one task per site, since a broadcast sends the
    same data to all; where it aggregates, the FederationServer, which owns the state, does the rest of the round and
    writes models and results. Round 0 comes before the flow, the test after it.

    A site that fails, is refused or does not answer in time is left out of the round, with a line that names it. A site
    that cannot even prepare ends the job before any training, unless ``aggregation.refusals`` leaves it out. One
    whose answer makes no sense is always left out.

    Args:
        preset: name of the settings' preset (see :mod:`fedmepd.config`).
        settings: what the job changes in it, nested like the settings.

    Attributes:
        open_server: opens the federation's server, see :func:`fedmepd.flare.opening.open_server`.
        kept_fusion: what a run's state says of its fusion site, see :func:`fedmepd.flare.opening.kept_fusion`.
        load: imports what training at the server needs, see :func:`fedmepd.flare.loading.load`.
        newcomer_seconds: how long a round waits for sites that have just joined.
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
        self.open_server = open_server
        self.kept_fusion = kept_fusion
        self.load = loading.load
        self.newcomer_seconds = NEWCOMER_SECONDS
        self._run: translation.Run | None = None
        self._server = None
        self._sender: Sender | None = None
        self._roll_call: RollCall | None = None
        self._timing: Timing | None = None
        self._simulated = False
        # Before the components that follow in the job's configuration say that they have been made.
        console.quieten()
        translation.let_tensors_travel()
        self._progress = logging.getLogger("fedmepd.progress")

    def log_info(self, fl_ctx: FLContext, msg: str, fire_event=False):
        # ScatterAndGather's own lines ("Round 3 started.") say less than the progress line of the round.
        self.log_debug(fl_ctx, msg, fire_event)

    def _say(self, text: str) -> None:
        self._progress.info(escaped(text))

    def _warn(self, text: str) -> None:
        self._progress.warning(escaped(text))

    @contextlib.contextmanager
    def _guarded(self, fl_ctx: FLContext) -> Iterator[None]:
        """Whatever goes wrong inside ends the job with a reason; an abort just ends it."""
        try:
            yield
        except Aborted:
            self._say("stopped; a run with a name continues after its last finished round")
        except FedMEPDError as error:
            self.system_panic(str(error), fl_ctx)
        except Exception as error:
            self.log_exception(fl_ctx, "the server's work failed", fire_event=False)
            hint = "; a smaller crop, batch or width needs less" if translation.is_out_of_memory(error) else ""
            self.system_panic(plain_text(f"{type(error).__name__}: {error}{hint}", LONGEST_MESSAGE), fl_ctx)

    def start_controller(self, fl_ctx: FLContext) -> None:
        # Not ScatterAndGather's, which takes components and an initial model from the job: the server has both.
        take_no_orders(fl_ctx)
        self._simulated = folders.in_simulator(fl_ctx)
        with self._guarded(fl_ctx):
            make_settings(self.preset, self.settings)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        if abort_signal.triggered:
            return

        def abort() -> bool:
            return abort_signal.triggered

        self._timing = Timing()
        with self._guarded(fl_ctx):
            settings = make_settings(self.preset, self.settings)
            folder = folders.server_folder(fl_ctx, settings)
            folders.show_state(fl_ctx, settings, folder)
            self._run = translation.Run(folders.run_identity(folder), settings)
            self._sender = Sender(self, fl_ctx, abort_signal)
            self._roll_call = RollCall(
                self._run, self._sender, self._connected, self._timing, self._warn, self.newcomer_seconds
            )
            server = self._prepare(folder, abort, fl_ctx)
            if server is None:
                return
            self._server = server
            self._rounds(abort, abort_signal, fl_ctx)
            if not abort():
                self._test(abort)

    def _prepare(self, folder, abort: Callable[[], bool], fl_ctx: FLContext):
        """Lets all sites prepare while the server opens its state; returns it, or None if there is nothing to do."""
        settings, roll_call = self._run.settings, self._roll_call
        tasks = roll_call.ask()
        sites = counted(len(tasks), "site")
        self._say(f"{settings.method}, {counted(settings.rounds, 'round')}: {sites} and the server prepare their data")
        for line in progress.plan_lines(settings, folders.run_folder(fl_ctx) / "results"):
            self._say(line)
        opened = partial(self.open_server, self._run, folder, timing=self._timing, log=self._say, fl_ctx=fl_ctx)
        post = FusionPost(self._run, self._sender, roll_call, partial(self._admit_newcomers, wait=False), self._say)
        # The fusion site may be away when a run goes on: what it said of itself is kept.
        kept, finished, server = {}, False, None
        try:
            if not settings.fusion.site:
                self.load()
                server = opened(fusion=None)
                finished = server.finished
            elif (known := self.kept_fusion(self._run, folder)) is not None:
                kept, finished = {settings.fusion.site: known[0]}, known[1]
            if finished:
                self._show_finished(server or opened(fusion=self._fusion_elsewhere(kept, post)), abort)
                return None
            # FLARE waits for ever for a site that is connected and does not answer.
            roll_call.forget(self._sender.wait(tasks, settings.aggregation.round_timeout))
        finally:
            self._sender.cancel(tasks)
        left_out: dict[str, str] = {}
        profiles = {} if abort() else self._profiles_of(tasks, kept, left_out, abort)
        if abort():
            return None
        if server is None:
            server = opened(fusion=self._fusion_elsewhere(kept | profiles, post))
        for site, profile in profiles.items():
            try:
                server.register(profile)
            except FedMEPDError as error:
                self._refused({site: str(error)}, left_out)
                left_out[site] = error.public
            else:
                roll_call.admit(site)
        for site, reason in left_out.items():
            if site not in kept and site not in roll_call.known():
                server.leave_out(site, reason)
        if len(server.profiles) < settings.aggregation.min_sites:
            raise FedMEPDError(
                f"{counted(len(server.profiles), 'site')} got ready, but aggregation.min_sites is "
                f"{settings.aggregation.min_sites}; the log says what kept the others"
            )
        if server.round >= 0:
            self._say(f"run {settings.run_name!r} continues after round {server.round}")
        return server

    def _profiles_of(self, asked: dict[str, Task], kept: dict, left_out: dict, abort: Callable[[], bool]) -> dict:
        """The profiles of the sites that have prepared, and of the fusion site, for which a new run waits.

        Why others take no part goes into ``left_out``.
        """
        roll_call, fusion = self._roll_call, self._run.settings.fusion.site
        self._refused(roll_call.failures(), left_out)
        profiles = roll_call.profiles()
        if fusion and fusion not in kept | profiles:
            self._say(f"waiting for {fusion}, the fusion site, to join the job")

            def joined() -> bool:
                roll_call.ask()
                self._refused(roll_call.failures(), left_out)
                profiles.update(roll_call.profiles())
                return fusion in profiles

            wait_until(joined, self._run.settings.aggregation.round_timeout, abort)
        left_out |= roll_call.strange()
        # Some have come after all, while the job waited for its fusion site.
        for site in sorted(asked.keys() - profiles.keys() - left_out.keys()):
            left_out[site] = "gone, or not prepared in time"
            self._warn(f"{site}: {left_out[site]}; the job starts without it")
        return dict(sorted(profiles.items()))

    def _refused(self, reasons: dict[str, str], left_out: dict[str, str]) -> None:
        """Sites that cannot take part, and why: the job ends, or they are added to those that are left out."""
        settings = self._run.settings
        if reasons and (settings.aggregation.refusals == "end" or settings.fusion.site in reasons):
            why = "; ".join(f"{site}: {reason}" for site, reason in sorted(reasons.items()))
            raise FedMEPDError(f"the job ends without training, since not every site can take part: {why}")
        for site, reason in sorted(reasons.items()):
            self._warn(f"{site} cannot take part; the job starts without it: {reason}")
        left_out |= reasons

    def _fusion_elsewhere(self, profiles: dict, post: FusionPost):
        from fedmepd.federation.fusion_elsewhere import FusionElsewhere

        return FusionElsewhere(self._run.settings, profile_of_fusion(self._run, profiles), post)

    def _show_finished(self, server, abort: Callable[[], bool]) -> None:
        self._say(f"run {self._run.settings.run_name!r} is finished; choose another run name to train again")
        self._show(server.finish(abort))

    def _rounds(self, abort: Callable[[], bool], abort_signal: Signal, fl_ctx: FLContext) -> None:
        self._server.start(abort)
        self.aggregator = RoundEnd(lambda context: self._finish_round(abort, context))
        self.shareable_gen = NoGlobalModel()
        self._num_rounds = 0 if self._server.training_over else self._run.settings.rounds
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
            self._admit_newcomers()
            self._server.begin_round()
            tasks = {}
            for site in filter(self._server.trains, self._ready()):
                message = translation.task(self._run, self._server.payload(site))
                for key, value in task.data[ReservedHeaderKey.HEADERS].items():
                    message.set_header(key, value)
                tasks[site] = self._sender.send_as(task.name, site, message, task.result_received_cb)
            settings = self._run.settings.aggregation
            cut_short = _Stragglers(lambda: 2 * self._server.delivered() > len(tasks), settings.straggler_wait)
            for site in self._sender.wait(tasks, settings.round_timeout, cut_short=cut_short):
                self._warn(f"round {self._current_round}: {site} did not answer; the round goes on without it")

    def _ready(self) -> list[str]:
        """The sites to train: prepared, connected, and with cases of their own."""
        return [site for site in self._roll_call.ready() if site in self._server.profiles]

    def _accept_train_result(
        self, client_name: str, result: Shareable, fl_ctx: FLContext, is_unknown_task: bool = False
    ) -> bool:
        # Not ScatterAndGather's, which hands the result to an aggregator that knows its sender only by hearsay.
        try:
            reason = impostor(client_name, fl_ctx)
            if not reason and (reason := translation.failure_of(result)):
                spent = translation.spent_of(client_name, result)
                if spent is not None:
                    self._warn(f"round {self._current_round}: {client_name} ends its training: {reason}")
                    self._server.end_training(client_name, reason, spent)
                    return False
            if reason:
                raise UpdateRefused(f"round {self._current_round}: {client_name} is left out: {reason}")
            update = translation.update_of(client_name, result)
        except UpdateRefused as error:
            self._warn(str(error))
            self._server.miss(client_name, str(error))
            return False
        try:
            self._server.accept(client_name, update, translation.bytes_of(result))
        except FedMEPDError as error:
            # Refused, which the server notes itself, or the server could not keep it.
            self._warn(str(error))
            return False
        return True

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        late = result.get_cookie(AppConstants.CONTRIBUTION_ROUND)
        of = f" of round {late}" if isinstance(late, int) else ""
        now = "" if self._current_round is None else f": round {self._current_round} is running"
        self._warn(f"{client.name}: late answer to '{plain_text(task_name)}'{of} refused{now}")

    def _finish_round(self, abort: Callable[[], bool], fl_ctx: FLContext) -> None:
        with self._guarded(fl_ctx):
            figures = self._server.finish_round(abort)
            if self._server.training_over:
                # Ends ScatterAndGather's loop.
                self._num_rounds = 0
            if not figures:
                return
            for tag, value in figures.items():
                self._send_figure(tag, value, AnalyticsDataType.SCALAR, fl_ctx)
            self._send_filters(fl_ctx)
            self._say(progress.round_line(self._server.stats()))

    def _test(self, abort: Callable[[], bool]) -> None:
        def take(answer: Answer) -> None:
            try:
                answer.require_done()
                self._server.accept_test(answer.site, translation.report_of(answer.message))
            except UpdateRefused as error:
                self._warn(f"test: {answer.site} is left out: {error}")
                self._server.miss_test(answer.site, str(error))

        settings = self._run.settings
        self._say("testing the models that were best on validation")
        tasks = {
            site: self._sender.send(
                translation.TEST, site, translation.task(self._run, self._server.test_payload(site)), take
            )
            for site in self._ready()
        }
        for site in self._sender.wait(tasks, settings.aggregation.round_timeout):
            self._warn(f"test: {site} did not answer; its row stays empty")
            self._server.miss_test(site, "no answer in time")
        if settings.evaluation.cross_site and not abort():
            CrossSiteEvaluation(self._run, self._server, self._sender, self._ready, say=self._say, warn=self._warn).run(
                abort
            )
        if not abort():
            self._show(self._server.finish(abort))

    def _admit_newcomers(self, wait: bool = True) -> None:
        """Registers sites that joined, or came back, since the last round."""
        roll_call = self._roll_call
        if wait:
            roll_call.wait_for_newcomers()
        else:
            roll_call.ask()
        for site, reason in roll_call.failures().items():
            self._leave_out(site, reason, reason)
        for site, reason in roll_call.strange().items():
            self._server.leave_out(site, reason)
        for site, profile in roll_call.profiles().items():
            try:
                self._server.register(profile)
            except FedMEPDError as error:
                self._leave_out(site, str(error), error.public)
                continue
            verb = "is back" if roll_call.admit(site) else "joins"
            self._say(f"{site}: {verb} in round {self._current_round}")

    def _leave_out(self, site: str, reason: str, public: str) -> None:
        self._warn(f"round {self._current_round}: {site} is left out until it logs in again: {reason}")
        self._roll_call.leave_out(site)
        self._server.leave_out(site, public)

    def _connected(self, now: bool) -> dict[str, str]:
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

    def _send_figure(self, tag: str, value: Any, kind: AnalyticsDataType, fl_ctx: FLContext) -> None:
        dxo = create_analytic_dxo(tag=tag, value=value, data_type=kind, global_step=self._current_round)
        send_analytic_dxo(self, dxo, fl_ctx, event_type=ANALYTIC_EVENT_TYPE)

    def _send_filters(self, fl_ctx: FLContext) -> None:
        """The heat map of personal filters, some fifty times a run: every picture stays in TensorBoard's file."""
        interval = max(self._run.settings.evaluation.every, -(-self._num_rounds // _HEAT_MAPS))
        if self._current_round % interval and self._current_round != self._num_rounds:
            return
        from fedmepd.reporting.figures import personal_filters
        from fedmepd.reporting.plotting import pixels

        figure = personal_filters(self._server.results(), self._server.histories())
        if figure is not None:
            self._send_figure(f"{FEDERATION}/personal_filters", pixels(figure), AnalyticsDataType.IMAGE, fl_ctx)

    def _show(self, results: dict[str, Any]) -> None:
        from fedmepd.evaluation.tables import console_table

        self._progress.info("results\n" + console_table(results))

    def handle_event(self, event_type: str, fl_ctx: FLContext):
        super().handle_event(event_type, fl_ctx)
        if event_type == InfoCollector.EVENT_TYPE_GET_STATS and self._server is not None:
            collector = fl_ctx.get_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR)
            if collector:
                collector.add_info(group_name=self.name, info=self._server.stats())


class _Stragglers:
    """Says when a round has waited long enough for the last sites.

    Args:
        most_are_in: whether more than half of the sites' updates are in.
        seconds: to wait from then on; 0: no limit.
    """

    def __init__(self, most_are_in: Callable[[], bool], seconds: float):
        self._most_are_in, self._seconds = most_are_in, seconds
        self._since: float | None = None

    def __call__(self) -> bool:
        if self._seconds and self._since is None and self._most_are_in():
            self._since = time.monotonic()
        return self._since is not None and time.monotonic() - self._since > self._seconds
