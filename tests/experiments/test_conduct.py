"""A plan, carried out: with a stand-in for the processes, and once with real ones."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmepd.errors import FedMEPDError
from fedmepd.experiments.conduct import Conductor, how_many
from fedmepd.experiments.plan import Plan, read_plan, runs_of
from fedmepd.experiments.pool import Ended
from fedmepd.experiments.run_folder import RunFolder
from fedmepd.federation.in_process import run_in_process
from fedmepd.federation.wire import Wire
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import locked
from tests.data.files import write_case
from tests.federation.drive import assert_same_run
from tests.tiny import SITES, settings

PLAN = {"methods": ["local", "fedavg"], "seeds": [0, 1], "sites": 2, "settings": {"rounds": 2}}


class Pool:
    """Stands in for the processes: notes what it is asked for, and finishes every run but the broken ones."""

    def __init__(self, broken: dict[str, str] | None = None, mdsc: dict[str, float] | None = None):
        self.calls: list[tuple[str, ...]] = []
        self._broken, self._mdsc = broken or {}, mdsc or {}

    def __call__(self, folders, *, at_once, threads, look=lambda: None, options=()) -> Iterator[Ended]:
        for folder in folders:
            name = folder.path.name
            self.calls.append((*options, name))
            reason = self._broken.get(" ".join((*options, name)))
            if reason is None and not options:
                run = folder.planned()
                finish(folder, run.settings.model_dump(mode="json"), self._mdsc.get(name, 0.5))
            look()
            yield Ended(folder, reason, 1.0)


def finish(folder: RunFolder, of: dict, mdsc: float) -> None:
    curve = {"validation": [{"round": 2, "mdsc": mdsc}], "rounds": []}
    (folder.path / "history.json").write_text(json.dumps({"site-1": curve, "server": curve}))
    (folder.path / "results.json").write_text(json.dumps({"round": 2, "status": "finished", "settings": of}))


def conductor(out: Path, pool: Pool, content: dict | None = None, **options) -> Conductor:
    plan = Plan.model_validate(PLAN | (content or {}))
    return Conductor(plan, out, SiteSettings(device="cpu"), at_once=2, run=pool, **options)


def test_cases_are_prepared_once_for_all_runs_with_the_same(tmp_path) -> None:
    pool, shown = Pool(), []
    outcome = conductor(tmp_path / "out", pool, progress=lambda *of: shown.append(of)).carry_out()
    runs = ["local-seed-0", "local-seed-1", "fedavg-seed-0", "fedavg-seed-1"]
    # Two seeds are two cohorts of phantoms. All methods begin with the first.
    begun = [("local-seed-0",), ("fedavg-seed-0",), ("local-seed-1",), ("fedavg-seed-1",)]
    assert pool.calls == [("--prepare", "local-seed-0"), ("--prepare", "local-seed-1"), *begun]
    assert [folder.path.name for folder in outcome.runs] == runs and not outcome.failed
    # Two rounds and the test, four times.
    assert shown[-1] == ("runs", 12, 12) and ("runs", 0, 12) in shown


def test_what_is_finished_is_not_done_again(tmp_path) -> None:
    first = Pool({"fedavg-seed-1": "out of memory"})
    outcome = conductor(tmp_path / "out", first).carry_out()
    assert outcome.failed == {"fedavg-seed-1": "out of memory"} and len(first.calls) == 6
    again = Pool()
    # Another seed and another method are added; seed 1's cases are asked for again, since its run has not begun.
    outcome = conductor(tmp_path / "out", again, {"methods": ["local", "fedavg", "fusion_only"]}).carry_out()
    done = {call[-1] for call in again.calls if len(call) == 1}
    assert done == {"fedavg-seed-1", "fusion_only-seed-0", "fusion_only-seed-1"} and not outcome.failed
    nothing = Pool()
    assert len(conductor(tmp_path / "out", nothing).carry_out().runs) == 4 and nothing.calls == []


def test_a_cohort_that_cannot_be_prepared_stops_its_runs_alone(tmp_path) -> None:
    pool = Pool({"--prepare local-seed-0": "the disk is full"})
    outcome = conductor(tmp_path / "out", pool).carry_out()
    assert outcome.failed == dict.fromkeys(("local-seed-0", "fedavg-seed-0"), "the disk is full")
    assert [call for call in pool.calls if len(call) == 1] == [("local-seed-1",), ("fedavg-seed-1",)]


def test_sites_with_the_same_patients(tmp_path) -> None:
    """A link is refused before anything is prepared; equal names are told, once for all runs."""
    for site in ("north", "fusion"):
        write_case(tmp_path / "data" / site, f"of-{site}", ("FLAIR",))
    (tmp_path / "data" / "south").symlink_to("north")
    content, pool, said = {"data": tmp_path / "data", "sites": ["north", "south"]}, Pool(), []
    with pytest.raises(FedMEPDError, match="north and .*south are the same folder"):
        conductor(tmp_path / "out", pool, content).carry_out()
    assert pool.calls == []
    (tmp_path / "data" / "south").unlink()
    write_case(tmp_path / "data" / "south", "of-north", ("T1",))
    conductor(tmp_path / "out", pool, content, say=said.append).carry_out()
    [line] = [line for line in said if line.startswith("warning: ")]
    assert "north and south have 1 patient in common by name" in line and pool.calls
    # What is no site is told where the plan takes all that are there.
    (tmp_path / "data" / "west").mkdir()
    told = []
    conductor(tmp_path / "all", Pool(), {"data": tmp_path / "data"}, say=told.append).carry_out()
    assert [line for line in told if "west (it is empty)" in line]


def test_a_changed_plan_is_refused_before_anything_begins(tmp_path) -> None:
    conductor(tmp_path / "out", Pool()).carry_out()
    before = (tmp_path / "out" / "local-seed-0" / "results.json").read_bytes()
    pool = Pool()
    with pytest.raises(FedMEPDError, match=r"out/local-seed-0 was begun: rounds was 2, now 3\. Name another folder"):
        conductor(tmp_path / "out", pool, {"settings": {"rounds": 3}}).carry_out()
    with pytest.raises(FedMEPDError, match=r"data\.fusion_share was 1\.0, now 0\.5"):
        conductor(tmp_path / "out", pool, {"settings": {"rounds": 2, "data": {"fusion_share": 0.5}}}).carry_out()
    with pytest.raises(FedMEPDError, match=r"sites was \['site-1', 'site-2'\], now \['site-1'\]"):
        conductor(tmp_path / "out", pool, {"sites": 1}).carry_out()
    with pytest.raises(FedMEPDError, match="engine was 'in_process', now 'simulator'"):
        conductor(tmp_path / "out", pool, {"engine": "simulator"}).carry_out()
    (tmp_path / "other" / "fedavg-seed-0").mkdir(parents=True)
    (tmp_path / "other" / "fedavg-seed-0" / "thesis.txt").write_text("mine")
    with pytest.raises(FedMEPDError, match="fedavg-seed-0 is no run of a plan"):
        conductor(tmp_path / "other", pool).carry_out()
    assert pool.calls == [] and (tmp_path / "out" / "local-seed-0" / "results.json").read_bytes() == before


def test_a_setting_that_is_wrong_is_refused_before_anything_begins(tmp_path) -> None:
    pool = Pool()
    with pytest.raises(FedMEPDError, match="fedavg: settings: unknown key network.deep"):
        conductor(
            tmp_path / "out", pool, {"methods": ["local", {"method": "fedavg", "settings": {"network": {"deep": 1}}}]}
        ).carry_out()
    assert pool.calls == [] and not (tmp_path / "out").exists()


def test_one_process_at_a_time_works_in_a_folder(tmp_path) -> None:
    # A lock counts between open files, and so within one process too.
    with locked(tmp_path / "out" / ".lock", "taken"), pytest.raises(FedMEPDError, match="out is in use"):
        conductor(tmp_path / "out", Pool()).carry_out()
    assert len(conductor(tmp_path / "out", Pool()).carry_out().runs) == 4


def test_tuned_settings_go_into_the_reported_runs(tmp_path) -> None:
    tuned = {"tune": {"seeds": [7], "candidates": [{"training": {"learning_rate": 0.5}}]}, "seeds": [0]}
    pool, said = Pool(mdsc={"fedavg-trial-2-seed-7": 0.75, "local-trial-1-seed-7": 0.75}), []
    outcome = conductor(tmp_path / "out", pool, tuned, say=said.append).carry_out(tune=True)
    reported = {folder.path.name: folder.planned().settings for folder in outcome.runs}
    assert {name: (of.training.learning_rate, of.trials, of.seed) for name, of in reported.items()} == {
        "local-seed-0": (4e-3, 2, 0),
        "fedavg-seed-0": (0.5, 2, 0),
    }
    assert json.loads((tmp_path / "out_tuning" / "tuning.json").read_text())["fedavg"]["trials"] == 2
    assert not list((tmp_path / "out").rglob("*trial*"))
    assert "fedavg: chosen of 2: {'training': {'learning_rate': 0.5}}" in said
    # The second time nothing is left, and without tuning these would be other runs.
    again = Pool()
    conductor(tmp_path / "out", again, tuned).carry_out(tune=True)
    assert again.calls == []
    with pytest.raises(FedMEPDError, match="training.learning_rate was 0.5, now 0.004; trials was 2, now 1"):
        conductor(tmp_path / "out", again, tuned | {"methods": ["fedavg"]}).carry_out()


TUNED = {
    "methods": ["fedavg"],
    "seeds": [0],
    "tune": {"seeds": [7], "candidates": [{"training": {"learning_rate": 0.5}}, {"training": {"learning_rate": 0.1}}]},
}


def test_a_choice_stays_when_a_failed_trial_is_finished_later(tmp_path) -> None:
    mdsc = {"fedavg-trial-1-seed-7": 0.2, "fedavg-trial-2-seed-7": 0.3, "fedavg-trial-3-seed-7": 0.9}
    first = Pool({"fedavg-trial-3-seed-7": "killed"}, mdsc)
    assert conductor(tmp_path / "out", first, TUNED).carry_out(tune=True).failed == {"fedavg-trial-3-seed-7": "killed"}
    outcome = conductor(tmp_path / "out", Pool(mdsc=mdsc), TUNED).carry_out(tune=True)
    assert not outcome.failed and outcome.runs[0].planned().settings.training.learning_rate == 0.5
    tuning = json.loads((tmp_path / "out_tuning" / "tuning.json").read_text())["fedavg"]
    assert [one["mdsc"] for one in tuning["scores"]] == [0.2, 0.3, 0.9]


def test_a_folder_without_trials_is_refused_before_the_trials(tmp_path) -> None:
    conductor(tmp_path / "out", Pool(), TUNED).carry_out()
    pool = Pool()
    with pytest.raises(FedMEPDError, match="fedavg-seed-0 was begun with another number of trials"):
        conductor(tmp_path / "out", pool, TUNED).carry_out(tune=True)
    assert pool.calls == []


def test_a_folder_named_by_a_dot(tmp_path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    conductor(Path("."), Pool(), TUNED).carry_out(tune=True)
    assert (tmp_path / "here_tuning" / "tuning.json").is_file() and (tmp_path / "here" / "fedavg-seed-0").is_dir()


def test_as_many_as_cores_and_memory_allow() -> None:
    plan = Plan.model_validate(PLAN)
    [run, *_] = runs_of(plan, next(plan.choices()), [0])
    cores, cpu = len(os.sched_getaffinity(0)), SiteSettings(device="cpu")
    assert how_many([run] * 64, 1, cpu) <= cores
    assert how_many([run] * 64, cores, cpu) == 1 == how_many([run], 1, cpu)
    paper = Plan.model_validate(
        PLAN | {"preset": "paper", "settings": {"training": {"crop": 256, "batch": 64}, "rounds": 2}}
    )
    assert how_many(runs_of(paper, next(paper.choices()), [0]) * 9, 1, cpu) == 1
    simulated = Plan.model_validate(PLAN | {"engine": "simulator"})
    assert how_many(runs_of(simulated, next(simulated.choices()), [0, 1]), 1, cpu) == 1


def test_same_bits_as_a_run_alone(tiny, tmp_path, monkeypatch) -> None:
    """Two runs side by side, in processes of their own, with the cases prepared before; one of them fails."""
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FEDMEPD_DEVICE", "cpu")
    own = settings("local", rounds=2).model_dump(mode="json")
    for key in ("method", "seed", "run_name", "trials"):
        own.pop(key)
    for key in ("threads", "fusion_threads"):
        own["training"].pop(key)
    hopeless = {"method": "local", "settings": {"aggregation": {"min_sites": 5}}}
    content = {"preset": "paper", "settings": own, "methods": ["fedavg", hopeless], "seeds": [0]}
    (tmp_path / "plan.yaml").write_text(json.dumps(content | {"data": str(tiny.machine.data)}))
    plan = read_plan(tmp_path / "plan.yaml", None)
    outcome = Conductor(plan, tmp_path / "out", SiteSettings.load(), at_once=2).carry_out()

    assert list(outcome.failed) == ["local-seed-0"] and "min_sites" in outcome.failed["local-seed-0"]
    assert RunFolder(tmp_path / "out" / "local-seed-0").failure() == outcome.failed["local-seed-0"]
    results = RunFolder(tmp_path / "out" / "fedavg-seed-0").results()
    assert results["status"] == "finished" and all(site["test_cases"] for site in results["sites"])

    [run, _] = [run for choice in plan.choices() for run in runs_of(plan, choice, [0])]
    wire = Wire("float16")
    alone = run_in_process(
        run.settings,
        tiny.machine.model_copy(update={"case_scores": "share"}),
        tmp_path / "alone",
        list(SITES),
        on_the_way=wire.update,
        on_the_way_down=wire.payload,
    )
    assert_same_run(tmp_path / "alone", tmp_path / "out" / "fedavg-seed-0" / "state", 2)
    for entry, same in zip([alone["server"], *alone["sites"]], [results["server"], *results["sites"]], strict=True):
        assert (entry["test"], entry["validation"]) == (same["test"], same["validation"])
    # Nothing was prepared twice: the runs found every case in the cache.
    log = (tmp_path / "out" / "fedavg-seed-0" / "log.txt").read_text()
    assert sum(": prepared " in line for line in log.splitlines()) == 3
    prepared = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "prepared").glob("*.pt")}
    first_round = (tmp_path / "out" / "fedavg-seed-0" / "state" / "site-1").stat()
    assert len(prepared) == 16 and max(prepared.values()) < first_round.st_mtime_ns


def test_a_run_of_a_version_without_some_setting_goes_on(tmp_path) -> None:
    """It counts as at its default; one that does not exist any more is named."""
    out = tmp_path / "out"
    conductor(out, Pool()).carry_out()
    file = out / "local-seed-0" / "run.json"
    task = json.loads(file.read_text())
    del task["settings"]["evaluation"]["pictures"]
    file.write_text(json.dumps(task))
    pool = Pool()
    conductor(out, pool).carry_out()
    assert pool.calls == []
    task["settings"]["evaluation"]["postcards"] = True
    file.write_text(json.dumps(task))
    with pytest.raises(FedMEPDError, match=r"local-seed-0 was begun by another version \(.*postcards"):
        conductor(out, pool).carry_out()
