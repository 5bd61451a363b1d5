"""docs/reference.md is what the code says, and the code says something of everything."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from fedmepd import methods
from fedmepd.cli.reference import RENEW, main, reference
from fedmepd.config import Settings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(ROOT), f"docs/reference.md is out of date: run `{RENEW}`"


def test_what_a_command_looks_like() -> None:
    """Written out by hand: usage, alternatives, choices and help of one command."""
    text = PAGE.read_text().partition("### `fedmepd data split`\n")[2].partition("\n### ")[0]
    assert (
        "\n    fedmepd data split FOLDER OUT (--protocol {brats2018,brats2020} | --split-dir SPLIT_DIR | "
        "--sites SITES | --partition PARTITION) [options]\n"
    ) in text
    assert (
        "| `--sites SITES` | YAML file with the sites of any other federation; not together with --protocol, "
        "--split-dir, --partition |\n"
    ) in text
    assert "| `--copy` | copy files instead of linking to them |" in text


@pytest.mark.parametrize(
    "row",
    [
        "| `network.width` | whole number, at least 4, at most 64, a multiple of 4 | 16 | 8 | channels at full ",
        "| `calibration.residual` | true, false | false | true | ",
        "| `personalization.patience` | whole number, at least 0, at most 255 or null | 10 | 4 | ",
        "| `aggregation.wire_precision` | `float16`, `float32` | float16 | float16 | ",
        "| `training.learning_rate` | number, above 0, at most 10 | 0.0002 | 0.004 | ",
        "| `data.clip_percent` | number, at least 0, below 10 | 0 | 0 | ",
        "| `rounds` | whole number, at least 1, at most 100000 | 1000 | 20 | ",
        "| `cache` | `FEDMEPD_CACHE` | `~/.cache/fedmepd` | folder for phantoms and prepared cases |",
    ],
)
def test_settings_with_bounds_and_presets(row: str) -> None:
    assert f"\n{row}" in PAGE.read_text()


def test_every_setting_and_every_argument_is_explained() -> None:
    rows = [line for line in reference(ROOT).splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if row.endswith("|  |")] == []
    keys = {row.split("`")[1] for row in rows}
    for settings in (Settings, *(methods.find(name).settings for name in methods.names())):
        for section, field in settings.model_fields.items():
            below = getattr(field.annotation, "model_fields", None)
            assert {section} <= keys if below is None else {f"{section}.{key}" for key in below} <= keys


def test_a_methods_own_settings_are_listed_under_the_method() -> None:
    """Written out by hand: where a few of them belong."""
    common, _, own = PAGE.read_text().partition("\n## Settings of a job\n")[2].partition("\n## Settings of a method\n")
    own = own.partition("\n## Settings of a machine\n")[0]
    of = {part.partition("`")[0]: part for part in own.split("\n### `")[1:]}
    assert list(of) == methods.names()
    for key, places in {
        "rounds": [common],
        "fusion.site": [common],
        "aggregation.min_sites": [common],
        "aggregation.server_share": [of["fedmepd"]],
        "calibration.residual": [of["fedmepd"], of["fedmema"]],
        "proximal.mu": [of["fedprox"]],
    }.items():
        assert all(place.count(f"\n| `{key}` |") == 1 for place in places), key
        assert (common + own).count(f"\n| `{key}` |") == len(places), key
    assert "No settings of its own." in of["local"]


def test_no_terminal_and_no_version_of_python_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = reference(ROOT)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(argparse.ArgumentParser, "format_help", lambda *_: "another layout")
    monkeypatch.setattr(argparse.ArgumentParser, "format_usage", lambda *_: "another layout")
    assert reference(ROOT) == expected


def test_the_command_that_renews_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(ROOT)
    page = tmp_path / "page.md"
    assert main([str(page)]) == 0 and page.read_text() == reference(ROOT)
    monkeypatch.chdir(tmp_path)
    page.write_text("old")
    assert main([str(page)]) == 2
    assert "job.py does not exist: expected the root of the repository" in capsys.readouterr().err
    assert page.read_text() == "old"
