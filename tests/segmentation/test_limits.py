from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedmepd.data.cases import Case
from fedmepd.segmentation.limits import intended_use, limits_of_case, limits_of_cases, strangers
from fedmepd.tasks.brats import BRATS

PATIENT = Case("p", {"FLAIR": Path("p_flair.nii.gz"), "T2": Path("p_t2.nii.gz")}, None, task=BRATS)
PHANTOM = Case("x", {"FLAIR": Path("Phantom_site-1_001_flair.nii.gz")}, None, task=BRATS)
MENINGIOMA = replace(PATIENT, name="m", disease="meningioma")
NOTHING = "the model was trained on phantoms alone, never on a patient: what it marks in {} means nothing"


@pytest.mark.parametrize("phantoms", [True, False, None])
def test_a_model_of_phantoms(phantoms: bool | None) -> None:
    cases = [PHANTOM, PATIENT, replace(PATIENT, name="q")]
    assert [case.name for case in strangers(phantoms, cases)] == (["p", "q"] if phantoms else [])
    lines = limits_of_cases(BRATS, cases, ("FLAIR", "T2"), phantoms)
    assert (NOTHING.format("p and 1 more") in lines) == bool(phantoms) and len(lines) == 1 + bool(phantoms)
    kinds = [[found.kind for found in limits_of_case(case, ("FLAIR",), phantoms)] for case in cases]
    assert kinds == [[], *[["a model of phantoms: means nothing"] * bool(phantoms)] * 2]
    assert ("never on a patient" in intended_use({"phantoms": phantoms})) == bool(phantoms)
    assert intended_use({}) == "research; not a medical device"


def test_another_disease_and_fewer_modalities() -> None:
    found = limits_of_case(MENINGIOMA, ("FLAIR", "T1ce"), False)
    assert [finding.kind for finding in found] == ["another disease than in training (meningioma)", "without T1ce"]
    assert limits_of_cases(BRATS, [PATIENT, MENINGIOMA], ("FLAIR", "T2"), False) == [
        "the model is for diffuse glioma in brain MRI; by the name, it is meningioma in m"
    ]
