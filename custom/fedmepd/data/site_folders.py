"""Writing data sets that a site's training reads: a manifest beside a hospital's cases, or folders of links to them."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedmepd.data.cases import LABEL, Case
from fedmepd.data.distribution import SitePlan, deal, read_site_lists
from fedmepd.data.fingerprints import fingerprints
from fedmepd.data.inspection import Inspection, inspect_cases, tumour_millilitres
from fedmepd.data.layouts import Dataset, find_dataset
from fedmepd.data.manifest import (
    FILE_NAME,
    Manifest,
    Part,
    load_manifest,
    make_manifest,
    pinned_content,
    read_manifest,
    write_manifest,
)
from fedmepd.data.splits import Shares, split_patients
from fedmepd.data.volumes import SUFFIXES
from fedmepd.errors import DataError
from fedmepd.storage import write_json
from fedmepd.tasks.task import Task

RECORD = "split.json"


@dataclass(frozen=True)
class Source:
    """A data set that was looked through, and may be written.

    Args:
        dataset: what was found.
        inspection: of all cases.
        left_out: number of faulty cases that the user allowed to leave out.
    """

    dataset: Dataset
    inspection: Inspection
    left_out: int


def open_source(
    task: Task,
    folder: Path,
    *,
    labels: str | None,
    follow_links: bool,
    skip_faulty: bool,
    cache: Path,
    earlier: Path | None = None,
    found: Callable[[Dataset], None] = lambda dataset: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Source:
    """Finds and checks the cases of a folder, whether it has a manifest or not.

    Args:
        task: that the cases are of.
        folder: the folder, or a list.
        labels: convention of the labels, if the user says it.
        follow_links: whether links may lead out of a case's folder.
        skip_faulty: leave out cases with errors.
        cache: see :func:`~fedmepd.data.inspection.inspect_cases`.
        earlier: where a manifest may be that knows the convention of cases whose layout does not tell it.
        found: called with the data set before its images are read.
        progress: called with the number of cases read so far, and of all.

    Raises:
        DataError: there is no case, or, unless they are left out, a case has an error.
    """
    dataset = find_dataset(task, folder, manifest=False, follow_links=follow_links)
    if not dataset.cases:
        raise no_case(task, folder)
    found(dataset)
    known = _known(task, earlier)
    cases = [replace(case, convention=case.convention or known.get(case.name)) for case in dataset.cases]
    inspection = inspect_cases(cases, labels=labels, cache=cache, progress=progress, known=dataset.findings)
    usable = inspection.without_faulty() if skip_faulty else inspection
    usable.require_good()
    if not usable.cases:
        raise DataError(f"all cases of {folder} have errors: see `fedmepd data check {folder} --details`")
    return Source(dataset, usable, len(inspection.cases) - len(usable.cases))


def no_case(task: Task, folder: Path) -> DataError:
    """The error of a folder without any case."""
    raw = ""
    if folder.is_dir() and next(folder.rglob("*.[dD][cC][mM]"), None) is not None:
        raw = ". It holds DICOM files: convert them to NIfTI, register and skull-strip them first"
    decathlon = "the Decathlon's folders of images and labels, " if task.decathlon else ""
    return DataError(
        f"no case in {folder}: expected a folder per case with NIfTI files in it, such as "
        f"001/{task.file_name('001', task.modalities[0])}, {decathlon}or a list cases.csv{raw}"
    )


def _known(task: Task, folder: Path | None) -> dict[str, str | None]:
    """The conventions that an earlier manifest of the folder holds."""
    if folder is None or not (folder / FILE_NAME).is_file():
        return {}
    return {case.name: case.convention for case in read_manifest(task, folder)[0]}


@dataclass(frozen=True)
class SiteFolder:
    """A site's data set as it is to be.

    Args:
        folder: where.
        cases: with the files that they will have there.
        files: of every file there, where its content comes from; empty where the cases lie there already.
        manifest: what describes them.
    """

    folder: Path
    cases: list[Case]
    files: dict[Path, Path]
    manifest: Manifest


def plan_site(
    task: Task,
    folder: Path,
    cases: Sequence[Case],
    *,
    in_place: bool,
    shares: Shares,
    seed: int,
    name: str,
    cache: Path,
) -> SiteFolder:
    """Decides what a site's data set is to hold; patients keep the part that an older manifest there gave them.

    Args:
        task: that the cases are of.
        folder: for the data set.
        cases: without errors, with known conventions.
        in_place: whether the cases' files are below ``folder`` already.
        shares: of the patients for training and validation.
        seed, name: decide which patients go where.
        cache: remembers the content of files.

    Raises:
        DataError: a file cannot be read.
    """
    old = load_manifest(folder).cases if (folder / FILE_NAME).is_file() else []
    kept: dict[str, Part] = {entry.patient: entry.part for entry in old if entry.part is not None}
    labelled = [case for case in cases if case.label is not None]
    by_patient = split_patients((case.patient for case in labelled), shares, seed, name, kept)
    digests = content_of(cases, cache)
    placed, files = list(cases), {}
    if not in_place:
        placed, files = _place(cases, folder)
        digests = {target: digests[source] for target, source in files.items()}
    parts = {case.name: by_patient[case.patient] for case in labelled}
    return SiteFolder(folder, placed, files, make_manifest(task, folder, placed, parts, digests))


def write_site(site: SiteFolder, *, copy: bool = False) -> bool:
    """Writes a data set; returns whether that changed anything.

    Args:
        site: what to write.
        copy: copy files instead of linking to them.

    Raises:
        DataError: a file cannot be brought; an older data set there is still valid.
        FedMEPDError: the manifest cannot be written.
    """
    old = list(pinned_content(site.folder)) if (site.folder / FILE_NAME).is_file() else []
    changed = False
    for target, source in site.files.items():
        if not _is_there(source, target, copy):
            _bring(source, target, copy)
            changed = True
    changed |= write_manifest(site.folder, site.manifest)
    if site.files:
        _remove(set(old) - set(site.files), site.folder)
    return changed


def content_of(cases: Sequence[Case], cache: Path) -> dict[Path, str]:
    """Returns the SHA-256 of all files of the cases.

    Raises:
        DataError: one of them cannot be read.
    """
    try:
        return fingerprints([path for case in cases for path in case.files], cache / "prepared" / "fingerprints.json")
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def _place(cases: Sequence[Case], folder: Path) -> tuple[list[Case], dict[Path, Path]]:
    """Returns the cases with their files below ``folder``, a folder each, and where each file comes from."""
    placed, sources = [], {}
    for case in cases:
        targets: dict[Path, Path] = {}
        for kind, path, channel in case.volumes:
            # A file of several modalities is one file here too.
            name = case.task.file_name(case.name, None if kind == LABEL else kind).removesuffix(".nii.gz")
            name = case.name if channel is not None else name
            targets.setdefault(path, folder / case.name / f"{name}{_suffix(path)}")
        sources |= {target: source for source, target in targets.items()}
        images = {modality: targets[path] for modality, path in case.images.items()}
        placed.append(replace(case, images=images, label=None if case.label is None else targets[case.label]))
    return placed, sources


def _suffix(path: Path) -> str:
    return next(suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(suffix))


def _is_there(source: Path, target: Path, copy: bool) -> bool:
    if not target.is_file():
        return False
    if target.is_symlink() or not copy:
        return not copy and target.resolve() == source.resolve()
    return filecmp.cmp(source, target, shallow=False)


def _bring(source: Path, target: Path, copy: bool) -> None:
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if copy:
            shutil.copyfile(source, temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        else:
            temporary.symlink_to(source.resolve())
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        advice = "" if copy else "; where links are not possible, say --copy"
        raise DataError(f"{target} cannot be written: {error.strerror or error}{advice}") from error


def _remove(files: set[Path], folder: Path) -> None:
    """Removes what an older data set held and this one does not."""
    for file in files:
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            if file.parent != folder:
                file.parent.rmdir()


@dataclass(frozen=True)
class MadeSite:
    """A site that a split made.

    Args:
        plan: what was planned.
        manifest: of its data set.
        tumour_ml: volume of each case's tumour.
    """

    plan: SitePlan
    manifest: Manifest
    tumour_ml: list[float]


def split_source(
    task: Task,
    source: Source,
    out: Path,
    *,
    plan: Sequence[SitePlan] | None,
    lists: Path | None,
    copy: bool,
    shares: Shares,
    seed: int,
    cache: Path,
    how: Mapping[str, object],
) -> tuple[list[MadeSite], bool]:
    """Makes a federation's sites of one data set, a folder each.

    Args:
        task: of the data set.
        source: the data set.
        out: the folder to write; the same split again changes nothing, another one is refused.
        plan: the sites to deal cases to; None with ``lists``.
        lists: folder of published lists.
        copy: copy files instead of linking to them.
        shares: of the patients for training and validation, at every site.
        seed: of the dealing.
        cache: remembers the content of files.
        how: what to write down of the way it was made.

    Returns:
        the sites, and whether anything was written.

    Raises:
        DataError: there are too few cases, ``out`` holds something else, or cannot be written; nothing is left there.
    """
    inspection = source.inspection
    labelled = [case for case in inspection.cases if case.label is not None]
    facts = {case.name: found for case, found in zip(inspection.cases, inspection.facts, strict=True)}
    volumes = {case.name: tumour_millilitres(case, facts[case.name]) for case in labelled}
    if lists is not None:
        plan, dealt = read_site_lists(task, lists, labelled)
    else:
        dealt = deal(labelled, volumes, plan or [], seed)
    new = not out.exists()
    target = out.with_name(f".{out.name}.{uuid.uuid4().hex}.part") if new else out
    folders, made = [], []
    for site in plan:
        cases = [_reduced(case, site.modalities) for case in dealt[site.name]]
        folder = plan_site(
            task, target / site.name, cases, in_place=False, shares=shares, seed=seed, name=site.name, cache=cache
        )
        folders.append(folder)
        made.append(MadeSite(site, folder.manifest, [volumes[case.name] for case in cases]))
    if not new:
        _check_same(out, folders)
    try:
        changed = [write_site(folder, copy=copy) for folder in folders]
        if new:
            record = {"layout": source.dataset.layout, **how, "sites": {site.name: site.cases for site in plan}}
            write_json(target / RECORD, record)
            os.rename(target, out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        if new:
            shutil.rmtree(target, ignore_errors=True)
    return made, any(changed)


def _reduced(case: Case, modalities: Sequence[str]) -> Case:
    """The case as a site with these modalities has it."""
    channels = {name: number for name, number in case.channels.items() if name in modalities}
    return replace(case, images={name: case.images[name] for name in modalities}, channels=channels)


def _check_same(out: Path, folders: Sequence[SiteFolder]) -> None:
    there = {path for path in out.iterdir() if (path / FILE_NAME).is_file()} if out.is_dir() else set()
    same = there == {folder.folder for folder in folders}
    if not same or any(load_manifest(folder.folder) != folder.manifest for folder in folders):
        raise DataError(f"{out} is there already and is no such split: remove it, or choose another folder")
