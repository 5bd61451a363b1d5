from fedmepd.flare.poc.progress import lines_about, round_line

LAST = {"round": 3, "sites": 7, "missing": ["site-4"], "loss": 4.5678, "seconds": 12.34}
LIVE = {
    "phase": "sites train",
    "rounds": 20,
    "mdsc": {"site-1": 0.5, "site-2": 0.7, "fusion": 0.81},
    "personal_share": 0.125,
    "last_round": LAST,
}


def test_lines_of_a_round():
    assert round_line(LAST, LIVE) == (
        "round 3/20: 7 sites (without site-4), mean loss 4.568, mDSC of the sites 0.600, of the server 0.810, "
        "personal 12.5%, 12.3 s"
    )
    bare = {"round": 1, "sites": 2, "missing": [], "loss": None, "seconds": 1}
    assert round_line(bare, {"rounds": 2, "mdsc": {}}) == "round 1/2: 2 sites, 1.0 s"


def test_lines_of_phases():
    assert lines_about({}) == {}
    assert list(lines_about({"phase": "fusion training", "round": 0})) == ["round 0"]
    assert list(lines_about({"phase": "fusion training", "round": 1})) == []
    assert list(lines_about(LIVE)) == ["round 3"]
    assert list(lines_about(LIVE | {"phase": "testing"})) == ["round 3", "testing"]
