"""The suite's own guard sees what a test would leave behind."""

import os

from tests.left_behind import changes, shared


def test_nothing_has_changed() -> None:
    assert changes(shared(), shared()) == []


def test_a_variable_and_a_folder(tmp_path, monkeypatch) -> None:
    before = shared()
    monkeypatch.setenv("FEDMEPD_MIN_COUNT", "7")
    monkeypatch.chdir(tmp_path)
    assert changes(before, shared()) == [
        "environment variable FEDMEPD_MIN_COUNT was None, is 7",
        f"the current folder was {before['the current folder']}, is {os.getcwd()}",
    ]
