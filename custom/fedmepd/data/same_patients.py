"""Whether sites whose folders lie on one machine have patients in common.

Two such sites are nearly always a mistake: a patient would be trained on at one site and tested at the other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from itertools import combinations
from pathlib import Path
from shlex import quote

from fedmepd.config import FUSION_SITE
from fedmepd.data.cases import PLAIN, Case
from fedmepd.data.containment import OUTSIDE
from fedmepd.data.findings import WARNING, Finding, error, note, refuse_for_a_run, warning
from fedmepd.data.inspection import Inspection, tell_tale
from fedmepd.data.layouts import Dataset, find_dataset
from fedmepd.data.links import identity
from fedmepd.data.manifest import FILE_NAME as MANIFEST
from fedmepd.data.manifest import pinned_content
from fedmepd.data.names import kinds_of_file, read_case_name
from fedmepd.data.ownership import OWN, has_fusion_folder
from fedmepd.data.volumes import VolumeError, is_nifti, read_volumes
from fedmepd.errors import DataError
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted

_SHARED = "two sites that share cases"

_MOST_SHOWN = 3

_GLANCE_BYTES = 2**16

# P001, patient-17 and 12: names that two hospitals may give to two people.
_NUMBER = re.compile(r"\D{0,20}\d{1,4}")


@dataclass(frozen=True)
class Common:
    """Two sites with a folder or files in common, through links.

    Args:
        one, other: the sites.
        text: what they have in common, with an example, and what to do; names files, for this machine alone.
        public: the same without names of files.
        linked: those of the two whose folder holds symbolic links that no manifest allows; without any, the other.
    """

    one: str
    other: str
    text: str
    public: str
    linked: tuple[str, ...]

    def finding(self) -> Finding:
        """Returns the error that it is."""
        return error(_SHARED, self.text)


def check_sites(task: Task, folder: Path, sites: Sequence[str]) -> list[str]:
    """Refuses a folder in which sites have the same folder or files, the fusion site among them.

    Args:
        task: that the cases are of.
        folder: with a sub-folder for each site.
        sites: their names, without the fusion site's.

    Returns:
        warnings: of what is passed over in a site's folder, and of patients who may be at two sites.

    Raises:
        DataError: two sites have the same folder or files, links lead to files that no site may read, or a folder
            cannot be read.
    """
    names = [*sites, *([FUSION_SITE] if (folder / FUSION_SITE).is_dir() else [])]
    require_apart({name: folder / name for name in names}, [task])
    found = {name: find_dataset(task, folder / name, without=FUSION_SITE) for name in names}
    findings = [one for dataset in found.values() for one in dataset.findings]
    findings += [one for dataset in found.values() for case in dataset.cases for one in case.findings]
    refuse_for_a_run([one for one in findings if one.kind == OUTSIDE])
    passed_over = [one.text for dataset in found.values() for one in dataset.findings if one.severity == WARNING]
    check = f"`fedmepd data check {quote(str(folder))}`"
    warnings = [f"{_few(passed_over)}. A run goes on without: {check} says more"] if passed_over else []
    if lines := same_people(found):
        same = f"{_few(lines, 'pair')}. If they are the same people, the scores are too good: {check} compares what"
        warnings.append(f"{same} their files contain")
    return warnings


def _few(texts: Sequence[str], noun: str = "") -> str:
    left = len(texts) - _MOST_SHOWN
    more = [f"and {counted(left, f'more {noun}') if noun else f'{left} more'}"] if left > 0 else []
    return "; ".join([*texts[:_MOST_SHOWN], *more])


def require_apart(folders: Mapping[str, Path], tasks: Sequence[Task]) -> None:
    """Does nothing if no two sites have a folder or a file in common.

    Args:
        folders: by site, the fusion site's too.
        tasks: of which the cases may be.

    Raises:
        DataError: links make two of them the same.
    """
    if common := find_common(folders, tasks):
        more = [one.public for one in common[1:_MOST_SHOWN]]
        left = len(common) - len(more) - 1
        more += [f"and so have {counted(left, 'more pair')}"] if left else []
        raise DataError("; ".join([common[0].text, *more]), "; ".join([common[0].public, *more]))


def find_common(folders: Mapping[str, Path], tasks: Sequence[Task]) -> list[Common]:
    """Finds sites that have a folder or files in common through symbolic or hard links, with manifests or without.

    What is of no case at either, such as an atlas, shows no patient and may be the same everywhere.

    Args:
        folders: by site, the fusion site's too.
        tasks: of which the cases may be.

    Returns:
        every two such sites, in their order.

    Raises:
        DataError: a folder cannot be read as one of cases of the tasks.
    """
    # A link that leads nowhere, or a file that is missing, is told by the checks of a case.
    files = {
        site: {key: file for file in _files(folder) if (key := identity(file)) is not None}
        for site, folder in folders.items()
    }
    # A case with an error may lack what its name says that it has.
    of_cases = {
        site: {identity(file) for file in _of_cases(tasks, folder)}
        | {key for key, file in files[site].items() if any(kinds_of_file(task, file) for task in tasks)}
        for site, folder in folders.items()
    }
    places = {site: os.path.realpath(folder) for site, folder in folders.items()}
    found = []
    for one, other in combinations(folders, 2):
        if places[one] == places[other]:
            text = (
                f"{folders[one]} and {folders[other]} are the same folder, {places[one]}: two sites would have the "
                "same patients. Give each site a folder of its own, or leave one of the two out"
            )
            linked = tuple(site for site in (one, other) if folders[site].is_symlink())
            found.append(Common(one, other, text, f"{one} and {other} have the same data folder", linked or (other,)))
        elif folders[other].is_relative_to(folders[one]):
            # A hospital's sub-folder of cases for fusion training.
            continue
        elif both := files[one].keys() & files[other].keys() & (of_cases[one] | of_cases[other]):
            # The first of them in the order of their names.
            file = next(key for key in files[other] if key in both)
            text = (
                f"{one} and {other} have {counted(len(both), 'file')} in common through links, such as "
                f"{files[one][file]} and {files[other][file]}: two sites would have the same patients. Take these "
                "cases out of one of the two; of what shows no patient, such as an empty label, give each site a copy"
            )
            linked = tuple(
                site for site in (one, other) if _leads_out(folders[site], [files[site][key] for key in both])
            )
            found.append(Common(one, other, text, f"{one} and {other} have the same files", linked or (other,)))
    return found


def _leads_out(folder: Path, files: Sequence[Path]) -> bool:
    """Whether files of a site are links that no run may read: a manifest allows them."""
    if (folder / MANIFEST).is_file():
        return False
    home = os.path.realpath(folder)
    return any(not Path(os.path.realpath(file)).is_relative_to(home) for file in files)


def _of_cases(tasks: Sequence[Task], folder: Path) -> Iterator[Path]:
    """The files that cases of any of the tasks have."""
    for task in tasks:
        try:
            yield from _of_cases_of(task, folder)
        except DataError:
            # What is no data set of one task may be one of another.
            if len(tasks) == 1:
                raise


def _of_cases_of(task: Task, folder: Path) -> Iterator[Path]:
    for case in find_dataset(task, folder, follow_links=True, without=FUSION_SITE).cases:
        yield from case.files
    if has_fusion_folder(task, folder):
        yield from _of_cases_of(task, folder / FUSION_SITE)


def _files(folder: Path) -> Iterator[Path]:
    """The files of a site: those of its manifest, or all images below its folder, wherever links lead."""
    if (folder / MANIFEST).is_file():
        yield from pinned_content(folder)
        yield from _files(folder / FUSION_SITE)
        return
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        # Links may form a circle.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
        seen.add(real)
        yield from (Path(place) / name for name in sorted(names) if is_nifti(Path(name)))


def same_people(found: Mapping[str, Dataset]) -> list[str]:
    """Returns a sentence about every two sites with patients who may be the same people.

    These are patients of the same name, if a file of theirs is the same too, or if the name is more than a number:
    many hospitals number their patients.

    Args:
        found: the data sets by site.
    """
    lines = []
    for one, other in combinations(found, 2):
        ours, theirs = (_by_patient(found[site].cases) for site in (one, other))
        both = ours.keys() & theirs.keys()
        same = {patient for patient in both if _same_file(ours[patient], theirs[patient])}
        if same:
            people = counted(len(same), "patient")
            lines.append(f"{one} and {other} have {people} in common by name and by a file of the same content")
        elif telling := {patient for patient in both if not all(map(_is_numbered, ours[patient]))}:
            how_many = "all" if telling == ours.keys() == theirs.keys() else "some"
            lines.append(
                f"{one} and {other} have {counted(len(telling), 'patient')} in common by name, {how_many} of theirs"
            )
    return lines


def _by_patient(cases: Sequence[Case]) -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.patient, []).append(case)
    return found


def _is_numbered(case: Case) -> bool:
    """Whether a patient's name is hardly more than a number, and none of a public data set."""
    return not _is_public(case) and _NUMBER.fullmatch(case.patient) is not None


def _is_public(case: Case) -> bool:
    return read_case_name(case.task, case.name).layout != PLAIN


def _same_file(ours: Sequence[Case], theirs: Sequence[Case]) -> bool:
    """Whether two patients have a file of the same content, other than a label that marks nothing."""
    known = {glance: file for case in ours for file in case.files if (glance := _glance(file))}
    for case in theirs:
        for file in case.files:
            glance = _glance(file)
            own = known.get(glance) if glance else None
            if own and _digest(own) == _digest(file) and (file != case.label or _marks_anything(file)):
                return True
    return False


def _glance(file: Path) -> tuple[int, bytes] | None:
    """The size of a file and what is in its middle, where an image shows the patient: enough to tell most apart.

    None for a file that is missing or may not be read, which the checks of its case tell.
    """
    if not os.path.isfile(file):
        return None
    try:
        with open(file, "rb") as content:
            size = content.seek(0, os.SEEK_END)
            content.seek(size // 2)
            return size, content.read(_GLANCE_BYTES)
    except OSError:
        return None


def _digest(file: Path) -> bytes:
    with open(file, "rb") as content:
        return file_digest(content, "sha256").digest()


def _marks_anything(label: Path) -> bool:
    try:
        return bool(read_volumes(label).values.any())
    except (OSError, VolumeError):
        return False


def overlaps(sites: Mapping[str, Inspection]) -> list[Finding]:
    """Says which sites of a federation share volumes or patients, without names of cases.

    Args:
        sites: what was found at each.
    """
    findings = []
    content = {name: _content(inspection) for name, inspection in sites.items()}
    for one, other in combinations(sites, 2):
        ours, theirs = (_by_patient(sites[name].cases) for name in (one, other))
        both = ours.keys() & theirs.keys()
        # The same people for sure: of one hospital, or of a public data set.
        one_hospital = (one, other) in ((OWN, FUSION_SITE), (one, f"{one}/{FUSION_SITE}"))
        sure = both if one_hospital else {patient for patient in both if any(map(_is_public, ours[patient]))}
        numbered = {patient for patient in both - sure if all(map(_is_numbered, ours[patient]))}
        volumes = len(content[one] & content[other])
        if volumes or sure:
            what = [f"{counted(volumes, 'volume')} of the same content"] if volumes else []
            what += [f"{counted(len(sure or both), 'patient')} by name"] if both else []
            text = f"{one} and {other} share {' and '.join(what)}: every case belongs to one site alone"
            findings.append(error(_SHARED, text))
        elif both - numbered:
            people = f"{counted(len(both - numbered), 'patient')} in common by name"
            text = f"{one} and {other} have {people}: if they are the same people, take them out of one of the two"
            findings.append(warning("patients of the same name at two sites", text))
        elif both:
            people = f"{counted(len(both), 'patient')} in common by name"
            text = f"{one} and {other} have {people}, and no volume: the names are numbers"
            findings.append(note("patients of the same number at two sites", text))
    return findings


def _content(inspection: Inspection) -> set[str]:
    return {digest for found in inspection.facts for digest in tell_tale(found).values()}
