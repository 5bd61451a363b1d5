"""Whether runs may be compared: the same cases, split and evaluation are required, other differences are said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedmepd.comparing.gathering import Gathered, differing, own_settings, shown
from fedmepd.comparing.run import Entry, Run, RunFile
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation.entries import label
from fedmepd.text_table import counted

# Settings that decide how a model is scored, and those that decide on which cases where no fingerprint says it.
_SCORING = ("task", "evaluation.window", "evaluation.overlap")
_SPLIT = ("data.split_seed", "data.train", "data.validation", "data.clip_percent")

# Methods that are named; more of them are "the others".
_MOST_LISTED = 3

# What may differ, with the consequence.
_MAY_DIFFER: tuple[tuple[str, Callable[[Run], str], str], ...] = (
    ("the version of fedmepd", lambda run: run.version, "a method may have changed in between"),
    ("the version of torch", lambda run: run.versions.get("torch", "not stated"), "last bits may differ"),
    ("the precision", lambda run: run.precision or "not stated", "last bits may differ"),
    (
        "the hardware",
        lambda run: " ".join(map(str, run.hardware.model_dump().values())) if run.hardware else "not stated",
        "do not compare seconds and memory",
    ),
)


def check(gathered: Gathered) -> list[str]:
    """Returns sentences on what differs between the runs and does not forbid a comparison.

    Raises:
        FedMEPDError: the runs of one seed do not have the same sites, modalities, test cases or evaluation, or runs of
            two seeds not the same sites; the message names runs and difference.
    """
    runs = [file for files in gathered.methods.values() for file in files.values()]
    first = next(iter(gathered.methods))
    for seed in gathered.seeds():
        for name, files in gathered.methods.items():
            _same_cohort(first, gathered.methods[first][seed], name, files[seed])
    for file in runs[1:]:
        _same_evaluation(runs[0], file)
    return [
        *_of_fingerprints(runs),
        *_of_training_cases(gathered),
        *_of_machines(gathered),
        *_of_settings(gathered),
    ]


def _same_evaluation(first: RunFile, other: RunFile) -> None:
    _refuse_unless_same("the version of the evaluation", first, other, lambda file: file.run.evaluation)
    for key in _SCORING:
        _refuse_unless_same(key, first, other, lambda file, key=key: file.run.setting(key))
    names = [[entry.name for entry in file.run.sites] for file in (first, other)]
    if names[0] != names[1]:
        raise FedMEPDError(
            f"{first.path} has the sites {', '.join(names[0])}, {other.path} has {', '.join(names[1])}: compare runs "
            "of the same federation"
        )
    for name in first.run.entries():
        _refuse_unless_same(
            f"the list of modalities of {label(name)}",
            first,
            other,
            lambda file, name=name: " ".join(file.run.entries()[name].modalities),
        )


def _refuse_unless_same(what: str, first: RunFile, other: RunFile, value: Callable[[RunFile], Any]) -> None:
    values = [value(file) for file in (first, other)]
    if values[0] != values[1]:
        said = ["not stated" if each is None else shown(each) for each in values]
        raise FedMEPDError(
            f"{what} differs: {said[0]} in {first.path}, {said[1]} in {other.path}. Such scores cannot be compared"
        )


def _same_cohort(first_name: str, first: RunFile, name: str, other: RunFile) -> None:
    """Of two runs with the same seed."""
    _refuse_unless_same("the kind of data", first, other, lambda file: file.run.source)
    _refuse_unless_same("the cohort of phantoms", first, other, lambda file: file.run.cohort())
    mine, others = first.run.entries(), other.run.entries()
    if mine.keys() != others.keys():
        return  # Said by _same_evaluation.
    for owner, entry in mine.items():
        where = f"{label(owner)}, seed {first.run.seed}"
        counts = entry.cases.get("test"), others[owner].cases.get("test")
        if counts[0] != counts[1]:
            raise FedMEPDError(
                f"{where}: {counted(counts[0], 'test case')} with {first_name}, {counts[1]} with {name}. Compare "
                "runs on the same cases"
            )
        prints = entry.test_fingerprint, others[owner].test_fingerprint
        if None not in prints and prints[0] != prints[1]:
            raise FedMEPDError(
                f"{where}: {first_name} and {name} were tested on different cases ({first.path}, {other.path}). "
                "Compare runs of the same cohort and split: the same data, seed and data.split_seed"
            )
        if None in prints:
            for key in _SPLIT:
                _refuse_unless_same(key, first, other, lambda file, key=key: file.run.setting(key))


def _of_training_cases(gathered: Gathered) -> list[str]:
    """Where the methods do not learn from the same number of cases, as in a sweep over the share of fusion data."""
    notes = []
    runs = {name: next(iter(files.values())).run for name, files in gathered.methods.items()}
    for owner in next(iter(runs.values())).entries():
        counts = {name: _training_cases(run.entries()[owner]) for name, run in runs.items()}
        if len(set(counts.values())) > 1:
            notes.append(f"{label(owner)} has different numbers of training/validation cases ({_listed(counts)})")
    return notes


def _training_cases(entry: Entry) -> str:
    return "/".join(str(entry.cases.get(part)) for part in ("train", "validation"))


def _of_fingerprints(runs: list[RunFile]) -> list[str]:
    without = {
        label(entry.name): None
        for file in runs
        for entry in file.run.entries().values()
        if entry.test is not None and entry.test_fingerprint is None
    }
    if not without:
        return []
    return [
        f"{', '.join(without)}: no fingerprint of the test cases. Their numbers agree; that they are the same cases "
        "cannot be checked"
    ]


def _of_machines(gathered: Gathered) -> list[str]:
    notes = []
    for what, value, consequence in _MAY_DIFFER:
        found = {
            name: " and ".join(dict.fromkeys(value(file.run) for file in files.values()))
            for name, files in gathered.methods.items()
        }
        if len({value(file.run) for files in gathered.methods.values() for file in files.values()}) > 1:
            notes.append(f"{what} differs ({_listed(found)}): {consequence}")
    return notes


def _of_settings(gathered: Gathered) -> list[str]:
    """Common settings that are not the same for all methods."""
    settings = {name: own_settings(next(iter(files.values()))) for name, files in gathered.methods.items()}
    shared = set.intersection(*(set(each) for each in settings.values()))
    notes = []
    for key in differing([{key: each[key] for key in each if key in shared} for each in settings.values()]):
        said = _listed({name: shown(each[key]) for name, each in settings.items()})
        notes.append(f"the setting {key} is not the same for all methods ({said})")
    return notes


def _listed(values: dict[str, str]) -> str:
    """Lists values with the methods that have them; the methods with the commonest one of many are the others."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    ordered = sorted(names.items(), key=lambda item: len(item[1]))
    said = [f"{value}: {', '.join(of_value)}" for value, of_value in ordered]
    if len(ordered[-1][1]) > _MOST_LISTED:
        said[-1] = f"{ordered[-1][0]}: the others"
    return "; ".join(said)
