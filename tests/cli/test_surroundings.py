"""Every command where the environment is not the developer's: containers, notebooks, other terminals, odd names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmepd.cli.program import build_parser
from tests.cli.every_command import COMMANDS, material, names

ROOT = Path(__file__).parents[2]

# As in a container whose user has no entry in passwd, which another user cannot be made to have here.
WITHOUT_PASSWD = """
import pwd, runpy
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
runpy.run_module("tests.cli.every_command", run_name="__main__")
"""
NOTEBOOK = {"MPLBACKEND": "module://no_such_inline.backend_inline"}
NOT_UTF_8 = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}

# By name: variables to set (None: to remove), and whether there are no entries in passwd.
ENVIRONMENTS: dict[str, tuple[Callable[[Path], dict[str, str | None]], bool]] = {
    "a notebook's": (lambda folder: NOTEBOOK, False),
    "no entry in passwd": (lambda folder: dict.fromkeys(("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")), True),
    "an empty HOME": (lambda folder: {"HOME": ""}, False),
    "HOME that may only be read": (lambda folder: {"HOME": "/proc"}, False),
    "HOME that is not there": (lambda folder: {"HOME": str(folder / "nobody")}, False),
    "a terminal of ASCII": (lambda folder: NOT_UTF_8, False),
    "a blank in TMPDIR": (lambda folder: {"TMPDIR": str(folder / "t m p")}, False),
    "TMPDIR that is not there": (lambda folder: {"TMPDIR": str(folder / "nowhere")}, False),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return material(tmp_path_factory.mktemp("material"))


def run(given: Path, folder: Path, variables: dict[str, str | None], passwd: bool, *commands: str) -> list[dict]:
    """Runs the commands in one process, in a folder with a blank and with a byte that is no UTF-8 in its name."""
    (folder / "t m p").mkdir(exist_ok=True)
    work = os.fsencode(folder) + b"/my w\xf6rk"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FEDMEPD_")}
    start = ["-m", "tests.cli.every_command"] if passwd else ["-c", WITHOUT_PASSWD]
    done = subprocess.run(
        [sys.executable, *start, str(given), work, *commands],
        env={name: value for name, value in (kept | variables).items() if value is not None},
        cwd=ROOT,
        capture_output=True,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["command"] for report in reports] == list(commands), done.stderr.decode(errors="replace")
    return reports


def check(report: dict, changed: dict[str, int] | None = None) -> None:
    expected = (changed or {}).get(report["command"], COMMANDS[report["command"]][1])
    assert not report["raised"], report["raised"]
    assert report["status"] == expected, report
    if expected:
        # In one line, which says whose it is.
        assert report["error"].count("\n") == 1 and report["error"].startswith("fedmepd: "), report["error"]


def test_the_matrix_has_every_command() -> None:
    assert set(COMMANDS) == set(names(build_parser()))


def test_everything_strange_at_once(given: Path, tmp_path: Path) -> None:
    """The commands of those who only look at data, results and models; the whole matrix is below."""
    commands = ("methods", "results", "report", "data check", "data init", "data phantom", "predict", "evaluate")
    more = ("checkpoint show", "job export", "kit", "doctor", "compare show", "poc start")
    variables = ENVIRONMENTS["no entry in passwd"][0](tmp_path) | NOTEBOOK | NOT_UTF_8
    variables |= {"TMPDIR": str(tmp_path / "t m p")}
    for report in run(given, tmp_path, variables, False, *commands, *more):
        check(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_command_in_every_environment(name: str, given: Path, tmp_path: Path) -> None:
    variables, no_passwd = ENVIRONMENTS[name]
    # What is kept of a check is kept in HOME, which may only be read there: the message says what helps.
    unkept = {"data check": 2, "data init": 2, "data split": 2} if name == "HOME that may only be read" else {}
    for report in run(given, tmp_path, variables(tmp_path), not no_passwd, *COMMANDS):
        check(report, unkept)
        if report["command"] in unkept:
            assert "FEDMEPD_CACHE" in report["error"]


def test_a_place_that_takes_nothing_is_refused_before_anything_is_computed(
    given: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fedmepd.cli import main

    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    data, model = str(given / "data"), str(given / "model.pt")
    flair = str(given / "data" / "a" / "a_flair.nii.gz")
    for command in (
        ["predict", "--model", model, data, "--out", "/proc/seg"],
        ["predict", "--model", model, "--flair", flair, "--out", "/proc/seg/a.nii.gz"],
        ["evaluate", "--model", model, data, "--out", "/proc/scores"],
    ):
        assert main(command) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and "--out /proc/s" in printed.err and "cannot be written" in printed.err


def test_a_job_of_phantoms_without_a_place_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first file of a run goes into the cache: the message names the variable that says where it is."""
    from fedmepd.data.site import open_site_data
    from fedmepd.errors import DataError
    from fedmepd.job_settings import make_settings
    from fedmepd.site_settings import SiteSettings

    monkeypatch.setenv("FEDMEPD_CACHE", "/proc/kept")
    monkeypatch.delenv("FEDMEPD_DATA", raising=False)
    with pytest.raises(DataError, match="/proc/kept.*FEDMEPD_CACHE"):
        open_site_data("site-1", make_settings("phantom"), SiteSettings.load())
