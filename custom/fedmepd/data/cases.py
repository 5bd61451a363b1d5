"""A case: the files of one examination."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedmepd.data.findings import Finding
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
        channels: which volume of its file a modality is, where one file holds several; from 0.
        patient: whose examination it is; empty for the case's own name.
        institution: where it was made, if the name tells.
        convention: how the label's values are to be read, a name of :attr:`Task.conventions`; None: not known.
        layout: the layout that it was found in.
        findings: what was wrong when it was looked for.
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
    task: Task = field(kw_only=True, repr=False)

    def __post_init__(self):
        if not self.patient:
            object.__setattr__(self, "patient", self.name)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The case's modalities in the task's order."""
        return tuple(modality for modality in self.task.modalities if modality in self.images)

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
