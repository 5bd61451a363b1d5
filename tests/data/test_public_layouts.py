"""Folders as public data sets come, made in their published form."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmepd.data.file_kinds import Pattern
from fedmepd.data.layouts import find_dataset
from fedmepd.tasks.brats import BRATS

ALL = ("FLAIR", "T1ce", "T1", "T2")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path, **how):
    """Of each case: name, patient, convention, files by kind relative to the folder."""
    return {
        case.name: (
            case.patient,
            case.convention,
            {kind: path.absolute().relative_to(folder).as_posix() for kind, path, _ in case.volumes},
        )
        for case in find_dataset(BRATS, folder, **how).cases
    }


def errors(folder: Path, **how):
    dataset = find_dataset(BRATS, folder, **how)
    findings = [*dataset.findings, *(one for case in dataset.cases for one in case.findings)]
    return [finding for finding in findings if finding.severity == "error"]


def test_upenn_gbm(tmp_path):
    """Images and labels in separate trees; 11 is the visit before surgery, 21 a later one."""
    root = tmp_path / "NIfTI-files"
    for case in ("UPENN-GBM-00001_11", "UPENN-GBM-00001_21", "UPENN-GBM-00002_11"):
        touch(root, *(f"images_structural/{case}/{case}_{word}.nii.gz" for word in ("FLAIR", "T1GD", "T1", "T2")))
        touch(
            root, *(f"images_structural_unstripped/{case}/{case}_{word}_unstripped.nii.gz" for word in ("FLAIR", "T1"))
        )
        touch(root, f"automated_segm/{case}_automated_approx_segm.nii.gz")
    touch(root, "images_segm/UPENN-GBM-00001_11_segm.nii.gz", "images_segm/UPENN-GBM-00009_11_segm.nii.gz")
    cases = found(tmp_path)
    assert list(cases) == ["UPENN-GBM-00001_11", "UPENN-GBM-00001_21", "UPENN-GBM-00002_11"]
    patient, convention, files = cases["UPENN-GBM-00001_11"]
    assert (patient, convention, tuple(files)) == ("UPENN-GBM-00001", "brats", (*ALL, "label"))
    assert files["T1ce"].endswith("images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD.nii.gz")
    assert files["label"].endswith("images_segm/UPENN-GBM-00001_11_segm.nii.gz")
    dataset = find_dataset(BRATS, tmp_path)
    # A label that was not corrected by hand is no label unless somebody says so.
    for case in dataset.cases[1:]:
        assert case.label is None
        [warned] = [one for one in case.findings if one.severity == "warning"]
        assert warned.kind == "file that may be the label, passed over" and "automated_approx_segm" in warned.text
    assert [one.kind for one in dataset.findings] == [
        "labels in a folder of their own, taken by their names",
        "labels without a case, passed over",
    ]
    assert "1 label taken from there" in dataset.findings[0].text and not errors(tmp_path)
    # Two labels of a case are asked about.
    touch(root, "other/UPENN-GBM-00001_11_segm.nii.gz")
    [error] = errors(tmp_path)
    assert error.kind == "two files that look like the same modality" and "other/UPENN-GBM-00001_11_segm" in error.text


def test_egd(tmp_path):
    """Each image in a folder of its own; the label is the whole tumour."""
    for case in ("EGD-0001", "EGD-0002"):
        for number, kind in enumerate(("T1", "T1GD", "T2", "FLAIR", "MASK"), 1):
            touch(tmp_path, f"{case}/{number}_{kind}/NIFTI/{kind}.nii.gz")
        touch(tmp_path, f"{case}/metadata.json")
    cases = found(tmp_path)
    assert list(cases) == ["EGD-0001", "EGD-0002"] and not errors(tmp_path)
    patient, convention, files = cases["EGD-0001"]
    assert (patient, convention, tuple(files)) == ("EGD-0001", "egd", (*ALL, "label"))
    assert (
        files["T1ce"] == "EGD-0001/2_T1GD/NIFTI/T1GD.nii.gz" and files["label"] == "EGD-0001/5_MASK/NIFTI/MASK.nii.gz"
    )
    assert find_dataset(BRATS, tmp_path).cases[0].label_groups == ((0,), (1, 2, 3))


def test_lumiere(tmp_path):
    for place in ("Patient-001/week-000-1", "Patient-001/week-044", "Patient-002/week-000"):
        touch(tmp_path, *(f"Imaging/{place}/{word}.nii.gz" for word in ("CT1", "FLAIR", "T1", "T2")))
    cases = found(tmp_path)
    assert [patient for patient, _, _ in cases.values()] == ["Patient-001", "Patient-001", "Patient-002"]
    assert all(tuple(files) == ALL for _, _, files in cases.values()) and not errors(tmp_path)


def test_remind(tmp_path):
    """Converted to NIfTI, a folder per series: which is which is said by patterns; the date is month, day, year."""
    for patient in ("ReMIND-001", "ReMIND-002"):
        place = f"{patient}/12-25-1982-NA-Preop-88481"
        touch(
            tmp_path,
            f"{place}/201.000000-2DAXT2FLAIR-12345/2DAXT2FLAIR.nii.gz",
            f"{place}/401.000000-3DAXT1postcontrast-05570/3DAXT1postcontrast.nii.gz",
            f"{place}/300.000000-tumor-seg/tumor.nii.gz",
            f"{patient}/12-26-1982-NA-Intraop-90478/7.000000-3DAXT1postcontrastIntraop-99/a.nii.gz",
        )
    globs = ("FLAIR=*FLAIR*/*.nii.gz", "T1ce=*T1post*/*.nii.gz", "label=*tumor*/*.nii.gz")
    cases = find_dataset(BRATS, tmp_path, patterns=[Pattern.read(BRATS, glob) for glob in globs]).cases
    assert [(case.patient, case.patient_doubt) for case in cases] == [
        (patient, "") for patient in ("ReMIND-001", "ReMIND-001", "ReMIND-002", "ReMIND-002")
    ]
    assert [(case.modalities, case.label is not None) for case in cases[:2]] == [
        (("FLAIR", "T1ce"), True),
        (("T1ce",), False),
    ]


@pytest.fixture
def bids(tmp_path):
    """Two subjects, one of them with two sessions; raw images and labels of a pipeline."""
    root = tmp_path / "ds000001"
    touch(root, "dataset_description.json", "participants.tsv")
    for place in ("sub-01/ses-1", "sub-01/ses-2", "sub-02"):
        name = place.replace("/", "_")
        agent = {"sub-01/ses-1": "gadolinium", "sub-01/ses-2": "GADOLINIUM", "sub-02": "gd"}[place]
        words = (f"ce-{agent}_T1w", "T1w", "T2w", "FLAIR")
        touch(root, *(f"{place}/anat/{name}_{word}.nii.gz" for word in words), f"{place}/dwi/{name}_dwi.nii.gz")
        touch(root, f"derivatives/masks/{place}/anat/{name}_space-T1w_label-tumor_dseg.nii.gz")
        touch(root, f"derivatives/masks/{place}/anat/{name}_space-T1w_desc-brain_mask.nii.gz")
    return root


def test_bids(bids):
    cases = found(bids)
    assert {name: patient for name, (patient, _, _) in cases.items()} == {
        "sub-01_ses-1": "sub-01",
        "sub-01_ses-2": "sub-01",
        "sub-02": "sub-02",
    }
    assert not errors(bids)
    for _, _, files in cases.values():
        assert tuple(files) == (*ALL, "label")
    files = cases["sub-01_ses-2"][2]
    assert files["T1ce"] == "sub-01/ses-2/anat/sub-01_ses-2_ce-GADOLINIUM_T1w.nii.gz"
    assert files["label"] == ("derivatives/masks/sub-01/ses-2/anat/sub-01_ses-2_space-T1w_label-tumor_dseg.nii.gz")
    # Also where the download has a folder around it.
    assert list(found(bids.parent)) == list(cases)


def test_processed_images_of_bids(bids):
    """They take the place of the raw ones; those of two pipelines are asked about."""
    words = ("ce-gd_desc-preproc_T1w", "desc-preproc_T1w", "desc-preproc_T2w", "desc-preproc_FLAIR")
    touch(bids, *(f"derivatives/prep/sub-02/anat/sub-02_{word}.nii.gz" for word in words))
    assert found(bids)["sub-02"][2]["T1ce"] == "derivatives/prep/sub-02/anat/sub-02_ce-gd_desc-preproc_T1w.nii.gz"
    touch(bids, "derivatives/other/sub-02/anat/sub-02_T1w.nii.gz")
    [error] = errors(bids)
    assert error.kind == "images in several derivatives" and "derivatives/other and derivatives/prep" in error.text


def test_two_labels_of_bids(bids):
    touch(bids, "derivatives/second/sub-02/anat/sub-02_label-lesion_mask.nii.gz")
    [error] = errors(bids)
    assert error.kind == "two files that look like the same modality"
    way = "label=derivatives/second/*/anat/*_label-lesion_mask.nii.gz"
    assert f"--pattern '{way}'" in error.text
    said = [Pattern.read(BRATS, way)]
    assert found(bids, patterns=said)["sub-02"][2]["label"].startswith("derivatives/second")


def test_phantoms_of_this_package(tmp_path):
    """Every case is a patient, also where the folder of the sites is looked at as a whole."""
    for site in ("site-1", "fusion"):
        for number in (1, 2):
            case = f"Phantom_{site}_{number:03d}"
            touch(tmp_path, f"{site}/{case}/{case}_t1.nii.gz", f"{site}/{case}/{case}_seg.nii.gz")
    cases = found(tmp_path)
    assert len(cases) == 4 and all(patient == name for name, (patient, _, _) in cases.items())


def test_a_derivative_that_lacks_some_of_the_raw_images_is_asked_about(bids):
    touch(bids, "derivatives/fmriprep/sub-02/anat/sub-02_desc-preproc_T1w.nii.gz")
    [error] = errors(bids)
    assert error.kind == "derivative that lacks some of the raw images"
    assert "derivatives/fmriprep has images, but none of FLAIR, T1ce, T2" in error.text
    raw = [f"{kind}=sub-*/*_{word}.nii.gz" for kind, word in (("FLAIR", "FLAIR"), ("T2", "T2w"), ("T1ce", "ce-*_T1w"))]
    raw.append("T1=derivatives/fmriprep/*_T1w.nii.gz")
    said = found(bids, patterns=[Pattern.read(BRATS, text) for text in raw])["sub-02"][2]
    assert said["T1"].startswith("derivatives/fmriprep") and said["T2"] == "sub-02/anat/sub-02_T2w.nii.gz"


def test_the_space_of_bids_is_no_modality(bids):
    for file in bids.rglob("*dseg.nii.gz"):
        file.rename(file.with_name(file.name.replace("_label-tumor", "")))
    touch(bids, *(f"derivatives/masks/sub-02/anat/sub-02_label-{tissue}_probseg.nii.gz" for tissue in ("GM", "WM")))
    words = ("ce-gd_space-T1w_T1w", "space-T1w_T1w", "space-T1w_T2w", "space-T1w_FLAIR")
    touch(bids, *(f"derivatives/prep/sub-02/anat/sub-02_{word}.nii.gz" for word in words), "sub-02/anat/___.nii.gz")
    assert not errors(bids)
    files = found(bids)["sub-02"][2]
    assert files["FLAIR"] == "derivatives/prep/sub-02/anat/sub-02_space-T1w_FLAIR.nii.gz"
    assert files["T1ce"] == "derivatives/prep/sub-02/anat/sub-02_ce-gd_space-T1w_T1w.nii.gz"
    assert files["label"] == "derivatives/masks/sub-02/anat/sub-02_space-T1w_dseg.nii.gz"
