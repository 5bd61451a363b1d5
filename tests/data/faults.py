"""A data set in which every case has a fault of its own, as hospitals' folders have them."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

from tests.data.files import LPS, SHAPE, save, tumour, volume, write_case

# What `fedmepd data check` counts, by fault. All of them, and those below, are told with the exit status 1.
ERRORS: dict[str, tuple[str, Callable[[Path], object]]] = {}
# Of these the case can be used.
WARNINGS: dict[str, tuple[str, Callable[[Path], object]]] = {}
NOTES: dict[str, tuple[str, Callable[[Path], object]]] = {}


def fault(table: dict, message: str) -> Callable:
    """Enters a function that makes a case with a fault in a folder; its name becomes the fault's and the case's."""

    def enter(make: Callable[[Path], object]) -> Callable[[Path], object]:
        table[make.__name__] = (message, make)
        return make

    return enter


def flair(folder: Path, name: str, **replaced: np.ndarray) -> Path:
    return write_case(folder, name, **replaced).images["FLAIR"]


def float_volume(place: tuple[int, int, int], value: float) -> np.ndarray:
    made = volume(333, dtype="float32")
    made[place] = value
    return made


@fault(ERRORS, "unreadable file")
def truncated_gzip(folder: Path) -> None:
    path = flair(folder, "truncated_gzip")
    path.write_bytes(path.read_bytes()[:-6])


@fault(ERRORS, "unreadable file")
def empty_file(folder: Path) -> None:
    flair(folder, "empty_file").write_bytes(b"")


@fault(ERRORS, "unreadable file")
def no_nifti(folder: Path) -> None:
    flair(folder, "no_nifti").write_bytes(gzip.compress(b"DICM" * 400))


@fault(ERRORS, "NaN or infinity in an image")
def not_a_number(folder: Path) -> None:
    flair(folder, "not_a_number", FLAIR=float_volume((4, 4, 4), np.nan))


@fault(ERRORS, "NaN or infinity in an image")
def endless(folder: Path) -> None:
    flair(folder, "endless", FLAIR=float_volume((4, 4, 5), -np.inf))


@fault(ERRORS, "constant image")
def flat(folder: Path) -> None:
    flair(folder, "flat", FLAIR=volume(0))


@fault(ERRORS, "image with negative intensities")
def normalised(folder: Path) -> None:
    flair(folder, "normalised", FLAIR=volume(35, dtype="float32") - 36)


@fault(ERRORS, "different shapes within a case")
def other_shape(folder: Path) -> None:
    flair(folder, "other_shape", T2=volume(77, shape=(8, 9, 12)))


@fault(ERRORS, "different affines within a case")
def other_place(folder: Path) -> None:
    path = write_case(folder, "other_place").images["T2"]
    moved = LPS.copy()
    moved[2, 3] = 5
    save(path, volume(78), moved)


@fault(ERRORS, "file that is not 3-D")
def four_dimensions(folder: Path) -> None:
    flair(folder, "four_dimensions", FLAIR=np.stack([volume(79), volume(80)], axis=-1))


@fault(ERRORS, "values that are no plain numbers")
def colours(folder: Path) -> None:
    flair(folder, "colours", FLAIR=volume(81).astype([("R", "u1"), ("G", "u1"), ("B", "u1")]))


@fault(ERRORS, "unknown label value")
def unknown_label(folder: Path) -> None:
    flair(folder, "unknown_label", label=np.where(tumour() == 4, 7, tumour()).astype("uint8"))


@fault(ERRORS, "unknown label value")
def soft_label(folder: Path) -> None:
    flair(folder, "soft_label", label=tumour().astype("float32") / 3)


@fault(ERRORS, "label of other classes, by the name of its case or dataset.json")
def paediatric(folder: Path) -> None:
    write_case(folder / "paediatric", "BraTS-PED-00001-000")


@fault(ERRORS, "case in folders that do not tell its patient")
def by_visit(folder: Path) -> None:
    write_case(folder / "by_visit" / "visit", "NIfTI")


@fault(ERRORS, "label that does not fit its images")
def label_of_another(folder: Path) -> None:
    flair(folder, "label_of_another", label=np.where(volume() == 0, 2, 0).astype("uint8"))


@fault(ERRORS, "file name that may be two modalities")
def ambiguous_name(folder: Path) -> None:
    path = flair(folder, "ambiguous_name")
    path.rename(path.with_name("t1_flair.nii.gz"))


@fault(ERRORS, "two files that look like the same modality")
def two_of_a_kind(folder: Path) -> None:
    path = flair(folder, "two_of_a_kind")
    save(path.with_name("fla.nii"), volume(82))


@fault(ERRORS, "two modalities with the same content")
def same_twice(folder: Path) -> None:
    flair(folder, "same_twice", T1=volume(83), T2=volume(83))


@fault(ERRORS, "same content under two names")
def z_copied(folder: Path) -> None:
    write_case(folder, "z_copied", ("T1",), T1=volume(84), label=tumour(kind=63))
    write_case(folder, "z_copy", ("T1",), T1=volume(84), label=None)


@fault(ERRORS, "no image")
def only_a_label(folder: Path) -> None:
    write_case(folder, "only_a_label", ())


@fault(ERRORS, "file outside the case's folder")
def link_elsewhere(folder: Path) -> None:
    path = flair(folder, "link_elsewhere")
    path.unlink()
    path.symlink_to(save(folder.parent / "elsewhere.nii.gz", volume(85)))


@fault(ERRORS, "unreadable file")
def pipe(folder: Path) -> None:
    path = flair(folder, "pipe")
    path.unlink()
    os.mkfifo(path.with_name("flair.nii"))


@fault(ERRORS, "damaged header")
def no_place(folder: Path) -> None:
    path = flair(folder, "no_place")
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[280:296] = bytes(16)
    path.write_bytes(gzip.compress(bytes(content)))


@fault(ERRORS, "label in the place of an image")
def copied_label(folder: Path) -> None:
    flair(folder, "copied_label", FLAIR=tumour(kind=5) * 100, label=tumour(kind=5))


@fault(ERRORS, "intensities that are too large or too small")
def huge(folder: Path) -> None:
    flair(folder, "huge", FLAIR=volume(87, dtype="float32") * np.float32(1e33))


@fault(WARNINGS, "images in a format that is not read")
def freesurfer(folder: Path) -> None:
    write_case(folder, "freesurfer", ("T1",))
    image = nibabel.MGHImage(volume(88).astype("float32"), LPS)
    nibabel.save(image, folder / "freesurfer" / "flair.mgz")


@fault(WARNINGS, "header without an orientation")
def no_codes(folder: Path) -> None:
    path = write_case(folder, "no_codes", ("T1",), label=None).images["T1"]
    image = nibabel.load(path)
    image.header["qform_code"] = image.header["sform_code"] = 0
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), path)


@fault(WARNINGS, "images that show more than the body")
def whole_head(folder: Path) -> None:
    affine = LPS * [30, 30, 30, 1]
    write_case(folder, "whole_head", ("T1", "T2"), affine=affine)


@fault(WARNINGS, "case of another disease than the task's, by its name")
def meningioma(folder: Path) -> None:
    label = tumour(kind=19)
    write_case(folder / "meningioma", "BraTS-MEN-00001-000", label=np.where(label == 4, 3, label).astype("uint8"))


@fault(WARNINGS, "unusual voxel size")
def thick_slices(folder: Path) -> None:
    write_case(folder, "thick_slices", ("T2",), affine=LPS * [1, 1, 9, 1])


@fault(WARNINGS, "label that reaches out of the images")
def label_outside(folder: Path) -> None:
    label = tumour(kind=17)
    label[0, 0, 0] = 2
    flair(folder, "label_outside", label=label)


@fault(WARNINGS, "headers whose qform and sform disagree")
def two_places(folder: Path) -> None:
    path = flair(folder, "two_places")
    image = nibabel.load(path)
    moved = image.affine.copy()
    moved[0, 3] += 4
    made = nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine)
    made.set_sform(image.affine, 2)
    made.set_qform(moved, 1)
    nibabel.save(made, path)


@fault(NOTES, "headers that differ in qform or sform code alone")
def other_code(folder: Path) -> None:
    path = flair(folder, "other_code")
    image = nibabel.load(path)
    image.header["sform_code"] = 4
    made = nibabel.Nifti1Image(np.asanyarray(image.dataobj), None, image.header)
    nibabel.save(made, path)


@fault(NOTES, "a few negative values, which become 0")
def interpolated(folder: Path) -> None:
    made = volume(86)
    made[0, 0, :4] = -2
    flair(folder, "interpolated", FLAIR=made)


@fault(NOTES, "NaN around the body, which becomes 0")
def masked(folder: Path) -> None:
    made = volume(89, dtype="float32")
    flair(folder, "masked", FLAIR=np.where(made == 0, np.float32(np.nan), made))


@fault(NOTES, "label values that are whole but for rounding")
def scaled_label(folder: Path) -> None:
    flair(folder, "scaled_label", label=tumour(kind=77).astype("float32") * np.float32(0.9999999))


@fault(NOTES, "label that is background alone")
def healthy(folder: Path) -> None:
    flair(folder, "healthy", label=np.zeros(SHAPE, "uint8"))


@fault(NOTES, "case without a label, for inference only")
def unlabelled(folder: Path) -> None:
    flair(folder, "unlabelled", label=None)


@fault(NOTES, "file of another name, passed over")
def another_name(folder: Path) -> None:
    path = flair(folder, "another_name")
    save(path.with_name("brainmask.nii.gz"), volume(1))


def write_good(folder: Path) -> None:
    """A case without any fault, which the others lie beside."""
    write_case(folder, "good", label=tumour(kind=42))
