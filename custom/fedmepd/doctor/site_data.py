"""The data of the site: the checks of ``fedmepd data check``, in a line or two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from shlex import quote

from fedmepd.config import FUSION_SITE, Settings
from fedmepd.data.findings import ERROR, WARNING, count_kinds
from fedmepd.data.inspection import Inspection
from fedmepd.data.phantom import has_phantoms
from fedmepd.data.site import find_site_data, inspect_dataset
from fedmepd.doctor.checks import Check, Topic
from fedmepd.errors import DataError
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.find import find_task
from fedmepd.tasks.task import Task

_DATA = Topic("data")


@dataclass
class Looked:
    """Facts about the data, for the checks of memory and disk.

    Attributes:
        modalities: of the labelled cases; all of the task's if they are not known.
        known: whether they are known.
        voxels: of every case's volume, with its number of modalities.
    """

    modalities: tuple[str, ...]
    known: bool = False
    voxels: tuple[tuple[int, int], ...] = ()


def check_data(
    name: str,
    settings: Settings,
    machine: SiteSettings,
    looked: Looked,
    progress: Callable[[int, int], None],
) -> Iterator[Check]:
    """Reads the site's cases as the job would, and counts what is wrong; names no case.

    Args:
        name: the site's name, ``fusion`` for the fusion site.
        settings: of the job.
        machine: the site's own settings, with the data folder.
        looked: receives these facts.
        progress: called with the number of cases read so far, and of all.
    """
    task = find_task(settings.task)
    if machine.data is None and settings.data.phantom and has_phantoms(task):
        advice = f"to train on its own cases: `fedmepd data init FOLDER --kit KIT`{_server(name)}"
        yield _DATA.note("no data folder, the job makes phantoms", f"site {name}", advice)
        return
    try:
        dataset, _ = find_site_data(name, settings, machine)
        inspection = inspect_dataset(dataset, machine.cache, progress=progress)
    except DataError as error:
        advice = f"`fedmepd data init FOLDER --kit KIT` checks a folder and points the kit to it{_server(name)}"
        yield _DATA.error("no data that can be used", error.public, advice)
        return
    _look(task, inspection, looked)
    check = f"`fedmepd data check {quote(str(dataset.folder))} --details` names them, docs/data.md says what to do"
    cases = len(inspection.cases)
    faults = sum(found.severity == ERROR for found in inspection.findings)
    if faults:
        yield _DATA.error("errors in the data", f"{_kinds(inspection, ERROR)} in {cases} cases", check)
    labelled = sum(case.label is not None for case in inspection.cases)
    training = labelled if dataset.parts is None else Counter(dataset.parts.values())["train"]
    if not training:
        advice = "a site needs at least one labelled case to train on; after adding it run `fedmepd data init` again"
        yield _DATA.error("no case to train on", f"{cases} cases, {labelled} with a label", advice)
    if count_kinds(inspection.findings, WARNING):
        yield _DATA.warning("warnings about the data", f"{_kinds(inspection, WARNING)} in {cases} cases", check)
    if not faults and training:
        text = f"{cases} cases, {labelled} with a label, {' '.join(looked.modalities)}"
        yield _DATA.ok("can be used", text)


def _look(task: Task, inspection: Inspection, looked: Looked) -> None:
    there = {modality for case in inspection.cases if case.label is not None for modality in case.modalities}
    if there:
        looked.modalities, looked.known = task.subset(there), True
    sizes = []
    for case, facts in zip(inspection.cases, inspection.facts, strict=True):
        x, y, z = facts.shape or (0, 0, 0)
        sizes.append((x * y * z, len(case.modalities)))
    looked.voxels = tuple(sizes)


def _kinds(inspection: Inspection, severity: str) -> str:
    return ", ".join(f"{kind} ({number})" for kind, number in count_kinds(inspection.findings, severity).items())


def _server(name: str) -> str:
    return "; the server's kit names the fusion site's folder" if name == FUSION_SITE else ""
