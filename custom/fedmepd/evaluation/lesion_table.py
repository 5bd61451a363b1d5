"""The second table of a run's results: scores lesion by lesion, and NSD."""

from __future__ import annotations

from typing import Any

from fedmepd.evaluation.distances import TOLERANCE_MM
from fedmepd.evaluation.entries import label
from fedmepd.tasks.find import task_of
from fedmepd.tasks.rules import LESION_COUNTS

TITLE = f"Lesion by lesion: Dice, HD95 in mm, count of lesions {'/'.join(LESION_COUNTS)}; and NSD of the whole region"

Row = tuple[str, ...]


def has_lesions(results: dict[str, Any]) -> bool:
    """Whether the run is tested, by a version of this package that scores lesions."""
    return any(entry["test"] and entry["test"].get("lesions") for entry in (results["server"], *results["sites"]))


def header(results: dict[str, Any]) -> Row:
    """Returns the heads of the columns of :func:`rows`."""
    return ("site", *_heads(tuple(task_of(results["settings"]).regions)))


def rows(results: dict[str, Any]) -> list[Row]:
    """Returns the cells under :func:`header`: a row for each site, the sites' mean, the fusion site."""
    regions = tuple(task_of(results["settings"]).regions)
    mean, server = results["mean"], results["server"]
    return [
        *((entry["name"], *_cells(regions, entry["test"])) for entry in results["sites"]),
        ("mean of the sites", *_cells(regions, mean)),
        (label(server["name"]), *_cells(regions, server["test"])),
    ]


def note(results: dict[str, Any]) -> str:
    """Returns what is needed to read the table."""
    rules = task_of(results["settings"]).lesions.describe()
    text = f"{rules}; lesions are counted over all cases; NSD: normalised surface Dice at {TOLERANCE_MM:g} mm"
    if results.get("source") != "phantom":
        return text
    return f"{text}; the rules are for voxels of 1 mm, those of the phantoms have 3 mm: here the table says little"


def site_table(regions: tuple[str, ...], test: dict[str, Any]) -> tuple[Row, Row]:
    """Returns heads and cells of one site's test."""
    return _heads(regions), _cells(regions, test)


def _heads(regions: tuple[str, ...]) -> Row:
    measures = ("Dice", "HD95", "count", "NSD")
    return tuple(f"{measure} {region}" for measure in measures for region in regions)


def _cells(regions: tuple[str, ...], scores: dict[str, Any] | None) -> Row:
    scores = scores or {}
    lesions, surfaces = scores.get("lesions") or {}, scores.get("nsd") or {}
    told = [lesions.get(region) for region in regions]
    return (
        *(f"{of['dice']:.3f}" if of else "-" for of in told),
        *(f"{of['hd95_mm']:.1f}" if of else "-" for of in told),
        *("/".join(str(of[count]) for count in LESION_COUNTS) if of else "-" for of in told),
        *(f"{surfaces[region]:.3f}" if region in surfaces else "-" for region in regions),
    )
