"""The sites of a running job: who is connected, who has prepared, who gets tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from nvflare.apis.controller_spec import Task

from fedmepd.errors import FedMEPDError
from fedmepd.federation.exchange import SiteProfile
from fedmepd.federation.timing import Timing
from fedmepd.flare import translation
from fedmepd.flare.answers import Answer, Sender
from fedmepd.tasks.find import find_task

NEWCOMER_SECONDS = 10.0


class RollCall:
    """Asks sites to prepare, at the beginning and whenever one logs in later.

    Args:
        run: the job's.
        sender: of tasks.
        connected: the sites that FLARE holds for alive, each with the token of its login; asked for the newest list.
        timing: takes the sites' start-up.
        warn: takes lines about what went wrong.
        newcomer_seconds: how long a round waits once for sites that prepare.
    """

    def __init__(
        self,
        run: translation.Run,
        sender: Sender,
        connected: Callable[[bool], dict[str, str]],
        timing: Timing,
        warn: Callable[[str], None],
        newcomer_seconds: float = NEWCOMER_SECONDS,
    ):
        self._job = run
        self._task = find_task(run.settings.task)
        self._sender = sender
        self._connected = connected
        self._timing = timing
        self._warn = warn
        self._newcomer_seconds = newcomer_seconds
        # The prepared sites, and those that were asked, each with the token of its login.
        self._prepared: dict[str, str] = {}
        self._asked: dict[str, str] = {}
        # Answers that nobody has looked at yet.
        self._profiles: dict[str, SiteProfile] = {}
        self._failures: dict[str, str] = {}
        self._strange: dict[str, str] = {}

    def ask(self) -> dict[str, Task]:
        """Asks every connected site to prepare that has not been asked since it logged in."""
        connected = self._connected(True)
        fresh = {
            site: token
            for site, token in connected.items()
            if token not in (self._prepared.get(site), self._asked.get(site))
        }
        self._asked |= fresh
        return {
            site: self._sender.send(translation.PREPARE, site, translation.task(self._job), self._take)
            for site in sorted(fresh)
        }

    def _take(self, answer: Answer) -> None:
        site = answer.site
        if answer.reason and not answer.foreign:
            self._failures[site] = answer.reason
            return
        try:
            answer.require_done()
            start_up = translation.start_up_of(site, answer.message)
            self._profiles[site] = translation.profile_of(site, answer.message, self._task)
            self._timing.sites[site] = start_up
        except FedMEPDError as error:
            # No honest site answers so. It must not keep the others from training.
            self._strange[site] = "its answer to 'prepare' is no profile"
            self._warn(f"{site} is left out until it logs in again: {self._strange[site]}: {error}")

    def forget(self, sites: Iterable[str]) -> None:
        """Asks these sites again when they are connected: they were gone before they could answer.

        Not one that has answered in the last moment: FLARE calls a task done some moments after its answer.
        """
        for site in sites:
            if not any(site in answers for answers in (self._profiles, self._failures, self._strange)):
                self._asked.pop(site, None)

    def failures(self) -> dict[str, str]:
        """Why sites cannot prepare, by site; each is told once."""
        failures, self._failures = self._failures, {}
        return failures

    def strange(self) -> dict[str, str]:
        """What is wrong with answers that no honest site gives, by site; each is told once."""
        strange, self._strange = self._strange, {}
        return strange

    def profiles(self) -> dict[str, SiteProfile]:
        """The profiles of sites that have prepared, each told once."""
        profiles, self._profiles = self._profiles, {}
        return dict(sorted(profiles.items()))

    def admit(self, site: str) -> bool:
        """Lets a prepared site have tasks; returns whether it had them before, under another login."""
        known = site in self._prepared
        # Of a site that was forgotten while its answer came, no login is known: it is asked again.
        self._prepared[site] = self._asked.get(site, "")
        return known

    def leave_out(self, site: str) -> None:
        """Gives a site no more tasks until it logs in again."""
        self._prepared.pop(site, None)

    def wait_for_newcomers(self) -> None:
        """Asks sites that joined, or came back, and waits for them a little.

        They prepare while rounds go on. The few seconds are enough where the cases are prepared already.
        """
        tasks = self.ask()
        if tasks:
            self._timing.enter("start_up")
            self._sender.wait(tasks, self._newcomer_seconds, cancel=False)

    def ready(self, now: bool = False) -> list[str]:
        """The sites that have prepared since their last login and are connected; ``now``: by the newest list."""
        return sorted(site for site, token in self._connected(now).items() if self._prepared.get(site) == token)

    def known(self) -> list[str]:
        """All sites that have ever been admitted and not left out."""
        return sorted(self._prepared)


def wait_until(condition: Callable[[], bool], seconds: float, abort: Callable[[], bool], pause: float = 1.0) -> bool:
    """Asks again and again whether a condition holds; returns whether it came to hold.

    Args:
        condition: asked every ``pause`` seconds.
        seconds: to wait at most; 0: without limit.
        abort: ends the waiting.
        pause: seconds.
    """
    deadline = time.monotonic() + seconds if seconds else float("inf")
    while not condition():
        if abort() or time.monotonic() > deadline:
            return False
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
    return True
