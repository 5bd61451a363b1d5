from __future__ import annotations

from pathlib import Path

import pytest

from fedmepd.comparing.comparison import compare
from fedmepd.comparing.text import console_text, markdown
from tests.comparing import runs


@pytest.fixture
def comparison(tmp_path: Path) -> dict:
    for name, amount in (("fedmepd", 0.125), ("local", 0.0)):
        for seed in range(3):
            run = runs.run(name, seed, runs.scores(seed) + amount)
            runs.write(tmp_path, run, runs.history([0.3, 0.5]))
    return compare([tmp_path], draws=200)


def test_the_console_ends_with_the_sentences(comparison: dict) -> None:
    lines = console_text(comparison).splitlines()
    assert lines[0] == "Comparison of 2 methods, seeds 0, 1, 2"
    assert lines[-3:] == ["Compared with fedmepd", "---------------------", f"- {comparison['sentences'][0]}"]
    [row] = [line.split() for line in lines if line.startswith("local   mean of the sites  ") and "+" in line]
    assert row == "local mean of the sites +0.125 +0.125 to +0.125 0.250 0.250".split()


def test_markdown_begins_with_them(comparison: dict) -> None:
    text = markdown(comparison, level=2)
    assert text.startswith(
        "## Comparison of 2 methods, seeds 0, 1, 2\n\n### Compared with fedmepd\n\n"
        f"- {comparison['sentences'][0]}\n\n### What is compared\n"
    )
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 10
    for table in tables:
        assert len({line.count("|") for line in table}) == 1 and set(table[1]) <= set("|-: ")
    mean = comparison["scores"]["local"]["mean of the sites"]["mean"]
    assert f"| local | {mean:.3f} ± " in text


def test_a_bar_in_a_name_does_not_break_a_table(comparison: dict) -> None:
    comparison["budget"]["local"]["shared"] = "a | b"
    assert "| local | a \\| b |" in markdown(comparison)


def test_what_is_not_known_is_a_dash(comparison: dict) -> None:
    comparison["budget"]["local"]["peak_mib"] = None
    [row] = [line for line in markdown(comparison).splitlines() if line.startswith("| local | 4 |")]
    assert [cell.strip() for cell in row.split("|")][11] == "-"


def test_why_patients_images_are_refused_is_said_where_a_method_refuses_them(comparison: dict) -> None:
    head = "why it refuses patients' images"
    assert head not in markdown(comparison)
    comparison["budget"]["local"]["phantoms_only"] = "it shows images to all"
    [row] = [line for line in markdown(comparison).splitlines() if "shows images" in line]
    assert head in markdown(comparison) and row.endswith(" | it shows images to all |")
