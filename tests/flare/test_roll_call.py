"""Who is asked to prepare, and who may have tasks."""

from __future__ import annotations

import pytest

from fedmepd.federation.exchange import SiteProfile
from fedmepd.federation.timing import Timing
from fedmepd.flare import translation
from fedmepd.flare.answers import Answer
from fedmepd.flare.roll_call import RollCall
from fedmepd.job_settings import make_settings
from tests.flare.fakes import CASES, START_UP

RUN = translation.Run("1" * 32, make_settings("phantom"))
PROFILE = translation.profile_reply(SiteProfile("site-1", ("T2",), CASES, "folder"), START_UP)


class Sender:
    """Hands an answer on, now or later; no task of it is ever called done."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.take = lambda answer: None

    def send(self, name, site, message, take) -> None:
        self.asked.append(site)
        self.take = take


@pytest.mark.parametrize("late", [False, True])
def test_an_answer_in_the_moment_in_which_its_time_is_up(late: bool) -> None:
    """FLARE calls a task done some moments after its answer: a site could choose them, and ended the job of all."""
    sender = Sender()
    roll_call = RollCall(RUN, sender, lambda now: {"site-1": "login-1"}, Timing(), print)
    roll_call.ask()
    steps = [lambda: sender.take(Answer("site-1", PROFILE)), lambda: roll_call.forget(["site-1"])]
    for step in reversed(steps) if late else steps:
        step()
    for site in roll_call.profiles():
        roll_call.admit(site)
    if late:
        # Forgotten before: it is asked again, and has no tasks until it has answered.
        assert roll_call.ready() == []
        roll_call.ask()
        sender.take(Answer("site-1", PROFILE))
        for site in roll_call.profiles():
            roll_call.admit(site)
    assert roll_call.ready() == ["site-1"]
    assert sender.asked == ["site-1"] * (2 if late else 1)
