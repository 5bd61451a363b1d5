"""The data of the site: the checks of ``fedmepd data check``, in a line or two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from fedmepd.config import FUSION_SITE, Settings
from fedmepd.data.findings import ERROR, WARNING, Finding, count_kinds
from fedmepd.data.inspection import Inspection
from fedmepd.data.layouts import Dataset
from fedmepd.data.ownership import find_fusion_data, find_site_data, fusion_cases, own_cases, shared_cases
from fedmepd.data.phantom_heads import has_phantoms
from fedmepd.data.site import inspect_dataset, require_named_patients, split_labelled
from fedmepd.disclosure import patients_of
from fedmepd.doctor.checks import Check, Topic
from fedmepd.errors import DataError
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.find import find_task
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted

_DATA = Topic("data")

_NAME_THEM = (
    "run `fedmepd data init FOLDER --kit KIT`, and look whether its number of patients is right; if not, say who they "
    "are in a list cases.csv with a column patient first"
)


@dataclass
class Looked:
    """Facts about the data, for the checks of memory and disk.

    Attributes:
        modalities: of the labelled cases; all of the task's if they are not known, or if the fusion site is here.
        known: whether they are known.
        voxels: of every case's volume, with its number of modalities.
        parts: numbers of patients of the site's own labelled cases, by part; empty if they are not known, or made up.
        networks: how many are trained here: two if the fusion site is here too; none at a server without it.
    """

    modalities: tuple[str, ...]
    known: bool = False
    voxels: tuple[tuple[int, int], ...] = ()
    networks: int = 1
    parts: dict[str, int] = field(default_factory=dict)


def check_data(
    name: str,
    settings: Settings,
    machine: SiteSettings,
    looked: Looked,
    progress: Callable[[int, int], None],
) -> Iterator[Check]:
    """Reads the site's cases as the job would, and counts what is wrong; names no case.

    Args:
        name: the site's name, ``fusion`` for the server, which has the fusion site's unless the job names a site.
        settings: of the job.
        machine: the site's own settings, with the data folder.
        looked: receives these facts.
        progress: called with the number of cases read so far, and of all.
    """
    task, place = find_task(settings.task), settings.fusion.site
    if name == FUSION_SITE and place:
        looked.networks = 0
        yield _DATA.ok("none needed", f"{place} is the fusion site")
        return
    if machine.data is None and settings.data.phantom and has_phantoms(task):
        advice = f"to train on its own cases: `fedmepd data init FOLDER --kit KIT`{_server(name)}"
        yield _DATA.note("no data folder, the job makes phantoms", f"site {name}", advice)
        return
    # The data sets of the site, and for which of their cases.
    wanted = [] if name == FUSION_SITE else [(find_site_data, name, own_cases)]
    wanted += [(find_fusion_data, place, fusion_cases)] if name in (FUSION_SITE, place) else []
    read: dict[Path, tuple[Dataset, Inspection]] = {}
    chosen = []
    try:
        for find, site, select in wanted:
            dataset, _ = find(site, settings, machine)
            if dataset.folder not in read:
                read[dataset.folder] = dataset, inspect_dataset(dataset, machine.cache, progress=progress)
            inspection = read[dataset.folder][1]
            chosen.append((dataset, inspection.only(select(inspection.cases))))
    except DataError as error:
        advice = f"`fedmepd data init FOLDER --kit KIT` checks a folder and points the kit to it{_server(name)}"
        if name == place:
            advice += "; its option --fusion says which cases are for fusion training"
        yield _DATA.error("no data that can be used", error.public, advice)
        return
    _look(task, [inspection for _, inspection in chosen if inspection.cases], looked)
    faults = 0
    for dataset, inspection in read.values():
        check = f"`fedmepd data check {quote(str(dataset.folder))} --details` names them, docs/data.md says what to do"
        cases = counted(len(inspection.cases), "case")
        if count_kinds(inspection.findings, ERROR):
            faults += 1
            yield _DATA.error("errors in the data", f"{_kinds(inspection.findings, ERROR)} in {cases}", check)
        if count_kinds(inspection.findings, WARNING):
            yield _DATA.warning("warnings about the data", f"{_kinds(inspection.findings, WARNING)} in {cases}", check)
        try:
            if machine.privacy.wanted(settings.privacy):
                require_named_patients(name, dataset, [case for case in inspection.cases if case.label is not None])
        except DataError as error:
            faults += 1
            yield _DATA.error("patients known from names alone", error.public, _NAME_THEM)
    if len(chosen) == 2:
        (_, own), (_, fusion) = chosen
        shared = shared_cases(own, fusion)
        if shared:
            faults += 1
            advice = (
                "take each of these patients out of one of the two; the log of a site that refuses a job names them"
            )
            yield _DATA.error("cases both of the site and of fusion training", _kinds(shared, ERROR), advice)
    for (_, _, select), (dataset, inspection) in zip(wanted, chosen, strict=True):
        if select is own_cases:
            labelled = [case for case in inspection.cases if case.label is not None]
            split = split_labelled(labelled, dataset, settings, name)
            parts = {"training": split.train, "validation": split.validation, "test": split.test}
            looked.parts = {part: patients_of(cases) for part, cases in parts.items()}
        if select is fusion_cases:
            yield from _check_fusion(settings, dataset, inspection, faults)
        elif inspection.cases or len(chosen) == 1:
            yield from _check_own(task, dataset, inspection, faults)


def _check_own(task: Task, dataset: Dataset, inspection: Inspection, faults: int) -> Iterator[Check]:
    cases = counted(len(inspection.cases), "case")
    labelled = [case for case in inspection.cases if case.label is not None]
    if not any(dataset.parts is None or dataset.parts[case.name] == "train" for case in labelled):
        advice = "a site needs at least one labelled case to train on; after adding it run `fedmepd data init` again"
        yield _DATA.error("no case to train on", f"{cases}, {len(labelled)} with a label", advice)
    elif not faults:
        text = f"{cases}, {len(labelled)} with a label, {' '.join(_modalities(task, inspection))}"
        yield _DATA.ok("can be used", text)


def _check_fusion(settings: Settings, dataset: Dataset, inspection: Inspection, faults: int) -> Iterator[Check]:
    modalities = find_task(settings.task).modalities
    labelled = [case for case in inspection.cases if case.label is not None]
    split = split_labelled(labelled, dataset, settings, FUSION_SITE)
    full = [case for case in split.train if case.modalities == modalities]
    text = (
        f"{counted(len(inspection.cases), 'case')}: train {len(split.train)} ({len(full)} with all of "
        f"{', '.join(modalities)}), validation {len(split.validation)}, test {len(split.test)}"
    )
    if not full:
        advice = (
            "fusion training needs a labelled case with all modalities to train on; add some, or choose more with "
            "`fedmepd data init FOLDER --fusion WHICH`"
        )
        yield _DATA.error("no case for fusion training", text, advice)
    elif not faults:
        yield _DATA.ok("can be used for fusion training", text)


def _look(task: Task, inspections: Sequence[Inspection], looked: Looked) -> None:
    there = {modality for inspection in inspections for modality in _modalities(task, inspection)}
    if there:
        looked.modalities, looked.known = task.subset(there), True
    sizes = []
    for inspection in inspections:
        for case, facts in zip(inspection.cases, inspection.facts, strict=True):
            x, y, z = facts.shape or (0, 0, 0)
            sizes.append((x * y * z, len(case.modalities)))
    looked.voxels, looked.networks = tuple(sizes), max(1, len(inspections))


def _modalities(task: Task, inspection: Inspection) -> tuple[str, ...]:
    """Those of the labelled cases."""
    there = {name for case in inspection.cases if case.label is not None for name in case.modalities}
    return tuple(name for name in task.modalities if name in there)


def _kinds(findings: Sequence[Finding], severity: str) -> str:
    return ", ".join(f"{kind} ({number})" for kind, number in count_kinds(findings, severity).items())


def _server(name: str) -> str:
    return "; the server's kit names the fusion site's folder" if name == FUSION_SITE else ""
