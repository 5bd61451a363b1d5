"""Tasks for single sites, and their answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nvflare.apis.controller_spec import ClientTask, Task, TaskCompletionStatus
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from fedmepd.errors import UpdateRefused, plain_text
from fedmepd.flare import translation

_CHECK_SECONDS = 0.1


@dataclass
class Answer:
    """What a site answered.

    Attributes:
        site: its name, as FLARE knows it by the site's login.
        message: the answer.
        reason: why the task was not done; empty if it was.
        foreign: whether it says that it comes from somebody else.
    """

    site: str
    message: Shareable
    reason: str = ""
    foreign: bool = False

    def require_done(self) -> None:
        """Raises an error if the task was not done.

        Raises:
            UpdateRefused: with the reason.
        """
        if self.reason:
            raise UpdateRefused(self.reason)


class Sender:
    """Sends tasks to sites and waits for them.

    Args:
        controller: has FLARE's communicator.
        fl_ctx: of the controller's run.
        abort_signal: ends all waiting.
    """

    def __init__(self, controller: Controller, fl_ctx: FLContext, abort_signal: Signal):
        self._controller = controller
        self._fl_ctx = fl_ctx
        self._abort_signal = abort_signal

    def send(self, name: str, site: str, message: Shareable, take: Callable[[Answer], None]) -> Task:
        """Sends a task to one site; ``take`` gets its answer, in another thread."""

        def received(client_task: ClientTask, fl_ctx: FLContext) -> None:
            client, result = client_task.client, client_task.result
            client_task.result = None
            foreign = impostor(client.name, fl_ctx)
            take(Answer(client.name, result, foreign or translation.failure_of(result), bool(foreign)))

        return self.send_as(name, site, message, received)

    def send_as(self, name: str, site: str, message: Shareable, received: Callable) -> Task:
        """Sends a task to one site, with a callback as FLARE calls it."""
        task = Task(name=name, data=message, result_received_cb=received)
        # send, not broadcast: a broadcast task copies its data once more.
        self._controller.send(task, self._fl_ctx, targets=[site])
        return task

    def wait(
        self,
        tasks: Mapping[str, Task],
        timeout: float = 0,
        *,
        cut_short: Callable[[], bool] = lambda: False,
        cancel: bool = True,
    ) -> list[str]:
        """Waits for all tasks; returns the sites that gave no answer.

        Args:
            tasks: by site.
            timeout: seconds at most; 0: no limit.
            cut_short: ends the waiting when it says so.
            cancel: whether to withdraw the tasks that are not done by then.
        """
        deadline = time.monotonic() + timeout if timeout else float("inf")
        while any(task.completion_status is None for task in tasks.values()):
            if self._abort_signal.triggered or time.monotonic() > deadline or cut_short():
                if cancel:
                    self.cancel(tasks)
                break
            time.sleep(_CHECK_SECONDS)
        return sorted(site for site, task in tasks.items() if task.completion_status != TaskCompletionStatus.OK)

    def cancel(self, tasks: Mapping[str, Task]) -> None:
        """Withdraws the tasks that are not done."""
        for task in tasks.values():
            if task.completion_status is None:
                self._controller.cancel_task(task)


def impostor(site: str, fl_ctx: FLContext) -> str:
    """Returns why an answer is not a site's own; empty if it is.

    Args:
        site: the name that FLARE knows by the login.
        fl_ctx: of the answer; its peer context is what the sender says of itself.
    """
    peer = fl_ctx.get_peer_context()
    claimed = peer.get_identity_name() if peer is not None else None
    if claimed == site:
        return ""
    said = plain_text(claimed)
    return f"answer of {site} refused: it says that it comes from '{said}'; ask the administrator of {site} why"
