"""How the seeds of a comparison relate to one another, and so which interval and which test can be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedmepd.comparing.gathering import Gathered
from fedmepd.comparing.scores import Scores

# The least number of independent seeds for an interval of their differences alone.
ENOUGH_SEEDS = 5
# The least number of seeds for any claim.
LEAST_SEEDS = 3

Kind = Literal["independent", "fixed", "repeated"]
Interval = Literal["t", "corrected t", "bootstrap"]
Test = Literal["sign flips", "Wilcoxon", "corrected t"]


@dataclass(frozen=True)
class Design:
    """What the seeds are.

    Args:
        kind: ``independent``: every seed draws other cases, as phantoms do. ``fixed``: all seeds test on the same
            cases. ``repeated``: every seed splits the same patients anew, so that the runs overlap.
        seeds: how many there are.
        cases: whether the scores of single cases are known.
        phantom: whether the cases are made up.
        cohort: of phantoms that they belong to.
    """

    kind: Kind
    seeds: int
    cases: bool
    phantom: bool
    cohort: str = ""

    @property
    def interval(self) -> Interval | None:
        """How intervals are made; None where there are too few seeds and no cases."""
        if self.seeds > 1 and self.kind == "repeated":
            return "corrected t"
        if self.seeds > 1 and not self.cases:
            return "t"
        if self.kind == "independent" and self.seeds >= ENOUGH_SEEDS:
            return "t"
        return "bootstrap" if self.cases else None

    @property
    def test(self) -> Test | None:
        """How p is found; None where it cannot be."""
        if self.kind == "repeated" and self.seeds > 1:
            return "corrected t"
        if self.cases and (self.kind == "fixed" or self.seeds == 1):
            return "Wilcoxon"
        return "sign flips" if self.seeds > 1 else None

    @property
    def resamples_each_seed(self) -> bool:
        """Whether every seed has cases of its own to resample."""
        return self.kind != "fixed"

    def sentences(self, draws: int, rivals: int) -> list[str]:
        """Says how intervals and p were found, and what they leave out.

        Args:
            draws: of the bootstrap.
            rivals: how many methods the reference is compared with.
        """
        said = self.about_means(draws)
        if not rivals:
            return said + self._of_the_worst()
        if self.test == "sign flips":
            said.append(
                f"p: exact sign flips of the seeds' differences; with {self.seeds} seeds p cannot be below "
                f"{2 / 2**self.seeds:.2g}"
            )
        elif self.test == "Wilcoxon":
            said.append(
                "p: Wilcoxon's signed ranks of the cases' differences"
                + ", means over seeds" * (self.seeds > 1)
                + "; every case counts once, and what a repeated training changes is not in p, which can be too small"
            )
        elif self.test:
            said.append("p: from the same t distribution")
        if self.test and rivals > 1:
            said.append("p after Holm: for all rivals together; every interval stands for itself alone")
        return said + self._of_the_worst()

    def about_means(self, draws: int) -> list[str]:
        """Says the same of means and their intervals alone."""
        cohort = f" (cohort {self.cohort})" * bool(self.cohort)
        said = [f"the cases are phantoms{cohort}: nothing here is about patients"] if self.phantom else []
        said += [_SEEDS[self.kind]] if self.seeds > 1 else []
        said.append(
            {
                "t": f"95 % intervals: t distribution over {self.seeds} seeds",
                "corrected t": f"95 % intervals: t distribution over {self.seeds} seeds, with the variance for splits "
                "of the same patients (Nadeau and Bengio 2003)",
                "bootstrap": f"95 % intervals: percentiles of {draws} bootstrap draws; the sites are fixed, and at "
                "each site the same cases are drawn for all methods" + (", and seeds are drawn too" * (self.seeds > 1)),
                None: "there are no intervals: they need a second seed or the scores of single cases",
            }[self.interval]
        )
        return said + self._limits()

    def _of_the_worst(self) -> list[str]:
        if self.interval != "bootstrap":
            return []
        return ["worst site: every bootstrap draw has a worst site of its own, so its interval lies too low"]

    def _limits(self) -> list[str]:
        limits = []
        if self.seeds == 1:
            limits.append("a single seed: how much a repeated training would change the scores is not in the intervals")
        elif self.kind == "fixed" and not self.cases:
            limits.append("the intervals are about repeated training, not about other patients")
        elif self.interval == "bootstrap" and self.seeds < ENOUGH_SEEDS:
            limits.append(
                f"{self.seeds} seeds show little of what repeated training changes: such intervals can be too narrow"
            )
        if self.seeds < LEAST_SEEDS:
            limits.append(f"no claim is made with fewer than {LEAST_SEEDS} seeds")
        return limits


_SEEDS = {
    "independent": "every seed has a cohort of its own, so the seeds are independent",
    "fixed": "all seeds test on the same cases",
    "repeated": "every seed splits the same patients anew, so the runs overlap (data.split_seed fixes the split)",
}


def design_of(gathered: Gathered, scores: Scores) -> Design:
    """Finds out from fingerprints, source and settings what the seeds of a comparison are.

    Where nothing is known about the source of the cases, they count as patients'.
    """
    runs = [file.run for file in next(iter(gathered.methods.values())).values()]
    phantom = all(run.source == "phantom" for run in runs)
    prints = [[run.entries()[name].test_fingerprint for run in runs] for name in scores.owners]
    if all(None not in of_owner for of_owner in prints):
        distinct = [len(set(of_owner)) for of_owner in prints]
        fixed, all_differ = max(distinct, default=1) == 1, min(distinct, default=1) == len(runs)
    else:
        fixed = not phantom and runs[0].setting("data.split_seed") is not None
        fixed = fixed and len({run.setting("data.split_seed") for run in runs}) == 1
        all_differ = not fixed
    kind: Kind = "fixed" if fixed else "independent" if phantom and all_differ else "repeated"
    cohorts = ", ".join(dict.fromkeys(run.cohort() for run in runs))
    return Design(kind, len(runs), scores.cases is not None, phantom, cohorts if phantom else "")
