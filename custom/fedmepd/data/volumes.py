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
    """

    values: np.ndarray
    affine: np.ndarray
    header: Any

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
    """Reads a file whole.

    Args:
        path: a .nii or .nii.gz file.
        channels: whether the file holds several volumes, along its fourth axis.

    Raises:
        VolumeError: the file is not a regular file, empty, truncated, damaged or not NIfTI; it is not 3-D (with
            ``channels``: 4-D), not of plain numbers, too large, or its header gives no usable position in space.
    """
    try:
        header, offset, size = _header(path, channels)
        content = _content(path, offset + size)
        values = _values(content, header)
    except VolumeError:
        raise
    # A damaged file can make the decoders fail in any way.
    except Exception as error:
        raise VolumeError(UNREADABLE, " ".join(str(error).split()) or type(error).__name__) from error
    return Volumes(values, _affine(header), header)


def _header(path: Path, channels: bool) -> tuple[Any, int, int]:
    """Returns header, offset of the first voxel and number of bytes of all voxels, after checking them."""
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
    shape, kind = header.get_data_shape(), header.get_data_dtype()
    expected = 4 if channels else 3
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
    return header, offset, size


def _is_compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


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


def _affine(header: Any) -> np.ndarray:
    try:
        with np.errstate(all="ignore"):
            affine = np.asarray(header.get_best_affine(), dtype=np.float64)
            lengths = np.linalg.norm(affine[:3, :3], axis=0)
    except Exception as error:
        raise VolumeError(BAD_HEADER, f"its header gives no position in space: {error}") from error
    if not np.isfinite(affine).all():
        raise VolumeError(BAD_HEADER, "its header gives a position in space that is not finite")
    # The volume spanned by the axes, relative to that of perpendicular ones.
    if not ((lengths > 1e-3) & (lengths < 1e3)).all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 0.1:
        raise VolumeError(BAD_HEADER, "its header gives voxels without a sensible size, or axes that lie in one plane")
    return affine
