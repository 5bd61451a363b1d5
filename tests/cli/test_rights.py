"""A user without rights is told so, and what helps; never that something is damaged, and never by a traceback."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmepd.cli import main
from tests.data.files import write_case

_NOBODY = 65534


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may enter, with a data set and a cache."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    for name in ("a", "b"):
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
    changed = []

    def as_nobody(*arguments: str | Path) -> tuple[int, str]:
        if os.geteuid() == 0:
            os.seteuid(_NOBODY)
            changed.append(True)
        try:
            status = main(["data", *map(str, arguments)])
        finally:
            if changed:
                os.seteuid(0)
                changed.clear()
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return as_nobody


RIGHT = "the right to"


def test_a_file(shared: Path, run) -> None:
    file = shared / "data" / "a" / "a_t1.nii.gz"
    file.chmod(0)
    status, printed = run("check", shared / "data")
    assert status == 1 and "     1  file that may not be read\n" in printed
    assert f"{file} may not be read by this user" in printed and "convert it again" not in printed


def test_a_folder(shared: Path, run) -> None:
    for folder in (shared / "data" / "a", shared / "data"):
        folder.chmod(0)
        status, printed = run("check", shared / "data")
        folder.chmod(0o755)
        assert status == 2 and str(folder) in printed and RIGHT in printed and "Traceback" not in printed


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
