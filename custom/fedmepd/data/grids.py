"""From a file's grid to the one frame that the network sees, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedmepd.data.cases import Case
from fedmepd.data.volumes import read_volumes

# BraTS' own orientation: axes point left, posterior, superior.
FRAME = "LPS"

# The farthest that a corner of the volume may move from one file of a case to another.
MOST_APART_MM = 0.1


def into_frame(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Turns and flips a volume (X, Y, Z) so that its axes point as nearly left, posterior, superior as they can.

    Args:
        values: the volume as its file holds it.
        affine: the file's, (4, 4).
    """
    from nibabel.orientations import apply_orientation

    return apply_orientation(values, _turn(affine))


def out_of_frame(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Undoes :func:`into_frame`."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    return apply_orientation(values, ornt_transform(axcodes2ornt(FRAME), io_orientation(affine)))


def _turn(affine: np.ndarray) -> np.ndarray:
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    return ornt_transform(io_orientation(affine), axcodes2ornt(FRAME))


def frame_spacing(affine: np.ndarray) -> tuple[float, float, float]:
    """Returns the size of a voxel in mm along each axis of the frame."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    order = np.argsort(_turn(affine)[:, 0])
    return tuple(float(sizes[axis]) for axis in order)


def apart_mm(one: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """Returns the largest distance in mm between the corners of a volume (X, Y, Z) under two affines."""
    corners = np.array([(x, y, z, 1) for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])])
    # A damaged header may contain any numbers.
    with np.errstate(all="ignore"):
        return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def segmentation_image(case: Case, classes: np.ndarray, corner: Sequence[int], convention: str) -> Any:
    """Puts a segmentation back into the grid of its case.

    Args:
        case: that was segmented; its first image decides grid, orientation and header.
        classes: class numbers (X, Y, Z) of a box in the frame.
        corner: the box's first voxel in the frame.
        convention: of the label values to write.

    Returns:
        a nibabel image of the case's shape and affine, background outside the box.

    Raises:
        VolumeError: the case's first image cannot be read any more.
    """
    return _image(case, np.array(case.task.label_of_class(convention), dtype=np.uint8)[classes], corner)


def probability_image(case: Case, probabilities: np.ndarray, corner: Sequence[int]) -> Any:
    """Puts probabilities (X, Y, Z) back like :func:`segmentation_image`: float32, 0 outside the box."""
    return _image(case, probabilities.astype(np.float32), corner)


def _image(case: Case, box: np.ndarray, corner: Sequence[int]) -> Any:
    import nibabel

    modality = case.modalities[0]
    read = read_volumes(case.images[modality], bool(case.channels))
    framed = into_frame(np.zeros(read.values.shape[:3], dtype=box.dtype), read.affine)
    framed[tuple(slice(start, start + side) for start, side in zip(corner, box.shape, strict=True))] = box
    back = np.ascontiguousarray(out_of_frame(framed, read.affine))
    header = read.header.copy()
    header.set_data_dtype(box.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    # In the unit of the header.
    affine = np.diag([1 / read.unit_mm] * 3 + [1.0]) @ read.affine
    image = kind(back, affine, header)
    # An image made from an affine and a header does not record which of the two forms was valid.
    for key in ("qform_code", "sform_code"):
        image.header[key] = header[key]
    return image


def save_image(path: Path, image: Any) -> None:
    """Writes a nibabel image atomically; compressed if the name ends in .gz.

    Raises:
        FedMEPDError: the disk is full or the folder cannot be written.
    """
    import gzip

    from fedmepd.storage import write_atomically

    content = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        # Without a time stamp, the same image gives the same file.
        content = gzip.compress(content, 6, mtime=0)
    write_atomically(path, lambda file: file.write(content))
