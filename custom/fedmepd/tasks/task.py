"""What a task is: the images that it segments, the classes that it tells apart, and the rules by which it is scored."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NoReturn, get_args

from fedmepd.closest import did_you_mean, one_of
from fedmepd.errors import FedMEPDError, SettingsError
from fedmepd.tasks.labels import IGNORE, Convention
from fedmepd.tasks.rules import Foreground, Intensity, LesionRules

# The layout of the cases that ``fedmepd data phantom`` makes, whose voxels are large so that they train fast.
MADE_UP = "phantoms"


@dataclass(frozen=True)
class CaseNames:
    """How a public data set names its cases.

    Args:
        layout: the data set, in words; ``{group}`` stands for a group of the pattern.
        pattern: regular expression of a whole name, in capital or small letters; its groups ``patient`` and
            ``institution`` say whose examination it is and where it was made. Without them: the case is its own
            patient, and the place is not known.
        convention: of the data set's labels; None if they are not the task's.
        other_classes: what its labels are if they are not the task's, in words; such a label is refused.
        other_disease: what the cases have if it is not the task's disease but the labels have the same classes; such a
            case is warned about.
        choices: conventions that its labels may be of, where the name does not tell which; the user is asked.
        gathered: whether each of a case's images lies in a folder of its own.
        label_words: what the data set calls its labels, beside the task's words, in small letters.
    """

    layout: str
    pattern: str
    convention: str | None
    other_classes: str = ""
    other_disease: str = ""
    choices: tuple[str, ...] = ()
    gathered: bool = False
    label_words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Doubt:
    """Words beside a modality's own in the name of a file, with which the image may be of another modality.

    Args:
        modality: the modality that the name says.
        words: the words, in small letters.
        other: the modality that it may be.
        beginnings: of further such words, in small letters.
    """

    modality: str
    words: tuple[str, ...]
    other: str
    beginnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decathlon:
    """The Medical Segmentation Decathlon's data set of the task, with all modalities of a case in one file.

    Args:
        layout: the data set, in words.
        case: regular expression of a case's whole name, in capital or small letters. Only such cases are read without a
            ``dataset.json``.
        channels: modality of each volume of these cases.
        convention: of their labels.
    """

    layout: str
    case: str
    channels: tuple[str, ...]
    convention: str


@dataclass(frozen=True)
class SmallClass:
    """The rule by which a class of which there is too little in all becomes another.

    Args:
        number: the class.
        becomes: the class that it becomes.
    """

    number: int
    becomes: int


# In the names of regions, beside their own words.
_BARE_WORDS = {"tumor", "tumour", "region"}


@dataclass(frozen=True)
class Task:
    """A task: everything that code for any task has to be told about one of them.

    A task is made once, in a file of :mod:`fedmepd.tasks` of its name, and handed to whatever needs it.

    >>> from fedmepd.tasks.find import find_task
    >>> find_task("brats").subset(["T2", "FLAIR"])
    ('FLAIR', 'T2')

    Args:
        name: an identifier; that of the task's file.
        title: what a model of the task does, as a heading.
        subject: what is segmented, in what images.
        modalities: in the order in which feature maps are stacked.
        words: of each modality, the words of file names that stand for it, in small letters; two words of a name that
            stand beside one another count as one.
        label_words: the words that stand for a label.
        classes: class 0 is the background.
        conventions: of label values, by name.
        default_convention: the one in which segmentations are written, and in which labels are read whose values fit it
            where nothing else tells.
        regions: the evaluated regions in the order of tables, each with the classes that it joins.
        colours: of each region, for contours.
        class_colours: of the classes but the background, for pictures of labels; each that of the smallest region with
            the class, so that contours and labels agree.
        case_names: of public data sets. The first whose pattern fits a name counts.
        doubts: words of file names that leave the modality open.
        derived_words: words of file names that say that a file is no image of the modality that it names, but was
            derived from it.
        variant_words: words of file names that say that an image was corrected; it is used if there is no plain one.
        label_neighbours: words of file names that a label may have instead of its own.
        other_label_words: words of file names that say that a label is of something else.
        class_words: of a class, the words that stand for it in a ``dataset.json``, in small letters; a class without is
            meant by the words of its name.
        region_words: the same of a region.
        region_titles: of a region, its name in full.
        filler_words: words beside them that say nothing about the class.
        decathlon: the Decathlon's data set of the task, if there is one.
        protocol: the modalities of sites 1, 2, ... of a published protocol; empty without one.
        phantom_intensities: of each modality, the intensity of each tissue of the made-up heads of
            :mod:`fedmepd.data.phantom`; empty for a task without them.
        limits: sentences for the known limits of a model of the task.
        images: what images a model of the task needs, in words.
        imaging: by which technique they are made, as DICOM abbreviates it.
        body: what counts as the body in them, in a word.
        foreground: what of an image counts as the body, see :data:`~fedmepd.tasks.rules.Foreground`.
        foreground_share: of the foreground ``above``.
        intensity: how images are normalised in it, see :data:`~fedmepd.tasks.rules.Intensity`.
        voxel_mm: size of a voxel from right to left, front to back, and bottom to top, that the task's networks see;
            empty: any.
        resampled: whether cases are resampled to that size, from whatever grids their images lie on. If not, they have
            to be of about that size, and all images of a case on one grid.
        most_foreground_ml: a larger foreground is warned about; infinite: none is.
        empty_distance_mm: HD95 of a case of which either the label or the segmentation alone has the region.
        lesions: how the scores lesion by lesion are made.
        small_class: the clean-up rule of :func:`fedmepd.segmentation.cleanup.clean`, if there is one.

    Raises:
        SettingsError: the parts do not fit together; the message names task and field.
    """

    name: str
    title: str
    subject: str
    modalities: tuple[str, ...]
    words: dict[str, tuple[str, ...]]
    label_words: tuple[str, ...]
    classes: tuple[str, ...]
    conventions: dict[str, Convention]
    default_convention: str
    regions: dict[str, tuple[int, ...]]
    colours: dict[str, str]
    class_colours: tuple[str, ...]
    case_names: tuple[CaseNames, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    derived_words: tuple[str, ...] = ()
    variant_words: tuple[str, ...] = ()
    label_neighbours: tuple[str, ...] = ()
    other_label_words: tuple[str, ...] = ()
    class_words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    region_words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    region_titles: dict[str, str] = field(default_factory=dict)
    filler_words: tuple[str, ...] = ()
    decathlon: Decathlon | None = None
    protocol: tuple[tuple[str, ...], ...] = ()
    phantom_intensities: dict[str, tuple[float, ...]] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    images: str = "co-registered NIfTI images, 0 outside the body"
    imaging: str = "MR"
    body: str = "body"
    foreground: Foreground = "nonzero"
    foreground_share: float = 0.0
    intensity: Intensity = "z-score"
    voxel_mm: tuple[float, ...] = ()
    resampled: bool = False
    most_foreground_ml: float = math.inf
    empty_distance_mm: float = 373.13
    lesions: LesionRules = field(default_factory=LesionRules)
    small_class: SmallClass | None = None

    def __post_init__(self):
        self._check_images()
        self._check_labels()
        for key, rules in (("foreground", Foreground), ("intensity", Intensity)):
            if getattr(self, key) not in get_args(rules):
                self._refuse(key, f"unknown rule {getattr(self, key)!r}: expected {' or '.join(get_args(rules))}")
        if (self.foreground == "above") != (self.foreground_share > 0):
            self._refuse("foreground_share", "expected a number above 0 with foreground above, and 0 without")
        if len(self.voxel_mm) not in (0, 3) or not all(side > 0 for side in self.voxel_mm):
            self._refuse("voxel_mm", "expected three sizes in mm, or none")
        if self.resampled and not self.voxel_mm:
            self._refuse("resampled", "expected voxel_mm, the size to resample to")
        if problem := self.lesions.problem():
            self._refuse("lesions", problem)

    def _check_images(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            self._refuse("name", "expected small letters, digits and _")
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            self._refuse("modalities", "expected at least one, each once")
        for modality in self.modalities:
            # They name a module of the network, an option of a command and files.
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", modality):
                self._refuse("modalities", f"{modality!r}: expected letters, digits and _")
            if modality.lower() not in self.words.get(modality, ()):
                self._refuse("words", f"expected {modality.lower()!r} among the words of {modality}")
        if not self.label_words:
            self._refuse("label_words", "expected at least one")
        owners: dict[str, str] = {}
        for kind, words in (*self.words.items(), ("the label", self.label_words)):
            if kind not in (*self.modalities, "the label"):
                self._refuse("words", f"{kind!r} is no modality: expected {', '.join(self.modalities)}")
            for word in words:
                if not re.fullmatch(r"[a-z0-9]+", word):
                    self._refuse("words", f"{word!r} of {kind}: expected small letters and digits")
                if owners.setdefault(word, kind) != kind:
                    self._refuse("words", f"{word!r} stands for {owners[word]} and for {kind}")
        for doubt in self.doubts:
            for modality in (doubt.modality, doubt.other):
                if modality not in self.modalities:
                    self._refuse("doubts", f"{modality!r} is no modality: expected {', '.join(self.modalities)}")

    def _check_labels(self) -> None:
        numbers = set(range(len(self.classes)))
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            self._refuse("classes", "expected the background and at least one more, each once")
        if len(self.class_colours) != len(self.classes) - 1:
            self._refuse("class_colours", f"expected {len(self.classes) - 1}, one for each class but the background")
        for name, convention in self.conventions.items():
            found = convention.classes
            told = {min(group) for group in convention.groups} or numbers
            if (set(found.values()) | {0}) - {IGNORE} != told or found.get(0) not in (0, IGNORE):
                self._refuse("conventions", f"{name}: expected a value for each class, and 0 for class 0")
            together = sorted(number for group in convention.groups for number in group)
            if convention.groups and together != sorted(numbers):
                self._refuse("conventions", f"{name}: groups: expected every class in one of them")
        for name in self.class_words:
            if name not in self.classes:
                self._refuse("class_words", f"{name!r} is no class: expected {', '.join(self.classes)}")
        for names in self.case_names:
            if (names.convention is None) != bool(names.other_classes):
                self._refuse("case_names", f"{names.layout}: expected either a convention or other_classes")
        named = [self.default_convention, *(names.convention for names in self.case_names if names.convention)]
        named += [name for names in self.case_names for name in names.choices]
        named += [] if self.decathlon is None else [self.decathlon.convention]
        for name in named:
            if name not in self.conventions:
                self._refuse("conventions", f"{name!r} is none of them: expected {', '.join(self.conventions)}")
        for region, members in self.regions.items():
            if not members or not set(members) <= numbers - {0}:
                self._refuse("regions", f"{region}: expected numbers of classes from 1 to {len(self.classes) - 1}")
        if not self.regions or set(self.colours) != set(self.regions):
            self._refuse("colours", f"expected one for each region: {', '.join(self.regions)}")
        for region in self.region_titles:
            if region not in self.regions:
                self._refuse("region_titles", f"{region!r} is no region: expected {', '.join(self.regions)}")
        rule = self.small_class
        if rule is not None and not {rule.number, rule.becomes} <= numbers:
            self._refuse("small_class", f"expected numbers of classes from 0 to {len(self.classes) - 1}")

    def _refuse(self, key: str, problem: str) -> NoReturn:
        raise SettingsError(f"task {self.name}: {key}: {problem}")

    def subset(self, names: Iterable[str]) -> tuple[str, ...]:
        """Returns ``names`` in the task's order, each once.

        Raises:
            FedMEPDError: a name is unknown, or there is none at all.
        """
        names = [names] if isinstance(names, str) else list(names)
        unknown = [name for name in names if name not in self.modalities]
        if unknown:
            raise FedMEPDError(
                f"unknown modality {', '.join(map(repr, unknown))}: {one_of(unknown[0], self.modalities)}"
            )
        if not names:
            raise FedMEPDError(f"no modality given: expected at least one of {', '.join(self.modalities)}")
        return tuple(name for name in self.modalities if name in names)

    def convention(self, name: str) -> str:
        """Returns the convention that a user calls ``name``.

        Raises:
            SettingsError: the task has none of that name.
        """
        for known, convention in self.conventions.items():
            if name in (known, *convention.aliases):
                return known
        # The list is long: what is probably meant is told before it.
        meant = did_you_mean(name, self.conventions)
        raise SettingsError(
            f"task {self.name} has no label values {name!r}{f'{meant} Expected' if meant else ': expected'} "
            f"{' or '.join(f'{known} ({self.describe_convention(known)})' for known in self.conventions)}"
        )

    def class_named(self, name: str) -> int | None:
        """Returns the number of the class that a label's name stands for; None if it stands for none or for several."""
        plain = re.sub(r"non[^a-z0-9]+", "non", name.lower())
        words = set(_words(plain)) - set(self.filler_words)
        for number, class_name in enumerate(self.classes):
            if words and words <= set(self.class_words.get(class_name, _words(class_name))):
                return number
        return None

    def named(self, name: str) -> tuple[int, ...] | None:
        """Returns the classes that a label's name stands for: one, or those of a region; None if it is not clear."""
        number = self.class_named(name)
        if number is not None:
            return (number,)
        words = set(_words(name)) - _BARE_WORDS
        known = {region: {region.lower(), *self.region_words.get(region, ())} for region in self.regions}
        found = [region for region, of_region in known.items() if words and words <= of_region]
        return tuple(sorted(self.regions[found[0]])) if len(found) == 1 else None

    def with_convention(self, name: str, convention: Convention) -> Task:
        """Returns the same task with one more convention, which a user has described.

        Raises:
            SettingsError: the task has another convention of that name, or the convention does not fit its classes.
        """
        if self.conventions.get(name, convention) != convention:
            raise SettingsError(f"task {self.name} has label values {name} already: call yours otherwise")
        return replace(self, conventions={**self.conventions, name: convention})

    def label_of_class(self, convention: str) -> tuple[int, ...]:
        """Returns the value that a label file of a convention holds for each class, the smallest if there are several.

        Raises:
            SettingsError: labels of the convention do not tell all classes.
        """
        if self.conventions[convention].groups:
            raise SettingsError(f"label values {convention} do not tell all classes of task {self.name}: take others")
        labels = {number: label for label, number in sorted(self.conventions[convention].classes.items(), reverse=True)}
        return tuple(labels[number] for number in range(len(self.classes)))

    def meaning(self, convention: str, number: int) -> str:
        """Returns what a class number means in a label of a convention: a class, a region, or several classes."""
        if number == IGNORE:
            return "left out"
        group = next((group for group in self.conventions[convention].groups if number in group), (number,))
        region = next((name for name, members in self.regions.items() if sorted(members) == sorted(group)), None)
        return region if region and len(group) > 1 else " or ".join(self.classes[member] for member in group)

    def describe_convention(self, name: str) -> str:
        """Returns who writes labels so, and the meaning of each value, the background's without a word."""
        convention = self.conventions[name]
        plain = ["0"] if convention.classes.get(0) == 0 and self.meaning(name, 0) == self.classes[0] else []
        values = [
            f"{value} {self.meaning(name, number)}"
            for value, number in sorted(convention.classes.items())
            if value or not plain
        ]
        return f"{convention.source}: {', '.join([*plain, *values])}"

    def describe_labels(self) -> str:
        """Returns the value and name of each class, as segmentations are written."""
        values = zip(self.label_of_class(self.default_convention), self.classes, strict=True)
        return ", ".join(f"{value} {name}" for value, name in values)

    def describe_intensities(self) -> str:
        """Returns how images are normalised, in words."""
        rules = {"z-score": "z-score", "percentiles": "percentiles 0.5 and 99.5 to 0 and 1"}
        place = "over the whole volume" if self.foreground == "whole" else f"within the {self.body}"
        return f"{rules[self.intensity]} {place}, by modality"

    def describe_voxels(self) -> str:
        """Returns the size of a voxel that the networks see, in words; empty if it may be any."""
        return f"{' x '.join(f'{side:g}' for side in self.voxel_mm)} mm" if self.voxel_mm else ""

    def option(self, modality: str) -> str:
        """Returns the option of a command that names an image of the modality."""
        return f"--{modality.lower()}"

    def file_name(self, case: str, kind: str | None) -> str:
        """Returns the name of a case's file as this package writes it: of a modality, or of the label (None)."""
        return f"{case}_{self.label_words[0] if kind is None else kind.lower()}.nii.gz"


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
