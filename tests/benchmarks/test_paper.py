from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import paper_hours, paper_table
from benchmarks.paper_hours import Work, hours, work_of_a_round
from benchmarks.phantoms import brats_layout
from benchmarks.published import PUBLISHED
from fedmepd.data.inspection import inspect_cases
from fedmepd.data.layouts import find_dataset
from fedmepd.experiments.plan import read_plan
from fedmepd.job_settings import make_settings
from fedmepd.tasks.brats import BRATS
from tests.comparing import runs

FOUR = ("FLAIR", "T1ce", "T1", "T2")


def test_published_figures_stand_beside_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for method, level in (("fedmepd", 0.5), ("fedper", 0.25)):
        for seed in range(2):
            scores = np.full((2, 4, 3), level + 0.1 * seed)
            runs.write(tmp_path, runs.run(method, seed, scores, fusion=np.full((4, 3), 0.75)), runs.history([0.3]))
    assert paper_table.main(["brats2018", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {tuple(line.split(" | ")[:2]): line.strip("| ").split(" | ")[2:] for line in lines if line.startswith("|")}
    assert rows["| FedMEPD", "published"] == (
        "82.99 74.58 93.73 75.83 58.87 59.35 90.69 69.62 75.70 84.98 13.0 6.5".split()
    )
    # 50 and 60 %: standard deviation 10 / sqrt(2). Two sites are there; HD95 is 10 mm for each missing point: 45 mm.
    spread = f"55.00 ± {10 / np.sqrt(2):.2f}"
    assert rows["| fedmepd", "yours"] == [spread, spread, *["-"] * 6, spread, "75.00 ± 0.00", "45.0", "25.0"]
    # A method without published figures is shown too; one that was not run has those of the paper alone.
    assert rows["| fedper", "yours"][0].startswith("30.00") and ("| Local", "published") in rows
    assert ("| local", "yours") not in rows and "Seeds 0, 1." in lines
    assert paper_table.main(["brats2018", str(tmp_path / "none")]) == 2


def test_published_means_are_those_of_the_sites() -> None:
    """The paper's means are of its sites, rounded to two digits."""
    for of in PUBLISHED["brats2018"].values():
        if of.sites:
            assert np.mean(of.sites) == pytest.approx(of.mean, abs=0.01)


@pytest.mark.parametrize(("protocol", "steps"), [("brats2018", 170), ("brats2020", 219)])
def test_the_plans_are_the_papers(protocol: str, steps: int) -> None:
    plan = read_plan(paper_hours.PLANS / f"{protocol}.yaml", None)
    settings = make_settings(plan.preset, plan.settings)
    assert (settings.rounds, settings.network.width, settings.training.crop) == (1000, 16, 80)
    # Their names are those of the published figures.
    assert {choice.name for choice in plan.choices()} <= set(PUBLISHED[protocol])
    work = work_of_a_round(protocol, settings)
    assert sum(each.steps for each in work) == steps
    assert f"# {steps} steps a round" in (paper_hours.PLANS / f"{protocol}.yaml").read_text()


def test_hours() -> None:
    """10 rounds of 3 steps of 2 s and 4 of 6 s: 300 s."""
    work = [Work("site-1", ("T1",), 3), Work("fusion", FOUR, 4)]
    assert hours(work, {("T1",): 2.0, FOUR: 6.0}, 10) == pytest.approx(300 / 3600)


def test_the_report_multiplies() -> None:
    """170 steps of a second, 1000 rounds: 47.2 hours; five methods, three seeds."""
    plan = read_plan(paper_hours.PLANS / "brats2018.yaml", None)
    settings = make_settings(plan.preset, plan.settings)
    each = dict.fromkeys((work.modalities for work in work_of_a_round("brats2018", settings)), 1.0)
    said = paper_hours.report("brats2018", plan, settings, each)
    assert "one run of 1000 rounds: 47.2 hours of training" in said
    assert "the 15 runs of the plan, one after the other: 708 hours (29.5 days)" in said
    # Of 88 cases 60 % train.
    [fusion] = [line for line in said.splitlines() if line.startswith("| fusion")]
    assert [cell.strip() for cell in fusion.strip("|").split("|")] == ["fusion", " ".join(FOUR), "53", "1.000"]


@pytest.mark.slow
def test_the_command_measures(capsys: pytest.CaptureFixture) -> None:
    assert paper_hours.main(["brats2018", "--quick", "--repeats", "1", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert "one run of 1000 rounds:" in printed and "the 15 runs of the plan" in printed


@pytest.mark.parametrize(("year", "layout"), [(2018, "HGG/Brats18_TRY1_A001_1"), (2020, "BraTS20_Training_001")])
def test_phantoms_in_the_layout_of_brats(tmp_path: Path, year: int, layout: str) -> None:
    brats_layout(tmp_path, year, 1)
    [case] = inspect_cases(find_dataset(BRATS, tmp_path).cases).cases
    assert case.convention == "brats" and set(case.images) == set(FOUR)
    assert case.label.parent == tmp_path / layout
