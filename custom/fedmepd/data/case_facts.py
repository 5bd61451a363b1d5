"""What the files of one case contain. Each file is read once, and the result is cached."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from fedmepd.data.cases import LABEL, Case
from fedmepd.data.findings import Finding, error, note, warning
from fedmepd.data.grids import MOST_APART_MM, apart_mm
from fedmepd.data.label_checks import check_coverage, check_outside, label_as_image
from fedmepd.data.resampling import network_grid, overlap
from fedmepd.data.training_images import ImageMeasures, percentiles
from fedmepd.data.volume_checks import (
    UNKNOWN_LABEL,
    CaseVolume,
    check_header,
    check_values,
    digest,
    label_counts,
)
from fedmepd.data.volumes import (
    UNREADABLE,
    VolumeError,
    Volumes,
    nearest_whole,
    read_volumes,
    without_nan_outside,
)
from fedmepd.errors import FedMEPDError
from fedmepd.storage import read_json, write_json
from fedmepd.text_table import counted

# Raise this number when you add a check.
_FORMAT = 6


@dataclass(frozen=True)
class CaseFacts:
    """The findings and facts about the files of a case.

    Args:
        findings: what is wrong with them, or worth knowing.
        shape: voxels along each axis of its first readable file; empty without one.
        spacing: size of a voxel in mm along each axis.
        orientation: where the axes point, such as ``LPS``.
        label_counts: voxels of every value of the label.
        label_spacing: size of a voxel of the label, where it lies on another grid than the first file.
        digests: by kind, SHA-256 of every volume's content, however it is stored: of an image the brain alone, in the
            network's frame and in steps of its mean; of a label all values.
        foreground_ml: volume in which an image is above 0; 0 where the images do not fit together.
        intensities: by modality, see :class:`fedmepd.data.training_images.ImageMeasures`.
    """

    findings: tuple[Finding, ...] = ()
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    orientation: str = ""
    label_counts: dict[int, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    label_spacing: tuple[float, ...] = ()
    foreground_ml: float = 0.0
    intensities: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def measures(self) -> ImageMeasures:
        """What may differ from the images that a model was trained on."""
        return ImageMeasures(tuple(sorted(self.spacing)), self.foreground_ml, self.intensities)


def case_facts(case: Case, cache: Path | None, pool: ThreadPoolExecutor) -> CaseFacts:
    """Reads a case, unless ``cache`` knows the same files (by path, size and time of change).

    Raises:
        FedMEPDError: the cache cannot be written.
    """
    file = _cache_file(case, cache)
    if file is not None and (known := _recall(file)) is not None:
        return known
    facts = _read(case, pool)
    if file is not None:
        with contextlib.suppress(OSError):
            # Findings name files; what cannot be made cannot be written either, and that is told below.
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(file, asdict(facts))
    return facts


def _cache_file(case: Case, cache: Path | None) -> Path | None:
    if cache is None:
        return None
    parts: list[Any] = [_FORMAT, case.task.name, case.task.most_foreground_ml, case.name]
    parts += ["on any grids"] if case.task.resampled else []
    for kind, path, channel in case.volumes:
        try:
            status = path.stat()
        except OSError:
            return None
        # The time of the last change of the file's entry cannot be set by a program that copies the older times.
        parts += [kind, str(path.absolute()), channel, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return Path(cache) / "checked" / f"{hashlib.sha256(repr(parts).encode()).hexdigest()}.json"


def _recall(file: Path) -> CaseFacts | None:
    try:
        content = read_json(file, "what a check of a case found")
        return CaseFacts(
            findings=tuple(Finding(**finding) for finding in content["findings"]),
            shape=tuple(content["shape"]),
            spacing=tuple(content["spacing"]),
            orientation=content["orientation"],
            label_counts={int(value): count for value, count in content["label_counts"].items()},
            digests=content["digests"],
            # What older versions have found does not say it.
            label_spacing=tuple(content.get("label_spacing", ())),
            foreground_ml=content["foreground_ml"],
            intensities={modality: tuple(scores) for modality, scores in content["intensities"].items()},
        )
    except (FedMEPDError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _read(case: Case, pool: ThreadPoolExecutor) -> CaseFacts:
    import nibabel

    findings: list[Finding] = []
    files = list(pool.map(lambda path: _open(path, bool(case.channels) and path != case.label), case.files))
    by_path = dict(zip(case.files, files, strict=True))
    findings += [found for found in files if isinstance(found, Finding)]
    volumes = []
    for kind, path, channel in case.volumes:
        read = by_path[path]
        if isinstance(read, Finding):
            continue
        if channel is None or channel < read.values.shape[3]:
            values = read.values if channel is None else read.values[..., channel]
            clean = nearest_whole(values) if kind == LABEL else without_nan_outside(values)
            if clean is not values and kind == LABEL and not np.array_equal(clean, values, equal_nan=True):
                findings.append(note(_ROUNDED, f"{path} holds values such as {_first_other(clean, values):.7g}"))
            elif clean is not values and kind != LABEL:
                findings.append(note(_NAN_OUTSIDE, f"{path} holds NaN around the body: it becomes 0"))
            volumes.append(CaseVolume(kind, path, clean, read))
        else:
            there = counted(read.values.shape[3], "volume")
            text = f"{path} has {there}: expected {kind} as number {channel + 1} of them"
            findings.append(error("file with too few volumes", text))
    for checked in pool.map(check_values, volumes):
        findings += checked
    if case.task.resampled and volumes:
        findings += _too_large(case, volumes[0])
    for volume in volumes[1:]:
        findings += _apart(volume, volumes[0]) if case.task.resampled else _compare(volume, volumes[0])
    for volume in dict((volume.path, volume) for volume in volumes).values():
        findings += check_header(volume)
    digests = dict(zip((volume.kind for volume in volumes), pool.map(digest, volumes), strict=True))
    findings += _same_content(case, digests)
    findings += label_as_image(volumes)
    # Where the task resamples, what lies on other grids than the first image says nothing of the body.
    on_first = [of for of in volumes if _on_one_grid(of, volumes[0])] if case.task.resampled else volumes
    body = _body(on_first)
    foreground_ml = 0.0
    if body is not None:
        foreground_ml = np.count_nonzero(body) * float(np.prod(volumes[0].read.spacing)) / 1000
        findings += _check_body(case, on_first, body, foreground_ml)
    label = next((volume for volume in volumes if volume.kind == LABEL), None)
    known = label is not None and not any(finding.kind == UNKNOWN_LABEL for finding in findings)
    counts = {int(value): number for value, number in label_counts(label.values).items()} if known else {}
    first = volumes[0] if volumes else None
    return CaseFacts(
        findings=tuple(findings),
        shape=first.values.shape if first else (),
        spacing=_spacing(first) if first else (),
        orientation="".join(nibabel.aff2axcodes(first.read.affine)) if first else "",
        label_counts=counts,
        digests=digests,
        label_spacing=_spacing(label) if label is not None and not _on_one_grid(label, first) else (),
        foreground_ml=round(foreground_ml, 1),
        intensities={image.kind: scores for image in _images(volumes) if (scores := percentiles(image.values))},
    )


def _spacing(volume: CaseVolume) -> tuple[float, ...]:
    return tuple(round(size, 4) for size in volume.read.spacing)


_ROUNDED = "label values that are whole but for rounding"
_NAN_OUTSIDE = "NaN around the body, which becomes 0"


def _first_other(clean: np.ndarray, values: np.ndarray) -> float:
    return float(values[clean != values].flat[0])


def _open(path: Path, channels: bool) -> Volumes | Finding:
    try:
        if not path.exists() and not path.is_symlink():
            return error("file that does not exist", f"{path} does not exist: correct its name, or restore it")
        return read_volumes(path, channels)
    except PermissionError:
        text = f"{path} may not be read by this user: give the user the right to read it (`chmod`, `chown`)"
        return error("file that may not be read", text)
    except OSError as problem:
        text = f"{path} cannot be read as NIfTI ({problem.strerror or problem}): copy or convert it again"
        return error("unreadable file", text)
    except VolumeError as problem:
        if problem.kind == UNREADABLE:
            return error(problem.kind, f"{path} cannot be read as NIfTI ({problem}): copy or convert it again")
        return error(problem.kind, f"{path}: {problem}")


def _compare(volume: CaseVolume, first: CaseVolume) -> Iterator[Finding]:
    if volume.path == first.path:
        return
    advice = "register and resample the images of a case to one grid"
    if volume.values.shape != first.values.shape:
        yield error(
            "different shapes within a case",
            f"{volume.path} has shape {volume.values.shape}, {first.path.name} beside it {first.values.shape}: "
            f"{advice}",
        )
        return
    apart = apart_mm(volume.read.affine, first.read.affine, first.values.shape)
    if not apart <= MOST_APART_MM:
        yield error(
            "different affines within a case",
            f"{volume.path} has another affine than {first.path.name} beside it, up to {apart:.2g} mm apart: {advice}",
        )
        return
    keys = ("qform_code", "sform_code")
    codes, expected = (tuple(int(of.read.header[key]) for key in keys) for of in (volume, first))
    if codes != expected:
        text = f"{volume.path} has qform and sform codes {codes}, {first.path.name} beside it {expected}: same grid"
        yield note("headers that differ in qform or sform code alone", text)


def _too_large(case: Case, first: CaseVolume) -> Iterator[Finding]:
    try:
        network_grid(first.grid, case.task.voxel_mm)
    except VolumeError as problem:
        yield error(problem.kind, f"{first.path}: {problem}; look at its header")


def _apart(volume: CaseVolume, first: CaseVolume) -> Iterator[Finding]:
    """Says of a volume that may lie on a grid of its own whether it shows another place."""
    if not overlap(volume.grid, first.grid):
        text = f"{volume.path} shows another place than {first.path.name} beside it: register the images of the case"
        yield error("images of a case that show different places", text)
    elif volume.kind == LABEL and not _on_one_grid(volume, first):
        yield from check_coverage(volume, first)


def _on_one_grid(volume: CaseVolume, first: CaseVolume) -> bool:
    same = volume.values.shape == first.values.shape
    return same and apart_mm(volume.read.affine, first.read.affine, first.values.shape) <= MOST_APART_MM


def _same_content(case: Case, digests: dict[str, str]) -> Iterator[Finding]:
    for one, other in combinations(case.modalities, 2):
        if one in digests and digests[one] == digests.get(other):
            names = f"{case.images[one]} and {case.images[other].name}"
            text = f"{names} hold the same values as {one} and {other}: replace the one that is wrong"
            yield error("two modalities with the same content", text)


def _images(volumes: list[CaseVolume]) -> list[CaseVolume]:
    return [volume for volume in volumes if volume.kind != LABEL]


def _body(volumes: list[CaseVolume]) -> np.ndarray | None:
    """Where any image is above 0; None without images, or if the volumes have different shapes."""
    images = _images(volumes)
    if not images or len({volume.values.shape for volume in volumes}) > 1:
        return None
    body = np.zeros(images[0].values.shape, dtype=bool, order="F")
    for image in images:
        body |= image.values > 0
    return body


def _check_body(case: Case, volumes: list[CaseVolume], body: np.ndarray, millilitres: float) -> Iterator[Finding]:
    """Checks for more than the task's body, as a head instead of a brain, and for a label outside it."""
    if millilitres > case.task.most_foreground_ml:
        yield warning(
            "images that show more than the body",
            f"case {case.name}: its images are above 0 in {millilitres:.0f} ml, more than a {case.task.body}: expected "
            f"{case.task.images}",
        )
    for volume in volumes:
        if volume.kind != LABEL:
            continue
        yield from check_outside(volume, (volume.values > 0) & ~body, "lie where all images are 0")
