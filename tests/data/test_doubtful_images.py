"""What is readable and wrong all the same: told before anything is trained on it."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest

from fedmepd.data.inspection import inspect_cases
from fedmepd.data.preparation import read_case
from fedmepd.data.volumes import read_volumes
from fedmepd.tasks.brats import BRATS
from tests.data.files import LPS, save, tumour, write_case

SHAPE = (16, 16, 16)


def head(seed=0, kind="float32"):
    """Noise of mean 500 and deviation 50 in a box of 12 x 12 x 12, which makes 1728 voxels."""
    image = np.zeros(SHAPE)
    image[2:-2, 2:-2, 2:-2] = np.random.default_rng(seed).normal(500, 50, (12, 12, 12)).round()
    return image.astype(kind)


def case_of(folder, name="case", label=None, affine=LPS, **images):
    made = {kind: head(number) for number, kind in enumerate(("FLAIR", "T1ce", "T1", "T2"))} | images
    return write_case(folder, name, affine=affine, label=label, **made)


def kinds(case, severity):
    return [found.kind for found in inspect_cases([case]).findings if found.severity == severity]


def hot(value, count=1):
    made = head()
    made[2, 2, 2 : 2 + count] = value
    return made


@pytest.mark.parametrize(
    ("image", "warned"),
    [
        (head(), False),
        # 5 of 1728 voxels at 6 deviations: as bright vessels are.
        (hot(800, 5), False),
        (hot(1e4), True),
        (hot(1e6), True),
        (hot(32767, 9), True),
        # A gradient of a coil, and a tumour that is twice as bright, are none.
        (head() * np.linspace(0.5, 1.5, 16)[:, None, None], False),
        (np.where(np.arange(16)[:, None, None] < 4, 2, 1) * head(), False),
    ],
)
def test_single_voxels_far_outside_the_rest(tmp_path, image, warned):
    found = kinds(case_of(tmp_path, FLAIR=image.astype("float32")), "warning")
    assert found == ["single voxels far outside the rest"] * warned


@pytest.mark.parametrize(("factor", "fault"), [(1e33, True), (1e-30, True), (1e10, False), (1e-10, False)])
def test_intensities_whose_squares_leave_the_range(tmp_path, factor, fault):
    case = case_of(tmp_path, FLAIR=(head().astype("float64") * factor).astype("float32"))
    assert kinds(case, "error") == ["intensities that are too large or too small"] * fault


@pytest.mark.parametrize("factor", [1, 2, 1000])
def test_a_copy_of_the_label(tmp_path, factor):
    """It would teach the network the answer."""
    label = np.pad(tumour(), ((4, 4), (4, 3), (3, 3)))
    case = case_of(tmp_path, label=label, T2=label.astype("float32") * factor)
    assert kinds(case, "error") == ["label in the place of an image"]


def test_a_mask_in_the_place_of_an_image(tmp_path):
    case = case_of(tmp_path, T2=(head() > 0).astype("uint8"), T1=(head() > 500) + (head() > 0).astype("int16"))
    assert kinds(case, "warning") == ["image with few different values"] * 2


@pytest.mark.parametrize(("qform", "sform", "warned"), [(0, 0, True), (1, 0, False), (0, 1, False), (1, 1, False)])
def test_no_word_about_the_orientation(tmp_path, qform, sform, warned):
    case = case_of(tmp_path)
    for path in case.files:
        image = nibabel.load(path)
        made = nibabel.Nifti1Image(np.asanyarray(image.dataobj), None, image.header)
        made.set_qform(LPS, qform)
        made.set_sform(LPS, sform)
        nibabel.save(made, path)
    found = [finding for finding in inspect_cases([case]).findings if finding.severity == "warning"]
    assert [finding.kind for finding in found] == ["header without an orientation"] * 4 * warned
    assert all("it is read as LAS" in finding.text for finding in found)


def turned(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-1, -1, 1])
    return affine


def test_all_files_of_a_case_are_turned_alike(tmp_path):
    """Where two axes are equally near, rounding of each file's affine would decide for each file."""
    case = case_of(tmp_path, label=np.pad(tumour(), ((4, 4), (4, 3), (3, 3))))
    for path, degrees in zip(case.files, (45 + 1e-6, *[45 - 1e-6] * 4), strict=True):
        save(path, read_volumes(path).values, turned(degrees))
    assert not kinds(case, "error")
    read = read_case(case)
    ways = [
        (np.transpose(head(), order)[::a, ::b], np.transpose(head(1), order)[::a, ::b])
        for order in ((0, 1, 2), (1, 0, 2))
        for a in (1, -1)
        for b in (1, -1)
    ]
    fitting = [pair for pair in ways if np.array_equal(read["image"][0].numpy(), pair[0])]
    assert len(fitting) == 1 and np.array_equal(read["image"][1].numpy(), fitting[0][1])


FLIPPED = np.diag([1.0, 1.0, 1.0, 1.0])
PERMUTED = LPS @ np.eye(4)[:, [2, 0, 1, 3]]


@pytest.mark.parametrize(
    ("change", "affine"),
    [
        (lambda image: image[::-1, ::-1], FLIPPED),
        (lambda image: image.transpose(2, 0, 1), PERMUTED),
        (lambda image: np.pad(image, 3), LPS),
        (lambda image: image[1:-1, 2:-2, 1:-1], LPS),
        (lambda image: image * 2, LPS),
        (lambda image: image * 0.37, LPS),
    ],
)
def test_the_same_examination_stored_in_another_way(tmp_path, change, affine):
    one = write_case(tmp_path, "one", ("T1",), T1=head(), label=None)
    other = write_case(tmp_path, "other", ("T1",), affine=affine, T1=change(head()), label=None)
    third = write_case(tmp_path, "third", ("T1",), T1=head(7), label=None)
    errors = [found for found in inspect_cases([one, other, third]).findings if found.severity == "error"]
    assert [found.kind for found in errors] == ["same content under two names"] and "case other is that of" in (
        errors[0].text
    )


@pytest.mark.parametrize(
    ("name", "size", "task", "warned"),
    [
        ("a", 1.05, BRATS, False),
        ("a", 1.2, BRATS, True),
        # Made-up heads have voxels of 3 mm, and other tasks resample, or do not say a size.
        ("Phantom_site-1_001", 3, BRATS, False),
        ("a", 1.2, replace(BRATS, resampled=True), False),
        ("a", 1.2, replace(BRATS, voxel_mm=()), False),
    ],
)
def test_voxels_of_another_size_than_the_tasks(tmp_path, name, size, task, warned):
    case = write_case(tmp_path, name, ("T1",), affine=LPS * [size, size, size, 1], T1=head(), label=None)
    found = inspect_cases([replace(case, task=task)]).findings
    texts = [one.text for one in found if one.kind == "voxels of another size than the task's"]
    assert bool(texts) == warned and all("those of task brats are 1 x 1 x 1 mm" in text for text in texts)


@pytest.mark.parametrize(("sizes", "others"), [((1, 1), 0), ((1, 1.05), 0), ((1, 1, 1.5), 1), ((3, 3, 3, 1, 6), 2)])
def test_voxels_of_different_sizes(tmp_path, sizes, others):
    cases = []
    for number, size in enumerate(sizes):
        affine = LPS * [size, size, size, 1]
        cases.append(write_case(tmp_path, str(number), ("T1",), affine=affine, T1=head(number), label=None))
    inspection = inspect_cases(cases)
    found = [finding for finding in inspection.findings if finding.kind == "cases with voxels of different sizes"]
    assert len(found) == bool(others) and all(f"{others} of {len(sizes)} cases" in one.text for one in found)
    assert inspection.measures().voxel_mm == (sorted(sizes)[len(sizes) // 2],) * 3 or len(sizes) == 2
