from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import results_page
from fedmepd.comparing.comparison import compare
from tests.comparing import runs

PAGE = """# A page

Before.

<!-- comparison: summary -->
old
<!-- end of comparison -->

Between.

<!-- comparison: all -->
<!-- end of comparison -->

After.
"""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Runs as `fedmepd compare run` leaves them: with times, models and much else."""
    for name, amount in (("fedmepd", 0.125), ("local", 0.0)):
        for seed in range(3):
            run = runs.run(name, seed, runs.scores(seed) + amount, timing={"rounds": list(range(1000))})
            runs.write(tmp_path / "out", run, runs.history([0.3, 0.5]))
    return tmp_path / "out"


def test_kept_runs_are_small_and_compare_alike(out: Path, tmp_path: Path) -> None:
    [first, *others] = results_page.keep([out], tmp_path / "kept")
    assert first == tmp_path / "kept" / "fedmepd" / "seed-0" / "results.json" and len(others) == 5
    assert "timing" not in json.loads(first.read_text())
    whole, kept = (compare([folder], draws=200) for folder in (out, tmp_path / "kept"))
    for name in ("fedmepd", "local"):
        for column, of in whole["scores"][name].items():
            assert list(of.values()) == pytest.approx(list(kept["scores"][name][column].values()), abs=1e-6)
        assert np.array(whole["curves"][name]["mean"]) == pytest.approx(np.array(kept["curves"][name]["mean"]))
    assert whole["sentences"] == kept["sentences"] and whole["budget"] == kept["budget"]


def test_the_command_writes_the_pages(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page, plain = tmp_path / "page.md", tmp_path / "plain.md"
    page.write_text(PAGE)
    plain.write_text("no table\n")
    kept = tmp_path / "kept"
    assert results_page.main(["--keep", str(out)], runs=kept) == 0
    assert results_page.main([], runs=kept, pages=(page, plain)) == 0
    assert f"wrote {page}\n{plain} has no place for a table\n" in capsys.readouterr().out
    text = page.read_text()
    assert plain.read_text() == "no table\n"
    # What a person wrote stays, and so do the places: the command can be repeated.
    assert (
        text.startswith(
            "# A page\n\nBefore.\n\n<!-- comparison: summary -->\n| mDSC on test cases | fedmepd | local |\n"
        )
        and "\nold\n" not in text
    )
    assert "\n\nBetween.\n\n<!-- comparison: all -->\n## Compared with fedmepd\n" in text
    assert text.endswith("<!-- end of comparison -->\n\nAfter.\n")
    assert results_page.filled(text, compare([kept])) == text
    assert text.split("Between")[0].count("| 95 % interval of fedmepd minus it | - | +0.125 to +0.125 |\n") == 2
    assert "- fedmepd against local: at the sites better by 0.125 [0.125, 0.125]" in text


def test_a_page_may_show_some_methods(out: Path) -> None:
    text = "<!-- comparison: summary local -->\n<!-- end of comparison -->\n"
    lines = results_page.filled(text, compare([out], draws=50)).splitlines()
    assert lines[1] == "| mDSC on test cases | local |" and lines[-1] == "<!-- end of comparison -->"
    mean = f"{np.mean([runs.scores(seed).mean() for seed in range(3)]):.3f}"
    assert lines[3].startswith(f"| mean of the sites | {mean} ± ")


def test_mistakes_are_named(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page = tmp_path / "page.md"
    for asked, said in (
        ("best", "comparison: best: expected summary or all"),
        ("summary fedavg", "comparison: summary fedavg: there are no runs of it, only of fedmepd, local"),
    ):
        page.write_text(f"<!-- comparison: {asked} -->\n<!-- end of comparison -->\n")
        assert results_page.main([], runs=out, pages=(page,)) == 2
        assert said in capsys.readouterr().err
        assert page.read_text().count("\n") == 2
    assert results_page.main([], runs=tmp_path / "none", pages=(page,)) == 2


def test_the_pages_of_this_repository_are_what_the_command_writes() -> None:
    texts = {page: page.read_text() for page in results_page.PAGES}
    with_tables = [page for page, text in texts.items() if results_page.has_tables(text)]
    assert bool(with_tables) == results_page.RUNS.is_dir()
    if with_tables:
        comparison = compare([results_page.RUNS])
        for page in with_tables:
            assert results_page.filled(texts[page], comparison) == texts[page], (
                f"{page}: python -m benchmarks.results_page"
            )
