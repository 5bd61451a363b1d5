from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import results_page
from benchmarks.results_kept import keep
from benchmarks.results_page import Pages
from fedmepd.comparing.comparison import compare
from fedmepd.errors import FedMEPDError
from tests.comparing import runs

PAGE = """# A page

Before.

<!-- comparison: first summary -->
old
<!-- end of comparison -->

Between.

<!-- comparison: first all -->
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
    [first, *others] = keep([out], tmp_path / "kept")
    assert first == tmp_path / "kept" / "fedmepd" / "seed-0" / "results.json" and len(others) == 5
    assert "timing" not in json.loads(first.read_text())
    whole, kept = (compare([folder], draws=200) for folder in (out, tmp_path / "kept"))
    for name in ("fedmepd", "local"):
        for column, of in whole["scores"][name].items():
            # Scores of cases are kept with four digits.
            assert list(of.values()) == pytest.approx(list(kept["scores"][name][column].values()), abs=1e-4)
        assert np.array(whole["curves"][name]["mean"]) == pytest.approx(np.array(kept["curves"][name]["mean"]))
    assert whole["sentences"] == kept["sentences"] and whole["budget"] == kept["budget"]


def test_a_method_that_lacks_a_seed_costs_no_other_method_that_seed(out: Path, tmp_path: Path) -> None:
    runs.write(out, runs.run("fedrep", 0, runs.scores(0)), runs.history([0.3, 0.5]))
    kept = [file.parent.relative_to(tmp_path / "kept").as_posix() for file in keep([out], tmp_path / "kept")]
    assert kept == [f"{name}/seed-{seed}" for name in ("fedmepd", "local") for seed in range(3)]


def test_what_was_spent_is_kept_from_validation_to_validation(tmp_path: Path) -> None:
    """Validations after rounds 2 and 4, of four rounds of 10 steps and 1000 bytes; the fusion site has a round 0."""
    curves = runs.history([0.1, 0.2, 0.3, 0.4])
    for of in curves.values():
        of["validation"] = of["validation"][1::2]
    runs.write(tmp_path / "out", runs.run("local", 0, runs.scores(0)), curves)
    [file] = keep([tmp_path / "out"], tmp_path / "kept")
    kept = json.loads(file.with_name("history.json").read_text())
    assert [(each["round"], each["steps"]) for each in kept["site-1"]["rounds"]] == [(2, 20), (4, 20)]
    assert [each["steps"] for each in kept["server"]["rounds"]] == [30, 20]
    whole, small = (compare([tmp_path / name], draws=50)["curves"]["local"] for name in ("out", "kept"))
    assert whole == small


def test_rounded_cases_fit_their_means(tmp_path: Path) -> None:
    one = runs.run("local", 0, np.full((1, 3, 3), [[0.33333], [0.66666], [0.12345]]))
    one["sites"][0]["test_cases"][1]["empty"]["ET"] = "label"
    runs.write(tmp_path / "out", one)
    [file] = keep([tmp_path / "out"], tmp_path / "kept")
    site = json.loads(file.read_text())["sites"][0]
    assert [case["dice"]["WT"] for case in site["test_cases"]] == [0.3333, 0.6667, 0.1235]
    assert site["test"]["dice"]["WT"] == site["test"]["mdsc"] == pytest.approx((0.3333 + 0.6667 + 0.1235) / 3, abs=1e-7)
    assert [case["empty"] for case in site["test_cases"]] == [{}, {"ET": "label"}, {}]
    compare([tmp_path / "kept"], draws=50)


def test_the_command_writes_the_pages(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page, plain = tmp_path / "page.md", tmp_path / "plain.md"
    page.write_text(PAGE)
    plain.write_text("no table\n")
    kept = tmp_path / "kept"
    assert results_page.main(["--keep", "first", str(out)], runs=kept) == 0
    assert results_page.main([], runs=kept, pages=(page, plain)) == 0
    assert f"wrote {page}\n{plain} has no place for a table\n" in capsys.readouterr().out
    text = page.read_text()
    assert plain.read_text() == "no table\n"
    # What a person wrote stays, and so do the places: the command can be repeated.
    assert (
        text.startswith(
            "# A page\n\nBefore.\n\n<!-- comparison: first summary -->\n| mDSC on test cases | fedmepd | local |\n"
        )
        and "\nold\n" not in text
    )
    [missing, _, begin] = text.partition("<!-- comparison: first all -->\n")[2].splitlines()[:3]
    assert missing.startswith("2 of the plan's 19 methods are in the tables. The runs of central, creamfl, ")
    assert missing.endswith(", perfl are not finished.") and "local" not in missing
    assert begin == "#### Compared with fedmepd"
    assert text.endswith("<!-- end of comparison -->\n\nAfter.\n")
    assert Pages(kept).filled(page).text == text
    assert text.split("Between")[0].count("| fedmepd minus this method: 95 % interval | - | +0.125 to +0.125 |\n") == 2
    assert "\n\nMean ± standard deviation over 3 seeds. The cases are phantoms (cohort mild): nothing" in text
    assert "- fedmepd against local: at the sites better by 0.125 [0.125, 0.125]" in text


def test_a_page_is_silent_where_all_methods_are_finished(out: Path, tmp_path: Path) -> None:
    assert fill(tmp_path, tmp_path, "out all").text.splitlines()[1] == "#### Compared with fedmepd"


def fill(folder: Path, kept: Path, *places: str) -> results_page.Filled:
    page = folder / "docs" / "page.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text("\n".join(f"<!-- comparison: {place} -->\nold\n<!-- end of comparison -->" for place in places))
    return Pages(kept, draws=50).filled(page)


def test_a_page_may_show_some_methods(out: Path, tmp_path: Path) -> None:
    lines = fill(tmp_path, tmp_path, "out summary local").text.splitlines()
    assert lines[1] == "| mDSC on test cases | local |" and lines[-1] == "<!-- end of comparison -->"
    mean = f"{np.mean([runs.scores(seed).mean() for seed in range(3)]):.3f}"
    assert lines[3].startswith(f"| mean of the sites | {mean} ± ")


def test_a_page_may_say_what_has_been_shown_of_some_methods(out: Path, tmp_path: Path) -> None:
    for seed in range(3):
        runs.write(tmp_path / "out", runs.run("fedavg", seed, runs.scores(seed) + 0.25), runs.history([0.3, 0.5]))
    lines = fill(tmp_path, tmp_path, "out sentences local").text.splitlines()
    assert lines[1].startswith(
        "- fedmepd against local: at the sites better by 0.125 [0.125, 0.125]; at the fusion site"
    )
    assert lines[3].startswith("The cases are phantoms (cohort mild): ")
    both = [line.partition(":")[0] for line in fill(tmp_path, tmp_path, "out sentences local fedavg").text.splitlines()]
    assert both[1:3] == ["- fedmepd against local", "- fedmepd against fedavg"]


def test_several_comparisons_live_side_by_side(out: Path, tmp_path: Path) -> None:
    for seed in range(3):
        one = runs.run("fedavg", seed, runs.scores(seed) + 0.25)
        runs.write(tmp_path / "other", one, runs.history([0.3, 0.5]))
    heads = fill(tmp_path, tmp_path, "out summary", "other summary against=fedavg", "out+other summary against=local")
    heads = [line for line in heads.text.splitlines() if line.startswith("| mDSC")]
    assert heads == [
        f"| mDSC on test cases | {' | '.join(of)} |"
        for of in (["fedmepd", "local"], ["fedavg"], ["fedavg", "fedmepd", "local"])
    ]


def test_what_is_not_finished_stays_as_it_was(out: Path, tmp_path: Path) -> None:
    made = fill(tmp_path, tmp_path, "later all", "out summary fedmepd fedavg", "out took")
    assert made.text.count("\nold\n") == 2 and "minutes of each run" in made.text
    assert made.waits == [
        "page.md: later all: waits for finished runs of later",
        "page.md: out summary fedmepd fedavg: waits for finished runs of fedavg",
    ]


def test_how_long_runs_took(out: Path, tmp_path: Path) -> None:
    """Three runs of 60 seconds for each of two methods."""
    lines = fill(tmp_path, tmp_path, "out took").text.splitlines()
    assert lines[3:6] == ["| fedmepd | 4 | 1, 1, 1 | 0.1 |", "| local | 4 | 1, 1, 1 | 0.1 |", "| all |  |  | 0.1 |"]


def test_whether_validation_stands_still(tmp_path: Path) -> None:
    """Eight rounds: the third quarter is rounds 5 and 6, the last one 7 and 8."""
    curves = {"rising": [0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.6, 0.7], "still": [0.1, 0.2, 0.3, 0.496, 0.5, 0.504, 0.5, 0.5]}
    for name, scores in curves.items():
        runs.write(
            tmp_path / "out" / name,
            runs.run("local", 0, runs.scores(0), run_name=f"{name}-seed-0"),
            runs.history(scores),
        )
    lines = fill(tmp_path, tmp_path, "out convergence against=still").text.splitlines()
    assert lines[3:5] == ["| rising | 8 | 0.700 | 0.700 | 8 | +0.150 |", "| still | 8 | 0.500 | 0.504 | 4 | -0.002 |"]
    assert "stands still" in lines[6]


def test_figures(out: Path, tmp_path: Path) -> None:
    for seed in range(3):
        for number in (6, 12):
            one = runs.run("fedmepd", seed, runs.scores(seed), run_name=f"fedmepd-{number}-seed-{seed}")
            runs.write(tmp_path / "swept" / str(number), one, runs.history([0.3, 0.5]))
    made = fill(tmp_path, tmp_path, "out figure differences", "swept figure cases against=fedmepd-6")
    assert set(made.figures) == {
        tmp_path / "out" / "differences.svg",
        tmp_path / "swept" / "cases-against-fedmepd-6.svg",
    }
    assert all(content.startswith(b"<?xml") for content in made.figures.values())
    assert "](../out/differences.svg)" in made.text
    waits = fill(tmp_path, tmp_path, "out figure cases").waits
    assert waits == ["page.md: out figure cases: waits: comparison: figure cases: these runs have nothing to draw"]


def test_a_reference_that_is_not_finished_is_waited_for(out: Path, tmp_path: Path) -> None:
    made = fill(tmp_path, tmp_path, "out all against=fedper", "out summary fedmepd against=fedper", "out took")
    assert made.text.count("\nold\n") == 2 and "minutes of each run" in made.text
    assert all("waits: --against fedper: no such method here" in line for line in made.waits)
    # Runs of different cohorts are a mistake, and no page may hide it.
    runs.write(tmp_path / "out", runs.run("fedavg", 0, runs.scores(0), source="folder"), runs.history([0.3]))
    with pytest.raises(FedMEPDError, match="the kind of data"):
        fill(tmp_path, tmp_path, "out all")


def test_mistakes_are_named(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page = tmp_path / "page.md"
    for asked, said in (
        (
            "out best",
            "comparison: out best: expected a name, then one of all, summary, sentences, took, convergence, figure",
        ),
        ("out", "comparison: out: expected a name"),
        ("out figure best", "expected figure with one of heat_map"),
        ("out all local", "methods with summary and sentences alone"),
    ):
        page.write_text(f"<!-- comparison: {asked} -->\n<!-- end of comparison -->\n")
        assert results_page.main([], runs=tmp_path, pages=(page,)) == 2
        assert said in capsys.readouterr().err
        assert page.read_text().count("\n") == 2


def test_what_is_kept_is_small() -> None:
    assert sum(file.stat().st_size for file in results_page.RUNS.rglob("*") if file.is_file()) < 5e6


def test_the_pages_of_this_repository_are_what_the_command_writes() -> None:
    filler = Pages(results_page.RUNS)
    for page in results_page.PAGES:
        made = filler.filled(page)
        assert made.text == page.read_text(encoding="utf-8"), f"{page}: python -m benchmarks.results_page"
        assert all(file.is_file() for file in made.figures)
