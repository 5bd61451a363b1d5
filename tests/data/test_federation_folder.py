"""What lies in a folder that is to hold the sites of a federation."""

import pytest

from fedmepd.cli import main
from fedmepd.data.federation_folder import look_into
from fedmepd.data.same_patients import check_sites
from fedmepd.errors import DataError
from fedmepd.tasks.brats import BRATS
from tests.data.files import write_case


@pytest.fixture
def folder(tmp_path):
    """Two sites and the fusion site."""
    for site in ("site-10", "site-9", "fusion"):
        write_case(tmp_path / "data" / site, f"of-{site}", ("T1",))
    return tmp_path / "data"


def test_sites_in_their_natural_order(folder):
    (folder / ".git").mkdir()
    (folder / "readme.txt").touch()
    found = look_into(BRATS, folder)
    assert found.sites == ("site-9", "site-10") and not found.strays and not found.empty
    found.require_sites(fusion=True)
    assert found.without_images() == ""


def a_case(folder):
    write_case(folder, "case-99", ("T1",))


def an_image(folder):
    write_case(folder / "x", "y", ("T1",)).images["T1"].rename(folder / "stray.nii.gz")
    (folder / "x" / "y" / "y_seg.nii.gz").unlink()
    (folder / "x" / "y").rmdir()
    (folder / "x").rmdir()


def a_group(folder):
    write_case(folder / "HGG", "a", ("T1",))


def dicom(folder):
    (folder / "west" / "series").mkdir(parents=True)
    (folder / "west" / "series" / "1.dcm").touch()


def other_letters(folder):
    write_case(folder / "FUSION", "a", ("T1",))


def too_deep(folder):
    write_case(folder / "west" / "a/b/c/d/e/f/g", "h", ("T1",))


@pytest.mark.parametrize(
    ("add", "name", "why"),
    [
        (a_case, "case-99", "images such as case-99_seg.nii.gz lie directly in it, as in the folder of one case"),
        (an_image, "stray.nii.gz", "an image in no site's folder"),
        (a_group, "HGG", "its name is that of a group of cases: if it is a site, rename it, or make"),
        (other_letters, "FUSION", "its name is fusion but for upper and lower case: call it fusion if its cases are"),
        (dicom, "west", "images such as series/1.dcm: DICOM: convert them with dcm2niix"),
        (too_deep, "west", "no case found around h_"),
    ],
)
def test_images_that_belong_to_no_site(folder, add, name, why):
    """Nobody can know whose they are: they are named, with the sites that were found."""
    add(folder)
    found = look_into(BRATS, folder)
    assert found.sites == ("site-9", "site-10") and not found.empty
    assert list(found.strays) == [name] and why in found.strays[name]
    with pytest.raises(
        DataError, match=r"data holds 2 sites \(site-9, site-10\), and images that belong to none: "
    ) as error:
        found.require_sites(fusion=True)
    assert f"{name} ({found.strays[name]}). Move them into" in str(error.value)
    assert str(folder) not in error.value.public and name not in error.value.public
    [told] = found.findings()
    assert told.severity == "error" and f"{folder / name} is no site: {found.strays[name]}" == told.text


def test_an_atlas_beside_the_cases_of_each_site(folder):
    """The sites pass it over. An image that may be of a case is asked about, as above."""
    for site in ("site-9", "site-10", "fusion"):
        (folder / site / "atlas.nii.gz").touch()
    found = look_into(BRATS, folder)
    assert found.sites == ("site-9", "site-10") and not found.strays and not found.empty
    [warned] = check_sites(BRATS, folder, found.sites)
    assert f"{folder}/site-9/atlas.nii.gz: put the images of each case into a folder of its own" in warned
    (folder / "site-9" / "t1.nii.gz").touch()
    assert list(look_into(BRATS, folder).strays) == ["site-9"]


def test_a_site_whose_images_lie_beside_its_list(folder):
    for case in (folder / "site-9").iterdir():
        for file in case.iterdir():
            file.rename(folder / "site-9" / file.name)
        case.rmdir()
    assert list(look_into(BRATS, folder).strays) == ["site-9"]
    (folder / "site-9" / "cases.csv").write_text("case,t1,seg\na,of-site-9_t1.nii.gz,of-site-9_seg.nii.gz\n")
    found = look_into(BRATS, folder)
    assert found.sites == ("site-9", "site-10") and not found.strays
    assert check_sites(BRATS, folder, found.sites) == []


def test_a_folder_without_the_manifest_that_others_have(folder):
    assert main(["data", "init", str(folder / "site-9")]) == 0
    found = look_into(BRATS, folder)
    assert found.sites == ("site-9",)
    assert found.strays == {"site-10": "it has no manifest, which site-9 has: `fedmepd data init` writes one"}


def test_a_manifest_of_the_fusion_site_alone(folder):
    """It says nothing of the others, and nothing under another spelling."""
    assert main(["data", "init", str(folder / "fusion")]) == 0
    assert look_into(BRATS, folder).sites == ("site-9", "site-10")
    (folder / "fusion").rename(folder / "Fusion")
    assert list(look_into(BRATS, folder).strays) == ["Fusion"]


def test_folders_without_images_are_named_with_the_reason(folder, tmp_path):
    (folder / "east").mkdir()
    (folder / "east" / ".DS_Store").touch()
    (tmp_path / "void").mkdir()
    (folder / "south").symlink_to(tmp_path / "void")
    (folder / "west").symlink_to(tmp_path / "gone")
    (folder / "papers").mkdir()
    (folder / "papers" / "methods.txt").touch()
    (folder / "north").mkdir()
    (folder / "north" / "p1").symlink_to(tmp_path / "gone")
    found = look_into(BRATS, folder)
    assert found.sites == ("site-9", "site-10") and not found.strays
    assert found.empty == {
        "east": "it is empty",
        "north": f"no image in it, but p1 (a link to {tmp_path}/gone, which is not there)",
        "papers": "no image in it",
        "south": f"a link to {tmp_path}/void, which is empty",
        "west": f"a link to {tmp_path}/gone, which is not there",
    }
    found.require_sites(fusion=True)
    assert found.without_images().startswith(f"the run goes on without what is no site in {folder}: east (it is empty)")
    assert {told.severity for told in found.findings()} == {"warning"} and len(found.findings()) == 5


@pytest.mark.parametrize("link", [False, True])
def test_no_case_for_fusion_training(folder, tmp_path, link):
    """Which a site may have in its place."""
    (folder / "fusion").rename(tmp_path / "moved")
    (folder / "fusion").symlink_to(tmp_path / "gone") if link else (folder / "fusion").mkdir()
    found = look_into(BRATS, folder)
    with pytest.raises(DataError, match="/data/fusion, for the cases for fusion training, is no folder of cases: "):
        found.require_sites(fusion=True)
    found.require_sites(fusion=False)
    assert found.without_images() == ""


def test_a_hospital_that_has_cases_for_fusion_training_alone(folder):
    write_case(folder / "west" / "fusion", "a", ("T1",))
    assert look_into(BRATS, folder).sites == ("site-9", "site-10", "west")


@pytest.mark.parametrize("mark", ["cases.csv", "imagesTr", "fedmepd-data.json"])
def test_a_folder_that_is_one_data_set(folder, mark):
    (folder / mark).mkdir() if mark == "imagesTr" else (folder / mark).touch()
    with pytest.raises(DataError, match=f"holds no sites: {mark} says that it is one data set; expected a folder with"):
        look_into(BRATS, folder).require_sites(fusion=True)


def test_a_folder_of_cases_or_of_nothing(tmp_path):
    for name in "abcde":
        write_case(tmp_path / "cases", name, ("T1",))
    with pytest.raises(DataError, match=r"holds no sites, but a \(images .*; and 2 more: expected a folder with one"):
        look_into(BRATS, tmp_path / "cases").require_sites(fusion=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no sites: expected a folder with one sub-folder for each site"):
        look_into(BRATS, tmp_path / "empty").require_sites(fusion=True)
