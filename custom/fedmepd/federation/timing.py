"""Where the time of a run goes, as the server sees it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

PHASES = (
    "start_up",
    "site_training",
    "site_evaluation",
    "transfer",
    "waiting",
    "aggregation",
    "fusion_training",
    "fusion_evaluation",
    "saving",
    "other",
)
# While the sites work; split into these phases (and some saving and aggregation) as soon as it is over.
SITES = "sites"
SITE_PHASES = ("site_training", "site_evaluation", "transfer", "waiting")

# What a round is for. All else but the start-up is overhead.
_TRAINING = ("site_training", "fusion_training")
_EVALUATION = ("site_evaluation", "fusion_evaluation")
_WORK = (*_TRAINING, *_EVALUATION)


@dataclass
class RoundSeconds:
    """One round's seconds, from the end of the round before to its own.

    Attributes:
        round: its number; 0 is what happens before the sites' first round.
        phases: seconds by phase, on the path that decides how long the round takes.
        last_site: the site whose update came last: the round waited for its training, evaluation and transfer.
        mean_site: the same for the average site, and how long it waited until the last update was in.
    """

    round: int
    phases: dict[str, float]
    last_site: str | None = None
    mean_site: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """The round's wall-clock time."""
        return sum(self.phases.values())

    def overhead(self) -> float:
        """What is neither training nor evaluation nor start-up."""
        return self.total - self.phases["start_up"] - sum(self.phases[phase] for phase in _WORK)


@dataclass(frozen=True)
class _Arrival:
    """An update: when its task was handed out, when it came and was taken in, and what the site did in between."""

    sent: float
    came: float
    taken: float
    training: float
    evaluation: float
    saving: float

    @property
    def transfer(self) -> float:
        return self.came - self.sent - self.training - self.evaluation - self.saving


class Timing:
    """Measures a run on the server's clock; every moment belongs to one phase, so the phases add up to the whole.

    While the sites work, the site whose update comes last decides. Its part of the round is what it reports of its own
    work (``site_training``, ``site_evaluation``, and ``saving`` its state) and ``transfer``: the time from handing out
    its task to having its update, less that work. Durations alone are taken from sites, so their clocks may differ. The
    rest of that time is ``waiting``: nothing is under way that the server will take, for example until a site that does
    not answer runs out of time.

    Args:
        clock: seconds; only differences count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.now = clock
        self.rounds: list[RoundSeconds] = []
        self.testing = 0.0
        # Seconds until a site had its data open, by site and part.
        self.sites: dict[str, dict[str, float | None]] = {}
        self._phase, self._since = "start_up", clock()
        self._sent: dict[str, float] = {}
        self._arrivals: dict[str, _Arrival] = {}
        self._begin()

    def _begin(self) -> None:
        self._open = RoundSeconds(-1, dict.fromkeys(PHASES, 0.0))

    def enter(self, phase: str) -> str:
        """Ends the running phase and begins another one; returns the one that ended."""
        now = self.now()
        ended = self._phase
        if ended == SITES:
            self._split(now)
        else:
            self._open.phases[ended] += now - self._since
        if phase == SITES:
            self._sent, self._arrivals = {}, {}
        self._phase, self._since = phase, now
        return ended

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """A phase inside another one, which goes on afterwards."""
        outer = self.enter(phase)
        try:
            yield
        finally:
            self.enter(outer)

    def handed_out(self, site: str) -> None:
        """Notes that a site's task is ready to be fetched."""
        self._sent[site] = self.now()

    def took_in(self, site: str, came: float, report: dict[str, Any]) -> None:
        """Notes that a site's update, which came at ``came``, has been taken in."""
        # A site that comes back has its task once more, while its update already waits to be taken in.
        sent = min(self._sent.get(site, self._since), came)
        # A site that keeps its durations to itself counts as transfer.
        training, evaluation, whole = (report[key] or 0.0 for key in ("train_seconds", "validation_seconds", "seconds"))
        saving = max(0.0, whole - training - evaluation)
        # A site cannot have worked longer than it had the task.
        scale = min(1.0, (came - sent) / max(training + evaluation + saving, 1e-9))
        self._arrivals[site] = _Arrival(sent, came, self.now(), training * scale, evaluation * scale, saving * scale)

    def _split(self, now: float) -> None:
        phases, arrivals = self._open.phases, self._arrivals
        if not arrivals:
            phases["waiting"] += now - self._since
            return
        site, last = max(arrivals.items(), key=lambda item: item[1].came)
        phases["site_training"] += last.training
        phases["site_evaluation"] += last.evaluation
        phases["saving"] += last.saving
        phases["transfer"] += last.transfer
        phases["aggregation"] += last.taken - last.came
        phases["waiting"] += (last.sent - self._since) + (now - last.taken)
        self._open.last_site = site
        self._open.mean_site = {
            "training": fmean(arrival.training for arrival in arrivals.values()),
            "evaluation": fmean(arrival.evaluation for arrival in arrivals.values()),
            "transfer": fmean(arrival.transfer for arrival in arrivals.values()),
            "waiting": fmean(last.came - arrival.came for arrival in arrivals.values()),
        }

    def name_round(self, number: int) -> None:
        """Counts what was measured since the last round as this one; from now on it is kept and shown."""
        self._open.round = number
        self.rounds.append(self._open)

    def end_round(self) -> RoundSeconds:
        """Ends the round that has its number, and begins the next one."""
        self.enter("other")
        ended = self._open
        self._begin()
        return ended

    def end_testing(self) -> None:
        """Counts everything since the last round as the final test."""
        self.enter("other")
        self.testing += self._open.total
        self._begin()

    def total(self) -> float:
        """Seconds of all rounds and the test."""
        return sum(record.total for record in self.rounds) + self.testing

    def seconds_left(self, rounds: int, validations: int) -> float | None:
        """Returns the seconds that further rounds will take if they are like those so far; None before the first.

        Args:
            rounds: that are left.
            validations: that are left, one in some of the rounds.
        """
        later = [record for record in self.rounds if record.round > 0]
        if not later:
            return None
        evaluation = [sum(record.phases[phase] for phase in _EVALUATION) for record in later]
        work = [record.total - record.phases["start_up"] - of for record, of in zip(later, evaluation, strict=True)]
        validated = [seconds for seconds in evaluation if seconds > 0]
        return rounds * fmean(work) + (validations * fmean(validated) if validated else 0.0)

    def state(self) -> dict[str, Any]:
        """As plain values, to be kept."""
        return {
            "rounds": [asdict(record) for record in self.rounds],
            "testing": self.testing,
            "sites": {site: dict(seconds) for site, seconds in self.sites.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Puts what an earlier process measured before what this one does."""
        self.rounds = [RoundSeconds(**record) for record in state["rounds"]]
        self.testing = state["testing"]
        self.sites = state["sites"] | self.sites

    def summary(self) -> dict[str, Any]:
        """What the results say: seconds and shares by phase, overhead, every round.

        Means and overhead are those of the rounds from 1 on, without start-up.
        """
        whole = self.total()
        sums = {phase: sum(record.phases[phase] for record in self.rounds) for phase in PHASES}
        sums["testing"] = self.testing
        later = [record for record in self.rounds if record.round > 0]
        training = sum(record.phases[phase] for record in later for phase in _TRAINING)
        mean = {phase: fmean(record.phases[phase] for record in later) for phase in PHASES[1:]} if later else None
        return {
            "seconds": _rounded(sums),
            "shares": {phase: round(value / whole, 4) if whole else 0.0 for phase, value in sums.items()},
            "mean_round": mean and _rounded(mean),
            "overhead": {
                "seconds": _milli(fmean(record.overhead() for record in later)) if later else None,
                "share_of_training": round(sum(record.overhead() for record in later) / training, 4)
                if training
                else None,
            },
            "start_up_of_sites": {site: _rounded(seconds) for site, seconds in sorted(self.sites.items())},
            "rounds": [
                {
                    "round": record.round,
                    "total": _milli(record.total),
                    **_rounded(record.phases),
                    "last_site": record.last_site,
                    "mean_site": _rounded(record.mean_site),
                }
                for record in self.rounds
            ],
        }


def _milli(seconds: float) -> float:
    # Measured to milliseconds at best; more digits would only make the file long.
    return round(seconds, 3)


def _rounded(seconds: dict[str, float | None]) -> dict[str, float]:
    return {name: _milli(value) for name, value in seconds.items() if value is not None}


def figures_of(record: RoundSeconds) -> dict[str, float]:
    """Returns a round's seconds for TensorBoard, by tag."""
    seconds = record.phases | {"total": record.total, "overhead": record.overhead()}
    return {f"server/seconds/{name}": value for name, value in seconds.items()}
