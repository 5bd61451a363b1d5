from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fedmepd.cli import main
from fedmepd.data.links import identity
from fedmepd.data.same_patients import check_sites, find_common, require_apart
from fedmepd.errors import DataError
from fedmepd.tasks.brats import BRATS
from fedmepd.tasks.find import find_task
from tests.data.files import save, tumour, volume, write_case

PROSTATE = find_task("prostate")


def check(folder: Path, *sites: str) -> str:
    """The only warning, if there is one."""
    warned = check_sites(BRATS, folder, sites)
    assert len(warned) < 2
    return "".join(warned)


def test_sites_of_their_own_patients(tmp_path: Path) -> None:
    for site in ("a", "b", "fusion"):
        write_case(tmp_path / site, f"of-{site}", ("T1",))
    assert check(tmp_path, "a", "b") == ""


@pytest.mark.parametrize("other", ["b", "fusion"])
def test_a_link_to_another_sites_folder(other: str, tmp_path: Path) -> None:
    write_case(tmp_path / "a", "case", ("T1",))
    (tmp_path / other).symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match=f"/a and .*/{other} are the same folder, {tmp_path}/a: two sites") as refused:
        check(tmp_path, "a", *(["b"] if other == "b" else []))
    assert refused.value.public == f"a and {other} have the same data folder"


@pytest.mark.parametrize("manifest", [False, True])
@pytest.mark.parametrize("how", ["symbolic", "hard", "folders"])
def test_links_to_another_sites_cases(how: str, manifest: bool, tmp_path: Path) -> None:
    """Under other names, with a manifest and without; a manifest of links says that the user has allowed them."""
    write_case(tmp_path / "a", "case", ("T1", "T2"))
    write_case(tmp_path / "b", "own", ("T1", "T2"))
    if how == "folders":
        (tmp_path / "b" / "renamed").symlink_to(tmp_path / "a" / "case")
    else:
        (tmp_path / "b" / "renamed").mkdir()
        for file in (tmp_path / "a" / "case").iterdir():
            link = tmp_path / "b" / "renamed" / file.name.replace("case", "renamed")
            link.symlink_to(file) if how == "symbolic" else os.link(file, link)
    if manifest:
        assert main(["data", "init", str(tmp_path / "b"), "--follow-links"]) == 0
    with pytest.raises(DataError, match="a and b have 3 files in common through links, such as .*/a/case/") as refused:
        check(tmp_path, "a", "b")
    assert "/b/renamed/" in str(refused.value) and "two sites would have the same patients" in str(refused.value)
    assert "of what shows no patient, such as an empty label, give each site a copy" in str(refused.value)
    assert refused.value.public == "a and b have the same files"


def test_every_pair_with_common_files_is_named(tmp_path: Path) -> None:
    """Also if the file is in a hospital's folder of cases for fusion training, and never for that folder's own site."""
    write_case(tmp_path / "a", "case", ("T1",))
    write_case(tmp_path / "b", "own", ("T1",))
    write_case(tmp_path / "b" / "fusion", "other", ("T1",))
    assert find_common({name: tmp_path / name for name in ("a", "b", "b/fusion")}, [BRATS]) == []
    assert main(["data", "init", str(tmp_path / "b")]) == 0
    for place in ("b/fusion/other", "c/third"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / "a" / "case" / "case_t1.nii.gz", tmp_path / place / "x_t1.nii.gz")
    found = find_common({name: tmp_path / name for name in "abc"}, [BRATS])
    assert [(pair.one, pair.other) for pair in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    with pytest.raises(DataError, match="; a and c have the same files; b and c have the same files$"):
        check(tmp_path, *"abc")


def test_what_no_case_uses_may_be_the_same_everywhere(tmp_path: Path) -> None:
    """An atlas beside the cases or in one's folder; templates in a folder of their own."""
    atlas = save(tmp_path / "atlas.nii.gz", volume(7))
    folders = {site: tmp_path / site for site in ("a", "b", "fusion")}
    for site, folder in folders.items():
        write_case(folder, f"of-{site}", ("T1",))
        for place in ("atlas.nii.gz", f"of-{site}/atlas.nii.gz", "templates/mni.nii.gz"):
            (folder / place).parent.mkdir(exist_ok=True)
            os.link(atlas, folder / place) if site == "a" else (folder / place).symlink_to(atlas)
    assert find_common(folders, [BRATS]) == []
    # At one site it is a case's.
    (tmp_path / "b" / "x").mkdir()
    (tmp_path / "b" / "x" / "t1.nii.gz").symlink_to(atlas)
    assert [(pair.one, pair.other) for pair in find_common(folders, [BRATS])] == [("a", "b"), ("b", "fusion")]


def test_files_that_a_case_of_any_task_uses(tmp_path: Path) -> None:
    """Where nobody has said what the cases are of."""
    for site in "ab":
        write_case(tmp_path / site, f"of-{site}", ("T2",))
    adc = save(tmp_path / "a" / "of-a" / "adc.nii.gz", volume(7))
    os.link(adc, tmp_path / "b" / "of-b" / "adc.nii.gz")
    folders = {site: tmp_path / site for site in "ab"}
    assert find_common(folders, [BRATS]) == []
    with pytest.raises(DataError, match="a and b have 1 file in common"):
        require_apart(folders, [BRATS, PROSTATE])
    # A list that is none of one task, for it has no column of its images.
    (tmp_path / "a" / "cases.csv").write_text("case,adc\nx,of-a/adc.nii.gz\n")
    with pytest.raises(DataError, match="a and b have 1 file in common"):
        require_apart(folders, [BRATS, PROSTATE])
    with pytest.raises(DataError, match="cases.csv has no column"):
        require_apart(folders, [BRATS])


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    write_case(tmp_path / "a", "case", ("T1",))
    (tmp_path / "a" / "up").symlink_to(tmp_path / "a")
    write_case(tmp_path / "b", "other", ("T1",))
    assert find_common({name: tmp_path / name for name in "ab"}, [BRATS]) == []


def test_links_that_no_site_may_read(tmp_path: Path) -> None:
    """Without a manifest, that says that they are meant, the site would refuse them when the run has begun."""
    write_case(tmp_path / "a", "case", ("T1",))
    write_case(tmp_path / "elsewhere", "other", ("T1",))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "other").symlink_to(tmp_path / "elsewhere" / "other")
    with pytest.raises(
        DataError, match="/b/other leads out of .*/b: copy.*; a run has no option --follow-links: give it to `fedmepd"
    ):
        check(tmp_path, "a", "b")
    assert main(["data", "init", str(tmp_path / "b"), "--follow-links"]) == 0
    assert check(tmp_path, "a", "b") == ""


def test_what_a_site_passes_over(tmp_path: Path) -> None:
    for site in "ab":
        write_case(tmp_path / site, f"of-{site}", ("T1",))
    (tmp_path / "b" / "lost").symlink_to(tmp_path / "gone")
    assert check(tmp_path, "a", "b") == (
        f"{tmp_path}/b/lost: a link to {tmp_path}/gone, which is not there. A run goes on without: "
        f"`fedmepd data check {tmp_path}` says more"
    )


def test_patients_of_the_same_names(tmp_path: Path) -> None:
    """Of names that are more than a number; the files differ."""
    for site, names in {"a": ("Li", "Ray"), "b": ("Li", "Ray"), "c": ("Ray", "Orr"), "d": ("Poe",)}.items():
        for name in names:
            write_case(tmp_path / site, name, ("T1",), T1=volume(300 + ord(site)), label=tumour(kind=ord(site)))
    warned = check(tmp_path, "a", "b", "c", "d")
    assert warned.startswith(
        "a and b have 2 patients in common by name, all of theirs; a and c have 1 patient in common by name, some of "
        "theirs; b and c have 1 patient in common by name, some of theirs. If they are the same people, "
    )
    assert warned.endswith(f"`fedmepd data check {tmp_path}` compares what their files contain")
    assert check(tmp_path, "c", "d") == ""


@pytest.mark.parametrize("name", ["001", "P017", "patient-3", "sub-01", "Pat. 12"])
def test_hospitals_that_number_their_patients(name: str, tmp_path: Path) -> None:
    """Such a name is nothing to be warned of; a name of the same number and with the same file is."""
    for site in "ab":
        write_case(tmp_path / site, name, ("T1",), T1=volume(300 + ord(site)), label=tumour(kind=ord(site)))
    assert check(tmp_path, "a", "b") == ""
    shutil.copy(tmp_path / "a" / name / f"{name}_seg.nii.gz", tmp_path / "b" / name)
    told = "a and b have 1 patient in common by name and by a file of the same content. If they are the same people"
    assert check(tmp_path, "a", "b").startswith(told)
    # Two people without a tumour have the same label.
    for site in "ab":
        save(tmp_path / site / name / f"{name}_seg.nii.gz", tumour() * 0)
    assert check(tmp_path, "a", "b") == ""


@pytest.mark.parametrize("name", ["BraTS20_Training_001", "Brats18_CBICA_AAB_1", "H00348123", "EGD-0001"])
def test_a_name_that_is_more_than_a_number(name: str, tmp_path: Path) -> None:
    for site in "ab":
        write_case(tmp_path / site, name, ("T1",), T1=volume(300 + ord(site)), label=tumour(kind=ord(site)))
    assert "a and b have 1 patient in common by name, all of theirs" in check(tmp_path, "a", "b")


def test_of_many_pairs_a_few_are_named(tmp_path: Path) -> None:
    for site in "abcd":
        write_case(tmp_path / site, "case", ("T1",))
    assert "; and 3 more pairs. If" in check(tmp_path, *"abcd")


def test_shares_that_number_no_files(tmp_path: Path) -> None:
    """There all files would be the same one."""

    def unnumbered(file: Path) -> os.stat_result:
        return os.stat_result((*os.stat(file)[:1], 0, *os.stat(file)[2:]))

    one, other = write_case(tmp_path, "one", ("T1",)), write_case(tmp_path, "other", ("T1",))
    (tmp_path / "link.nii.gz").symlink_to(one.images["T1"])
    assert identity(one.images["T1"], unnumbered) != identity(other.images["T1"], unnumbered)
    assert identity(one.images["T1"], unnumbered) == identity(tmp_path / "link.nii.gz", unnumbered)
    assert identity(tmp_path / "gone", unnumbered) is None
