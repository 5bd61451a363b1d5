from __future__ import annotations

import json

import pytest

from benchmarks import startup


@pytest.mark.parametrize("way", ["plain", "product"])
def test_every_stage_takes_time(way: str) -> None:
    run = startup.start(way)
    assert run["way"] == way and run["seconds"].keys() == startup.STAGES.keys()
    assert all(seconds > 0 for seconds in run["seconds"].values()) and run["modules"] > 1000


def test_report(tmp_path, monkeypatch, capsys) -> None:
    """Of processes that take 4 s one way and 2 s the other."""

    def start(way: str) -> dict:
        each = {"plain": 4, "product": 2}[way] / len(startup.STAGES)
        return {"way": way, "seconds": dict.fromkeys(startup.STAGES, each), "processor": each, "modules": 7}

    monkeypatch.setattr(startup, "start", start)
    startup.main(["--pairs", "3", "--json", str(tmp_path / "startup.json")])
    report = json.loads((tmp_path / "startup.json").read_text())
    assert report["ratio"]["median"] == pytest.approx(2)
    assert {way: len(runs) for way, runs in report["runs"].items()} == {"plain": 3, "product": 3}
    (whole,) = [row for row in report["rows"] if row["stage"] == "all"]
    assert whole["product"]["median"] == pytest.approx(2) and whole["plain"]["highest"] == pytest.approx(4)
    assert "product: 2.00 s; target: at most 3 s: met" in capsys.readouterr().out
