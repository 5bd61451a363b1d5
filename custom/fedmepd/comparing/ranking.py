"""The ranking of the FeTS challenge: methods are ranked in every case, region and metric, and ranks are averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from fedmepd.comparing.intervals import LEVEL
from fedmepd.comparing.scores import Cases


@dataclass(frozen=True)
class Ranking:
    """Where every method stands.

    Args:
        rank: mean rank over the sites, (methods,).
        place: by that mean, from 1 on; equal means have the same place.
        first, last: the places between which a method stands in 95 % of the bootstrap's draws.
    """

    rank: np.ndarray
    place: np.ndarray
    first: np.ndarray
    last: np.ndarray


def ranks(cases: Cases) -> np.ndarray:
    """Returns every method's mean rank in every case, over regions and the metrics Dice and HD95, (methods, cases).

    Equal scores have the better rank. A case whose region is empty in only one of prediction and label has Dice 0 and
    the HD95 that the task sets, so nothing is missing.
    """
    scores = np.concatenate([-cases.dice, cases.hd95_mm], axis=2)
    return rankdata(scores, method="min", axis=0).mean(axis=2)


def rank(means: np.ndarray, replicates: np.ndarray) -> Ranking:
    """Returns the ranking with the range of places.

    Args:
        means: mean rank over the sites, (methods,).
        replicates: the same in every draw of the bootstrap, (draws, methods).
    """
    # Rounded, so that sums in another order do not part equal methods.
    places = rankdata(replicates.round(9), method="min", axis=1)
    # Whole places only: an end between two of them is moved outwards.
    first = np.quantile(places, (1 - LEVEL) / 2, axis=0, method="lower")
    last = np.quantile(places, (1 + LEVEL) / 2, axis=0, method="higher")
    return Ranking(means, rankdata(means.round(9), method="min"), first, last)
