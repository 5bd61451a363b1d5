from __future__ import annotations

from pathlib import Path

from benchmarks import endurance


def sample(number: int, server: float, site: float, files: int, disk: float) -> dict:
    return {
        "round": number,
        "rss_mib": {"server": server, "site-1": site},
        "files": {"server": files, "site-1": 5},
        "disk_mib": disk,
        "logs_mib": 2 * disk,
    }


def test_rows_by_hand() -> None:
    """What happens before round 10 does not count; a peak in between does."""
    samples = [
        sample(9, 50, 10, 3, 1),
        sample(10, 100, 200, 7, 40),
        sample(11, 104, 220, 9, 41),
        sample(12, 102, 190, 8, 44),
        # What is written once, in the last round, is no growth.
        sample(13, 102, 190, 8, 99),
    ]
    seconds = [90.0] * 9 + [4.0, 4.0, 9.0, 4.0]
    rows = {row["what"]: row for row in endurance.rows(samples, seconds)}
    assert [row["what"] for row in rows.values()] == list(rows) and len(rows) == 7
    memory = rows["server, memory MiB"]
    assert (memory["first"], memory["last"], memory["highest"], memory["met"]) == (100, 102, 104, True)
    assert round(memory["growth"], 6) == 0.04
    assert not rows["site-1, memory MiB"]["met"] and rows["site-1, memory MiB"]["highest"] == 220
    assert not rows["server, open files"]["met"] and rows["site-1, open files"]["met"]
    disk, logs = rows["disk of all but logs, MiB"], rows["logs of all, MiB"]
    assert (disk["first"], disk["last"], disk["met"]) == (40, 44, False)
    assert (logs["last"], logs["met"]) == (88, None)
    slowest = rows["seconds of a round"]
    assert (slowest["highest"], slowest["growth"], slowest["met"]) == (9.0, 9 / 4 - 1, False)


def test_size_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/one").write_bytes(b"x" * 1000)
    (tmp_path / "two").write_bytes(b"x" * 24)
    for name in ("log.txt", "log_fl.txt.1", "log.json", "audit.log"):
        (tmp_path / "a" / name).write_bytes(b"x" * 100)
    (tmp_path / "catalog.pt").write_bytes(b"x" * 10)
    assert endurance._sizes(tmp_path) == (1434, 400)
