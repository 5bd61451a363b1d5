"""A model card: a Markdown page beside a site's best model, with what its user has to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from fedmepd import __version__, methods
from fedmepd.config import Settings
from fedmepd.storage import write_text
from fedmepd.tasks.find import find_task
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted

FILE_NAME = "model_card.md"


def write_model_card(
    model: Path,
    *,
    owner: str,
    settings: Settings,
    modalities: Sequence[str],
    cases: dict[str, int],
    phantoms: bool,
    cohort: str = "",
    round_number: int,
    validation: dict[str, Any] | None,
    test: dict[str, Any] | None = None,
    privacy: Callable[[], dict[str, Any] | None] = lambda: None,
) -> None:
    """Writes the card of a model into its folder. It names no case, file or folder.

    Args:
        model: the checkpoint.
        owner: the site's name, or ``server``.
        settings: of the job.
        modalities: those that the model was trained with.
        cases: numbers of ``train``, ``validation`` and ``test`` cases.
        phantoms: whether all of these cases are phantoms.
        cohort: that these belong to; empty where that is not known.
        round_number: of the model.
        validation: ``mdsc`` and ``dice`` by region, or None.
        test: what :func:`fedmepd.evaluation.metrics.summarise` returns, or None before the test.
        privacy: returns what the training has spent so far, see
            :meth:`fedmepd.privacy.participant.Privacy.spent`; None without differential privacy.

    Raises:
        FedMEPDError: the card cannot be written.
    """
    task = find_task(settings.task)
    # The global model's cases are the fusion site's; a site's card counts the site's own alone.
    at = f", for fusion training at {settings.fusion.site or 'the server'}" * (owner == "server")
    method = methods.find(settings.method)
    rows = {
        "modalities": " ".join(modalities),
        "method": f"{method.title} ({method.paper}): {method.global_model if owner == 'server' else method.model}",
        "cases": f"{cases['train']} for training, {cases['validation']} for validation, {cases['test']} for testing"
        + at
        + (" (phantoms" + f", cohort {cohort}" * bool(cohort) + ")" if phantoms else ""),
        "round": f"{round_number} of {settings.rounds}, the best on validation"
        if validation
        else f"{round_number} of {settings.rounds}",
        "network": f"width {settings.network.width}, crops of {settings.training.crop} voxels",
        "inference": f"window {settings.evaluation.window}, overlap {settings.evaluation.overlap:g}",
        "intensities": f"clipped at {settings.data.clip_percent:g} % at either end, then "
        * bool(settings.data.clip_percent)
        + task.describe_intensities(),
        **({"voxels": f"resampled to {task.describe_voxels()}"} if task.resampled else {}),
        "seed, version": f"{settings.seed}, fedmepd {__version__}",
        "differential privacy": _privacy(privacy()),
    }
    lines = [
        f"# {task.title}: model of {owner}",
        "",
        "**For research only. Not a medical device. Do not use it for diagnosis or treatment.**",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {text} |" for name, text in rows.items()),
        "",
        "## How good it is",
        "",
        *_scores(task, validation, test, cases),
        "",
        "## Known limits",
        "",
        *(f"- {text}" for text in _limits(task, owner, modalities, cases, phantoms)),
        "",
        "## Use",
        "",
        f"    fedmepd predict --model {model.name} FOLDER --out OUT --overlay",
        "",
        f"Input: {task.images}: {' '.join(modalities)}, or any of them.",
        f"Output: {task.describe_labels()}.",
    ]
    write_text(model.with_name(FILE_NAME), "\n".join(lines) + "\n")


def _privacy(spent: dict[str, Any] | None) -> str:
    if spent is None:
        return "none"
    return (
        f"for every training patient, epsilon {spent['epsilon']:.3g} of {spent['budget']:g} at delta "
        f"{spent['delta']:g}; validation and test patients are not covered"
    )


def _scores(
    task: Task, validation: dict[str, Any] | None, test: dict[str, Any] | None, cases: dict[str, int]
) -> list[str]:
    if not validation and not test:
        if cases["validation"] or cases["test"]:
            return ["No scores: it has not been tested yet, its owner keeps the scores, or too few cases were tested."]
        return ["Not measured: there are no validation and no test cases."]
    header = ["", *task.regions, "mean"]
    lines = [f"| {' | '.join(header)} |", f"| {' | '.join(['---', *['---:'] * (len(header) - 1)])} |"]
    if validation:
        dice = [_number(validation["dice"], region, ".3f") for region in task.regions]
        number = counted(cases["validation"], "validation case")
        lines.append(f"| Dice, {number} | {' | '.join(dice)} | {validation['mdsc']:.3f} |")
    if not test:
        return [
            *lines,
            "",
            "Not tested yet, or no test cases. Validation scores are too good: they were used to choose it.",
        ]
    dice = [_number(test["dice"], region, ".3f") for region in task.regions]
    lines.append(f"| Dice, {counted(cases['test'], 'test case')} | {' | '.join(dice)} | {test['mdsc']:.3f} |")
    distances = [_number(test["hd95_mm"], region, ".1f") for region in task.regions]
    lines.append(f"| HD95 in mm, test cases | {' | '.join(distances)} | {fmean(test['hd95_mm'].values()):.1f} |")
    empty = ", ".join(f"{region} {count}" for region, count in test["empty"].items() if count)
    note = "The test cases were used for nothing else."
    if empty:
        note += (
            f" Cases in which a region is empty in the label or the prediction: {empty}; where it is empty in one of "
            f"them alone, Dice is 0 and HD95 {task.empty_distance_mm:g} mm."
        )
    return [*lines, "", note]


def _number(of: dict[str, float], region: str, form: str) -> str:
    """A region's score; a dash where the labels do not tell the region."""
    return format(of[region], form) if region in of else "-"


def _limits(task: Task, owner: str, modalities: Sequence[str], cases: dict[str, int], phantoms: bool) -> list[str]:
    limits = []
    if phantoms:
        limits.append("Trained on phantoms. Its scores say nothing about patients.")
    missing = [name for name in task.modalities if name not in modalities]
    if missing:
        limits.append(
            f"It has never seen {', '.join(missing)} and ignores such images. If one of its own modalities is missing, "
            "it still works but is less accurate."
        )
    else:
        limits.append("If one of its modalities is missing, it still works but is less accurate.")
    place = "the fusion site" if owner == "server" else "one site"
    trained, tested = (counted(cases[part], "case") for part in ("train", "test"))
    limits.append(
        f"It was trained on {trained} and tested on {tested} of {place}. "
        "Other scanners, protocols and patients were not tested."
    )
    return [*limits, *task.limits]
