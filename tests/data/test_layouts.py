import pytest

from fedmepd.data.layouts import find_cases
from fedmepd.errors import DataError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("case", "files"),
    [
        # (case folder, file of each of FLAIR, T1ce, T1, T2, label)
        (
            "BraTS20_Training_001",
            [f"BraTS20_Training_001_{word}.nii.gz" for word in ("flair", "t1ce", "t1", "t2", "seg")],
        ),
        (
            "HGG/Brats18_2013_10_1",
            [f"Brats18_2013_10_1_{word}.nii.gz" for word in ("flair", "t1ce", "t1", "t2", "seg")],
        ),
        ("BraTS-GLI-00000-000", [f"BraTS-GLI-00000-000-{word}.nii.gz" for word in ("t2f", "t1c", "t1n", "t2w", "seg")]),
        ("TCGA-DU-7294", ["fla.nii.gz", "t1c.nii.gz", "t1.nii.gz", "t2.nii.gz", "seg.nii.gz"]),
        ("007", ["007.FLAIR.nii", "007.T1Gd.NII", "007.T1.nii", "007.T2.nii", "007.Label.nii"]),
        # The last word counts: a study may be called after a modality.
        ("T1_study_7", [f"T1_study_7_{word}.nii.gz" for word in ("flair", "t1ce", "t1", "t2", "seg")]),
    ],
)
def test_files_of_a_case_are_told_apart(tmp_path, case, files):
    touch(tmp_path / case, *files, "notes.txt", ".hidden_t1.nii.gz", "mask.nii.gz", "pret1x.nii.gz")
    [found] = find_cases(tmp_path)
    assert found.name == case.split("/")[-1]
    assert found.modalities == ("FLAIR", "T1ce", "T1", "T2")
    assert [file.name for file in found.files] == files


def test_cases_are_sorted_by_name_across_groups(tmp_path):
    touch(tmp_path, "HGG/c/t1.nii", "LGG/a/t2.nii", "b/seg.nii", "survival.csv", ".a.part/x/t1.nii", "logs/run.txt")
    found = find_cases(tmp_path)
    assert [(case.name, case.modalities, case.label is None) for case in found] == [
        ("a", ("T2",), True),
        ("b", (), False),
        ("c", ("T1",), True),
    ]


def test_a_case_without_a_known_name_is_not_lost(tmp_path):
    touch(tmp_path, "a/brain.nii.gz")
    [found] = find_cases(tmp_path)
    assert (found.name, found.images, found.label) == ("a", {}, None)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (("a/x_t1ce.nii.gz", "a/x_t1gd.nii.gz"), ("x_t1ce.nii.gz", "x_t1gd.nii.gz", "T1ce")),
        (("a/t2.nii", "a/t2.nii.gz"), ("t2.nii", "t2.nii.gz", "T2")),
        (("a/seg.nii.gz", "a/label.nii.gz"), ("seg.nii.gz", "label.nii.gz", "label")),
        (("HGG/a/t1.nii", "LGG/a/t1.nii"), ("HGG/a", "LGG/a", "one name")),
    ],
)
def test_ambiguity_names_both(tmp_path, files, named):
    touch(tmp_path, *files)
    with pytest.raises(DataError) as error:
        find_cases(tmp_path)
    assert all(name in str(error.value) for name in named)
    assert "nii" not in error.value.public and str(tmp_path) not in error.value.public


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="nowhere cannot be read"):
        find_cases(tmp_path / "nowhere")
