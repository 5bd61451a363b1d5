"""The scores of a set of cases: averages with their uncertainty, as CSV, JSON and a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from fedmepd import __version__
from fedmepd.evaluation.distances import TOLERANCE_MM
from fedmepd.evaluation.measures import RegionMeasures
from fedmepd.storage import write_json, write_text
from fedmepd.tasks.rules import LESION_COUNTS, LesionRules
from fedmepd.tasks.task import Task
from fedmepd.text_table import spreadsheet_cell, table

CSV_NAME, JSON_NAME = "evaluation.csv", "evaluation.json"

MEASURES = (
    *("dice", "hd95_mm", "nsd", "lesion_dice", "lesion_hd95_mm"),
    *("sensitivity", "specificity", "label_ml", "prediction_ml"),
)
COLUMNS = ("case", "region", *MEASURES, *(f"lesions_{count}" for count in LESION_COUNTS))

RESAMPLES = 10_000
_BATCH = 1_000

_TITLES = {
    "dice": ("Dice", ".3f"),
    "hd95_mm": ("HD95 in mm", ".2f"),
    "nsd": ("NSD", ".3f"),
    "lesion_dice": ("lesion Dice", ".3f"),
    "lesion_hd95_mm": ("lesion HD95 in mm", ".2f"),
    "sensitivity": ("sensitivity", ".3f"),
    "specificity": ("specificity", ".5f"),
    "label_ml": ("label in ml", ".2f"),
    "prediction_ml": ("prediction in ml", ".2f"),
}


def build(
    task: Task,
    cases: dict[str, dict[str, RegionMeasures]],
    *,
    seed: int = 0,
    without_label: Sequence[str] = (),
    without_prediction: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns the report of a set of cases: plain values with stable keys.

    Args:
        task: whose regions were measured.
        cases: the measures of every case, by name and region.
        seed: of the bootstrap.
        without_label, without_prediction: cases that could not be scored because the other file is missing.
    """
    regions = {}
    for region in task.regions:
        of_region = [measures[region] for measures in cases.values() if region in measures]
        averages = {measure: average([getattr(one, measure) for one in of_region], seed) for measure in MEASURES}
        lesions = {count: sum(getattr(one, f"lesions_{count}") for one in of_region) for count in LESION_COUNTS}
        regions[region] = {**averages, "empty": _empty(of_region), "lesions": lesions}
    # Of cases whose labels tell all regions: the mean over the easy ones alone would be another measure.
    mdsc = {
        name: fmean(one.dice for one in measures.values())
        for name, measures in cases.items()
        if len(measures) == len(task.regions)
    }
    return {
        "version": __version__,
        "task": task.name,
        "empty_distance_mm": task.empty_distance_mm,
        "nsd_tolerance_mm": TOLERANCE_MM,
        "lesion_rules": asdict(task.lesions),
        "cases": [
            {"case": name, "mdsc": mdsc.get(name), "regions": {region: asdict(one) for region, one in measures.items()}}
            for name, measures in cases.items()
        ],
        "summary": {"cases": len(cases), "mdsc": average(list(mdsc.values()), seed), "regions": regions},
        "bootstrap": {"resamples": RESAMPLES, "confidence": 0.95, "seed": seed},
        "without_label": list(without_label),
        "without_prediction": list(without_prediction),
    }


def _empty(measures: Iterable[RegionMeasures]) -> dict[str, int]:
    counts = {"both": 0, "label": 0, "prediction": 0}
    for one in measures:
        if not one.label_ml and not one.prediction_ml:
            counts["both"] += 1
        elif not one.label_ml:
            counts["label"] += 1
        elif not one.prediction_ml:
            counts["prediction"] += 1
    return counts


def average(values: Sequence[float | None], seed: int = 0) -> dict[str, Any]:
    """Returns mean and median of the values that there are, and the mean's 95 % interval by the bootstrap over cases.

    Args:
        values: one a case; None where it is not defined.
        seed: of the resampling.

    Returns:
        ``cases`` (how many values), ``mean``, ``median``, ``low`` and ``high``: the percentiles 2.5 and 97.5 of the
        mean over :data:`RESAMPLES` draws of as many cases; each None where there are too few values.
    """
    there = np.array([value for value in values if value is not None], dtype=float)
    if not len(there):
        return {"cases": 0, "mean": None, "median": None, "low": None, "high": None}
    low = high = None
    if len(there) > 1:
        # In batches, since all draws of a large data set at once would not fit into memory.
        drawn = bootstrap(
            (there,), np.mean, n_resamples=RESAMPLES, batch=_BATCH, method="percentile", rng=np.random.default_rng(seed)
        )
        low, high = (float(end) for end in drawn.confidence_interval)
    return {
        "cases": len(there),
        "mean": float(there.mean()),
        "median": float(np.median(there)),
        "low": low,
        "high": high,
    }


def write(folder: Path, report: dict[str, Any]) -> tuple[Path, Path]:
    """Writes evaluation.csv, a line for every case and region, and evaluation.json, each atomically; returns both.

    Raises:
        FedMEPDError: the disk is full or the folder cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for case in report["cases"]:
        for region, measures in case["regions"].items():
            written = {measure: "" if value is None else f"{value:.6g}" for measure, value in measures.items()}
            writer.writerow({"case": spreadsheet_cell(case["case"]), "region": region, **written})
    write_text(folder / CSV_NAME, text.getvalue())
    write_json(folder / JSON_NAME, report)
    return folder / CSV_NAME, folder / JSON_NAME


def console_table(report: dict[str, Any]) -> str:
    """Returns the report's averages as plain text, with notes under them."""
    summary = report["summary"]
    rows = [["", "mDSC", *_cells(summary["mdsc"], ".3f")]]
    for measure, (title, form) in _TITLES.items():
        for region, averages in summary["regions"].items():
            rows.append([region, title, *_cells(averages[measure], form)])
    heads = ["region", "measure", "mean", "median", "95 % interval", "cases"]
    return "\n".join([*table(heads, rows), "", *_notes(report)])


def _cells(of: dict[str, Any], form: str) -> list[str]:
    interval = "-" if of["low"] is None else f"{of['low']:{form}} to {of['high']:{form}}"
    numbers = ["-" if of[key] is None else f"{of[key]:{form}}" for key in ("mean", "median")]
    return [*numbers, interval, str(of["cases"])]


_LESIONS = "lesions of all cases:"


def _notes(report: dict[str, Any]) -> list[str]:
    summary, bootstrap = report["summary"], report["bootstrap"]
    notes = [
        f"95 % interval: of the mean, {bootstrap['resamples']} bootstrap draws of the cases, seed {bootstrap['seed']}",
        "specificity: over the whole volume, background and all",
    ]
    rules = LesionRules(**report["lesion_rules"])
    notes += [f"NSD: normalised surface Dice at {report['nsd_tolerance_mm']:g} mm", rules.describe(), _LESIONS]
    notes += [
        f"  {region}: {', '.join(f'{number} {count}' for count, number in of['lesions'].items())}"
        for region, of in summary["regions"].items()
    ]
    empty = [
        f"{region}: {counts['both']} in both, {counts['label']} in the label alone, {counts['prediction']} in the "
        "prediction alone"
        for region, of in summary["regions"].items()
        if any((counts := of["empty"]).values())
    ]
    if empty:
        notes.append(
            f"empty regions (in both: Dice 1, HD95 0; in one alone: Dice 0, HD95 {report['empty_distance_mm']}; "
            "sensitivity without a label is left out):"
        )
        notes += [f"  {line}" for line in empty]
    else:
        notes.append("empty regions: none")
    untold = [
        f"{region} {summary['cases'] - of['dice']['cases']}"
        for region, of in summary["regions"].items()
        if of["dice"]["cases"] < summary["cases"]
    ]
    if untold:
        notes.append(
            f"cases whose labels do not tell a region, and are in neither its scores nor mDSC: {', '.join(untold)}"
        )
    return notes
