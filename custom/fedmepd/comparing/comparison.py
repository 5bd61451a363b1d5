"""A comparison of methods: everything that the tables and pages about it say, as one dictionary with stable keys."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fedmepd import __version__
from fedmepd.closest import did_you_mean
from fedmepd.comparing.budget import budget
from fedmepd.comparing.checking import check
from fedmepd.comparing.curves import BUDGETS, Curve, common_budget, curve
from fedmepd.comparing.design import design_of
from fedmepd.comparing.differences import below_local, differences
from fedmepd.comparing.gathering import Gathered, RunsMissing, gather, name_of
from fedmepd.comparing.intervals import mean_and_sd
from fedmepd.comparing.ranking import rank
from fedmepd.comparing.resampling import DRAWS
from fedmepd.comparing.run import RunFile
from fedmepd.comparing.scores import FUSION, MEAN, Scores, collect, overlap
from fedmepd.comparing.values import Values, estimates, plain
from fedmepd.errors import FedMEPDError
from fedmepd.tasks.find import DEFAULT

# The method that the others are compared with unless another one is named.
REFERENCE = "fedmepd"


def compare(
    paths: Iterable[Path], against: str | None = None, *, draws: int = DRAWS, complete: bool = False
) -> dict[str, Any]:
    """Compares all runs below some paths, as in ``compare([Path("comparison")], against="fedavg")["sentences"]``.

    Args:
        paths: results.json files, and folders with any number of runs below them.
        against: the method that the others are compared with; None: ``fedmepd``, or the only method there is.
        draws: of the bootstrap.
        complete: whether methods that lack a seed which another has are left out, in place of the seed.

    Returns:
        plain values: ``methods``, ``left_out`` (other methods, and the seeds that they lack), ``seeds``, ``sites``,
        ``regions``, ``runs`` (what was found), ``notes``, ``design``, ``budget``, ``scores``, ``regions_scores``,
        ``differences``, ``below_local``, ``ranking``, ``curves`` and ``sentences``. Scores are fractions, distances
        millimetres. Differences are the reference's score minus the rival's. What is not known is None.

    Raises:
        RunsMissing: the reference is not among the runs, or the methods have no seed in common.
        FedMEPDError: the runs cannot be compared; the message names the difference.
    """
    gathered = gather(paths, complete)
    notes = [*gathered.notes, *check(gathered)]
    scores = collect(gathered)
    if not scores.sites:
        raise FedMEPDError("no site is tested in every run: there is nothing to compare")
    against = _reference(scores.methods, against)
    design = design_of(gathered, scores)
    values = Values(scores, design, overlap(gathered, scores), draws)
    trials = {name: max(file.run.trials for file in files.values()) for name, files in gathered.methods.items()}
    found = differences(values, against, trials)
    first = next(iter(gathered.methods.values()))
    return {
        "version": __version__,
        "against": against,
        "methods": scores.methods,
        "left_out": gathered.left_out,
        "seeds": scores.seeds,
        "sites": scores.sites,
        "task": next(iter(first.values())).run.setting("task") or DEFAULT,
        "regions": scores.regions,
        "runs": _runs(gathered),
        "notes": [*notes, *scores.notes],
        "design": {
            "seeds": design.kind,
            "phantom": design.phantom,
            "cohort": design.cohort,
            "interval": design.interval,
            "test": design.test,
            "draws": draws if scores.cases is not None else 0,
            "sentences": design.sentences(draws, len(scores.methods) - 1),
            "about_means": design.about_means(draws),
        },
        "budget": {name: budget([file.run for file in files.values()]) for name, files in gathered.methods.items()},
        "scores": {
            name: dict(zip(scores.columns, estimates(values.of(place)), strict=True))
            for place, name in enumerate(scores.methods)
        },
        "regions_scores": _regions(scores),
        "differences": found,
        "below_local": below_local(values),
        "ranking": _ranking(values),
        "curves": _curves(gathered),
        "chosen_rounds": _chosen_rounds(gathered),
        "sentences": [each["sentence"] for each in found.values()],
    }


def _reference(names: list[str], asked: str | None) -> str:
    name = asked or (names[0] if len(names) == 1 else REFERENCE)
    if name not in names:
        was = f"--against {asked}: no such method here" if asked else f"no method is called {REFERENCE}"
        meant = did_you_mean(asked, names) if asked else ""
        raise RunsMissing(f"{was}. Name the method to compare with by --against, one of: {'; '.join(names)}{meant}")
    return name


def _runs(gathered: Gathered) -> list[dict[str, Any]]:
    used = [(name, file, None) for name, files in gathered.methods.items() for file in files.values()]
    unused = [(name_of(file), file, reason) for file, reason in gathered.unused]
    return [_about(name, file) | {"unused": reason} for name, file, reason in [*used, *unused]]


def _about(name: str, file: RunFile) -> dict[str, Any]:
    run = file.run
    return {
        "method": name,
        "seed": run.seed,
        "round": run.round,
        "rounds": run.rounds,
        "seconds": run.seconds,
        "version": run.version,
        "precision": run.precision or None,
        "hardware": run.hardware.model_dump() if run.hardware else None,
        "trials": run.trials,
    }


def _regions(scores: Scores) -> dict[str, Any]:
    """Dice and HD95 by region, mean over seeds, and how often HD95 is the penalty of an empty region."""
    found = {}
    sites = len(scores.sites)
    parts = {MEAN: slice(0, sites)} | ({FUSION: slice(sites, None)} if FUSION in scores.owners else {})
    for place, name in enumerate(scores.methods):
        found[name] = {}
        for part, owners in parts.items():
            dice = scores.dice[place, :, owners].mean(axis=(0, 1))
            distance = scores.hd95_mm[place, :, owners].mean(axis=(0, 1))
            penalised = None
            if scores.cases is not None:
                flags = [cases.penalised[place] for of_owner in scores.cases[owners] for cases in of_owner]
                penalised = np.concatenate(flags).mean(axis=0)
            found[name][part] = {
                region: {
                    "dice": plain(dice[number]),
                    "hd95_mm": plain(distance[number]),
                    "penalised": None if penalised is None else float(penalised[number]),
                }
                for number, region in enumerate(scores.regions)
            }
    return found


def _ranking(values: Values) -> dict[str, dict[str, float]] | None:
    if values.rank_replicates is None:
        return None
    scores = values.scores
    # (owners, seeds, methods)
    means = np.array([[of_seed.mean(axis=1) for of_seed in of_owner] for of_owner in values.ranks])
    found = rank(means[: len(scores.sites)].mean(axis=(0, 1)), values.rank_replicates)
    columns = zip(found.rank, found.place, found.first, found.last, strict=True)
    return {
        name: {"rank": float(mean), "place": int(place), "first": int(first), "last": int(last)}
        for name, (mean, place, first, last) in zip(scores.methods, columns, strict=True)
    }


def _curves(gathered: Gathered) -> dict[str, dict[str, Any] | None]:
    """Curves as means over the seeds; the area is each seed's own."""
    found = {name: curve(list(files.values())) for name, files in gathered.methods.items()}
    up_to = {kind: common_budget(list(found.values()), kind) for kind in BUDGETS}
    return {name: None if of_method is None else _curve(of_method, up_to) for name, of_method in found.items()}


def _curve(of_method: Curve, up_to: dict[str, float]) -> dict[str, Any]:
    mean, sd = mean_and_sd(np.moveaxis(of_method.scores, 0, -1))
    areas = {kind: of_method.areas(kind, up_to[kind]) for kind in BUDGETS}
    return {
        "rounds": of_method.rounds.tolist(),
        "spent": {name: spent.mean(axis=0).tolist() for name, spent in of_method.spent.items()},
        "mean": mean.tolist(),
        "sd": [plain(each) for each in sd],
        "area": {
            name: None
            if of_seeds is None
            else dict(zip(("mean", "sd"), map(plain, mean_and_sd(of_seeds)), strict=True))
            for name, of_seeds in areas.items()
        },
        "no_area": {kind: of_method.why_no_area(kind, up_to[kind]) for kind in BUDGETS},
        "area_up_to": up_to,
    }


def _chosen_rounds(gathered: Gathered) -> dict[str, dict[str, dict[str, int]]]:
    """The round of the best validation, whose model is tested, by method, seed and owner."""
    return {
        name: {
            str(seed): {
                owner: max(curves.validation, key=lambda each: each.mdsc).round
                for owner, curves in file.curves.items()
                if curves.validation
            }
            for seed, file in files.items()
        }
        for name, files in gathered.methods.items()
    }
