"""What docs/results keeps of finished runs: all that a comparison reads of them, in a few kilobytes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from fedmepd.comparing.gathering import gather
from fedmepd.comparing.run import Curves, Round, RunFile
from fedmepd.evaluation.results import FILE_NAME, HISTORY
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
            return {key: rounded(each) for key, each in value.items()}
        if isinstance(value, list):
            return [rounded(each) for each in value]
        return round(value, _DECIMALS) if isinstance(value, float) else value

    return json.dumps(rounded(content), allow_nan=False, separators=(",", ":")) + "\n"
