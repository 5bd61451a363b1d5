"""Which cases are whose: a site's own, or the fusion site's.

The fusion site may be a hospital that takes part with other cases of its own too. Its fusion cases are in a sub-folder
``fusion``, or they are marked in the manifest of its data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Literal

from fedmepd.config import FUSION_SITE, Settings
from fedmepd.data.cases import Case
from fedmepd.data.findings import Finding, error
from fedmepd.data.folders import is_apart
from fedmepd.data.inspection import Inspection, tell_tale
from fedmepd.data.layouts import Dataset, find_dataset
from fedmepd.data.phantom_cohorts import cohort_folder, cohort_of, ensure_site
from fedmepd.data.phantom_heads import require_phantoms
from fedmepd.errors import DataError
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.find import find_task
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted

# Where the phantoms of a job are.
_KEPT = ". They are kept in FEDMEPD_CACHE: free space there, or set it to another folder"

# What the data set of a hospital's own cases is called, beside that for fusion training.
OWN = "its own"

# Of what a folder without cases holds.
_MOST_SHOWN = 3

Found = tuple[Dataset, Literal["phantom", "folder"]]


def own_cases(cases: Sequence[Case]) -> list[Case]:
    """Returns those of a data set that are the site's own."""
    return [case for case in cases if not case.for_fusion]


def fusion_cases(cases: Sequence[Case]) -> list[Case]:
    """Returns those of the fusion site's data set that are for fusion training: the marked ones, or all."""
    return [case for case in cases if case.for_fusion] or list(cases)


def find_site_data(name: str, settings: Settings, site_settings: SiteSettings) -> Found:
    """Finds the data set of a site, without looking into its files; see :func:`~fedmepd.data.site.open_site_data`.

    Cases that are marked for fusion training are in it too. A site that is the job's fusion site need not have any case
    of its own.

    Raises:
        DataError: there is no data folder, or no case in it.
    """
    data, task = site_settings.data, find_task(settings.task)
    if data is None:
        if not settings.data.phantom:
            raise DataError(
                f"{name} has no data folder: set FEDMEPD_DATA (or data in the site's fedmepd.json) to a folder with "
                f"a sub-folder {name}, or with the site's cases; setting data.phantom allows made-up cases",
                public=f"{name} has no data folder",
            )
        require_phantoms(task)
        cohort = cohort_of(settings.data.phantom)
        root = cohort_folder(site_settings.cache, cohort, settings.seed)
        return find_dataset(task, ensure_site(root, name, settings.seed, cohort, _KEPT)), "phantom"
    folder = _folder_of(name, site_settings)
    # If the folder has sub-folders for other sites but none for this one, their cases are not this site's.
    dataset = find_dataset(task, folder, deep=folder != data, without=FUSION_SITE)
    if dataset.cases and folder == data and site_settings.shares_folder:
        raise DataError(
            f"{data} holds cases of its own, and no sub-folder {name}: every site of this machine would have the same "
            "patients. Expected a sub-folder for each site; `fedmepd data split` makes such a folder of a data set",
            public=f"there is no data folder for {name} alone",
        )
    if dataset.cases and folder == data and dataset.parts is None:
        _require_one_depth(dataset, find_dataset(task, folder, without=FUSION_SITE))
    if not dataset.cases and settings.fusion.site != name:
        image, label = (task.file_name("001", kind) for kind in (task.modalities[0], None))
        expected = f"one sub-folder per case with NIfTI files, such as 001/{image} and 001/{label}"
        missing = f"no sub-folder {name} and " if folder == data else ""
        raise DataError(
            f"{folder} has {missing}no case in it: expected {expected}; `fedmepd data init` makes "
            f"a data set of any other layout{''.join(f'. {found.text}' for found in dataset.findings[:_MOST_SHOWN])}",
            public=f"the data folder of {name} has no case in it",
        )
    return dataset, "folder"


def deeper_cases(upper: Dataset, all_of_it: Dataset) -> list[str]:
    """The names of cases in folders of folders, beside those above."""
    # What holds no image of the task's is none: an atlas, or segmentations that somebody has made.
    return sorted({case.name for case in all_of_it.cases if case.images} - {case.name for case in upper.cases})


def _require_one_depth(upper: Dataset, all_of_it: Dataset) -> None:
    """Cases in folders of folders may be examinations of patients, or other sites' cases: nobody can know."""
    if deeper := deeper_cases(upper, all_of_it):
        raise DataError(
            f"{upper.folder} holds {counted(len(upper.cases), 'case')}, and {len(deeper)} more in folders of folders, "
            f"such as {deeper[0]}: `fedmepd data init {quote(str(upper.folder))}` makes a data set of all of them; or "
            "take those away that are not the site's",
            public="the data folder holds cases, and more of them in folders of folders",
        )


def find_fusion_data(site: str, settings: Settings, site_settings: SiteSettings) -> Found:
    """Finds the data set with the fusion cases, without looking into its files.

    Args:
        site: the hospital that is the fusion site; empty: the server, whose data folder, or its sub-folder ``fusion``,
            holds them.
        settings: the job's.
        site_settings: the machine's.

    Raises:
        DataError: there is no data folder or no case, or it is not clear which of a hospital's cases they are.
    """
    data = site_settings.data
    if not site or data is None:
        return find_site_data(FUSION_SITE, settings, site_settings)
    own, _ = find_site_data(site, settings, site_settings)
    home = _folder_of(site, site_settings)
    task = find_task(settings.task)
    folders = [place / FUSION_SITE for place in dict.fromkeys((data, home)) if has_fusion_folder(task, place)]
    marked = any(case.for_fusion for case in own.cases)
    ways = (
        f"put them into the sub-folder {FUSION_SITE} of {home}, or say which of its cases they are with "
        f"`fedmepd data init {home} --fusion WHICH`"
    )
    if len(folders) + marked > 1:
        places = [*map(str, folders), *([f"the marked cases of {own.folder}"] if marked else [])]
        raise DataError(
            f"{site} has fusion cases in {' and in '.join(places)}: expected one of these alone; {ways}",
            public=f"{site} has fusion cases in {counted(len(places), 'place')}",
        )
    if marked:
        return own, "folder"
    dataset = find_dataset(task, folders[0]) if folders else None
    if dataset is None or not dataset.cases:
        where = f"{folders[0]} has no case in it" if folders else f"{home} does not say which cases these are"
        raise DataError(
            f"{site} is the fusion site of the job, but {where}: {ways}",
            public=f"{site} does not say which of its cases are for fusion training",
        )
    return dataset, "folder"


def _folder_of(name: str, site_settings: SiteSettings) -> Path:
    if why := site_settings.why_no_data():
        raise DataError(
            f"{why}: set FEDMEPD_DATA (or data in the site's fedmepd.json) to one",
            public=f"the data folder of {name} does not exist",
        )
    own = site_settings.data / name
    return own if own.is_dir() else site_settings.data


def has_fusion_folder(task: Task, folder: Path) -> bool:
    """Whether a hospital's folder has a sub-folder for fusion cases of a task; a case may have that name too.

    Raises:
        DataError: it may be either.
    """
    return folder.is_dir() and is_apart(task, folder / FUSION_SITE)


def shared_cases(own: Inspection, fusion: Inspection) -> list[Finding]:
    """Says which patients and cases a site and the fusion site have in common: nobody's may be in both.

    Args:
        own: of the site's own cases.
        fusion: of those for fusion training.
    """
    findings = []
    patients = {case.patient for case in own.cases}
    both = sorted(patients & {case.patient for case in fusion.cases})
    for patient in both:
        text = (
            f"patient {patient} is among the site's own cases and among those for fusion training: remove one of them"
        )
        findings.append(error("patient of the site and of fusion training", text))
    seen = {
        digest: case.name
        for case, facts in zip(own.cases, own.facts, strict=True)
        for digest in tell_tale(facts).values()
    }
    for case, facts in zip(fusion.cases, fusion.facts, strict=True):
        for kind, digest in tell_tale(facts).items():
            if digest in seen and case.patient not in both:
                text = (
                    f"the {kind} of case {case.name}, patient {case.patient}, for fusion training is that of the "
                    f"site's own case {seen[digest]}: remove one of the two"
                )
                findings.append(error("same content at the site and for fusion training", text))
                break
    return findings
