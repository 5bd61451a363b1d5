from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fedmepd.data.cases import Case
from fedmepd.data.grids import (
    frame_spacing,
    into_frame,
    out_of_frame,
)
from fedmepd.data.inspection import inspect_cases
from fedmepd.data.layouts import find_dataset
from fedmepd.data.own_grid import probability_image, save_image, segmentation_image
from fedmepd.data.preparation import PreparedCases
from fedmepd.errors import FedMEPDError
from fedmepd.tasks.brats import BRATS
from tests.data.files import save

REAL = Path(__file__).parents[3] / "shared" / "real"

# All 48 ways in which three axes can point: their order, and the direction of each.
TURNS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def affine_of(turn, sizes=(1, 2, 3)):
    order, signs = turn
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * sizes[axis]
    affine[:3, 3] = 5, -7, 11
    return affine


@pytest.mark.parametrize("turn", TURNS)
def test_voxels_stand_where_their_coordinates_say(turn):
    """In the frame, indices grow to the left, back and up: the world's -x, -y and +z."""
    affine, values = affine_of(turn), np.arange(24).reshape(2, 3, 4)
    framed = into_frame(values, affine)
    world = {values[index]: affine @ (*index, 1) for index in np.ndindex(values.shape)}
    for index in np.ndindex(framed.shape):
        for axis, sign in enumerate((-1, -1, 1)):
            if index[axis] + 1 < framed.shape[axis]:
                following = tuple(place + (number == axis) for number, place in enumerate(index))
                step = sign * (world[framed[following]] - world[framed[index]])
                assert step[axis] == pytest.approx(frame_spacing(affine)[axis]) and np.count_nonzero(step) == 1
    assert np.array_equal(out_of_frame(framed, affine), values)


@pytest.mark.parametrize("convention", ["brats", "brats2023", "msd"])
@pytest.mark.parametrize("turn", TURNS[::7])
def test_a_segmentation_comes_back(tmp_path, turn, convention):
    """A label that is prepared and put back is the file that it was: grid, header, orientation and values."""
    rng = np.random.default_rng(0)
    image = np.zeros((9, 10, 11), dtype="int16")
    image[2:7, 1:8, 3:9] = rng.integers(1, 900, (5, 7, 6))
    label = np.zeros(image.shape, dtype="uint8")
    values = {"brats": (1, 2, 4), "brats2023": (1, 2, 3), "msd": (1, 2, 3)}[convention]
    label[3:6, 2:6, 4:8] = rng.choice((0, *values), (3, 4, 4))
    path = tmp_path / "a" / "t1.nii.gz"
    affine = affine_of(turn)
    save(path, image, affine)
    header = nibabel.load(path)
    header.set_sform(affine, 4)
    header.set_qform(affine, 2)
    nibabel.save(header, path)
    case = Case(
        "a", {"T1": path}, save(tmp_path / "a" / "seg.nii.gz", label, affine), convention=convention, task=BRATS
    )
    item = PreparedCases([case], tmp_path / "cache")[0]
    assert item["label"].shape[1:] != label.shape
    made = segmentation_image(case, item["label"][0].numpy(), item["corner"].tolist(), convention)
    save_image(tmp_path / "out.nii.gz", made)
    found = nibabel.load(tmp_path / "out.nii.gz")
    assert np.array_equal(np.asanyarray(found.dataobj), label) and found.get_data_dtype() == np.uint8
    assert np.array_equal(found.affine, nibabel.load(path).affine)
    for key in ("qform_code", "sform_code", "xyzt_units", "pixdim", "srow_x"):
        assert np.array_equal(found.header[key], nibabel.load(path).header[key]), key


def test_an_oblique_volume_comes_back(tmp_path):
    """Axes between the main ones: turned to the nearest, never resampled."""
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    label = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype("uint8")
    path = save(tmp_path / "t1.nii", label.astype("int16") + 1, affine)
    case = Case("a", {"T1": path}, None, task=BRATS)
    made = segmentation_image(case, into_frame(label, affine), (0, 0, 0), "brats2023")
    assert np.array_equal(np.asanyarray(made.dataobj), label) and np.allclose(made.affine, affine)


def test_probabilities_come_back(tmp_path):
    """In a file whose integers the header scales, too."""
    affine = affine_of(TURNS[13])
    path = save(tmp_path / "t1.nii", np.ones((4, 5, 6), "int16"), affine)
    header = nibabel.load(path)
    header.header.set_slope_inter(0.01, 3)
    nibabel.save(header, path)
    probabilities = np.random.default_rng(0).random((4, 5, 6))
    probabilities[0] = 0
    box = into_frame(probabilities, affine)
    corner = [int(np.flatnonzero(box.any(tuple({0, 1, 2} - {axis})))[0]) for axis in range(3)]
    made = probability_image(
        Case("a", {"T1": path}, None, task=BRATS), box[tuple(slice(start, None) for start in corner)], corner
    )
    save_image(tmp_path / "out.nii.gz", made)
    found = nibabel.load(tmp_path / "out.nii.gz")
    assert np.allclose(found.get_fdata(), probabilities, atol=1e-6) and found.get_data_dtype() == np.float32
    assert np.array_equal(found.affine, nibabel.load(path).affine)


def test_the_same_segmentation_is_the_same_file(tmp_path):
    path = save(tmp_path / "t1.nii", np.ones((4, 5, 6), "int16"))
    made = segmentation_image(
        Case("a", {"T1": path}, None, task=BRATS), np.ones((4, 5, 6), "uint8"), (0, 0, 0), "brats"
    )
    for name in ("one.nii.gz", "two.nii.gz"):
        save_image(tmp_path / name, made)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
    (tmp_path / "file").touch()
    with pytest.raises(FedMEPDError, match="cannot write"):
        save_image(tmp_path / "file" / "x.nii.gz", made)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real cases in {REAL}")
def test_real_labels_come_back(tmp_path):
    cases = inspect_cases(find_dataset(BRATS, REAL).cases).cases
    data = PreparedCases(cases, tmp_path)
    for index, case in enumerate(cases):
        item = data[index]
        assert max(item["label"].shape) < 240
        made = segmentation_image(case, item["label"][0].numpy(), item["corner"].tolist(), "brats")
        original = nibabel.load(case.label)
        assert np.array_equal(np.asanyarray(made.dataobj), np.asanyarray(original.dataobj))
        assert np.array_equal(made.affine, original.affine)
