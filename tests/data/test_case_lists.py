import json
from unicodedata import normalize

import pytest

from fedmepd.data.inspection import inspect_cases
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
        ("x.csv", "case,t1\na\x1b[2J,b.nii\n", r"row 1: 'a\\x1b\[2J' is no name of a case"),
        ("x.csv", 'case,patient,t1\na,"p\nq",b.nii\n', r"row 1: 'p\\nq' is no name of a patient"),
        ("x.csv", "case,t1\n../a,b.nii\n", "row 1: '../a' is no name of a case"),
        ("x.csv", "case,t1\n,b.nii\n", "row 1: '' is no name of a case"),
        ("x.json", '{"training": []}', "expected an array of objects"),
        ("x.json", "[1]", "expected an array of objects"),
        ("x.json", "[" * 100_000, "cannot be read as JSON"),
        ("x.csv", "\xff\xfe", None),
        ("x.csv", "case,t1,t1\na,b.nii,c.nii\n", "column 't1' is there twice"),
        ("x.csv", "case,t1\na,b,c.nii\n", "row 1 has more cells than the header"),
    ],
)
def test_lists_that_make_no_sense(tmp_path, name, text, expected):
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=expected and expected.replace("(", r"\(")) as error:
        find_dataset(BRATS, tmp_path / name)
    assert name in str(error.value) and name not in error.value.public


LIST = "case;flair;seg\r\na;n/f.nii;n/s.nii\r\nb;n/g.nii;nan\r\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cases.csv", LIST.encode()),
        ("cases.csv", (LIST + ";;\r\n;;\r\n\r\n").encode()),
        ("cases.csv", f"sep=;\r\n{LIST}".encode()),
        ("cases.csv", LIST.replace(";", "\t").encode("utf-16")),
        ("cases.csv", LIST.replace("/", "\\").encode()),
        ("cases.csv", LIST.replace("nan", "NA").encode()),
        (
            "cases.json",
            b'[{"case": "a", "flair": "n/f.nii", "seg": "n/s.nii"}, {"case": "b", "flair": "n/g.nii", "seg": "NaN"}]',
        ),
    ],
)
def test_lists_as_spreadsheets_and_scripts_write_them(tmp_path, name, content):
    (tmp_path / "n").mkdir()
    for file in ("f.nii", "g.nii", "s.nii"):
        (tmp_path / "n" / file).touch()
    (tmp_path / name).write_bytes(content)
    cases = find_dataset(BRATS, tmp_path).cases
    folder = tmp_path / "n"
    assert [(case.name, case.images, case.label) for case in cases] == [
        ("a", {"FLAIR": folder / "f.nii"}, folder / "s.nii"),
        ("b", {"FLAIR": folder / "g.nii"}, None),
    ]


def test_a_case_called_0(tmp_path):
    file = write(tmp_path, "cases.json", '[{"case": 0, "flair": "f.nii"}]')
    assert [case.name for case in find_dataset(BRATS, file).cases] == ["0"]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_stored_in_two_ways(tmp_path, forms):
    in_list, on_disk = (normalize(form, "Größe.nii") for form in forms)
    (tmp_path / on_disk).touch()
    [case] = find_dataset(BRATS, write(tmp_path, "cases.csv", f"case,t1\na,{in_list}\n")).cases
    assert case.images == {"T1": tmp_path / on_disk} and case.images["T1"].is_file()


def test_a_file_that_is_not_there(tmp_path):
    [case] = find_dataset(BRATS, write(tmp_path, "cases.csv", "case,t1\na,nowhere.nii\n")).cases
    found = [finding for finding in inspect_cases([case]).findings if finding.severity == "error"]
    assert [finding.kind for finding in found] == ["file that does not exist"]
    assert "nowhere.nii does not exist: correct its name" in found[0].text


def test_two_lists(tmp_path):
    write(tmp_path, "cases.csv", CSV)
    write(tmp_path, "cases.json", "[]")
    with pytest.raises(DataError, match="both cases.csv and cases.json"):
        find_dataset(BRATS, tmp_path)


@pytest.mark.parametrize("column", ["Patient", "patient_id", "Patient ID", "PatientID", "patient-no", "patient name"])
def test_the_column_of_the_patient(tmp_path, column):
    file = write(tmp_path, "cases.csv", f"case,{column},flair\na,p,a.nii\nb,p,b.nii\n")
    assert [case.patient for case in find_dataset(BRATS, file).cases] == ["p", "p"]


def test_two_columns_of_the_patient(tmp_path):
    file = write(tmp_path, "cases.csv", "case,patient,patient_id,flair\na,p,q,a.nii\n")
    with pytest.raises(DataError, match="columns 'patient' and 'patient_id' are both patient"):
        find_dataset(BRATS, file)


def test_a_list_in_another_encoding(tmp_path):
    (tmp_path / "cases.csv").write_bytes("case,flair\nM\xfcller,a.nii\n".encode("cp1252"))
    with pytest.raises(DataError, match="save it as CSV UTF-8"):
        find_dataset(BRATS, tmp_path)
