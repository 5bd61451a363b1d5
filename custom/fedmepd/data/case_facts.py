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
from fedmepd.data.volumes import UNREADABLE, VolumeError, Volumes, read_volumes
from fedmepd.errors import FedMEPDError
from fedmepd.storage import read_json, write_json

# Raise this number when you add a check.
_FORMAT = 3

# Interpolation leaves a few negative voxels around the brain; a z-score makes about half of it negative.
_MOST_NEGATIVE = 0.25

_USUAL_SPACING_MM = (0.3, 6.0)

# If more than this share of a label is outside the brain, the label belongs to another image.
_MOST_OUTSIDE = 0.5

# A file with more different values than this is an image, not a label.
_MOST_LABELS = 20


@dataclass(frozen=True)
class CaseFacts:
    """The findings and facts about the files of a case.

    Args:
        findings: what is wrong with them, or worth knowing.
        shape: voxels along each axis of its first readable file; empty without one.
        spacing: size of a voxel in mm along each axis.
        orientation: where the axes point, such as ``LPS``.
        label_counts: voxels of every value of the label.
        digests: SHA-256 of every volume's values and shape, by kind, however they are stored.
    """

    findings: tuple[Finding, ...] = ()
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    orientation: str = ""
    label_counts: dict[int, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


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
    for kind, path, channel in case.volumes:
        try:
            status = path.stat()
        except OSError:
            return None
        parts += [kind, str(path.absolute()), channel, status.st_size, status.st_mtime_ns]
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
        )
    except (FedMEPDError, ValueError, KeyError, TypeError, AttributeError):
        return None


@dataclass
class _Volume:
    """One volume of a case, as far as the checks within the case need it."""

    kind: str
    path: Path
    values: np.ndarray
    read: Volumes


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
        if channel is None:
            volumes.append(_Volume(kind, path, read.values, read))
        elif channel < read.values.shape[3]:
            volumes.append(_Volume(kind, path, read.values[..., channel], read))
        else:
            text = f"{path} has {read.values.shape[3]} volumes: expected {kind} as number {channel + 1} of them"
            findings.append(error("file with too few volumes", text))
    for checked in pool.map(_check_values, volumes):
        findings += checked
    for volume in volumes[1:]:
        findings += _compare(volume, volumes[0])
    for volume in dict((volume.path, volume) for volume in volumes).values():
        findings += _check_header(volume)
    digests = dict(zip((volume.kind for volume in volumes), pool.map(_digest, volumes), strict=True))
    findings += _same_content(case, digests)
    findings += _check_brain(case, volumes)
    label = next((volume for volume in volumes if volume.kind == LABEL), None)
    known = label is not None and not any(finding.kind == _UNKNOWN_LABEL for finding in findings)
    counts = {int(value): number for value, number in _label_counts(label.values).items()} if known else {}
    first = volumes[0] if volumes else None
    return CaseFacts(
        findings=tuple(findings),
        shape=first.values.shape if first else (),
        spacing=tuple(round(size, 4) for size in first.read.spacing) if first else (),
        orientation="".join(nibabel.aff2axcodes(first.read.affine)) if first else "",
        label_counts=counts,
        digests=digests,
    )


def _open(path: Path, channels: bool) -> Volumes | Finding:
    try:
        return read_volumes(path, channels)
    except VolumeError as problem:
        if problem.kind == UNREADABLE:
            return error(problem.kind, f"{path} cannot be read as NIfTI ({problem}): copy or convert it again")
        return error(problem.kind, f"{path}: {problem}")


_UNKNOWN_LABEL = "unknown label value"


def _check_values(volume: _Volume) -> list[Finding]:
    return list(_check_label(volume) if volume.kind == LABEL else _check_image(volume))


def _check_label(volume: _Volume) -> Iterator[Finding]:
    found = list(_label_counts(volume.values))
    unknown = [value for value in found if not 0 <= value <= 255 or value != int(value)]
    if not unknown and len(found) > _MOST_LABELS:
        unknown = found
    if unknown:
        shown = ", ".join(f"{value:g}" for value in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        text = f"{volume.path} holds the label values {shown}: expected a few whole numbers, such as 0, 1, 2, 4"
        yield error(_UNKNOWN_LABEL, text)
    elif not any(found):
        yield note("label without any tumour", f"{volume.path} has no tumour in it: the case is kept")


def _label_counts(values: np.ndarray) -> dict[float, int]:
    """Returns the number of voxels of every value."""
    if values.dtype == np.uint8:
        counts = np.bincount(values.ravel(order="K"), minlength=1)
        return {value: int(counts[value]) for value in counts.nonzero()[0].tolist()}
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _check_image(volume: _Volume) -> Iterator[Finding]:
    path, values = volume.path, volume.values
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        yield error("NaN or infinity in an image", f"{path} holds NaN or infinity: convert the image again")
        return
    if values.min() == values.max():
        text = f"{path} holds the value {values.flat[0]:g} everywhere: convert the image again"
        yield error("constant image", text)
        return
    negative, there = np.count_nonzero(values < 0), np.count_nonzero(values)
    if negative > _MOST_NEGATIVE * there:
        yield error(
            "image with negative intensities",
            f"{path} is negative in {negative / there:.0%} of its non-zero voxels: expected intensities as the scanner "
            "gave them, skull-stripped, 0 outside the brain and not normalised",
        )
    elif negative:
        yield note("a few negative values, which become 0", f"{path} has {negative} negative voxels: they become 0")


def _compare(volume: _Volume, first: _Volume) -> Iterator[Finding]:
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


def _check_header(volume: _Volume) -> Iterator[Finding]:
    header, shape = volume.read.header, volume.values.shape
    if int(header["qform_code"]) and int(header["sform_code"]):
        try:
            apart = apart_mm(header.get_qform(), header.get_sform(), shape)
        # An invalid qform is not used either.
        except Exception:
            apart = np.inf
        if not apart <= MOST_APART_MM:
            text = f"{volume.path}: its qform and sform differ; the sform is used"
            yield warning("headers whose qform and sform disagree", text)
    low, high = _USUAL_SPACING_MM
    if not all(low <= size <= high for size in volume.read.spacing):
        sizes = " x ".join(f"{size:.3g}" for size in volume.read.spacing)
        yield warning("unusual voxel size", f"{volume.path} has voxels of {sizes} mm: look at its header")


def _same_content(case: Case, digests: dict[str, str]) -> Iterator[Finding]:
    for one, other in combinations(case.modalities, 2):
        if one in digests and digests[one] == digests.get(other):
            names = f"{case.images[one]} and {case.images[other].name}"
            text = f"{names} hold the same values as {one} and {other}: replace the one that is wrong"
            yield error("two modalities with the same content", text)


def _check_brain(case: Case, volumes: list[_Volume]) -> Iterator[Finding]:
    """Checks for a head instead of a brain, and for a label outside the brain."""
    images = [volume for volume in volumes if volume.kind != LABEL]
    if not images or len({volume.values.shape for volume in volumes}) > 1:
        return
    brain = np.zeros(images[0].values.shape, dtype=bool, order="F")
    for image in images:
        brain |= image.values > 0
    millilitres = np.count_nonzero(brain) * float(np.prod(images[0].read.spacing)) / 1000
    if millilitres > case.task.most_foreground_ml:
        yield warning(
            "image that does not look skull-stripped",
            f"case {case.name}: its images are above 0 in {millilitres:.0f} ml, more than a brain: expected "
            "skull-stripped images, 0 outside the brain",
        )
    for volume in volumes:
        if volume.kind != LABEL:
            continue
        tumour = volume.values > 0
        total, outside = np.count_nonzero(tumour), np.count_nonzero(tumour & ~brain)
        if outside > _MOST_OUTSIDE * total:
            text = f"{volume.path}: {outside} of {total} labelled voxels are outside the brain: it is another case's"
            yield error("label that does not fit its images", text)
        elif outside:
            text = f"{volume.path}: {outside} of {total} labelled voxels are outside the brain"
            yield warning("label that reaches out of the brain", text)


def _digest(volume: _Volume) -> str:
    made = hashlib.sha256(repr(volume.values.shape).encode())
    with np.errstate(all="ignore"):
        # The first axis runs fastest, as in files.
        made.update(np.ascontiguousarray(volume.values.T, dtype=np.float32).data)
    return made.hexdigest()
