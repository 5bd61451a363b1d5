"""What a model's description says that it is not for, against the cases that it is to segment. Reads no image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from fedmepd.data.cases import Case
from fedmepd.data.findings import Finding, warning
from fedmepd.data.phantom import is_phantom
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted

ON_PHANTOMS = "trained on phantoms alone, never on a patient"


def intended_use(about: dict[str, Any]) -> str:
    """Returns what a model may be used for, for the files that it is exported to.

    Args:
        about: of :func:`fedmepd.training.checkpoints.describe`.
    """
    return "research; not a medical device" + (f"; {ON_PHANTOMS}" if about.get("phantoms") else "")


def limits_of_case(case: Case, modalities: Sequence[str], phantoms: bool | None) -> list[Finding]:
    """Returns a warning for each limit of a model that a case is beyond.

    Args:
        case: with all of its images.
        modalities: that the model was trained with.
        phantoms: whether it was trained on phantoms alone; None: unknown.
    """
    found = []
    if strangers(phantoms, [case]):
        found.append(warning("a model of phantoms: means nothing", phantom_line([case])))
    if case.disease:
        found.append(warning(f"another disease than in training ({case.disease})", _disease_line([case])))
    missing = [name for name in modalities if name not in case.images]
    if missing:
        text = f"the model was trained with {' '.join(modalities)}; case {case.name} lacks {' '.join(missing)}"
        found.append(warning(f"without {' '.join(missing)}", text))
    return found


def limits_of_cases(task: Task, cases: Sequence[Case], modalities: Iterable[str], phantoms: bool | None) -> list[str]:
    """Returns one line for each limit of a model that some of the cases are beyond.

    Args:
        task: of the model.
        cases: to segment, with all of their images.
        modalities, phantoms: see :func:`limits_of_case`.
    """
    others = strangers(phantoms, cases)
    diseases = sorted({case.disease for case in cases} - {""})
    return [
        *([phantom_line(others)] if others else []),
        *(_disease_line([case for case in cases if case.disease == disease]) for disease in diseases),
        *modality_warnings(task, cases, modalities),
    ]


def strangers(phantoms: bool | None, cases: Sequence[Case]) -> list[Case]:
    """Returns the cases that are no phantoms if the model was trained on phantoms alone; else none."""
    return [case for case in cases if not is_phantom(case)] if phantoms else []


def phantom_line(others: Sequence[Case]) -> str:
    """Says what a model of phantoms does to cases that are none."""
    return f"the model was {ON_PHANTOMS}: what it marks in {_some(others)} means nothing"


def _disease_line(cases: Sequence[Case]) -> str:
    first = cases[0]
    return f"the model is for {first.task.subject}; by the name, it is {first.disease} in {_some(cases)}"


def _some(cases: Sequence[Case]) -> str:
    return cases[0].name if len(cases) == 1 else f"{cases[0].name} and {len(cases) - 1} more"


def modality_warnings(task: Task, cases: Sequence[Case], modalities: Iterable[str]) -> list[str]:
    """One line for each difference between the modalities of the cases and those that a model was trained with."""
    modalities = task.subset(modalities)
    trained = f"the model was trained with {' '.join(modalities)}"
    missing: Counter[tuple[str, ...]] = Counter()
    unknown: Counter[tuple[str, ...]] = Counter()
    for case in cases:
        missing[tuple(name for name in modalities if name not in case.images)] += 1
        unknown[tuple(name for name in case.modalities if name not in modalities)] += 1
    lines = []
    for names, count in missing.items():
        if names and names != modalities:
            without = f"{' '.join(names)} {'is' if len(names) == 1 else 'are'} missing"
            lines.append(f"{trained}; {without}{_of(count, cases)}: expect a less accurate segmentation")
    for names, count in unknown.items():
        if names:
            lines.append(f"{trained}; {' '.join(names)}{_of(count, cases)} cannot be used and is ignored")
    return lines


def _of(count: int, cases: Sequence[Case]) -> str:
    return "" if len(cases) == 1 else f" in {count} of {counted(len(cases), 'case')}"
