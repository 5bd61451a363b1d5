"""Modalities, classes and regions: the one place that knows what a data set's images and labels mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fedmepd.config import FUSION_SITE
from fedmepd.errors import FedMEPDError


@dataclass(frozen=True)
class Description:
    """What the images and labels of a task are called, and in which order they stand.

    Args:
        name: name of the task.
        modalities: the modalities' names in the order in which feature maps are stacked.
        classes: the classes' names; class 0 is the background.
        conventions: by name, the class of each value that a label file of that convention may hold.
        regions: the evaluated regions, each with the classes that it joins.
    """

    name: str
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    conventions: dict[str, dict[int, int]]
    regions: dict[str, tuple[int, ...]]

    def label_of_class(self, convention: str) -> tuple[int, ...]:
        """Returns the value that a label file of a convention holds for each class."""
        labels = {number: label for label, number in self.conventions[convention].items()}
        return tuple(labels[number] for number in range(len(self.classes)))

    def subset(self, names: Iterable[str]) -> tuple[str, ...]:
        """Returns ``names`` in the task's order, each once.

        Raises:
            FedMEPDError: a name is unknown, or there is none at all.
        """
        names = [names] if isinstance(names, str) else list(names)
        unknown = [name for name in names if name not in self.modalities]
        if unknown:
            raise FedMEPDError(
                f"unknown modality {', '.join(map(repr, unknown))}: expected one of {', '.join(self.modalities)}"
            )
        if not names:
            raise FedMEPDError(f"no modality given: expected at least one of {', '.join(self.modalities)}")
        return tuple(name for name in self.modalities if name in names)


BRATS = Description(
    name="BraTS",
    modalities=("FLAIR", "T1ce", "T1", "T2"),
    classes=("background", "NCR/NET", "ED", "ET"),
    conventions={
        # BraTS until 2021.
        "brats": {0: 0, 1: 1, 2: 2, 4: 3},
        # BraTS from 2023 on; the same but for ET.
        "brats2023": {0: 0, 1: 1, 2: 2, 3: 3},
        # Medical Segmentation Decathlon, Task01: 1 oedema, 2 non-enhancing tumour, 3 enhancing tumour.
        "msd": {0: 0, 1: 2, 2: 1, 3: 3},
    },
    regions={"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)},
)

# The modality subsets of sites 1 to 8 in the paper's protocol (algorithm section 1, table 1 of the paper).
PROTOCOL_SUBSETS: tuple[tuple[str, ...], ...] = (
    ("FLAIR", "T1ce", "T1"),
    ("FLAIR", "T1", "T2"),
    ("FLAIR", "T1ce"),
    ("T1", "T2"),
    ("T1ce",),
    ("T2",),
    BRATS.modalities,
    BRATS.modalities,
)

# The sites of the paper's protocol by name.
PROTOCOL_SITES: dict[str, tuple[str, ...]] = {
    **{f"site-{number}": subset for number, subset in enumerate(PROTOCOL_SUBSETS, 1)},
    FUSION_SITE: BRATS.modalities,
}
