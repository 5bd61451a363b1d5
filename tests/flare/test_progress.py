"""Lines about a job's progress."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from fedmepd.flare.progress import duration, lines_about, plan_lines, round_line
from fedmepd.job_settings import make_settings

LAST = {
    "round": 3,
    "sites": 7,
    "missing": ["site-4"],
    "fused": True,
    "loss": 4.5678,
    "seconds": 12.34,
    "site_seconds": 9.06,
    "bytes_up": 2_500_000,
    "bytes_down": 1_000_000,
}
LIVE = {
    "phase": "sites train",
    "rounds": 20,
    "mdsc": {"site-1": 0.5, "site-2": 0.7, "fusion": 0.81},
    "personal_share": 0.125,
    "last_round": LAST,
}


def test_a_round():
    assert round_line(LIVE) == (
        "round 3/20: 7 sites (without site-4), mean loss 4.568, mDSC of the sites 0.600, of the fusion site 0.810, "
        "personal 12.5%, 12.3 s (sites 9.1 s), MB up 2.5 down 1.0"
    )


def test_a_round_of_which_little_is_known():
    bare = LAST | {"missing": [], "fused": False, "loss": None}
    assert round_line({"rounds": 3, "mdsc": {}, "last_round": bare}) == (
        "round 3/3: 7 sites (without fusion training), 12.3 s (sites 9.1 s), MB up 2.5 down 1.0"
    )
    # A site whose score is that of too few cases tells none.
    withheld = LIVE | {"mdsc": {"site-1": None, "site-2": 0.7, "fusion": None}}
    assert "mDSC of the sites 0.700, personal" in round_line(withheld)
    away = LAST | {"fused": False}
    assert "7 sites (without site-4, fusion training), mean" in round_line(LIVE | {"last_round": away})


def test_time_left():
    assert round_line(LIVE | {"seconds_left": 754.3}).endswith(", MB up 2.5 down 1.0; 13 min of rounds left")
    assert "left" not in round_line(LIVE | {"seconds_left": 0})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (3569, "59 min"), (3600, "1 h 0 min"), (12_000, "3 h 20 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_what_is_going_to_happen():
    settings = make_settings("phantom", {"rounds": 12})
    first, second = plan_lines(settings, Path("/w/results"))
    assert "rounds 1 to 12, validation every 5 rounds; a test" in first and second.endswith(": /w/results")
    every = make_settings("phantom", {"evaluation": {"every": 1}})
    assert "rounds 1 to 20, validation after every round" in plan_lines(every, Path("/w"))[0]
    # The last round always validates; it may be the only one.
    assert "rounds 1 to 4, validation after the last; a test" in of_rounds(4)
    assert "trains; round 1, validation after the last; a test" in of_rounds(1)


def of_rounds(rounds: int) -> str:
    return plan_lines(make_settings("phantom", {"rounds": rounds}), Path("/w"))[0]


@pytest.mark.parametrize(
    ("live", "events"),
    [
        ({}, []),
        ({"phase": "fusion training", "round": 0}, ["round 0"]),
        ({"phase": "fusion training", "round": 4}, []),
        (LIVE | {"phase": "testing"}, ["round 3", "testing"]),
    ],
)
def test_events(live, events):
    assert list(lines_about(live)) == events


@pytest.mark.parametrize("live", [LIVE, LIVE | {"last_round": None, "phase": "testing", "seconds_left": 30}])
def test_every_value_may_be_anything(live):
    """Whoever follows a job reads what a server says: lines, or one kind of error."""
    places = [(key,) for key in live] + [("last_round", key) for key in live["last_round"] or ()]
    refused = 0
    for place in places:
        for value in (None, -1, "x\x1b", [1], {"a": [2]}, 1e400, 10**400, True):
            content = json.loads(json.dumps(live))
            inner = content if len(place) == 1 else content[place[0]]
            inner[place[-1]] = value
            try:
                assert all(isinstance(line, str) for line in lines_about(content).values())
            except ValidationError:
                refused += 1
    assert refused > len(places)
