"""What docs/results keeps of finished runs: all that a comparison reads of them, in a few kilobytes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from fedmepd.comparing.gathering import gather
from fedmepd.comparing.run import Curves, Round, RunFile, read
from fedmepd.config import differences
from fedmepd.evaluation.results import FILE_NAME, HISTORY
from fedmepd.experiments.plan import PlannedRun
from fedmepd.experiments.run_folder import RunFolder
from fedmepd.job_settings import of_this_version
from fedmepd.storage import write_text

# Decimals of what is kept: of the scores of single cases (Dice and mm), of everything else.
_CASE_DECIMALS = {"dice": 4, "hd95_mm": 2}
_DECIMALS = 7


def keep(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Writes what a comparison reads of finished runs, as METHOD/seed-N/results.json and history.json.

    Methods that lack a seed are left out: they would cost all others that seed.

    Args:
        paths: as for :func:`fedmepd.comparing.comparison.compare`.
        folder: to write to; runs of the same method and seed are replaced.

    Returns:
        the results.json files.

    Raises:
        FedMEPDError: there are no such runs, or the folder cannot be written.
    """
    written = []
    gathered = gather(paths, complete=True)
    for name, files in gathered.methods.items():
        place = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
        for seed, file in files.items():
            path = folder / place / f"seed-{seed}" / FILE_NAME
            run = file.run.model_dump(mode="json")
            for entry in (run["server"], *run["sites"]):
                _shorten(entry)
            write_text(path, _small(run))
            write_text(path.with_name(HISTORY), _small(_curves(file)))
            written.append(path)
    return written


def take_up(planned: Sequence[PlannedRun], kept: Path, out: Path) -> list[str]:
    """Gives runs that have not begun the results that are kept of them, so that another machine goes on from there.

    Args:
        planned: runs of a plan.
        kept: folder that :func:`keep` has written for the plan.
        out: folder of the plan's runs; what is in it stays.

    Returns:
        the names of the runs whose kept results are of other settings, which are run again.

    Raises:
        FedMEPDError: a kept file cannot be read, or the folder cannot be written.
    """
    found = {file.run.run_name: file for file in map(read, sorted(kept.glob(f"*/*/{FILE_NAME}")))}
    other = []
    for run in planned:
        folder = RunFolder(out / run.name)
        if run.name not in found or folder.path.exists():
            continue
        file = found[run.name]
        if differences(of_this_version(file.run.settings), run.settings.model_dump(mode="json")):
            other.append(run.name)
            continue
        folder.begin(run)
        # The results last: they make the run a finished one.
        for name in (HISTORY, FILE_NAME):
            write_text(folder.path / name, file.path.with_name(name).read_text(encoding="utf-8"))
    return other


def _shorten(entry: dict[str, Any]) -> None:
    """Rounds the scores of a participant's cases, and makes the means those of the rounded ones."""
    cases = entry["test_cases"]
    if cases is None:
        return
    for case in cases:
        for score, decimals in _CASE_DECIMALS.items():
            case[score] = {region: round(value, decimals) for region, value in case[score].items()}
        case["empty"] = {region: where for region, where in case["empty"].items() if where is not None}
    for score in _CASE_DECIMALS:
        for region in entry["test"][score]:
            entry["test"][score][region] = fmean(case[score][region] for case in cases if region in case[score])
    entry["test"]["mdsc"] = fmean(entry["test"]["dice"].values())


def _curves(file: RunFile) -> dict[str, Any]:
    """The validations, and what was spent from each to the next."""
    return {owner: _at_validations(curves, _validated(file)) for owner, curves in file.curves.items()}


def _validated(file: RunFile) -> list[int]:
    return sorted({each.round for curves in file.curves.values() for each in curves.validation})


def _at_validations(curves: Curves, validated: list[int]) -> dict[str, Any]:
    spent, first = [], 0
    for number in validated:
        rounds = [each for each in curves.rounds if first <= each.round <= number]
        first = number + 1
        if rounds:
            steps = [each.steps for each in rounds]
            summed = {key: sum(getattr(each, key) for each in rounds) for key in ("bytes_up", "bytes_down")}
            spent.append(Round(round=number, steps=None if None in steps else sum(steps), **summed))
    kept = curves.model_copy(update={"rounds": tuple(spent)})
    return kept.model_dump(mode="json", exclude_defaults=True)


def _small(content: Any) -> str:
    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            # Settings stay exact: take_up compares them.
            return {key: each if key == "settings" else rounded(each) for key, each in value.items()}
        if isinstance(value, list):
            return [rounded(each) for each in value]
        return round(value, _DECIMALS) if isinstance(value, float) else value

    return json.dumps(rounded(content), allow_nan=False, separators=(",", ":")) + "\n"
