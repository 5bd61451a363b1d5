from __future__ import annotations

from pathlib import Path

import pytest

from fedmepd.cli import main
from fedmepd.data.same_patients import check_sites
from fedmepd.errors import DataError
from fedmepd.tasks.brats import BRATS
from tests.data.files import write_case


def check(folder: Path, *sites: str) -> str:
    return check_sites(BRATS, folder, sites)


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


def test_links_to_another_sites_cases(tmp_path: Path) -> None:
    """Under another name, which `data init` was allowed to follow; a site without a manifest refuses such links."""
    write_case(tmp_path / "a", "case", ("T1", "T2"))
    linked = tmp_path / "b" / "renamed"
    linked.mkdir(parents=True)
    for file in (tmp_path / "a" / "case").iterdir():
        (linked / file.name.replace("case", "renamed")).symlink_to(file)
    assert main(["data", "init", str(tmp_path / "b"), "--follow-links"]) == 0
    with pytest.raises(DataError, match="a and b have the same files, such as .*/a/case/case_") as refused:
        check(tmp_path, "a", "b")
    assert refused.value.public == "a and b have the same files"


def test_patients_of_the_same_names(tmp_path: Path) -> None:
    for site, names in {"a": "12", "b": "12", "c": "23", "d": "4"}.items():
        for name in names:
            write_case(tmp_path / site, f"case-{name}", ("T1",))
    warned = check(tmp_path, "a", "b", "c", "d")
    assert warned.startswith(
        "a and b have 2 patients of the same name, all of theirs; a and c have 1 patient of the same name, some of "
        "theirs; b and c have 1 patient of the same name, some of theirs. If they are the same people, "
    )
    assert warned.endswith(f"`fedmepd data check {tmp_path}` compares what their files contain")
    assert check(tmp_path, "c", "d") == ""


def test_of_many_pairs_a_few_are_named(tmp_path: Path) -> None:
    for site in "abcd":
        write_case(tmp_path / site, "case", ("T1",))
    assert "; and 3 more pairs. If" in check(tmp_path, *"abcd")
