import json

import pytest

from fedmepd.data.layouts import find_dataset
from fedmepd.errors import DataError
from fedmepd.tasks.brats import BRATS

CSV = """Subject,patient,flair,T1c,t1n,t2w,seg
a,p,one/f.nii,one/c.nii,one/n.nii,one/w.nii,one/s.nii
b,,two/f.nii,,,,
"""


def write(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("how", ["csv", "csv;", "csv\t", "json", "json with cases", "folder"])
def test_lists(tmp_path, how):
    rows = [
        {"case": "a", "patient": "p", "FLAIR": "one/f.nii", "T1ce": "one/c.nii", "T1": "one/n.nii", "T2": "one/w.nii"},
        {"case": "b", "FLAIR": "two/f.nii", "T2": None},
    ]
    rows[0]["label"] = "one/s.nii"
    if how.startswith("csv") or how == "folder":
        separator = how.removeprefix("csv") if how != "folder" else ""
        file = write(tmp_path, "cases.csv", "\ufeff" + CSV.replace(",", separator or ","))
    else:
        file = write(tmp_path, "list.json", json.dumps(rows if how == "json" else {"cases": rows}))
    a, b = find_dataset(BRATS, tmp_path if how == "folder" else file).cases
    assert {kind: path for kind, path, _ in a.volumes} == {
        "FLAIR": tmp_path / "one" / "f.nii",
        "T1ce": tmp_path / "one" / "c.nii",
        "T1": tmp_path / "one" / "n.nii",
        "T2": tmp_path / "one" / "w.nii",
        "label": tmp_path / "one" / "s.nii",
    }
    assert (a.name, a.patient, a.convention) == ("a", "p", None)
    assert (b.name, b.patient, b.modalities, b.label) == ("b", "b", ("FLAIR",), None)


def test_names_of_known_data_sets_tell_as_much_in_a_list(tmp_path):
    file = write(tmp_path, "cases.csv", "case,flair\nBraTS-GLI-00001-000,a.nii\nBraTS-GLI-00001-001,b.nii\n")
    assert {(case.patient, case.convention) for case in find_dataset(BRATS, file).cases} == {
        ("BraTS-GLI-00001", "brats2023")
    }


@pytest.mark.parametrize("path", ["../secret.nii", "in/../../secret.nii", "/etc/hostname", "link.nii", "a\0b.nii"])
def test_paths_that_leave_the_lists_folder(tmp_path, path):
    (tmp_path / "secret.nii").touch()
    (tmp_path / "data" / "in").mkdir(parents=True)
    (tmp_path / "data" / "link.nii").symlink_to(tmp_path / "secret.nii")
    file = write(tmp_path / "data", "cases.json", json.dumps([{"case": "a", "flair": path, "t1": "in/t1.nii"}]))
    [case] = find_dataset(BRATS, file).cases
    [found] = case.findings
    assert found.severity == "error" and case.modalities == ("T1",)
    # A link may be followed if the user says so; a path that names another folder never.
    [followed] = find_dataset(BRATS, file, follow_links=True).cases
    assert (followed.modalities == ("FLAIR", "T1")) == (path == "link.nii")


def test_an_absolute_path_into_the_lists_folder(tmp_path):
    file = write(tmp_path, "cases.json", json.dumps([{"case": "a", "flair": str(tmp_path / "f.nii")}]))
    [case] = find_dataset(BRATS, file).cases
    assert case.images == {"FLAIR": tmp_path / "f.nii"} and not case.findings


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.csv", "flair,t1\na.nii,b.nii\n", "has no column case"),
        ("x.csv", "case,comment\na,b\n", "has no column of a modality"),
        ("x.csv", "case,t1,T1n\na,b.nii,c.nii\n", "columns 't1' and 'T1n' are both T1"),
        ("x.csv", "case,t1_t2\na,b.nii\n", "column 't1_t2' may be T1 or T2"),
        ("x.csv", "case,t1\n../a,b.nii\n", "row 1: '../a' is no name of a case"),
        ("x.csv", "case,t1\n,b.nii\n", "row 1: '' is no name of a case"),
        ("x.json", '{"training": []}', "expected an array of objects"),
        ("x.json", "[1]", "expected an array of objects"),
        ("x.json", "[" * 100_000, "cannot be read as JSON"),
        ("x.csv", "\xff\xfe", None),
    ],
)
def test_lists_that_make_no_sense(tmp_path, name, text, expected):
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=expected and expected.replace("(", r"\(")) as error:
        find_dataset(BRATS, tmp_path / name)
    assert name in str(error.value) and name not in error.value.public


def test_two_lists(tmp_path):
    write(tmp_path, "cases.csv", CSV)
    write(tmp_path, "cases.json", "[]")
    with pytest.raises(DataError, match="both cases.csv and cases.json"):
        find_dataset(BRATS, tmp_path)
