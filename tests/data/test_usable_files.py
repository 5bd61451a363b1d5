"""Files that other programs read are read: with repairs that leave no choice, each of them told."""

import gzip

import nibabel
import numpy as np
import pytest

from fedmepd.data.inspection import inspect_cases
from fedmepd.data.own_grid import segmentation_image
from fedmepd.data.preparation import read_case
from fedmepd.data.volumes import NOT_3D, VolumeError, nearest_whole, read_volumes, without_nan_outside
from tests.data.files import LPS, save, tumour, volume, write_case

VALUES = np.arange(60, dtype="int16").reshape(3, 4, 5)


def told(case):
    return {(found.severity, found.kind) for found in inspect_cases([case]).findings}


def with_header(path, change, affine=LPS):
    """Writes the values anew with a header that ``change`` has changed, byte for byte as it leaves it."""
    image = nibabel.Nifti1Image(np.asanyarray(nibabel.load(path).dataobj), affine)
    image.set_qform(affine, 1)
    content = bytearray(image.to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    change(header)
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)))
    return path


@pytest.mark.parametrize("more", [(1,), (1, 1)])
def test_further_dimensions_of_length_one(tmp_path, more):
    path = save(tmp_path / "x.nii.gz", VALUES.reshape(VALUES.shape + more))
    assert np.array_equal(read_volumes(path).values, VALUES)
    series = save(tmp_path / "y.nii.gz", np.stack([VALUES, VALUES], axis=-1).reshape(3, 4, 5, 2, *more[1:]))
    with pytest.raises(VolumeError) as error:
        read_volumes(series)
    assert error.value.kind == NOT_3D


def test_several_volumes_as_a_vector(tmp_path):
    """Some programs store channels in the fifth dimension."""
    several = np.stack([VALUES, 2 * VALUES], axis=-1)
    path = save(tmp_path / "x.nii.gz", several[:, :, :, None])
    assert np.array_equal(read_volumes(path, channels=True).values, several)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_the_content_tells_whether_a_file_is_compressed(tmp_path, name):
    content = gzip.decompress(save(tmp_path / "made.nii.gz", VALUES).read_bytes())
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name == "x.nii" else content)
    assert np.array_equal(read_volumes(path).values, VALUES)


def test_a_quaternion_that_is_too_long_by_rounding(tmp_path):
    def change(header):
        header["sform_code"] = 0
        header["quatern_b"], header["quatern_c"], header["quatern_d"] = 0, 0, 1.0000005

    path = with_header(save(tmp_path / "x.nii.gz", VALUES), change)
    # A half turn about the third axis: left and posterior.
    assert np.allclose(read_volumes(path).affine, LPS, atol=1e-5)

    def worse(header):
        change(header)
        header["quatern_d"] = 1.01

    with pytest.raises(VolumeError, match="gives no position in space"):
        read_volumes(with_header(save(path, VALUES), worse))


def test_an_sform_of_zeros_beside_a_good_qform(tmp_path):
    def change(header):
        header["sform_code"] = 1
        for row in ("srow_x", "srow_y", "srow_z"):
            header[row] = 0

    case = write_case(tmp_path, "case")
    path = with_header(case.images["FLAIR"], change)
    assert np.allclose(read_volumes(path).affine, LPS)
    assert told(case) == {
        ("warning", "header whose sform is all 0, read by its qform"),
        ("note", "headers that differ in qform or sform code alone"),
    }


@pytest.mark.parametrize(
    ("unit", "stored", "size", "kind"),
    [
        ("micron", 1000, 1, ("note", "header in another unit than mm")),
        ("meter", 0.001, 1, ("note", "header in another unit than mm")),
        # A voxel of a micron or of a metre is none of a head.
        ("micron", 1, 1, ("warning", "header with a unit that cannot be right")),
        ("meter", 1, 1, ("warning", "header with a unit that cannot be right")),
        ("mm", 1, 1, None),
        ("unknown", 2, 2, ("warning", "voxels of another size than the task's")),
    ],
)
def test_units(tmp_path, unit, stored, size, kind):
    affine = LPS * [stored, stored, stored, 1]
    affine[:3, 3] = 7 * stored
    case = write_case(tmp_path, "case", ("T1",), label=None)
    path = with_header(case.images["T1"], lambda header: header.set_xyzt_units(unit), affine)
    read = read_volumes(path)
    assert np.allclose(read.spacing, size) and np.allclose(read.affine[:3, 3], 7 * size)
    assert told(case) - {("note", "case without a label, for inference only")} == ({kind} if kind else set())
    # What is written is in the unit of its header again.
    box = np.ones((2, 2, 2), dtype="uint8")
    made = segmentation_image(case, box, (0, 0, 0), "brats")
    assert np.allclose(made.affine, affine) and made.header.get_xyzt_units()[0] == unit


def test_nan_around_the_brain_becomes_0(tmp_path):
    brain = volume(300, dtype="float32")
    masked = np.where(brain > 0, brain, np.float32(np.nan))
    case = write_case(tmp_path, "case", FLAIR=masked)
    assert told(case) == {("note", "NaN around the body, which becomes 0")}
    assert np.array_equal(read_case(case)["image"][0].numpy(), brain)
    masked[4, 4, 5] = np.nan
    kept = without_nan_outside(masked)
    assert np.isnan(kept[4, 4, 5]) and np.isnan(kept).sum() == 1
    save(case.images["FLAIR"], masked)
    assert ("error", "NaN or infinity in an image") in told(case)


def scaled(label, kind):
    """What nibabel writes of floats in a header that says whole numbers."""
    image = nibabel.Nifti1Image(label.astype("float64"), LPS)
    image.set_data_dtype(kind)
    return image


@pytest.mark.parametrize("kind", ["uint8", "int16"])
def test_labels_that_are_whole_but_for_rounding(tmp_path, kind):
    case = write_case(tmp_path, "case")
    nibabel.save(scaled(tumour(), kind), case.label)
    assert not np.array_equal(read_volumes(case.label).values, tumour())
    assert told(case) == {("note", "label values that are whole but for rounding")}
    expected = np.select([tumour() == 1, tumour() == 2, tumour() == 4], [1, 2, 3], 0)
    assert np.array_equal(read_case(case)["label"][0].numpy(), expected)


def test_what_is_rounded():
    values = np.array([0.049, 0.951, 2.05, 2.06, 1.5, np.nan, -0.04])
    assert np.array_equal(nearest_whole(values), [0, 1, 2, 2.06, 1.5, np.nan, 0], equal_nan=True)
    whole = np.array([1, 2, 4], dtype="uint8")
    assert nearest_whole(whole) is whole
