"""A case: the files of one examination."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedmepd.data.findings import Finding
from fedmepd.tasks.labels import Groups
from fedmepd.tasks.task import Task

LABEL = "label"

# A folder with a sub-folder per case, and a list; the layouts of public data sets are named by their tasks.
PLAIN = "a folder per case"


@dataclass(frozen=True)
class Case:
    """The files of one examination.

    Args:
        name: the case's name; an identifier, so it never leaves the site.
        images: the image file of every modality that the case has.
        label: the segmentation, or None.
        channels: index of a modality's volume in its file, from 0, if the file holds several.
        patient: the patient; empty if the case's name is also the patient's.
        institution: where the images were made, if the name contains it.
        convention: meaning of the label's values, a name of :attr:`Task.conventions`; None: unknown.
        layout: the layout that it was found in.
        findings: problems found while searching for the case.
        label_choices: conventions of which the label may be, where there is a doubt; empty: any.
        label_doubt: why the values of its label cannot be read unless the user says how; empty: they can.
        patient_doubt: why the patient is unknown; empty: the patient is known.
        disease: what the case has, if its name says that it is not the task's disease.
        for_fusion: whether a manifest says that it is for fusion training, and not for the site's own.
        task: that its images and label are of.
    """

    name: str
    images: dict[str, Path]
    label: Path | None
    channels: dict[str, int] = field(default_factory=dict)
    patient: str = ""
    institution: str | None = None
    convention: str | None = None
    layout: str = PLAIN
    findings: tuple[Finding, ...] = ()
    label_doubt: str = ""
    label_choices: tuple[str, ...] = ()
    patient_doubt: str = ""
    disease: str = ""
    for_fusion: bool = False
    task: Task = field(kw_only=True, repr=False)

    def __post_init__(self):
        if not self.patient:
            object.__setattr__(self, "patient", self.name)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The case's modalities in the task's order."""
        return tuple(modality for modality in self.task.modalities if modality in self.images)

    @property
    def label_groups(self) -> Groups:
        """Classes that its label does not tell apart; empty if it tells all of them, or there is no label."""
        known = self.label is not None and self.convention is not None
        return self.task.conventions[self.convention].groups if known else ()

    @property
    def volumes(self) -> Iterator[tuple[str, Path, int | None]]:
        """Kind, file and channel of the images in the task's order, then of the label if there is one."""
        for modality in self.modalities:
            yield modality, self.images[modality], self.channels.get(modality)
        if self.label is not None:
            yield LABEL, self.label, None

    @property
    def files(self) -> tuple[Path, ...]:
        """The images in the task's order, then the label if there is one; each file once."""
        return tuple(dict.fromkeys(path for _, path, _ in self.volumes))
