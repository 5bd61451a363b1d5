"""Paired differences: of a reference to every rival, and of every method to sites that stay alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fedmepd.comparing.claims import Difference, Sides, sentence, verdict
from fedmepd.comparing.scores import FUSION, MEAN, WORST
from fedmepd.comparing.significance import holm
from fedmepd.comparing.values import Values, estimates, plain

# The method of sites that do not join.
LOCAL = "local"


def differences(values: Values, against: str, trials: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Returns the differences of the reference's scores to those of every rival.

    Args:
        values: of all methods.
        against: the reference.
        trials: how many configurations of each method were tried.

    Returns:
        for every rival ``columns`` (``mean``, ``sd``, ``low`` and ``high`` of each; of the summaries and of the fusion
        site also ``p`` and ``p_holm``), ``sites`` (won, level, lost), ``verdicts`` and ``sentence``.
    """
    scores = values.scores
    reference, tested = scores.methods.index(against), [MEAN, WORST, *([FUSION] if FUSION in scores.owners else [])]
    rivals = [place for place in range(len(scores.methods)) if place != reference]
    p = {column: np.array([values.p(reference, rival, column) for rival in rivals]) for column in tested}
    after_holm = {column: holm(of_column) for column, of_column in p.items()}
    found = {}
    for number, rival in enumerate(rivals):
        name = scores.methods[rival]
        columns = dict(zip(scores.columns, estimates(values.between(reference, rival)), strict=True))
        for column in tested:
            columns[column] |= {"p": plain(p[column][number]), "p_holm": plain(after_holm[column][number])}
        sides = Sides(against, name, trials[against], trials[name], len(scores.seeds))
        parts = {column: _difference(columns[column]) for column in (MEAN, FUSION) if column in columns}
        found[name] = {
            "columns": columns,
            "sites": _won(columns, scores.sites),
            "verdicts": {column: verdict(sides, part) for column, part in parts.items()},
            "sentence": sentence(sides, parts[MEAN], parts.get(FUSION)),
        }
    return found


def _difference(column: dict[str, float | None]) -> Difference:
    return Difference(*(math.nan if column[key] is None else column[key] for key in ("mean", "low", "high")))


def _won(columns: dict[str, dict[str, float | None]], sites: list[str]) -> dict[str, list[str]] | None:
    """Sites where the reference's interval lies above 0, holds 0, or lies below; None without intervals."""
    if any(columns[site]["low"] is None for site in sites):
        return None
    won = [site for site in sites if columns[site]["low"] > 0]
    lost = [site for site in sites if columns[site]["high"] < 0]
    return {"won": won, "level": [site for site in sites if site not in won and site not in lost], "lost": lost}


def below_local(values: Values) -> dict[str, dict[str, list[str]]] | None:
    """Returns for every method the sites that score less than alone, and those where the interval says so.

    None without runs of ``local``.
    """
    scores = values.scores
    if LOCAL not in scores.methods:
        return None
    local, found = scores.methods.index(LOCAL), {}
    for place, name in enumerate(scores.methods):
        if place != local:
            columns = dict(zip(scores.columns, estimates(values.between(place, local)), strict=True))
            below = [site for site in scores.sites if columns[site]["mean"] < 0]
            shown = [site for site in below if columns[site]["high"] is not None and columns[site]["high"] < 0]
            found[name] = {"below": below, "shown": shown}
    return found
