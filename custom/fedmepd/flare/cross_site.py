"""The final test of every model at every site that agrees, as tasks for the sites."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.fl_context import FLContext

from fedmepd.errors import Aborted, UpdateRefused
from fedmepd.federation.exchange import ModelCopy
from fedmepd.flare import translation

if TYPE_CHECKING:
    from fedmepd.federation.cross_site import CrossSiteTest
    from fedmepd.federation.server import FederationServer


class CrossSiteEvaluation:
    """One model after the other goes to all sites that agree, so that the server holds a single one.

    Args:
        run: the job's.
        server: tests too, and keeps the matrix.
        send: hands a task (name, site, message, callback) to FLARE.
        wait: for tasks by site; returns the sites that gave no answer.
        ready: the sites that can be given tasks.
        say: takes lines about the progress.
        warn: takes lines about what went wrong.
    """

    def __init__(
        self,
        run: translation.Run,
        server: FederationServer,
        *,
        send: Callable[..., Task],
        wait: Callable[[dict[str, Task]], list[str]],
        ready: Callable[[], list[str]],
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ):
        self._job = run
        self._server = server
        self._send, self._wait, self._ready = send, wait, ready
        self._say, self._warn = say, warn

    def run(self, abort: Callable[[], bool]) -> None:
        """Tests all models; whatever a site cannot do becomes the reason in its cell.

        Args:
            abort: asked before every model.

        Raises:
            Aborted: ``abort`` said so while the server was testing.
        """
        from fedmepd.federation.cross_site import SERVER, network_of

        matrix = self._server.begin_cross_site()
        models = matrix.models()
        self._say(f"testing {len(models)} models at every site that agrees")
        for model in models:
            if abort():
                return
            try:
                copy = self._server.global_copy() if model == SERVER else self._ask(model)
                network = network_of(copy, self._job.settings)
            except UpdateRefused as error:
                self._warn(f"the model of {model} is tested nowhere else: {error}")
                matrix.miss(model, str(error))
                continue
            matrix.arrived(model, network.modalities)
            tasks = self._hand_out(matrix, model, copy)
            try:
                self._server.test_model(model, copy, abort)
            except Aborted:
                raise
            except Exception as error:
                # Whatever it is: weeks of training and the final test are over, and their results still to be written.
                self._warn(f"the model of {model} is not tested at the server: {type(error).__name__}: {error}")
                matrix.miss(model, translation.public_reason(error), SERVER)
            for site in self._wait(tasks):
                matrix.miss(model, f"{site} gave no answer in time", site)

    def _ask(self, site: str) -> ModelCopy:
        answers = []

        def take(client_task: ClientTask, fl_ctx: FLContext) -> None:
            answers.append(client_task.result)
            client_task.result = None

        if site not in self._ready():
            raise UpdateRefused(f"{site} was not connected")
        self._wait({site: self._send(translation.GIVE_MODEL, site, translation.task(self._job), take)})
        if not answers:
            raise UpdateRefused(f"{site} gave no answer in time")
        reason = translation.failure_of(answers[0])
        if reason:
            raise UpdateRefused(reason)
        return translation.model_of(answers[0])

    def _hand_out(self, matrix: CrossSiteTest, model: str, copy: ModelCopy) -> dict[str, Task]:
        ready, tasks = self._ready(), {}
        for site in matrix.sites_to_ask(model):
            if site in ready:
                message = translation.model_task(self._job, copy)
                take = partial(self._take, matrix, model)
                tasks[site] = self._send(translation.TEST_MODEL, site, message, take)
            else:
                matrix.miss(model, f"{site} was not connected", site)
        return tasks

    def _take(self, matrix: CrossSiteTest, model: str, client_task: ClientTask, fl_ctx: FLContext) -> None:
        site, result = client_task.client.name, client_task.result
        client_task.result = None
        reason = translation.failure_of(result)
        try:
            if reason:
                raise UpdateRefused(reason)
            matrix.accept(model, site, translation.report_of(result))
        except (UpdateRefused, ValueError) as error:
            self._warn(f"the model of {model} is not tested at {site}: {error}")
            matrix.miss(model, str(error), site)
