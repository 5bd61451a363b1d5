"""With other programs called python3, in folders that stand for a PATH."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from shlex import quote

import pytest

from fedmepd.doctor.checks import Check
from fedmepd.doctor.kit import Kit
from fedmepd.doctor.start_script import check_start_script
from fedmepd.doctor.versions import Installed
from fedmepd.flare.poc.workspace import PROJECT

THIS = quote(sys.executable)


@pytest.fixture
def kit(kit_folder: Path) -> Kit:
    return Kit.read(kit_folder)


def checked(kit: Kit, python: str | None, mine: Installed | None = None) -> Check:
    """The check of a kit whose start script would find such a Python."""
    (check,) = check_start_script(kit, mine or Installed.here(), {"python3": python}.get)
    return check


def program(folder: Path, line: str) -> str:
    """A program that runs a line of the shell with its arguments."""
    made = folder / "bin" / "python3"
    made.parent.mkdir()
    made.write_text(f"#!/bin/sh\n{line}\n")
    made.chmod(0o755)
    return str(made)


def test_the_python_of_an_activated_environment(kit: Kit) -> None:
    check = checked(kit, sys.executable)
    assert (check.status, check.kind, check.text) == ("ok", "Python of the start script", sys.executable)


def test_a_python_of_another_path_that_has_all(kit: Kit, tmp_path: Path) -> None:
    other = program(tmp_path, f'exec {THIS} "$@"')
    assert (checked(kit, other).status, checked(kit, other).text) == ("ok", other)


def test_a_python_without_any_package(kit: Kit, tmp_path: Path) -> None:
    """As a system's own: without the folders of packages and without PYTHONPATH."""
    check = checked(kit, program(tmp_path, f'exec {THIS} -I -S "$@"'))
    assert (check.status, check.kind) == ("error", "another Python in the start script")
    other = tmp_path / "bin" / "python3"
    assert check.text == (
        f"startup/start.sh would start {other}, the first python3 in PATH, and not {sys.executable}: it lacks the "
        "package fedmepd"
    )
    assert "before startup/start.sh" in check.advice
    assert check.advice.endswith(f"or install the package there: `{other} -m pip install -r requirements.txt`")


def test_a_kit_of_a_trial_on_this_machine(kit: Kit, tmp_path: Path) -> None:
    """`fedmepd poc` starts it with its own Python, whatever PATH says."""
    of_poc = replace(kit, project=PROJECT)
    check = checked(of_poc, program(tmp_path, f'exec {THIS} -I -S "$@"'))
    assert (check.status, check.kind) == ("note", "another Python in the start script")
    assert check.advice.startswith("`fedmepd poc` starts this kit with its own Python; to start it by hand, ")
    assert checked(of_poc, None).status == "note" and checked(of_poc, sys.executable).status == "ok"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            'echo \'{"versions": {"fedmepd": "9", "nvflare": "8"}, "unmet": []}\'',
            "fedmepd 9, here 1, nvflare 8, here 2",
        ),
        ('echo \'{"missing": "packaging"}\'', "it lacks the package packaging, which FedMEPD needs"),
        ('echo \'{"versions": {"fedmepd": "1"}, "unmet": []}\'', "nvflare is missing, here 2"),
        ('echo \'{"versions": {"fedmepd": "1", "nvflare": "2"}, "unmet": ["numba <1"]}\'', "numba <1"),
        ("echo 'pyenv: python3: command not found' >&2; exit 127", "pyenv: python3: command not found"),
        ("exit 1", "it answers nothing"),
    ],
)
def test_a_python_with_other_versions(kit: Kit, tmp_path: Path, line: str, reason: str) -> None:
    mine = Installed({"fedmepd": "1", "nvflare": "2", "python": "3.11.9", "torch": "2.13.0+cpu"})
    check = checked(kit, program(tmp_path, line), mine)
    assert check.status == "error" and check.text.endswith(
        f"/bin/python3, the first python3 in PATH, and not {sys.executable}: {reason}"
    )


def test_a_program_that_cannot_be_started(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "python3").touch()
    check = checked(kit, str(tmp_path / "python3"))
    assert check.status == "error" and "Permission denied" in check.text


def test_no_python_at_all(kit: Kit) -> None:
    check = checked(kit, None)
    assert (check.status, check.kind, check.text) == (
        "error",
        "start script without a Python",
        "PATH has no python3",
    )


def test_a_kit_for_containers_has_no_such_script(kit: Kit) -> None:
    (kit.folder / "startup" / "sub_start.sh").unlink()
    assert list(check_start_script(kit, Installed.here(), lambda name: None)) == []
