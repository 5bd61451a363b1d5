"""Whole small federations in FLARE's simulator, against the same federation in one process without FLARE."""

import json
import shutil
from collections import Counter

import pytest

from fedmepd.cli import main
from fedmepd.data.manifest import read_manifest
from fedmepd.tasks.brats import BRATS
from tests.system.conftest import CASES, write_cases
from tests.system.simulator import ROOT, SITES, TINY, assert_same, in_process, run, simulate, weights

pytestmark = pytest.mark.system
_ROUNDS = ("rounds_taken", "rounds_missed")


def without_times(results):
    return {key: value for key, value in results.items() if key not in ("seconds", "timing")}


@pytest.fixture(scope="module")
def parallel(tmp_path_factory, cohort, cache):
    folder = tmp_path_factory.mktemp("parallel")
    finished = simulate(folder / "w", TINY, "-t", "2", data=cohort, cache=cache, notes=folder / "opened")
    assert finished.code == 0, finished.output
    return finished


def test_simulator_gives_the_weights_and_results_of_one_process(parallel, tmp_path, cohort, cache):
    results, expected = in_process(tmp_path, TINY, cohort, cache)
    assert_same(weights(parallel.workspace, 2), expected)
    assert without_times(parallel.results) == json.loads(json.dumps(without_times(results)))
    # A federation in which nothing became personal would not have tested the personal state.
    assert 0 < results["mean"]["personal_share"] < 1


def test_console_has_a_line_per_round_and_the_table(parallel):
    for text in ("round 1/2: 2 sites", "round 2/2: 2 sites", "mean of the sites", "FLAIR T1ce T1"):
        assert text in parallel.output
    assert "Traceback" not in parallel.output


def board(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (place,) = {path.parent for path in folder.rglob("events.out.tfevents.*")}
    return EventAccumulator(str(place)).Reload()


def test_metrics_of_every_site_are_on_the_server(parallel):
    events = board(parallel.workspace / "server")
    for tag in ("loss_total", "validation_dice_WT", "personal_share", "bytes_up", "bytes_down", "seconds"):
        for site in SITES:
            assert f"{site}/{tag}" in events.Tags()["scalars"]
    assert [event.step for event in events.Scalars("site-1/bytes_up")] == [1, 2]
    sent = sum(tensor.numel() for tensor in weights(parallel.workspace, 2)["server"].values())
    assert 0 < events.Scalars("site-1/bytes_up")[0].value < 4 * sent
    # A map of filters, and no picture of a case.
    assert events.Tags()["images"] == ["federation/personal_filters"]
    assert [event.step for event in events.Images("federation/personal_filters")] == [2]


def test_pictures_of_cases_are_at_their_site_alone(parallel):
    for site in SITES:
        events = board(parallel.workspace / site)
        # Two test cases: none is left for the median.
        assert events.Tags()["images"] == [f"{site}/overlay_{kind}" for kind in ("validation", "best", "worst")]
        assert [event.step for event in events.Scalars(f"{site}/loss_total")] == [1, 2]
        folder = parallel.workspace / site / "simulate_job/fedmepd"
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")} == {
            "overlays/best.png",
            "overlays/worst.png",
            "overlays/validation/median.png",
        }
    assert not list((parallel.workspace / "server").rglob("*.png"))


def test_time_of_every_round_is_in_the_results(parallel):
    timing = parallel.results["timing"]
    assert [record["round"] for record in timing["rounds"]] == [0, 1, 2]
    for record in timing["rounds"]:
        parts = {key: value for key, value in record.items() if isinstance(value, float) and key != "total"}
        assert all(value >= 0 for value in parts.values())
        # Each is rounded to a millisecond.
        assert record["total"] == pytest.approx(sum(parts.values()), abs=0.01)
    assert timing["rounds"][0]["start_up"] > 0 and timing["rounds"][0]["fusion_training"] > 0
    for record in timing["rounds"][1:]:
        assert record["last_site"] in SITES
        assert min(record[phase] for phase in ("site_training", "transfer", "fusion_training", "saving")) > 0
    # Rounds that are validated have that time, others have not.
    assert [record["site_evaluation"] > 0 for record in timing["rounds"]] == [False, False, True]
    assert set(timing["start_up_of_sites"]) == set(SITES)
    assert parallel.results["seconds"] == pytest.approx(sum(timing["seconds"].values()), abs=0.01)


@pytest.mark.slow
def test_new_process_for_every_round_gives_the_same_weights(parallel, tmp_path, cohort, cache):
    bare = simulate(tmp_path / "w", TINY, data=cohort, cache=cache)
    assert bare.code == 0, bare.output
    assert_same(weights(bare.workspace, 2), weights(parallel.workspace, 2))


def test_killed_run_resumes_under_its_name_and_ends_with_the_same_weights(tmp_path, cohort, cache):
    settings = TINY | {"rounds": 3, "run_name": "survivor"}
    killed = simulate(tmp_path / "w", settings, "-t", "2", data=cohort, cache=cache, kill_at="round 1/3:")
    assert "round 2/3:" not in killed.output
    resumed = simulate(tmp_path / "w", settings, "-t", "2", data=cohort, cache=cache)
    assert resumed.code == 0, resumed.output
    assert "continues after round" in resumed.output and "round 1/3:" not in resumed.output
    _, expected = in_process(tmp_path / "once", settings, cohort, cache)
    assert_same(weights(tmp_path / "w_runs/survivor", 3), expected)

    again = simulate(tmp_path / "w", settings, "-t", "2", data=cohort, cache=cache)
    assert again.code == 0, again.output
    assert "run 'survivor' is finished" in again.output and "round 3/3:" not in again.output
    assert again.results == resumed.results


def test_bad_data_at_a_site_ends_the_job_before_training(tmp_path, cohort, cache):
    data = tmp_path / "data"
    shutil.copytree(cohort, data)
    label = next((data / "site-2").glob("*/*_seg.nii.gz"))
    label.write_bytes(label.read_bytes()[:-20])
    finished = simulate(tmp_path / "w", TINY, "-t", "2", data=data, cache=cache)
    assert finished.code != 0
    (reason,) = [line for line in finished.output.splitlines() if "no training was started" in line]
    # The server learns which site and what, not which patient; the site's own line names the file's folder.
    assert "site-2" in reason and "unreadable file (1)" in reason and label.parent.name not in reason
    assert label.parent.name in finished.output
    assert "round 1/" not in finished.output and not list(finished.workspace.rglob("state_*.pt"))


@pytest.fixture(scope="module")
def fused_at_a_site(tmp_path_factory, cohort, cache):
    settings = TINY | {"fusion": {"site": "site-2"}}
    folder = tmp_path_factory.mktemp("there")
    options = {"data": cohort, "cache": cache, "notes": folder / "opened"}
    finished = simulate(folder / "w", settings, "-t", "2", **options)
    assert finished.code == 0, finished.output
    return finished


def test_fusion_at_a_site_gives_the_weights_of_fusion_at_the_server(fused_at_a_site, parallel):
    assert_same(weights(fused_at_a_site.workspace, 2), weights(parallel.workspace, 2))
    for key in ("mean", "server", "sites"):
        assert fused_at_a_site.results[key] == parallel.results[key], key
    states = [path.relative_to(fused_at_a_site.workspace) for path in fused_at_a_site.workspace.rglob("fusion/*.pt")]
    assert states and all(path.parts[0] == "site-2" for path in states)


def test_the_server_opens_no_image_where_fusion_is_at_a_site(fused_at_a_site, parallel):
    assert "fusion" in (parallel.workspace.parent / "opened").read_text()
    assert (fused_at_a_site.workspace.parent / "opened").read_text() == ""


def test_fusion_at_a_site_is_counted_on_the_wire(fused_at_a_site, parallel):
    assert parallel.results["fusion"] == {"site": "", "bytes_up": 0, "bytes_down": 0}
    found = fused_at_a_site.results["fusion"]
    assert found["site"] == "site-2" and found["bytes_up"] > 0
    kept = weights(fused_at_a_site.workspace, 2)["server"].values()
    whole = 4 * sum(value.numel() for value in kept)
    # Rounds 0 to 2: up, weights and anchors each time; down, what changed. Scores of the last round cost nothing.
    assert 3 * whole <= found["bytes_up"] < 3.2 * whole and 2 * whole < found["bytes_down"] <= 3.2 * whole


def test_site_that_answers_in_another_sites_name_is_refused(tmp_path, cohort, cache):
    """Else it would have two votes: its own, and that of a site that is slower."""
    liar = {"site-2": {"1": "as site-1"}}
    finished = simulate(tmp_path / "w", TINY, "-t", "2", data=cohort, cache=cache, faults=liar)
    assert finished.code == 0, finished.output
    taken, missed = ({site["name"]: site[key] for site in finished.results["sites"]} for key in _ROUNDS)
    assert taken == {"site-1": [1, 2], "site-2": [2]}
    [miss] = missed["site-2"]
    assert miss["round"] == 1 and "it says that it comes from 'site-1'" in miss["reason"]
    assert "answer of site-2 refused" in finished.output and not missed["site-1"]


def test_sites_made_of_one_data_set_train(tmp_path, cache, monkeypatch, capsys):
    """From a folder of patients to models, by the commands of docs/data.md.

    A case of site 1 then loses its label, another one a modality.
    """
    monkeypatch.setenv("FEDMEPD_CACHE", str(cache))
    write_cases(tmp_path / "patients", "fusion", 11, first=CASES)
    plan = [("fusion", ["FLAIR", "T1ce", "T1", "T2"], 4), ("site-1", ["FLAIR", "T1ce"], 4), ("site-2", ["T2"], 3)]
    sites = {"sites": [{"name": name, "modalities": modalities, "cases": cases} for name, modalities, cases in plan]}
    (tmp_path / "sites.yaml").write_text(json.dumps(sites))
    data = tmp_path / "sites"
    assert main(["data", "split", str(tmp_path / "patients"), str(data), "--sites", str(tmp_path / "sites.yaml")]) == 0
    cases, parts = read_manifest(BRATS, data / "site-1")
    kept, bare, partial, other = sorted(cases, key=lambda case: (parts[case.name] != "test", case.name))
    bare.label.unlink()
    partial.images["T1ce"].unlink()
    assert main(["data", "init", str(data / "site-1"), "--follow-links"]) == 0
    assert main(["data", "check", str(data)]) == 0, capsys.readouterr()

    finished = simulate(tmp_path / "w", TINY | {"seed": 7}, "-t", "2", data=data, cache=cache)
    assert finished.code == 0, finished.output
    found = {site["name"]: site for site in finished.results["sites"]}
    for name in SITES:
        counts = Counter(part for part in read_manifest(BRATS, data / name)[1].values() if part)
        assert found[name]["cases"] == {part: counts[part] for part in ("train", "validation", "test")}
    assert sum(found["site-1"]["cases"].values()) == 3
    assert [found[name]["modalities"] for name in SITES] == [["FLAIR", "T1ce"], ["T2"]]
    assert parts[kept.name] == read_manifest(BRATS, data / "site-1")[1][kept.name] == "test" and other.name in parts


def test_job_py_runs_the_recipe(tmp_path, cohort, cache):
    options = ["--rounds", "1", "--sites", "2", "--width", "4", "--crop", "24"]
    command = [str(ROOT / "job.py"), *options, "--workspace", str(tmp_path), "--data", str(cohort), "--device", "cpu"]
    code, output = run(command, data=tmp_path / "not used", cache=cache)
    assert code == 0, output
    results = json.loads((tmp_path / "fedmepd_brats/server/simulate_job/results/results.json").read_text())
    assert (results["status"], results["round"], len(results["sites"])) == ("finished", 1, 2)
    assert results["settings"]["network"]["width"] == 4 and results["settings"]["training"]["crop"] == 24
