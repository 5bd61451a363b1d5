"""A data set that a site's training reads: a manifest beside a hospital's cases, or folders of links to them."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedmepd.data.cases import LABEL, Case
from fedmepd.data.file_kinds import Pattern
from fedmepd.data.fingerprints import fingerprints
from fedmepd.data.fusion_choice import FusionChoice, require_full
from fedmepd.data.manifest import (
    FILE_NAME,
    Manifest,
    Part,
    load_manifest,
    make_manifest,
    pinned_content,
    write_manifest,
)
from fedmepd.data.splits import Shares, split_patients
from fedmepd.data.volumes import SUFFIXES
from fedmepd.errors import DataError, is_of_the_machine, remedy
from fedmepd.tasks.task import Task


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
    cache: Path | None,
    fusion: FusionChoice | None = None,
    patterns: Iterable[Pattern] = (),
) -> SiteFolder:
    """Decides what a site's data set is to hold.

    Patients keep the part that an older manifest there gave them. The cases for fusion training and the site's own are
    divided into parts each by themselves.

    Args:
        task: that the cases are of.
        folder: for the data set.
        cases: without errors, with known conventions.
        in_place: whether the cases' files are below ``folder`` already.
        shares: of the patients for training and validation.
        seed, name: decide which patients go where.
        cache: remembers the content of files; None: nothing does.
        fusion: says which patients are for fusion training; None: those of the older manifest.
        patterns: what the user has said of the names of files; the manifest keeps it.

    Raises:
        DataError: a file cannot be read, or a patient cannot be used for fusion training.
    """
    old = load_manifest(folder).cases if (folder / FILE_NAME).is_file() else []
    kept: dict[str, Part] = {entry.patient: entry.part for entry in old if entry.part is not None}
    earlier = {entry.patient: entry.fusion for entry in old}
    chosen = (
        fusion.among(cases, earlier, seed) if fusion else {case.patient for case in cases if earlier.get(case.patient)}
    )
    require_full(cases, chosen)
    cases = [replace(case, for_fusion=case.patient in chosen) for case in cases]
    labelled = [case for case in cases if case.label is not None]
    by_patient: dict[str, Part] = {}
    for whose in (False, True):
        patients = (case.patient for case in labelled if case.for_fusion == whose)
        by_patient |= split_patients(patients, shares, seed, name, kept)
    digests = content_of(cases, cache)
    placed, files = list(cases), {}
    if not in_place:
        placed, files = _place(cases, folder)
        digests = {target: digests[source] for target, source in files.items()}
    parts = {case.name: by_patient[case.patient] for case in labelled}
    return SiteFolder(folder, placed, files, make_manifest(task, folder, placed, parts, digests, map(str, patterns)))


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


def content_of(cases: Sequence[Case], cache: Path | None) -> dict[Path, str]:
    """Returns the SHA-256 of all files of the cases.

    Raises:
        DataError: one of them cannot be read.
    """
    try:
        memory = cache and cache / "prepared" / "fingerprints.json"
        return fingerprints([path for case in cases for path in case.files], memory)
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
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        else:
            temporary.symlink_to(source.resolve())
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        links = "where links are not possible, say --copy"
        advice = remedy(error) if copy or is_of_the_machine(error) else links
        raise DataError(f"{target} cannot be written: {error.strerror or error}; {advice}") from error


def _remove(files: set[Path], folder: Path) -> None:
    """Removes what an older data set held and this one does not."""
    for file in files:
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            if file.parent != folder:
                file.parent.rmdir()
