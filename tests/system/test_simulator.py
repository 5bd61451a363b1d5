"""Whole small federations in FLARE's simulator, against the same federation in one process without FLARE."""

import json

import pytest

from tests.federation.drive import without_times
from tests.system.simulator import SITES, TINY, assert_same, board, simulate, weights

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def parallel(tmp_path_factory, cohort, cache):
    folder = tmp_path_factory.mktemp("parallel")
    finished = simulate(folder / "w", TINY, "-t", "2", data=cohort, cache=cache, notes=folder / "opened")
    assert finished.code == 0, finished.output
    return finished


def test_simulator_gives_the_weights_and_results_of_one_process(parallel, reference):
    results, expected = reference
    assert_same(weights(parallel.workspace, 2), expected)
    assert without_times(parallel.results) == json.loads(json.dumps(without_times(results)))
    # A federation in which nothing became personal would not have tested the personal state.
    assert 0 < results["mean"]["personal_share"] < 1


def test_console_has_a_line_per_round_and_the_table(parallel):
    for text in ("round 1/2: 2 sites", "round 2/2: 2 sites", "mean of the sites", "FLAIR T1ce T1"):
        assert text in parallel.output
    assert "Traceback" not in parallel.output


def test_metrics_of_every_site_are_on_the_server(parallel):
    server = parallel.workspace / "server"
    for site in SITES:
        found = board(server, site).Tags()["scalars"]
        for tag in (
            "1_scores/validation_dice_WT",
            "2_training/loss_total",
            "3_personal_filters/share",
            "4_cost/bytes_up",
            "4_cost/bytes_down",
            "4_cost/seconds",
        ):
            assert tag in found, (site, tag)
    sent = board(server, "site-1").Scalars("4_cost/bytes_up")
    assert [event.step for event in sent] == [1, 2]
    assert 0 < sent[0].value < 4 * sum(tensor.numel() for tensor in weights(parallel.workspace, 2)["server"].values())
    # A map of filters, and no picture of a case.
    pictures = {run: board(server, run).Tags()["images"] for run in (*SITES, "fusion site", "federation")}
    federation = pictures.pop("federation")
    assert federation == ["3_personal_filters/by_site_and_layer"] and not any(pictures.values())
    assert [event.step for event in board(server, "federation").Images(federation[0])] == [2]


def test_pictures_of_cases_are_at_their_site_alone(parallel):
    for site in SITES:
        events = board(parallel.workspace / site, site)
        # Two test cases: none is left for the median.
        assert events.Tags()["images"] == [f"7_cases/overlay_{kind}" for kind in ("validation", "best", "worst")]
        assert [event.step for event in events.Scalars("2_training/loss_total")] == [1, 2]
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
    found, expected = (without_times(run.results) for run in (fused_at_a_site, parallel))
    for key in ("mean", "server", "sites"):
        assert found[key] == expected[key], key
    states = [path.relative_to(fused_at_a_site.workspace) for path in fused_at_a_site.workspace.rglob("fusion/*.pt")]
    assert states and all(path.parts[0] == "site-2" for path in states)


def test_the_server_opens_no_image_where_fusion_is_at_a_site(fused_at_a_site, parallel):
    assert "prepared" in (parallel.workspace.parent / "opened").read_text()
    assert (fused_at_a_site.workspace.parent / "opened").read_text() == ""


def test_fusion_at_a_site_is_counted_on_the_wire(fused_at_a_site, parallel):
    assert parallel.results["fusion"] == {"site": "", "bytes_up": 0, "bytes_down": 0}
    found = fused_at_a_site.results["fusion"]
    assert found["site"] == "site-2" and found["bytes_up"] > 0
    kept = weights(fused_at_a_site.workspace, 2)["server"].values()
    whole = 4 * sum(value.numel() for value in kept)
    # Rounds 0 to 2: up, weights and anchors each time; down, what changed. Scores of the last round cost nothing.
    assert 3 * whole <= found["bytes_up"] < 3.2 * whole and 2 * whole < found["bytes_down"] <= 3.2 * whole
