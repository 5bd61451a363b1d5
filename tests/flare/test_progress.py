from fedmepd.flare.progress import lines_about, round_line

LIVE = {
    "phase": "sites train",
    "rounds": 20,
    "mdsc": {"site-1": 0.5, "site-2": 0.7, "fusion": 0.81},
    "personal_share": 0.125,
    "last_round": {
        "round": 3,
        "sites": 7,
        "missing": ["site-4"],
        "fused": True,
        "loss": 4.5678,
        "seconds": 12.34,
        "site_seconds": 9.96,
        "bytes_up": 1_250_000,
        "bytes_down": 40_000_000,
    },
}


def test_lines_of_a_round():
    assert round_line(LIVE) == (
        "round 3/20: 7 sites (without site-4), mean loss 4.568, mDSC of the sites 0.600, of the fusion site 0.810, "
        "personal 12.5%, 12.3 s (sites 10.0 s), MB up 1.2 down 40.0"
    )
    bare = {
        "round": 1,
        "sites": 2,
        "missing": [],
        "fused": False,
        "loss": None,
        "seconds": 1,
        "site_seconds": 0.5,
        "bytes_up": 0,
        "bytes_down": 0,
    }
    assert round_line({"rounds": 2, "mdsc": {}, "last_round": bare}) == (
        "round 1/2: 2 sites (without fusion training), 1.0 s (sites 0.5 s), MB up 0.0 down 0.0"
    )


def test_lines_of_phases():
    assert lines_about({}) == {}
    assert list(lines_about({"phase": "fusion training", "round": 0})) == ["round 0"]
    assert list(lines_about({"phase": "fusion training", "round": 1})) == []
    assert list(lines_about(LIVE)) == ["round 3"]
    assert list(lines_about(LIVE | {"phase": "testing"})) == ["round 3", "testing"]
