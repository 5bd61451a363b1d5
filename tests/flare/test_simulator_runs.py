"""A folder for every run of job.py; tests/flare/test_job_script.py has the command, tests/system real runs."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from fedmepd.errors import FedMEPDError
from fedmepd.evaluation import results
from fedmepd.flare.simulator_runs import Progress, SimulatorRun, StartedWith, latest_run, new_run
from tests.evaluation import runs


def started(**settings):
    return StartedWith("phantom", settings, ["site-1", "site-2"], None)


def test_numbers_that_are_free(tmp_path):
    (tmp_path / "brats-local-0-1").mkdir()
    (tmp_path / "brats-local-0-3_runs").mkdir()
    made = [new_run(tmp_path, "brats-local-0", started(method="local")).name for _ in range(3)]
    assert made == ["brats-local-0-2", "brats-local-0-4", "brats-local-0-5"]
    again = SimulatorRun(tmp_path / "brats-local-0-4").started_with()
    assert again == started(method="local", run_name="brats-local-0-4")


def test_runs_that_begin_at_the_same_time(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: new_run(tmp_path / "w", "a", started()).name, range(8)))
    assert sorted(names) == [f"a-{number}" for number in range(1, 9)]


def test_a_name_is_claimed_once(tmp_path):
    run = SimulatorRun(tmp_path / "trial")
    assert not run.exists and run.claim(started()) and run.exists
    assert not run.claim(started())
    (tmp_path / "other").mkdir()
    other = SimulatorRun(tmp_path / "other")
    assert not other.claim(started()) and not other.exists
    with pytest.raises(FedMEPDError, match="^there is no run other to go on with: .*other_runs/job.json"):
        other.started_with()


def test_a_workspace_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FedMEPDError, match="choose another --workspace"):
        new_run(tmp_path / "file", "a", started())


def test_a_name_that_no_run_can_have_leaves_nothing(tmp_path):
    with pytest.raises(FedMEPDError, match="run_name"):
        new_run(tmp_path, "a" * 64, started())
    assert list(tmp_path.iterdir()) == []


def test_no_run_is_named_as_the_link_to_the_last(tmp_path):
    """The link would lead to itself."""
    with pytest.raises(FedMEPDError, match="a run cannot be named latest"):
        SimulatorRun(tmp_path / "latest").claim(started(run_name="latest"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_different():
    first, second = started(rounds=2), StartedWith("phantom", {"rounds": 3, "seed": 4}, ["site-1"], "/data")
    assert first.differences(first) == []
    found = " ".join(first.differences(second))
    for text in ("rounds was 2, now 3", "seed was 0, now 4", "sites was", "data was None, now '/data'"):
        assert text in found


def test_how_far_a_run_is_also_when_it_goes_on(tmp_path):
    run = SimulatorRun(tmp_path / "a")
    run.claim(started())
    assert run.progress() is None and run.set_aside() is None
    results.write(run.results, runs.running(), {})
    (run.results / "report").mkdir()
    expected = runs.running()
    assert run.progress() == Progress(expected["round"], expected["rounds"], False)
    assert run.set_aside() == run.kept / "part-1"
    # Nothing of it is gone, the report neither.
    assert not run.folder.exists() and (run.kept / "part-1/server/simulate_job/results/report").is_dir()
    assert run.progress() == Progress(expected["round"], expected["rounds"], False)
    results.write(run.results, runs.finished(), {})
    assert run.progress().finished
    assert run.set_aside() == run.kept / "part-2" and run.progress().finished


def test_the_latest(tmp_path):
    with pytest.raises(FedMEPDError, match="holds no run to go on with"):
        latest_run(tmp_path)
    for name in ("a", "b"):
        run = SimulatorRun(tmp_path / name)
        run.claim(started())
        run.folder.mkdir()
        run.become_latest()
    assert os.readlink(tmp_path / "latest") == "b" and latest_run(tmp_path).folder == tmp_path / "b"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a_runs", "b", "b_runs", "latest"]


def test_somebody_elses_latest_stays(tmp_path):
    (tmp_path / "latest").write_text("mine")
    run = SimulatorRun(tmp_path / "a")
    run.claim(started())
    run.become_latest()
    assert (tmp_path / "latest").read_text() == "mine"


def test_a_run_that_is_not_there_is_answered_with_those_that_can_go_on(tmp_path):
    for number in range(8):
        run = SimulatorRun(tmp_path / f"trial-{number}")
        run.claim(started())
        os.utime(run.kept / "job.json", (number, number))
    results.write(SimulatorRun(tmp_path / "trial-7").results, runs.finished(), {})
    results.write(SimulatorRun(tmp_path / "trial-5").results, done := runs.running(), {})
    with pytest.raises(FedMEPDError) as error:
        SimulatorRun(tmp_path / "trial-66").started_with()
    none = "(no round is finished)"
    assert str(error.value).endswith(
        f"; the newest that can go on: trial-6 {none}, trial-5 (round {done['round']} of "
        f"{done['rounds']}), trial-4 {none}, trial-3 {none}, trial-2 {none}; did you mean trial-6?"
    )
    with pytest.raises(FedMEPDError, match="holds no run to go on with: .*; the newest that can go on: tri"):
        latest_run(tmp_path)


def test_a_workspace_that_is_misspelt(tmp_path):
    (tmp_path / "workspace").mkdir()
    with pytest.raises(FedMEPDError, match="holds no run.*; did you mean .*/workspace?"):
        latest_run(tmp_path / "worspace")
