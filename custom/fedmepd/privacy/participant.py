"""Differential privacy of one participant in one run: terms, noise, budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmepd.config import PrivacySettings
from fedmepd.errors import FedMEPDError
from fedmepd.privacy.accountant import MOST_NOISE, Release, epsilon, least_noise
from fedmepd.privacy.ledger import Ledger
from fedmepd.privacy.randomness import SecretRandom
from fedmepd.site_settings import SitePrivacy
from fedmepd.text_table import counted

FILE_NAME = "privacy.json"
_OF_ALL = "of the site for all its runs"


class BudgetSpent(FedMEPDError):
    """The participant's budget does not suffice for another round.

    Args:
        message: for the machine's own log.
        public: what may leave a site.
        spent: what the participant has spent, see :meth:`Privacy.spent`.
    """

    def __init__(self, message: str, public: str, spent: dict[str, Any]):
        super().__init__(message, public)
        self.spent = spent


@dataclass(frozen=True)
class Account:
    """Where a participant's ledger is, and how it names the run.

    Attributes:
        path: of the ledger, which holds all runs.
        run: the name of this one.
    """

    path: Path
    run: str

    @classmethod
    def of_run(cls, folder: Path) -> Account:
        """Returns an account of its own in the run's folder."""
        return cls(Path(folder) / FILE_NAME, "run")

    @staticmethod
    def folder_in(kit: Path) -> Path:
        """Returns the folder of a kit with the ledgers of all its runs."""
        return Path(kit) / "fedmepd_privacy"

    @classmethod
    def file_in(cls, kit: Path, *, fusion: bool) -> Path:
        """Returns the ledger of a kit: the patients of a site and of the fusion site at the same place differ."""
        return cls.folder_in(kit) / (f"fusion_{FILE_NAME}" if fusion else FILE_NAME)


@dataclass(frozen=True)
class Terms:
    """What a job asks for and a site demands, taken together.

    Attributes:
        of_run: the largest epsilon of this run.
        delta: of the guarantee.
        job: the job's settings, for the rest.
        of_all: the largest epsilon of all runs of the site; None where the site demands nothing.
        share: the largest epsilon that the site lets a single run take; None where it has not said.
    """

    of_run: float
    delta: float
    job: PrivacySettings
    of_all: float | None = None
    share: float | None = None

    @classmethod
    def agreed(cls, job: PrivacySettings, site: SitePrivacy) -> Terms | None:
        """Returns the terms, the stricter of both in everything; None if neither wants any."""
        if not site.wanted(job):
            return None
        asked = [(job.epsilon, job.delta)] if job.epsilon else []
        asked += [(site.per_run or site.epsilon, site.delta)] if site.epsilon is not None else []
        return cls(*map(min, zip(*asked, strict=True)), job=job, of_all=site.epsilon, share=site.per_run)

    @property
    def whose(self) -> str:
        """Whose budget the one of this run is, in words."""
        return "of the site for one run" if self.of_run == self.share else "of the run"


@dataclass(frozen=True)
class Plan:
    """What a participant is going to train.

    Attributes:
        patients: number of its training patients. It is public.
        batch: patients in a step on average, where the job does not set them.
        epochs: in a round.
        rounds: in which it trains.
        vectors: whether it releases class vectors in every round.
    """

    patients: int
    batch: int
    epochs: int
    rounds: int
    vectors: bool = False


class Privacy:
    """Decides how many patients and how much noise are in a step, and whether there is budget left for a round.

    Args:
        owner: name of the participant, for messages.
        terms: agreed by job and site.
        plan: of its training.
        account: of its ledger.
        random: draws patients and noise.
        log: takes lines.

    Attributes:
        random: draws patients and noise.
        rate: with which probability a patient is in a step.
        expected: how many patients that are on average.
        steps_per_epoch: an epoch has as many steps as draw every patient once on average.
        clip: norm of a patient's gradient.
        vector_clip: norm of a patient's class vectors.

    Raises:
        FedMEPDError: delta allows what privacy is to prevent, or the ledger cannot be read.
    """

    def __init__(
        self,
        owner: str,
        terms: Terms,
        plan: Plan,
        account: Account,
        random: SecretRandom | None = None,
        log: Callable[[str], None] = lambda line: None,
    ):
        if plan.patients and terms.delta >= 1 / plan.patients:
            message = (
                f"privacy.delta = {terms.delta:g} with {counted(plan.patients, 'training patient')}: expected less "
                f"than {1 / plan.patients:.2g}, since a delta of 1 in so many would allow to publish a patient"
            )
            raise FedMEPDError(f"{owner}: {message}", public=message)
        self.owner, self.terms, self._plan, self._log = owner, terms, plan, log
        self.random = random or SecretRandom()
        self.clip, self.vector_clip = terms.job.clip, terms.job.vector_clip
        patients = max(1, plan.patients)
        self.rate = min(1.0, (terms.job.patients or plan.batch) / patients)
        self.expected = self.rate * patients
        self.steps_per_epoch = math.ceil(1 / self.rate - 1e-9)
        self._ledger = Ledger(account.path, account.run)
        self._noise: tuple[float, float | None] | None = None

    def require_beginning(self, round_number: int) -> None:
        """Refuses a run that goes on from rounds of which the ledger knows nothing: they had no privacy.

        Args:
            round_number: the newest round of which there is a state.

        Raises:
            FedMEPDError: there is such a state.
        """
        if round_number > 0 and self._ledger.is_new():
            message = (
                f"round {round_number} of this run was trained without differential privacy, or the record of spent "
                "privacy is lost: start again under another run_name"
            )
            raise FedMEPDError(f"{self.owner}: {message} ({self._ledger.path})", public=message)

    def charge(self, round_number: int, steps: int) -> None:
        """Notes what a round is going to release, before it does.

        Args:
            round_number: the round.
            steps: of training.

        Raises:
            BudgetSpent: it would be more than the budget allows, or no noise is enough; nothing is noted.
        """
        planned = self._of_round(steps, *self._chosen())

        def allow(of_run: list[Release], of_others: list[Release]) -> None:
            would, limit, whose = epsilon(of_run, self.terms.delta), self.terms.of_run, self.terms.whose
            if self.terms.of_all is not None and would <= limit:
                would, limit = epsilon([*of_run, *of_others], self.terms.delta), self.terms.of_all
                whose = _OF_ALL
            if would > limit:
                raise self._is_spent(whose, f"after round {round_number} epsilon would be {would:.3g} of {limit:g}")

        self._ledger.add(round_number, planned, allow)

    def _is_spent(self, whose: str, why: str) -> BudgetSpent:
        message = (
            f"the privacy budget {whose} is spent: {why} at delta {self.terms.delta:g}; the site trains no further and "
            "keeps its model"
        )
        self._log(f"{self.owner}: {message}")
        return BudgetSpent(f"{self.owner}: {message}", message, self.spent())

    def _of_round(self, steps: int, noise: float, vector_noise: float | None) -> list[Release]:
        vectors = [Release(vector_noise, 1.0, 1)] if vector_noise else []
        return [Release(noise, self.rate, steps), *vectors]

    @property
    def noise(self) -> float:
        """Standard deviation of the noise in a step, in clips; chosen before the first round and kept since."""
        return self._chosen()[0]

    @property
    def vector_noise(self) -> float | None:
        """The same of class vectors; None where they are not released."""
        return self._chosen()[1]

    def _chosen(self) -> tuple[float, float | None]:
        if self._noise is None:
            noise, vector_noise = self._ledger.noise()
            if noise is None:
                noise, vector_noise = self._choose()
                self._ledger.choose(noise, vector_noise)
            self._noise = noise, vector_noise
        return self._noise

    def _choose(self) -> tuple[float, float | None]:
        job, rounds, vector_noise = self.terms.job, self._plan.rounds, None
        target = self.terms.of_run
        if self._plan.vectors:
            vector_noise = least_noise(
                lambda noise: [Release(noise, 1.0, rounds)], job.vector_share * target, self.terms.delta
            )
            # If none is enough, the most: what it costs is charged like everything else.
            vector_noise = vector_noise or MOST_NOISE
        steps = self._plan.epochs * self.steps_per_epoch

        def run(noise: float) -> Sequence[Release]:
            return self._of_round(steps, noise, vector_noise) * rounds

        def enough(whose: str, limit: float, others: Sequence[Release] = ()) -> float:
            found = least_noise(lambda noise: [*run(noise), *others], limit, self.terms.delta)
            if found is None:
                raise self._is_spent(whose, f"no noise is enough for {counted(rounds, 'round')} within {limit:g}")
            return found

        noise = job.noise
        if not noise or self.terms.of_all is not None:
            # Where the site has a budget, a job cannot have it spent in fewer rounds than it plans.
            noise = max(noise, enough(self.terms.whose, target))
        if self.terms.of_all is not None and (others := self._ledger.of_others()):
            noise = max(noise, enough(_OF_ALL, self.terms.of_all, others))
        if noise == job.noise:
            return noise, vector_noise
        told = f", more than the {job.noise:g} of the job" if job.noise else ""
        self._log(
            f"{self.owner}: differential privacy: noise {noise:.3g} times the clip {self.clip:g}{told} in each of "
            f"{counted(steps * rounds, 'step')}, with {self.expected:g} of {counted(self._plan.patients, 'patient')} "
            f"on average, for epsilon {target:g} at delta {self.terms.delta:g}"
        )
        return noise, vector_noise

    def lots(self, sizes: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
        """Draws the patients of each of an epoch's steps.

        Args:
            sizes: how many examinations each patient has.

        Yields:
            pairs of patient and examination. A patient counts with one examination, however many there are.
        """
        for _ in range(self.steps_per_epoch):
            chosen = self.random.chosen(len(sizes), self.rate)
            yield [(patient, self.random.one_of(sizes[patient])) for patient in chosen]

    def spent(self) -> dict[str, Any]:
        """Returns what the run has spent, as results hold it."""
        noise, vector_noise = self._ledger.noise()
        return {
            "unit": "patient",
            "epsilon": round(epsilon(self._ledger.releases(), self.terms.delta), 4),
            "delta": self.terms.delta,
            "budget": self.terms.of_run,
            "noise": noise,
            "vector_noise": vector_noise,
            "clip": self.clip,
            "rate": self.rate,
        }
