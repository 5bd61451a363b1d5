from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from benchmarks.inference import dice, phantom_case, real_case
from fedmepd.errors import DataError


def test_dice_by_hand() -> None:
    """WT is classes 1 to 3, TC 1 and 3, ET 3; a class that neither has agrees."""
    first, second = torch.tensor([0, 1, 1, 3, 3]), torch.tensor([0, 1, 3, 3, 0])
    expected = {"WT": 6 / 7, "TC": 6 / 7, "ET": 2 / 4, "NCR/NET": 2 / 3, "ED": 1.0}
    assert dice(first, second) == pytest.approx(expected)
    assert dice(torch.tensor([2, 0]), torch.tensor([0, 2]))["ED"] == 0


def test_phantom_case_is_a_head_in_a_larger_volume() -> None:
    case = phantom_case(16)
    assert case["images"].shape == (4, 48, 48, 31) and case["label"].shape == (48, 48, 31)
    assert case["modalities"] == ["FLAIR", "T1ce", "T1", "T2"]
    assert not case["images"][:, :10].any() and case["images"][:, 10:38].any()


def test_a_real_case_is_read_whole(tmp_path: Path) -> None:
    values = np.zeros((5, 6, 7), dtype=np.int16)
    values[1, 2, 3], values[2, 2, 3], values[3, 2, 3] = 100, 300, -4
    label = np.zeros((5, 6, 7), dtype=np.uint8)
    label[1, 2, 3] = 4
    folder = tmp_path / "one"
    folder.mkdir()
    # Axes point left, posterior, superior, as kept.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    for word, content in {"t2": values, "flair": 2 * values, "seg": label}.items():
        nibabel.save(nibabel.Nifti1Image(content, affine), folder / f"one_{word}.nii.gz")
    found = real_case(folder)
    assert found["modalities"] == ["FLAIR", "T2"] and found["images"].shape == (2, 5, 6, 7)
    # 100 and 300 are half the root of 2 standard deviations away from their mean; what is negative counts as outside.
    for image in found["images"]:
        assert image[1, 2, 3] == pytest.approx(-(0.5**0.5)) and image[2, 2, 3] == pytest.approx(0.5**0.5)
        assert image.count_nonzero() == 2
    assert found["label"][1, 2, 3] == 3 and found["label"].count_nonzero() == 1
    with pytest.raises(DataError, match="is no folder of a labelled case"):
        real_case(tmp_path / "two")
