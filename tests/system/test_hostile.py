"""A malicious site over FLARE's wire: the other one's run goes on, and says what was refused."""

from __future__ import annotations

import pytest

from fedmepd.storage import load_tensors
from tests.system.simulator import TINY, simulate

pytestmark = [pytest.mark.system, pytest.mark.slow]


def rounds_of(results: dict) -> dict[str, list[int]]:
    return {site["name"]: site["rounds_taken"] for site in results["sites"]}


def test_a_site_that_tries_to_end_the_run_of_all(tmp_path, cohort, cache) -> None:
    harm = {
        "1": "code UNSAFE_JOB",
        "2": "report",
        "3": "event _fatal_system_error",
        "4": "as site-1",
        "5": "reason",
        "6": "code TASK_UNKNOWN",
    }
    finished = simulate(
        tmp_path / "run",
        TINY | {"rounds": 7, "evaluation": TINY["evaluation"] | {"every": 7}},
        "-t",
        "2",
        data=cohort,
        cache=cache,
        faults={"site-2": harm},
    )
    print(finished.output)
    results = finished.results
    assert results["status"] == "finished"
    # The event does not harm its own update; everything else costs the site its round, and no one else's.
    assert rounds_of(results) == {"site-1": [1, 2, 3, 4, 5, 6, 7], "site-2": [3, 7]}
    [site] = [entry for entry in results["sites"] if entry["name"] == "site-2"]
    reasons = {entry["round"]: entry["reason"] for entry in site["rounds_missed"]}
    assert "UNSAFE_JOB" in reasons[1] and "losses.total" in reasons[2] and "comes from 'site-1'" in reasons[4]
    assert all(reason.isprintable() and len(reason) <= 300 for reason in reasons.values())
    assert r"\x1b[2J\nround 9: fine" in reasons[5]
    assert "\x1b[2J\nround 9" not in finished.output
    assert all(entry["test"] for entry in results["sites"])


def test_a_site_that_wants_to_own_the_model(tmp_path, cohort, cache) -> None:
    """By the size of its update, by a single filter, by the number of its cases."""
    finished = simulate(
        tmp_path / "run",
        TINY | {"rounds": 5, "evaluation": TINY["evaluation"] | {"every": 5}},
        "-t",
        "2",
        data=cohort,
        cache=cache,
        faults={"site-2": {"2": "huge", "3": "filter", "4": "cases"}},
    )
    print(finished.output)
    assert finished.results["status"] == "finished"
    assert rounds_of(finished.results) == {"site-1": [1, 2, 3, 4, 5], "site-2": [1, 2, 3, 5]}
    lines = [line for line in finished.output.splitlines() if "site-2" in line]
    for number, expected in ((2, "scaled down"), (3, "scaled down"), (4, "16384")):
        assert any(f"round {number}" in line and expected in line for line in lines), (number, expected)
    assert not any("scaled down" in line and "site-1" in line for line in finished.output.splitlines())


def test_a_site_that_wants_a_larger_weight(tmp_path, cohort, cache) -> None:
    """A round in which it hardly changes the decoder raises its weight H of the filters, up to the bound."""
    finished = simulate(
        tmp_path / "run",
        TINY
        | {
            "rounds": 4,
            "personalization": {"patience": 100, "warmup_rounds": 0, "weight_ema": 0.5, "weight_bound": 1.5},
            "evaluation": TINY["evaluation"] | {"every": 4},
        },
        "-t",
        "2",
        data=cohort,
        cache=cache,
        faults={"site-2": {"2": "weight", "3": "weight"}},
    )
    print(finished.output)
    assert finished.results["status"] == "finished"
    assert rounds_of(finished.results) == {site: [1, 2, 3, 4] for site in ("site-1", "site-2")}
    limited = [line for line in finished.output.splitlines() if "weight_bound limits its weights H" in line]
    assert limited and all("site-2" in line and "site-1" not in line for line in limited)
    filters = load_tensors(next(tmp_path.rglob("server_state.pt")))["method"]["filters"]
    assert filters["sites"] == ["site-1", "site-2"]
    # Of two sites, the lower weight is the median.
    weights = list(filters["state"]["weights"].values())
    assert all(bool((weight <= 1.5 * weight.amin(0) * (1 + 1e-6)).all()) for weight in weights)
    assert sum(float(weight[1].sum()) for weight in weights) > sum(float(weight[0].sum()) for weight in weights)


def test_a_site_that_refuses_every_job(tmp_path, cohort, cache) -> None:
    """It says that it cannot prepare: others start without it where the job says so."""
    finished = simulate(
        tmp_path / "run",
        TINY | {"aggregation": TINY["aggregation"] | {"refusals": "leave_out"}},
        "-t",
        "2",
        data=cohort,
        cache=cache,
        faults={"site-2": {"prepare": "reason"}},
    )
    print(finished.output)
    assert finished.results["status"] == "finished" and rounds_of(finished.results) == {"site-1": [1, 2]}
    assert r"site-2 cannot take part; the job starts without it: \x1b[2J\nround 9: fine" in finished.output
    [left_out] = finished.results["left_out"]
    assert left_out["name"] == "site-2" and left_out["reason"].startswith(r"\x1b[2J")
    assert "site-2: took no part (" in finished.output and "the other sites took part in every round" in finished.output


def test_a_site_that_does_not_prepare_in_time(tmp_path, cohort, cache) -> None:
    finished = simulate(
        tmp_path / "run",
        TINY | {"aggregation": TINY["aggregation"] | {"round_timeout": 60}},
        "-t",
        "2",
        data=cohort,
        cache=cache,
        faults={"site-2": {"prepare": "120"}},
    )
    print(finished.output)
    assert finished.results["status"] == "finished" and rounds_of(finished.results) == {"site-1": [1, 2]}
    assert "site-2: gone, or not prepared in time; the job starts without it" in finished.output


def test_a_site_that_prepares_in_another_ones_name(tmp_path, cohort, cache) -> None:
    finished = simulate(
        tmp_path / "run", TINY, "-t", "2", data=cohort, cache=cache, faults={"site-2": {"prepare": "as site-1"}}
    )
    print(finished.output)
    assert finished.results["status"] == "finished" and rounds_of(finished.results) == {"site-1": [1, 2]}
    assert "answer of site-2 refused: it says that it comes from 'site-1'" in finished.output
