"""Images in formats that are not read: what they are, and what converts them to NIfTI."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_FREESURFER = "FreeSurfer volumes: convert them with mri_convert"
_SLICER = "NRRD or MetaImage volumes: convert them with 3D Slicer or SimpleITK"
_PACKED = "packed in another way than gzip, or not completely copied: unpack or copy them again"
_DICOM = "DICOM: convert them with dcm2niix, then prepare them as the other cases are"

# By the ending of a file's name.
_FORMATS = {
    ".mgz": _FREESURFER,
    ".mgh": _FREESURFER,
    ".nrrd": _SLICER,
    ".nhdr": _SLICER,
    ".mha": _SLICER,
    ".mhd": _SLICER,
    ".img": "pairs of .hdr and .img: convert them with nibabel or fslchfiletype",
    ".mnc": "MINC volumes: convert them with mnc2nii",
    ".nii.zip": _PACKED,
    ".nii.bz2": _PACKED,
    ".nii.xz": _PACKED,
    ".nii.part": _PACKED,
    ".nii.gz.part": _PACKED,
    ".dcm": _DICOM,
    ".ima": _DICOM,
}


def other_format(file: Path) -> str | None:
    """Returns what a file is, in words, if it is an image that is not read; None otherwise."""
    name = file.name.lower()
    if name.startswith(".") or not file.is_file():
        return None
    told = next((text for ending, text in _FORMATS.items() if name.endswith(ending)), None)
    # Scanners write DICOM without an ending.
    return told or (_DICOM if "." not in name and _is_dicom(file) else None)


def _is_dicom(file: Path) -> bool:
    try:
        with open(file, "rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False


def describe_formats(files: Iterable[Path]) -> list[tuple[Path, int, str]]:
    """Returns the first file of each format that is not read, how many there are of it, and what it is."""
    found: dict[str, list[Path]] = {}
    for file in files:
        if (told := other_format(file)) is not None:
            found.setdefault(told, []).append(file)
    return [(of_one[0], len(of_one), told) for told, of_one in found.items()]
