from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from benchmarks import study
from benchmarks.study import Study
from fedmepd import methods
from fedmepd.experiments.plan import Plan, PlannedRun, read_plan, runs_of
from fedmepd.experiments.pool import Ended
from fedmepd.experiments.run_folder import RunFolder
from tests.comparing import runs

PAGE = "<!-- comparison: one summary fedmepd local -->\nnothing yet\n<!-- end of comparison -->\n"


class Pool:
    """Stands in for the processes: writes made-up results of four rounds at a minute each; some runs fail."""

    def __init__(self, failing: Sequence[str] = ()):
        self.failing, self.begun = failing, []

    def __call__(self, folders: Sequence[RunFolder], *, options: Sequence[str] = (), **_: object) -> Iterator[Ended]:
        for folder in folders:
            if not options:
                self.begun.append(f"{folder.path.parent.name}/{folder.path.name}")
            failed = folder.path.name in self.failing
            if not options and not failed:
                finish(folder)
            yield Ended(folder, "memory ran out" if failed and not options else None, 240.0)


def finish(folder: RunFolder, **changes: object) -> None:
    planned = folder.planned().settings
    amount = 0.25 if planned.method == "fedmepd" else 0.0
    scores = runs.scores(planned.seed) + amount
    one = runs.run(planned.method, planned.seed, scores, run_name=folder.path.name, seconds=240.0)
    one["settings"] = planned.model_dump(mode="json")
    (folder.path / "results.json").write_text(json.dumps(one | changes))
    (folder.path / "history.json").write_text(json.dumps(runs.history([0.3, 0.5])))


@pytest.fixture
def plans(tmp_path: Path) -> list[Path]:
    """Two plans of two methods with two seeds, and of one with one."""
    files = []
    for name, names, seeds in (("one", ["fedmepd", "local"], [0, 1]), ("two", ["local"], [5])):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump({"methods": names, "seeds": seeds, "settings": {"rounds": 4}}))
    (tmp_path / "page.md").write_text(PAGE)
    return files


def made(plans: list[Path], pool: Pool, said: list[str]) -> Study:
    folder = plans[0].parent
    pages, kept = [folder / "page.md"], folder / "kept"
    return Study(plans, folder / "out", runs=kept, pages=pages, at_once=2, say=said.append, run=pool)


def test_everything_is_run_in_order_kept_and_written(plans: list[Path], tmp_path: Path) -> None:
    pool, said = Pool(), []
    assert made(plans, pool, said).carry_out() == {}
    of_one = [f"one/{method}-seed-{seed}" for method in ("fedmepd", "local") for seed in (0, 1)]
    assert pool.begun == [*sorted(of_one, key=lambda name: name[-1]), "two/local-seed-5"]
    kept = sorted(str(file.relative_to(tmp_path / "kept")) for file in (tmp_path / "kept").rglob("results.json"))
    assert kept == [
        *(f"{name.replace('-seed', '/seed')}/results.json" for name in of_one),
        "two/local/seed-5/results.json",
    ]
    text = (tmp_path / "page.md").read_text()
    assert "| mDSC on test cases | fedmepd | local |" in text and "+0.250 to +0.250" in text
    assert any("fedmepd-seed-0: finished" in line and "hours are left" in line for line in said)
    # Nothing is done twice.
    again = Pool()
    assert made(plans, again, []).carry_out() == {} and again.begun == []


def test_a_clone_on_another_machine_goes_on_from_what_is_kept(plans: list[Path], tmp_path: Path) -> None:
    """Also where a setting has more decimals than what is kept of scores."""
    plan = yaml.safe_load(plans[0].read_text())
    plan["settings"]["training"] = {"learning_rate": 2 / 3000}
    plans[0].write_text(yaml.safe_dump(plan))
    made(plans, Pool(["local-seed-1"]), []).carry_out()
    page, kept = (
        (tmp_path / "page.md").read_text(),
        {file: file.read_bytes() for file in (tmp_path / "kept").rglob("*.json")},
    )
    (tmp_path / "out").rename(tmp_path / "lost")
    pool, said = Pool(["local-seed-1"]), []
    again = made(plans, pool, said)
    assert again.listed().splitlines()[-3].split()[:4] == ["one", "3", "of", "4"]
    again.carry_out()
    assert pool.begun == ["one/local-seed-1"] and not any("again" in line for line in said)
    assert (tmp_path / "page.md").read_text() == page
    assert {file: file.read_bytes() for file in (tmp_path / "kept").rglob("*.json")} == kept


def test_kept_results_of_other_settings_are_not_taken_up(plans: list[Path], tmp_path: Path) -> None:
    made(plans, Pool(), []).carry_out()
    (tmp_path / "out").rename(tmp_path / "lost")
    plans[1].write_text(yaml.safe_dump({"methods": ["local"], "seeds": [5], "settings": {"rounds": 5}}))
    pool, said = Pool(), []
    made(plans, pool, said).carry_out()
    assert pool.begun == ["two/local-seed-5"]
    assert said[0] == ("two: the kept results of local-seed-5 are of other settings than the plan's: it is run again")


def test_it_goes_on_after_a_failure(plans: list[Path], tmp_path: Path) -> None:
    failed = made(plans, Pool(["local-seed-0", "local-seed-1"]), []).carry_out()
    assert failed == {f"one/local-seed-{seed}": "memory ran out" for seed in (0, 1)}
    # What is missing is not quoted; what is there is kept.
    assert (tmp_path / "page.md").read_text() == PAGE
    assert len(list((tmp_path / "kept" / "one").rglob("results.json"))) == 2
    again = Pool()
    assert made(plans, again, []).carry_out() == {}
    assert again.begun == ["one/local-seed-0", "one/local-seed-1"]
    assert "nothing yet" not in (tmp_path / "page.md").read_text()


def test_runs_that_cannot_be_compared_yet_do_not_end_it(plans: list[Path], tmp_path: Path) -> None:
    """No seed is there of both methods: that place waits, and the next plan is run all the same."""
    pool, said = Pool(["fedmepd-seed-0", "local-seed-1"]), []
    assert len(made(plans, pool, said).carry_out()) == 2
    assert pool.begun[-1] == "two/local-seed-5" and (tmp_path / "page.md").read_text() == PAGE
    assert any("page.md: one summary fedmepd local: waits: no seed was run with every method" in line for line in said)


def test_hours_that_are_left(plans: list[Path], tmp_path: Path) -> None:
    """Four rounds in 240 s: a minute a round. fedmepd has 2 of 4 rounds to go, then 4; local was never measured."""
    made_study = made(plans, Pool(), [])
    assert made_study.left().startswith("5 runs are left; no run of their methods is measured yet")
    first = read_plan(plans[0], None)
    folder = RunFolder(tmp_path / "out" / "one" / "fedmepd-seed-0")
    folder.begin(next(run for run in planned(first) if run.name == "fedmepd-seed-0"))
    finish(folder, status="running", round=2, seconds=120.0)
    assert made_study.left() == (
        f"about {6 * 60 / 3600 / 2:.1f} hours are left, 2 runs at a time, without 3 runs of methods that no run has "
        "measured"
    )
    lines = [line.split() for line in made_study.listed().splitlines()]
    assert lines[-3:-1] == [["one", "0", "of", "4", "0.1", "2"], ["two", "0", "of", "1", "0.0", "1"]]
    # A running run is not kept.
    made_study.write()
    assert not (tmp_path / "kept").exists() and (tmp_path / "page.md").read_text() == PAGE
    # Another plan's local tells how long the first one's take: 6 and 12 rounds of a minute.
    other = RunFolder(tmp_path / "out" / "two" / "local-seed-5")
    other.begin(next(iter(planned(read_plan(plans[1], None)))))
    finish(other)
    assert made_study.left() == f"about {14 * 60 / 3600 / 2:.1f} hours are left, 2 runs at a time"


def planned(plan: Plan) -> list[PlannedRun]:
    return [run for choice in plan.choices() for run in runs_of(plan, choice, plan.seeds)]


def test_all_plans_are_there() -> None:
    for name in study.STUDY:
        assert planned(read_plan(study.PLANS / f"{name}.yaml", None))
    plan = read_plan(study.PLANS / "hospitals-all.yaml", None)
    assert sorted(choice.method for choice in plan.choices()) == sorted(methods.names())
    [creamfl] = [run.settings for run in planned(plan) if run.name == "creamfl-seed-0"]
    assert creamfl.contrast.items <= creamfl.data.fusion_cases
