import gzip
import os
import struct

import nibabel
import numpy as np
import pytest

from fedmepd.data.volumes import (
    BAD_HEADER,
    NO_NUMBERS,
    NOT_3D,
    TOO_LARGE,
    UNREADABLE,
    VolumeError,
    read_volumes,
)
from tests.data.files import LPS, save

VALUES = np.arange(-3, 57, dtype="int16").reshape(3, 4, 5)

# Where the fields of a NIfTI-1 header stand.
DIM, DATATYPE, BITPIX, VOX_OFFSET, PIXDIM, SLOPE, SFORM_CODE, SROW_X = 40, 70, 72, 108, 76, 112, 254, 280


def patched(path, place, form, *values):
    """Changes a field of an uncompressed file's header."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, place, *values)
    path.write_bytes(bytes(content))
    return path


def kind_of(path, channels=False):
    with pytest.raises(VolumeError) as error:
        read_volumes(path, channels)
    assert str(path) not in str(error.value)
    return error.value.kind


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_values_and_affine(tmp_path, suffix, dtype):
    affine = LPS * [2, 3, 4, 1]
    path = save(tmp_path / "x.nii.gz", np.abs(VALUES).astype(dtype), affine)
    content = gzip.decompress(path.read_bytes())
    path = tmp_path / f"y{suffix}"
    path.write_bytes(content if suffix == ".nii" else gzip.compress(content))
    read = read_volumes(path)
    assert read.values.dtype == dtype and np.array_equal(read.values, np.abs(VALUES))
    assert np.array_equal(read.affine, affine) and read.spacing == (2, 3, 4)


def test_scaled_values(tmp_path):
    path = patched(save(tmp_path / "x.nii", VALUES), SLOPE, "<2f", 0.5, 10)
    assert np.array_equal(read_volumes(path).values, VALUES * 0.5 + 10)


@pytest.mark.parametrize("kind", [nibabel.Nifti2Image, nibabel.Nifti1Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_formats_in_both_byte_orders(tmp_path, kind, order):
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype("int16").newbyteorder(order))
    nibabel.save(kind(VALUES.astype(f"{order}i2"), LPS, header), tmp_path / "x.nii.gz")
    assert np.array_equal(read_volumes(tmp_path / "x.nii.gz").values, VALUES)


def test_several_volumes(tmp_path):
    several = np.stack([VALUES, 2 * VALUES], axis=-1)
    path = save(tmp_path / "x.nii.gz", several)
    assert np.array_equal(read_volumes(path, channels=True).values, several)
    assert kind_of(path) == NOT_3D
    assert kind_of(save(tmp_path / "y.nii.gz", VALUES), channels=True) == NOT_3D


@pytest.mark.parametrize("left", [0, 3, 300, 348, 400, -8, -1])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_truncated(tmp_path, suffix, left):
    """The last bytes of a compressed file hold its checksum alone, and are missed all the same."""
    path = save(tmp_path / f"x{suffix}", np.random.default_rng(0).integers(0, 999, (9, 9, 9)).astype("int16"))
    path.write_bytes(path.read_bytes()[:left])
    assert kind_of(path) == UNREADABLE


def test_a_flipped_bit_in_a_compressed_file(tmp_path):
    path = save(tmp_path / "x.nii.gz", np.random.default_rng(0).integers(0, 999, (9, 9, 9)).astype("int16"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))
    assert kind_of(path) == UNREADABLE


def test_a_header_that_promises_more_than_the_file_can_hold(tmp_path):
    """Nothing of that size is allocated: 2**31 bytes from a file of a few hundred."""
    path = patched(save(tmp_path / "x.nii", VALUES), DIM, "<4h", 3, 1024, 1024, 200)
    assert kind_of(path) == UNREADABLE
    compressed = tmp_path / "x.nii.gz"
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    assert kind_of(compressed) == UNREADABLE
    assert kind_of(patched(path, DIM, "<4h", 3, 32767, 32767, 32767)) == TOO_LARGE


def test_a_file_that_goes_on(tmp_path):
    """As a gzip bomb does."""
    path = save(tmp_path / "x.nii.gz", VALUES)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(10**7)))
    assert kind_of(path) == UNREADABLE


@pytest.mark.parametrize(
    ("place", "form", "values", "expected"),
    [
        (DIM, "<4h", (3, 3, 4, 0), NOT_3D),
        (DIM, "<4h", (3, 3, -4, 5), NOT_3D),
        (DIM, "<h", (2,), NOT_3D),
        (DATATYPE, "<2h", (32, 64), NO_NUMBERS),
        (DATATYPE, "<2h", (128, 24), NO_NUMBERS),
        (DATATYPE, "<h", (9999,), UNREADABLE),
        (VOX_OFFSET, "<f", (float("nan"),), UNREADABLE),
        (VOX_OFFSET, "<f", (1e30,), UNREADABLE),
        (VOX_OFFSET, "<f", (-352,), UNREADABLE),
        (SROW_X, "<4f", (float("nan"), 0, 0, 0), BAD_HEADER),
        (SROW_X, "<4f", (0, 0, 0, 0), BAD_HEADER),
        (SROW_X, "<4f", (1e-9, 0, 0, 0), BAD_HEADER),
        (SROW_X, "<4f", (3e38, 3e38, 0, 0), BAD_HEADER),
    ],
)
def test_damaged_headers(tmp_path, place, form, values, expected):
    assert kind_of(patched(save(tmp_path / "x.nii", VALUES), place, form, *values)) == expected


def test_a_header_without_a_position(tmp_path):
    """Neither qform nor sform: the voxel sizes count, as everywhere."""
    path = patched(save(tmp_path / "x.nii", VALUES, LPS * [1, 2, 3, 1]), 252, "<2h", 0, 0)
    assert read_volumes(path).spacing == (1, 2, 3)
    assert read_volumes(patched(path, PIXDIM, "<4f", 1, 0, 2, 3)).spacing == (1, 2, 3)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x_t1.nii")
    assert kind_of(tmp_path / "x_t1.nii") == UNREADABLE
    (tmp_path / "y.nii").mkdir()
    assert kind_of(tmp_path / "y.nii") == UNREADABLE
