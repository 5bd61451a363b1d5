"""The manifest of a data set: which cases, which file is which modality, what trains and what tests.

It records a checksum of every file, so it may also name links that lead elsewhere. The target of such a link is used
only if it has not changed since the manifest was written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from fedmepd.data.cases import Case
from fedmepd.errors import DataError, SettingsError, explain, require_no_controls
from fedmepd.storage import write_text
from fedmepd.tasks.find import DEFAULT, find_task
from fedmepd.tasks.labels import Convention
from fedmepd.tasks.task import Task

FILE_NAME = "fedmepd-data.json"

FORMAT = 1

Part = Literal["train", "validation", "test"]

# They are printed, and some become names of files.
_Text = Annotated[str, AfterValidator(require_no_controls)]
_Name = Annotated[_Text, Field(min_length=1)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Entry):
    """A file, relative to the manifest."""

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    channel: int | None = Field(None, ge=0, lt=16)

    @field_validator("file")
    @classmethod
    def _inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in value:
            raise ValueError("expected a path below the manifest's folder, without ..")
        return value


class CaseEntry(_Entry):
    """A case.

    ``part`` is null for a case without a label, which is for inference only. ``fusion`` marks a case for fusion
    training; it is written only where it is true.
    """

    name: _Name
    patient: _Name
    institution: _Text | None = None
    labels: _Text | None
    part: Part | None
    images: dict[str, FileEntry] = Field(min_length=1)
    label: FileEntry | None
    fusion: StrictBool = False

    @model_serializer(mode="wrap")
    def _without_default(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = write(self)
        if not self.fusion:
            del content["fusion"]
        return content

    @model_validator(mode="after")
    def _consistent(self) -> CaseEntry:
        if self.label is not None and self.labels is None:
            raise ValueError("labels is missing: expected the convention of the label's values")
        if (self.part is None) != (self.label is None):
            raise ValueError("expected a part for a case with a label, and null for one without")
        return self

    def check(self, task: Task) -> None:
        """Raises ValueError if the case has a modality or a convention that is not the task's."""
        unknown = [name for name in self.images if name not in task.modalities]
        if unknown:
            expected = ", ".join(task.modalities)
            raise ValueError(f"case {self.name}: unknown modality {unknown[0]!r}: expected one of {expected}")
        if self.labels is not None and self.labels not in task.conventions:
            expected = ", ".join(task.conventions)
            raise ValueError(f"case {self.name}: unknown labels {self.labels!r}: expected one of {expected}")
        missing = [name for name in task.modalities if name not in self.images]
        if self.fusion and self.label is not None and missing:
            raise ValueError(f"case {self.name} is for fusion training, but has no {', '.join(missing)}")


class LabelValues(_Entry):
    """A user's own label values, see :class:`fedmepd.tasks.labels.Convention`."""

    source: _Text
    classes: dict[int, int]
    groups: list[list[int]] = []

    @classmethod
    def of(cls, convention: Convention) -> LabelValues:
        """Returns what describes a convention."""
        groups = [list(group) for group in convention.groups]
        return cls(source=convention.source, classes=convention.classes, groups=groups)

    def convention(self) -> Convention:
        """The inverse of :meth:`of`."""
        return Convention(self.source, self.classes, groups=tuple(map(tuple, self.groups)), by_values=False)


class Manifest(_Entry):
    """What ``fedmepd-data.json`` holds; older ones do not say their task, which was the default one.

    ``label_values`` holds conventions of labels that the task does not have, ``patterns`` what the user has said of the
    names of files (`--pattern`); each is written only where there are some.
    """

    format: Literal[1] = FORMAT
    task: _Text = DEFAULT
    label_values: dict[_Text, LabelValues] = {}
    patterns: list[_Text] = []
    cases: list[CaseEntry]

    @model_serializer(mode="wrap")
    def _without_default(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = write(self)
        for key in ("label_values", "patterns"):
            if not content[key]:
                del content[key]
        return content

    def own_task(self) -> Task:
        """Returns the task with the conventions of the data set.

        Raises:
            SettingsError: there is no such task, or a convention does not fit it.
        """
        task = find_task(self.task)
        for name, values in self.label_values.items():
            task = task.with_convention(name, values.convention())
        return task

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        try:
            task = self.own_task()
        except SettingsError as error:
            raise ValueError(str(error)) from error
        names, parts, fusion = set(), {}, {}
        for entry in self.cases:
            entry.check(task)
            if entry.name in names:
                raise ValueError(f"case {entry.name} stands there twice")
            names.add(entry.name)
            if entry.part is not None and parts.setdefault(entry.patient, entry.part) != entry.part:
                raise ValueError(f"patient {entry.patient} is in two parts: no patient may both train and test")
            if fusion.setdefault(entry.patient, entry.fusion) != entry.fusion:
                raise ValueError(f"some cases of patient {entry.patient} are for fusion training and some are not")
        return self


def read_manifest(task: Task, folder: Path) -> tuple[list[Case], dict[str, Part | None]]:
    """Returns the cases of a folder with a manifest, sorted by name, and each one's part.

    Raises:
        DataError: the manifest cannot be read, is not valid, or is of another task.
    """
    manifest = load_manifest(folder)
    if manifest.task != task.name:
        raise DataError(
            f"{folder} is a data set of task {manifest.task}, expected one of {task.name}: take another folder, or say "
            f"the task (option --task of a command, setting task of a job)",
            f"the site's data are of task {manifest.task}, the job is of {task.name}",
        )
    own = manifest.own_task()
    # What the user describes now is for another reading of the labels, also under the same name.
    task = replace(task, conventions={**own.conventions, **task.conventions})
    cases = [
        Case(
            entry.name,
            {modality: folder / image.file for modality, image in entry.images.items()},
            None if entry.label is None else folder / entry.label.file,
            channels={name: image.channel for name, image in entry.images.items() if image.channel is not None},
            patient=entry.patient,
            institution=entry.institution,
            convention=entry.labels,
            for_fusion=entry.fusion,
            task=task,
        )
        for entry in sorted(manifest.cases, key=lambda entry: entry.name)
    ]
    return cases, {entry.name: entry.part for entry in manifest.cases}


def load_manifest(folder: Path) -> Manifest:
    """Reads a folder's manifest; see :func:`read_manifest`."""
    file = folder / FILE_NAME
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}", _PUBLIC) from error
    except ValidationError as error:
        raise DataError(
            f"{explain(error, str(file), Manifest)}: restore the file; without it, `fedmepd data init` decides anew "
            "which patients train and which test",
            _PUBLIC,
        ) from error


_PUBLIC = "the manifest of the site's data cannot be used"


def pinned_content(folder: Path) -> dict[Path, str]:
    """Returns the SHA-256 that every file of a data set had when its manifest was written."""
    return {
        folder / file.file: file.sha256
        for entry in load_manifest(folder).cases
        for file in (*entry.images.values(), *([] if entry.label is None else [entry.label]))
    }


def make_manifest(
    task: Task,
    folder: Path,
    cases: Iterable[Case],
    parts: dict[str, Part | None],
    digests: dict[Path, str],
    patterns: Iterable[str] = (),
) -> Manifest:
    """Describes cases whose files lie below ``folder``.

    Args:
        task: that the cases are of.
        folder: folder of the manifest.
        cases: with known conventions if they have labels.
        parts: by case name.
        digests: SHA-256 of every file.
        patterns: what the user has said of the names of files.
    """

    def entry(path: Path, channel: int | None = None) -> FileEntry:
        return FileEntry(file=path.relative_to(folder).as_posix(), sha256=digests[path], channel=channel)

    cases = sorted(cases, key=lambda case: case.name)
    known = find_task(task.name).conventions
    values = {
        case.convention: LabelValues.of(case.task.conventions[case.convention])
        for case in cases
        if case.label is not None and case.convention not in known
    }
    return Manifest(
        task=task.name,
        label_values=values,
        patterns=list(patterns),
        cases=[
            CaseEntry(
                name=case.name,
                patient=case.patient,
                institution=case.institution,
                labels=None if case.label is None else case.convention,
                part=parts.get(case.name),
                images={name: entry(case.images[name], case.channels.get(name)) for name in case.modalities},
                label=None if case.label is None else entry(case.label),
                fusion=case.for_fusion,
            )
            for case in cases
        ],
    )


def write_manifest(folder: Path, manifest: Manifest) -> bool:
    """Writes a folder's manifest unless it exists already with the same content; returns whether it was written.

    Raises:
        FedMEPDError: the folder cannot be written; an older manifest is untouched.
    """
    file, text = folder / FILE_NAME, manifest.model_dump_json(indent=1) + "\n"
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        return False
    write_text(file, text)
    return True
