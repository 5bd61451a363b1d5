"""Runs found below folders, put in order: by method and, where a method was run with several settings, by these."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fedmepd import methods
from fedmepd.closest import like_path
from fedmepd.comparing.run import RunFile, read
from fedmepd.config import flattened
from fedmepd.errors import FedMEPDError, plain_text
from fedmepd.evaluation.results import FILE_NAME
from fedmepd.job_settings import make_settings
from fedmepd.text_table import counted, natural_order

# Settings that make no other method of a run: its name, its random numbers, where it runs, how long it waits.
_SAME_METHOD = {
    "method",
    "run_name",
    "seed",
    "trials",
    "data.split_seed",
    "evaluation.pictures",
    "fusion.site",
    "training.threads",
    "training.fusion_threads",
    "aggregation.min_sites",
    "aggregation.round_timeout",
    "aggregation.straggler_wait",
    "aggregation.refusals",
}


# Characters of a setting's value.
_LONGEST_SHOWN = 60


class RunsMissing(FedMEPDError):
    """The finished runs are too few for a comparison; with more of them it may be made."""


@dataclass(frozen=True)
class Gathered:
    """Runs in order.

    Args:
        methods: the finished runs of every method by seed. All methods have the same seeds.
        unused: the other runs, each with the reason.
        notes: sentences on what was left out.
        left_out: the methods that are not compared, each with the seeds of which it has no finished run.
    """

    methods: dict[str, dict[int, RunFile]]
    unused: list[tuple[RunFile, str]]
    notes: list[str]
    left_out: dict[str, list[int]]

    def seeds(self) -> list[int]:
        """Returns the seeds that all methods have."""
        return list(next(iter(self.methods.values())))


def gather(paths: Iterable[Path], complete: bool = False) -> Gathered:
    """Reads all runs below some paths and puts them in order.

    Args:
        paths: results.json files, and folders with any number of runs below them.
        complete: whether methods that lack a seed which another has are left out. Otherwise seeds that a method lacks
            are.

    Raises:
        RunsMissing: the methods have no seed in common.
        FedMEPDError: there is no finished run, a file cannot be read, or two runs have the same method, settings and
            seed.
    """
    files = [read(path) for path in find_all(paths)]
    # Spent privacy budgets can end a training early: it is another run than one of all rounds.
    finished = [file for file in files if file.run.status == "finished" and file.run.round >= file.run.rounds]
    unfinished = [file for file in files if file not in finished]
    if not finished:
        raise FedMEPDError(f"found {counted(len(files), 'run')}, none of them finished: compare them when they are")
    methods = _by_seed(_by_method(finished))
    all_seeds = set().union(*methods.values())
    short = {name: runs for name, runs in methods.items() if complete and set(runs) != all_seeds}
    if len(short) == len(methods):
        raise RunsMissing(
            f"no method was run with every seed ({_seeds_of(methods)}): run the missing ones, or compare the seeds "
            "that all methods have"
        )
    methods = {name: runs for name, runs in methods.items() if name not in short}
    common = set.intersection(*(set(runs) for runs in methods.values()))
    if not common:
        raise RunsMissing(
            f"no seed was run with every method ({_seeds_of(methods)}): run the missing ones, or name fewer runs"
        )
    notes = [
        f"{name_of(file)}, seed {file.run.seed}: not finished (round {file.run.round} of {file.run.rounds}), not used"
        for file in unfinished
    ]
    unused = [(file, "not finished") for file in unfinished]
    left_out = {name: sorted(all_seeds - set(runs)) for name, runs in short.items()}
    begun = {name_of(file) for file in unfinished} - {name_of(file) for file in finished}
    for name, runs in short.items():
        notes.append(f"{name}: no finished run with seed {_listed(left_out[name])}, so it is left out")
        unused += [(run, "the method was not run with every seed") for run in runs.values()]
    for name, runs in methods.items():
        left = [seed for seed in runs if seed not in common]
        if left:
            notes.append(f"{name}: not every method has seed {_listed(left)}, so that run of this method is not used")
            unused += [(runs[seed], "not every method has this seed") for seed in left]
    kept = {name: {seed: runs[seed] for seed in sorted(common)} for name, runs in methods.items()}
    return Gathered(
        kept, unused, notes, left_out | {name: sorted(all_seeds) for name in sorted(begun, key=natural_order)}
    )


def find_all(paths: Iterable[Path]) -> list[Path]:
    """Returns every results.json below some paths; of several copies of one run, the first.

    Raises:
        FedMEPDError: a path does not exist, or there is none below it.
    """
    found: dict[bytes, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise FedMEPDError(
                f"{path} does not exist: expected a {FILE_NAME}, or a folder with runs below it{like_path(path)}"
            )
        below = (file for file in path.rglob(FILE_NAME) if file.is_file())
        files = [path] if path.is_file() else sorted(below, key=lambda file: natural_order(str(file)))
        if not files:
            raise FedMEPDError(f"no {FILE_NAME} below {path}: name run folders, workspaces or downloaded jobs")
        for file in files:
            found.setdefault(file.read_bytes(), file)
    return list(found.values())


def _by_method(files: Sequence[RunFile]) -> dict[str, list[RunFile]]:
    """Puts runs together whose name and settings agree; settings under one name are told apart by what differs."""
    names: dict[str, dict[str, list[RunFile]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        names[name_of(file)][json.dumps(_method_and_settings(file), sort_keys=True)].append(file)
    methods = {}
    for name, variants in names.items():
        keys = differing([_method_and_settings(runs[0]) for runs in variants.values()])
        for runs in variants.values():
            settings = _method_and_settings(runs[0])
            said = ", ".join(f"{plain_text(key)}={shown(settings.get(key))}" for key in keys)
            methods[_unlike(methods, f"{name} {said}".strip())] = runs
    return methods


def _unlike(names: Iterable[str], name: str) -> str:
    """Returns a name that is none of those, as long values that are cut may be alike."""
    others = sum(other == name or other.startswith(f"{name} (") for other in names)
    return f"{name} ({others + 1})" if others else name


def name_of(file: RunFile) -> str:
    """Returns what a plan of `fedmepd compare run` calls the method with its settings; else the method."""
    name, ends_in_seed, seed = file.run.run_name.rpartition("-seed-")
    return name if name and ends_in_seed and seed == str(file.run.seed) else file.run.method


def _method_and_settings(file: RunFile) -> dict[str, Any]:
    return {"method": file.run.method, **own_settings(file)}


def _by_seed(methods: dict[str, list[RunFile]]) -> dict[str, dict[int, RunFile]]:
    ordered: dict[str, dict[int, RunFile]] = {}
    for name, files in sorted(methods.items(), key=lambda item: natural_order(item[0])):
        runs = ordered.setdefault(name, {})
        for file in sorted(files, key=lambda file: file.run.seed):
            if file.run.seed in runs:
                raise FedMEPDError(
                    f"two runs of {name} with seed {file.run.seed}: {runs[file.run.seed].path} and {file.path}. Name "
                    "only one of them"
                )
            runs[file.run.seed] = file
    return ordered


def own_settings(file: RunFile) -> dict[str, Any]:
    """Returns the settings that make a method, with dotted keys.

    A setting that the run's version did not have counts as at its default, with which a method does what it did before.
    """
    settings = _defaults(file.run.method) | flattened(file.run.settings)
    return {key: value for key, value in settings.items() if key not in _SAME_METHOD}


@cache
def _defaults(method: str) -> dict[str, Any]:
    if method not in methods.names():
        return {}
    return flattened(make_settings("paper", {"method": method}).model_dump(mode="json"))


def differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the keys whose values are not the same everywhere; a missing one is another value."""
    keys = dict.fromkeys(key for each in settings for key in each)
    missing = object()
    return [key for key in keys if any(each.get(key, missing) != settings[0].get(key, missing) for each in settings)]


def shown(value: Any) -> str:
    """Returns a setting's value as it is printed."""
    return plain_text(value if isinstance(value, str) else json.dumps(value), _LONGEST_SHOWN)


def _seeds_of(methods: dict[str, dict[int, RunFile]]) -> str:
    return "; ".join(f"{name}: {_listed(runs)}" for name, runs in methods.items())


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))
