"""Reading NIfTI files that may be damaged, incomplete or hostile.

The size in the header is compared with the size of the file before memory is allocated. A compressed file is read to
its end, which holds its checksum. No other file is ever opened.
"""

from __future__ import annotations

import gzip
import logging
import math
import stat
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = (".nii", ".nii.gz")

# Four times a head at half a millimetre. For one volume; a file of several may hold that many times more.
MOST_VOXELS = 2**28
MOST_CHANNELS = 16

# Bytes that may follow the voxels, because some tools add padding.
_MOST_TRAILING = 2**16

# Quaternions are stored as float32; a component may be too long by rounding.
_QUATERNION_ROUNDING = 1e-5

_GZIP = b"\x1f\x8b"

# The size in mm of the units that a header may name, where it is not mm.
_UNITS_MM = {"meter": 1000.0, "micron": 0.001}

# Voxels of a head; only within these bounds are sizes believed to be in the unit that the header names.
_HEAD_MM = (0.05, 20.0)

# Deflate cannot compress further than this.
_MOST_COMPRESSION = 1032

_SILENT = logging.Logger("nibabel's remarks")
_SILENT.disabled = True

_HEADER_BYTES = {348: "Nifti1Header", 540: "Nifti2Header"}


class VolumeError(Exception):
    """A file cannot be used; the message says why, without the file's name.

    Args:
        kind: what is wrong, in the words of :class:`fedmepd.data.findings.Finding`.
        reason: what is wrong with this file.
    """

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind


UNREADABLE = "unreadable file"
NOT_3D = "file that is not 3-D"
NO_NUMBERS = "values that are no plain numbers"
BAD_HEADER = "damaged header"
TOO_LARGE = "volume that is too large"


@dataclass(frozen=True)
class Volumes:
    """What a file holds.

    Args:
        values: (X, Y, Z), or (X, Y, Z, channels) for a file of several volumes; scaled as the header says.
        affine: (4, 4) float64, voxel indices to mm.
        header: nibabel's header, without the file's extensions.
        form: what of the header the affine is: ``sform``, ``qform``, or ``sizes``, the voxel sizes alone, with no word
            about the orientation.
        unit_mm: the size in mm of the unit in which the header gives positions.
        unit_ignored: a unit that the header names and that would give no voxel of a head, so that mm are read.
    """

    values: np.ndarray
    affine: np.ndarray
    header: Any
    form: str = "sform"
    unit_mm: float = 1.0
    unit_ignored: str = ""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Size of a voxel in mm along each axis."""
        return tuple(float(np.linalg.norm(column)) for column in self.affine[:3, :3].T)


def is_nifti(path: Path) -> bool:
    """Whether a file's name is that of a NIfTI image, in upper or lower case, and not hidden."""
    return stem(path) is not None


def stem(path: Path) -> str | None:
    """A NIfTI file's name without its ending, in lower case; None for other and hidden files."""
    name = path.name.lower()
    if name.startswith("."):
        return None
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.endswith(suffix)), None)


def read_volumes(path: Path, channels: bool = False) -> Volumes:
    """Reads a file whole. Further dimensions of length 1 are dropped; whether it is compressed is seen by its content.

    Args:
        path: a .nii or .nii.gz file.
        channels: whether the file holds several volumes, along its fourth axis.

    Raises:
        VolumeError: the file is not a regular file, empty, truncated, damaged or not NIfTI; it is not 3-D (with
            ``channels``: 4-D), not of plain numbers, too large, or its header gives no usable position in space.
        PermissionError: the user may not read it.
    """
    try:
        header, shape, offset, size = _header(path, channels)
        content = _content(path, offset + size)
        values = _values(content, header).reshape(shape)
    except (VolumeError, PermissionError):
        raise
    # A damaged file can make the decoders fail in any way.
    except Exception as error:
        raise VolumeError(UNREADABLE, " ".join(str(error).split()) or type(error).__name__) from error
    return _placed(values, header)


def _header(path: Path, channels: bool) -> tuple[Any, tuple[int, ...], int, int]:
    """Returns header, shape, offset of the first voxel and number of bytes of all voxels, after checking them."""
    import nibabel

    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise VolumeError(UNREADABLE, "it is no regular file")
    if not status.st_size:
        raise VolumeError(UNREADABLE, "it is empty")
    with _opened(path) as file:
        first = file.read(max(_HEADER_BYTES))
    length = next((size for size in _HEADER_BYTES if size in _both_orders(first[:4])), None)
    if length is None or len(first) < length:
        raise VolumeError(UNREADABLE, "it does not begin with a NIfTI header")
    header = getattr(nibabel, _HEADER_BYTES[length])(first[:length], check=False)
    # Repairs harmless faults, such as a missing qfac, and raises the others. nibabel's own logger would print all of
    # them.
    header.check_fix(logger=_SILENT, error_level=40)
    header.quaternion_threshold = _QUATERNION_ROUNDING
    kind, expected = header.get_data_dtype(), 4 if channels else 3
    shape = _without_ones(header.get_data_shape(), expected)
    if len(shape) != expected or min(shape) < 1:
        raise VolumeError(NOT_3D, f"it has shape {tuple(shape)}: expected one {expected}-D volume")
    if kind.kind not in "iuf":
        raise VolumeError(NO_NUMBERS, f"it holds values of type {kind}: expected plain numbers")
    if math.prod(shape[:3]) > MOST_VOXELS or math.prod(shape[3:]) > MOST_CHANNELS:
        raise VolumeError(TOO_LARGE, f"it has shape {tuple(shape)}: expected at most {MOST_VOXELS} voxels")
    offset, size = header.get_data_offset(), math.prod(shape) * kind.itemsize
    room = status.st_size * (_MOST_COMPRESSION if _is_compressed(path) else 1)
    if not length <= offset <= 2**20 or offset + size > room:
        raise VolumeError(UNREADABLE, f"it is shorter than the {offset + size} bytes that its header promises")
    return header, shape, offset, size


def _without_ones(shape: tuple[int, ...], expected: int) -> tuple[int, ...]:
    """Drops dimensions of length 1 after the third one, as long as there are more than expected."""
    left = list(shape)
    while len(left) > expected and 1 in left[3:]:
        left.pop(left.index(1, 3))
    return tuple(left)


def _is_compressed(path: Path) -> bool:
    """Whether a file is compressed; some programs give it the other ending."""
    with open(path, "rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def _opened(path: Path) -> Any:
    return gzip.open(path) if _is_compressed(path) else open(path, "rb")


def _both_orders(four: bytes) -> tuple[int, int]:
    return int.from_bytes(four, "little"), int.from_bytes(four, "big")


def _content(path: Path, size: int) -> bytes:
    try:
        with _opened(path) as file:
            # To the end, because a compressed file's checksum is there.
            content = file.read(size + _MOST_TRAILING + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise VolumeError(UNREADABLE, f"it is truncated or damaged: {error}") from error
    if len(content) < size:
        raise VolumeError(UNREADABLE, f"it holds {len(content)} of the {size} bytes that its header promises")
    if len(content) > size + _MOST_TRAILING:
        raise VolumeError(UNREADABLE, f"it goes on after the {size} bytes that its header promises")
    return content


def _values(content: bytes, header: Any) -> np.ndarray:
    from nibabel.arrayproxy import ArrayProxy

    # Scaling with a damaged factor overflows; the values are looked at afterwards.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asanyarray(ArrayProxy(BytesIO(content), header))


def _placed(values: np.ndarray, header: Any) -> Volumes:
    """Puts values into space as their header says."""
    from nibabel.nifti1 import unit_codes

    form, affine = _affine(header)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    unit = unit_codes.label[code] if (code := int(header["xyzt_units"]) & 7) in unit_codes.label else ""
    size = _UNITS_MM.get(unit, 1.0)
    sensible = all(_HEAD_MM[0] <= length * size <= _HEAD_MM[1] for length in lengths)
    # Many programs write millimetres and leave another unit in the header.
    used = size if sensible else 1.0
    if not ((lengths * used > 1e-3) & (lengths * used < 1e3)).all():
        raise VolumeError(BAD_HEADER, _NO_SIZE)
    affine = np.diag([used, used, used, 1.0]) @ affine
    return Volumes(values, affine, header, form, used, unit if used != size else "")


_NO_SIZE = "its header gives voxels without a sensible size, or axes that lie in one plane"


def _affine(header: Any) -> tuple[str, np.ndarray]:
    """Returns which of the header's forms says where the volume is, and the affine that it says."""
    forms = [form for form in ("sform", "qform") if int(header[f"{form}_code"])]
    if forms == ["sform", "qform"] and not header.get_sform()[:3].any():
        forms = ["qform"]
    form = forms[0] if forms else "sizes"
    try:
        with np.errstate(all="ignore"):
            get = {"sform": header.get_sform, "qform": header.get_qform, "sizes": header.get_base_affine}[form]
            affine = np.asarray(get(), dtype=np.float64)
            lengths = np.linalg.norm(affine[:3, :3], axis=0)
    except Exception as error:
        raise VolumeError(BAD_HEADER, f"its header gives no position in space: {error}") from error
    if not np.isfinite(affine).all():
        raise VolumeError(BAD_HEADER, "its header gives a position in space that is not finite")
    # The volume spanned by the axes, relative to that of perpendicular ones.
    if not (lengths > 0).all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 0.1:
        raise VolumeError(BAD_HEADER, _NO_SIZE)
    return form, affine


def without_nan_outside(values: np.ndarray) -> np.ndarray:
    """Returns an image (X, Y, Z) with 0 where it holds NaN around the brain, as some programs mask images.

    NaN that is enclosed by other values, and infinity, stay.
    """
    if values.dtype.kind != "f" or not (missing := np.isnan(values)).any():
        return values
    from scipy.ndimage import binary_fill_holes

    return np.where(missing & ~binary_fill_holes(~missing), values.dtype.type(0), values)


def nearest_whole(values: np.ndarray) -> np.ndarray:
    """Returns a label's values, rounded where they are whole but for the rounding of scaled files (up to 0.05)."""
    if values.dtype.kind != "f":
        return values
    with np.errstate(invalid="ignore"):
        whole = np.rint(values)
        return np.where(np.abs(values - whole) <= _MOST_ROUNDING, whole, values)


_MOST_ROUNDING = 0.05
