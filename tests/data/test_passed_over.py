"""What of a folder is not used is named: stray images, links to nothing, empty folders, patterns that fit nothing."""

import pytest

from fedmepd.data.file_kinds import Pattern
from fedmepd.data.layouts import find_dataset
from fedmepd.data.ownership import find_site_data
from fedmepd.errors import DataError
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.brats import BRATS
from tests.data.files import write_case


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder, **how):
    return [(one.severity, one.kind, one.text) for one in find_dataset(BRATS, folder, **how).findings]


@pytest.mark.parametrize("link", [False, True])
def test_two_cases_of_one_name(tmp_path, link):
    """To rename a case that is there twice would make two patients of one."""
    touch(tmp_path, "north/EGD-0001/t1.nii.gz", "south/readme.txt")
    if link:
        (tmp_path / "south" / "EGD-0001").symlink_to(tmp_path / "north" / "EGD-0001")
    else:
        touch(tmp_path, "south/EGD-0001/t1.nii.gz")
    [text] = [text for _, kind, text in found(tmp_path, follow_links=True) if kind == "two cases of one name"]
    assert text.endswith("links: remove one" if link else "EGD-0001: rename one, or remove one if they are the same")


@pytest.mark.parametrize("follow_links", [False, True])
def test_empty_folders_and_links_to_nothing(tmp_path, follow_links):
    """In place of a case or of an examination: following them would find nothing, so that is no advice."""
    data = tmp_path / "data"
    touch(data, "good/t1.nii.gz", "patient/2019-03/t1.nii.gz", "bare/.DS_Store")
    (tmp_path / "void").mkdir()
    (data / "linked").symlink_to(tmp_path / "void")
    (data / "lost").symlink_to(tmp_path / "gone")
    (data / "patient" / "2020-03").mkdir()
    (data / "round").symlink_to("round")
    kind = "empty folder, or link to nothing"
    assert found(data, follow_links=follow_links)[:-1] == [
        ("warning", kind, f"{data}/bare: it is empty"),
        ("warning", kind, f"{data}/linked: a link to {tmp_path}/void, which is empty"),
        ("warning", kind, f"{data}/lost: a link to {tmp_path}/gone, which is not there"),
        ("warning", kind, f"{data}/patient/2020-03: it is empty"),
        ("warning", kind, f"{data}/round: a link to round, which is not there"),
    ]
    assert [case.name for case in find_dataset(BRATS, data).cases] == ["good", "patient_2019-03"]


def test_a_folder_without_an_image(tmp_path):
    touch(tmp_path, "a/t1.nii.gz", "b/report.pdf", "c/deep/t1.nii.gz", "a/reports/letter.pdf")
    (tmp_path / "a" / "dicom").mkdir()
    assert len(found(tmp_path)) == 2 and found(tmp_path)[1][1].startswith("folders in folders")
    assert ("note", "folder without an image, passed over", f"{tmp_path}/b holds no image") in found(tmp_path)
    assert not any("/c holds no image" in text for _, _, text in found(tmp_path, deep=False))


def test_images_beside_the_folders_of_cases(tmp_path):
    """They are no case, unless there is nothing else."""
    touch(tmp_path, "a/t1.nii.gz", "x_t1.nii.gz", "x_t2.nii.gz")
    [(severity, kind, text)] = found(tmp_path)
    assert (severity, kind) == ("warning", "image beside the folders of cases, passed over")
    assert text == f"{tmp_path}/x_t1.nii.gz and 1 more: put the images of each case into a folder of its own"
    touch(tmp_path / "one", "t1.nii.gz", "t2.nii.gz")
    assert found(tmp_path / "one") == [] and len(find_dataset(BRATS, tmp_path / "one").cases) == 1
    touch(tmp_path / "msd", "imagesTr/BRATS_001.nii.gz", "template.nii.gz")
    assert not any("template" in text for _, _, text in found(tmp_path / "msd"))


def test_images_beside_the_cases_for_fusion_training(tmp_path):
    """A folder of that name with images is a case of the hospital: not if it has folders of cases too."""
    touch(tmp_path, "a/t1.nii.gz", "fusion/b/t1.nii.gz")
    assert [case.name for case in find_dataset(BRATS, tmp_path, without="fusion").cases] == ["a"]
    touch(tmp_path, "fusion/t1.nii.gz")
    with pytest.raises(
        DataError, match="/fusion holds images, such as t1.nii.gz, and folders of cases, such as b: "
    ) as e:
        find_dataset(BRATS, tmp_path, without="fusion")
    assert str(tmp_path) not in e.value.public
    (tmp_path / "fusion" / "b" / "t1.nii.gz").unlink()
    assert [case.name for case in find_dataset(BRATS, tmp_path, without="fusion").cases] == ["a", "fusion"]


def test_cases_at_several_depths(tmp_path):
    """A site without a manifest uses the upper ones alone, so it is asked; what is for fusion training is no other."""
    local = SiteSettings(data=tmp_path / "data", cache=tmp_path / "cache")
    write_case(local.data, "a", ("T1",))
    write_case(local.data / "fusion", "f", ("T1",))
    assert len(find_site_data("clinic", make_settings("paper"), local)[0].cases) == 1
    # An atlas and segmentations are no cases.
    touch(local.data, "atlas/MNI152/mni.nii.gz", "predictions/a/a_seg.nii.gz")
    assert len(find_site_data("clinic", make_settings("paper"), local)[0].cases) == 1
    write_case(local.data / "patient-2", "2019-03", ("T1",))
    with pytest.raises(
        DataError, match="data holds 1 case, and 1 more in folders of folders, such as patient-2_2019-03"
    ) as e:
        find_site_data("clinic", make_settings("paper"), local)
    assert "`fedmepd data init " in str(e.value) and "patient-2" not in e.value.public


def patterns(*texts):
    return [Pattern.read(BRATS, text) for text in texts]


@pytest.mark.parametrize("layout", ["plain", "single", "BIDS", "none"])
def test_a_pattern_that_fits_nothing(tmp_path, layout):
    """Its modality would be lost at every case."""
    names = {"plain": ["a/x_t1.nii.gz"], "single": ["x_t1.nii.gz"], "none": ["a/x.nii.gz"]}
    touch(tmp_path, *names.get(layout, ["sub-1/anat/sub-1_T1w.nii.gz", "dataset_description.json"]))
    for said in (["T1=*_tee1.nii.gz"], ["T1=*[1w].nii.gz", "T1=*_tee1.nii.gz"], ["T1=deep/*.nii.gz"]):
        with pytest.raises(
            DataError, match=r"--pattern 'T1=.*' fits no file of a case in .*, where files are such as "
        ) as e:
            find_dataset(BRATS, tmp_path, patterns=patterns(*said))
        assert str(tmp_path) not in e.value.public
    if layout != "none":
        assert find_dataset(
            BRATS, tmp_path, patterns=patterns("T1=*T1w.nii.gz", "T1=*t1.nii.gz")[layout != "BIDS" :][:1]
        ).cases


def test_both_patterns_of_a_kind_fit(tmp_path):
    touch(tmp_path, "a/x_t1.nii.gz", "a/y_t1.nii.gz")
    [case] = find_dataset(BRATS, tmp_path, patterns=patterns("T1=x_*", "T1=y_*")).cases
    assert [one.kind for one in case.findings] == ["two files that look like the same modality"]


def test_a_pattern_without_any_image(tmp_path):
    assert find_dataset(BRATS, tmp_path, patterns=patterns("T1=*_tee1.nii.gz")).cases == []


def test_a_pattern_that_fits_some_cases(tmp_path):
    """The cases that lose a modality are told, and the file of each that would be it by its name."""
    touch(tmp_path, "a/a_t1_new.nii.gz", "a/a_t1.nii.gz", "b/b_t1.nii.gz", "b/b_t2.nii.gz", "c/c_t2.nii.gz")
    dataset = find_dataset(BRATS, tmp_path, patterns=patterns("T1=*_t1_new.nii.gz"))
    text = "--pattern 'T1=*_t1_new.nii.gz' fits no file of 2 of 3 cases, such as b: they have no T1"
    assert found(tmp_path, patterns=patterns("T1=*_t1_new.nii.gz")) == [
        ("warning", "pattern that fits no file of some cases", text)
    ]
    a, b, c = (case.findings for case in dataset.cases)
    assert [(one.severity, one.kind) for one in a] == [("note", "file of another name, passed over")]
    assert [(one.severity, one.kind) for one in b] == [("warning", "file that no pattern fits, passed over")]
    assert b[0].text == (
        f"{tmp_path}/b/b_t1.nii.gz is passed over, and the case has no T1: its name says T1, but no --pattern for T1 "
        "fits it"
    )
    assert c == ()


@pytest.mark.parametrize("layout", ["list", "Decathlon"])
def test_a_pattern_where_it_has_no_effect(tmp_path, layout):
    touch(tmp_path, "imagesTr/BRATS_001.nii.gz")
    if layout == "list":
        (tmp_path / "cases.csv").write_text("case,t1\na,imagesTr/BRATS_001.nii.gz\n")
    with pytest.raises(DataError, match="--pattern has no effect: .* says which file is "):
        find_dataset(BRATS, tmp_path, patterns=patterns("T1=*.nii.gz"))
