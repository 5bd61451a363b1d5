"""Which cases are whose, where the fusion site is a hospital."""

import json
import shutil

import pytest

from fedmepd.cli import main
from fedmepd.data.manifest import FILE_NAME
from fedmepd.data.site import open_fusion_data, open_site_data
from fedmepd.errors import DataError
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings
from tests.data.files import write_case


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    return SiteSettings(data=tmp_path / "data", cache=tmp_path / "cache")


def job(site=""):
    return make_settings("paper", {"fusion": {"site": site}})


def names(data):
    return {case.name for case in data.train + data.validation + data.test + data.unlabelled}


def mark(folder, *patients):
    """Initialises a folder with these patients for fusion training."""
    (folder.parent / "patients.txt").write_text("\n".join(patients))
    assert main(["data", "init", str(folder), "--fusion", str(folder.parent / "patients.txt")]) == 0


def write(folder, *cases):
    for name in cases:
        write_case(folder, name)


def test_beside_the_hospitals_sub_folder(local):
    write(local.data / "site-3", "a", "b")
    write(local.data / "fusion", "c", "d")
    site, fusion = open_site_data("site-3", job("site-3"), local), open_fusion_data("site-3", job("site-3"), local)
    assert (names(site), names(fusion), fusion.name) == ({"a", "b"}, {"c", "d"}, "fusion")


@pytest.mark.parametrize("cohort", [False, True])
def test_inside_the_hospitals_folder(local, cohort):
    """Whether that is the data folder itself or in it: the site's own cases are the others."""
    home = local.data / "site-3" if cohort else local.data
    write(home, "a", "b")
    write(home / "fusion", "c", "d")
    site, fusion = open_site_data("site-3", job("site-3"), local), open_fusion_data("site-3", job("site-3"), local)
    assert (names(site), names(fusion)) == ({"a", "b"}, {"c", "d"})
    # In a job of another fusion site they are not the site's own either.
    assert names(open_site_data("site-3", job("site-9"), local)) == {"a", "b"}


def test_a_case_that_is_called_fusion(local):
    write(local.data, "a", "fusion")
    assert names(open_site_data("site-3", job(), local)) == {"a", "fusion"}


@pytest.mark.parametrize("cohort", [False, True])
def test_marked_in_the_manifest(local, cohort):
    home = local.data / "site-3" if cohort else local.data
    write(home, *"abcdef")
    mark(home, "b", "d", "e")
    site, fusion = open_site_data("site-3", job("site-3"), local), open_fusion_data("site-3", job("site-3"), local)
    assert (names(site), names(fusion), fusion.name) == ({"a", "c", "f"}, {"b", "d", "e"}, "fusion")
    # Parts by shares of their own: of three patients, every part has one.
    assert site.counts() == fusion.counts() == {"train": 1, "validation": 1, "test": 1}
    assert names(open_site_data("site-3", job(), local)) == {"a", "c", "f"}


def test_the_servers_own_folder(local):
    """All its cases are the fusion site's, or, if a manifest marks some, these."""
    write(local.data, *"abcd")
    assert names(open_fusion_data("", job(), local)) == {"a", "b", "c", "d"}
    mark(local.data, "b", "c")
    assert names(open_fusion_data("", job(), local)) == {"b", "c"}


@pytest.mark.parametrize("where", ["marks", "folder"])
def test_a_hospital_that_is_the_fusion_site_alone(local, where):
    local.data.mkdir()
    write(local.data if where == "marks" else local.data / "fusion", "a", "b")
    if where == "marks":
        mark(local.data, "a", "b")
    told = []
    site = open_site_data("site-3", job("site-3"), local, told.append)
    assert (names(site), site.modalities, site.source) == (set(), (), "folder")
    assert told == ["no labelled case of its own: it takes part as the fusion site alone"]
    assert names(open_fusion_data("site-3", job("site-3"), local)) == {"a", "b"}
    # Only where the job says so.
    expected = {"marks": "fusion site of the job is site-9: set fusion.site", "folder": "no case in it"}
    with pytest.raises(DataError, match=expected[where]) as error:
        open_site_data("site-3", job("site-9"), local)
    assert str(local.data) not in error.value.public


@pytest.mark.parametrize("empty", [False, True])
def test_a_hospital_that_does_not_say_which(local, empty):
    write(local.data, "a", "b")
    if empty:
        (local.data / "fusion").mkdir()
    with pytest.raises(DataError, match=r"sub-folder fusion of .*fedmepd data init .* --fusion WHICH") as error:
        open_fusion_data("site-3", job("site-3"), local)
    assert error.value.public == "site-3 does not say which of its cases are for fusion training"


def test_two_places_are_asked_about(local):
    write(local.data / "site-3", "a", "b")
    mark(local.data / "site-3", "b")
    write(local.data / "fusion", "c")
    with pytest.raises(DataError, match=r"/fusion and in the marked cases of .*: expected one of these") as error:
        open_fusion_data("site-3", job("site-3"), local)
    assert error.value.public == "site-3 has fusion cases in 2 places"


def test_a_patient_of_both(local):
    """By name; or by the content of one file, under another name of patient and file."""
    write(local.data / "site-3", "a", "b", "c")
    write(local.data / "fusion", "d", "e")
    # Another patient's images under the name b.
    write(local.data / "other", "z")
    (local.data / "other" / "z").rename(local.data / "fusion" / "b")
    with pytest.raises(DataError, match="patient b is among the site's own cases and") as error:
        open_fusion_data("site-3", job("site-3"), local)
    assert error.value.public == "the site's data cannot be used: patient of the site and of fusion training (1)"

    shutil.rmtree(local.data / "fusion" / "b")
    open_fusion_data("site-3", job("site-3"), local)
    shutil.copy(local.data / "site-3" / "c" / "c_t2.nii.gz", local.data / "fusion" / "e" / "e_t2.nii.gz")
    with pytest.raises(DataError, match="the T2 of case e, patient e, .* is that of the site's own case c") as error:
        open_fusion_data("site-3", job("site-3"), local)
    expected = "the site's data cannot be used: same content at the site and for fusion training (1)"
    assert error.value.public == expected


def test_the_same_file_twice_in_a_marked_folder(local):
    write(local.data, *"abc")
    shutil.copytree(local.data / "a", local.data / "copy-of-a")
    file = local.data / "patients.txt"
    file.write_text("copy-of-a")
    assert main(["data", "init", str(local.data), "--fusion", str(file)]) == 2
    assert not (local.data / FILE_NAME).exists()


def test_a_manifest_that_marks_one_of_a_patients_cases(local):
    write(local.data, "a", "b")
    mark(local.data, "a", "b")
    file = local.data / FILE_NAME
    content = json.loads(file.read_text())
    content["cases"][1] |= {"patient": "a", "part": content["cases"][0]["part"]}
    del content["cases"][1]["fusion"]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="some cases of patient a are for fusion training and some are not"):
        open_site_data("site-3", job("site-3"), local)


@pytest.mark.parametrize("manifest", [False, True])
def test_fusion_cases_whose_images_lie_beside_their_list(local, manifest):
    write(local.data, "a", "b")
    write(local.data / "fusion", "c", "d")
    for case in ("c", "d"):
        for file in (local.data / "fusion" / case).iterdir():
            file.rename(local.data / "fusion" / file.name)
        (local.data / "fusion" / case).rmdir()
    kinds = ("flair", "t1ce", "t1", "t2", "seg")
    rows = [",".join([case, *(f"{case}_{kind}.nii.gz" for kind in kinds)]) for case in ("c", "d")]
    (local.data / "fusion" / "cases.csv").write_text("\n".join([",".join(["case", *kinds]), *rows]))
    if manifest:
        assert main(["data", "init", str(local.data / "fusion")]) == 0
    site, fusion = open_site_data("site-3", job("site-3"), local), open_fusion_data("site-3", job("site-3"), local)
    assert (names(site), names(fusion)) == ({"a", "b"}, {"c", "d"})
