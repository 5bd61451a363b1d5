"""Every method's scores and differences with their uncertainty, from one set of bootstrap draws."""

from __future__ import annotations

import math

import numpy as np

from fedmepd.comparing.design import Design
from fedmepd.comparing.intervals import Estimate, estimate, t_test
from fedmepd.comparing.ranking import ranks
from fedmepd.comparing.resampling import resample
from fedmepd.comparing.scores import MEAN, WORST, Scores
from fedmepd.comparing.significance import sign_flips, wilcoxon


class Values:
    """Per-seed scores and the bootstrap's replicates, from which every estimate is made.

    Args:
        scores: of all methods.
        design: of the comparison.
        overlap: test cases for each training case, by column.
        draws: of the bootstrap.

    Attributes:
        ranks: every method's mean rank in every case, (methods, cases) by owner and seed; None without cases.
        rank_replicates: the mean rank over the sites in every draw, (draws, methods); None without cases.
    """

    def __init__(self, scores: Scores, design: Design, overlap: np.ndarray, draws: int):
        self.scores, self.design, self._overlap = scores, design, overlap
        self._per_seed = scores.per_seed()
        self._replicates = self.ranks = self.rank_replicates = None
        if scores.cases is not None:
            count = len(scores.methods)
            self.ranks = [[ranks(cases) for cases in of_owner] for of_owner in scores.cases]
            both = [
                [np.concatenate([cases.mdsc(), of_ranks]) for cases, of_ranks in zip(*pair, strict=True)]
                for pair in zip(scores.cases, self.ranks, strict=True)
            ]
            drawn = resample(both, scores.with_summaries, each_seed=design.resamples_each_seed, draws=draws)
            self._replicates, self.rank_replicates = drawn[:, :count], drawn[:, count:, 0]

    def of(self, method: int) -> Estimate:
        """A method's scores, by column."""
        drawn = None if self._replicates is None else self._replicates[:, method]
        return estimate(self.design, self._per_seed[method], drawn, self._overlap)

    def between(self, method: int, other: int) -> Estimate:
        """A method's scores minus another's, by column."""
        drawn = None if self._replicates is None else self._replicates[:, method] - self._replicates[:, other]
        return estimate(self.design, self._per_seed[method] - self._per_seed[other], drawn, self._overlap)

    def p(self, method: int, other: int, column: str) -> float:
        """The p of the difference in one column; NaN where there is no test for it."""
        place = self.scores.columns.index(column)
        differences = self._per_seed[method, place] - self._per_seed[other, place]
        if self.design.test == "sign flips":
            return sign_flips(differences)
        if self.design.test == "corrected t":
            return float(t_test(differences, self._overlap[place]))
        if self.design.test == "Wilcoxon" and column != WORST:
            return wilcoxon(self._of_cases(method, other, column))
        return math.nan

    def _of_cases(self, method: int, other: int, column: str) -> np.ndarray:
        """Every case's difference, mean over the seeds, which all have the same cases."""
        sites = len(self.scores.sites)
        owners = range(sites) if column == MEAN else [self.scores.owners.index(column)]
        return np.concatenate(
            [
                np.mean([cases.mdsc()[method] - cases.mdsc()[other] for cases in self.scores.cases[owner]], axis=0)
                for owner in owners
            ]
        )


def estimates(found: Estimate) -> list[dict[str, float | None]]:
    """Returns ``mean``, ``sd``, ``low`` and ``high`` of every column as plain values."""
    columns = zip(found.mean, found.sd, found.low, found.high, strict=True)
    return [dict(zip(("mean", "sd", "low", "high"), map(plain, column), strict=True)) for column in columns]


def plain(number: float) -> float | None:
    """Returns a number as JSON holds it: None for NaN."""
    return None if math.isnan(number) else float(number)
