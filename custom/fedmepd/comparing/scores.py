"""The test scores of all runs as arrays: by method, seed and owner, and by case where the cases' scores are known."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from fedmepd.comparing.gathering import Gathered
from fedmepd.comparing.run import CaseScore, Entry
from fedmepd.evaluation.entries import label

MEAN, WORST, FUSION = "mean of the sites", "worst site", "server"


@dataclass(frozen=True)
class Cases:
    """The scores of the test cases of one owner with one seed.

    Args:
        dice: (methods, cases, regions).
        hd95_mm: (methods, cases, regions).
        penalised: whether the region is empty in only one of prediction and label, (methods, cases, regions).
    """

    dice: np.ndarray
    hd95_mm: np.ndarray
    penalised: np.ndarray

    def mdsc(self) -> np.ndarray:
        """Returns the mean over the regions' Dice, (methods, cases)."""
        return self.dice.mean(axis=2)


@dataclass(frozen=True)
class Scores:
    """The scores of all methods at the sites that are tested in every run.

    Args:
        methods: their names.
        seeds: that all of them have.
        sites: names of the sites that are tested in every run.
        owners: the sites and, where it is tested in every run, the fusion site.
        regions: names of the regions.
        mdsc: mean Dice, (methods, seeds, owners).
        dice: (methods, seeds, owners, regions).
        hd95_mm: (methods, seeds, owners, regions); NaN where a run does not say it.
        cases: of every owner (outer) and seed (inner); None unless every run has them for all owners.
        notes: sentences on what is missing.
    """

    methods: list[str]
    seeds: list[int]
    sites: list[str]
    owners: list[str]
    regions: list[str]
    mdsc: np.ndarray
    dice: np.ndarray
    hd95_mm: np.ndarray
    cases: list[list[Cases]] | None
    notes: list[str]

    @property
    def columns(self) -> list[str]:
        """What is compared: the mean of the sites, the worst site, then every owner."""
        return [MEAN, WORST, *self.owners]

    def with_summaries(self, values: np.ndarray) -> np.ndarray:
        """Puts the sites' mean and minimum before the owners' values: (..., owners) becomes (..., columns)."""
        of_sites = values[..., : len(self.sites)]
        summaries = [of_sites.mean(axis=-1, keepdims=True), of_sites.min(axis=-1, keepdims=True)]
        return np.concatenate([*summaries, values], axis=-1)

    def per_seed(self) -> np.ndarray:
        """Returns the mean Dice of every column, (methods, columns, seeds)."""
        return np.moveaxis(self.with_summaries(self.mdsc), 1, 2)


def collect(gathered: Gathered) -> Scores:
    """Returns the scores of runs that :func:`fedmepd.comparing.checking.check` has accepted."""
    entries = [[file.run.entries() for file in files.values()] for files in gathered.methods.values()]
    flat = [entry for runs in entries for entry in runs]
    names = [name for name in flat[0] if all(run[name].test is not None for run in flat)]
    untested = [label(name) for name in flat[0] if name not in names]
    notes = [f"{', '.join(untested)}: not tested in every run, left out everywhere"] if untested else []
    regions = _regions([run[name] for run in flat for name in names if name != FUSION])
    partial = [name for name in names if any(not _tells(run[name], regions) for run in flat)]
    if partial:
        left_out = ", ".join(map(label, partial))
        notes.append(f"{left_out}: labels tell other regions than {', '.join(regions)}, left out everywhere")
    names = [name for name in names if name not in partial]
    sites = [name for name in names if name != FUSION]
    cases = None
    missing = [label(name) for name in names if any(run[name].test_cases is None for run in flat)]
    if not missing:
        cases = [
            [_cases([runs[seed][name].test_cases for runs in entries], regions) for seed in range(len(entries[0]))]
            for name in names
        ]
    else:
        notes.append(
            f"{', '.join(missing)}: no scores of single test cases (a site shares them with case_scores), so there "
            "are no intervals over cases and no ranking"
        )

    def array(value) -> np.ndarray:
        return np.array([[[value(run[name]) for name in names] for run in runs] for runs in entries], dtype=float)

    return Scores(
        methods=list(gathered.methods),
        seeds=gathered.seeds(),
        sites=sites,
        owners=names,
        regions=regions,
        mdsc=array(lambda entry: entry.test.mdsc),
        dice=array(lambda entry: [entry.test.dice[region] for region in regions]),
        hd95_mm=array(lambda entry: [entry.test.hd95_mm.get(region, np.nan) for region in regions]),
        cases=cases,
        notes=notes,
    )


def _regions(of_sites: list[Entry]) -> list[str]:
    """Returns the regions that most sites' labels tell; of two such sets, the larger one."""
    told = Counter(tuple(entry.test.dice) for entry in of_sites)
    return list(max(told, key=lambda regions: (told[regions], len(regions)), default=()))


def _tells(entry: Entry, regions: list[str]) -> bool:
    """Whether all labels of a participant tell all the regions."""
    return all(set(of.dice) == set(regions) for of in (entry.test, *(entry.test_cases or ())))


def _cases(of_methods: list[tuple[CaseScore, ...]], regions: list[str]) -> Cases:
    def array(value) -> np.ndarray:
        return np.array([[[value(case, region) for region in regions] for case in cases] for cases in of_methods])

    return Cases(
        dice=array(lambda case, region: case.dice[region]),
        hd95_mm=array(lambda case, region: case.hd95_mm[region]),
        penalised=array(lambda case, region: case.empty.get(region) in ("label", "prediction")),
    )


def overlap(gathered: Gathered, scores: Scores) -> np.ndarray:
    """Returns the number of test cases for each training case, of every column.

    It is what the variance over repeated splits of the same cases is corrected by
    (:func:`fedmepd.comparing.intervals.t_interval`).
    """
    run = next(iter(next(iter(gathered.methods.values())).values())).run
    counts = [(run.entries()[name].cases["test"], run.entries()[name].cases["train"]) for name in scores.owners]
    of_sites = [counts[place] for place in range(len(scores.sites))]
    both = sum(test for test, _ in of_sites), sum(train for _, train in of_sites)
    return np.array([test / max(train, 1) for test, train in (both, both, *counts)])
