"""The data of one site: found, checked, split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Literal

from fedmepd.config import FUSION_SITE, Settings
from fedmepd.data.cases import Case
from fedmepd.data.file_kinds import Pattern
from fedmepd.data.findings import WARNING, Finding, count_kinds, error, note, refuse, refuse_for_a_run
from fedmepd.data.fingerprints import fingerprints
from fedmepd.data.inspection import Inspection, inspect_cases
from fedmepd.data.layouts import Dataset, find_dataset
from fedmepd.data.manifest import load_manifest, pinned_content
from fedmepd.data.ownership import Found, find_fusion_data, find_site_data, fusion_cases, own_cases, shared_cases
from fedmepd.data.phantom import is_phantom
from fedmepd.data.splits import Split, some_cases, sort_into_parts, split_cases
from fedmepd.data.training_images import ImageMeasures
from fedmepd.errors import DataError, FedMEPDError
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.find import find_task
from fedmepd.tasks.labels import known_regions
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted


@dataclass(frozen=True)
class SiteData:
    """The cases of a site for training, validation and test.

    Args:
        name: the site's name; ``fusion`` for the fusion site.
        modalities: those that any of its labelled cases has, in the task's order.
        train: cases to train on.
        validation: cases to select the best model on.
        test: cases to report on.
        source: whether the cases are phantoms or the site's own.
        cache: folder for prepared cases.
        unlabelled: cases for inference only.
        task: that the cases are of.
        images: what the images of the training cases look like.
    """

    name: str
    modalities: tuple[str, ...]
    train: list[Case]
    validation: list[Case]
    test: list[Case]
    source: Literal["phantom", "folder"]
    cache: Path
    unlabelled: list[Case] = field(default_factory=list)
    task: Task = field(kw_only=True, repr=False)
    images: ImageMeasures = field(default_factory=ImageMeasures)

    @property
    def phantoms(self) -> bool:
        """Whether all that is trained on are phantoms, also those that somebody has written into a folder."""
        return self.source == "phantom" or (bool(self.train) and all(map(is_phantom, self.train)))

    def counts(self) -> dict[str, int]:
        """Returns the number of labelled cases of each part."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def open_site_data(
    name: str,
    settings: Settings,
    site_settings: SiteSettings,
    log: Callable[[str], None] = lambda line: None,
) -> SiteData:
    """Finds, checks and splits the cases of a site.

    They are in the site's sub-folder of the data folder, or in the data folder itself if a hospital has only its own
    cases. Cases for fusion training are none of them (:mod:`fedmepd.data.ownership`). Without a data folder the site
    uses phantoms, if the job allows that. A manifest decides which patients train and which test; without one the job's
    shares and seed do.

    Args:
        name: the site's name.
        settings: the job's settings.
        site_settings: the machine's.
        log: receives lines about warnings, and about cases that training does not use.

    Returns:
        the cases; none for the job's fusion site if it has no others.

    Raises:
        DataError: there is no data folder, no labelled case in it, a case that cannot be used, or a file that has
            changed since the manifest was written.
    """
    found = find_site_data(name, settings, site_settings)
    inspection = _inspect_good(found[0], site_settings)
    if settings.fusion.site == name and not any(case.label for case in own_cases(inspection.cases)):
        log("no labelled case of its own: it takes part as the fusion site alone")
        task = find_task(settings.task)
        return SiteData(name, (), [], [], [], found[1], site_settings.prepared, task=task)
    return _divide(name, found, inspection.only(own_cases(inspection.cases)), settings, site_settings, log)


def open_copy(name: str, settings: Settings, site_settings: SiteSettings) -> SiteData:
    """Opens a site's data in another process, which has a copy of them or the same disk.

    Args:
        name: the site's name.
        settings: the job's settings.
        site_settings: of the machine with the other process.

    Raises:
        DataError: as of :func:`open_site_data`; or the data folder has no sub-folder of this name.
    """
    data = site_settings.data
    if data is not None and not (data / name).is_dir():
        # Without the sub-folder the folder's own cases would be taken for the site's.
        missing = f"has no sub-folder {name}: expected one with the cases of this site"
        raise DataError(f"{data} {missing}", f"the server's data folder {missing}")
    return open_site_data(name, settings, site_settings)


def open_fusion_data(
    site: str,
    settings: Settings,
    site_settings: SiteSettings,
    log: Callable[[str], None] = lambda line: None,
) -> SiteData:
    """Finds, checks and splits the fusion site's cases.

    Args:
        site: the site that has them; empty: the server.
        settings, site_settings, log: as of :func:`open_site_data`.

    Raises:
        DataError: as of :func:`open_site_data`; or it is not clear which of the site's cases they are, or a patient is
            among the site's own cases too.
    """
    found = find_fusion_data(site, settings, site_settings)
    inspection = _inspect_good(found[0], site_settings)
    chosen = inspection.only(fusion_cases(inspection.cases))
    if site and found[1] == "folder":
        own = inspection
        dataset, _ = find_site_data(site, settings, site_settings)
        if dataset.folder != found[0].folder:
            own = _inspect_good(dataset, site_settings)
        refuse(shared_cases(own.only(own_cases(own.cases)), chosen))
    data = _divide(FUSION_SITE, found, chosen, settings, site_settings, log)
    share = settings.data.fusion_share
    if settings.data.fusion_cases is not None:
        if settings.data.fusion_cases > len(data.train):
            raise DataError(
                f"data.fusion_cases is {settings.data.fusion_cases}, but the fusion site has "
                f"{counted(len(data.train), 'case')} for training: set it to that number or less, or leave it out to "
                "use all"
            )
        share = settings.data.fusion_cases / len(data.train)
    return replace(data, train=some_cases(data.train, share, settings.split_seed()))


def _inspect_good(dataset: Dataset, site_settings: SiteSettings) -> Inspection:
    if dataset.parts is not None:
        # Before anything else reads the files: a link may no longer lead to the manifest's file.
        refuse(changed_files(dataset, site_settings.cache))
    inspection = inspect_cases(dataset.cases, cache=site_settings.cache, known=dataset.findings)
    refuse_for_a_run(inspection.findings)
    return inspection


def _divide(
    name: str,
    found: Found,
    inspection: Inspection,
    settings: Settings,
    site_settings: SiteSettings,
    log: Callable[[str], None],
) -> SiteData:
    """Returns the cases of a participant, divided into parts."""
    (dataset, source), task = found, find_task(settings.task)
    labelled = [case for case in inspection.cases if case.label is not None]
    unlabelled = [case for case in inspection.cases if case.label is None]
    if not labelled:
        if dataset.cases and not inspection.cases:
            other = settings.fusion.site or "the server"
            raise DataError(
                f"all cases of {dataset.folder} are for fusion training, but the fusion site of the job is {other}: "
                f"set fusion.site of the job to {name}, or choose fewer with `fedmepd data init --fusion WHICH`",
                public=f"{name} has cases for fusion training alone",
            )
        raise DataError(
            f"{dataset.folder} has no case with a label: expected a segmentation beside the images of those to train "
            f"on, such as {task.file_name('001', None)}",
            public=f"no case of {name} has a label",
        )
    _check_told(name, labelled)
    if site_settings.privacy.wanted(settings.privacy) and source == "folder" and not site_settings.shares_folder:
        require_named_patients(name, dataset, labelled)
    for kind, count in count_kinds(inspection.findings, WARNING).items():
        log(f"{kind} ({count})")
    if unlabelled:
        log(f"cases with a label: {len(labelled)}; without one, so left out of training and tests: {len(unlabelled)}")
    split = split_labelled(labelled, dataset, settings, name)
    return SiteData(
        name=name,
        modalities=task.subset({modality for case in labelled for modality in case.modalities}),
        train=split.train,
        validation=split.validation,
        test=split.test,
        source=source,
        cache=site_settings.prepared,
        unlabelled=unlabelled,
        task=task,
        images=inspection.only(split.train).measures(),
    )


def _check_told(name: str, labelled: list[Case]) -> None:
    """Checks that a participant's labels tell what it needs: a site any region, the fusion site all classes."""
    for case in labelled:
        if name == FUSION_SITE and case.label_groups:
            raise DataError(
                f"{case.label}: fusion training needs labels that tell all of {', '.join(case.task.classes[1:])}: take "
                "other cases, or let them be a site's own",
                public="labels for fusion training do not tell all classes",
            )
        if not known_regions(case.task.regions, case.label_groups):
            raise DataError(
                f"{case.label} tells none of the regions {', '.join(case.task.regions)}, so nothing could be tested: "
                "describe its values otherwise, or leave it out",
                public=f"labels of {name} tell no region of the task",
            )


def require_named_patients(name: str, dataset: Dataset, labelled: list[Case]) -> None:
    """Checks that a hospital has said whose examinations its cases are: differential privacy is promised to patients.

    Args:
        name: of the participant.
        dataset: its data set.
        labelled: its cases with labels; made-up ones are nobody's.

    Raises:
        DataError: its patients are known from the names of folders alone.
    """
    if dataset.parts is None and not all(map(is_phantom, labelled)):
        missing = "with differential privacy, the patients have to be written down, and not guessed from names"
        raise DataError(
            f"{missing}: two examinations of one patient under two names would count as two patients. "
            f"`fedmepd data init {quote(str(dataset.folder))}` writes them down; look whether its number of patients "
            "is right, and if not, say who they are in a list cases.csv with a column patient first",
            public=f"{missing}: {name} has no manifest of `fedmepd data init`",
        )


def split_labelled(labelled: list[Case], dataset: Dataset, settings: Settings, name: str) -> Split:
    """Returns labelled cases by part: as the data set's manifest says, without one by the job's shares and seed.

    Args:
        labelled: of the data set.
        dataset: with the manifest's parts, if there is one.
        settings: of the job.
        name: of the participant that they belong to.
    """
    if dataset.parts is None:
        return split_cases(labelled, settings.data, settings.split_seed(), name)
    return sort_into_parts(labelled, {case.patient: dataset.parts[case.name] for case in labelled})


def inspect_dataset(
    dataset: Dataset,
    cache: Path | None,
    *,
    labels: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Inspection:
    """Reads all files of a data set and says what is wrong with them, the comparison with its manifest included.

    Args:
        dataset: the data set.
        cache: the site's cache folder; None: keep nothing.
        labels: the convention of the labels' values if the user gives it.
        progress: called with the number of cases read so far, and of all.

    Raises:
        DataError: the cache cannot be written.
    """
    known = list(dataset.findings)
    if dataset.parts is not None:
        known += [*changed_files(dataset, cache), *unlisted_cases(dataset)]
    return inspect_cases(dataset.cases, labels=labels, cache=cache, progress=progress, known=known)


def unlisted_cases(dataset: Dataset) -> list[Finding]:
    """Finds cases in the folder of a data set that its manifest does not have: a site does not use them.

    Args:
        dataset: with a manifest.
    """
    pinned = {file.absolute() for file in pinned_content(dataset.folder)}
    if not dataset.cases:
        return []
    task = dataset.cases[0].task
    patterns = [Pattern.read(task, text) for text in load_manifest(dataset.folder).patterns]
    try:
        there = find_dataset(
            task, dataset.folder, manifest=False, follow_links=True, without=FUSION_SITE, patterns=patterns
        )
    except DataError:
        # What is there beside the manifest's files need not be a data set.
        return []
    return [
        note(
            "case that the manifest does not have",
            f"case {case.name} in {dataset.folder} is not in its manifest, and is not used: `fedmepd data init` takes "
            "it in",
        )
        for case in there.cases
        if case.images and pinned.isdisjoint(file.absolute() for file in case.files)
    ]


def changed_files(dataset: Dataset, cache: Path | None) -> list[Finding]:
    """Compares the files of a data set with its manifest: an error for each file that is missing or has changed.

    Args:
        dataset: with a manifest.
        cache: remembers the content of files; None: nothing does.

    Raises:
        DataError: the cache cannot be written.
    """
    pinned = pinned_content(dataset.folder)
    there = [file for file in pinned if file.is_file()]
    try:
        found = fingerprints(there, cache and cache / "prepared" / "fingerprints.json")
    except (OSError, FedMEPDError) as problem:
        raise DataError(
            f"the files of {dataset.folder} cannot be compared with its manifest: {problem}",
            public="the site's files cannot be compared with its manifest",
        ) from problem
    findings = []
    for file, digest in pinned.items():
        if file not in found:
            text = f"{file} is missing: restore it, or run `fedmepd data init` again to go on without"
            findings.append(error("file of the manifest that is missing", text))
        elif found[file] != digest:
            text = f"{file} has changed: restore it, or run `fedmepd data init` again to take it as it is"
            findings.append(error("file that has changed since the manifest was written", text))
    return findings
