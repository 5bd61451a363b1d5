"""A case: the files of one examination."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedmepd.modalities import BRATS


@dataclass(frozen=True)
class Case:
    """The files of one examination.

    Args:
        name: the case's name; an identifier, so it never leaves the site.
        images: the image file of every modality that the case has.
        label: the segmentation, or None.
    """

    name: str
    images: dict[str, Path]
    label: Path | None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The case's modalities in the task's order."""
        return tuple(modality for modality in BRATS.modalities if modality in self.images)

    @property
    def files(self) -> tuple[Path, ...]:
        """The images in the task's order, then the label if there is one."""
        images = tuple(self.images[modality] for modality in self.modalities)
        return images if self.label is None else (*images, self.label)
