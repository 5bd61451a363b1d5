"""Lesions of multiple sclerosis as MSSEG names its files: four images on three grids, the label on that of FLAIR."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat

from fedmepd.data.cases import Case
from fedmepd.data.inspection import inspect_cases
from fedmepd.data.layouts import find_dataset
from fedmepd.data.own_grid import segmentation_image
from fedmepd.data.preparation import prepare_case
from fedmepd.tasks.find import find_task

TASK = find_task("ms_lesions")
# Voxels and their sizes in mm.
GRIDS = {
    "3DFLAIR": ((40, 44, 12), (1.0, 1.0, 3.0)),
    "3DT1": ((36, 36, 36), (1.2, 1.2, 1.2)),
    "3DT1GADO": ((36, 36, 36), (1.2, 1.2, 1.2)),
    "T2": ((40, 40, 14), (1.0, 1.0, 2.8)),
}
LESIONS = np.array([(-6.0, 2, 3), (5, -5, -4), (2, 7, 0)])


def _near(places: np.ndarray, centres: np.ndarray, radius: float) -> np.ndarray:
    return np.any([np.linalg.norm(places - centre, axis=-1) < radius for centre in centres], axis=0)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A brain of 15 mm with three lesions of 3 mm, turned otherwise in each image."""
    random = np.random.default_rng(3)
    folder = tmp_path / "data" / "patient-1"
    folder.mkdir(parents=True)
    for name, (shape, sizes) in GRIDS.items():
        affine = np.eye(4)
        affine[:3, :3] = euler2mat(*random.uniform(-0.2, 0.2, 3)) @ np.diag([-sizes[0], -sizes[1], sizes[2]])
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        places = np.stack(np.indices(shape), axis=-1) @ affine[:3, :3].T + affine[:3, 3]
        lesions = _near(places, LESIONS, 3)
        bright = 300 * lesions * (name in ("3DFLAIR", "T2"))
        image = (300 + bright + random.normal(0, 20, shape)) * _near(places, np.zeros((1, 3)), 15)
        nibabel.save(nibabel.Nifti1Image(image.clip(0).astype("int16"), affine), folder / f"{name}.nii.gz")
        if name == "3DFLAIR":
            nibabel.save(nibabel.Nifti1Image(lesions.astype("uint8"), affine), folder / "Consensus.nii.gz")
    inspection = inspect_cases(find_dataset(TASK, tmp_path / "data").cases)
    assert not inspection.findings
    [found] = inspection.cases
    return found


def test_files_of_msseg(case: Case) -> None:
    names = {kind: file.name.removesuffix(".nii.gz") for kind, file in case.images.items()}
    assert names == {"FLAIR": "3DFLAIR", "T1ce": "3DT1GADO", "T1": "3DT1", "T2": "T2"}
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
        assert step > 3 if modality in ("FLAIR", "T2") else abs(step) < 0.5, modality


def test_lesions_come_back_to_the_grid_of_flair(case: Case) -> None:
    item = prepare_case(case)
    image = segmentation_image(case, item["label"][0].numpy(), item["corner"].tolist(), "lesions")
    label = nibabel.load(case.label)
    assert image.shape == label.shape and image.affine == pytest.approx(label.affine, abs=1e-5)
    assert np.array_equal(np.asanyarray(image.dataobj), np.asanyarray(label.dataobj))
