"""The final test of every model at every site that agrees, as tasks for the sites."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from nvflare.apis.controller_spec import Task

from fedmepd.errors import Aborted, UpdateRefused
from fedmepd.federation.exchange import ModelCopy
from fedmepd.flare import translation
from fedmepd.flare.answers import Answer, Sender
from fedmepd.text_table import counted

if TYPE_CHECKING:
    from fedmepd.federation.cross_site import CrossSiteTest
    from fedmepd.federation.server import FederationServer


class CrossSiteEvaluation:
    """One model after the other goes to all sites that agree, so that the server holds a single one.

    Args:
        run: the job's.
        server: tests too, and keeps the matrix.
        sender: of tasks.
        ready: the sites that can be given tasks.
        say: takes lines about the progress.
        warn: takes lines about what went wrong.
    """

    def __init__(
        self,
        run: translation.Run,
        server: FederationServer,
        sender: Sender,
        ready: Callable[[], list[str]],
        *,
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ):
        self._job = run
        self._server = server
        self._sender, self._ready = sender, ready
        self._say, self._warn = say, warn
        # Sites that have not answered a test. Each costs the wait once, and not once for every model.
        self._silent: set[str] = set()

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
        self._say(f"testing {counted(len(models), 'model')} at every site that agrees")
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
                self._warn(f"the model of {model} is not tested at the fusion site: {type(error).__name__}: {error}")
                matrix.miss(model, translation.public_reason(error), SERVER)
            for site in self._wait(tasks):
                self._silent.add(site)
                matrix.miss(model, f"{site} gave no answer in time", site)

    def _wait(self, tasks: dict[str, Task]) -> list[str]:
        return self._sender.wait(tasks, self._job.settings.aggregation.round_timeout)

    def _ask(self, site: str) -> ModelCopy:
        if site not in self._ready():
            raise UpdateRefused(f"{site} was not connected")
        answers: list[Answer] = []
        self._wait({site: self._sender.send(translation.GIVE_MODEL, site, translation.task(self._job), answers.append)})
        if not answers:
            raise UpdateRefused(f"{site} gave no answer in time")
        answers[0].require_done()
        return translation.model_of(answers[0].message)

    def _hand_out(self, matrix: CrossSiteTest, model: str, copy: ModelCopy) -> dict[str, Task]:
        ready, tasks = self._ready(), {}
        for site in matrix.sites_to_ask(model):
            if site in self._silent:
                matrix.miss(model, f"{site} gave no answer in time to the test of an earlier model", site)
            elif site in ready:
                message = translation.model_task(self._job, copy)
                take = partial(self._take, matrix, model)
                tasks[site] = self._sender.send(translation.TEST_MODEL, site, message, take)
            else:
                matrix.miss(model, f"{site} was not connected", site)
        return tasks

    def _take(self, matrix: CrossSiteTest, model: str, answer: Answer) -> None:
        try:
            answer.require_done()
            matrix.accept(model, answer.site, translation.report_of(answer.message))
        except UpdateRefused as error:
            self._warn(f"the model of {model} is not tested at {answer.site}: {error}")
            matrix.miss(model, str(error), answer.site)
