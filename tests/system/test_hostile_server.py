"""A server that wants to harm a hospital, over the simulator's real wire: the hospital refuses, and goes on."""

import pytest

from fedmepd.federation.egress import read
from tests.system.simulator import TINY, simulate

pytestmark = [pytest.mark.system, pytest.mark.slow]


def test_a_hostile_server(tmp_path, cohort, cache):
    settings = TINY | {"rounds": 4, "aggregation": {"wire_precision": "float32", "min_sites": 1}}
    attack = {"site-1": {"1": "anchors", "2": "round", "3": "width"}}
    run = simulate(tmp_path / "w", settings, "-t", "2", data=cohort, cache=cache, attack=attack)
    assert run.code == 0, run.output
    site, other = run.results["sites"]
    assert (site["rounds_taken"], other["rounds_taken"]) == ([4], [1, 2, 3, 4])
    reasons = [missed["reason"] for missed in site["rounds_missed"]]
    assert "received anchors of level" in reasons[0] and "have shape (20000," in reasons[0]
    assert "the round is 1000000 in the job, limits.rounds is" in reasons[1]
    assert "received decoder.classify.weight of shape (4, 4096, 1, 1, 1)" in reasons[2]
    # What it told the server each time is on its list.
    left = read(tmp_path / "w/site-1/egress.jsonl")
    assert left.fault == ""
    told = [item.value for entry in left.entries for item in entry.items if item.kind == "reason"]
    assert all(text in reason for text, reason in zip(told, reasons, strict=True))
    assert [entry.code for entry in left.entries if entry.task == "train"] == ["EXECUTION_EXCEPTION"] * 3 + ["OK"]
