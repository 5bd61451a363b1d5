"""Lesions of multiple sclerosis: four images on three grids, the label on that of FLAIR."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fedmepd.data.cases import Case
from fedmepd.data.inspection import inspect_cases
from fedmepd.data.layouts import find_dataset
from fedmepd.data.own_grid import segmentation_image
from fedmepd.data.preparation import PreparedCases, prepare_case
from fedmepd.data.resampling import Grid, network_grid
from fedmepd.tasks.find import find_task
from fedmepd.tasks.labels import IGNORE
from tests.tasks.lesions import BRIGHT_IN, FILES, grid_of, places, write_case

TASK = find_task("ms_lesions")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A brain with three lesions, turned otherwise in each image."""
    write_case(tmp_path / "data" / "patient-1", TASK.modalities, 1)
    inspection = inspect_cases(find_dataset(TASK, tmp_path / "data").cases)
    assert not inspection.findings
    [found] = inspection.cases
    return found


def test_files_of_msseg(case: Case) -> None:
    assert {kind: file.name.removesuffix(".nii.gz") for kind, file in case.images.items()} == FILES
    assert case.label is not None and case.label.name == "Consensus.nii.gz" and case.convention == "lesions"


def test_lesions_lie_at_the_same_place_in_all_images(case: Case) -> None:
    item = prepare_case(case)
    assert item["spacing"].tolist() == [1, 1, 1]
    lesions, images = item["label"][0].numpy() == 1, item["image"].float().numpy()
    # Three balls of 3 mm.
    assert lesions.sum() == pytest.approx(3 * 4 / 3 * np.pi * 27, rel=0.15)
    for modality, image in zip(case.modalities, images, strict=True):
        step = image[lesions].mean() - image[~lesions & (image != 0)].mean()
        # In FLAIR and T2 by 300 of a standard deviation of about 50; noise of 20 alone in the others.
        assert step > 3 if modality in BRIGHT_IN else abs(step) < 0.5, modality


def test_lesions_come_back_to_the_grid_of_flair(case: Case) -> None:
    item = prepare_case(case)
    image = segmentation_image(case, item["label"][0].numpy(), item["corner"].tolist(), "lesions")
    label = nibabel.load(case.label)
    assert image.shape == label.shape and image.affine == pytest.approx(label.affine, abs=1e-5)
    assert np.array_equal(np.asanyarray(image.dataobj), np.asanyarray(label.dataobj))


def test_a_label_that_reaches_out_of_the_first_image(case: Case) -> None:
    """FLAIR without its lower slices, and the label with all of them: one lesion lies where FLAIR shows nothing."""
    image = nibabel.load(case.images["FLAIR"])
    affine = image.affine.copy()
    affine[:3, 3] += 5 * affine[:3, 2]
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj)[:, :, 5:], affine), case.images["FLAIR"])
    lost = np.asanyarray(nibabel.load(case.label).dataobj)[:, :, :5]
    [told] = inspect_cases([case]).findings
    assert told.kind == "label that reaches out of the images" and lost.any()
    assert f": {lost.sum()} of " in told.text and "lie outside 3DFLAIR.nii.gz" in told.text


def test_what_a_label_does_not_cover_is_left_out(case: Case, tmp_path: Path) -> None:
    """A label with a part of the slices alone says nothing about the others: they are no background."""
    image = nibabel.load(case.label)
    shorter = np.asanyarray(image.dataobj)[:, :, :8]
    nibabel.save(nibabel.Nifti1Image(shorter, image.affine), case.label)
    [told] = inspect_cases([case]).findings
    assert told.kind == "label that does not cover its images" and told.severity == "warning"
    item = prepare_case(case)
    shape, affine = grid_of("FLAIR", 1)
    grid = network_grid(Grid(shape, affine), TASK.voxel_mm).box(item["corner"].tolist(), item["label"].shape[1:])
    where = places(grid.shape, grid.affine) - affine[:3, 3]
    slices = (where @ np.linalg.inv(affine[:3, :3]).T)[..., 2]
    assert np.array_equal(item["label"][0].numpy() == IGNORE, slices >= 7.5) and (slices >= 7.5).any()
    # The box is that of the brain, and not of all that is left out.
    whole = prepare_case(replace(case, label=None, convention=None))
    assert item["corner"].tolist() == whole["corner"].tolist() and item["image"].shape == whole["image"].shape
    # Nothing that was prepared while such voxels were background is taken from the cache.
    assert np.array_equal(PreparedCases([case], tmp_path / "cache")[0]["label"], item["label"])
    centres = item["tumour"].numpy()
    assert set(item["label"].flatten().numpy()[centres]) == {1}
