"""The way from the server to a fusion site at a hospital: a task of its own, asked for again when it comes back."""

from __future__ import annotations

import time
from collections.abc import Callable

from fedmepd.errors import Aborted, FusionAway, UpdateRefused
from fedmepd.federation.exchange import FusionReply, FusionTask, SiteProfile
from fedmepd.flare import translation
from fedmepd.flare.answers import Answer, Sender
from fedmepd.flare.roll_call import RollCall, wait_until

_LOOK_AGAIN_SECONDS = 2.0


class FusionPost:
    """Hands tasks to the fusion site, waits for it where it is away, and gives up after a while.

    Args:
        run: the job's; ``fusion.site`` names the site.
        sender: of tasks.
        roll_call: of the sites.
        admit: lets sites in that have come back.
        say: takes lines about the progress.
    """

    def __init__(
        self,
        run: translation.Run,
        sender: Sender,
        roll_call: RollCall,
        admit: Callable[[], None],
        say: Callable[[str], None],
    ):
        self._job = run
        self._site = run.settings.fusion.site
        self._seconds = run.settings.aggregation.round_timeout
        self._sender, self._roll_call, self._admit, self._say = sender, roll_call, admit, say
        # The round in which it did not answer in time.
        self._gave_up: int | None = None

    def __call__(self, task: FusionTask, abort: Callable[[], bool]) -> FusionReply:
        """Has the fusion site do a task.

        Raises:
            FusionAway: it is not connected, or gives no answer, for ``aggregation.round_timeout``; or it cannot do it.
                A round waits once: its validation does not wait again for a site that was awaited for its training.
            Aborted: ``abort`` said so.
        """
        if task.kind == "validate" and task.round == self._gave_up:
            raise self._away(task)
        deadline = time.monotonic() + self._seconds if self._seconds else float("inf")
        told = False
        while not abort():
            if self._there():
                answer = self._ask(task, deadline)
                if answer is not None:
                    return self._reply(answer)
                if abort():
                    break
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._away(task)
            if not told:
                self._say(f"waiting for {self._site}, the fusion site, which is not connected")
                told = True
            wait_until(self._back, left if self._seconds else 0, abort, _LOOK_AGAIN_SECONDS)
        raise Aborted

    def _away(self, task: FusionTask) -> FusionAway:
        self._gave_up = task.round
        reason = f"{self._site}, the fusion site, gave no answer in time"
        return FusionAway(reason, reason)

    def _there(self) -> bool:
        return self._site in self._roll_call.ready()

    def _back(self) -> bool:
        self._admit()
        return self._there()

    def _ask(self, task: FusionTask, deadline: float) -> Answer | None:
        """Sends the task; returns None if the site is lost, or time runs out, before it has answered."""
        answers: list[Answer] = []
        message = translation.fusion_task(self._job, task)
        sent = {self._site: self._sender.send(translation.FUSION, self._site, message, answers.append)}
        left = max(0.1, deadline - time.monotonic()) if deadline < float("inf") else 0
        self._sender.wait(sent, left, cut_short=_Lost(self._site, self._roll_call))
        return answers[0] if answers else None

    def _reply(self, answer: Answer) -> FusionReply:
        try:
            answer.require_done()
            return translation.fusion_reply_of(answer.site, answer.message)
        except UpdateRefused as error:
            reason = f"{self._site}, the fusion site: {error}"
            raise FusionAway(reason, reason) from error


class _Lost:
    """Says whether a site is gone, or has logged in again since it prepared: it knows nothing of its task then.

    FLARE may need many minutes to miss a site that was killed, a new login it notices within seconds.
    """

    def __init__(self, site: str, roll_call: RollCall):
        self._site, self._roll_call = site, roll_call
        self._next = 0.0

    def __call__(self) -> bool:
        now = time.monotonic() >= self._next
        if now:
            self._next = time.monotonic() + _LOOK_AGAIN_SECONDS
        return self._site not in self._roll_call.ready(now)


def profile_of_fusion(run: translation.Run, profiles: dict[str, SiteProfile]) -> SiteProfile:
    """Returns the profile of the job's fusion site.

    Raises:
        FusionAway: it is not among the sites, or has no cases for that.
    """
    name = run.settings.fusion.site
    profile = profiles.get(name)
    if profile is None:
        there = ", ".join(sorted(profiles)) or "none"
        raise FusionAway(
            f"fusion.site is {name!r}, which has not joined the job: start that site, or name another one; ready are: "
            f"{there}"
        )
    if profile.fusion is None:
        raise FusionAway(f"{name} does not know that it is the fusion site: it must run the same version of fedmepd")
    return profile
