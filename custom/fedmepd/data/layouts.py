"""Finding the cases of a data set, in every layout in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedmepd.data.bids import is_bids, read_bids
from fedmepd.data.case_lists import read_case_list
from fedmepd.data.cases import LABEL, PLAIN, Case
from fedmepd.data.containment import outside
from fedmepd.data.decathlon import read_images_tr
from fedmepd.data.file_kinds import TWICE, Pattern, matching, sort_files
from fedmepd.data.findings import Finding, error, note
from fedmepd.data.folders import (
    IMAGES_TR,
    LISTS,
    children_of,
    has_layout,
    is_apart,
    is_group,
    require_spelling,
    sole_folder,
)
from fedmepd.data.formats import other_format
from fedmepd.data.label_folders import named_labels, with_labels
from fedmepd.data.links import describe_nothing, identity, images_beside, no_case_in
from fedmepd.data.manifest import FILE_NAME as MANIFEST
from fedmepd.data.manifest import Part, read_manifest
from fedmepd.data.names import read_case_name, read_label_name
from fedmepd.data.patients import date_as_patient, patient_of, with_doubts
from fedmepd.data.pattern_fit import check_fit, fitting, without_effect
from fedmepd.data.volumes import is_nifti
from fedmepd.errors import DataError
from fedmepd.tasks.labels import Convention
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted

SINGLE = "the folder of one case"
NESTED = "a folder per patient, in it one per examination"

# Of folders in folders: data set, group, patient, examination.
_DEEPEST = 5


@dataclass(frozen=True)
class Dataset:
    """The cases of a folder.

    Args:
        folder: the folder, or the list.
        layout: what was found there, in words.
        cases: sorted by name.
        findings: about the folder as a whole.
        parts: by case name, what ``fedmepd data init`` or ``split`` decided; None where nothing was decided.
    """

    folder: Path
    layout: str
    cases: list[Case]
    findings: tuple[Finding, ...] = ()
    parts: dict[str, Part | None] | None = None


def find_dataset(
    task: Task,
    folder: Path,
    *,
    manifest: bool = True,
    follow_links: bool = False,
    deep: bool = True,
    without: str | None = None,
    patterns: Sequence[Pattern] = (),
) -> Dataset:
    """Finds the cases of a folder without reading an image.

    In this order: a manifest of ``fedmepd data init`` or ``split``; a list, ``cases.csv`` or ``cases.json``; the
    Decathlon's or nnU-Net's folders of images and labels; BIDS; a folder per case, at any depth, as BraTS 2017 to 2025
    and most others have it, where labels may lie in a folder of their own. What is wrong with a case becomes one of its
    findings, so that one bad case hides no other.

    Args:
        task: that the cases are of.
        folder: the folder, or a list.
        manifest: whether to use a manifest; if not, the folder is searched as if it had none.
        follow_links: whether links may lead out of a case's folder.
        deep: whether to look into folders of folders; without, into those called HGG, LGG and the like alone.
        without: name of a sub-folder whose cases belong to another data set.
        patterns: which files of a case's folder are of which kind, where their names' words do not tell it.

    Raises:
        DataError: the folder cannot be read, its list or manifest is not valid, the manifest is of another task, or a
            pattern fits no file.
    """
    folder = Path(folder)
    if folder.is_file():
        if folder.suffix.lower() not in (".csv", ".json"):
            meant = f"; {folder.parent} is its case: name that, or the folder of all cases" if is_nifti(folder) else ""
            raise DataError(
                f"{folder} is a file: expected a folder of cases, or a list that ends in .csv or .json{meant}"
            )
        return _from_list(task, folder, follow_links, patterns)
    children = children_of(folder)
    if manifest and any(child.name == MANIFEST for child in children):
        cases, parts = read_manifest(task, folder)
        return Dataset(folder, "a data set of fedmepd", cases, parts=parts)
    lists = [child for child in children if child.name.lower() in LISTS]
    if len(lists) > 1:
        raise DataError(f"{folder} has both {lists[0].name} and {lists[1].name}: remove one", "two lists of cases")
    if lists:
        return _from_list(task, lists[0], follow_links, patterns)
    findings: list[Finding] = []
    unread: list[Path] = []
    search = _Search(task, folder, follow_links, tuple(patterns), findings, unread, {}, set())
    if without is not None:
        require_spelling(task, folder, without)
    cases = with_labels(list(_walk(search, folder, _DEEPEST if deep else 0, without)), search.labels, findings)
    cases += _unread_cases(task, folder, cases, unread)
    if not cases:
        cases = list(_single_case(search))
    elif not has_layout(folder):
        findings += images_beside([child for child in children if is_nifti(child)])
    findings += check_fit(search.patterns, search.fitted, folder, cases)
    cases = with_doubts(cases)
    examinations = [case for case in cases if case.layout == NESTED and not case.patient_doubt]
    if examinations:
        patients = len({case.patient for case in examinations})
        text = (
            f"folders in folders hold {counted(len(examinations), 'case')} of {counted(patients, 'patient')}: the "
            "upper folder, or the one above a date or a session, is taken for the patient"
        )
        findings.append(note("folders in folders, the upper one taken for the patient", text))
    return _dataset(folder, cases, findings)


def _from_list(task: Task, file: Path, follow_links: bool, patterns: Sequence[Pattern]) -> Dataset:
    if patterns:
        raise without_effect(file.name)
    return _dataset(file, read_case_list(task, file, follow_links), [])


def _dataset(folder: Path, cases: list[Case], findings: list[Finding]) -> Dataset:
    cases = sorted(cases, key=lambda case: case.name)
    for name, count in Counter(case.name for case in cases).items():
        if count > 1:
            one, other = [case for case in cases if case.name == name][:2]
            linked = {identity(file) for file in one.files} & {identity(file) for file in other.files} - {None}
            told = "have the same files through links: remove one" if linked else "are two cases of one name"
            text = f"{_place(one)} and {_place(other)} {told}"
            text += "" if linked else f", {name}: rename one, or remove one if they are the same"
            findings.append(error("two cases of one name", text))
    values: dict[str | None, Convention | None] = {}
    for case in cases:
        own = case.task.conventions.get(case.convention)
        if values.setdefault(case.convention, own) != own:
            raise DataError(
                f"{folder} holds several data sets whose {case.convention} give the label values other classes: name "
                "one of them, and make a site of each",
                public="a data folder holds several data sets whose label values mean different classes",
            )
    layouts = Counter(case.layout for case in cases)
    layout = ", ".join(f"{kind}" if len(layouts) == 1 else f"{kind} ({count})" for kind, count in layouts.items())
    return Dataset(folder, layout, cases, tuple(findings))


def _place(case: Case) -> Path | str:
    return next((path.parent for _, path, _ in case.volumes), case.name)


@dataclass(frozen=True)
class _Search:
    """A search for cases: what is looked for, and what is noted on the way."""

    task: Task
    root: Path
    follow_links: bool
    patterns: tuple[Pattern, ...]
    findings: list[Finding]
    unread: list[Path]
    labels: dict[str, list[Path]]
    fitted: set[Pattern]


def _walk(search: _Search, folder: Path, below: int, without: str | None = None) -> Iterator[Case]:
    children = [child for child in children_of(folder) if not child.name.startswith(".")]
    if any(child.name == IMAGES_TR and child.is_dir() for child in children):
        if search.patterns:
            raise without_effect("dataset.json")
        yield from read_images_tr(search.task, folder, search.follow_links, search.findings)
        return
    if is_bids(folder):
        yield from read_bids(search.task, folder, search.follow_links, search.patterns, search.fitted)
        return
    # What lies beside the images of a case may be anything.
    in_case = folder != search.root and any(map(is_nifti, children))
    for child in children:
        if child.name == without and is_apart(search.task, child):
            continue
        if not is_nifti(child) and describe_nothing(child):
            if not in_case:
                search.findings.append(no_case_in(child))
            continue
        if not child.is_dir() or is_nifti(child):
            continue
        if (problem := outside(child, folder, search.follow_links)) is not None:
            search.findings.append(problem)
            continue
        volumes = [file for file in children_of(child) if is_nifti(file)]
        deep = matching(child, search.patterns)
        if not deep and read_case_name(search.task, child.name).gathered:
            deep = sorted(file for file in child.rglob("*") if is_nifti(file) and file not in volumes)
        if (labels := named_labels(search.task, child, volumes)) is not None:
            for name, label in labels.items():
                search.labels.setdefault(name, []).append(label)
            continue
        if volumes or deep:
            search.fitted.update(fitting(child, volumes + deep, search.patterns))
            yield _case(search.task, child, search.root, volumes + deep, search.follow_links, search.patterns)
        elif any(other_format(file) for file in children_of(child)):
            search.unread.append(child)
        elif not in_case and (found := no_case_in(child)) is not None:
            search.findings.append(found)
        # Ends the search even if links that the user allows form a circle.
        if not deep and (below > 0 or (is_group(child.name) and below > -_DEEPEST)):
            yield from _walk(search, child, below - 1)


def _single_case(search: _Search) -> Iterator[Case]:
    """The folder itself, if it is that of one case.

    Raises:
        DataError: it holds the files of several cases.
    """
    folder = search.root
    volumes = [file for file in children_of(folder) if is_nifti(file)]
    if not volumes and not matching(folder, search.patterns):
        return
    place = folder.absolute()
    files = [place / file.name for file in volumes] + matching(place, search.patterns)
    search.fitted.update(fitting(place, files, search.patterns))
    case = _case(search.task, place, place.parent, files, search.follow_links, search.patterns)
    if any(found.kind == TWICE for found in case.findings):
        raise DataError(
            f"{folder} holds the files of several cases, such as {volumes[0].name}: put those of each case into a "
            "folder of its own, or write a list cases.csv",
            public="a data folder holds the files of several cases",
        )
    if case.images:
        yield replace(case, layout=SINGLE)


def _unread_cases(task: Task, root: Path, cases: list[Case], unread: list[Path]) -> Iterator[Case]:
    """Folders with images in other formats alone are cases too, unless their patient's folder holds a case beside them.

    A data set without any image in NIfTI is none.
    """
    patients = {_place(case).relative_to(root).parts[0] for case in cases if isinstance(_place(case), Path)}
    for folder in unread if cases else ():
        if folder.relative_to(root).parts[0] not in patients:
            yield _case(task, folder, root, [], follow_links=False)


def _case(
    task: Task, folder: Path, root: Path, volumes: list[Path], follow_links: bool, patterns: Sequence[Pattern] = ()
) -> Case:
    """A folder with NIfTI files in it; one in a patient's folder is an examination of that patient."""
    told = read_case_name(task, folder.name)
    name, patient, layout, doubt = folder.name, told.patient, told.layout, ""
    above = _folders_above(task, folder, root) if layout == PLAIN else []
    if above:
        name, layout = "_".join([*above, folder.name]), NESTED
        patient, doubt = patient_of(above, folder)
    elif layout == PLAIN:
        doubt = date_as_patient(folder.name, folder)
    files, findings = sort_files(task, folder, volumes, patterns, follow_links, told.label_words)
    label = files.pop(LABEL, None)
    of_label = read_label_name(task, folder.name, label)
    return Case(
        name,
        files,
        label,
        patient=patient,
        institution=told.institution,
        convention=of_label.convention,
        layout=layout,
        findings=tuple(findings),
        label_doubt=of_label.label_doubt,
        label_choices=of_label.label_choices,
        patient_doubt=doubt,
        disease=of_label.disease,
        task=task,
    )


def _folders_above(task: Task, folder: Path, root: Path) -> list[str]:
    """The folders between the data set and a case whose names may be the patient's, the uppermost first."""
    between = folder.relative_to(root).parents
    above = [root / place for place in reversed(between) if place.parts]
    return [place.name for place in above if not _says_nothing(task, place.name, place, root)]


def _says_nothing(task: Task, name: str, folder: Path, root: Path) -> bool:
    """Whether a folder between the data set and its cases is a group of patients, and not one patient's."""
    if is_group(name) or read_case_name(task, name).layout != PLAIN:
        return True
    # As an unpacked download has it.
    return folder.parent == root and sole_folder(root) is not None
