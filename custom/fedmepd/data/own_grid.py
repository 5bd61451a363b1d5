"""What the network found, back on the grid of a file of the case, and written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedmepd.data.cases import Case
from fedmepd.data.grids import into_frame, out_of_frame
from fedmepd.data.resampling import Grid, from_network
from fedmepd.data.volumes import VolumeError, Volumes, read_volumes
from fedmepd.errors import DataError


def segmentation_image(
    case: Case, classes: np.ndarray, corner: Sequence[int], convention: str, like: Path | None = None
) -> Any:
    """Puts a segmentation back into the grid of its case.

    Args:
        case: that was segmented.
        classes: class numbers (X, Y, Z) of a box on the network's grid.
        corner: the box's first voxel there.
        convention: of the label values to write.
        like: the file of the case that decides grid, orientation and header if its task resamples; None: its first
            image.

    Returns:
        a nibabel image of the file's shape and affine, background outside the box.

    Raises:
        VolumeError: the file, or the case's first image, cannot be read any more.
    """
    values = np.array(case.task.label_of_class(convention), dtype=np.uint8)
    return _image(case, values[classes], corner, like)


def probability_image(case: Case, probabilities: np.ndarray, corner: Sequence[int]) -> Any:
    """Puts probabilities (X, Y, Z) back like :func:`segmentation_image`: float32, 0 outside the box."""
    return _image(case, probabilities.astype(np.float32), corner)


def own_classes(case: Case, classes: np.ndarray, corner: Sequence[int], like: Path) -> np.ndarray:
    """Returns the class numbers of a box, as of :func:`segmentation_image`, on the grid of a file of the case.

    Args:
        case: of a task that resamples.
        classes, corner, like: see there.

    Raises:
        DataError: a file cannot be read any more.
    """
    try:
        return _on_own_grid(case, classes, corner, read_volumes(like))
    except (VolumeError, OSError) as error:
        raise DataError(
            f"a file of case {case.name} cannot be read any more: {error}. Restore it, then start the run again",
            public="a file of the site's data cannot be read any more",
        ) from error


def first_classes(case: Case, classes: np.ndarray, corner: Sequence[int]) -> tuple[np.ndarray, tuple[float, ...]]:
    """Returns the class numbers of a box on the grid of the case's first image, and the size of its voxels in mm.

    Args:
        case, classes, corner: see :func:`segmentation_image`.

    Raises:
        VolumeError: the image cannot be read any more.
    """
    read = _first(case)
    return _on_own_grid(case, classes, corner, read), read.spacing


def _image(case: Case, box: np.ndarray, corner: Sequence[int], like: Path | None = None) -> Any:
    import nibabel

    # Where nothing is resampled, all files lie on one grid, and the first one says how they are turned.
    read = read_volumes(like) if like is not None and case.task.resampled else _first(case)
    back = np.ascontiguousarray(_on_own_grid(case, box, corner, read))
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


def _first(case: Case) -> Volumes:
    return read_volumes(case.images[case.modalities[0]], bool(case.channels))


def _on_own_grid(case: Case, box: np.ndarray, corner: Sequence[int], read: Volumes) -> np.ndarray:
    """A box on the network's grid, on the grid of a file; 0 outside."""
    if case.task.resampled:
        return from_network(_grid(_first(case)), case.task.voxel_mm, box, corner, _grid(read))
    framed = into_frame(np.zeros(read.values.shape[:3], dtype=box.dtype), read.affine)
    framed[tuple(slice(start, start + side) for start, side in zip(corner, box.shape, strict=True))] = box
    return out_of_frame(framed, read.affine)


def _grid(read: Volumes) -> Grid:
    return Grid(read.values.shape[:3], read.affine)


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
