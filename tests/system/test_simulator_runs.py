"""Runs in FLARE's simulator that are killed, refused or lied to; from a folder of patients, and by job.py.

Beside test_simulator.py, so that two workers can share them.
"""

import json
import shutil
from collections import Counter
from types import SimpleNamespace

import psutil
import pytest

from fedmepd.cli import main
from fedmepd.data.manifest import read_manifest
from fedmepd.flare.simulator_runs import SimulatorRun, new_run
from fedmepd.tasks.brats import BRATS
from tests.system.conftest import CASES, write_cases
from tests.system.simulator import ROOT, SITES, TINY, assert_same, run, simulate, weights

pytestmark = pytest.mark.system


def test_killed_run_resumes_under_its_name_and_ends_with_the_same_weights(tmp_path, cohort, cache, reference):
    settings = TINY | {"run_name": "survivor"}
    killed = simulate(tmp_path / "w", settings, "-t", "2", data=cohort, cache=cache, kill_at="round 1/2:")
    assert "round 2/2:" not in killed.output
    resumed = simulate(tmp_path / "w", settings, "-t", "2", data=cohort, cache=cache)
    assert resumed.code == 0, resumed.output
    assert "continues after round" in resumed.output and "round 1/2:" not in resumed.output
    assert_same(weights(tmp_path / "w_runs/survivor", 2), reference[1])

    again = simulate(tmp_path / "w", settings, "-t", "2", data=cohort, cache=cache)
    assert again.code == 0, again.output
    assert "run 'survivor' is finished" in again.output and "round 2/2:" not in again.output
    assert again.results == resumed.results


def test_bad_data_at_a_site_ends_the_job_before_training(tmp_path, cohort, cache):
    data = tmp_path / "data"
    shutil.copytree(cohort, data)
    label = next((data / "site-2").glob("*/*_seg.nii.gz"))
    label.write_bytes(label.read_bytes()[:-20])
    finished = simulate(tmp_path / "w", TINY, "-t", "2", data=data, cache=cache)
    assert finished.code != 0
    (reason,) = [line for line in finished.output.splitlines() if "the job ends without training" in line]
    # The server learns which site and what, not which patient; the site's own line names the file's folder.
    assert "site-2" in reason and "unreadable file (1)" in reason and label.parent.name not in reason
    assert label.parent.name in finished.output
    assert "round 1/" not in finished.output and not list(finished.workspace.rglob("state_*.pt"))


@pytest.fixture(scope="module")
def split(tmp_path_factory, cache):
    """Sites made of a folder of patients by the commands of docs/data.md, and a run of them.

    A case of site 1 then loses its label, another one a modality. In round 1, site 2 answers in the name of site 1.
    """
    folder = tmp_path_factory.mktemp("split")
    write_cases(folder / "patients", "fusion", 11, first=CASES)
    plan = [("fusion", ["FLAIR", "T1ce", "T1", "T2"], 4), ("site-1", ["FLAIR", "T1ce"], 4), ("site-2", ["T2"], 3)]
    sites = {"sites": [{"name": name, "modalities": modalities, "cases": cases} for name, modalities, cases in plan]}
    (folder / "sites.yaml").write_text(json.dumps(sites))
    data = folder / "sites"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDMEPD_CACHE", str(cache))
        command = ["data", "split", str(folder / "patients"), str(data), "--sites", str(folder / "sites.yaml")]
        assert main(command) == 0
        cases, parts = read_manifest(BRATS, data / "site-1")
        kept, bare, partial, other = sorted(cases, key=lambda case: (parts[case.name] != "test", case.name))
        bare.label.unlink()
        partial.images["T1ce"].unlink()
        assert main(["data", "init", str(data / "site-1"), "--follow-links"]) == 0
        assert main(["data", "check", str(data)]) == 0
    liar = {"site-2": {"1": "as site-1"}}
    finished = simulate(folder / "w", TINY | {"seed": 7}, "-t", "2", data=data, cache=cache, faults=liar)
    assert finished.code == 0, finished.output
    return SimpleNamespace(finished=finished, data=data, kept=kept, other=other, parts=parts)


def test_sites_made_of_one_data_set_train(split):
    found = {site["name"]: site for site in split.finished.results["sites"]}
    for name in SITES:
        counts = Counter(part for part in read_manifest(BRATS, split.data / name)[1].values() if part)
        assert found[name]["cases"] == {part: counts[part] for part in ("train", "validation", "test")}
    assert sum(found["site-1"]["cases"].values()) == 3
    assert [found[name]["modalities"] for name in SITES] == [["FLAIR", "T1ce"], ["T2"]]
    after = read_manifest(BRATS, split.data / "site-1")[1]
    assert split.parts[split.kept.name] == after[split.kept.name] == "test" and split.other.name in split.parts


def test_site_that_answers_in_another_sites_name_is_refused(split):
    """Else it would have two votes: its own, and that of a site that is slower."""
    keys = ("rounds_taken", "rounds_missed")
    taken, missed = ({site["name"]: site[key] for site in split.finished.results["sites"]} for key in keys)
    assert taken == {"site-1": [1, 2], "site-2": [2]}
    [miss] = missed["site-2"]
    assert miss["round"] == 1 and "it says that it comes from 'site-1'" in miss["reason"]
    assert "answer of site-2 refused" in split.finished.output and not missed["site-1"]


def options_of(settings, path=()):
    """The settings as options of job.py."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from options_of(value, (*path, key))
        elif key not in ("method", "rounds", "width", "crop"):
            yield from ("--set", f"{'.'.join((*path, key))}={value}")


@pytest.mark.slow
def test_job_py_is_interrupted_though_a_script_has_started_it_and_goes_on(tmp_path, cohort, cache, reference):
    """To the same bits as without the interruption; what the first part has left stays."""
    workspace = tmp_path / "w"
    start = ["--rounds", "2", "--width", "4", "--crop", "16", "--data", str(cohort), *options_of(TINY)]
    command = [str(ROOT / "job.py"), "--workspace", str(workspace)]
    # The simulator, which is a process of its own, is at work then.
    where = {"data": tmp_path / "not used", "cache": cache}
    code, output = run([*command, *start], **where, interrupt_at="round 1/2:", seconds=120)
    resume = f"python job.py --resume --run-name brats-fedmepd-0-1 --workspace {workspace}"
    told = f"job.py: interrupted after round 1 of 2: everything is stopped; `{resume}` goes on"
    assert code == 130 and output.splitlines()[-1] == told, output
    mark = str(workspace)
    assert not [one for one in psutil.process_iter(["cmdline"]) if mark in " ".join(one.info["cmdline"] or ())]

    code, output = run([*command, "--resume"], **where)
    assert code == 0, output
    assert "continues after round 1" in output and "round 1/2:" not in output and "round 2/2:" in output
    results = json.loads((workspace / "latest/server/simulate_job/results/results.json").read_text())
    assert (results["status"], results["round"], len(results["sites"])) == ("finished", 2, 2)
    assert (workspace / "brats-fedmepd-0-1_runs/part-1/server/simulate_job/results/results.json").is_file()
    assert_same(weights(workspace / "brats-fedmepd-0-1_runs", 2), reference[1])
    for owner, model in (("server", "global_best.pt"), ("site-1", "model_best.pt")):
        assert (workspace / "latest" / owner / "simulate_job/fedmepd" / model).is_file()

    # The next run has a folder of its own.
    again = SimulatorRun(workspace / "brats-fedmepd-0-1").started_with()
    assert new_run(workspace, "brats-fedmepd-0", again).name == "brats-fedmepd-0-2"
