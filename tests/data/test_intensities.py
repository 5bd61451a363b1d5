from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fedmepd.data.cases import Case
from fedmepd.data.preparation import PreparedCases, prepare_case
from fedmepd.errors import SettingsError
from fedmepd.tasks.brats import BRATS
from fedmepd.tasks.task import Task
from tests.data.files import save

SHAPE = (7, 6, 5)
# Noise around a body, a few voxels of exactly 0, and a negative one.
IMAGE = np.random.default_rng(0).uniform(1, 20, SHAPE).astype("float32")
IMAGE[2:5, 2:5, 1:4] += 300
IMAGE[0, 0, 0], IMAGE[6, 5, 4], IMAGE[1, 1, 1] = 0, 0, -4


def prepared(tmp_path: Path, clip_percent: float = 0, **rules: object) -> tuple[np.ndarray, list[int]]:
    """The image (X, Y, Z) of a case as the network sees it, and the corner of its box."""
    task = replace(BRATS, **rules)
    file = save(tmp_path / "a" / "a_t2.nii.gz", IMAGE, np.diag([-1.0, -1, 1, 1]))
    item = prepare_case(Case("a", {"T2": file}, None, task=task), clip_percent)
    return item["image"][0].float().numpy(), item["corner"].tolist()


def by_hand(body: np.ndarray, intensity: str) -> np.ndarray:
    """The rules, one voxel after the other."""
    image = np.maximum(IMAGE.astype(np.float64), 0)
    inside = image[body]
    low, high = np.percentile(inside, 0.5), np.percentile(inside, 99.5)
    found = np.zeros(SHAPE)
    for place in zip(*np.nonzero(body), strict=True):
        if intensity == "z-score":
            found[place] = (image[place] - inside.mean()) / inside.std()
        else:
            found[place] = min(1, max(0, (image[place] - low) / (high - low)))
    return found


@pytest.mark.parametrize("resampled", [False, True])
@pytest.mark.parametrize("intensity", ["z-score", "percentiles"])
def test_of_the_whole_volume(intensity: str, resampled: bool, tmp_path: Path) -> None:
    """Nothing is cropped, and voxels of 0 count as all others."""
    found, corner = prepared(tmp_path, foreground="whole", intensity=intensity, resampled=resampled)
    assert corner == [0, 0, 0] and found == pytest.approx(by_hand(np.ones(SHAPE, dtype=bool), intensity), abs=2e-3)


@pytest.mark.parametrize("resampled", [False, True])
@pytest.mark.parametrize("intensity", ["z-score", "percentiles"])
def test_of_what_is_not_0(intensity: str, resampled: bool, tmp_path: Path) -> None:
    found, corner = prepared(tmp_path, intensity=intensity, resampled=resampled)
    assert corner == [0, 0, 0] and found == pytest.approx(by_hand(IMAGE > 0, intensity), abs=2e-3)


@pytest.mark.parametrize("resampled", [False, True])
@pytest.mark.parametrize("intensity", ["z-score", "percentiles"])
def test_of_what_is_above_a_share_of_the_mean(intensity: str, resampled: bool, tmp_path: Path) -> None:
    """The volume is cropped to the body, and the noise around it is 0."""
    rules = {"foreground": "above", "foreground_share": 0.8, "intensity": intensity, "resampled": resampled}
    found, corner = prepared(tmp_path, **rules)
    body = IMAGE > 0.8 * IMAGE[IMAGE > 0].mean()
    assert np.count_nonzero(body) == 27
    expected = by_hand(body, intensity)[2:5, 2:5, 1:4]
    assert corner == [2, 2, 1] and found == pytest.approx(expected, abs=2e-3)


def test_the_cache_tells_the_rules_apart(tmp_path: Path) -> None:
    file = save(tmp_path / "a" / "a_t2.nii.gz", IMAGE, np.diag([-1.0, -1, 1, 1]))
    rules = [
        {},
        {"foreground": "whole"},
        {"intensity": "percentiles"},
        {"foreground": "above", "foreground_share": 0.1},
        {"foreground": "above", "foreground_share": 0.8},
        {"resampled": True, "voxel_mm": (2.0, 2.0, 2.0)},
        {"resampled": True, "voxel_mm": (2.0, 2.0, 3.0)},
    ]
    kept = []
    for changed in rules:
        case = Case("a", {"T2": file}, None, task=replace(BRATS, **changed))
        kept.append(PreparedCases([case], tmp_path / "cache")[0]["image"].numpy())
    for place, one in enumerate(kept):
        assert not any(one.shape == other.shape and np.array_equal(one, other) for other in kept[place + 1 :])


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        ({"foreground": "body"}, "foreground"),
        ({"foreground": "above"}, "foreground_share"),
        ({"foreground_share": 0.5}, "foreground_share"),
        ({"intensity": "histogram"}, "intensity"),
        ({"voxel_mm": (1.0, 1.0)}, "voxel_mm"),
        ({"voxel_mm": (1.0, 1.0, 0.0)}, "voxel_mm"),
        ({"resampled": True, "voxel_mm": ()}, "resampled"),
    ],
)
def test_rules_that_do_not_fit_together(rules: dict, key: str) -> None:
    with pytest.raises(SettingsError, match=f"task brats: {key}: "):
        replace(BRATS, **rules)


def test_an_image_with_nothing_in_it_stays_0(tmp_path: Path) -> None:
    """As where a resampled image does not reach."""
    task: Task = replace(BRATS, intensity="percentiles")
    values = np.zeros(SHAPE, dtype="float32")
    values[3, 3, 3] = 7
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a_t2.nii.gz")
    item = prepare_case(Case("a", {"T2": tmp_path / "a_t2.nii.gz"}, None, task=task))
    assert np.isfinite(item["image"].float().numpy()).all()
