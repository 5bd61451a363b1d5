"""Folders of made-up runs whose scores are given as arrays, for the tests of comparisons."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedmepd.job_settings import make_settings

REGIONS = ("WT", "TC", "ET")
SITES = {"site-1": ("FLAIR", "T2"), "site-2": ("T1",), "site-10": ("T2",)}
PENALTY = 373.13


def cases(dice: np.ndarray, hd95_mm: np.ndarray | None = None) -> list[dict[str, Any]]:
    """Case scores from Dice (cases, regions); HD95 in mm, by default 10 for each point of Dice that is missing."""
    hd95_mm = 100 * (1 - dice) if hd95_mm is None else hd95_mm
    return [
        {
            "dice": dict(zip(REGIONS, of_case.tolist(), strict=True)),
            "hd95_mm": dict(zip(REGIONS, of_distance.tolist(), strict=True)),
            "empty": {
                region: "prediction" if distance == PENALTY else None
                for region, distance in zip(REGIONS, of_distance, strict=True)
            },
        }
        for of_case, of_distance in zip(dice, hd95_mm, strict=True)
    ]


def entry(name: str, modalities: Sequence[str], scores: np.ndarray, cohort: str = "", **changes: Any) -> dict[str, Any]:
    """One site, or the fusion site, from the Dice of its test cases (cases, regions).

    Args:
        name: its name.
        modalities: that it has.
        scores: of its cases.
        cohort: what the fingerprint of the test cases is made of.
        changes: of keys.
    """
    each = cases(scores)
    means = {region: float(np.mean([case["dice"][region] for case in each])) for region in REGIONS}
    distances = {region: float(np.mean([case["hd95_mm"][region] for case in each])) for region in REGIONS}
    return {
        "name": name,
        "modalities": list(modalities),
        "cases": {"train": 8, "validation": 2, "test": len(each)},
        "test": {"dice": means, "mdsc": float(np.mean(list(means.values()))), "hd95_mm": distances, "empty": {}},
        "test_cases": each,
        "test_fingerprint": hashlib.sha256(f"{name} {cohort}".encode()).hexdigest(),
        "work": {
            "steps": 100,
            "passes": 20.0,
            "seconds": 5.0,
            "bytes_up": 3_000_000,
            "bytes_down": 1_000_000,
            "peak_mib": 500.0,
            "networks": 1,
        },
    } | changes


def run(
    method: str,
    seed: int,
    scores: np.ndarray,
    *,
    fusion: np.ndarray | None = None,
    source: str | None = "phantom",
    cohort: str | None = None,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A finished run.

    Args:
        method: its method.
        seed: its seed.
        scores: Dice of the sites' test cases, (sites, cases, regions); as many of SITES as there are.
        fusion: of the fusion site's, (cases, regions); None: like the first site's.
        source: of the cases.
        cohort: names the test cases; None: the seed does.
        settings: changes.
        changes: of top-level keys.
    """
    cohort = f"seed {seed}" if cohort is None else cohort
    made = make_settings("phantom", {"method": method, "seed": seed, "rounds": 4} | (settings or {}))
    sites = list(SITES.items())[: len(scores)]
    return {
        "method": method,
        "run_name": "",
        "seed": seed,
        "trials": 1,
        "rounds": 4,
        "round": 4,
        "status": "finished",
        "seconds": 60.0,
        "source": source,
        "timing": {},
        "mean": {},
        "server": entry("server", ("FLAIR", "T1ce", "T1", "T2"), scores[0] if fusion is None else fusion, cohort),
        "sites": [
            entry(name, modalities, of_site, cohort) for (name, modalities), of_site in zip(sites, scores, strict=True)
        ],
        "settings": made.model_dump(mode="json"),
        "hardware": {"cpu": "a processor", "threads": 1, "device": "cpu"},
        "precision": "float32",
        "evaluation": 1,
        "version": "0.3.0",
        "versions": {"python": "3.12", "torch": "2.13"},
    } | changes


def history(scores: Sequence[float], sites: int = 3, steps: int = 10, bytes_each: int = 1000) -> dict[str, Any]:
    """Curves with a validation every round; every participant takes as many steps and bytes each round."""
    rounds = [
        {"round": number, "total": 1.0, "steps": steps, "bytes_up": bytes_each, "bytes_down": 0}
        for number in range(1, len(scores) + 1)
    ]
    validation = [{"round": number, "dice": {}, "mdsc": score} for number, score in enumerate(scores, 1)]
    of_site = {"validation": validation, "rounds": rounds, "personal": {}}
    fusion = {"validation": validation, "rounds": [{"round": 0, "steps": steps}, *rounds], "personal": {}}
    return {"server": fusion} | dict.fromkeys(list(SITES)[:sites], of_site)


def write(folder: Path, content: dict[str, Any], curves: dict[str, Any] | None = None) -> Path:
    """Writes a run as compare's output folder has it: METHOD/seed-N; returns its results.json."""
    place = folder / content["method"] / f"seed-{content['seed']}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "results.json").write_text(json.dumps(content))
    if curves is not None:
        (place / "history.json").write_text(json.dumps(curves))
    return place / "results.json"


def scores(seed: int, sites: int = 3, count: int = 6, level: float = 0.45) -> np.ndarray:
    """Dice of made-up cases, (sites, cases, regions), around a level."""
    random = np.random.default_rng(seed)
    return np.clip(level + 0.1 * random.standard_normal((sites, count, len(REGIONS))), 0, 1)
