"""A user without rights is told so, and what helps; never that something is damaged, and never by a traceback."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedmepd.cli import main
from fedmepd.data.federation_folder import look_into
from fedmepd.data.links import describe_nothing
from fedmepd.data.same_patients import check_sites
from fedmepd.errors import DataError
from fedmepd.tasks.brats import BRATS
from tests.data.files import write_case

_NOBODY = 65534


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may enter, with a data set and a cache."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    for name in ("Li", "Ray"):
        write_case(folder / "data", name)
    (folder / "cache").mkdir(mode=0o777)
    (folder / "cache").chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def run(shared: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """Runs ``fedmepd data`` as a user whom rights bind; returns exit status and what was printed."""
    monkeypatch.setenv("FEDMEPD_CACHE", str(shared / "cache"))
    # What is imported late has been imported with all rights.
    for command in (["check"], ["init", "--out", str(shared / "warm")]):
        assert main(["data", command[0], str(shared / "data"), *command[1:]]) == 0
    shutil.rmtree(shared / "cache")
    (shared / "cache").mkdir()
    (shared / "cache").chmod(0o777)
    capsys.readouterr()

    def run_bound(*arguments: str | Path) -> tuple[int, str]:
        with bound_by_rights():
            status = main(["data", *map(str, arguments)])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run_bound


@contextmanager
def bound_by_rights() -> Iterator[None]:
    """Does what is inside as a user whom rights bind."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


RIGHT = "the right to"


def test_a_file(shared: Path, run) -> None:
    file = shared / "data" / "Li" / "Li_t1.nii.gz"
    file.chmod(0)
    status, printed = run("check", shared / "data")
    assert status == 1 and "     1  file that may not be read\n" in printed
    assert f"{file} may not be read by this user" in printed and "convert it again" not in printed


def test_a_folder(shared: Path, run) -> None:
    for folder in (shared / "data" / "Li", shared / "data"):
        folder.chmod(0)
        status, printed = run("check", shared / "data")
        folder.chmod(0o755)
        assert status == 2 and str(folder) in printed and RIGHT in printed and "Traceback" not in printed


def test_no_name_is_told_of_what_may_not_be_entered(shared: Path, run) -> None:
    """A folder that may be listed and not entered: `--anonymous` is for output that somebody sends."""
    (shared / "data" / "Li").chmod(0o444)
    status, printed = run("check", shared / "data", "--anonymous")
    named = run("check", shared / "data")
    (shared / "data" / "Li").chmod(0o755)
    assert status == 2 and "(Permission denied): without --anonymous the message names it" in printed
    assert "Li" not in printed and str(shared) not in printed
    assert named[0] == 2 and str(shared / "data" / "Li") in named[1] and RIGHT in named[1]


@pytest.mark.parametrize("closed", ["south", "fusion"])
def test_a_folder_of_a_federation(closed: str, shared: Path, run) -> None:
    """The folder itself is named, and none in it that nobody has ever seen; nothing where no name may be told."""
    for site in ("north", "south", "fusion"):
        write_case(shared / "sites" / site, f"of-{site}")
    (shared / "sites" / closed).chmod(0)
    status, printed = run("check", shared / "sites")
    anonymous = run("check", shared / "sites", "--anonymous")
    (shared / "sites" / closed).chmod(0o755)
    assert status == 2 and f"{shared / 'sites' / closed} cannot be read" in printed and RIGHT in printed
    assert anonymous == (2, "fedmepd: a data folder cannot be read\n")


def test_a_folder_of_the_system(shared: Path, run) -> None:
    """Every new disk has one that nobody else may enter."""
    for folder in (shared / "data" / "lost+found", shared / "lost+found"):
        folder.mkdir(mode=0)
    status, printed = run("check", shared / "data")
    assert status == 0 and "lost+found" not in printed
    shutil.copytree(shared / "data" / "Li", shared / "west" / "Li")
    (shared / "data").rename(shared / "east")
    for folder in ("cache", "warm"):
        shutil.rmtree(shared / folder)
    with bound_by_rights():
        found = look_into(BRATS, shared)
    assert found.sites == ("east", "west") and not found.strays and not found.empty


def test_a_folder_beside_the_sites(shared: Path) -> None:
    """It may be a site's."""
    (shared / "west").mkdir(mode=0)
    with bound_by_rights(), pytest.raises(DataError, match=f"{shared}/west cannot be read: .*{RIGHT}"):
        look_into(BRATS, shared)


def test_a_file_of_patients_of_one_name(shared: Path) -> None:
    """What they contain cannot be compared; the checks of a case tell the rest."""
    shutil.copytree(shared / "data", shared / "west")
    for site in ("data", "west"):
        for file in (shared / site).glob("*/*"):
            file.chmod(0)
    with bound_by_rights():
        [warned] = check_sites(BRATS, shared, ["data", "west"])
    assert "data and west have 2 patients in common by name, all of theirs" in warned


def test_the_cache(shared: Path, run) -> None:
    (shared / "cache").chmod(0o755)
    status, printed = run("check", shared / "data")
    assert status == 2 and RIGHT in printed and "The cache folder is FEDMEPD_CACHE" in printed
    assert "free space" not in printed


def test_a_folder_that_may_only_be_read(shared: Path, run) -> None:
    status, printed = run("init", shared / "data")
    assert status == 2 and RIGHT in printed and "fedmepd-data.json" in printed


def test_a_kit(shared: Path, run) -> None:
    (shared / "kit" / "local").mkdir(parents=True)
    (shared / "data").chmod(0o777)
    status, printed = run("init", shared / "data", "--kit", shared / "kit")
    assert status == 2 and RIGHT in printed and "fedmepd.json" in printed
    (shared / "kit").chmod(0)
    status, printed = run("init", shared / "data", "--kit", shared / "kit")
    (shared / "kit").chmod(0o755)
    assert status == 2 and RIGHT in printed and "is no FLARE kit" not in printed


def test_a_link_that_may_not_be_followed_does_not_count_as_nothing(shared: Path) -> None:
    (shared / "kept").mkdir()
    (shared / "kept" / "site").mkdir()
    (shared / "link").symlink_to(shared / "kept" / "site")
    assert describe_nothing(shared / "link") == f"a link to {shared / 'kept' / 'site'}, which is empty"
    (shared / "kept").chmod(0)
    with bound_by_rights():
        assert describe_nothing(shared / "link") == ""
