import json
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fedmepd.errors import DataError
from fedmepd.evaluation import results
from fedmepd.flare.simulator_folder import alone_in
from fedmepd.flare.simulator_runs import SimulatorRun, StartedWith
from tests.cli.test_rights import bound_by_rights
from tests.data.files import write_case
from tests.evaluation import runs

SCRIPT = Path(__file__).parents[2] / "job.py"


@pytest.fixture
def job(tmp_path, monkeypatch, capsys):
    """Runs job.py in a folder of its own; returns exit status, output and errors. Here, where FLARE is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDMEPD_DATA", raising=False)
    # The script sets it; what it was comes back after the test.
    monkeypatch.setenv("FEDMEPD_DEVICE", "")

    def command(*options):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return end.value.code, *capsys.readouterr()

    return command


def test_export_writes_the_job_into_the_named_folder(tmp_path):
    options = ("--method", "local", "--rounds", "3", "--fusion-site", "north")
    options = (*options, "--set", "data.phantom=hospitals", "--export", "there")
    done = subprocess.run([sys.executable, SCRIPT, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "there/local_brats/app/config/config_fed_server.json").read_text())
    settings = {"method": "local", "rounds": 3, "fusion": {"site": "north"}, "data": {"phantom": "hospitals"}}
    assert config["workflows"][0]["args"]["settings"] == settings
    # FLARE warns when it finds --export itself.
    assert "NVFlare reserves" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rounds", "0"), "rounds = 0"),
        (("--sites", "0"), "expected 1 or more"),
        (("--method", "sgd"), "invalid choice"),
        (("--sites", "2", "--fusion-site", "site-3"), "--fusion-site site-3: expected one of site-1, site-2"),
    ],
)
def test_bad_option_is_one_clear_line(job, tmp_path, options, message):
    status, _, errors = job(*options)
    assert status == 2 and message in errors.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_sites_are_those_of_the_folder(job, tmp_path):
    """A folder of a split, and one without manifests; phantoms have the protocol's names."""
    script = runpy.run_path(str(SCRIPT))["site_names"]
    for site in ("north", "south-10", "south-9", "fusion"):
        write_case(tmp_path / "data" / site, "a", ("T1",))
    (tmp_path / "data" / "notes").mkdir()
    assert script(str(tmp_path / "data"), None, {}) == ["north", "south-9", "south-10"]
    assert script(str(tmp_path / "data"), 2, {}) == ["north", "south-9"]
    with pytest.raises(DataError, match="--sites 4: .* holds 3 sites, north, south-9, south-10"):
        script(str(tmp_path / "data"), 4, {})
    assert script(None, None, {}) == [f"site-{number}" for number in range(1, 9)]


def test_a_folder_that_takes_no_part_is_named(tmp_path, capsys):
    """With the reason; what the system hides is nobody's."""
    script = runpy.run_path(str(SCRIPT))["site_names"]
    for site in ("north", "fusion"):
        write_case(tmp_path / "data" / site, f"of-{site}", ("T1",))
    (tmp_path / "data" / "Klinik K\u00f6ln").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "data" / "east").symlink_to(tmp_path / "empty")
    (tmp_path / "data" / ".git").mkdir()
    (tmp_path / "data" / "notes.txt").touch()
    assert script(str(tmp_path / "data"), None, {}) == ["north"]
    assert capsys.readouterr().err == (
        f"warning: the run goes on without what is no site in {tmp_path}/data: Klinik K\u00f6ln (it is empty); east (a "
        f"link to {tmp_path}/empty, which is empty)\n"
    )


def test_a_case_beside_the_sites_is_refused_before_anything_starts(job, tmp_path):
    for site in ("north", "south", "fusion"):
        write_case(tmp_path / "data" / site, f"of-{site}", ("T1",))
    write_case(tmp_path / "data", "case-99", ("T1",))
    status, _, errors = job("--data", "data")
    assert status == 2 and len(errors.splitlines()) == 1
    assert (
        f"{tmp_path}/data holds 2 sites (north, south), and images that belong to none: case-99 (images such as"
        in errors
    )


def test_the_same_folder_at_two_sites_is_refused_before_anything_starts(job, tmp_path):
    """Also where it is the fusion site's; and a name of patients that two sites have is only a warning."""
    write_case(tmp_path / "data" / "north", "a", ("T1",))
    (tmp_path / "data" / "fusion").symlink_to("north")
    before = sorted(tmp_path.rglob("*"))
    status, _, errors = job("--data", "data")
    assert status == 2 and len(errors.splitlines()) == 1
    assert f"job.py: {tmp_path}/data/north and {tmp_path}/data/fusion are the same folder" in errors
    assert sorted(tmp_path.rglob("*")) == before


def test_patients_of_the_same_names_are_told(tmp_path, capsys):
    script = runpy.run_path(str(SCRIPT))["site_names"]
    for site in ("north", "south", "fusion"):
        write_case(tmp_path / site, "a" if site != "fusion" else "b", ("T1",))
    assert script(str(tmp_path), None, {}) == ["north", "south"]
    told = capsys.readouterr().err
    assert told.startswith("warning: north and south have 1 patient in common by name and by a file of the same con")
    assert script(str(tmp_path), 1, {}) == ["north"] and capsys.readouterr().err == ""


def test_a_folder_that_is_no_federations_is_refused_before_anything_starts(job, tmp_path):
    """Cases that would be at all sites at a time among them."""
    write_case(tmp_path / "one" / "fusion", "a", ("T1",))
    write_case(tmp_path / "one", "b", ("T1",))
    write_case(tmp_path / "lacks" / "north", "a", ("T1",))
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.iterdir())
    for folder, message in {
        "nowhere": "nowhere is not there: expected a folder with one sub-folder for each site, and one named fusion",
        "file": "file is a file: expected a folder with one sub-folder for each site",
        "empty": "empty holds no sites: expected a folder with one sub-folder for each site",
        "one": "one holds no sites, but b (images such as b_seg.nii.gz lie directly in it, as in the folder of",
        "lacks": "lacks has no sub-folder fusion with the cases for fusion training: add one, or name the site",
    }.items():
        status, _, errors = job("--data", folder)
        assert status == 2 and message in errors.splitlines()[-1], folder
    script = runpy.run_path(str(SCRIPT))["site_names"]
    assert script(str(tmp_path / "lacks"), None, {"fusion": {"site": "north"}}) == ["north"]
    assert sorted(tmp_path.iterdir()) == before
    write_case(tmp_path / "lacks" / "Fusion", "b", ("T1",))
    with pytest.raises(DataError, match=r"none: Fusion \(its name is fusion but for upper and lower case: call it"):
        script(str(tmp_path / "lacks"), None, {})


def test_several_runs_go_on_where_one_was_interrupted(job, tmp_path):
    """The first run is finished; the second was interrupted. What follows it is known, also without a name."""
    runs_of = runpy.run_path(str(SCRIPT))
    options = ["--method", "local", "fedavg", "--seeds", "4", "5", "--workspace", "w"]
    arguments = runs_of["build_parser"]().parse_args(options)
    claimed = runs_of["claimed"](runs_of["planned"](arguments), tmp_path / "w", arguments)
    names = ["brats-local-4-1", "brats-local-5-1", "brats-fedavg-4-1", "brats-fedavg-5-1"]
    assert [run.name for run in claimed] == names
    assert [run.name for run in claimed[1].following()] == names[2:]
    for run in claimed:
        results.write(run.results, runs.finished(), {})
    claimed[1].become_latest()
    status, printed, _ = job("--resume", "--workspace", "w")
    assert status == 0
    assert [line.split(" ")[0].rsplit("/")[-1] for line in printed.splitlines()] == names[1:]
    # Another command's runs of the same methods have folders and a series of their own.
    again = runs_of["claimed"](runs_of["planned"](arguments), tmp_path / "w", arguments)
    assert [run.name for run in again[2].following()] == ["brats-fedavg-5-2"] and claimed[3].following() == []


@pytest.mark.parametrize(
    "series", ['["other"]', '["a", "gone", 3, null, "b"]', '{"a": 1}', "[", '["a", {"b": []}, "b"]']
)
def test_a_series_that_somebody_has_changed(series, tmp_path):
    """A run that was renamed, runs that were removed, or another kind of file: what is there goes on."""
    started = StartedWith("phantom", {"method": "local"}, ["site-1"], None)
    one, other = SimulatorRun(tmp_path / "w" / "a"), SimulatorRun(tmp_path / "w" / "b")
    assert one.claim(started) and other.claim(started)
    (one.kept / "series.json").write_text(series)
    assert [run.name for run in one.following()] == (["b"] if '"b"]' in series else [])


def finished(tmp_path, name, started, content=None):
    """What a run leaves that was started with this, in the workspace w."""
    run = SimulatorRun(tmp_path / "w" / name)
    assert run.claim(started)
    results.write(run.results, content or runs.finished(), {})
    return run


STARTED = StartedWith("phantom", {"method": "fedmepd", "run_name": "a"}, [f"site-{n}" for n in range(1, 9)], None)


def test_a_finished_run_is_left_as_it_is(job, tmp_path):
    run = finished(tmp_path, "a", STARTED)
    before = (run.results / "results.json").read_bytes()
    status, printed, _ = job("--run-name", "a", "--workspace", "w")
    assert status == 0 and f"{run.folder} is finished" in printed and "--fresh" in printed
    status, printed, _ = job("--resume", "--run-name", "a", "--workspace", "w")
    assert status == 0 and f"{run.folder} is finished" in printed
    assert (run.results / "results.json").read_bytes() == before and not list(run.kept.glob("part-*"))


def test_other_settings_under_a_name_that_is_there_are_a_choice(job, tmp_path):
    run = finished(tmp_path, "a", STARTED, runs.running())
    status, _, errors = job("--run-name", "a", "--workspace", "w", "--seed", "3")
    assert status == 2
    for text in ("seed was 0, now 3", "`python job.py --resume --run-name a --workspace w` goes on", "--fresh starts"):
        assert text in errors.splitlines()[-1]
    assert run.results.is_dir()


def test_something_else_under_the_runs_name_is_kept(job, tmp_path):
    (tmp_path / "w/a").mkdir(parents=True)
    (tmp_path / "w/a/thesis.tex").touch()
    status, _, errors = job("--run-name", "a", "--workspace", "w")
    assert status == 2 and "holds something else: choose another --run-name" in errors.splitlines()[-1]
    assert (tmp_path / "w/a/thesis.tex").exists()


def test_a_run_that_is_under_way_is_left_alone(job, tmp_path):
    run = finished(tmp_path, "a", STARTED, runs.running())
    with alone_in(run.folder):
        status, _, errors = job("--resume", "--run-name", "a", "--workspace", "w")
    assert status == 2 and "a run is under way in" in errors.splitlines()[-1]
    assert run.results.is_dir()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--resume", "--rounds", "3"), "--resume goes on with what the run was started with: leave out --rounds"),
        (("--resume", "--method", "local"), "leave out --method"),
        (("--resume", "--preset", "phantom"), "leave out --preset"),
        (("--resume", "--method", "fedmepd"), "leave out --method"),
        (("--resume", "--set", "rounds=3"), "leave out --set"),
        (("--resume",), "holds no run to go on with"),
        (("--export", "e", "--data", "d"), "--export only writes a job: leave out --data; each machine says so itself"),
        (("--export", "e", "--device", "cpu"), "leave out --device; each machine says so itself, in FEDMEPD_DEVICE or"),
        (("--export", "e", "--sites", "8"), "leave out --sites; that is up to whoever runs the job"),
        (("--export", "e", "--threads", "2"), "leave out --threads"),
        (("--export", "e", "--workspace", "w"), "leave out --workspace"),
        (("--export", "e", "--fresh"), "leave out --fresh"),
        (("--export", "e", "--resume"), "leave out --resume"),
        (("--resume", "--run-name", "b"), "there is no run b to go on with"),
        (("--resume", "--fresh"), "not allowed with argument"),
        (("--seed", "1", "--seeds", "2", "3"), "not allowed with argument"),
        (("--set", "training.epochs=2"), "unknown key training.epochs"),
        (("--set", "training.local_epochs=0"), "training.local_epochs = 0"),
        (("--set", "seed=3"), "--set seed=3: say --seed"),
        (("--method", "local", "fedmepd", "--set", "calibration.anchor_cases=3"), "is a setting of fed"),
        (("--run-name", "a b"), "run_name = 'a b': expected at most 64 letters, digits"),
        (("--preset", "paper"), "there are no cases: name their folder with --data"),
        (("--set", "task=prostate"), "there are no phantoms of task prostate"),
        (("--fusion-site", "a b"), "fusion.site = 'a b': expected at most 64 letters, digits"),
        (("--device", "tpu"), "device 'tpu' does not exist on this machine: expected one of auto, cpu"),
        (("--set", "data.phantom=wild"), "data.phantom = 'wild': expected true (the cohort mild), false or"),
    ],
)
def test_options_that_cannot_be(job, tmp_path, options, message):
    """Of several runs none is started if one cannot be."""
    status, _, errors = job(*options)
    assert status == 2 and message in errors.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_the_help_says_which_options_exclude_each_other():
    """Those that the test above finds refused, and those that it does not."""
    helps = {action.dest: action.help for action in runpy.run_path(str(SCRIPT))["build_parser"]()._actions}
    for option in ("--data", "--device", "--sites", "--threads", "--workspace", "--fresh", "--resume"):
        assert option in helps["export"].partition("not together with")[2]
    assert helps["resume"].endswith("together with --run-name, --workspace, --threads, --device alone")
    assert helps["data"].endswith("not together with --export, --resume or --set data.phantom=...")


def test_several_jobs_are_written_under_names_of_their_own(job, tmp_path):
    status, printed, _ = job("--method", "local", "fedavg", "--seeds", "4", "5", "--set", "rounds=3", "--export", "e")
    assert status == 2
    status, printed, _ = job("--method", "local", "fedavg", "--seeds", "4", "5", "--rounds", "3", "--export", "e")
    assert status == 0
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == [
        f"{method}_brats-{seed}" for method in ("fedavg", "local") for seed in (4, 5)
    ]
    config = json.loads((tmp_path / "e/local_brats-5/app/config/config_fed_server.json").read_text())
    assert config["workflows"][0]["args"]["settings"] == {"method": "local", "rounds": 3, "seed": 5}


def test_several_jobs_are_runs_of_names_of_their_own(job, tmp_path):
    """A server would take two jobs of one run's name for the same run with other settings."""
    assert job("--method", "local", "--seeds", "4", "5", "--run-name", "a", "--export", "e")[0] == 0
    assert job("--method", "local", "--run-name", "a", "--export", "one")[0] == 0
    configs = [
        tmp_path / folder / "app/config/config_fed_server.json" for folder in ("e/local_brats-5", "one/local_brats")
    ]
    settings = [json.loads(config.read_text())["workflows"][0]["args"]["settings"] for config in configs]
    assert [each["run_name"] for each in settings] == ["a-local-5", "a"]


@pytest.mark.parametrize("by", ["option", "variable"])
def test_phantoms_and_cases_at_once_are_refused(by, job, tmp_path, monkeypatch):
    for site in ("north", "fusion"):
        write_case(tmp_path / "data" / site, "a", ("T1",))
    options = ("--data", "data")
    if by == "variable":
        monkeypatch.setenv("FEDMEPD_DATA", str(tmp_path / "data"))
        options = ()
    status, _, errors = job("--set", "data.phantom=hospitals", *options)
    where = "--data data" if options else f"FEDMEPD_DATA={tmp_path / 'data'}"
    assert status == 2
    assert f'data.phantom="hospitals": phantoms are made where there are no cases, but {where} names some' in errors


def test_a_blank_in_the_workspace_is_one_clear_line(job, tmp_path):
    status, _, errors = job("--workspace", "my runs")
    assert status == 2 and "has a blank in it" in errors.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_the_right_to_it_is_one_clear_line(job):
    folder = Path(tempfile.mkdtemp())
    try:
        # What is imported late is imported with all rights.
        assert "the right to" not in job("--data", str(folder / "sites"))[2]
        folder.chmod(0)
        with bound_by_rights():
            status, _, errors = job("--data", str(folder / "sites"))
    finally:
        shutil.rmtree(folder)
    assert status == 2 and "the right to" in errors.splitlines()[-1]
