"""What the names of public cases say about their labels: other classes are never read as an adult glioma's."""

from pathlib import Path

import numpy as np
import pytest

from fedmepd.cli import main
from fedmepd.data.manifest import read_manifest
from fedmepd.data.names import read_case_name
from fedmepd.data.preparation import read_case
from fedmepd.data.site import open_site_data
from fedmepd.errors import DataError
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.brats import BRATS
from fedmepd.tasks.find import find_task
from tests.data.files import tumour, write_case

KIND = "label of other classes, by the name of its case or dataset.json"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))


def label(*values, kind=0):
    """A label with other values for NCR/NET, ED and ET."""
    made = tumour(kind=kind)
    return np.select([made == 1, made == 2, made == 4], values).astype("uint8")


def data(*arguments):
    return main(["data", *map(str, arguments)])


@pytest.mark.parametrize("values", [(2, 4, 1), (2, 0, 1), (1, 2, 3)])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("BraTS-PED-00001-000", "children's tumours"),
        ("brats-peds-00001-000", "children's tumours"),
        ("BraTS-MEN-RT-0001-1", "the tumour volume to irradiate"),
        ("BraTS-GoAT-00001-000", "several kinds of tumours"),
        ("BraTS-GoAT-00001", "several kinds of tumours"),
        ("BraTS-XYZ-00001-000", "a challenge that is not known here"),
    ],
)
def test_other_classes_are_refused(tmp_path, capsys, name, says, values):
    write_case(tmp_path / "data", name, label=label(*values))
    assert data("check", tmp_path / "data", "--anonymous") == 1
    printed = capsys.readouterr().out
    assert f"1  {KIND}\n" in printed and name not in printed
    assert data("init", tmp_path / "data") == 2
    told = capsys.readouterr().err
    assert f"{name} says labels of" in told and says in told
    assert ("say --labels brats" if "ped" in name.lower() else "say which with --labels") in told
    # Without a manifest a site reads the same folder itself.
    with pytest.raises(DataError) as error:
        open_site_data("a", make_settings(), SiteSettings(data=tmp_path / "data", cache=tmp_path / "cache"))
    assert error.value.public == f"the site's data cannot be used: {KIND} (1)"


def test_the_user_may_know_better_and_is_asked_once(tmp_path):
    write_case(tmp_path / "data", "BraTS-PED-00001-000", label=label(1, 2, 3))
    for words in (("--labels", "brats2023"), ()):
        assert data("init", tmp_path / "data", *words) == 0
        assert [case.convention for case in read_manifest(BRATS, tmp_path / "data")[0]] == ["brats2023"]


BOTH_PED = (
    "say --labels brats2023 (BraTS from 2023 on: 0, 1 NCR/NET, 2 ED, 3 ET) or --labels brats-ped2024 (BraTS-PED from "
    "2024 on: 0, 1 ET, 2 NCR/NET, 3 NCR/NET, 4 ED)"
)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        # Without a 4 anywhere, both meanings fit; with one in any label of the folder, one does.
        ([(1, 2, 3), (1, 2, 0)], BOTH_PED),
        ([(2, 3, 1), (2, 4, 1)], "; say --labels brats-ped2024 (BraTS-PED from 2024 on"),
    ],
)
def test_childrens_labels_changed_under_the_same_names(tmp_path, capsys, values, says):
    for number, of_one in enumerate(values):
        write_case(tmp_path / "data", f"BraTS-PED-{number:05d}-000", label=label(*of_one, kind=number))
    assert data("init", tmp_path / "data") == 2
    told = capsys.readouterr().err
    assert says in told and "resection" not in told
    assert data("init", tmp_path / "data", "--labels", "brats-ped2024") == 0
    assert [case.convention for case in read_manifest(BRATS, tmp_path / "data")[0]] == ["brats-ped2024"] * 2


def test_a_resection_cavity_as_background(tmp_path):
    write_case(tmp_path / "data", "BraTS-GLI-00001-100", label=label(1, 4, 3))
    assert data("init", tmp_path / "data", "--labels", "brats2024") == 0
    [case] = read_manifest(BRATS, tmp_path / "data")[0]
    classes = read_case(case)["label"][0].numpy()
    assert np.array_equal(np.bincount(classes.ravel(), minlength=4)[1:], [1, 0, 1])


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        (("BraTS-MEN-RT-0001-1", "BraTS-MEN-RT-0001-2"), {"BraTS-MEN-RT-0001"}),
        (("BraTS-GoAT-00001", "BraTS-GoAT-00002"), {"BraTS-GoAT-00001", "BraTS-GoAT-00002"}),
        (("BraTS-PED-00001-000", "BraTS-PED-00001-001"), {"BraTS-PED-00001"}),
        (("BraTS-MET-00001-000", "BraTS-MET-00001-001"), {"BraTS-MET-00001"}),
        (("BraTS-GLI-00001-100", "BraTS-GLI-00001-101"), {"BraTS-GLI-00001"}),
        (("BraTS-SSA-00001-000", "BraTS-SSA-00002-000"), {"BraTS-SSA-00001", "BraTS-SSA-00002"}),
    ],
)
@pytest.mark.parametrize("task", [BRATS, find_task("brats_post_treatment")], ids=lambda task: task.name)
def test_examinations_of_one_patient(names, patients, task):
    assert {read_case_name(task, name).patient for name in names} == patients


def test_values_of_2012_to_2015_are_read_if_the_user_says_so(tmp_path, capsys):
    made = label(1, 2, 4, kind=3)
    made[5, 5, 5] = 3
    write_case(tmp_path / "data", "pat0001", label=made)
    assert data("init", tmp_path / "data") == 2
    told = capsys.readouterr().err
    for name in ("brats2015 (BraTS 2012 to 2015", "brats2024 (", "brats-ped2024 ("):
        assert f"--labels {name}" in told
    assert data("init", tmp_path / "data", "--labels", "brats2015") == 0


def test_what_the_user_says_is_checked_too(tmp_path, capsys):
    write_case(tmp_path / "data", "BraTS-PED-00001-000", label=label(2, 4, 1))
    assert data("init", tmp_path / "data", "--labels", "brats2023") == 2
    told = capsys.readouterr().err
    assert "holds the label values 4, unknown as BraTS from 2023 on" in told and "resection" not in told


def test_without_a_label_there_is_nothing_to_read(tmp_path):
    write_case(tmp_path / "data", "BraTS-PED-00001-000", label=None)
    assert data("check", tmp_path / "data") == 0


@pytest.mark.parametrize(
    ("name", "warned"),
    [("BraTS-GLI-00001-100", 0), ("BraTS-SSA-00001-000", 0), ("BraTS-MEN-00001-000", 1), ("BraTS-MET-00001-000", 1)],
)
def test_the_same_classes_are_read(tmp_path, capsys, name, warned):
    write_case(tmp_path / "data", name, label=label(1, 2, 3))
    assert data("check", tmp_path / "data") == 0
    assert capsys.readouterr().out.count("1  case of another disease than the task's, by its name\n") == warned
    assert data("init", tmp_path / "data") == 0
    assert [case.convention for case in read_manifest(BRATS, tmp_path / "data")[0]] == ["brats2023"]


@pytest.mark.parametrize("values", [(1, 2, 4), (1, 4, 3)])
@pytest.mark.parametrize("place", ["own folder", "renamed folder", "list", "group"])
def test_a_resection_cavity_is_never_enhancing_tumour(tmp_path, capsys, place, values):
    """Wherever a case of BraTS post-treatment lies, its 4 is not that of BraTS until 2021."""
    name = "BraTS-GLI-00001-100"
    folder = write_case(tmp_path / "data", name, label=label(*values)).label.parent
    if place == "renamed folder":
        folder.rename(tmp_path / "data" / "patient-7")
    elif place == "group":
        (tmp_path / "data" / "HGG").mkdir()
        folder.rename(tmp_path / "data" / "HGG" / name)
    elif place == "list":
        row = f"7,{name}/{name}_t1.nii.gz,{name}/{name}_seg.nii.gz"
        (tmp_path / "data" / "cases.csv").write_text(f"case,t1,seg\n{row}\n")
    assert data("init", tmp_path / "data") == 2
    told = capsys.readouterr().err
    assert "holds the label values 4" in told and "since 2024 BraTS has resection cavities as 4" in told


@pytest.mark.parametrize("word", ["seg", "segmentation", "seg-v2"])
def test_the_file_tells_where_the_folder_does_not(tmp_path, capsys, word):
    case = write_case(tmp_path / "data", "patient-7", label=label(2, 4, 1))
    Path(case.label).rename(case.label.with_name(f"BraTS-PED-00001-000-{word}.nii.gz"))
    assert data("init", tmp_path / "data") == 2
    assert "children's tumours" in capsys.readouterr().err


def test_evaluate_asks_for_the_labels_values_and_not_for_the_predictions(tmp_path, capsys):
    write_case(tmp_path / "labels", "BraTS-PED-00001-000", label=label(1, 2, 3))
    case = write_case(tmp_path / "made", "BraTS-PED-00001-000")
    (tmp_path / "predictions").mkdir()
    case.label.rename(tmp_path / "predictions" / "BraTS-PED-00001-000.nii.gz")
    command = ["evaluate", "--predictions", str(tmp_path / "predictions"), "--labels", str(tmp_path / "labels")]
    assert main(command) == 2
    assert "children's tumours" in (told := capsys.readouterr().err) and "--label-values" in told
    assert main([*command, "--label-values", "brats2023"]) == 0
