"""The examples in docstrings run as they are written, beside a model and a folder of patients."""

from __future__ import annotations

import doctest
from pathlib import Path
from types import ModuleType

import nibabel
import pytest

from fedmepd.segmentation import segmenter
from fedmepd.training import checkpoints
from tests.segmentation.models import save_tiny
from tests.tiny import write


@pytest.mark.parametrize("module", [checkpoints, segmenter], ids=lambda module: module.__name__)
def test_examples(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(tmp_path / "model.pt", ("FLAIR", "T2"))
    write(tmp_path / "data")
    (tmp_path / "data/fusion").rename(tmp_path / "patients")
    monkeypatch.chdir(tmp_path)
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0 and outcome.failed == 0
    if module is segmenter:
        written = nibabel.load("case-0.nii.gz")
        assert written.shape == nibabel.load("patients/case-0/x_seg.nii.gz").shape
