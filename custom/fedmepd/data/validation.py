"""Checks of a site's cases, before anything is trained on them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedmepd.data.cases import Case
from fedmepd.data.layouts import LABEL, WORDS
from fedmepd.errors import DataError, FedMEPDError
from fedmepd.modalities import BRATS
from fedmepd.storage import write_text

# To be raised by whoever adds a check.
_FORMAT = 1

MOST_FAULTS_SHOWN = 20

# Interpolation leaves a few negative voxels around the brain; a z-score makes about half of it negative.
_MOST_NEGATIVE = 0.25

_AFFINE_TOLERANCE_MM = 1e-2

# Decompression leaves Python's lock, so a few threads read several files at a time.
_THREADS = 4


@dataclass(frozen=True)
class _Fault:
    text: str  # for the site: names the file
    kind: str  # for the server: does not


@dataclass
class _File:
    """What the checks within a case need to know of a file."""

    path: Path
    shape: tuple[int, ...] | None = None
    affine: Any = None
    faults: list[_Fault] = field(default_factory=list)


def check_cases(cases: Sequence[Case], labelled: bool = True, cache: Path | None = None) -> None:
    """Checks that every case can be used. Reads all files, unless the same files passed before.

    Args:
        cases: the cases.
        labelled: whether every case needs a label.
        cache: folder to note in which files passed, by path, size and time of change; None: do not note it.

    Raises:
        DataError: a case has no image or no label; a file is no readable NIfTI, not 3-D, of another shape or affine
            than the case's first; an image holds NaN or infinity, a single value, or values that are normalised
            already; a label holds an unknown value. The message names every such file (the first 20); its public form
            counts them.
    """
    mark = _mark(cases, labelled, cache)
    if mark is not None and mark.is_file():
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        faults = [fault for case in cases for fault in _check_case(case, labelled, pool)]
    if faults:
        raise _error(faults)
    if mark is not None:
        try:
            write_text(mark, "")
        except FedMEPDError as error:
            raise DataError(str(error), public="the site's cache folder cannot be written") from error


def _mark(cases: Sequence[Case], labelled: bool, cache: Path | None) -> Path | None:
    if cache is None:
        return None
    parts: list[Any] = [_FORMAT, labelled]
    for case in cases:
        parts += [case.name, case.modalities, case.label is None]
        for file in case.files:
            try:
                stat = file.stat()
            except OSError:
                return None
            parts += [str(file), stat.st_size, stat.st_mtime_ns]
    return Path(cache) / "checked" / hashlib.sha256(repr(parts).encode()).hexdigest()


def _check_case(case: Case, labelled: bool, pool: ThreadPoolExecutor) -> Iterator[_Fault]:
    if not case.images:
        words = ", ".join(word for word, kind in WORDS.items() if kind != LABEL)
        yield _Fault(f"case {case.name} has no image: expected file names with one of the words {words}", "no image")
    if labelled and case.label is None:
        words = " or ".join(word for word, kind in WORDS.items() if kind == LABEL)
        yield _Fault(f"case {case.name} has no label: expected a file name with the word {words}", "no label")
    files = list(pool.map(lambda path: _check_file(path, is_label=path == case.label), case.files))
    for file in files:
        yield from file.faults
    readable = [file for file in files if file.shape is not None]
    for file in readable[1:]:
        yield from _compare(file, readable[0])


def _compare(file: _File, first: _File) -> Iterator[_Fault]:
    if file.shape != first.shape:
        yield _Fault(
            f"{file.path} has shape {file.shape}, {first.path.name} beside it {first.shape}: "
            "register and resample the images of a case to one grid",
            "different shapes within a case",
        )
    elif not np.allclose(file.affine, first.affine, atol=_AFFINE_TOLERANCE_MM, rtol=0):
        yield _Fault(
            f"{file.path} has another affine than {first.path.name} beside it: "
            "register and resample the images of a case to one grid",
            "different affines within a case",
        )


def _check_file(path: Path, is_label: bool) -> _File:
    import nibabel

    file = _File(path)
    try:
        image = nibabel.load(path)
        values = np.asanyarray(image.dataobj)
    # A damaged file can make the decoders fail in any way.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        text = f"{path} cannot be read as NIfTI ({reason}): copy or convert it again"
        file.faults.append(_Fault(text, "unreadable file"))
        return file
    file.shape, file.affine = values.shape, image.affine
    if values.ndim != 3 or not values.size:
        text = f"{path} has shape {values.shape}: expected one 3-D volume"
        file.faults.append(_Fault(text, "file that is not 3-D"))
        file.shape = None
    elif values.dtype.kind not in "iuf":
        text = f"{path} holds values of type {values.dtype}: expected plain numbers"
        file.faults.append(_Fault(text, "values that are no plain numbers"))
    else:
        file.faults += _check_label(path, values) if is_label else _check_image(path, values)
    return file


def _check_label(path: Path, values: np.ndarray) -> Iterator[_Fault]:
    unknown = sorted({value.item() for value in np.unique(values) if value not in BRATS.class_of_label})
    if unknown:
        shown = ", ".join(f"{value:g}" for value in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        known = ", ".join(map(str, BRATS.class_of_label))
        yield _Fault(f"{path} holds the label values {shown}: expected {known} alone", "unknown label value")


def _check_image(path: Path, values: np.ndarray) -> Iterator[_Fault]:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        yield _Fault(f"{path} holds NaN or infinity: convert the image again", "NaN or infinity in an image")
        return
    if values.min() == values.max():
        yield _Fault(f"{path} holds the value {values.flat[0]:g} everywhere: convert the image again", "constant image")
        return
    negative = np.count_nonzero(values < 0) / np.count_nonzero(values)
    if negative > _MOST_NEGATIVE:
        yield _Fault(
            f"{path} is negative in {negative:.0%} of its non-zero voxels: expected intensities as the scanner gave "
            "them, skull-stripped, 0 outside the brain and not normalised",
            "image with negative intensities",
        )


def _error(faults: list[_Fault]) -> DataError:
    lines = [fault.text for fault in faults[:MOST_FAULTS_SHOWN]]
    if len(faults) > MOST_FAULTS_SHOWN:
        lines.append(f"and {len(faults) - MOST_FAULTS_SHOWN} more")
    if len(faults) > 1:
        lines.insert(0, f"{len(faults)} faults in the data:")
    counts = Counter(fault.kind for fault in faults)
    public = "the site's data cannot be used: " + ", ".join(f"{kind} ({count})" for kind, count in counts.items())
    return DataError("\n  ".join(lines), public=public)
